//! Services and who serves them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use maille_api::mesh::MeshConfig;
use maille_api::networking::ServiceEntry;
use maille_api::{Kind, Object, ObjectMeta, Spec};

use super::Options;
use crate::destination_rule::is_subset;
use crate::namespaces::Namespaces;
use crate::service::{self, kubernetes};
use crate::warning::Warning;
use crate::workload::Workload;
use crate::{Address, Endpoint, ExportTo, NamespacedHost, Resolution, Service};

/// A ServiceEntry's port as served at some address, for finding out what a proxy itself serves.
#[derive(Debug)]
pub(super) struct EntryInstance {
    pub(super) service: Arc<Service>,
    pub(super) service_port: u32,
    pub(super) target_port: u32,
}

#[derive(Debug, Default)]
pub(super) struct Registry {
    /// Oldest first.
    pub(super) services: Vec<Arc<Service>>,
    pub(super) by_host: HashMap<String, BTreeMap<String, Arc<Service>>>,
    /// By namespace, then by address.
    pub(super) workloads: BTreeMap<String, Vec<Workload>>,
    pub(super) entry_instances: HashMap<String, Vec<EntryInstance>>,
    endpoints: HashMap<(String, String), BTreeMap<u32, Vec<Endpoint>>>,
    /// What `endpoints` has already; only of use while it grows.
    seen: HashSet<(String, String, u32, Address)>,
}

impl Registry {
    /// `objects` come oldest first.
    pub(super) fn new(
        objects: &[&Object],
        mesh: &MeshConfig,
        options: &Options,
        namespaces: &Namespaces<'_>,
        warnings: &mut Vec<Warning>,
    ) -> Registry {
        let mut registry = Registry::default();
        let default_export = ExportTo::mesh_default(&mesh.default_service_export_to);
        let mut entries = Vec::new();
        for object in objects {
            let meta = &object.meta;
            match &object.spec {
                Spec::WorkloadEntry(entry) => {
                    let workload = Workload::of_object(meta, entry);
                    if workload.address.is_empty() {
                        let message = "an entry without an address is reached through its network's gateway, which is \
                                       not supported: it is left out";
                        warnings.push(Warning { key: object.key(), message: message.to_owned() });
                        continue;
                    }
                    registry.workloads.entry(meta.namespace.clone()).or_default().push(workload);
                }
                Spec::Service(spec) => {
                    if spec.internal_traffic_policy == "Local" {
                        let message = "internalTrafficPolicy Local is not followed: endpoints do not say their node";
                        warnings.push(Warning { key: object.key(), message: message.to_owned() });
                    }
                    let service = kubernetes::convert(meta, spec, &options.cluster_domain, &default_export);
                    registry.services.push(Arc::new(service));
                }
                Spec::ServiceEntry(spec) => {
                    for mut service in service::entry::convert(meta, spec, &default_export) {
                        service.export_to = namespaces.limit(service.export_to, &meta.namespace);
                        let service = Arc::new(service);
                        registry.services.push(service.clone());
                        entries.push((meta, spec, service));
                    }
                }
                _ => {}
            }
        }
        registry.services.sort_by(|a, b| {
            (a.creation_time, &a.name, &a.namespace, &a.object_name).cmp(&(
                b.creation_time,
                &b.name,
                &b.namespace,
                &b.object_name,
            ))
        });
        resolve_aliases(&mut registry.services);
        registry.index_hosts(warnings);
        registry.serve_kubernetes();
        for (meta, spec, service) in entries {
            registry.serve_entry(meta, spec, &service);
        }
        registry.seen = HashSet::new();
        registry
    }

    pub(super) fn endpoints(&self, service: &Service, port: u32) -> &[Endpoint] {
        let of_service = self.endpoints.get(&(service.namespace.clone(), service.hostname.clone()));
        of_service.and_then(|ports| ports.get(&port)).map_or(&[], Vec::as_slice)
    }

    /// For a host and namespace the first service counts, and Kubernetes' before any ServiceEntry's.
    fn index_hosts(&mut self, warnings: &mut Vec<Warning>) {
        for service in &self.services {
            let by_namespace = self.by_host.entry(service.hostname.clone()).or_default();
            match by_namespace.get(&service.namespace) {
                Some(first) if first.is_kubernetes() || !service.is_kubernetes() => {
                    if service.addresses == first.addresses && service.object_name != first.object_name {
                        warnings.push(duplicate_host(service, first));
                    }
                }
                _ => {
                    by_namespace.insert(service.namespace.clone(), service.clone());
                }
            }
        }
    }

    fn serve_kubernetes(&mut self) {
        let mut found = Vec::new();
        for service in self.services.iter().filter(|service| service.is_kubernetes() && !service.selector.is_empty()) {
            let Some(workloads) = self.workloads.get(&service.namespace) else { continue };
            for workload in workloads.iter().filter(|w| w.has_ip() && is_subset(&service.selector, &w.labels)) {
                for endpoint in service.ports.iter().filter_map(|port| workload.for_kubernetes(port)) {
                    found.push((service.clone(), endpoint));
                }
            }
        }
        self.add_endpoints(found);
    }

