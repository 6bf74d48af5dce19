//! VirtualService: what happens to the requests for a host. Reference: <https://istio.io/latest/docs/reference/config/networking/virtual-service/>.

use std::collections::BTreeMap;

use crate::bytes::Bytes;
use crate::duration::Duration;
use crate::message::{choice, message, proto_enum};

message! {
    /// What happens to the requests for a host.
    pub struct VirtualService {
        pub hosts: Vec<String>,
        pub gateways: Vec<String>,
        pub http: Vec<HttpRoute>,
        pub tls: Vec<TlsRoute>,
        pub tcp: Vec<TcpRoute>,
        pub export_to: Vec<String>,
    }
}

message! {
    /// Where requests go: a service, a subset of it, a port of it.
    pub struct Destination {
        pub host: String,
        pub subset: String,
        pub port: Option<PortSelector>,
    }
}

message! {
    /// What happens to the HTTP requests that match.
    pub struct HttpRoute {
        pub name: String,
        pub r#match: Vec<HttpMatchRequest>,
        pub route: Vec<HttpRouteDestination>,
        pub redirect: Option<HttpRedirect>,
        pub direct_response: Option<HttpDirectResponse>,
        pub delegate: Option<Delegate>,
        pub rewrite: Option<HttpRewrite>,
        pub timeout: Option<Duration>,
        pub retries: Option<HttpRetry>,
        pub fault: Option<HttpFaultInjection>,
        pub mirror: Option<Destination>,
        pub mirrors: Vec<HttpMirrorPolicy>,
        pub mirror_percent: Option<u32>,
        pub mirror_percentage: Option<Percent>,
        pub cors_policy: Option<CorsPolicy>,
        pub headers: Option<Headers>,
    }
}

message! {
    /// The VirtualService whose routes stand in place of this one.
    pub struct Delegate {
        pub name: String,
        pub namespace: String,
    }
}

message! {
    /// Header changes on the way there and back.
    pub struct Headers {
        pub request: Option<HeaderOperations>,
        pub response: Option<HeaderOperations>,
    }
}

message! {
    /// Changes to one set of headers.
    pub struct HeaderOperations {
        pub set: BTreeMap<String, String>,
        pub add: BTreeMap<String, String>,
        pub remove: Vec<String>,
    }
}

message! {
    /// Where TLS connections go that are passed through by their SNI.
    pub struct TlsRoute {
        pub r#match: Vec<TlsMatchAttributes>,
        pub route: Vec<RouteDestination>,
    }
}

message! {
    /// Where TCP connections go.
    pub struct TcpRoute {
        pub r#match: Vec<L4MatchAttributes>,
        pub route: Vec<RouteDestination>,
    }
}

message! {
    /// What a request has to look like; everything said has to hold.
    pub struct HttpMatchRequest {
        pub name: String,
        pub uri: Option<StringMatch>,
        pub scheme: Option<StringMatch>,
        pub method: Option<StringMatch>,
        pub authority: Option<StringMatch>,
        pub headers: BTreeMap<String, StringMatch>,
        pub port: u32,
        pub source_labels: BTreeMap<String, String>,
        pub gateways: Vec<String>,
        pub query_params: BTreeMap<String, StringMatch>,
        pub ignore_uri_case: bool,
        pub without_headers: BTreeMap<String, StringMatch>,
        pub source_namespace: String,
        pub stat_prefix: String,
    }
}

message! {
    /// One of the weighted destinations of an HTTP route.
    pub struct HttpRouteDestination {
        pub destination: Option<Destination>,
        pub weight: i32,
        pub headers: Option<Headers>,
    }
}

message! {
    /// One of the weighted destinations of a TLS or TCP route.
    pub struct RouteDestination {
        pub destination: Option<Destination>,
        pub weight: i32,
    }
}

message! {
    /// What a TCP connection has to look like.
    pub struct L4MatchAttributes {
        pub destination_subnets: Vec<String>,
        pub port: u32,
        pub source_subnet: String,
        pub source_labels: BTreeMap<String, String>,
        pub gateways: Vec<String>,
        pub source_namespace: String,
    }
}

