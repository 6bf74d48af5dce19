//! How HTTP connections are served: Envoy's HTTP connection manager, compiled.

use std::sync::Arc;
use std::time::Duration;

use maille_http::path::PathRules;

use crate::config::{AccessLog, ExtAuthz, Fault, JwtFilter, Rbac, RouteTable};

/// How HTTP is served on a filter chain.
#[derive(Clone, Debug)]
pub struct HttpManager {
    /// The prefix of its metrics.
    pub stat_prefix: Arc<str>,
    /// How many faults are at work.
    pub active_faults: Arc<std::sync::atomic::AtomicU32>,
    /// Where requests' routes come from.
    pub routes: RouteSource,
    /// Which versions are spoken.
    pub codec: Codec,
    /// What becomes of the response's `server`.
    pub server_header: ServerHeader,
    /// What `server` says.
    pub server_name: Arc<str>,
    /// Whether the connection's address is the client's, rather than the one in `x-forwarded-for`.
    pub use_remote_address: bool,
    /// Whether `x-forwarded-for` is left alone even so.
    pub skip_xff_append: bool,
    /// Whether `x-forwarded-port` says where the request came in.
    pub append_forwarded_port: bool,
    /// How many proxies in front of this one are trusted to have appended to `x-forwarded-for`.
    pub xff_trusted_hops: u32,
    /// Which client addresses are internal: `x-envoy-*` request headers of others are removed.
    pub internal_addresses: Vec<Cidr>,
    /// Whether a Unix socket's client is internal.
    pub unix_sockets_internal: bool,
    /// Appended to `via`, when set.
    pub via: Option<Arc<str>>,
    /// What is done about `x-request-id`.
    pub request_id: RequestId,
    /// What is done to paths before anything looks at them.
    pub path: PathRules,
    /// Whether the port is taken off the authority.
    pub strip_port: StripPort,
    /// Whether a final dot is taken off the host.
    pub strip_trailing_host_dot: bool,
    /// The largest header block, in bytes.
    pub max_header_bytes: u32,
    /// The most header fields.
    pub max_header_count: u32,
    /// What becomes of request headers with underscores in their names.
    pub underscores: Underscores,
    /// How long things may take.
    pub timeouts: HttpTimeouts,
    /// Requests after which a connection is closed.
    pub max_requests_per_connection: Option<u32>,
    /// HTTP/1 in particular.
    pub http1: Http1Options,
    /// HTTP/2 in particular.
    pub http2: Http2Options,
    /// What becomes of `x-forwarded-client-cert`.
    pub forward_client_cert: ForwardClientCert,
    /// What of the client's certificate is written into it.
    pub client_cert_details: ClientCertDetails,
    /// Whether `100 Continue` is the upstream's to send.
    pub proxy_100_continue: bool,
    /// The upgrades that are let through, unless a route says otherwise.
    pub upgrades: Vec<Upgrade>,
    /// How requests are sampled for tracing; `None` is no tracing.
    pub tracing: Option<Sampling>,
    /// Whether a malformed HTTP/1 message ends only its request.
    pub stream_error_on_invalid_message: bool,
    /// What requests pass, in order; the last is the router.
    pub filters: Vec<HttpFilter>,
    /// What is logged when a request ends.
    pub access_logs: Vec<AccessLog>,
    /// Whether `x-forwarded-proto` or the connection decides the scheme; `Some` is always this.
    pub scheme_overwrite: Option<maille_http::request::Scheme>,
}

/// Where requests' routes come from.
#[derive(Clone, Debug)]
pub enum RouteSource {
    /// The route table of this name, discovered.
    Rds(Arc<str>),
    /// A table of the listener's own.
    Inline(Arc<RouteTable>),
}

/// Which versions of HTTP are spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are the versions")]
pub enum Codec {
    #[default]
    Auto,
    Http1,
    Http2,
}

/// What becomes of the response's `server`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerHeader {
    /// Ours replaces it.
    #[default]
    Overwrite,
    /// Ours is set when there is none.
    AppendIfAbsent,
    /// It is left alone.
    PassThrough,
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    /// The network's address, host bits zero.
    pub address: std::net::IpAddr,
    /// How many leading bits count.
    pub length: u8,
}

impl Cidr {
    /// From an address of that network; `None` when the address has fewer bits.
    pub fn new(address: std::net::IpAddr, length: u8) -> Option<Cidr> {
        let network = mask(address, length)?;
        Some(Cidr { address: network, length })
    }

    /// Whether an address is in the range. IPv4 addresses mapped into IPv6 are IPv4 addresses.
    pub fn contains(&self, address: std::net::IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && mask(address, self.length) == Some(self.address)
    }
}

fn mask(address: std::net::IpAddr, length: u8) -> Option<std::net::IpAddr> {
    match address {
        std::net::IpAddr::V4(v4) if length <= 32 => {
            let bits = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            Some(std::net::Ipv4Addr::from_bits(v4.to_bits() & bits).into())
        }
        std::net::IpAddr::V6(v6) if length <= 128 => {
            let bits = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            Some(std::net::Ipv6Addr::from_bits(v6.to_bits() & bits).into())
        }
        _ => None,
    }
}

/// What is done about `x-request-id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    /// Whether requests without one get one.
    pub generate: bool,
    /// Whether one from outside is kept.
    pub preserve_external: bool,
    /// Whether it is in every response.
    pub in_response: bool,
    /// Whether the sampling decision is written into it.
    pub pack_trace_reason: bool,
    /// Whether the sampling decision is derived from it.
    pub use_for_sampling: bool,
}

/// Whether the port is taken off the authority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StripPort {
    /// It stays.
    #[default]
    No,
    /// When it is the listener's.
    Matching,
    /// Always.
    Any,
}

