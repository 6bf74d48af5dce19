//! A service of the registry, whoever declared it.

pub(crate) mod entry;
pub(crate) mod kubernetes;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::protocol::Protocol;
use crate::visibility::ExportTo;

/// How the addresses behind a service are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// The control plane knows them and sends them (EDS).
    ClientSideLb,
    /// The proxy resolves names and uses every address.
    Dns,
    /// The proxy resolves one name and uses one address at a time.
    DnsRoundRobin,
    /// Wherever the client was going.
    Passthrough,
    /// The proxy resolves the name of each request.
    DynamicDns,
    /// Another service answers for it (ExternalName).
    Alias,
}

/// Who declared a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Registry {
    /// A v1 Service.
    Kubernetes,
    /// A ServiceEntry.
    ServiceEntry,
}

/// Spread of traffic asked for on the service itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TrafficDistribution {
    /// No wish.
    #[default]
    Any,
    /// Near by network topology: network, region, zone, subzone.
    PreferClose,
    /// The client's own zone first.
    PreferSameZone,
    /// The client's own node first.
    PreferSameNode,
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Port {
    /// Its name, unique in the service.
    pub name: String,
    /// The number clients use.
    pub number: u32,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Where workloads listen unless they say otherwise.
    pub target: TargetPort,
}

/// The workload's side of a service port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TargetPort {
    /// The same number as the service's.
    Same,
    /// This number.
    Number(u32),
    /// The workload's port of this name.
    Name(String),
}

/// A host that clients may call. One ServiceEntry makes one service for each of its hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The host, such as `reviews.shop.svc.cluster.local` or `*.example.com`.
    pub hostname: String,
    /// The short name for a Kubernetes service, the host for a ServiceEntry.
    pub name: String,
    /// Where it was declared.
    pub namespace: String,
    /// The name of the object that declared it.
    pub object_name: String,
    /// Who declared it.
    pub registry: Registry,
    /// Its ports in the order written.
    pub ports: Vec<Port>,
    /// Virtual addresses, IPs or CIDRs. Empty means that it has none of its own (`0.0.0.0`).
    pub addresses: Vec<String>,
    /// Addresses that the name resolves to inside the mesh when `addresses` is empty.
    pub auto_allocated: Vec<String>,
    /// How its addresses are found.
    pub resolution: Resolution,
    /// Outside the mesh: no identity is expected of it.
    pub mesh_external: bool,
    /// Who may see it.
    pub export_to: ExportTo,
    /// Labels of the declaring object.
    pub labels: BTreeMap<String, String>,
    /// Labels of the workloads behind it; empty selects none.
    pub selector: BTreeMap<String, String>,
    /// A Kubernetes service without a cluster IP.
    pub headless: bool,
    /// What an ExternalName service stands for.
    pub external_name: Option<String>,
    /// Hosts that stand for this one.
    pub aliases: Vec<NamespacedHost>,
    /// Identities accepted of it, beside those of its endpoints.
    pub subject_alt_names: Vec<String>,
    /// The spread asked for on the service itself.
    pub traffic_distribution: TrafficDistribution,
    /// When it was declared, in unix seconds.
    pub creation_time: i64,
}

/// A host as declared in one namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespacedHost {
    /// The host.
    pub hostname: String,
    /// Where it was declared.
    pub namespace: String,
}

impl Service {
    /// The port of this number.
    pub fn port(&self, number: u32) -> Option<&Port> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// The address shown first, or the unspecified one.
    pub fn default_address(&self) -> &str {
        self.addresses.first().map_or("0.0.0.0", String::as_str)
    }

    /// Whether Kubernetes declared it.
    pub fn is_kubernetes(&self) -> bool {
        self.registry == Registry::Kubernetes
    }

    /// The same service with these ports only.
    pub(crate) fn with_ports(self: &Arc<Self>, keep: impl Fn(&Port) -> bool) -> Option<Arc<Service>> {
        let ports: Vec<Port> = self.ports.iter().filter(|port| keep(port)).cloned().collect();
        match ports.len() {
            0 => None,
            all if all == self.ports.len() => Some(self.clone()),
            _ => Some(Arc::new(Service { ports, ..(**self).clone() })),
        }
    }
}
