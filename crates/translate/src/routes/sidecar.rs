//! Route configurations of sidecars: one for each port, shared by the services there, and one for the forward proxy.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use maille_model::host::{is_wildcard, matches};
use maille_model::sidecar::OutboundMode;
use maille_model::{EgressListener, MESH_GATEWAY, Port, Protocol, Resolution, Service, SidecarScope, VirtualService};
use maille_xds::types::route::route::Action;
use maille_xds::types::route::{DirectResponseAction, Route, RouteAction, RouteConfiguration, VirtualHost};

use super::domains::{Domains, service_domains};
use super::http::{RouteContext, default_outbound_route, destination_cluster, forward_all};
use super::matching::any_request;
use super::{HTTP_PROXY, destination_hash, hash, route_configuration};
use crate::Context;
use crate::clusters::{ALLOW_ANY_DYNAMIC_DNS, PASSTHROUGH};
use crate::convert::{bracketed, host_port, outbound_cluster};
use crate::proxy_headers::ProxyHeaders;

/// The virtual host, and route, to the cluster that resolves the name in the request.
pub(crate) const DYNAMIC_DNS: &str = "allow_any_dynamic_dns";

/// A route configuration by its name: a port, `host:port` of a service whose protocol is detected, or `http_proxy`.
pub(super) fn sidecar_routes(context: &Context<'_>, name: &str) -> Option<RouteConfiguration> {
    let route_name = RouteName::parse(name)?;
    let egress = context.scope.egress_listener_for(route_name.port(), name)?;
    let builder = Builder { context, egress, attempt_count: ProxyHeaders::outbound(context.mesh()).attempt_count };
    let forward_proxy = egress_protocol(egress) == Some(Protocol::HttpProxy);
    let mut virtual_hosts = match &route_name {
        RouteName::AnyPort => builder.every_port(),
        RouteName::Port(_) if forward_proxy => builder.every_port(),
        RouteName::Port(port) => builder.port(*port, false),
        RouteName::Service { host, port } => only_service(builder.port(*port, false), host, name),
    };
    virtual_hosts.sort_by(|a, b| a.name.cmp(&b.name));
    if !matches!(route_name, RouteName::Service { .. }) {
        virtual_hosts.push(catch_all(context));
    }
    Some(RouteConfiguration {
        // The forward proxy serves every port at once and tells services apart by it.
        ignore_port_in_host_matching: route_name != RouteName::AnyPort && !forward_proxy,
        ..route_configuration(name, virtual_hosts)
    })
}

/// What a request gets that names a host nobody declared.
pub(crate) fn catch_all(context: &Context<'_>) -> VirtualHost {
    let headers = ProxyHeaders::outbound(context.mesh());
    let (name, route) = match context.scope.outbound_policy.mode {
        OutboundMode::AllowAnyDynamicDns => {
            (DYNAMIC_DNS, forward_all(DYNAMIC_DNS, ALLOW_ANY_DYNAMIC_DNS.to_owned(), headers.x_forwarded_host))
        }
        OutboundMode::AllowAny => {
            let cluster = fallthrough_cluster(&context.scope);
            ("allow_any", forward_all("allow_any", cluster, headers.x_forwarded_host))
        }
        OutboundMode::RegistryOnly => {
            let refuse = Action::DirectResponse(DirectResponseAction { status: 502, ..Default::default() });
            let route = Route {
                name: "block_all".to_owned(),
                r#match: Some(any_request()),
                action: Some(refuse),
                ..Default::default()
            };
            ("block_all", route)
        }
    };
    VirtualHost {
        name: name.to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![route],
        include_request_attempt_count: headers.attempt_count,
        ..Default::default()
    }
}

/// Where connections go that nothing is known of and that are let through: an egress proxy, if there is one.
pub(crate) fn fallthrough_cluster(scope: &SidecarScope) -> String {
    match &scope.outbound_policy.egress_proxy {
        Some(destination) => destination_cluster(destination, None, 0),
        None => PASSTHROUGH.to_owned(),
    }
}

/// What a route configuration's name says.
#[derive(Debug, PartialEq)]
enum RouteName {
    /// `9080`
    Port(u32),
    /// `reviews.shop.svc.cluster.local:9080`
    Service { host: String, port: u32 },
    /// `http_proxy`, or the path of a unix socket.
    AnyPort,
}

