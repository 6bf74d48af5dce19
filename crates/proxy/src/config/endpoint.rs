//! The hosts of a cluster.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::Metadata;

/// The hosts of a cluster, by locality.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Endpoints {
    /// The name they are discovered under.
    pub cluster: Arc<str>,
    /// The localities, in the order given.
    pub localities: Vec<LocalityEndpoints>,
    /// By how much a priority's hosts may be over-used before the next one takes over, in percent.
    pub overprovisioning_factor: u32,
    /// Whether a priority's health is told by its hosts' weights rather than by their number.
    pub weighted_priority_health: bool,
}

/// The hosts of a locality at a priority.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalityEndpoints {
    /// Where they are.
    pub locality: Locality,
    /// 0 is used first.
    pub priority: u32,
    /// The locality's weight, when localities are weighted.
    pub weight: Option<u32>,
    /// The hosts.
    pub endpoints: Vec<Endpoint>,
}

/// A place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the fields say it")]
pub struct Locality {
    pub region: Arc<str>,
    pub zone: Arc<str>,
    pub sub_zone: Arc<str>,
}

/// One host.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Where it is.
    pub address: EndpointAddress,
    /// Where it is too: tried in turn when it cannot be reached at its address.
    pub others: Arc<[SocketAddr]>,
    /// Its own name, for host rewriting; may be empty.
    pub hostname: Arc<str>,
    /// Its share of the traffic, at least 1.
    pub weight: u32,
    /// What discovery says of its health.
    pub health: Health,
    /// For transport choice and logs.
    pub metadata: Option<Arc<Metadata>>,
}

/// Where a host is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointAddress {
    /// At an IP address.
    Socket(SocketAddr),
    /// At what DNS says about a name.
    Host(Arc<str>, u16),
    /// At a Unix socket.
    Unix(Arc<str>),
}

/// What discovery says of a host's health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It can be used.
    #[default]
    Healthy,
    /// Only when there are not enough others.
    Degraded,
    /// It takes no new requests; those that have begun go on.
    Draining,
    /// It cannot be used.
    Unhealthy,
}
