//! Route configurations (RDS): which cluster each request goes to.

mod domains;
mod filters;
mod gateway;
mod hash;
mod headers;
pub(crate) mod http;
pub(crate) mod matching;
mod retry;
mod sidecar;

use std::collections::BTreeSet;
use std::sync::Arc;

use maille_api::networking::destination_rule::ConsistentHashLb;
use maille_api::networking::virtual_service::Destination;
use maille_model::Service;
use maille_xds::types::route::{RouteConfiguration, VirtualHost};
use maille_xds::types::{BoolValue, UInt32Value};

use crate::Context;

pub(crate) use domains::{derived_names, service_addresses};
pub(crate) use filters::{CORS, FAULT};
pub(crate) use gateway::hosts_for_namespace;
pub(crate) use sidecar::{DYNAMIC_DNS, catch_all, fallthrough_cluster};

/// The name of the route configuration of the forward proxy.
pub(crate) const HTTP_PROXY: &str = "http_proxy";

/// Bodies of direct responses may be this large; Envoy's own limit is 4 KiB.
const MAX_DIRECT_RESPONSE_BYTES: u32 = 1024 * 1024;

/// The route configurations of these names, in their order. A name that stands for nothing has no virtual hosts.
pub(crate) fn build(context: &Context<'_>, names: &BTreeSet<String>) -> Vec<RouteConfiguration> {
    let routes = |name: &String| match &context.gateway {
        Some(merged) => gateway::gateway_routes(context, merged, name),
        None => sidecar::sidecar_routes(context, name),
    };
    names.iter().map(|name| routes(name).unwrap_or_else(|| route_configuration(name, Vec::new()))).collect()
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
fn destination_hash(
    context: &Context<'_>,
    destination: &Destination,
    service: Option<Arc<Service>>,
) -> Option<ConsistentHashLb> {
    let rule = context.snapshot.destination_rule(context.proxy, &*service?)?;
    let port = destination.port.as_ref().map(|port| port.number);
    hash::of_destination(&rule.rule, &destination.subset, port).cloned()
}
