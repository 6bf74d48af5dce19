//! The listeners of a sidecar for its application's connections: one for each port of HTTP, one for each address of streams.

mod streams;

use std::collections::BTreeMap;

use maille_api::networking::sidecar::CaptureMode;
use maille_model::sidecar::OutboundMode;
use maille_model::{Address, EgressListener, Port, Protocol, Resolution, Service, TargetPort};
use maille_xds::types::core::TrafficDirection;
use maille_xds::types::listener::{AdditionalAddress, FilterChain, FilterChainMatch, Listener};
use maille_xds::types::pb::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig;
use maille_xds::types::{BoolValue, UInt32Value};

use self::streams::stream_chains;
use super::chain::Chain;
use super::filters::{self, PLAINTEXT_HTTP, RAW_BUFFER};
use super::hcm::{Class, Http};
use super::virtual_outbound::unknown_destination;
use super::{Built, resolves_names, wildcard};
use crate::Context;
use crate::clusters::dynamic::{allow_any_cache, service_cache};
use crate::convert::{address, duration, host_port, no_time};
use crate::routes::service_addresses;

/// Every outbound listener, by address and port.
pub(crate) fn build(context: &Context<'_>) -> Built {
    let mut entries = Entries { context, by_key: BTreeMap::new() };
    for egress in &context.scope.egress {
        entries.add_egress(egress);
    }
    let mut built = Built::default();
    for (_, entry) in entries.by_key {
        built.add_routes(&entry.chains);
        built.listeners.push(entry.build(context));
    }
    built
}

/// What HTTP to a service needs to resolve names, if it does.
pub(crate) fn dns_cache(context: &Context<'_>, service: Option<&Service>) -> Option<DnsCacheConfig> {
    if let Some(service) = service.filter(|service| resolves_names(service)) {
        return Some(service_cache(context.proxy, &service.hostname));
    }
    // Every outbound route configuration ends in a virtual host for names that nobody declared.
    let any = context.scope.outbound_policy.mode == OutboundMode::AllowAnyDynamicDns;
    any.then(|| allow_any_cache(context.proxy))
}

/// How a port's protocol is listened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http,
    Stream,
    /// HTTP if it turns out to be.
    Detect,
}

impl Kind {
    fn of(protocol: Protocol) -> Option<Kind> {
        match protocol {
            Protocol::Udp => None,
            protocol if protocol.is_http() => Some(Kind::Http),
            protocol if protocol.is_tcp() => Some(Kind::Stream),
            _ => Some(Kind::Detect),
        }
    }
}

/// Where a listener is, and whether it is really bound there or only found by connections redirected to it.
#[derive(Clone, Debug, Default)]
struct Bind {
    /// The first one names the listener; empty is not decided yet.
    addresses: Vec<String>,
    bound: bool,
}

/// A listener being put together.
struct Entry {
    port: u32,
    /// Of the first service there; `Detect` once HTTP and streams share it.
    kind: Kind,
    protocol: Protocol,
    bind: Bind,
    chains: Vec<Chain>,
    /// An egress listener with a port of its own has decided what is here.
    locked: bool,
}

/// One service's port as it asks for a listener.
#[derive(Clone)]
struct Wish<'a> {
    egress: &'a EgressListener,
    service: &'a Service,
    port: &'a Port,
    bind: Bind,
    /// Networks that are the service's; when empty the listener's address says enough.
    networks: Vec<String>,
}

struct Entries<'a> {
    context: &'a Context<'a>,
    by_key: BTreeMap<(String, u32), Entry>,
}