impl RouteName {
    fn parse(name: &str) -> Option<RouteName> {
        if name == HTTP_PROXY || name.starts_with("unix://") {
            return Some(RouteName::AnyPort);
        }
        match name.split_once(':') {
            Some((host, port)) => Some(RouteName::Service { host: host.to_owned(), port: port.parse().ok()? }),
            None => Some(RouteName::Port(name.parse().ok()?)),
        }
    }

    fn port(&self) -> u32 {
        match self {
            RouteName::Port(port) | RouteName::Service { port, .. } => *port,
            RouteName::AnyPort => 0,
        }
    }
}

fn egress_protocol(egress: &EgressListener) -> Option<Protocol> {
    egress.listener.port.as_ref().map(|port| Protocol::parse(&port.protocol))
}

/// The virtual host of the one service that a detected listener is for; it takes every host, for the address is the service's.
fn only_service(virtual_hosts: Vec<VirtualHost>, host: &str, name: &str) -> Vec<VirtualHost> {
    let mut of_service: Vec<VirtualHost> = virtual_hosts
        .into_iter()
        .filter(|virtual_host| virtual_host.domains.iter().any(|domain| domain == host || domain == name))
        .collect();
    if let [only] = of_service.as_mut_slice() {
        only.domains = vec!["*".to_owned()];
    }
    of_service
}

/// Makes the virtual hosts of an egress listener.
struct Builder<'a> {
    context: &'a Context<'a>,
    egress: &'a EgressListener,
    attempt_count: bool,
}

/// The routes of one virtual host or more, and whose.
struct Group {
    services: Vec<Arc<Service>>,
    /// Hosts of a VirtualService that no service has.
    hosts: Vec<String>,
    routes: Vec<Route>,
}

