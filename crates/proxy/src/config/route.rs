//! Route tables: virtual hosts, routes and what is done with the requests that match.

use std::sync::Arc;
use std::time::Duration;

use maille_http::Name;

use crate::config::{
    Fraction, FullRegex, HeaderMatcher, Metadata, MetadataMatcher, QueryMatcher, StringMatcher, Upgrade,
};
use crate::headers::HeaderMutations;
use crate::route::{HostIndex, RouteIndex};

/// A route table: what Envoy calls a route configuration.
#[derive(Clone, Debug)]
pub struct RouteTable {
    /// Its name.
    pub name: Arc<str>,
    /// The virtual hosts, in order.
    pub virtual_hosts: Vec<Arc<VirtualHost>>,
    /// Which virtual host serves which host.
    pub hosts: HostIndex,
    /// Whether the port in `host` is disregarded when a virtual host is looked up.
    pub ignore_port: bool,
    /// Request headers that are removed before routing when the client is external.
    pub internal_only_headers: Vec<Name>,
}

/// A group of hosts that share routes.
#[derive(Clone, Debug)]
pub struct VirtualHost {
    /// Its name.
    pub name: Arc<str>,
    /// The hosts: exact, `*.suffix`, `prefix.*` or `*`.
    pub domains: Vec<Box<str>>,
    /// Which requests must have come over TLS.
    pub require_tls: RequireTls,
    /// The routes; the first that matches counts.
    pub routes: Vec<Route>,
    /// Finds that first one without trying them all.
    pub index: RouteIndex,
    /// Whether the upstream is told how many attempts there were (`x-envoy-attempt-count`).
    pub attempt_count_in_request: bool,
    /// Whether the client is.
    pub attempt_count_in_response: bool,
}

/// Which requests must have come over TLS; others are redirected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants say it")]
pub enum RequireTls {
    #[default]
    None,
    ExternalOnly,
    All,
}

/// One route, everything resolved.
///
/// With many routes hardly one is in a cache when a request comes for it: what every request reads lies in the first 64
/// bytes, in this order, and what equal routes share is shared.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Route {
    /// What is done with the requests.
    pub action: Action,
    /// The cross-origin policy.
    pub cors: Option<Arc<CorsPolicy>>,
    /// The fault to inject, instead of the filter's own.
    pub fault: Option<Arc<Fault>>,
    /// Its name; may be empty.
    pub name: Arc<str>,
    /// Which requests it is for.
    pub matcher: RouteMatcher,
    /// What is done to the response's headers when we answer ourselves (redirects, direct responses).
    /// Forwarded requests: see [`Destination`].
    pub response: HeaderMutations,
    /// For logs and metrics.
    pub metadata: Option<Arc<Metadata>>,
    /// What a trace calls the operation.
    pub operation: Option<Arc<str>>,
    /// The prefix of its metrics, if it has metrics of its own.
    pub stat_prefix: Option<Arc<str>>,
    /// The most of a request that is kept for retries.
    pub retry_buffer_limit: Option<u64>,
}

const _: () = assert!(std::mem::offset_of!(Route, matcher) + size_of::<Option<Box<Conditions>>>() <= 64);

/// Which requests a route is for: all conditions must hold.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct RouteMatcher {
    /// All conditions but the one on the path, if there are any.
    pub conditions: Option<Box<Conditions>>,
    /// The path.
    pub path: PathMatcher,
}

/// What a request must be like, its path aside.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// Headers, pseudo-headers included.
    pub headers: Vec<HeaderMatcher>,
    /// Query parameters.
    pub query: Vec<QueryMatcher>,
    /// Cookies: name, value; missing cookies match none.
    pub cookies: Vec<CookieMatcher>,
    /// Whether only gRPC requests match.
    pub grpc: bool,
    /// The share of requests that match.
    pub fraction: Option<Fraction>,
    /// What the client's certificate must be.
    pub tls: TlsMatcher,
    /// What filters wrote about the request: claims of its token.
    pub metadata: Vec<MetadataMatcher>,
}

