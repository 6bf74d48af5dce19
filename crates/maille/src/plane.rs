//! Which proxy carries the traffic: `--proxy`.

use std::path::PathBuf;

use maille_agent::sidecar::DataPlane;

/// A choice of proxy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Plane {
    /// Ours.
    Maille,
    /// A real Envoy: the one at this path, else `$ENVOY`, else `envoy` on the PATH.
    Envoy(Option<PathBuf>),
}

/// `maille`, `envoy` or `envoy=PATH`.
pub(crate) fn sidecar(text: &str) -> Result<Plane, String> {
    match text.split_once('=') {
        None if text == "maille" => Ok(Plane::Maille),
        None if text == "envoy" => Ok(Plane::Envoy(None)),
        Some(("envoy", path)) if !path.is_empty() => Ok(Plane::Envoy(Some(path.into()))),
        _ => Err("expected maille, envoy, or envoy=PATH".to_owned()),
    }
}

/// The same, or `none`.
pub(crate) fn gateway(text: &str) -> Result<Option<Plane>, String> {
    match text {
        "none" => Ok(None),
        text => sidecar(text).map(Some).map_err(|_| "expected maille, envoy, envoy=PATH, or none".to_owned()),
    }
}

impl From<Plane> for DataPlane {
    fn from(plane: Plane) -> Self {
        match plane {
            Plane::Maille => Self::Maille,
            Plane::Envoy(path) => Self::Envoy(path),
        }
    }
}
