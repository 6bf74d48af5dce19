//! Listeners and the filter chains that connections are matched to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{
    AccessLog, AuthzGrpc, DownstreamTls, ExtAuthz, HttpManager, IstioStats, Priority, ProxyVersion, Rbac,
    WeightedClusters,
};
use crate::route::{Connection, FilterChains};

/// One listener.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name, unique among listeners.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Further addresses with the same chains.
    pub additional_addresses: Vec<SocketAddr>,
    /// Whether it has a socket of its own; without, it only receives connections that another listener redirects to it.
    pub bind_to_port: bool,
    /// Whether connections are handed to the listener that matches their original destination.
    pub use_original_dst: bool,
    /// Which way its traffic goes.
    pub direction: Direction,
    /// What looks at a connection before a chain is chosen, in order.
    pub filters: Vec<ListenerFilter>,
    /// How long [`Listener::filters`] may wait for bytes; `None` is for ever.
    pub filters_timeout: Option<Duration>,
    /// Whether a connection goes on, rather than is closed, when that time is over.
    pub continue_on_filters_timeout: bool,
    /// The chains and their match table.
    pub chains: FilterChains,
    /// What a connection gets that no chain matches.
    pub default_chain: Option<Arc<FilterChain>>,
    /// Soft limit of what is buffered per connection, each way.
    pub buffer_limit: u32,
    /// Whether each worker has a listening socket of its own.
    pub reuse_port: bool,
    /// Whether accepted connections are spread evenly over workers.
    pub exact_balance: bool,
    /// Whether the socket is transparent (TPROXY).
    pub transparent: bool,
    /// Whether the address need not exist yet.
    pub freebind: bool,
    /// The backlog of the listening socket; `None` is the system's default.
    pub backlog: Option<u32>,
    /// How many connections to accept per readiness event; `None` is no limit.
    pub accepts_per_event: Option<u32>,
    /// Logs of connections that found no chain, or of all of them, by the logs' own filters.
    pub access_logs: Vec<AccessLog>,
}

impl Listener {
    /// The chain that a connection gets.
    pub fn chain(&self, connection: &Connection<'_>) -> Option<&Arc<FilterChain>> {
        self.chains.find(connection).or(self.default_chain.as_ref())
    }
}

/// Which way a listener's traffic goes, seen from the workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are the directions")]
pub enum Direction {
    #[default]
    Unspecified,
    Inbound,
    Outbound,
}

/// Something that looks at a connection before a chain is chosen.
#[derive(Clone, Debug)]
pub struct ListenerFilter {
    /// What it does.
    pub kind: ListenerFilterKind,
    /// Connections on which it does nothing.
    pub disabled: Option<PortPredicate>,
}

/// The listener filters there are.
#[derive(Clone, Debug, PartialEq)]
pub enum ListenerFilterKind {
    /// Restores the destination that interception replaced.
    OriginalDst,
    /// Reads SNI and ALPN from a TLS ClientHello; sets the transport protocol.
    TlsInspector {
        /// Whether a connection that does not begin with a ClientHello is closed.
        strict: bool,
    },
    /// Tells HTTP/1 and HTTP/2 from other plain text; sets the application protocol.
    HttpInspector,
    /// Reads a PROXY protocol header.
    ProxyProtocol {
        /// Whether a connection without such a header is served too.
        optional: bool,
        /// A version that is not read.
        refused: Option<ProxyVersion>,
    },
}

/// A condition on the destination port.
#[derive(Clone, Debug, PartialEq)]
pub enum PortPredicate {
    /// Always.
    Any,
    /// In `start..end`.
    Range(std::ops::Range<u32>),
    /// Not when the other holds.
    Not(Box<PortPredicate>),
    /// When one of them holds.
    Or(Vec<PortPredicate>),
    /// When all of them hold.
    And(Vec<PortPredicate>),
}

impl PortPredicate {
    /// Whether it holds for a destination port.
    pub fn holds(&self, port: u16) -> bool {
        match self {
            PortPredicate::Any => true,
            PortPredicate::Range(range) => range.contains(&u32::from(port)),
            PortPredicate::Not(other) => !other.holds(port),
            PortPredicate::Or(all) => all.iter().any(|p| p.holds(port)),
            PortPredicate::And(all) => all.iter().all(|p| p.holds(port)),
        }
    }
}

/// What is done with the connections that match.
#[derive(Clone, Debug)]
pub struct FilterChain {
    /// Its name; may be empty.
    pub name: Arc<str>,
    /// What the control plane says that it was made from.
    pub made_from: MadeFrom,
    /// What lies between TCP and the protocol.
    pub transport: DownstreamTransport,
    /// Who may connect, asked one after the other.
    pub rbac: Vec<Arc<Rbac>>,
    /// Who else is asked whether a connection may be made, when the rules let it.
    pub authorizers: Vec<Arc<ExtAuthz<AuthzGrpc>>>,
    /// What the connection carries.
    pub network: Network,
    /// How long the TLS handshake may take; `None` is for ever.
    pub transport_timeout: Option<Duration>,
    /// Of a chain that carries whole connections: what it does with them, but for its policies. The same number is the same.
    pub fingerprint: u64,
}

/// The resources that a control plane made a filter chain from, as it writes them into the chain's metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MadeFrom {
    /// What leads the connection on.
    pub config: Option<Arc<str>>,
    /// What settles its TLS.
    pub tls: Option<Arc<str>>,
}

/// What lies between TCP and the protocol on the client's side.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the variants say it")]
pub enum DownstreamTransport {
    Plaintext,
    Tls(Arc<DownstreamTls>),
}

/// What a connection carries and where it goes.
#[derive(Clone, Debug)]
pub enum Network {
    /// HTTP, request by request.
    Http(Arc<HttpManager>),
    /// Bytes, as they come.
    Tcp(Arc<TcpProxy>),
    /// Nothing: it is closed.
    Close,
}

/// Forwarding of whole connections.
#[derive(Clone, Debug)]
pub struct TcpProxy {
    /// The prefix of its metrics.
    pub stat_prefix: Arc<str>,
    /// Where connections go.
    pub cluster: TcpDestination,
    /// How long a connection may be silent both ways; `None` is for ever.
    pub idle_timeout: Option<Duration>,
    /// How long a connection may last; `None` is for ever.
    pub max_duration: Option<Duration>,
    /// How often connecting is tried.
    pub max_connect_attempts: u32,
    /// What is logged when a connection ends.
    pub access_logs: Vec<AccessLog>,
    /// Whether the client's address decides the host of a consistent-hash cluster.
    pub hash_source_ip: bool,
    /// Which circuit breakers count.
    pub priority: Priority,
    /// Whether its connections are counted by Istio's labels, and how.
    pub istio_stats: Option<IstioStats>,
    /// The way through an HTTP proxy, if that is what the hosts are.
    pub tunnel: Option<Tunnel>,
}

/// A way through an HTTP proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Where it leads: a host and a port.
    pub host: Box<str>,
    /// The path of the POST that asks for it; `None` is CONNECT.
    pub post_path: Option<Box<str>>,
}

/// Where the connections of a [`TcpProxy`] go.
#[derive(Clone, Debug)]
pub enum TcpDestination {
    /// Always there.
    Cluster(Arc<str>),
    /// To one of them, by weight.
    Weighted(WeightedClusters),
    /// To the cluster whose name is the connection's SNI.
    Sni,
}