impl RouteMatcher {
    /// From the condition on the path and the others, of which there may be none.
    pub fn new(path: PathMatcher, conditions: Conditions) -> RouteMatcher {
        let Conditions { headers, query, cookies, grpc, fraction, tls, metadata } = &conditions;
        let none = headers.is_empty()
            && query.is_empty()
            && cookies.is_empty()
            && !grpc
            && fraction.is_none()
            && *tls == TlsMatcher::default()
            && metadata.is_empty();
        RouteMatcher { conditions: (!none).then(|| Box::new(conditions)), path }
    }
}

/// A condition on a cookie.
#[derive(Clone, Debug)]
pub struct CookieMatcher {
    /// Which cookie.
    pub name: Box<[u8]>,
    /// What its value must be.
    pub value: StringMatcher,
    /// Whether the condition must not hold instead.
    pub invert: bool,
}

/// A condition on the client's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsMatcher {
    /// Whether there is one.
    pub presented: Option<bool>,
    /// Whether it was verified.
    pub validated: Option<bool>,
}

/// A condition on a path (without the query).
#[derive(Clone, Debug)]
pub enum PathMatcher {
    /// Equal; case counts or not.
    Exact(Box<[u8]>, Case),
    /// Starts with.
    Prefix(Box<[u8]>, Case),
    /// Starts with, and ends there or goes on with `/`. The text does not end with `/`.
    SeparatedPrefix(Box<[u8]>, Case),
    /// Matches as a whole.
    Regex(FullRegex),
    /// Any CONNECT request, and no other.
    Connect,
}

/// Whether case counts. Texts of [`Case::Ignore`] are in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants say it")]
pub enum Case {
    Sensitive,
    Ignore,
}

/// What is done with a request.
#[derive(Clone, Debug)]
pub enum Action {
    /// It goes upstream; routes that forward alike share this.
    Forward(Arc<Forward>),
    /// It is redirected.
    Redirect(Box<Redirect>),
    /// It is answered.
    Respond(Box<DirectResponse>),
}

/// How a request goes upstream.
#[derive(Clone, Debug)]
pub struct Forward {
    /// Where it goes.
    pub cluster: ClusterChoice,
    /// What its path becomes.
    pub path: PathRewrite,
    /// What its host becomes.
    pub host: HostRewrite,
    /// Whether the host it had goes into `x-forwarded-host`.
    pub append_forwarded_host: bool,
    /// How long until the response is whole; `None` is for ever.
    pub timeout: Option<Duration>,
    /// How long without activity; the outer `None` is the connection manager's.
    pub idle_timeout: Option<Option<Duration>>,
    /// How long the stream may last; the outer `None` is the connection manager's.
    pub max_stream_duration: Option<Option<Duration>>,
    /// What `grpc-timeout` may ask for instead of [`Forward::timeout`].
    pub grpc_timeout: Option<GrpcTimeout>,
    /// When it is tried again; `None` is never.
    pub retry: Option<Arc<RetryPolicy>>,
    /// What is hashed for consistent-hash clusters.
    pub hash: Vec<HashPolicy>,
    /// Copies that are sent elsewhere.
    pub mirrors: Vec<Mirror>,
    /// Which circuit breakers count.
    pub priority: Priority,
    /// Upgrades for which the connection manager's rule does not hold.
    pub upgrades: Vec<Upgrade>,
    /// The status when the cluster is unknown.
    pub cluster_not_found: u16,
}

/// Which circuit breakers count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are Envoy's priorities")]
pub enum Priority {
    #[default]
    Default,
    High,
}

/// What `grpc-timeout` may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcTimeout {
    /// At most; zero is anything.
    pub max: Duration,
    /// Taken off it.
    pub offset: Duration,
    /// Whether it sets the stream's duration rather than the route's timeout.
    pub stream: bool,
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub enum ClusterChoice {
    /// Always there.
    One(Destination),
    /// To one of them, by weight.
    Weighted(WeightedClusters),
    /// To the cluster that a header names.
    Header(Name, Destination),
}

