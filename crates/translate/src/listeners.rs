//! Listeners (LDS): what a proxy opens, which chain takes a connection, and what handles it there.

mod access_log;
mod chain;
mod downstream_tls;
mod filters;
mod gateway;
mod hcm;
mod http_proxy;
mod inbound;
pub(crate) mod istio_stats;
mod mutual_tls;
mod outbound;
mod stream;
mod virtual_outbound;

use std::collections::BTreeSet;

use maille_model::{Proxy, Resolution, Service};
use maille_xds::types::listener::Listener;

use crate::Context;
use chain::{Chain, Content};

/// The filter that resolves the name in a TLS client's hello.
const SNI_DYNAMIC_FORWARD_PROXY: &str = "envoy.filters.network.sni_dynamic_forward_proxy";

/// Listeners, and the names of the route configurations they need.
#[derive(Debug, Default)]
pub(crate) struct Built {
    pub(crate) listeners: Vec<Listener>,
    pub(crate) route_names: BTreeSet<String>,
}

impl Built {
    fn add_routes(&mut self, chains: &[Chain]) {
        for chain in chains {
            if let Content::Http(http) = &chain.content {
                self.route_names.extend(http.route_name().map(str::to_owned));
            }
        }
    }

    fn extend(&mut self, other: Built) {
        self.listeners.extend(other.listeners);
        self.route_names.extend(other.route_names);
    }
}

/// Every listener of a proxy.
pub(crate) fn build(context: &Context<'_>) -> Built {
    if context.proxy.is_router() {
        return context.gateway.as_ref().map(|merged| gateway::build(context, merged)).unwrap_or_default();
    }
    if context.mesh().proxy_listen_port <= 0 {
        return Built::default();
    }
    let mut built = Built::default();
    built.extend(outbound::build(context));
    built.extend(http_proxy::build(context));
    if !context.is_uncaptured() {
        built.listeners.push(virtual_outbound::build(context));
    }
    built.listeners.extend(inbound::build(context));
    built
}

/// The name of a listener at an address.
fn listener_name(bind: &str, port: u32) -> String {
    format!("{bind}_{port}")
}

/// The address that stands for every address.
fn wildcard(proxy: &Proxy) -> &'static str {
    if proxy.supports_ipv4() { "0.0.0.0" } else { "::" }
}

/// The address of the proxy's own machine.
fn localhost(proxy: &Proxy) -> &'static str {
    if proxy.supports_ipv4() { "127.0.0.1" } else { "::1" }
}

/// Whether the service's endpoints are found by resolving whatever name a client asks for.
fn resolves_names(service: &Service) -> bool {
    service.resolution == Resolution::DynamicDns && service.hostname.starts_with('*')
}
