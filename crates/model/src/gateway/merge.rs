//! Which servers can share a port, and which have to go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use maille_api::networking::gateway::{Gateway, Server, ServerTlsMode};
use maille_api::{Kind, ObjectMeta};

use super::{MergedGateway, MergedPort, MergedServer};
use crate::protocol::Protocol;
use crate::snapshot::ServiceTarget;
use crate::warning::{Warning, key};

/// On a Service: gateways do not translate its ports to its target ports.
const NO_PORT_TRANSLATION: &str = "experimental.istio.io/disable-gateway-port-translation";

/// A Gateway that applies to the proxy, and the proxy's own service ports that its ports may stand for.
pub(crate) struct Selected<'a> {
    pub(crate) meta: &'a ObjectMeta,
    pub(crate) gateway: &'a Gateway,
    /// The Gateway names services instead of selecting workloads: only their ports count, and all of them.
    pub(crate) by_service: bool,
    pub(crate) targets: Vec<&'a ServiceTarget>,
}

/// A port, a protocol and an address: what one listener is about.
type Place = (u32, Protocol, String);

#[derive(Default)]
struct Merger {
    out: MergedGateway,
    used: BTreeSet<u32>,
    /// What is spoken in plaintext, by port and address.
    plaintext: BTreeMap<(u32, String), Place>,
    /// The address on which each TLS host of each port is served.
    tls_hosts: BTreeMap<u32, BTreeMap<String, String>>,
}

