//! The listeners of a gateway: one for each port and address that its Gateways name.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use maille_api::ObjectMeta;
use maille_api::networking::gateway::ServerTlsMode;
use maille_api::networking::virtual_service::{L4MatchAttributes, TlsMatchAttributes};
use maille_model::host::{matches, subset_of};
use maille_model::{MergedGateway, MergedPort, MergedServer, Protocol, VirtualService};
use maille_xds::types::UInt32Value;
use maille_xds::types::core::{Metadata, TrafficDirection};
use maille_xds::types::listener::{AdditionalAddress, Listener};

use super::chain::Chain;
use super::downstream_tls::server_tls;
use super::hcm::{Class, Http, connection_settings, limit};
use super::{Built, filters, stream};
use crate::Context;
use crate::convert::{address, config_path, dns_subset_cluster, said_metadata};
use crate::routes::hosts_for_namespace;

/// What a client of Istio offers inside TLS, so that nothing else can pass through to services by name alone.
const ISTIO_MTLS_ALPN: [&str; 5] = ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// Server names that a listener has given to a chain.
type TakenNames = HashSet<String>;

pub(crate) fn build(context: &Context<'_>, merged: &MergedGateway) -> Built {
    let mut built = Built::default();
    let mut chains: BTreeMap<(String, u32), Vec<Chain>> = BTreeMap::new();
    let mut order = Vec::new();
    let mut taken: BTreeMap<(String, u32), TakenNames> = BTreeMap::new();
    for port in &merged.ports {
        if context.proxy.metadata.unprivileged && port.number < 1024 {
            continue;
        }
        let bind = if port.bind.is_empty() { super::wildcard(context.proxy) } else { &port.bind };
        let key = (bind.to_owned(), port.number);
        let of_port = port_chains(context, port, taken.entry(key.clone()).or_default());
        if !chains.contains_key(&key) {
            order.push(key.clone());
        }
        chains.entry(key).or_default().extend(of_port);
    }
    for (bind, port) in order {
        let chains = chains.remove(&(bind.clone(), port)).unwrap_or_default();
        // A port with nothing to forward to stays closed.
        if !chains.is_empty() {
            built.add_routes(&chains);
            built.listeners.push(listener(context, &bind, port, &chains));
        }
    }
    built
}

fn port_chains(context: &Context<'_>, port: &MergedPort, taken: &mut TakenNames) -> Vec<Chain> {
    if port.protocol.is_http() {
        return vec![Chain::http(Http::rds(Class::Gateway, &port.route_name, port.protocol))];
    }
    port.servers.iter().flat_map(|server| server_chains(context, server, taken)).collect()
}

fn server_chains(context: &Context<'_>, server: &MergedServer, taken: &mut TakenNames) -> Vec<Chain> {
    let Some(settings) = &server.server.tls else {
        return tcp_chain(context, server, None).into_iter().collect();
    };
    match settings.mode {
        ServerTlsMode::AutoPassthrough => auto_passthrough_chains(context, server),
        ServerTlsMode::Passthrough => passthrough_chains(context, server, taken),
        _ => {
            let Some(tls) = server_tls(context, settings) else { return Vec::new() };
            let chain = if server.is_http() {
                let mut http = Http::rds(Class::Gateway, &server.route_name, server.protocol);
                http.stat_prefix.clone_from(&server.server.name);
                Some(Chain { metadata: made_from(None, Some(server)), ..Chain::http(http) })
            } else {
                tcp_chain(context, server, Some(server))
            };
            let with_tls = |chain| Chain { sni_hosts: server.sni_hosts.clone(), tls: Some(tls), ..chain };
            chain.map(with_tls).into_iter().collect()
        }
    }
}

/// What an explanation of a chain names: the VirtualService that leads on from it, and the Gateway that has its TLS.
fn made_from(route: Option<&ObjectMeta>, tls: Option<&MergedServer>) -> Option<Metadata> {
    let route = route.map(|meta| ("config", config_path("virtual-service", &meta.namespace, &meta.name)));
    let (namespace, name) = tls.and_then(|server| server.gateway.split_once('/')).unzip();
    let tls = namespace.zip(name).map(|(namespace, name)| ("tls", config_path("gateway", namespace, name)));
    Some(said_metadata(route.into_iter().chain(tls).collect()))
}

fn guarded(context: &Context<'_>, filters: Vec<maille_xds::types::listener::Filter>) -> Chain {
    Chain::stream(stream::guarded(context, filters))
}

/// The first TCP route of a VirtualService for the server's hosts that matches its port.
fn tcp_chain(context: &Context<'_>, server: &MergedServer, tls: Option<&MergedServer>) -> Option<Chain> {
    let port = server.port_number();
    virtual_services(context, server).iter().find_map(|virtual_service| {
        let route = virtual_service.spec.tcp.iter().find(|route| {
            let matches = route.r#match.is_empty() || route.r#match.iter().any(|rule| l4_matches(rule, server));
            matches && !route.route.is_empty()
        })?;
        let filters = stream::to_destinations(context, &route.route, port, &virtual_service.meta)?;
        Some(Chain { metadata: made_from(Some(&virtual_service.meta), tls), ..guarded(context, filters) })
    })
}