impl Entries<'_> {
    fn add_egress(&mut self, egress: &EgressListener) {
        let uncaptured = self.context.is_uncaptured();
        let bound = match egress.listener.capture_mode {
            CaptureMode::None => true,
            CaptureMode::Default => uncaptured,
            CaptureMode::Iptables => false,
        } || egress.listener.bind.starts_with("unix://");
        // Without redirection a listener has to be bound to be of use, and only those whose port was asked for may be: the
        // ports of services belong to whoever serves them.
        if uncaptured && !(bound && egress.listener.port.is_some()) {
            return;
        }
        let addresses = match egress.listener.bind.as_str() {
            "" if uncaptured => vec![self.context.proxy.address().to_owned()],
            "" if bound => vec![super::localhost(self.context.proxy).to_owned()],
            "" => Vec::new(),
            bind => vec![bind.to_owned()],
        };
        let bind = Bind { addresses, bound };
        if let Some(port) = &egress.listener.port {
            let protocol = Protocol::parse(&port.protocol);
            let port = Port { name: port.name.clone(), number: port.number, protocol, target: TargetPort::Same };
            for service in &egress.services {
                self.add(Wish { egress, service, port: &port, bind: bind.clone(), networks: Vec::new() });
            }
            return;
        }
        // The listener without a port takes what is left.
        for entry in self.by_key.values_mut() {
            entry.locked = true;
        }
        for service in &egress.services {
            for port in &service.ports {
                self.add_service_port(egress, service, port, &bind);
            }
        }
    }

    fn add_service_port(&mut self, egress: &EgressListener, service: &Service, port: &Port, bind: &Bind) {
        let wish = |bind: Bind| Wish { egress, service, port, bind, networks: Vec::new() };
        let headless = bind.addresses.is_empty()
            && service.resolution == Resolution::Passthrough
            && service_addresses(service, self.context.proxy).next().is_none()
            && Kind::of(port.protocol).is_some_and(|kind| kind != Kind::Http);
        if !headless {
            return self.add(wish(bind.clone()));
        }
        let endpoints = self.context.snapshot.endpoints(service, port.number);
        if endpoints.is_empty() && !service.is_kubernetes() && service.selector.is_empty() {
            // A ServiceEntry for whatever address a client has found: only the port tells.
            return self.add(wish(bind.clone()));
        }
        for endpoint in endpoints {
            // Nobody reaches itself through an outbound listener, and a name is no address to listen on.
            if let Address::Ip(ip, _) = &endpoint.address
                && ip != self.context.proxy.address()
            {
                self.add(wish(Bind { addresses: vec![ip.clone()], bound: bind.bound }));
            }
        }
    }

    /// Gives a service's port its listeners.
    fn add(&mut self, wish: Wish<'_>) {
        let Some(kind) = Kind::of(wish.port.protocol) else { return };
        let unbindable = wish.bind.bound && self.context.proxy.metadata.unprivileged && wish.port.number < 1024;
        if wish.service.resolution == Resolution::Alias || unbindable {
            return;
        }
        for placed in self.place(wish, kind) {
            self.add_placed(placed, kind);
        }
    }

    /// Gives a service's port at one address its listener, or a chain of the one that is already there.
    fn add_placed(&mut self, wish: Wish<'_>, kind: Kind) {
        let key = (wish.bind.addresses.first().cloned().unwrap_or_default(), wish.port.number);
        let present = self.by_key.get(&key);
        if present.is_some_and(|entry| entry.locked) {
            return;
        }
        let present = present.map(|entry| (entry.kind, entry.protocol));
        // Servers of these protocols speak first, so nothing can be detected beside them.
        let speaks_first = |protocol| matches!(protocol, Protocol::Mongo | Protocol::MySql);
        let mixed = present.is_some_and(|(_, protocol)| {
            protocol != wish.port.protocol && (speaks_first(protocol) || speaks_first(wish.port.protocol))
        });
        if mixed {
            return;
        }
        let anywhere = key.0 == wildcard(self.context.proxy);
        let (chains, entry_kind) = match (wish.port.protocol, kind) {
            (Protocol::HttpProxy, _) => (vec![self.http_chain(&wish, kind)], Kind::Http),
            // HTTP listeners of one port are the same for every service.
            (_, Kind::Http) if present.is_some_and(|(kind, _)| kind != Kind::Stream) => return,
            // On the wildcard address there is a chain for what is not HTTP too.
            (_, Kind::Http) if anywhere => (vec![detected(self.http_chain(&wish, kind))], Kind::Detect),
            (_, Kind::Http) => (vec![self.http_chain(&wish, kind)], Kind::Http),
            (_, Kind::Stream) => (stream_chains(self.context, &wish), Kind::Stream),
            (_, Kind::Detect) => {
                let mut chains = stream_chains(self.context, &wish);
                // Beside another detected service there is HTTP already.
                if present.is_none_or(|(kind, _)| kind != Kind::Detect) {
                    chains.push(detected(self.http_chain(&wish, kind)));
                }
                (chains, Kind::Detect)
            }
        };
        let overrides = matches!((kind, present), (Kind::Detect, Some((Kind::Http, _))));
        match self.by_key.get_mut(&key).filter(|_| !overrides) {
            Some(entry) => {
                entry.merge(chains);
                if entry.kind != kind {
                    entry.kind = Kind::Detect;
                }
            }
            None => {
                let (port, protocol, bind) = (wish.port.number, wish.port.protocol, wish.bind);
                self.by_key.insert(key, Entry { port, kind: entry_kind, protocol, bind, chains, locked: false });
            }
        }
    }

    /// Streams are told apart by address, so they are listened for at the service's own; HTTP by host, at every address.
    fn place<'w>(&self, wish: Wish<'w>, kind: Kind) -> Vec<Wish<'w>> {
        if !wish.bind.addresses.is_empty() {
            return vec![wish];
        }
        let at = |addresses: Vec<String>, networks: Vec<String>| Wish {
            bind: Bind { addresses, bound: wish.bind.bound },
            networks,
            egress: wish.egress,
            service: wish.service,
            port: wish.port,
        };
        let anywhere = || vec![wildcard(self.context.proxy).to_owned()];
        let own: Vec<String> = service_addresses(wish.service, self.context.proxy).map(str::to_owned).collect();
        if kind == Kind::Http || own.is_empty() {
            return vec![at(anywhere(), Vec::new())];
        }
        if wish.service.is_kubernetes() {
            // One service, known by an address of each family.
            return vec![at(own, Vec::new())];
        }
        // Nothing can listen on a network.
        let place = |address: String| match address.contains('/') {
            true => at(anywhere(), vec![address]),
            false => at(vec![address], Vec::new()),
        };
        own.into_iter().map(place).collect()
    }

    fn http_chain(&self, wish: &Wish<'_>, kind: Kind) -> Chain {
        let bind = wish.bind.addresses.first().map_or("", String::as_str);
        let routes = match wish.port.number {
            0 => bind.to_owned(),
            // At an address of its own a detected service has its routes to itself.
            number if kind == Kind::Detect && bind != wildcard(self.context.proxy) => {
                host_port(&wish.service.hostname, number)
            }
            number => number.to_string(),
        };
        // Services share the chain, so it has to serve whichever of them resolves names.
        let on_port = |service: &&std::sync::Arc<Service>| service.port(wish.port.number).is_some();
        let resolver = wish.egress.services.iter().filter(on_port).find(|service| resolves_names(service));
        let dns_cache = dns_cache(self.context, resolver.map(std::sync::Arc::as_ref));
        Chain::http(Http { dns_cache, ..Http::rds(Class::Outbound, &routes, wish.port.protocol) })
    }
}

