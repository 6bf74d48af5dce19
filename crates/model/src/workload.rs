//! WorkloadEntries, and inline endpoints: what listens somewhere, before it is known for which service.

use std::collections::BTreeMap;
use std::net::IpAddr;

use maille_api::ObjectMeta;
use maille_api::networking::WorkloadEntry;

use crate::endpoint::{Address, Endpoint, Health, Locality};
use crate::service::{Port, TargetPort};

const LOCALITY_LABEL: &str = "istio-locality";
const UNIX_PREFIX: &str = "unix://";
/// Auto-registered entries carry the name of the group they were made from.
const GROUP_ANNOTATION: &str = "istio.io/autoRegistrationGroup";

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Workload {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) address: String,
    pub(crate) labels: BTreeMap<String, String>,
    ports: BTreeMap<String, u32>,
    network: String,
    locality: Locality,
    weight: u32,
    service_account: String,
}

impl Workload {
    /// From a WorkloadEntry; its metadata's labels win over its spec's.
    pub(crate) fn of_object(meta: &ObjectMeta, entry: &WorkloadEntry) -> Workload {
        let mut labels = entry.labels.clone();
        labels.extend(meta.labels.clone());
        let name = meta.annotations.get(GROUP_ANNOTATION).unwrap_or(&meta.name);
        Workload::new(name.clone(), meta.namespace.clone(), entry, labels)
    }

    /// From the endpoint at `index` of a ServiceEntry.
    pub(crate) fn inline(meta: &ObjectMeta, index: usize, entry: &WorkloadEntry) -> Workload {
        Workload::new(format!("{}-{index}", meta.name), meta.namespace.clone(), entry, entry.labels.clone())
    }

    fn new(name: String, namespace: String, entry: &WorkloadEntry, mut labels: BTreeMap<String, String>) -> Workload {
        let locality = match (&entry.locality, labels.get(LOCALITY_LABEL)) {
            (own, Some(label)) if own.is_empty() => Locality::parse(label),
            (own, _) => Locality::parse(own),
        };
        // Locality and network can be asked for by label: in subsets and in failover priorities.
        for (label, value) in [
            ("topology.kubernetes.io/region", &locality.region),
            ("topology.kubernetes.io/zone", &locality.zone),
            ("topology.istio.io/subzone", &locality.subzone),
            ("topology.istio.io/network", &entry.network),
        ] {
            if !value.is_empty() {
                labels.insert(label.to_owned(), value.clone());
            }
        }
        Workload {
            name,
            namespace,
            address: entry.address.clone(),
            labels,
            ports: entry.ports.clone(),
            network: entry.network.clone(),
            locality,
            weight: entry.weight,
            service_account: entry.service_account.clone(),
        }
    }

    /// Whether its address is an IP: a unix socket or a name cannot stand behind a Kubernetes service.
    pub(crate) fn has_ip(&self) -> bool {
        self.address.parse::<IpAddr>().is_ok()
    }

    /// How it serves a port of a Kubernetes service; `None` when it has no port of the name the service asks for.
    pub(crate) fn for_kubernetes(&self, port: &Port) -> Option<Endpoint> {
        let number = match &port.target {
            TargetPort::Name(name) => self.port(name)?,
            TargetPort::Number(number) => self.port(&port.name).unwrap_or(*number),
            TargetPort::Same => self.port(&port.name).unwrap_or(port.number),
        };
        Some(self.endpoint(self.address_at(number), port))
    }

    /// How it serves a port of a ServiceEntry: the workload's own mapping, else the target port, else the same number.
    pub(crate) fn for_service_entry(&self, port: &Port) -> Endpoint {
        if let Some(path) = self.address.strip_prefix(UNIX_PREFIX) {
            return self.endpoint(Address::Unix(path.to_owned()), port);
        }
        let number = self.port(&port.name).unwrap_or(match port.target {
            TargetPort::Number(number) => number,
            _ => port.number,
        });
        self.endpoint(self.address_at(number), port)
    }

    fn port(&self, name: &str) -> Option<u32> {
        self.ports.get(name).copied().filter(|number| *number > 0)
    }

    fn address_at(&self, number: u32) -> Address {
        match self.has_ip() {
            true => Address::Ip(self.address.clone(), number),
            false => Address::Name(self.address.clone(), number),
        }
    }

    fn endpoint(&self, address: Address, port: &Port) -> Endpoint {
        Endpoint {
            address,
            service_port: port.number,
            service_port_name: port.name.clone(),
            labels: self.labels.clone(),
            locality: self.locality.clone(),
            weight: self.weight,
            network: self.network.clone(),
            namespace: self.namespace.clone(),
            workload_name: self.name.clone(),
            service_account: self.service_account.clone(),
            health: Health::Healthy,
        }
    }
}
