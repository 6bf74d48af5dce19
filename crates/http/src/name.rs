//! Header names: lower-case always, and the ones that proxies care about known by number.

use std::fmt;

/// How many slots the recognition table has; a power of two well above the number of names, so that a seed without collisions exists.
const SLOTS: usize = 1024;

macro_rules! well_known {
    ($($variant:ident = $text:literal),* $(,)?) => {
        /// A header that the proxy itself reads or writes, recognised while it is parsed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "the variants are the headers' names")]
        pub enum HeaderId { $($variant),*, /** Any other header. */ Other }

        const NAMES: &[&str] = &[$($text),*];
        const IDS: &[HeaderId] = &[$(HeaderId::$variant),*];
    };
}

well_known! {
    Accept = "accept",
    AcceptEncoding = "accept-encoding",
    AccessControlAllowCredentials = "access-control-allow-credentials",
    AccessControlAllowHeaders = "access-control-allow-headers",
    AccessControlAllowMethods = "access-control-allow-methods",
    AccessControlAllowOrigin = "access-control-allow-origin",
    AccessControlExposeHeaders = "access-control-expose-headers",
    AccessControlMaxAge = "access-control-max-age",
    AccessControlRequestHeaders = "access-control-request-headers",
    AccessControlRequestMethod = "access-control-request-method",
    Age = "age",
    Authorization = "authorization",
    CacheControl = "cache-control",
    Connection = "connection",
    ContentEncoding = "content-encoding",
    ContentLength = "content-length",
    ContentType = "content-type",
    Cookie = "cookie",
    Date = "date",
    Etag = "etag",
    Expect = "expect",
    Expires = "expires",
    Forwarded = "forwarded",
    GrpcMessage = "grpc-message",
    GrpcStatus = "grpc-status",
    GrpcTimeout = "grpc-timeout",
    Host = "host",
    IfMatch = "if-match",
    IfModifiedSince = "if-modified-since",
    IfNoneMatch = "if-none-match",
    IfRange = "if-range",
    IfUnmodifiedSince = "if-unmodified-since",
    KeepAlive = "keep-alive",
    LastModified = "last-modified",
    Location = "location",
    Origin = "origin",
    Pragma = "pragma",
    ProxyAuthorization = "proxy-authorization",
    ProxyConnection = "proxy-connection",
    Referer = "referer",
    Server = "server",
    SetCookie = "set-cookie",
    Te = "te",
    Traceparent = "traceparent",
    Tracestate = "tracestate",
    Trailer = "trailer",
    TransferEncoding = "transfer-encoding",
    Upgrade = "upgrade",
    UserAgent = "user-agent",
    Vary = "vary",
    Via = "via",
    XClientTraceId = "x-client-trace-id",
    XEnvoyAttemptCount = "x-envoy-attempt-count",
    XEnvoyDecoratorOperation = "x-envoy-decorator-operation",
    XEnvoyDegraded = "x-envoy-degraded",
    XEnvoyDownstreamServiceCluster = "x-envoy-downstream-service-cluster",
    XEnvoyDownstreamServiceNode = "x-envoy-downstream-service-node",
    XEnvoyExpectedRqTimeoutMs = "x-envoy-expected-rq-timeout-ms",
    XEnvoyExternalAddress = "x-envoy-external-address",
    XEnvoyForceTrace = "x-envoy-force-trace",
    XEnvoyHedgeOnPerTryTimeout = "x-envoy-hedge-on-per-try-timeout",
    XEnvoyImmediateHealthCheckFail = "x-envoy-immediate-health-check-fail",
    XEnvoyInternal = "x-envoy-internal",
    XEnvoyIpTags = "x-envoy-ip-tags",
    XEnvoyIsTimeoutRetry = "x-envoy-is-timeout-retry",
    XEnvoyMaxRetries = "x-envoy-max-retries",
    XEnvoyOriginalDstHost = "x-envoy-original-dst-host",
    XEnvoyOriginalHost = "x-envoy-original-host",
    XEnvoyOriginalPath = "x-envoy-original-path",
    XEnvoyOriginalUrl = "x-envoy-original-url",
    XEnvoyOverloaded = "x-envoy-overloaded",
    XEnvoyPeerMetadata = "x-envoy-peer-metadata",
    XEnvoyPeerMetadataId = "x-envoy-peer-metadata-id",
    XEnvoyRatelimited = "x-envoy-ratelimited",
    XEnvoyRetriableHeaderNames = "x-envoy-retriable-header-names",
    XEnvoyRetriableStatusCodes = "x-envoy-retriable-status-codes",
    XEnvoyRetryGrpcOn = "x-envoy-retry-grpc-on",
    XEnvoyRetryOn = "x-envoy-retry-on",
    XEnvoyUpstreamAltStatName = "x-envoy-upstream-alt-stat-name",
    XEnvoyUpstreamRqPerTryTimeoutMs = "x-envoy-upstream-rq-per-try-timeout-ms",
    XEnvoyUpstreamRqTimeoutAltResponse = "x-envoy-upstream-rq-timeout-alt-response",
    XEnvoyUpstreamRqTimeoutMs = "x-envoy-upstream-rq-timeout-ms",
    XEnvoyUpstreamServiceTime = "x-envoy-upstream-service-time",
    XEnvoyUpstreamStreamDurationMs = "x-envoy-upstream-stream-duration-ms",
    XForwardedClientCert = "x-forwarded-client-cert",
    XForwardedFor = "x-forwarded-for",
    XForwardedHost = "x-forwarded-host",
    XForwardedPort = "x-forwarded-port",
    XForwardedProto = "x-forwarded-proto",
    XRequestId = "x-request-id",
}

