//! A place where a service port is served.

use std::collections::BTreeMap;
use std::fmt;

/// `region/zone/subzone`; parts that are empty are unspecified.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    /// The widest part.
    pub region: String,
    /// Inside a region.
    pub zone: String,
    /// Inside a zone.
    pub subzone: String,
}

impl Locality {
    /// From `region/zone/subzone`, or with dots as labels write it.
    pub fn parse(text: &str) -> Locality {
        let separator = if text.contains('/') { '/' } else { '.' };
        let mut parts = text.splitn(3, separator).map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Locality { region: next(), zone: next(), subzone: next() }
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.region.is_empty() && self.zone.is_empty() && self.subzone.is_empty()
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.region)?;
        if !self.zone.is_empty() || !self.subzone.is_empty() {
            write!(f, "/{}", self.zone)?;
        }
        if !self.subzone.is_empty() {
            write!(f, "/{}", self.subzone)?;
        }
        Ok(())
    }
}

/// The label of a workload that says whether a sidecar of the mesh takes mutual TLS for it.
pub const TLS_MODE_LABEL: &str = "security.istio.io/tlsMode";
/// What the label says where one does.
pub const TLS_MODE_ISTIO: &str = "istio";

/// Whether a workload passed its checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Health {
    /// Ready, or never checked.
    #[default]
    Healthy,
    /// Its last check failed.
    Unhealthy,
}

/// Where an endpoint listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An IP address and a port.
    Ip(String, u32),
    /// A name to be resolved by the proxy, and a port.
    Name(String, u32),
    /// A path, or a name after `@` for an abstract socket.
    Unix(String),
}

impl Address {
    /// The address or name, without the port.
    pub fn host(&self) -> &str {
        match self {
            Address::Ip(host, _) | Address::Name(host, _) | Address::Unix(host) => host,
        }
    }

    /// The port, zero for a unix socket.
    pub fn port(&self) -> u32 {
        match self {
            Address::Ip(_, port) | Address::Name(_, port) => *port,
            Address::Unix(_) => 0,
        }
    }
}

/// One workload, as it serves one port of one service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// Where it listens.
    pub address: Address,
    /// The number of the service's port it serves.
    pub service_port: u32,
    /// The name of the service's port it serves.
    pub service_port_name: String,
    /// The workload's labels, for subsets.
    pub labels: BTreeMap<String, String>,
    /// Where it runs.
    pub locality: Locality,
    /// Its share among the others; zero is unset and means one.
    pub weight: u32,
    /// The network it is on; empty is unspecified.
    pub network: String,
    /// Its workload's namespace.
    pub namespace: String,
    /// Its workload's name.
    pub workload_name: String,
    /// Its service account; empty is unspecified.
    pub service_account: String,
    /// Whether it passed its checks.
    pub health: Health,
}

impl Endpoint {
    /// Whether a sidecar of the mesh takes mutual TLS for it.
    pub fn has_mutual_tls(&self) -> bool {
        self.labels.get(TLS_MODE_LABEL).is_some_and(|mode| mode == TLS_MODE_ISTIO)
    }
}