/// Merges Gateways, oldest first.
pub(crate) fn merge(selected: &[Selected<'_>], warnings: &mut Vec<Warning>) -> MergedGateway {
    let mut merger = Merger::default();
    for gateway in selected {
        let name = format!("{}/{}", gateway.meta.namespace, gateway.meta.name);
        merger.out.gateways.push(name.clone());
        for server in &gateway.gateway.servers {
            let Some(port) = &server.port else { continue };
            for number in resolve_ports(port.number, gateway) {
                if let Err(message) = merger.add(&name, gateway.meta, server, number) {
                    let message = format!("server on port {} ({}) is left out: {message}", port.number, port.name);
                    warnings.push(Warning { key: key(Kind::Gateway, gateway.meta), message });
                }
            }
        }
    }
    merger.out.gateways.sort();
    merger.out.port_map = port_map(&merger.out.servers_by_route);
    merger.out
}

impl Merger {
    fn add(&mut self, gateway: &str, meta: &ObjectMeta, server: &Server, number: u32) -> Result<(), String> {
        let mut server = server.clone();
        server.hosts = server.hosts.iter().map(|host| qualify(host, &meta.namespace)).collect();
        let declared = server.port.clone().unwrap_or_default();
        let protocol = Protocol::parse(&declared.protocol);
        let bind = server.bind.clone();
        let mut merged = MergedServer {
            gateway: gateway.to_owned(),
            protocol,
            route_name: String::new(),
            sni_hosts: Vec::new(),
            server,
        };
        merged.route_name = route_name(&merged, number, meta);
        if merged.server.tls.is_some() {
            // Two filter chains with the same server name on one address would be refused as a whole.
            self.reserve_tls_hosts(number, &merged.server.hosts, &bind)?;
            merged.sni_hosts = sni_hosts(&merged.server.hosts);
        }
        let place: Place = (number, protocol, bind);
        let server = Arc::new(merged);

        if !self.used.insert(number) {
            return self.add_to_used(place, server);
        }
        if !server.is_tls() {
            self.plaintext.insert((number, place.2.clone()), place.clone());
        }
        self.open(place, server);
        Ok(())
    }

    fn add_to_used(&mut self, place: Place, server: Arc<MergedServer>) -> Result<(), String> {
        let (number, protocol, bind) = &place;
        if let Some(current) = self.plaintext.get(&(*number, bind.clone())).cloned() {
            if !(protocol.is_http() && current.1.is_http()) {
                return Err(format!("{} is already spoken there and cannot share the port with {protocol}", current.1));
            }
            self.join(&current, server);
            return Ok(());
        }
        if !server.is_tls() {
            self.plaintext.insert((*number, bind.clone()), place.clone());
            self.open(place, server);
            return Ok(());
        }
        if server.is_http() && self.out.servers_by_route.contains_key(&server.route_name) {
            return Err("the port's name has to be unique among HTTPS servers".to_owned());
        }
        match self.port_at(&place) {
            Some(_) => self.join(&place, server),
            None => {
                self.register(&server);
                self.out.ports.push(new_port(place, String::new(), server));
            }
        }
        Ok(())
    }

    fn reserve_tls_hosts(&mut self, number: u32, hosts: &[String], bind: &str) -> Result<(), String> {
        let known = self.tls_hosts.entry(number).or_default();
        let taken: Vec<&str> = hosts
            .iter()
            .filter(|host| known.get(*host).is_some_and(|other| other == bind))
            .map(String::as_str)
            .collect();
        if !taken.is_empty() {
            return Err(format!("an older server on the same port already has TLS for {}", taken.join(", ")));
        }
        known.extend(hosts.iter().map(|host| (host.clone(), bind.to_owned())));
        Ok(())
    }

    fn port_at(&mut self, (number, protocol, bind): &Place) -> Option<&mut MergedPort> {
        self.out.ports.iter_mut().find(|p| p.number == *number && p.protocol == *protocol && p.bind == *bind)
    }

    /// A listener of its own.
    fn open(&mut self, place: Place, server: Arc<MergedServer>) {
        self.register(&server);
        let route_name = server.route_name.clone();
        self.out.ports.push(new_port(place, route_name, server));
    }

    /// One more server of a plaintext listener.
    fn join(&mut self, place: &Place, server: Arc<MergedServer>) {
        self.register(&server);
        if let Some(port) = self.port_at(place) {
            port.servers.push(server);
        }
    }

    fn register(&mut self, server: &Arc<MergedServer>) {
        if server.is_http() {
            self.out.servers_by_route.entry(server.route_name.clone()).or_default().push(server.clone());
        }
    }
}

fn new_port((number, protocol, bind): Place, route_name: String, server: Arc<MergedServer>) -> MergedPort {
    MergedPort { number, protocol, bind, route_name, servers: vec![server] }
}

/// The ports to listen on for a Gateway's port: the target ports of the proxy's own services with that port.
fn resolve_ports(number: u32, gateway: &Selected<'_>) -> Vec<u32> {
    let mut matching = gateway.targets.iter().filter(|target| target.port.number == number);
    if gateway.by_service {
        let ports: BTreeSet<u32> = matching.map(|target| target.target_port).collect();
        return ports.into_iter().collect();
    }
    let translated = matching.find(|target| !target.service.labels.contains_key(NO_PORT_TRANSLATION));
    vec![translated.map_or(number, |target| target.target_port)]
}

/// `./host` becomes `namespace/host`, `*/host` becomes `host`.
fn qualify(host: &str, namespace: &str) -> String {
    match host.split_once('/') {
        Some((".", name)) => format!("{namespace}/{name}"),
        Some(("*", name)) => name.to_owned(),
        _ => host.to_owned(),
    }
}

fn sni_hosts(hosts: &[String]) -> Vec<String> {
    let names: BTreeSet<&str> =
        hosts.iter().map(|host| host.split_once('/').map_or(host.as_str(), |(_, name)| name)).collect();
    names.into_iter().map(str::to_owned).collect()
}

/// `http.PORT` is shared by all plaintext HTTP servers of a port; `https.PORT.NAME.GATEWAY.NAMESPACE` belongs to one.
fn route_name(server: &MergedServer, number: u32, meta: &ObjectMeta) -> String {
    let bind = match server.server.bind.as_str() {
        "" => String::new(),
        bind => format!(".{bind}"),
    };
    if server.protocol.is_http() {
        return format!("http.{number}{bind}");
    }
    if server.protocol.is_https() && !server.is_passthrough() {
        let port_name = server.server.port.as_ref().map_or("", |port| port.name.as_str());
        return format!("https.{}.{port_name}.{}.{}{bind}", server.port_number(), meta.name, meta.namespace);
    }
    String::new()
}

fn port_map(servers_by_route: &BTreeMap<String, Vec<Arc<MergedServer>>>) -> BTreeMap<u32, Vec<u32>> {
    let mut map: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    for (route, servers) in servers_by_route {
        let Some(number) = route.split('.').nth(1).and_then(|number| number.parse().ok()) else { continue };
        map.entry(number).or_default().extend(servers.iter().map(|server| server.port_number()));
    }
    map.into_iter().map(|(port, numbers)| (port, numbers.into_iter().collect())).collect()
}

/// Whether any server lets TLS through to services by name, which needs clusters of its own.
pub(super) fn has_auto_passthrough(gateway: &MergedGateway) -> bool {
    let auto = |server: &Arc<MergedServer>| {
        server.server.tls.as_ref().is_some_and(|tls| tls.mode == ServerTlsMode::AutoPassthrough)
    };
    gateway.ports.iter().any(|port| port.servers.iter().any(auto))
}
