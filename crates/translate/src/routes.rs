//! Route configurations (RDS): which cluster each request goes to.

mod domains;
mod filters;
mod gateway;
mod hash;
mod headers;
pub(crate) mod http;
mod matching;
mod retry;
mod sidecar;

use std::collections::BTreeSet;
use std::sync::Arc;

use maille_api::networking::destination_rule::ConsistentHashLb;
use maille_api::networking::virtual_service::Destination;
use maille_model::{Proxy, Service, Snapshot};
use maille_xds::types::route::{RouteConfiguration, VirtualHost};
use maille_xds::types::{BoolValue, UInt32Value};

pub(crate) use gateway::hosts_for_namespace;

/// The name of the route configuration of the forward proxy.
pub(crate) const HTTP_PROXY: &str = "http_proxy";

/// Bodies of direct responses may be this large; Envoy's own limit is 4 KiB.
const MAX_DIRECT_RESPONSE_BYTES: u32 = 1024 * 1024;

/// The route configurations of these names, in their order. A name that stands for nothing has no virtual hosts.
pub fn routes(snapshot: &Snapshot, proxy: &Proxy, names: &BTreeSet<String>) -> Vec<RouteConfiguration> {
    let empty = |name: &str| route_configuration(name, Vec::new());
    if proxy.is_router() {
        let merged = snapshot.merged_gateway(proxy).unwrap_or_default();
        let routes = |name: &String| {
            gateway::gateway_routes(snapshot, proxy, &merged, name).unwrap_or_else(|| empty(name))
        };
        return names.iter().map(routes).collect();
    }
    let scope = snapshot.scope(proxy);
    let routes =
        |name: &String| sidecar::sidecar_routes(snapshot, proxy, &scope, name).unwrap_or_else(|| empty(name));
    names.iter().map(routes).collect()
}

/// What every route configuration has in common: clusters may come later than the routes to them.
pub(crate) fn route_configuration(name: &str, virtual_hosts: Vec<VirtualHost>) -> RouteConfiguration {
    RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts,
        validate_clusters: Some(BoolValue { value: false }),
        max_direct_response_body_size_bytes: Some(UInt32Value { value: MAX_DIRECT_RESPONSE_BYTES }),
        ..Default::default()
    }
}

/// How requests to a destination are hashed, if its DestinationRule says so.
pub(crate) fn destination_hash(
    snapshot: &Snapshot,
    proxy: &Proxy,
    destination: &Destination,
    service: Arc<Service>,
) -> Option<ConsistentHashLb> {
    let rule = snapshot.destination_rule(proxy, &service)?;
    let port = destination.port.as_ref().map(|port| port.number);
    hash::of_destination(&rule.rule, &destination.subset, port).cloned()
}
