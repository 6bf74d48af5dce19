//! How a Sidecar resource becomes a scope: which services and routes each of its egress listeners imports.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use maille_api::ObjectMeta;
use maille_api::mesh;
use maille_api::networking::Sidecar;
use maille_api::networking::sidecar::{IstioEgressListener, OutboundTrafficPolicyMode};

use super::{EgressListener, OutboundMode, OutboundPolicy, SidecarScope};
use crate::host::{HostMap, is_wildcard, matches, subset_of};
use crate::protocol::Protocol;
use crate::service::Service;
use crate::snapshot::Snapshot;
use crate::virtual_service::{MESH_GATEWAY, VirtualService};

impl SidecarScope {
    /// The scope of a gateway: whatever is exported to its namespace.
    pub(crate) fn for_gateway(snapshot: &Snapshot, namespace: &str) -> SidecarScope {
        let mut services = Services::default();
        for service in snapshot.services_visible_to(namespace) {
            services.add(service);
        }
        let listener = EgressListener {
            listener: everything(),
            services: services.list.clone(),
            virtual_services: snapshot.virtual_services_for_gateway(MESH_GATEWAY, namespace),
            most_specific: BTreeMap::new(),
        };
        SidecarScope {
            namespace: namespace.to_owned(),
            sidecar: None,
            egress: vec![listener],
            outbound_policy: mesh_policy(snapshot),
            services: services.list,
            by_host: services.by_host,
        }
    }

    /// The scope of the sidecars in a namespace that follow this Sidecar, or none.
    pub(crate) fn for_sidecar(
        snapshot: &Snapshot,
        namespace: &str,
        sidecar: Option<&(ObjectMeta, Sidecar)>,
    ) -> SidecarScope {
        let mut listeners = sidecar.map(|(_, sidecar)| sidecar.egress.clone()).unwrap_or_default();
        if listeners.is_empty() {
            listeners.push(everything());
        }
        let egress: Vec<EgressListener> =
            listeners.into_iter().map(|listener| import(snapshot, namespace, listener)).collect();
        let services = all_services(snapshot, namespace, &egress);
        let own_policy = sidecar.and_then(|(_, sidecar)| sidecar.outbound_traffic_policy.as_ref());
        let outbound_policy = match own_policy {
            None => mesh_policy(snapshot),
            Some(policy) => OutboundPolicy {
                mode: match policy.mode {
                    OutboundTrafficPolicyMode::RegistryOnly => OutboundMode::RegistryOnly,
                    OutboundTrafficPolicyMode::AllowAny => OutboundMode::AllowAny,
                },
                egress_proxy: policy.egress_proxy.clone(),
            },
        };
        SidecarScope {
            namespace: namespace.to_owned(),
            sidecar: sidecar.cloned(),
            egress,
            outbound_policy,
            services: services.list,
            by_host: services.by_host,
        }
    }
}

fn everything() -> IstioEgressListener {
    IstioEgressListener { hosts: vec!["*/*".to_owned()], ..IstioEgressListener::default() }
}

fn mesh_policy(snapshot: &Snapshot) -> OutboundPolicy {
    let mode = match snapshot.mesh().outbound_traffic_policy.as_ref().map(|policy| policy.mode) {
        Some(mesh::OutboundTrafficPolicyMode::RegistryOnly) => OutboundMode::RegistryOnly,
        Some(mesh::OutboundTrafficPolicyMode::AllowAnyDynamicDns) => OutboundMode::AllowAnyDynamicDns,
        Some(mesh::OutboundTrafficPolicyMode::AllowAny) | None => OutboundMode::AllowAny,
    };
    OutboundPolicy { mode, egress_proxy: None }
}

/// The hosts a listener names for one namespace.
#[derive(Default)]
struct Hosts {
    exact: BTreeSet<String>,
    all: Vec<String>,
    excluded: Vec<String>,
}

impl Hosts {
    fn excludes(&self, host: &str) -> bool {
        self.excluded.iter().any(|excluded| subset_of(host, excluded))
    }

    fn imports_service(&self, host: &str) -> bool {
        self.exact.contains(host) || self.all.iter().any(|imported| is_wildcard(imported) && subset_of(host, imported))
    }

    /// A route for `*.com` is of use to someone who imports `a.com`, so overlap is enough here.
    fn imports_route(&self, host: &str) -> bool {
        let wild = is_wildcard(host);
        self.exact.contains(host) || self.all.iter().any(|i| (wild || is_wildcard(i)) && matches(host, i))
    }
}

struct Imports {
    by_namespace: BTreeMap<String, Hosts>,
}

impl Imports {
    fn new(hosts: &[String], own_namespace: &str) -> Imports {
        let mut by_namespace: BTreeMap<String, Hosts> = BTreeMap::new();
        for (namespace, name) in hosts.iter().filter_map(|host| host.split_once('/')) {
            let (excluded, namespace) = match namespace.strip_prefix('~') {
                Some("") => (true, "*"),
                Some(rest) => (true, rest),
                None => (false, namespace),
            };
            let namespace = if namespace == "." { own_namespace } else { namespace };
            let hosts = by_namespace.entry(namespace.to_owned()).or_default();
            if excluded {
                hosts.excluded.push(name.to_owned());
                continue;
            }
            if !is_wildcard(name) {
                hosts.exact.insert(name.to_owned());
            }
            hosts.all.push(name.to_owned());
        }
        Imports { by_namespace }
    }

    /// The hosts for a namespace's own entries, then those for every namespace.
    fn of(&self, namespace: &str) -> impl Iterator<Item = &Hosts> {
        [namespace, "*"].into_iter().filter_map(|namespace| self.by_namespace.get(namespace))
    }

