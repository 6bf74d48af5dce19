//! Route configurations of gateways: one for each plaintext port, one for each server that terminates TLS.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use maille_model::host::{is_wildcard, subset_of};
use maille_model::{MergedGateway, MergedServer, Service, VirtualService};
use maille_xds::types::route::virtual_host::TlsRequirementType;
use maille_xds::types::route::{Route, RouteConfiguration, VirtualHost};

use super::http::{RouteContext, catch_all_last};
use super::{destination_hash, route_configuration};
use crate::Context;
use crate::convert::host_port;
use crate::proxy_headers::ProxyHeaders;

/// The route configuration of this name: a virtual host for every host that a server and a VirtualService share.
pub(super) fn gateway_routes(context: &Context<'_>, merged: &MergedGateway, name: &str) -> Option<RouteConfiguration> {
    let servers = merged.servers_by_route.get(name)?;
    let mut hosts = Hosts::default();
    for server in servers {
        hosts.add_server(context, server);
    }
    let attempt_count = ProxyHeaders::new(context.mesh()).attempt_count;
    let mut virtual_hosts = hosts.into_virtual_hosts(attempt_count);
    if virtual_hosts.is_empty() {
        let port = servers.first().map_or(0, |server| server.port_number());
        // Without a route every request is answered 404.
        virtual_hosts.push(VirtualHost {
            name: host_port("blackhole", port),
            domains: vec!["*".to_owned()],
            ..Default::default()
        });
    }
    virtual_hosts.sort_by(|a, b| a.name.cmp(&b.name));
    Some(RouteConfiguration { ignore_port_in_host_matching: true, ..route_configuration(name, virtual_hosts) })
}

/// What the hosts of one route configuration have collected so far.
#[derive(Default)]
struct Hosts {
    by_name: BTreeMap<String, Host>,
    /// The routes of one VirtualService through one gateway are made once: with the port of the first server.
    made: BTreeMap<(String, String, String), Rc<Vec<Route>>>,
}

struct Host {
    name: String,
    routes: Vec<Rc<Vec<Route>>>,
    require_tls: bool,
}

impl Hosts {
    fn add_server(&mut self, context: &Context<'_>, server: &MergedServer) {
        let port = server.port_number();
        let redirect = server.server.tls.as_ref().is_some_and(|tls| tls.https_redirect);
        for virtual_service in context.snapshot.virtual_services_for_gateway(&server.gateway, &context.proxy.namespace)
        {
            let hosts = shared_hosts(&server.server.hosts, &virtual_service);
            if hosts.is_empty() {
                continue;
            }
            let routes = self.routes(context, server, &virtual_service);
            if routes.is_empty() {
                continue;
            }
            for host in hosts {
                let host = self.host(&host, port);
                host.routes.push(routes.clone());
                host.require_tls |= redirect;
            }
        }
        if redirect {
            for host in &server.server.hosts {
                let host = host.rsplit('/').next().unwrap_or(host);
                self.host(host, port).require_tls = true;
            }
        }
    }

    fn host(&mut self, host: &str, port: u32) -> &mut Host {
        let host = host.to_lowercase();
        let name = host_port(&host, port);
        self.by_name.entry(host).or_insert_with(|| Host { name, routes: Vec::new(), require_tls: false })
    }

    fn routes(
        &mut self,
        context: &Context<'_>,
        server: &MergedServer,
        virtual_service: &VirtualService,
    ) -> Rc<Vec<Route>> {
        let meta = &virtual_service.meta;
        let key = (server.gateway.clone(), meta.namespace.clone(), meta.name.clone());
        let make = || {
            let service = |host: &str| service_for(context, virtual_service, host);
            let routes = RouteContext {
                mesh: context.mesh(),
                proxy: context.proxy,
                port: server.port_number(),
                gateway: &server.gateway,
                tls: server.server.tls.is_some(),
                service: &service,
                hash: &|destination| destination_hash(context, destination, service(&destination.host)),
            };
            Rc::new(routes.routes(virtual_service))
        };
        // An empty answer is not kept: another server's port may match.
        let routes = self.made.get(&key).cloned().unwrap_or_else(make);
        if !routes.is_empty() {
            self.made.insert(key, routes.clone());
        }
        routes
    }

    /// Hosts with the very same routes share a virtual host, which bears the name of the most specific.
    fn into_virtual_hosts(self, include_request_attempt_count: bool) -> Vec<VirtualHost> {
        let mut hosts: Vec<(String, Host)> = self.by_name.into_iter().collect();
        hosts.sort_by_cached_key(|(host, _)| (is_wildcard(host), Reverse(host.len()), host.clone()));
        let mut out: Vec<VirtualHost> = Vec::new();
        let mut known = HashMap::new();
        for (domain, host) in hosts {
            let identity: Vec<*const Vec<Route>> = host.routes.iter().map(Rc::as_ptr).collect();
            match known.entry((host.require_tls, identity)) {
                Entry::Occupied(index) => {
                    let shared: &mut VirtualHost = &mut out[*index.get()];
                    shared.domains.push(domain);
                    continue;
                }
                Entry::Vacant(index) => index.insert(out.len()),
            };
            let routes = host.routes.iter().flat_map(|routes| routes.iter().cloned()).collect();
            let require_tls = if host.require_tls { TlsRequirementType::All } else { TlsRequirementType::None };
            out.push(VirtualHost {
                name: host.name,
                domains: vec![domain],
                routes: catch_all_last(routes),
                require_tls: require_tls.into(),
                include_request_attempt_count,
                ..Default::default()
            });
        }
        out
    }
}

/// The hosts covered by the server and by the VirtualService, the narrower of each pair.
fn shared_hosts(server_hosts: &[String], virtual_service: &VirtualService) -> Vec<String> {
    let mut shared: Vec<String> = Vec::new();
    let mut add = |host: &str| {
        if !shared.iter().any(|known| known == host) {
            shared.push(host.to_owned());
        }
    };
    for host in hosts_for_namespace(server_hosts, &virtual_service.meta.namespace) {
        for other in &virtual_service.spec.hosts {
            if subset_of(host, other) {
                add(host);
            } else if subset_of(other, host) {
                add(other);
            }
        }
    }
    shared
}

/// The hosts a server offers to VirtualServices of a namespace: `namespace/host` is for that namespace alone.
pub(crate) fn hosts_for_namespace<'a>(hosts: &'a [String], namespace: &'a str) -> impl Iterator<Item = &'a str> {
    hosts.iter().filter_map(move |host| match host.split_once('/') {
        Some((owner, host)) => (owner == namespace || owner == "*").then_some(host),
        None => Some(host.as_str()),
    })
}

/// The service a VirtualService's destination means: of its own namespace if the gateway can see it, else what the gateway sees.
fn service_for(context: &Context<'_>, virtual_service: &VirtualService, host: &str) -> Option<Arc<Service>> {
    let (snapshot, proxy) = (context.snapshot, context.proxy);
    let namespace = &virtual_service.meta.namespace;
    snapshot
        .destination_service(host, namespace)
        .filter(|service| service.namespace == *namespace && service.export_to.visible_to(&proxy.namespace))
        .or_else(|| snapshot.destination_service(host, &proxy.namespace))
        .cloned()
}
