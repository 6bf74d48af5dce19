//! What a proxy itself serves, and which Gateways are meant for it.

use std::collections::HashSet;
use std::sync::Arc;

use maille_api::ObjectMeta;
use maille_api::networking::Gateway;

use super::ServiceTarget;
use super::registry::Registry;
use crate::destination_rule::is_subset;
use crate::gateway::merge::Selected;
use crate::service::{Port, Service, TargetPort};
use crate::workload::Workload;
use crate::{Protocol, Proxy};

/// On a Gateway made from another API: the services whose workloads it is for, instead of a selector.
const GATEWAY_SERVICE: &str = "internal.istio.io/gateway-service";

impl Registry {
    pub(super) fn targets(&self, proxy: &Proxy) -> Vec<ServiceTarget> {
        let mut targets = match self.workload_of(proxy) {
            Some(workload) => self.kubernetes_targets_of_workload(workload),
            None => self.kubernetes_targets_of_labels(proxy),
        };
        for ip in &proxy.ip_addresses {
            for instance in self.entry_instances.get(ip).into_iter().flatten() {
                let own = proxy.metadata.namespace.as_ref().is_none_or(|own| *own == instance.service.namespace);
                if let (true, Some(port)) = (own, instance.service.port(instance.service_port)) {
                    targets.push(ServiceTarget {
                        service: instance.service.clone(),
                        port: port.clone(),
                        target_port: instance.target_port,
                    });
                }
            }
        }
        targets.sort_by(|a, b| {
            (a.service.creation_time, &a.service.hostname).cmp(&(b.service.creation_time, &b.service.hostname))
        });
        if let Some(app_ports) = &proxy.metadata.app_ports {
            let served = |port: u32| u16::try_from(port).is_ok_and(|port| app_ports.contains_key(&port));
            targets.retain(|target| served(target.target_port));
        }
        targets
    }

    /// The WorkloadEntry at the proxy's address, its namespace's first.
    fn workload_of(&self, proxy: &Proxy) -> Option<&Workload> {
        let address = proxy.ip_addresses.first()?;
        let here = |workload: &&Workload| workload.address == *address && !workload.labels.is_empty();
        let own = self.workloads.get(&proxy.namespace).and_then(|of_namespace| of_namespace.iter().find(here));
        own.or_else(|| match &proxy.metadata.namespace {
            Some(_) => None,
            None => self.workloads.values().flatten().find(here),
        })
    }

    fn selecting(&self, namespace: &str, selects: impl Fn(&Service) -> bool) -> impl Iterator<Item = &Arc<Service>> {
        let of_namespace = move |s: &&Arc<Service>| s.is_kubernetes() && s.namespace == namespace;
        self.services.iter().filter(of_namespace).filter(move |s| !s.selector.is_empty() && selects(s))
    }

    fn kubernetes_targets_of_workload(&self, workload: &Workload) -> Vec<ServiceTarget> {
        let services = self.selecting(&workload.namespace, |s| is_subset(&s.selector, &workload.labels));
        let ports = services.flat_map(|service| service.ports.iter().map(move |port| (service, port)));
        let tcp = ports.filter(|(_, port)| port.protocol != Protocol::Udp);
        tcp.filter_map(|(service, port)| {
            let endpoint = workload.for_kubernetes(port)?;
            let target_port = endpoint.address.port();
            Some(ServiceTarget { service: service.clone(), port: port.clone(), target_port })
        })
        .collect()
    }

    /// A proxy nobody registered is still known by its labels.
    fn kubernetes_targets_of_labels(&self, proxy: &Proxy) -> Vec<ServiceTarget> {
        if proxy.labels.is_empty() {
            return Vec::new();
        }
        let mut targets = Vec::new();
        for service in self.selecting(&proxy.namespace, |s| is_subset(&s.selector, &proxy.labels)) {
            let mut seen = HashSet::new();
            for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
                let Some(target_port) = target_port(port, proxy) else { continue };
                // Two service ports on one target port and protocol are one listener.
                if seen.insert((target_port, port.protocol)) {
                    targets.push(ServiceTarget { service: service.clone(), port: port.clone(), target_port });
                }
            }
        }
        targets
    }
}

fn target_port(port: &Port, proxy: &Proxy) -> Option<u32> {
    match &port.target {
        TargetPort::Same => Some(port.number),
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => proxy.metadata.pod_ports.get(name).map(|number| u32::from(*number)),
    }
}

/// The Gateway as it concerns this proxy, if it does.
pub(super) fn select<'a>(
    meta: &'a ObjectMeta,
    gateway: &'a Gateway,
    proxy: &Proxy,
    targets: &'a [ServiceTarget],
) -> Option<Selected<'a>> {
    if let Some(services) = meta.annotations.get(GATEWAY_SERVICE) {
        let named = |target: &&ServiceTarget| {
            target.service.namespace == meta.namespace
                && services.split(',').any(|host| host == target.service.hostname)
        };
        let targets: Vec<_> = targets.iter().filter(named).collect();
        return (!targets.is_empty()).then_some(Selected { meta, gateway, by_service: true, targets });
    }
    let selected = is_subset(&gateway.selector, &proxy.labels);
    selected.then(|| Selected { meta, gateway, by_service: false, targets: targets.iter().collect() })
}
