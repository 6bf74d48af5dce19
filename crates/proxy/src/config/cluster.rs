//! Clusters: named groups of hosts and how they are used.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{Endpoints, HeaderMatcher, Http1Options, Http2Options, Metadata, UpstreamTls};

/// One cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its name, unique among clusters.
    pub name: Arc<str>,
    /// What it is called in metrics.
    pub stat_name: Arc<str>,
    /// Where its hosts come from.
    pub discovery: Discovery,
    /// How one of them is chosen.
    pub lb: LbPolicy,
    /// How localities share traffic.
    pub locality_lb: LocalityLb,
    /// When fewer hosts than this are healthy, in percent, health is disregarded; 0 is never.
    pub panic_threshold: f64,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// Limits, at default priority.
    pub limits: Limits,
    /// Limits, at high priority.
    pub high_priority_limits: Limits,
    /// When hosts are ejected for their answers; `None` is never.
    pub outlier: Option<OutlierDetection>,
    /// How HTTP is spoken with its hosts.
    pub http: UpstreamHttp,
    /// What lies between TCP and the protocol.
    pub transport: UpstreamTransport,
    /// Transports for hosts whose metadata matches; the first that does counts, else [`Cluster::transport`].
    pub transport_matches: Vec<TransportMatch>,
    /// Keep-alive of connections.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Soft limit of what is buffered per connection, each way.
    pub buffer_limit: u32,
    /// The addresses connections are made from: the first of the host's family; none is the system's choice.
    pub source_addresses: Vec<std::net::IpAddr>,
    /// Whether connections to a host are closed when it turns unhealthy.
    pub close_on_host_failure: bool,
    /// Whether connections are closed when a host leaves, even at work.
    pub close_on_host_removal: bool,
    /// For logs and metrics.
    pub metadata: Option<Arc<Metadata>>,
}

/// Where a cluster's hosts come from.
#[derive(Clone, Debug)]
pub enum Discovery {
    /// Discovered by EDS under this name.
    Eds(Arc<str>),
    /// Given with the cluster.
    Static(Arc<Endpoints>),
    /// Every address that DNS has for the names.
    StrictDns(Arc<Endpoints>, DnsOptions),
    /// One name; each connection goes to an address that DNS had last.
    LogicalDns(Arc<Endpoints>, DnsOptions),
    /// Where the connection was going.
    OriginalDst(OriginalDst),
    /// What the request's host, or the connection's SNI, resolves to.
    DynamicForwardProxy(DnsFamily),
}

/// How names are resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsOptions {
    /// How often, unless [`DnsOptions::respect_ttl`].
    pub refresh: Duration,
    /// How soon after a failure: first, at most.
    pub failure_refresh: Option<(Duration, Duration)>,
    /// Random time added to each refresh, at most.
    pub jitter: Duration,
    /// Whether the records' time to live says how often.
    pub respect_ttl: bool,
    /// Which addresses are wanted.
    pub family: DnsFamily,
}

/// Which addresses of a name are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are Envoy's")]
pub enum DnsFamily {
    #[default]
    Auto,
    V4Only,
    V6Only,
    V4Preferred,
    All,
}

/// How the destination of an original-destination cluster is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OriginalDst {
    /// The request header that may name it.
    pub header: Option<maille_http::Name>,
    /// The port that replaces the original one.
    pub port: Option<u16>,
}

/// How a host is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LbPolicy {
    /// In turn, by weight.
    RoundRobin(SlowStart),
    /// The one with the fewest requests among some.
    LeastRequest {
        /// Among how many, drawn with replacement; at least 2.
        choices: u32,
        /// Whether all hosts are looked at instead.
        full_scan: bool,
        /// How much active requests count against weight.
        active_bias: f64,
        /// Gradual use of new hosts.
        slow_start: SlowStart,
    },
    /// Any.
    Random,
    /// By hash on a ring.
    RingHash {
        /// The smallest ring.
        min_size: u64,
        /// The largest ring.
        max_size: u64,
        /// Whether the hash function is MurmurHash2 rather than xxHash.
        murmur: bool,
        /// What is hashed of hosts, and how much each may be given.
        hashing: Hashing,
    },
    /// By hash in a table.
    Maglev {
        /// Its size, a prime.
        table_size: u64,
        /// What is hashed of hosts, and how much each may be given.
        hashing: Hashing,
    },
    /// The cluster's hosts are not chosen among ([`Discovery::OriginalDst`]).
    ClusterProvided,
}