impl Entry {
    /// Adds chains that match something new; of two that match the same the first stays.
    fn merge(&mut self, chains: Vec<Chain>) {
        for chain in chains {
            if !self.chains.iter().any(|existing| existing.conflicts_with(&chain)) {
                self.chains.push(chain);
            }
        }
    }

    fn build(self, context: &Context<'_>) -> Listener {
        let mut addresses = self.bind.addresses.iter();
        let first = addresses.next().map_or("", String::as_str);
        let name = super::listener_name(first, self.port);
        let stat_prefix = format!("outbound_{name};");
        let mut filter_chains = Vec::new();
        let mut default = None;
        for chain in &self.chains {
            let built = chain.build(context, &stat_prefix);
            if chain.matches_all() {
                default = Some(built);
            } else {
                filter_chains.push(built);
            }
        }
        // A lone chain needs no fallback; beside others there always is one, lest connections that fit none be dropped.
        let default_filter_chain = match default {
            Some(only) if filter_chains.is_empty() => {
                filter_chains.push(only);
                None
            }
            Some(fallback) => Some(fallback),
            None => Some(FilterChain {
                filter_chain_match: Some(FilterChainMatch::default()),
                name: "PassthroughFilterChain".to_owned(),
                filters: unknown_destination(context),
                ..Default::default()
            }),
        };
        let mut listener_filters = Vec::new();
        if self.chains.iter().any(Chain::needs_tls_inspector) {
            listener_filters.push(filters::tls_inspector());
        }
        let detects = self.chains.iter().any(Chain::needs_http_inspector);
        if detects {
            listener_filters.push(filters::http_inspector());
        }
        let timeout = context.mesh().protocol_detection_timeout.map(duration).filter(|_| detects);
        let additional =
            addresses.map(|host| AdditionalAddress { address: Some(address(host, self.port)), ..Default::default() });
        Listener {
            address: Some(address(first, self.port)),
            additional_addresses: additional.collect(),
            traffic_direction: TrafficDirection::Outbound.into(),
            filter_chains,
            default_filter_chain,
            listener_filters,
            listener_filters_timeout: Some(timeout.unwrap_or_else(no_time)),
            continue_on_listener_filters_timeout: true,
            bind_to_port: (!self.bind.bound).then_some(BoolValue { value: false }),
            max_connections_to_accept_per_socket_event: self.bind.bound.then_some(UInt32Value { value: 1 }),
            name,
            ..Default::default()
        }
    }
}

fn detected(chain: Chain) -> Chain {
    Chain {
        application_protocols: PLAINTEXT_HTTP.map(str::to_owned).to_vec(),
        transport_protocol: RAW_BUFFER.to_owned(),
        ..chain
    }
}
