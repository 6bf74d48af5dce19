//! Istio's standard metrics: the filter that counts by its labels, for proxies that have it.
//!
//! Istio's installation has the provider `prometheus` for metrics by default; here that holds unless the mesh names others.

use maille_xds::types::istio::{STATS, StatsConfig};

use crate::Context;

/// The filter's configuration, when the proxy is to report. `host_fallback`: the request's host stands in for a destination that is
/// not known.
pub(crate) fn config(context: &Context<'_>, host_fallback: bool) -> Option<StatsConfig> {
    if !context.proxy.metadata.istio_filters {
        return None;
    }
    let mesh = context.mesh();
    let chosen = mesh.default_providers.as_ref().map(|providers| providers.metrics.as_slice()).unwrap_or_default();
    let is_prometheus = |name: &String| name == "prometheus";
    (chosen.is_empty() || chosen.iter().any(is_prometheus))
        .then(|| StatsConfig { disable_host_header_fallback: !host_fallback, ..StatsConfig::default() })
}

/// The name under which listeners have it.
pub(crate) const NAME: &str = STATS;