/// What policies that hash have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hashing {
    /// Whether hosts are known by their names rather than by their addresses.
    pub by_hostname: bool,
    /// How many requests a host may have at a time in percent of the average; 0 is any number.
    pub balance_factor: u32,
}

/// Gradual use of new hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SlowStart {
    /// For how long; `None` is not at all.
    pub window: Option<Duration>,
    /// The shape of the rise.
    pub aggression: f64,
    /// The least share, in percent.
    pub min_weight_percent: f64,
}

/// How localities share traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum LocalityLb {
    /// They do not count beyond priorities.
    #[default]
    None,
    /// By the localities' weights.
    Weighted,
    /// The own zone first (needs the zone's own share of hosts).
    ZoneAware {
        /// Of how many requests, in percent.
        enabled: f64,
        /// From how many hosts on.
        min_cluster_size: u64,
        /// Whether requests fail rather than disregard health.
        fail_on_panic: bool,
        /// The own zone takes everything when it has this many healthy hosts.
        force_local_zone: Option<u32>,
        /// Whether a zone's share is the sum of its hosts' weights rather than their number.
        by_weight: bool,
    },
}

/// Circuit-breaker thresholds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Connections.
    pub max_connections: u32,
    /// Requests that wait for a connection.
    pub max_pending_requests: u32,
    /// Requests.
    pub max_requests: u32,
    /// Retries at a time.
    pub max_retries: u32,
    /// Retries at a time as a share of requests, instead of [`Limits::max_retries`].
    pub retry_budget: Option<RetryBudget>,
    /// Pools: hosts that a worker has connections to.
    pub max_connection_pools: u32,
    /// Connections to one host.
    pub max_connections_per_host: u32,
    /// Whether what remains is a metric.
    pub track_remaining: bool,
}

/// Retries as a share of requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBudget {
    /// The share.
    pub percent: f64,
    /// However few requests there are, so many retries may be.
    pub least: u32,
    /// For how long a request counts from its beginning; `None` is as long as it is at work.
    pub interval: Option<Duration>,
}

impl Limits {
    /// No limits: what Istio sets unless it is told otherwise.
    pub const NONE: Limits = Limits {
        max_connections: u32::MAX,
        max_pending_requests: u32::MAX,
        max_requests: u32::MAX,
        max_retries: u32::MAX,
        retry_budget: None,
        max_connection_pools: u32::MAX,
        max_connections_per_host: u32::MAX,
        track_remaining: false,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            max_retries: 3,
            retry_budget: None,
            max_connection_pools: u32::MAX,
            max_connections_per_host: u32::MAX,
            track_remaining: false,
        }
    }
}

/// When hosts are ejected for their answers.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields are Envoy's, defaults filled in")]
pub struct OutlierDetection {
    pub consecutive_5xx: u32,
    pub enforcing_consecutive_5xx: u32,
    pub consecutive_gateway_failure: u32,
    pub enforcing_consecutive_gateway_failure: u32,
    pub consecutive_local_origin_failure: u32,
    pub enforcing_consecutive_local_origin_failure: u32,
    pub split_external_local_origin_errors: bool,
    pub interval: Duration,
    pub base_ejection_time: Duration,
    pub max_ejection_time: Duration,
    pub max_ejection_time_jitter: Duration,
    pub max_ejection_percent: u32,
    pub always_eject_one_host: bool,
    pub enforcing_success_rate: u32,
    pub success_rate_minimum_hosts: u32,
    pub success_rate_request_volume: u32,
    pub success_rate_stdev_factor: u32,
    pub enforcing_local_origin_success_rate: u32,
    pub failure_percentage_threshold: u32,
    pub enforcing_failure_percentage: u32,
    pub enforcing_failure_percentage_local_origin: u32,
    pub failure_percentage_minimum_hosts: u32,
    pub failure_percentage_request_volume: u32,
}