    fn excludes(&self, namespace: &str, host: &str) -> bool {
        self.of(namespace).any(|hosts| hosts.excludes(host))
    }

    fn service(&self, service: &Service) -> bool {
        !self.excludes(&service.namespace, &service.hostname)
            && self.of(&service.namespace).any(|hosts| hosts.imports_service(&service.hostname))
    }

    fn route(&self, route: &VirtualService) -> bool {
        let namespace = &route.meta.namespace;
        self.of(namespace).any(|hosts| {
            route.spec.hosts.iter().any(|host| hosts.imports_route(host) && !self.excludes(namespace, host))
        })
    }
}

fn import(snapshot: &Snapshot, namespace: &str, listener: IstioEgressListener) -> EgressListener {
    let imports = Imports::new(&listener.hosts, namespace);
    let port = port_to_match(&listener);
    let candidates = snapshot.services_visible_to(namespace).filter(|service| imports.service(service));
    let narrowed = candidates.filter_map(|service| match port {
        Some(number) => service.with_ports(|port| port.number == number),
        None => Some(service.clone()),
    });
    let services = one_namespace_per_host(narrowed.collect(), namespace);
    let virtual_services: Vec<_> = snapshot
        .virtual_services_for_gateway(MESH_GATEWAY, namespace)
        .into_iter()
        .filter(|route| imports.route(route))
        .collect();
    let most_specific = most_specific(&virtual_services, &services);
    EgressListener { listener, services, virtual_services, most_specific }
}

/// A listener with a port imports that port alone, except a forward proxy, which is for any.
fn port_to_match(listener: &IstioEgressListener) -> Option<u32> {
    let port = listener.port.as_ref()?;
    (port.number != 0 && Protocol::parse(&port.protocol) != Protocol::HttpProxy).then_some(port.number)
}

/// Of a host that several namespaces declare, the client's own namespace is taken; then Kubernetes', then the oldest.
fn one_namespace_per_host(services: Vec<Arc<Service>>, own: &str) -> Vec<Arc<Service>> {
    let mut chosen: HashMap<&str, &Arc<Service>> = HashMap::new();
    for service in &services {
        let current = chosen.entry(&service.hostname).or_insert(service);
        let closer = service.namespace == own && current.namespace != own;
        let stronger = service.is_kubernetes() && !current.is_kubernetes();
        if closer || (stronger && (service.namespace == own || current.namespace != own)) {
            *current = service;
        }
    }
    let namespaces: HashMap<&str, &str> =
        chosen.into_iter().map(|(host, service)| (host, service.namespace.as_str())).collect();
    let keep = |service: &&Arc<Service>| namespaces.get(service.hostname.as_str()) == Some(&service.namespace.as_str());
    services.iter().filter(keep).cloned().collect()
}

/// For each service, the first VirtualService that has the most specific host for it.
fn most_specific(routes: &[Arc<VirtualService>], services: &[Arc<Service>]) -> BTreeMap<String, usize> {
    let mut owners: HostMap<usize> = HostMap::default();
    for (index, route) in routes.iter().enumerate() {
        for host in &route.spec.hosts {
            owners.entry(host).or_insert(index);
        }
    }
    let found = |service: &Arc<Service>| {
        owners.most_specific(&service.hostname).map(|(_, index)| (service.hostname.clone(), *index))
    };
    services.iter().filter_map(found).collect()
}

/// Everything clusters are needed for: what listeners import, and where their routes lead.
fn all_services(snapshot: &Snapshot, namespace: &str, egress: &[EgressListener]) -> Services {
    let mut services = Services::default();
    for listener in egress {
        for service in &listener.services {
            services.add(service);
        }
        let listener_port = port_to_match(&listener.listener);
        for route in &listener.virtual_services {
            for (host, ports) in route.destinations(Some(namespace)) {
                let Some(service) = snapshot.destination_service(host, namespace) else { continue };
                let any_port = ports.contains(&0);
                let narrowed = match listener_port {
                    Some(number) => service.with_ports(|port| port.number == number),
                    None => service.with_ports(|port| any_port || ports.contains(&port.number)),
                };
                if let Some(service) = narrowed {
                    services.add(&service);
                }
            }
        }
    }
    services
}

/// Services, each host once.
#[derive(Default)]
struct Services {
    list: Vec<Arc<Service>>,
    index: HashMap<String, usize>,
    by_host: HashMap<String, Arc<Service>>,
}

impl Services {
    fn add(&mut self, service: &Arc<Service>) {
        let Some(&index) = self.index.get(&service.hostname) else {
            self.index.insert(service.hostname.clone(), self.list.len());
            self.by_host.insert(service.hostname.clone(), service.clone());
            self.list.push(service.clone());
            return;
        };
        let existing = &self.list[index];
        // Kubernetes' own name cannot be taken by a ServiceEntry; otherwise the first stays, and ports that different
        // listeners imported of the same service come together.
        let replacement = match (existing.is_kubernetes(), service.is_kubernetes()) {
            (true, false) => return,
            (false, true) => service.clone(),
            _ if existing.ports == service.ports || !mergeable(existing, service) => return,
            _ => {
                let mut merged = (**existing).clone();
                let new = service.ports.iter().filter(|port| existing.port(port.number).is_none());
                merged.ports.extend(new.cloned());
                Arc::new(merged)
            }
        };
        self.by_host.insert(service.hostname.clone(), replacement.clone());
        self.list[index] = replacement;
    }
}

fn mergeable(a: &Service, b: &Service) -> bool {
    a.namespace == b.namespace
        && a.resolution == b.resolution
        && a.registry == b.registry
        && a.labels == b.labels
        && a.selector == b.selector
        && a.export_to == b.export_to
}