impl HeaderId {
    /// The id of a lower-case name.
    #[inline]
    pub fn of(lower: &[u8]) -> HeaderId {
        let slot = slot_of(lower, SEED);
        match TABLE.get(slot).and_then(|&n| IDS.get(n as usize).copied().zip(NAMES.get(n as usize))) {
            Some((id, name)) if name.as_bytes() == lower => id,
            _ => HeaderId::Other,
        }
    }

    /// The header's name; empty for [`HeaderId::Other`].
    pub fn as_str(self) -> &'static str {
        NAMES.get(self as usize).copied().unwrap_or_default()
    }

    /// All of them, [`HeaderId::Other`] aside.
    pub(crate) fn all() -> impl Iterator<Item = HeaderId> {
        IDS.iter().copied()
    }

    /// Whether several fields of this name are read as one, their values joined by `,`: those that Envoy has a slot for.
    pub const fn is_list(self, of_request: bool) -> bool {
        (if of_request { REQUEST_LISTS } else { RESPONSE_LISTS }) & self.bit() != 0
    }

    /// This header's place in a presence bitmap. [`HeaderId::Other`] has one too.
    pub(crate) const fn bit(self) -> u128 {
        1 << (self as u8)
    }
}

/// The fields that Envoy has a slot for in requests.
const REQUEST_LISTS: u128 = {
    use HeaderId::*;
    bits(&[
        Accept,
        AcceptEncoding,
        AccessControlRequestHeaders,
        AccessControlRequestMethod,
        Authorization,
        CacheControl,
        ContentEncoding,
        ContentType,
        Expect,
        GrpcTimeout,
        IfMatch,
        IfModifiedSince,
        IfNoneMatch,
        IfRange,
        IfUnmodifiedSince,
        Origin,
        Pragma,
        Referer,
        Te,
        Upgrade,
        UserAgent,
        Via,
        XClientTraceId,
        XEnvoyAttemptCount,
        XEnvoyDecoratorOperation,
        XEnvoyDownstreamServiceCluster,
        XEnvoyDownstreamServiceNode,
        XEnvoyExpectedRqTimeoutMs,
        XEnvoyExternalAddress,
        XEnvoyForceTrace,
        XEnvoyHedgeOnPerTryTimeout,
        XEnvoyInternal,
        XEnvoyIpTags,
        XEnvoyIsTimeoutRetry,
        XEnvoyMaxRetries,
        XEnvoyOriginalHost,
        XEnvoyOriginalPath,
        XEnvoyOriginalUrl,
        XEnvoyRetriableHeaderNames,
        XEnvoyRetriableStatusCodes,
        XEnvoyRetryGrpcOn,
        XEnvoyRetryOn,
        XEnvoyUpstreamAltStatName,
        XEnvoyUpstreamRqPerTryTimeoutMs,
        XEnvoyUpstreamRqTimeoutAltResponse,
        XEnvoyUpstreamRqTimeoutMs,
        XEnvoyUpstreamStreamDurationMs,
        XForwardedClientCert,
        XForwardedFor,
        XForwardedHost,
        XForwardedPort,
        XForwardedProto,
        XRequestId,
    ])
};

/// Likewise in responses.
const RESPONSE_LISTS: u128 = {
    use HeaderId::*;
    bits(&[
        AccessControlAllowCredentials,
        AccessControlAllowHeaders,
        AccessControlAllowMethods,
        AccessControlAllowOrigin,
        AccessControlExposeHeaders,
        AccessControlMaxAge,
        Age,
        CacheControl,
        ContentEncoding,
        ContentType,
        Date,
        Etag,
        Expires,
        GrpcMessage,
        GrpcStatus,
        LastModified,
        Location,
        Server,
        Upgrade,
        Vary,
        Via,
        XEnvoyAttemptCount,
        XEnvoyDecoratorOperation,
        XEnvoyDegraded,
        XEnvoyImmediateHealthCheckFail,
        XEnvoyUpstreamServiceTime,
        XRequestId,
    ])
};