/// What becomes of request headers with underscores in their names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Underscores {
    /// They are as good as any.
    #[default]
    Allow,
    /// The request is answered 400.
    Reject,
    /// They are removed.
    Drop,
}

/// How long things may take; `None` is for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpTimeouts {
    /// A connection without requests.
    pub idle: Option<Duration>,
    /// A request without activity.
    pub stream_idle: Option<Duration>,
    /// A response that the client does not read.
    pub stream_flush: Option<Duration>,
    /// Receiving a whole request.
    pub request: Option<Duration>,
    /// Receiving a request's head.
    pub request_headers: Option<Duration>,
    /// A connection.
    pub max_connection_duration: Option<Duration>,
    /// A request and its response.
    pub max_stream_duration: Option<Duration>,
    /// Between saying that a connection is drained and closing it.
    pub drain: Duration,
    /// Between our last byte and closing, for the client to read it.
    pub delayed_close: Option<Duration>,
}

/// HTTP/1 in particular.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http1Options {
    /// Whether HTTP/1.0 requests are served.
    pub accept_http10: bool,
    /// Whether every token is a method.
    pub custom_methods: bool,
    /// The host of HTTP/1.0 requests that name none.
    pub default_host_for_http10: Option<Arc<str>>,
    /// Whether a target may be a whole URL even when it is not our own: what a forward proxy does.
    pub allow_absolute_url: bool,
    /// Whether both content-length and chunked are served (chunked counts).
    pub allow_chunked_length: bool,
    /// Whether trailers are forwarded.
    pub enable_trailers: bool,
    /// How header names are written.
    pub header_case: HeaderCase,
}

/// How header names are written in HTTP/1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderCase {
    /// In lower case.
    #[default]
    Lower,
    /// `Proper-Case`.
    Proper,
    /// As they came.
    Preserve,
}

/// HTTP/2 in particular.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Options {
    /// Streams at a time.
    pub max_concurrent_streams: u32,
    /// Credit of a stream.
    pub initial_stream_window: u32,
    /// Credit of a connection.
    pub initial_connection_window: u32,
    /// Whether extended CONNECT is served.
    pub allow_connect: bool,
    /// Whether a malformed message ends only its stream.
    pub stream_error_on_invalid_message: bool,
    /// When a silent peer is pinged.
    pub keepalive_interval: Option<Duration>,
    /// How long it may take to answer.
    pub keepalive_timeout: Option<Duration>,
}

impl Default for Http2Options {
    fn default() -> Self {
        Http2Options {
            max_concurrent_streams: 1024,
            initial_stream_window: 16 << 20,
            initial_connection_window: 24 << 20,
            allow_connect: false,
            stream_error_on_invalid_message: false,
            keepalive_interval: None,
            keepalive_timeout: None,
        }
    }
}

/// What becomes of `x-forwarded-client-cert`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are Envoy's modes")]
pub enum ForwardClientCert {
    #[default]
    Sanitize,
    ForwardOnly,
    AppendForward,
    SanitizeSet,
    AlwaysForwardOnly,
}

/// What of the client's certificate is written into `x-forwarded-client-cert`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are Envoy's")]
pub struct ClientCertDetails {
    pub subject: bool,
    pub cert: bool,
    pub chain: bool,
    pub dns: bool,
    pub uri: bool,
}

/// An upgrade and whether it is let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// What stands in `upgrade`, in lower case; `connect` is the CONNECT method.
    pub kind: Box<str>,
    /// Whether it is let through.
    pub enabled: bool,
    /// Whether CONNECT ends here: what follows goes on as it is, on a connection of its own.
    pub ends: bool,
}

/// How requests are sampled for tracing, in percent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Of those that ask for it with `x-client-trace-id`.
    pub client: f64,
    /// Of all.
    pub random: f64,
    /// The most that is sampled, after all other checks.
    pub overall: f64,
}

/// One step that requests pass.
#[derive(Clone, Debug)]
pub struct HttpFilter {
    /// Its name, by which routes configure it.
    pub name: Arc<str>,
    /// What it does.
    pub kind: HttpFilterKind,
}

impl HttpFilter {
    /// How requests are counted by Istio's labels, if this filter does that.
    pub(crate) fn istio_stats(&self) -> Option<IstioStats> {
        match self.kind {
            HttpFilterKind::IstioStats(stats) => Some(stats),
            _ => None,
        }
    }
}

/// The HTTP filters there are.
#[derive(Clone, Debug)]
pub enum HttpFilterKind {
    /// Forwards the request; always the last.
    Router(RouterOptions),
    /// Applies the route's cross-origin policy, when it has one.
    Cors,
    /// Applies the route's fault, else this one.
    Fault(Option<Arc<Fault>>),
    /// Lets through whom its rules allow.
    Rbac(Arc<Rbac>),
    /// Requires tokens.
    Jwt(Arc<JwtFilter>),
    /// Asks somebody else.
    ExtAuthz(Arc<ExtAuthz>),
    /// Counts gRPC messages: metrics only.
    GrpcStats,
    /// Counts requests by Istio's labels.
    IstioStats(IstioStats),
    /// Resolves the request's host for a cluster of [`crate::config::Discovery::DynamicForwardProxy`].
    DynamicForwardProxy,
}

/// How Istio's standard metrics are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IstioStats {
    /// Whether the request's host stands in for a destination that is not known.
    pub host_fallback: bool,
    /// Whether it reports for the server, whatever the listener is.
    pub as_server: bool,
}

/// How the router behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouterOptions {
    /// Whether the router adds no `x-envoy-*` headers.
    pub suppress_envoy_headers: bool,
    /// Whether `x-envoy-expected-rq-timeout-ms` of the request is believed.
    pub respect_expected_rq_timeout: bool,
}
