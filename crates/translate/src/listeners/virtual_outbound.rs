//! The listener that redirected connections of the application arrive at, when no listener is for where they were going.

use maille_model::sidecar::OutboundMode;
use maille_model::{InterceptionMode, Protocol};
use maille_xds::types::core::TrafficDirection;
use maille_xds::types::listener::{FilterChain, FilterChainMatch, Listener};
use maille_xds::types::{BoolValue, UInt32Value};

use super::hcm::{Class, Http, Routes};
use super::{access_log, filters, stream};
use crate::Context;
use crate::clusters::BLACK_HOLE;
use crate::clusters::dynamic::allow_any_cache;
use crate::convert::address;
use crate::routes::{DYNAMIC_DNS, catch_all, fallthrough_cluster, route_configuration};

const NAME: &str = "virtualOutbound";

pub(crate) fn build(context: &Context<'_>) -> Listener {
    let port = u32::try_from(context.mesh().proxy_listen_port).unwrap_or(0);
    let is = |value| Some(BoolValue { value });
    let resolves = context.scope.outbound_policy.mode == OutboundMode::AllowAnyDynamicDns;
    let mut filter_chains = vec![black_hole(port)];
    if resolves {
        filter_chains.push(resolving_chain(context));
    }
    filter_chains.push(FilterChain {
        name: format!("{NAME}-catchall-tcp"),
        filters: unknown_destination(context),
        ..Default::default()
    });
    Listener {
        name: NAME.to_owned(),
        address: Some(address(super::wildcard(context.proxy), port)),
        transparent: is(true).filter(|_| context.proxy.metadata.interception_mode == InterceptionMode::Tproxy),
        use_original_dst: is(true),
        filter_chains,
        listener_filters: if resolves { vec![filters::http_inspector()] } else { Vec::new() },
        traffic_direction: TrafficDirection::Outbound.into(),
        access_log: access_log::of_listener(context.mesh()),
        max_connections_to_accept_per_socket_event: Some(UInt32Value { value: 1 }),
        ..Default::default()
    }
}

/// What becomes of a connection to where nobody was declared.
pub(crate) fn unknown_destination(context: &Context<'_>) -> Vec<maille_xds::types::listener::Filter> {
    match context.scope.outbound_policy.mode {
        OutboundMode::RegistryOnly => stream::to_cluster(context, BLACK_HOLE),
        OutboundMode::AllowAny | OutboundMode::AllowAnyDynamicDns => {
            stream::to_cluster(context, &fallthrough_cluster(&context.scope))
        }
    }
}

/// A connection to the listener itself was not redirected: passing it on would lead back here.
fn black_hole(port: u32) -> FilterChain {
    FilterChain {
        name: format!("{NAME}-blackhole"),
        filter_chain_match: Some(FilterChainMatch {
            destination_port: Some(UInt32Value { value: port }),
            ..Default::default()
        }),
        filters: stream::black_hole(),
        ..Default::default()
    }
}

/// HTTP to a host nobody declared goes where its name leads.
fn resolving_chain(context: &Context<'_>) -> FilterChain {
    let mut routes = route_configuration(DYNAMIC_DNS, vec![catch_all(context)]);
    routes.ignore_port_in_host_matching = true;
    let http = Http {
        class: Class::Outbound,
        stat_prefix: format!("outbound_{NAME}_allow_any_dynamic_dns;"),
        routes: Routes::Inline(Box::new(routes)),
        protocol: Protocol::Http,
        forward_proxy: false,
        dns_cache: Some(allow_any_cache(context.proxy)),
    };
    FilterChain {
        name: format!("{NAME}-catchall-tcp-http"),
        filter_chain_match: Some(FilterChainMatch {
            application_protocols: filters::PLAINTEXT_HTTP.map(str::to_owned).to_vec(),
            ..Default::default()
        }),
        filters: vec![http.filter(context)],
        ..Default::default()
    }
}