/// A cluster, and what is done to the headers of what goes there and comes back (the route's, virtual host's and
/// table's included, in the order in which they apply).
#[derive(Clone, Debug)]
pub struct Destination {
    /// The cluster.
    pub cluster: Arc<str>,
    /// Done to requests.
    pub request: HeaderMutations,
    /// Done to responses.
    pub response: HeaderMutations,
    /// The host of requests that go here, instead of the route's rule.
    pub host: Option<Arc<str>>,
}

/// Destinations with shares.
#[derive(Clone, Debug)]
pub struct WeightedClusters {
    entries: Vec<(u64, Destination)>,
}

impl WeightedClusters {
    /// From shares and destinations; `None` when the shares add up to nothing.
    pub fn new(shares: impl IntoIterator<Item = (u32, Destination)>) -> Option<WeightedClusters> {
        let mut sum = 0u64;
        let entries: Vec<_> = shares
            .into_iter()
            .map(|(weight, destination)| {
                sum += u64::from(weight);
                (sum, destination)
            })
            .collect();
        (sum > 0).then_some(WeightedClusters { entries })
    }

    /// The destination that a random number stands for.
    #[inline]
    pub fn pick(&self, random: u64) -> &Destination {
        let point = random % self.entries[self.entries.len() - 1].0;
        &self.entries[self.entries.partition_point(|(upto, _)| *upto <= point)].1
    }

    /// The destinations, each with its share.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Destination)> {
        let before = std::iter::once(0).chain(self.entries.iter().map(|(upto, _)| *upto));
        self.entries.iter().zip(before).map(|((upto, destination), from)| (upto - from, destination))
    }
}

/// What a path becomes.
#[derive(Clone, Debug, Default)]
pub enum PathRewrite {
    /// What it was.
    #[default]
    None,
    /// What matched is replaced: a prefix, or the whole path.
    Matched(Box<[u8]>),
    /// Every match of an expression is replaced.
    Regex(RegexRewrite),
    /// Replaced whole, the query aside.
    Full(Box<[u8]>),
}

/// A regular expression and what its matches become.
#[derive(Clone, Debug)]
pub struct RegexRewrite {
    /// What is looked for, anywhere in the text.
    pub pattern: regex::bytes::Regex,
    /// The replacement, `\1` written `${1}`; `None` replaces nothing.
    pub substitution: Option<Box<[u8]>>,
}

/// What a host becomes.
#[derive(Clone, Debug, Default)]
pub enum HostRewrite {
    /// What it was.
    #[default]
    None,
    /// This.
    Literal(Arc<str>),
    /// The name of the upstream host, where it has one.
    Auto,
    /// A header's value, where it has one.
    Header(Name),
    /// The path, after a substitution.
    PathRegex(RegexRewrite),
}

/// When a request is tried again.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// The conditions.
    pub on: RetryOn,
    /// How often at most.
    pub max: u32,
    /// How long one attempt may take; `None` is the route's timeout.
    pub per_try_timeout: Option<Duration>,
    /// How long one attempt may be without activity.
    pub per_try_idle_timeout: Option<Duration>,
    /// Whether hosts that were tried are avoided.
    pub avoid_previous_hosts: bool,
    /// Whether priorities that were tried are avoided, from how many attempts on.
    pub avoid_previous_priorities: Option<u32>,
    /// How often another host is looked for.
    pub host_selection_attempts: u32,
    /// Statuses that are retried under [`RetryOn::RETRIABLE_STATUS_CODES`].
    pub status_codes: Vec<u32>,
    /// Response headers that are retried under [`RetryOn::RETRIABLE_HEADERS`].
    pub headers: Vec<HeaderMatcher>,
    /// Request headers of which one must match.
    pub request_headers: Vec<HeaderMatcher>,
    /// The first pause.
    pub backoff_base: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
    /// Whether the pause is what the response asks for.
    pub rate_limited: Option<RateLimited>,
}

