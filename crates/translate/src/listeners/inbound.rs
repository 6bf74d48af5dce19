//! The listeners of a sidecar for its application's clients: chains by port, in one listener that redirected connections
//! arrive at, or in listeners of their own where nothing is redirected.

use std::collections::{BTreeMap, BTreeSet};

use maille_api::ObjectMeta;
use maille_api::networking::gateway::ServerTlsSettings;
use maille_api::networking::sidecar::{CaptureMode, IstioIngressListener};
use maille_model::{InterceptionMode, MutualTls, PeerMode, Protocol};
use maille_xds::types::core::TrafficDirection;
use maille_xds::types::listener::{Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter};
use maille_xds::types::route::VirtualHost;
use maille_xds::types::tls::DownstreamTlsContext;
use maille_xds::types::{BoolValue, UInt32Value};

use super::chain::tls_transport;
use super::downstream_tls::server_tls;
use super::filters::{self, PLAINTEXT_HTTP, TLS};
use super::hcm::{Class, Http, Routes};
use super::mutual_tls::{self, Matched};
use super::{access_log, stream, wildcard};
use crate::Context;
use crate::clusters::INBOUND_PASSTHROUGH;
use crate::convert::{address, config_metadata, duration, inbound_cluster, no_time};
use crate::inbound_ports::InboundPort;
use crate::routes::http::default_inbound_route;
use crate::routes::route_configuration;

const VIRTUAL: &str = "virtualInbound";

/// The listeners, the one for redirected connections first.
pub(crate) fn build(context: &Context<'_>) -> Vec<Listener> {
    let mut listeners = Vec::new();
    let mut redirected = Vec::new();
    let peers = context.snapshot.peer_mode(&context.proxy.namespace, &context.proxy.labels);
    let opened = opened(context);
    let known: BTreeSet<u32> = opened.iter().map(|port| port.target).collect();
    for port in opened {
        let chains = port.chains(context, &peers);
        if port.bound {
            let name = super::listener_name(&port.bind, port.target);
            listeners.push(listener(context, name, &port.bind, port.target, true, chains));
        } else {
            redirected.extend(chains);
        }
    }
    if !context.is_uncaptured() {
        let port = u32::try_from(context.mesh().proxy_inbound_listen_port).unwrap_or(0);
        let mut chains = vec![black_hole(port)];
        // Ports that no service has, first all of them, then those that a policy speaks of.
        for target in std::iter::once(0).chain(peers.ports.keys().copied().filter(|port| !known.contains(port))) {
            chains.extend(Opened::passthrough(context, target).chains(context, &peers));
        }
        chains.extend(redirected);
        let bind = wildcard(context.proxy);
        listeners.insert(0, listener(context, VIRTUAL.to_owned(), bind, port, false, chains));
    }
    listeners
}

/// One port of the application, as a listener or as chains of the shared one.
struct Opened {
    /// Where the application is found.
    cluster: String,
    /// What the application is called in traces.
    host: String,
    /// The service's number.
    number: u32,
    /// The workload's number; zero is any.
    target: u32,
    protocol: Protocol,
    bind: String,
    bound: bool,
    /// TLS that the Sidecar resource asks for, in place of the mesh's own.
    tls: Option<ServerTlsSettings>,
    sidecar: Option<ObjectMeta>,
}

fn opened(context: &Context<'_>) -> Vec<Opened> {
    let ports = context.inbound_ports();
    let ports = ports.into_iter().filter_map(|port| match port.ingress.clone() {
        Some(ingress) => Some(of_ingress(context, port, &ingress)),
        None => of_service(context, port),
    });
    // A Sidecar may list a port twice; the first one counts.
    let mut seen = BTreeSet::new();
    let privileged = |port: &Opened| port.bound && context.proxy.metadata.unprivileged && port.target < 1024;
    ports.filter(|port| !privileged(port) && seen.insert(port.target)).collect()
}