/// A chain for every TLS route of a VirtualService for the server's hosts.
fn passthrough_chains(context: &Context<'_>, server: &MergedServer, taken: &mut TakenNames) -> Vec<Chain> {
    let mut chains = Vec::new();
    for virtual_service in virtual_services(context, server) {
        for route in &virtual_service.spec.tls {
            for rule in route.r#match.iter().filter(|rule| tls_matches(rule, server)) {
                let number = server.port_number();
                let Some(filters) = stream::to_destinations(context, &route.route, number, &virtual_service.meta)
                else {
                    continue;
                };
                // Envoy refuses a listener with the same name in two chains; the first one keeps it.
                if !take_names(taken, &rule.sni_hosts) {
                    continue;
                }
                chains.push(Chain {
                    sni_hosts: rule.sni_hosts.clone(),
                    metadata: made_from(Some(&virtual_service.meta), Some(server)),
                    ..guarded(context, filters)
                });
            }
        }
    }
    chains
}

/// A chain for every service and subset, by the name that Istio's clients put into their hello.
fn auto_passthrough_chains(context: &Context<'_>, server: &MergedServer) -> Vec<Chain> {
    let mut chains = Vec::new();
    for service in context.scope.services().iter().filter(|service| !service.mesh_external) {
        if !server.sni_hosts.iter().any(|host| subset_of(&service.hostname, host)) {
            continue;
        }
        let rule = context.snapshot.destination_rule(context.proxy, service);
        let subsets = rule.iter().flat_map(|rule| &rule.rule.subsets).map(|subset| subset.name.as_str());
        let subsets: Vec<&str> = std::iter::once("").chain(subsets).collect();
        for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
            for subset in &subsets {
                let cluster = dns_subset_cluster(port.number, subset, &service.hostname);
                chains.push(Chain {
                    sni_hosts: vec![cluster.clone()],
                    application_protocols: ISTIO_MTLS_ALPN.map(str::to_owned).to_vec(),
                    metadata: made_from(None, Some(server)),
                    ..guarded(context, stream::to_cluster(context, &cluster))
                });
            }
        }
    }
    chains
}

/// The VirtualServices bound to the server's Gateway that speak of one of its hosts.
fn virtual_services(context: &Context<'_>, server: &MergedServer) -> Vec<Arc<VirtualService>> {
    let mut bound = context.snapshot.virtual_services_for_gateway(&server.gateway, &context.proxy.namespace);
    bound.retain(|virtual_service| {
        hosts_for_namespace(&server.server.hosts, &virtual_service.meta.namespace)
            .any(|host| virtual_service.spec.hosts.iter().any(|other| matches(host, other)))
    });
    bound
}

fn l4_matches(rule: &L4MatchAttributes, server: &MergedServer) -> bool {
    static_match(rule.port, &rule.gateways, server)
}

fn tls_matches(rule: &TlsMatchAttributes, server: &MergedServer) -> bool {
    static_match(rule.port, &rule.gateways, server)
}

fn static_match(port: u32, gateways: &[String], server: &MergedServer) -> bool {
    (port == 0 || port == server.port_number()) && (gateways.is_empty() || gateways.contains(&server.gateway))
}

/// Whether all of these names were free, which they then are not any more.
fn take_names(taken: &mut TakenNames, names: &[String]) -> bool {
    let free = !names.iter().any(|name| taken.contains(name));
    if free {
        taken.extend(names.iter().cloned());
    }
    free
}

fn listener(context: &Context<'_>, bind: &str, port: u32, chains: &[Chain]) -> Listener {
    let name = super::listener_name(bind, port);
    let config = context.mesh().default_config.as_ref();
    let topology = config.and_then(|config| config.gateway_topology.as_ref());
    let mut listener_filters = Vec::new();
    if topology.is_some_and(|topology| topology.proxy_protocol.is_some()) {
        listener_filters.push(filters::proxy_protocol());
    }
    if chains.iter().any(Chain::needs_tls_inspector) {
        listener_filters.push(filters::tls_inspector());
    }
    let settings = connection_settings(context);
    let mut addresses = addresses(context, bind, port).into_iter();
    let stat_prefix = format!("outbound_{name};");
    Listener {
        address: addresses.next(),
        additional_addresses: addresses
            .map(|address| AdditionalAddress { address: Some(address), ..Default::default() })
            .collect(),
        traffic_direction: TrafficDirection::Outbound.into(),
        listener_filters,
        filter_chains: chains.iter().map(|chain| chain.build(context, &stat_prefix)).collect(),
        access_log: super::access_log::of_listener(context.mesh()),
        max_connections_to_accept_per_socket_event: Some(UInt32Value { value: 1 }),
        per_connection_buffer_limit_bytes: limit(
            settings.and_then(|settings| settings.listener_per_connection_buffer_limit_bytes),
        ),
        name,
        ..Default::default()
    }
}

/// Where the listener really is: a gateway on a desktop neither faces the world nor has the ports below 1024.
fn addresses(context: &Context<'_>, bind: &str, port: u32) -> Vec<maille_xds::types::core::Address> {
    let metadata = &context.proxy.metadata;
    let mapped = u16::try_from(port).ok().and_then(|port| metadata.port_map.get(&port));
    let port = mapped.map_or(port, |port| u32::from(*port));
    match &metadata.bind_address {
        Some(addresses) if bind == super::wildcard(context.proxy) => {
            addresses.split(',').map(|host| address(host.trim(), port)).collect()
        }
        _ => vec![address(bind, port)],
    }
}
