//! Clusters that are always there: for traffic nobody declared, and for none.

use maille_model::Protocol;
use maille_xds::types::cluster::Cluster;
use maille_xds::types::cluster::cluster::{DiscoveryType, LbPolicy};
use maille_xds::types::core::HttpProtocolOptions as CommonOptions;
use maille_xds::types::upstream_http::HttpProtocolOptions;

use super::base::{Draft, client_protocol, http1_options};
use super::{dynamic, inbound, pool, tls};
use crate::Context;
use crate::convert::{duration, seconds};

/// Goes nowhere.
pub(crate) const BLACK_HOLE: &str = "BlackHoleCluster";
/// Goes where the client was going.
pub(crate) const PASSTHROUGH: &str = "PassthroughCluster";
/// Goes to the workload's port that the client was going to.
pub(crate) const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";
/// Goes to whatever the name in the request resolves to.
pub(crate) const ALLOW_ANY_DYNAMIC_DNS: &str = "AllowAnyDynamicDNSCluster";

const IDLE_SECONDS: i64 = 300;

pub(super) fn black_hole(context: &Context<'_>) -> Cluster {
    let mut draft = Draft::new(BLACK_HOLE.to_owned(), DiscoveryType::Static);
    draft.cluster.common_lb_config = None;
    draft.cluster.connect_timeout = context.mesh().connect_timeout.map(duration);
    draft.finish()
}

pub(super) fn passthrough(context: &Context<'_>) -> Cluster {
    original_destination(context, PASSTHROUGH).finish()
}

pub(super) fn inbound_passthrough(context: &Context<'_>) -> Cluster {
    let mut draft = original_destination(context, INBOUND_PASSTHROUGH);
    draft.cluster.upstream_bind_config = Some(inbound::source(context));
    draft.finish()
}

fn original_destination(context: &Context<'_>, name: &str) -> Draft {
    let mut draft = Draft::new(name.to_owned(), DiscoveryType::OriginalDst);
    draft.cluster.common_lb_config = None;
    draft.cluster.set_lb_policy(LbPolicy::ClusterProvided);
    draft.http = Some(passthrough_options(context));
    // Detecting failures would have nothing to fall back to here, so of the mesh's defaults only the pool counts.
    let default = context.mesh().default_traffic_policy.as_ref();
    pool::apply(&mut draft, context.mesh(), default.and_then(|default| default.connection_pool.as_ref()), None);
    draft
}

fn passthrough_options(context: &Context<'_>) -> HttpProtocolOptions {
    HttpProtocolOptions {
        common_http_protocol_options: Some(CommonOptions {
            idle_timeout: Some(seconds(IDLE_SECONDS)),
            ..CommonOptions::default()
        }),
        upstream_protocol_options: Some(client_protocol(http1_options(context))),
        ..HttpProtocolOptions::default()
    }
}

pub(super) fn allow_any_dynamic_dns(context: &Context<'_>) -> Cluster {
    let settings = context.mesh().outbound_traffic_policy.as_ref().and_then(|policy| policy.tls.as_ref());
    let settings = settings.filter(|settings| tls::is_on(settings));
    let cache = dynamic::allow_any_cache(context.proxy);
    let mut draft = dynamic::draft(ALLOW_ANY_DYNAMIC_DNS.to_owned(), cache, settings.is_none_or(tls::is_unverified));
    draft.http = Some(passthrough_options(context));
    pool::apply(&mut draft, context.mesh(), None, None);
    if let Some(settings) = settings {
        let peer = tls::Peer {
            service: None,
            server_name: String::new(),
            selected: false,
            is_dynamic: true,
            protocol: Protocol::Unsupported,
        };
        tls::apply(&mut draft, context, settings, &peer);
    }
    draft.finish()
}