fn of_service(context: &Context<'_>, port: InboundPort) -> Option<Opened> {
    let bound = context.is_uncaptured();
    // Where applications share a machine, a port that was not announced is another's.
    if port.port.protocol == Protocol::Udp || (bound && port.endpoint.is_none()) {
        return None;
    }
    // A workload that is not redirected has an address, not a machine, of its own.
    let bind = if bound { context.proxy.address() } else { wildcard(context.proxy) };
    Some(Opened {
        cluster: inbound_cluster(port.number),
        host: port.targets.first().map(|target| target.service.hostname.clone()).unwrap_or_default(),
        number: port.port.number,
        target: port.number,
        protocol: port.port.protocol,
        bind: bind.to_owned(),
        bound,
        tls: None,
        sidecar: None,
    })
}

fn of_ingress(context: &Context<'_>, port: InboundPort, ingress: &IstioIngressListener) -> Opened {
    let meta = context.scope.sidecar.as_ref().map(|(meta, _)| meta);
    let tls = ingress.tls.clone();
    Opened {
        cluster: inbound_cluster(port.number),
        host: meta.map(|meta| format!("{}.{}", meta.name, meta.namespace)).unwrap_or_default(),
        number: port.port.number,
        target: port.number,
        protocol: if tls.is_some() { port.port.protocol.after_tls_termination() } else { port.port.protocol },
        bind: match ingress.bind.as_str() {
            "" => context.proxy.address().to_owned(),
            bind => bind.to_owned(),
        },
        bound: match ingress.capture_mode {
            CaptureMode::Default => context.is_uncaptured(),
            CaptureMode::Iptables => false,
            CaptureMode::None => true,
        },
        tls,
        sidecar: meta.cloned(),
    }
}

impl Opened {
    /// A port that no service has; zero is all of them.
    fn passthrough(context: &Context<'_>, target: u32) -> Opened {
        Opened {
            cluster: INBOUND_PASSTHROUGH.to_owned(),
            host: String::new(),
            number: 0,
            target,
            protocol: Protocol::Unsupported,
            bind: wildcard(context.proxy).to_owned(),
            bound: false,
            tls: None,
            sidecar: None,
        }
    }

    fn chains(&self, context: &Context<'_>, peers: &PeerMode) -> Vec<FilterChain> {
        let mode = peers.of_port(self.target);
        // TLS of one's own and the mesh's would be opened by different certificates on one port, so the mesh's comes first.
        if let (Some(settings), MutualTls::Disable) = (&self.tls, mode) {
            let Some(tls) = server_tls(context, settings) else { return Vec::new() };
            let http = self.protocol.is_http();
            let matched = Matched { http, application_protocols: &[], transport_protocol: TLS, terminated: true };
            return vec![self.chain(context, &matched, Some(&tls))];
        }
        let mutual = mutual_tls::context(context);
        let mut matched = mutual_tls::matched(mode, self.protocol);
        if mode == MutualTls::Permissive && context.proxy.metadata.no_identity {
            matched.retain(|matched| !matched.terminated);
        }
        matched.iter().map(|matched| self.chain(context, matched, matched.terminated.then_some(&mutual))).collect()
    }

    fn chain(&self, context: &Context<'_>, matched: &Matched, tls: Option<&DownstreamTlsContext>) -> FilterChain {
        FilterChain {
            name: self.chain_name(matched.http),
            filter_chain_match: Some(FilterChainMatch {
                destination_port: (self.target > 0).then_some(UInt32Value { value: self.target }),
                application_protocols: matched.application_protocols.iter().map(|alpn| (*alpn).to_owned()).collect(),
                transport_protocol: matched.transport_protocol.to_owned(),
                ..Default::default()
            }),
            filters: if matched.http {
                vec![self.http_filter(context)]
            } else {
                stream::guarded(context, stream::to_cluster(context, &self.cluster))
            },
            transport_socket: tls.map(tls_transport),
            metadata: self.sidecar.as_ref().map(|meta| config_metadata("sidecar", meta)),
            ..Default::default()
        }
    }

    fn is_passthrough(&self) -> bool {
        self.cluster == INBOUND_PASSTHROUGH
    }

    fn chain_name(&self, http: bool) -> String {
        match (self.is_passthrough(), http) {
            (true, true) => format!("{VIRTUAL}-catchall-http"),
            (true, false) => VIRTUAL.to_owned(),
            (false, _) => super::listener_name(&self.bind, self.target),
        }
    }

