//! Clusters (CDS): one for each port of each service the proxy may call, one for each subset, and a few that always are.

mod balance;
mod base;
pub(crate) mod dynamic;
mod inbound;
mod outbound;
mod outlier;
pub(crate) mod policy;
mod pool;
mod special;
mod tls;

use std::collections::HashSet;

use maille_model::sidecar::OutboundMode;
use maille_xds::types::cluster::Cluster;

use crate::Context;
pub(crate) use base::ads;
pub(crate) use special::{ALLOW_ANY_DYNAMIC_DNS, BLACK_HOLE, INBOUND_PASSTHROUGH, PASSTHROUGH};

/// Every cluster of the proxy; of several with one name the first stays.
pub(crate) fn build(context: &Context<'_>) -> Vec<Cluster> {
    let mut clusters = outbound::build(context);
    clusters.push(special::black_hole(context));
    if !context.proxy.is_router() {
        clusters.push(special::passthrough(context));
        if context.scope.outbound_policy.mode == OutboundMode::AllowAnyDynamicDns {
            clusters.push(special::allow_any_dynamic_dns(context));
        }
        clusters.extend(inbound::build(context));
        clusters.push(special::inbound_passthrough(context));
    } else if context.gateway.as_ref().is_some_and(|gateway| gateway.has_auto_passthrough()) {
        clusters.extend(outbound::build_sni_dnat(context));
    }
    let mut seen = HashSet::new();
    clusters.retain(|cluster| seen.insert(cluster.name.clone()));
    clusters
}