const fn bits(ids: &[HeaderId]) -> u128 {
    let (mut bits, mut i) = (0, 0);
    while i < ids.len() {
        #[allow(clippy::indexing_slicing, reason = "i is below the length")]
        {
            bits |= ids[i].bit();
        }
        i += 1;
    }
    bits
}

/// A set of well-known headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderIds(u128);

impl HeaderIds {
    /// These headers.
    pub const fn of(ids: &[HeaderId]) -> HeaderIds {
        HeaderIds(bits(ids))
    }

    pub(crate) const fn bits(self) -> u128 {
        self.0
    }
}

/// A header name to look up: lower-case, its id found once, when the configuration was read.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Name {
    id: HeaderId,
    text: Box<str>,
}

impl Name {
    /// From any spelling. Pseudo-headers (`:authority`, `:method`, `:path`, `:scheme`, `:status`) are names too.
    pub fn new(name: &str) -> Name {
        let text = name.to_ascii_lowercase().into_boxed_str();
        Name { id: HeaderId::of(text.as_bytes()), text }
    }

    /// Whether this may stand in a message: a non-empty token, or a pseudo-header's name.
    pub fn is_valid(&self) -> bool {
        let token = self.text.strip_prefix(':').unwrap_or(&self.text);
        !token.is_empty() && token.bytes().all(is_token)
    }

    /// The lower-case name.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The well-known header this is, or [`HeaderId::Other`].
    pub fn id(&self) -> HeaderId {
        self.id
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<HeaderId> for Name {
    fn from(id: HeaderId) -> Name {
        Name { id, text: id.as_str().into() }
    }
}

/// Whether a byte may stand in a token (RFC 9110 §5.6.2).
#[inline]
pub const fn is_token(b: u8) -> bool {
    matches!(b, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
        || b.is_ascii_alphanumeric()
}

#[allow(clippy::indexing_slicing, reason = "indices are below the length, checked just above each use")]
#[inline]
const fn slot_of(name: &[u8], seed: u32) -> usize {
    let n = name.len();
    if n == 0 {
        return 0;
    }
    let (a, b, c) = (name[0] as u32, name[n / 2] as u32, name[n - 1] as u32);
    // Names of one family share their start and often their end, so two more bytes from inside tell them apart.
    let (d, e) = (name[n * 3 / 4] as u32, name[n / 3] as u32);
    let h =
        (((n as u32) << 24) ^ (a << 3) ^ (b << 9) ^ (c << 14) ^ (d << 20) ^ (e << 26) ^ (e >> 3)).wrapping_mul(seed);
    (h >> 22) as usize & (SLOTS - 1)
}

/// The recognition table for a seed, and whether each name got a slot of its own.
#[allow(clippy::indexing_slicing, reason = "runs in the compiler: a wrong index would not build")]
const fn table(seed: u32) -> ([u8; SLOTS], bool) {
    let mut out = [u8::MAX; SLOTS];
    let mut i = 0;
    while i < NAMES.len() {
        let slot = slot_of(NAMES[i].as_bytes(), seed);
        if out[slot] != u8::MAX {
            return (out, false);
        }
        out[slot] = i as u8;
        i += 1;
    }
    (out, true)
}

/// The first odd multiplier that tells all names apart; found by the compiler, so a new name needs no new constant.
const SEED: u32 = {
    let mut seed = 0x9E37_79B1u32;
    while !table(seed).1 {
        seed = seed.wrapping_add(0x6D2B_79F5 & !1);
    }
    seed
};

static TABLE: [u8; SLOTS] = table(SEED).0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_recognised_and_nothing_else() {
        assert!(NAMES.len() < 127, "the presence bitmap has 128 bits");
        for (name, id) in NAMES.iter().zip(IDS) {
            assert_eq!(HeaderId::of(name.as_bytes()), *id, "{name}");
            assert_eq!(id.as_str(), *name);
            assert_eq!(Name::new(&name.to_uppercase()).id(), *id);
        }
        for other in ["", "x", "hos", "hosts", "x-request-ie", ":authority"] {
            assert_eq!(HeaderId::of(other.as_bytes()), HeaderId::Other, "{other}");
        }
    }

    #[test]
    fn validity() {
        for (name, ok) in
            [("x-a", true), (":path", true), ("", false), (":", false), ("a b", false), ("a:b", false), ("é", false)]
        {
            assert_eq!(Name::new(name).is_valid(), ok, "{name}");
        }
    }
}