    fn serve_entry(&mut self, meta: &ObjectMeta, spec: &ServiceEntry, service: &Arc<Service>) {
        let by_name =
            matches!(service.resolution, Resolution::Dns | Resolution::DnsRoundRobin | Resolution::DynamicDns);
        let workloads: Vec<Workload> = match &spec.workload_selector {
            Some(selector) => {
                let of_namespace = self.workloads.get(&meta.namespace).map_or(&[][..], Vec::as_slice);
                let selected = of_namespace.iter().filter(|w| is_subset(&selector.labels, &w.labels));
                // Names and unix sockets are not addresses that can be sent as endpoints.
                selected.filter(|w| by_name || w.has_ip()).cloned().collect()
            }
            None => spec.endpoints.iter().enumerate().map(|(i, entry)| Workload::inline(meta, i, entry)).collect(),
        };
        let mut found: Vec<(Arc<Service>, Endpoint)> = Vec::new();
        for workload in &workloads {
            found.extend(service.ports.iter().map(|port| (service.clone(), workload.for_service_entry(port))));
        }
        if by_name && spec.endpoints.is_empty() && spec.workload_selector.is_none() {
            // Nothing but a name: the name itself is the endpoint.
            found.extend(service.ports.iter().map(|port| (service.clone(), named_endpoint(meta, service, port))));
        }
        for (service, endpoint) in &found {
            let instance = EntryInstance {
                service: service.clone(),
                service_port: endpoint.service_port,
                target_port: endpoint.address.port(),
            };
            self.entry_instances.entry(endpoint.address.host().to_owned()).or_default().push(instance);
        }
        self.add_endpoints(found);
    }

    fn add_endpoints(&mut self, found: Vec<(Arc<Service>, Endpoint)>) {
        for (service, endpoint) in found {
            let id =
                (service.namespace.clone(), service.hostname.clone(), endpoint.service_port, endpoint.address.clone());
            if self.seen.insert(id) {
                let ports = self.endpoints.entry((service.namespace.clone(), service.hostname.clone())).or_default();
                ports.entry(endpoint.service_port).or_default().push(endpoint);
            }
        }
    }
}

fn named_endpoint(meta: &ObjectMeta, service: &Service, port: &crate::Port) -> Endpoint {
    let number = match port.target {
        crate::TargetPort::Number(number) => number,
        _ => port.number,
    };
    Endpoint {
        address: Address::Name(service.hostname.clone(), number),
        service_port: port.number,
        service_port_name: port.name.clone(),
        labels: BTreeMap::new(),
        locality: Default::default(),
        weight: 0,
        network: String::new(),
        namespace: meta.namespace.clone(),
        workload_name: meta.name.clone(),
        service_account: String::new(),
        health: Default::default(),
    }
}

fn duplicate_host(service: &Service, first: &Service) -> Warning {
    let kind = if service.is_kubernetes() { Kind::Service } else { Kind::ServiceEntry };
    let owner = if first.is_kubernetes() { "Service" } else { "ServiceEntry" };
    Warning {
        key: maille_api::Key { kind, namespace: service.namespace.clone(), name: service.object_name.clone() },
        message: format!(
            "host {} is already declared by {owner} {}/{}: endpoints come together, and the older one decides the rest",
            service.hostname, first.namespace, first.object_name
        ),
    }
}

/// Tells every service which ExternalName services stand for it, through other ExternalNames too.
fn resolve_aliases(services: &mut [Arc<Service>]) {
    let stands_for: BTreeMap<NamespacedHost, String> = services
        .iter()
        .filter(|service| service.resolution == Resolution::Alias)
        .filter_map(|service| {
            let host = NamespacedHost { hostname: service.hostname.clone(), namespace: service.namespace.clone() };
            Some((host, service.external_name.clone()?))
        })
        .collect();
    let next: BTreeMap<&str, &str> =
        stands_for.iter().map(|(host, target)| (host.hostname.as_str(), target.as_str())).collect();
    let mut aliases: BTreeMap<String, Vec<NamespacedHost>> = BTreeMap::new();
    for (alias, target) in &stands_for {
        let mut target = target.as_str();
        let mut seen = HashSet::from([alias.hostname.as_str()]);
        // Names that go round in a circle lead nowhere, as in DNS.
        let ends = loop {
            if !seen.insert(target) {
                break false;
            }
            match next.get(target) {
                Some(further) => target = further,
                None => break true,
            }
        };
        if ends {
            aliases.entry(target.to_owned()).or_default().push(alias.clone());
        }
    }
    for service in services {
        if let Some(names) = aliases.get_mut(&service.hostname) {
            names.sort_by(|a, b| (&a.namespace, &a.hostname).cmp(&(&b.namespace, &b.hostname)));
            Arc::make_mut(service).aliases.clone_from(names);
        }
    }
}