    fn http_filter(&self, context: &Context<'_>) -> Filter {
        let operation = format!("{}:{}/*", self.host, self.number);
        let virtual_host = VirtualHost {
            name: format!("inbound|http|{}", self.number),
            domains: vec!["*".to_owned()],
            routes: vec![default_inbound_route(self.cluster.clone(), operation, self.protocol.is_grpc())],
            ..Default::default()
        };
        let mut routes = route_configuration(&self.cluster, vec![virtual_host]);
        routes.max_direct_response_body_size_bytes = None;
        let http = Http {
            class: Class::Inbound,
            stat_prefix: match self.is_passthrough() {
                true => format!("{};", self.cluster),
                false => format!("inbound_{};", super::listener_name(&self.bind, self.target)),
            },
            routes: Routes::Inline(Box::new(routes)),
            protocol: self.protocol,
            forward_proxy: false,
            dns_cache: None,
        };
        http.filter(context)
    }
}

/// A connection to the listener itself was not redirected: passing it on would lead back here.
fn black_hole(port: u32) -> FilterChain {
    FilterChain {
        name: format!("{VIRTUAL}-blackhole"),
        filter_chain_match: Some(FilterChainMatch {
            destination_port: Some(UInt32Value { value: port }),
            ..Default::default()
        }),
        filters: stream::black_hole(),
        ..Default::default()
    }
}

fn listener(
    context: &Context<'_>,
    name: String,
    bind: &str,
    port: u32,
    bound: bool,
    filter_chains: Vec<FilterChain>,
) -> Listener {
    let transparent = !bound && context.proxy.metadata.interception_mode == InterceptionMode::Tproxy;
    Listener {
        name,
        address: Some(address(bind, port)),
        traffic_direction: TrafficDirection::Inbound.into(),
        continue_on_listener_filters_timeout: true,
        max_connections_to_accept_per_socket_event: Some(UInt32Value { value: 1 }),
        transparent: transparent.then_some(BoolValue { value: true }),
        access_log: access_log::of_listener(context.mesh()),
        listener_filters: listener_filters(&filter_chains, bound, transparent),
        listener_filters_timeout: Some(context.mesh().protocol_detection_timeout.map_or_else(no_time, duration)),
        filter_chains,
        ..Default::default()
    }
}

/// What is looked at before a chain is chosen, and only on the ports where it matters: a server that speaks first would
/// wait for ever to be looked at.
fn listener_filters(chains: &[FilterChain], bound: bool, transparent: bool) -> Vec<ListenerFilter> {
    let mut out = Vec::new();
    if !bound {
        out.push(filters::original_destination());
    }
    if transparent {
        out.push(filters::original_source());
    }
    let mut wanted: BTreeMap<u32, (bool, bool)> = BTreeMap::new();
    for asked in chains.iter().filter_map(|chain| chain.filter_chain_match.as_ref()) {
        let port = asked.destination_port.as_ref().map_or(0, |port| port.value);
        let (tls, http) = wanted.entry(port).or_default();
        *tls |= asked.transport_protocol == "tls";
        *http |= asked.application_protocols.iter().any(|alpn| PLAINTEXT_HTTP.contains(&alpn.as_str()));
    }
    let on = |is: fn(&(bool, bool)) -> bool, yes: bool| -> Vec<u32> {
        wanted.iter().filter(|(port, wants)| **port != 0 && is(wants) == yes).map(|(port, _)| *port).collect()
    };
    let elsewhere = wanted.get(&0).copied().unwrap_or_default();
    let mut add = |filter: fn() -> ListenerFilter, is: fn(&(bool, bool)) -> bool| {
        if wanted.values().any(is) {
            // Ports that are not listed here go by what every other port wants.
            out.push(match is(&elsewhere) || bound {
                true => filters::except_ports(filter(), &on(is, false)),
                false => filters::only_ports(filter(), &on(is, true)),
            });
        }
    };
    add(filters::tls_inspector, |(tls, _)| *tls);
    add(filters::http_inspector, |(_, http)| *http);
    out
}