impl Builder<'_> {
    /// Every port's virtual hosts with domains that name the port; on port 80 it may be left out, as in HTTP.
    fn every_port(&self) -> Vec<VirtualHost> {
        let ports = self.egress.services.iter().flat_map(|service| &service.ports);
        let http = ports.filter(|port| port.protocol.is_http_or_sniffed()).map(|port| port.number);
        let ports: BTreeSet<u32> = http.chain([80]).collect();
        ports.into_iter().flat_map(|port| self.port(port, true)).collect()
    }

    /// The virtual hosts of the services on a port and of the VirtualServices for it.
    fn port(&self, port: u32, with_port: bool) -> Vec<VirtualHost> {
        let mut registry: BTreeMap<String, Arc<Service>> = BTreeMap::new();
        for service in &self.egress.services {
            if service.port(port).is_some() {
                registry.insert(service.hostname.to_lowercase(), service.clone());
            }
        }
        let mut groups: Vec<Group> = Vec::new();
        for virtual_service in &self.egress.virtual_services {
            // Only on port 80 can a VirtualService speak of hosts that are in no registry.
            if port == 80 || speaks_of_any(virtual_service, &registry) {
                groups.extend(self.of_virtual_service(virtual_service, &registry, port));
            }
        }
        for group in &groups {
            for service in &group.services {
                registry.remove(&service.hostname.to_lowercase());
            }
        }
        for service in registry.values().filter(|service| service.resolution != Resolution::Alias) {
            let http = service.port(port).filter(|port| port.protocol.is_http_or_sniffed());
            groups.extend(http.map(|port| self.of_service(service, port)));
        }
        self.virtual_hosts(&groups, port, with_port)
    }

    fn of_virtual_service(
        &self,
        virtual_service: &Arc<VirtualService>,
        registry: &BTreeMap<String, Arc<Service>>,
        port: u32,
    ) -> Option<Group> {
        let service = |host: &str| registry.get(host).or_else(|| self.context.scope.service(host)).cloned();
        let routes = RouteContext {
            mesh: self.context.mesh(),
            proxy: self.context.proxy,
            port,
            gateway: MESH_GATEWAY,
            tls: false,
            service: &service,
            hash: &|destination| destination_hash(self.context, destination, service(&destination.host)),
        };
        let routes = routes.routes(virtual_service);
        if routes.is_empty() {
            return None;
        }
        let (services, hosts) = self.hosts_of(virtual_service, registry);
        let on_port =
            |service: &Arc<Service>| service.port(port).is_some_and(|port| port.protocol.is_http_or_sniffed());
        let services: Vec<Arc<Service>> = services.into_iter().filter(on_port).collect();
        if services.is_empty() && port != 80 {
            return None;
        }
        Some(Group { services, hosts, routes })
    }

    /// The hosts of a VirtualService as services where there are any. Of several wildcards a service follows the most specific.
    fn hosts_of(
        &self,
        virtual_service: &Arc<VirtualService>,
        registry: &BTreeMap<String, Arc<Service>>,
    ) -> (Vec<Arc<Service>>, Vec<String>) {
        let mut services = Vec::new();
        let mut others = Vec::new();
        let lower = virtual_service.spec.hosts.iter().map(|host| host.to_lowercase());
        let (wildcards, exact): (Vec<String>, Vec<String>) = lower.partition(|host| is_wildcard(host));
        for host in exact {
            match registry.get(&host) {
                Some(service) => services.push(service.clone()),
                None => others.push(host),
            }
        }
        for host in wildcards {
            let covered: Vec<&Arc<Service>> =
                registry.iter().filter(|(name, _)| matches(name, &host)).map(|(_, service)| service).collect();
            if covered.is_empty() {
                others.push(host);
                continue;
            }
            let follows = |service: &&&Arc<Service>| {
                let chosen = self.egress.virtual_service_for(&service.hostname);
                chosen.is_some_and(|chosen| Arc::ptr_eq(chosen, virtual_service))
            };
            services.extend(covered.iter().filter(follows).map(|service| (*service).clone()));
        }
        (services, others)
    }

    fn of_service(&self, service: &Arc<Service>, port: &Port) -> Group {
        let cluster = outbound_cluster(port.number, "", &service.hostname);
        let operation = format!("{}:{}/*", service.hostname, port.number);
        let mut route = default_outbound_route(cluster, operation, self.context.mesh());
        let rule = self.context.snapshot.destination_rule(self.context.proxy, service);
        let policy = rule
            .as_ref()
            .and_then(|rule| hash::of_destination(&rule.rule, "", Some(port.number)))
            .and_then(hash::policy);
        if let Some(Action::Route(RouteAction { hash_policy, .. })) = &mut route.action {
            hash_policy.extend(policy);
        }
        Group { services: vec![service.clone()], hosts: Vec::new(), routes: vec![route] }
    }

    /// The first to claim a domain keeps it, and a service's own name is not taken by another's shorter one.
    fn virtual_hosts(&self, groups: &[Group], port: u32, with_port: bool) -> Vec<VirtualHost> {
        let mut names = HashSet::new();
        let mut taken = HashSet::new();
        let full_names: HashSet<String> = groups
            .iter()
            .flat_map(|group| &group.services)
            .flat_map(|service| [service.hostname.clone(), host_port(&service.hostname, port)])
            .collect();
        let shown_port = with_port.then_some(port);
        let mut out = Vec::new();
        for group in groups {
            let hosts = group.hosts.iter().map(|host| (host.as_str(), host_domains(host, shown_port)));
            let services = group
                .services
                .iter()
                .map(|service| (service.hostname.as_str(), service_domains(service, shown_port, self.context.proxy)));
            for (host, domains) in hosts.chain(services) {
                let name = host_port(host, port);
                if !names.insert(name.clone()) {
                    continue;
                }
                let mut kept = Vec::new();
                for domain in &domains.names {
                    let shadows = domains.derived.contains(domain) && full_names.contains(domain);
                    // Without a port a URL means port 80, so no other port may be meant by a bare name.
                    let ambiguous = with_port && port != 80 && !domain.contains(':');
                    if !shadows && !ambiguous && taken.insert(domain.to_lowercase()) {
                        kept.push(domain.clone());
                    }
                }
                if !kept.is_empty() {
                    out.push(VirtualHost {
                        name,
                        domains: kept,
                        routes: group.routes.clone(),
                        include_request_attempt_count: self.attempt_count,
                        ..Default::default()
                    });
                }
            }
        }
        out
    }
}

fn host_domains(host: &str, port: Option<u32>) -> Domains {
    let names = std::iter::once(bracketed(host)).chain(port.map(|port| host_port(host, port))).collect();
    Domains { names, derived: Vec::new() }
}

/// Whether any host of a VirtualService overlaps a service's.
fn speaks_of_any(virtual_service: &VirtualService, registry: &BTreeMap<String, Arc<Service>>) -> bool {
    let wildcard_services = || registry.keys().filter(|host| is_wildcard(host));
    virtual_service.spec.hosts.iter().map(|host| host.to_lowercase()).any(|host| {
        registry.contains_key(&host)
            || if is_wildcard(&host) {
                registry.keys().any(|service| matches(&host, service))
            } else {
                wildcard_services().any(|service| matches(&host, service))
            }
    })
}