/// How HTTP is spoken with a cluster's hosts.
#[derive(Clone, Debug)]
pub struct UpstreamHttp {
    /// Which version.
    pub protocol: UpstreamProtocol,
    /// HTTP/1 in particular.
    pub http1: Http1Options,
    /// HTTP/2 in particular.
    pub http2: Http2Options,
    /// When an unused connection is closed; `None` is never.
    pub idle_timeout: Option<Duration>,
    /// How long a connection may last; `None` is for ever.
    pub max_connection_duration: Option<Duration>,
    /// How long a request and its response may last; `None` is for ever.
    pub max_stream_duration: Option<Duration>,
    /// Requests after which a connection is closed.
    pub max_requests_per_connection: Option<u32>,
    /// Which responses are failures of the host; `None` is those that say so by their status.
    pub errors: Option<ResponsePredicate>,
    /// The most header fields of a response.
    pub max_header_count: u32,
    /// The largest header block of a response, in bytes.
    pub max_header_bytes: u32,
    /// Whether SNI is the request's host.
    pub auto_sni: bool,
    /// Whether the server's certificate must be for the request's host.
    pub auto_san_validation: bool,
}

/// A condition on a response's head.
#[derive(Clone, Debug)]
pub enum ResponsePredicate {
    /// It always holds.
    Any,
    /// It does not hold.
    Not(Box<ResponsePredicate>),
    /// All of them hold.
    All(Vec<ResponsePredicate>),
    /// One of them does.
    OneOf(Vec<ResponsePredicate>),
    /// The headers are such.
    Headers(Vec<HeaderMatcher>),
}

impl ResponsePredicate {
    /// Whether it holds.
    pub fn matches(&self, response: &maille_http::ResponseHead) -> bool {
        match self {
            ResponsePredicate::Any => true,
            ResponsePredicate::Not(inner) => !inner.matches(response),
            ResponsePredicate::All(all) => all.iter().all(|one| one.matches(response)),
            ResponsePredicate::OneOf(all) => all.iter().any(|one| one.matches(response)),
            ResponsePredicate::Headers(headers) => {
                headers.iter().all(|header| header.matches_value(response.header(&header.name)))
            }
        }
    }
}

/// Which version of HTTP is spoken with an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.
    #[default]
    Http1,
    /// HTTP/2.
    Http2,
    /// The one that the client speaks.
    Downstream,
    /// What ALPN agrees on.
    Alpn,
}

/// What lies between TCP and the protocol on the upstream's side.
#[derive(Clone, Debug, Default)]
pub struct UpstreamTransport {
    /// The header that says who the client is, before anything else.
    pub proxy_protocol: Option<ProxyVersion>,
    /// TLS; `None` is plain text.
    pub tls: Option<Arc<UpstreamTls>>,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are the versions")]
pub enum ProxyVersion {
    V1,
    V2,
}

/// A transport for hosts with certain metadata.
#[derive(Clone, Debug)]
pub struct TransportMatch {
    /// Its name.
    pub name: Arc<str>,
    /// What the host's metadata under `envoy.transport_socket_match` must contain; everything matches when empty.
    pub criteria: Vec<(Box<str>, serde_json::Value)>,
    /// The transport.
    pub transport: UpstreamTransport,
}

impl TransportMatch {
    /// Whether a host with this metadata gets the transport.
    pub fn matches(&self, host: Option<&Metadata>) -> bool {
        self.criteria.iter().all(|(key, value)| {
            host.and_then(|m| m.get("envoy.transport_socket_match", &[key.as_ref()])).is_some_and(|have| have == value)
        })
    }
}

/// TCP keep-alive; `None` is the system's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the socket options")]
pub struct TcpKeepalive {
    pub probes: Option<u32>,
    pub time: Option<Duration>,
    pub interval: Option<Duration>,
}
