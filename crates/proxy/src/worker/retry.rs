//! Whether a request is tried again.

use std::time::Duration;

use maille_http::{HeaderId, RequestHead, ResponseHead};

use crate::config::{RetryOn, RetryPolicy};
use crate::upstream::outlier::Outcome;

/// Why there is no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reset {
    /// There was no connection.
    Connect,
    /// There was no connection in the time it may take.
    ConnectTimeout,
    /// The connection ended before the response began.
    Terminated,
    /// The server ended the stream.
    Remote,
    /// The server has not looked at the request, and says so.
    Refused,
    /// The same, since it was about to close the connection.
    Gone,
    /// What came was not HTTP.
    Protocol,
    /// It took too long.
    Timeout,
    /// The cluster has as much to do as it may.
    Overflow,
}

impl Reset {
    /// What it says about the host.
    pub(crate) fn outcome(self) -> Option<Outcome> {
        match self {
            Reset::Connect | Reset::ConnectTimeout | Reset::Terminated | Reset::Protocol | Reset::Remote => {
                Some(Outcome::Failed)
            }
            Reset::Refused | Reset::Gone => Some(Outcome::Failed),
            Reset::Timeout => Some(Outcome::TimedOut),
            Reset::Overflow => None,
        }
    }
}

/// Whether a policy has it that a request without a response is tried again.
pub(crate) fn on_reset(policy: &RetryPolicy, reset: Reset) -> bool {
    let on = policy.on;
    if reset == Reset::Overflow {
        return false;
    }
    on.has(RetryOn::RESET | RetryOn::FIVE_XX | RetryOn::GATEWAY_ERROR)
        || (on.has(RetryOn::REFUSED_STREAM) && matches!(reset, Reset::Refused | Reset::Gone))
        // Without a connection nothing of it can have reached anyone.
        || (on.has(RetryOn::CONNECT_FAILURE | RetryOn::RESET_BEFORE_REQUEST)
            && matches!(reset, Reset::Connect | Reset::ConnectTimeout))
}

/// Whether a policy has it that a response is thrown away and the request tried again.
pub(crate) fn on_response(policy: &RetryPolicy, response: &ResponseHead) -> bool {
    let (on, status) = (policy.on, response.status);
    (on.has(RetryOn::FIVE_XX) && (500..600).contains(&status))
        || (on.has(RetryOn::GATEWAY_ERROR) && matches!(status, 502..=504))
        || (on.has(RetryOn::RETRIABLE_4XX) && status == 409)
        || (on.has(RetryOn::RETRIABLE_STATUS_CODES) && policy.status_codes.contains(&u32::from(status)))
        || (on.has(RetryOn::RETRIABLE_HEADERS)
            && policy.headers.iter().any(|matcher| matcher.matches_value(response.header(&matcher.name))))
        || on_grpc(on, response)
}

fn on_grpc(on: RetryOn, response: &ResponseHead) -> bool {
    match response.headers.get(HeaderId::GrpcStatus) {
        Some(b"1") => on.has(RetryOn::CANCELLED),
        Some(b"4") => on.has(RetryOn::DEADLINE_EXCEEDED),
        Some(b"8") => on.has(RetryOn::RESOURCE_EXHAUSTED),
        Some(b"13") => on.has(RetryOn::INTERNAL),
        Some(b"14") => on.has(RetryOn::UNAVAILABLE),
        _ => false,
    }
}

/// Whether a policy is for a request at all.
pub(crate) fn applies(policy: &RetryPolicy, request: &RequestHead) -> bool {
    policy.request_headers.is_empty() || policy.request_headers.iter().any(|matcher| matcher.matches(request))
}

/// The pause before a retry: fully jittered, its bound doubling each time.
pub(crate) fn pause(policy: &RetryPolicy, retries_so_far: u32) -> Duration {
    let bound = policy.backoff_base.saturating_mul(1 << retries_so_far.min(16)).min(policy.backoff_max);
    bound.mul_f64(fastrand::f64())
}

/// Whether a request may be sent twice without anyone having asked for it: to repeat it changes nothing.
pub(crate) fn is_idempotent(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE")
}