message! {
    /// What a TLS connection has to look like.
    pub struct TlsMatchAttributes {
        pub sni_hosts: Vec<String>,
        pub destination_subnets: Vec<String>,
        pub port: u32,
        pub source_labels: BTreeMap<String, String>,
        pub gateways: Vec<String>,
        pub source_namespace: String,
    }
}

message! {
    /// A redirect answered by the proxy.
    pub struct HttpRedirect {
        pub uri: String,
        pub authority: String,
        pub scheme: String,
        pub redirect_code: u32,
        pub prefix_rewrite: String,
    }
    /// The port a redirect names.
    oneof redirect_port: RedirectPort {
        port => Port(u32),
        derive_port => DerivePort(RedirectPortSelection),
    }
}

proto_enum! {
    /// Where a redirect's port comes from when no number is given.
    pub enum RedirectPortSelection {
        FromProtocolDefault = 0 "FROM_PROTOCOL_DEFAULT",
        FromRequestPort = 1 "FROM_REQUEST_PORT",
    }
}

message! {
    /// A response made by the proxy.
    pub struct HttpDirectResponse {
        pub status: u32,
        pub body: Option<HttpBody>,
    }
}

choice! {
    /// The body of a direct response.
    pub enum HttpBody {
        string => String(String),
        bytes => Bytes(Bytes),
    }
}

message! {
    /// What is changed in a request before it is forwarded.
    pub struct HttpRewrite {
        pub uri: String,
        pub authority: String,
        pub uri_regex_rewrite: Option<RegexRewrite>,
    }
}

message! {
    /// A path rewritten by regular expression.
    pub struct RegexRewrite {
        pub r#match: String,
        pub rewrite: String,
    }
}

choice! {
    /// How a string is compared; `Unset` for a header asks only that it is there.
    pub enum StringMatch {
        exact => Exact(String),
        prefix => Prefix(String),
        regex => Regex(String),
    }
}

message! {
    /// When and how often a failed request is tried again.
    pub struct HttpRetry {
        pub attempts: i32,
        pub per_try_timeout: Option<Duration>,
        pub retry_on: String,
        pub retry_remote_localities: Option<bool>,
        pub retry_ignore_previous_hosts: Option<bool>,
        pub backoff: Option<Duration>,
    }
}

message! {
    /// What browsers at other origins may do.
    pub struct CorsPolicy {
        pub allow_origin: Vec<String>,
        pub allow_origins: Vec<StringMatch>,
        pub allow_methods: Vec<String>,
        pub allow_headers: Vec<String>,
        pub expose_headers: Vec<String>,
        pub max_age: Option<Duration>,
        pub allow_credentials: Option<bool>,
        pub unmatched_preflights: UnmatchedPreflights,
    }
}

proto_enum! {
    /// What becomes of a preflight request of an origin that is not allowed.
    pub enum UnmatchedPreflights {
        Unspecified = 0 "UNSPECIFIED",
        Forward = 1 "FORWARD",
        Ignore = 2 "IGNORE",
    }
}

message! {
    /// Faults made on purpose.
    pub struct HttpFaultInjection {
        pub delay: Option<FaultDelay>,
        pub abort: Option<FaultAbort>,
    }
}

message! {
    /// A delay before a request is forwarded.
    pub struct FaultDelay {
        pub percent: i32,
        pub percentage: Option<Percent>,
    }
    /// How long a delay takes.
    oneof http_delay_type: FaultDelayType {
        fixed_delay => FixedDelay(Duration),
        exponential_delay => ExponentialDelay(Duration),
    }
}

message! {
    /// A failure instead of forwarding.
    pub struct FaultAbort {
        pub percentage: Option<Percent>,
    }
    /// How an aborted request fails.
    oneof error_type: FaultAbortType {
        http_status => HttpStatus(i32),
        grpc_status => GrpcStatus(String),
        http2_error => Http2Error(String),
    }
}

message! {
    /// Where copies of requests go.
    pub struct HttpMirrorPolicy {
        pub destination: Option<Destination>,
        pub percentage: Option<Percent>,
    }
}

message! {
    /// A port by its number.
    pub struct PortSelector {
        pub number: u32,
    }
}

message! {
    /// A share of 100.
    pub struct Percent {
        pub value: f64,
    }
}