/// Pauses that responses ask for.
#[derive(Clone, Debug)]
pub struct RateLimited {
    /// The response headers that may ask, the first first.
    pub headers: Vec<(maille_http::Name, ResetFormat)>,
    /// The longest pause that is listened to.
    pub max: Duration,
}

/// What a header that asks for a pause says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetFormat {
    /// For how many seconds.
    Seconds,
    /// Until when, in seconds since 1970.
    UnixTimestamp,
}

impl Default for RetryPolicy {
    /// No retries, and what holds when a request asks for some itself.
    fn default() -> RetryPolicy {
        RetryPolicy {
            on: RetryOn::default(),
            max: 1,
            per_try_timeout: None,
            per_try_idle_timeout: None,
            avoid_previous_hosts: false,
            avoid_previous_priorities: None,
            host_selection_attempts: 1,
            status_codes: Vec::new(),
            headers: Vec::new(),
            request_headers: Vec::new(),
            backoff_base: Duration::from_millis(25),
            backoff_max: Duration::from_millis(250),
            rate_limited: None,
        }
    }
}

/// Conditions under which a request is tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryOn(pub u32);

impl RetryOn {
    /// Every name with its bit.
    pub const NAMES: [(&'static str, u32); 16] = [
        ("5xx", Self::FIVE_XX),
        ("gateway-error", Self::GATEWAY_ERROR),
        ("reset", Self::RESET),
        ("reset-before-request", Self::RESET_BEFORE_REQUEST),
        ("connect-failure", Self::CONNECT_FAILURE),
        ("envoy-ratelimited", Self::ENVOY_RATELIMITED),
        ("retriable-4xx", Self::RETRIABLE_4XX),
        ("refused-stream", Self::REFUSED_STREAM),
        ("retriable-status-codes", Self::RETRIABLE_STATUS_CODES),
        ("retriable-headers", Self::RETRIABLE_HEADERS),
        ("http3-post-connect-failure", Self::HTTP3_POST_CONNECT_FAILURE),
        ("cancelled", Self::CANCELLED),
        ("deadline-exceeded", Self::DEADLINE_EXCEEDED),
        ("internal", Self::INTERNAL),
        ("resource-exhausted", Self::RESOURCE_EXHAUSTED),
        ("unavailable", Self::UNAVAILABLE),
    ];
    /// Any 5xx, or no response.
    pub const FIVE_XX: u32 = 1;
    /// 502, 503, 504.
    pub const GATEWAY_ERROR: u32 = 1 << 1;
    /// The upstream did not answer.
    pub const RESET: u32 = 1 << 2;
    /// The upstream closed before the request was sent.
    pub const RESET_BEFORE_REQUEST: u32 = 1 << 3;
    /// No connection.
    pub const CONNECT_FAILURE: u32 = 1 << 4;
    /// The upstream's own proxy limited the rate.
    pub const ENVOY_RATELIMITED: u32 = 1 << 5;
    /// 409.
    pub const RETRIABLE_4XX: u32 = 1 << 6;
    /// REFUSED_STREAM.
    pub const REFUSED_STREAM: u32 = 1 << 7;
    /// A listed status.
    pub const RETRIABLE_STATUS_CODES: u32 = 1 << 8;
    /// A listed header.
    pub const RETRIABLE_HEADERS: u32 = 1 << 9;
    /// HTTP/3 only.
    pub const HTTP3_POST_CONNECT_FAILURE: u32 = 1 << 10;
    /// gRPC status.
    pub const CANCELLED: u32 = 1 << 11;
    /// gRPC status.
    pub const DEADLINE_EXCEEDED: u32 = 1 << 12;
    /// gRPC status.
    pub const INTERNAL: u32 = 1 << 13;
    /// gRPC status.
    pub const RESOURCE_EXHAUSTED: u32 = 1 << 14;
    /// gRPC status.
    pub const UNAVAILABLE: u32 = 1 << 15;

    /// All that are about gRPC statuses.
    pub const GRPC: u32 =
        Self::CANCELLED | Self::DEADLINE_EXCEEDED | Self::INTERNAL | Self::RESOURCE_EXHAUSTED | Self::UNAVAILABLE;

    /// The bit of a name; nothing for one we do not know: it may be another version's.
    pub fn named(name: &str) -> u32 {
        Self::NAMES.iter().find(|(known, _)| *known == name).map_or(0, |(_, bit)| *bit)
    }

    /// Whether a condition is among them.
    pub fn has(self, condition: u32) -> bool {
        self.0 & condition != 0
    }
}

/// One thing that is hashed for consistent-hash clusters.
#[derive(Clone, Debug)]
pub struct HashPolicy {
    /// What.
    pub on: HashOn,
    /// Whether nothing further is hashed once this gave something.
    pub terminal: bool,
}

/// What is hashed.
#[derive(Clone, Debug)]
pub enum HashOn {
    /// A header.
    Header(Name, Option<RegexRewrite>),
    /// A cookie; `Some` time to live: it is set when the client has none.
    Cookie {
        /// Its name.
        name: Arc<str>,
        /// Its life time when it is set; zero is the session.
        ttl: Option<Duration>,
        /// Its path when it is set.
        path: Arc<str>,
        /// Further attributes when it is set.
        attributes: Vec<(Box<str>, Box<str>)>,
    },
    /// The client's address.
    SourceIp,
    /// A query parameter.
    Query(Arc<str>),
}

/// A copy that is sent elsewhere, its response discarded.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// Where.
    pub cluster: Arc<str>,
    /// Of which share of requests.
    pub fraction: Fraction,
    /// Whether `-shadow` is appended to the host.
    pub host_suffix: bool,
}

