//! What the control plane sent, as it was sent: for whoever asks what is in force, and what was refused and why.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use maille_xds::{Resource, TypeUrl};

/// Everything that was sent and still counts.
#[derive(Default)]
pub(crate) struct Kept {
    types: BTreeMap<TypeUrl, Kind>,
}

/// The resources of one type.
#[derive(Default)]
pub(crate) struct Kind {
    pub(crate) resources: BTreeMap<Arc<str>, Sent>,
    pub(crate) tally: Tally,
}

/// One resource: what is in force, and what was refused since.
#[derive(Default)]
pub(crate) struct Sent {
    pub(crate) taken: Option<Version>,
    pub(crate) refused: Option<(Version, String)>,
}

/// A resource as it came.
#[derive(Clone)]
pub(crate) struct Version {
    pub(crate) version: Arc<str>,
    pub(crate) body: Bytes,
    pub(crate) at: SystemTime,
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) updates: u64,
    pub(crate) rejected: u64,
    pub(crate) added: u64,
    pub(crate) modified: u64,
    pub(crate) removed: u64,
}

impl Kept {
    /// Remembers an update, once it is known what of it was refused.
    pub(crate) fn update(
        &mut self,
        type_url: TypeUrl,
        added: &[Resource],
        removed: &[Arc<str>],
        refused: &[(Arc<str>, String)],
    ) {
        let kind = self.types.entry(type_url).or_default();
        kind.tally.updates += 1;
        kind.tally.rejected += u64::from(!refused.is_empty());
        for name in removed {
            kind.tally.removed += u64::from(kind.resources.remove(name).is_some());
        }
        let at = SystemTime::now();
        for resource in added {
            // A copy of its own: what came is a piece of a response that would otherwise be kept whole for it.
            let version =
                Version { version: resource.version.clone(), body: Bytes::copy_from_slice(&resource.body), at };
            let sent = kind.resources.entry(resource.name.clone()).or_default();
            match refused.iter().find(|(name, _)| *name == resource.name) {
                Some((_, reason)) => sent.refused = Some((version, reason.clone())),
                None => {
                    match sent.taken {
                        Some(_) => kind.tally.modified += 1,
                        None => kind.tally.added += 1,
                    }
                    *sent = Sent { taken: Some(version), refused: None };
                }
            }
        }
    }

    /// The resources of a type.
    pub(crate) fn resources(&self, type_url: TypeUrl) -> impl Iterator<Item = (&Arc<str>, &Sent)> {
        self.types.get(&type_url).into_iter().flat_map(|kind| &kind.resources)
    }

    /// How often what happened to a type.
    pub(crate) fn tally(&self, type_url: TypeUrl) -> Tally {
        self.types.get(&type_url).map(|kind| kind.tally).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_stands_beside_what_is_in_force() {
        let resource = |body: &'static str| Resource::from_body("a", Bytes::from_static(body.as_bytes()));
        let mut kept = Kept::default();
        kept.update(TypeUrl::Cluster, &[resource("1")], &[], &[]);
        kept.update(TypeUrl::Cluster, &[resource("2")], &[], &[("a".into(), "no good".into())]);
        let sent = |kept: &Kept| {
            let found = kept.resources(TypeUrl::Cluster).next();
            found.map(|(_, sent)| {
                let body = |version: &Version| version.body.clone();
                (sent.taken.as_ref().map(body), sent.refused.as_ref().map(|(version, _)| body(version)))
            })
        };
        assert_eq!(sent(&kept), Some((Some("1".into()), Some("2".into()))));
        kept.update(TypeUrl::Cluster, &[resource("3")], &[], &[]);
        assert_eq!(sent(&kept), Some((Some("3".into()), None)));
        kept.update(TypeUrl::Cluster, &[], &["a".into()], &[]);
        assert_eq!(sent(&kept), None);
        assert_eq!(kept.tally(TypeUrl::Cluster), Tally { updates: 4, rejected: 1, added: 1, modified: 1, removed: 1 });
    }
}
