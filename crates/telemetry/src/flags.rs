//! Response flags: why a request or connection went the way it did, by Envoy's names.

/// A set of response flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseFlags(u32);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $short:literal, $long:literal;)*) => {
        impl ResponseFlags {
            $($(#[$doc])* pub const $name: ResponseFlags = ResponseFlags(1 << $bit);)*

            /// Every flag: itself, its short name (as in logs), its long one.
            pub const ALL: &[(ResponseFlags, &str, &str)] = &[$((ResponseFlags::$name, $short, $long)),*];
        }
    };
}

flags! {
    /// The local health check failed.
    FAILED_LOCAL_HEALTH_CHECK = 0, "LH", "FailedLocalHealthCheck";
    /// No healthy upstream.
    NO_HEALTHY_UPSTREAM = 1, "UH", "NoHealthyUpstream";
    /// The upstream took too long.
    UPSTREAM_REQUEST_TIMEOUT = 2, "UT", "UpstreamRequestTimeout";
    /// We reset.
    LOCAL_RESET = 3, "LR", "LocalReset";
    /// The upstream reset.
    UPSTREAM_REMOTE_RESET = 4, "UR", "UpstreamRemoteReset";
    /// No connection to the upstream.
    UPSTREAM_CONNECTION_FAILURE = 5, "UF", "UpstreamConnectionFailure";
    /// The upstream closed the connection.
    UPSTREAM_CONNECTION_TERMINATION = 6, "UC", "UpstreamConnectionTermination";
    /// A circuit breaker was open.
    UPSTREAM_OVERFLOW = 7, "UO", "UpstreamOverflow";
    /// There was no route.
    NO_ROUTE_FOUND = 8, "NR", "NoRouteFound";
    /// A delay was injected.
    DELAY_INJECTED = 9, "DI", "DelayInjected";
    /// A fault was injected.
    FAULT_INJECTED = 10, "FI", "FaultInjected";
    /// The rate was limited.
    RATE_LIMITED = 11, "RL", "RateLimited";
    /// An authorization service refused.
    UNAUTHORIZED_EXTERNAL_SERVICE = 12, "UAEX", "UnauthorizedExternalService";
    /// The rate limit service failed.
    RATE_LIMIT_SERVICE_ERROR = 13, "RLSE", "RateLimitServiceError";
    /// The client went away.
    DOWNSTREAM_CONNECTION_TERMINATION = 14, "DC", "DownstreamConnectionTermination";
    /// All tries were used up.
    UPSTREAM_RETRY_LIMIT_EXCEEDED = 15, "URX", "UpstreamRetryLimitExceeded";
    /// The stream was silent for too long.
    STREAM_IDLE_TIMEOUT = 16, "SI", "StreamIdleTimeout";
    /// A header that is strictly checked was not valid.
    INVALID_ENVOY_REQUEST_HEADERS = 17, "IH", "InvalidEnvoyRequestHeaders";
    /// The client broke the protocol.
    DOWNSTREAM_PROTOCOL_ERROR = 18, "DPE", "DownstreamProtocolError";
    /// The stream lasted too long.
    UPSTREAM_MAX_STREAM_DURATION_REACHED = 19, "UMSDR", "UpstreamMaxStreamDurationReached";
    /// The upstream broke the protocol.
    UPSTREAM_PROTOCOL_ERROR = 20, "UPE", "UpstreamProtocolError";
    /// There was no such cluster.
    NO_CLUSTER_FOUND = 21, "NC", "NoClusterFound";
    /// Too much load.
    OVERLOAD_MANAGER = 22, "OM", "OverloadManagerTerminated";
    /// The name did not resolve.
    DNS_RESOLUTION_FAILED = 23, "DF", "DnsResolutionFailed";
    /// The connection lasted too long.
    DURATION_TIMEOUT = 24, "DT", "DurationTimeout";
    /// The client reset the stream.
    DOWNSTREAM_REMOTE_RESET = 25, "DR", "DownstreamRemoteReset";
}

impl ResponseFlags {
    /// Whether none is set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether one of the other's is set.
    pub fn has(self, other: ResponseFlags) -> bool {
        self.0 & other.0 != 0
    }

    /// Sets the other's as well.
    pub fn set(&mut self, other: ResponseFlags) {
        self.0 |= other.0;
    }

    /// The flag of a short name.
    pub fn parse(short: &str) -> Option<ResponseFlags> {
        Self::ALL.iter().find(|(_, name, _)| *name == short).map(|(flag, ..)| *flag)
    }

    /// Appends the short names, comma-separated; `-` when there is none.
    pub fn write_short(self, out: &mut Vec<u8>) {
        self.write(out, |(_, short, _)| short);
    }

    /// Appends the long names, comma-separated; `-` when there is none.
    pub fn write_long(self, out: &mut Vec<u8>) {
        self.write(out, |(_, _, long)| long);
    }

    fn write(self, out: &mut Vec<u8>, name: impl Fn(&'static (ResponseFlags, &str, &str)) -> &'static str) {
        if self.is_empty() {
            return out.push(b'-');
        }
        let mut first = true;
        for flag in Self::ALL.iter().filter(|(flag, ..)| self.has(*flag)) {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            out.extend_from_slice(name(flag).as_bytes());
        }
    }
}

impl std::ops::BitOr for ResponseFlags {
    type Output = ResponseFlags;

    fn bitor(self, other: ResponseFlags) -> ResponseFlags {
        ResponseFlags(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let mut out = Vec::new();
        ResponseFlags::default().write_short(&mut out);
        out.push(b' ');
        let both = ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED | ResponseFlags::UPSTREAM_CONNECTION_FAILURE;
        both.write_short(&mut out);
        out.push(b' ');
        both.write_long(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "- UF,URX UpstreamConnectionFailure,UpstreamRetryLimitExceeded");
        for (flag, short, _) in ResponseFlags::ALL {
            assert_eq!(ResponseFlags::parse(short), Some(*flag));
        }
    }
}