/// A redirect.
#[derive(Clone, Debug)]
pub struct Redirect {
    /// The status.
    pub status: u16,
    /// The scheme; `None` is the request's.
    pub scheme: Option<Arc<str>>,
    /// The host; `None` is the request's.
    pub host: Option<Arc<str>>,
    /// The port; `None` is the request's.
    pub port: Option<u16>,
    /// The path.
    pub path: PathRewrite,
    /// Whether the query is dropped.
    pub strip_query: bool,
}

/// An answer of our own.
#[derive(Clone, Debug, PartialEq)]
pub struct DirectResponse {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Arc<[u8]>,
}

/// A cross-origin policy.
#[derive(Clone, Debug)]
pub struct CorsPolicy {
    /// Origins that are allowed.
    pub origins: Vec<StringMatcher>,
    /// `access-control-allow-methods`; may be empty.
    pub methods: Arc<str>,
    /// `access-control-allow-headers`; may be empty.
    pub headers: Arc<str>,
    /// `access-control-expose-headers`; may be empty.
    pub expose: Arc<str>,
    /// `access-control-max-age`; may be empty.
    pub max_age: Arc<str>,
    /// Whether `access-control-allow-credentials: true` is sent.
    pub credentials: bool,
    /// Whether preflights of origins that are not allowed go upstream.
    pub forward_not_matching_preflights: bool,
    /// Whether private network access is granted when asked for.
    pub private_network: bool,
    /// The share of requests it applies to.
    pub enabled: Fraction,
}

/// A fault to inject.
#[derive(Clone, Debug)]
pub struct Fault {
    /// A pause before the request goes on.
    pub delay: Option<(FaultDelay, Fraction)>,
    /// An answer instead.
    pub abort: Option<(FaultAbort, Fraction)>,
    /// Which requests it is for: all must match.
    pub headers: Vec<HeaderMatcher>,
    /// Faults at a time; `None` is any number.
    pub max_active: Option<u32>,
}

/// How long a fault has requests wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultDelay {
    /// So long.
    Fixed(Duration),
    /// As long as `x-envoy-fault-delay-request` says, in milliseconds.
    Header,
}

/// What a fault answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultAbort {
    /// What `x-envoy-fault-abort-request` or `x-envoy-fault-abort-grpc-request` says.
    Header,
    /// An HTTP status.
    Http(u16),
    /// A gRPC status.
    Grpc(u32),
}
