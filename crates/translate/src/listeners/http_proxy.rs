//! The forward proxy: applications that are told of it by `http_proxy` need no redirection.

use maille_model::Protocol;
use maille_xds::types::UInt32Value;
use maille_xds::types::core::TrafficDirection;
use maille_xds::types::listener::Listener;

use super::Built;
use super::chain::Chain;
use super::hcm::{Class, Http};
use super::outbound::dns_cache;
use crate::Context;
use crate::convert::{address, no_time};
use crate::routes::HTTP_PROXY;

/// On the port the proxy's metadata asks for, else the mesh's; zero is none.
pub(crate) fn build(context: &Context<'_>) -> Built {
    let of_mesh = u32::try_from(context.mesh().proxy_http_port).unwrap_or(0);
    let port = context.proxy.metadata.http_proxy_port.map_or(of_mesh, u32::from);
    let mut built = Built::default();
    if port == 0 {
        return built;
    }
    // Several workloads of one machine each have an address of their own; a captured one has its machine to itself.
    let bind = match &context.proxy.metadata.http_proxy_address {
        Some(address) => address,
        None if context.is_uncaptured() => context.proxy.address(),
        None => super::localhost(context.proxy),
    };
    let name = super::listener_name(bind, port);
    let chain = Chain::http(Http {
        forward_proxy: true,
        dns_cache: dns_cache(context, None),
        ..Http::rds(Class::Outbound, HTTP_PROXY, Protocol::HttpProxy)
    });
    built.listeners.push(Listener {
        address: Some(address(bind, port)),
        traffic_direction: TrafficDirection::Outbound.into(),
        filter_chains: vec![chain.build(context, &format!("outbound_{name};"))],
        listener_filters_timeout: Some(no_time()),
        continue_on_listener_filters_timeout: true,
        max_connections_to_accept_per_socket_event: Some(UInt32Value { value: 1 }),
        name,
        ..Default::default()
    });
    built.add_routes(&[chain]);
    built
}
