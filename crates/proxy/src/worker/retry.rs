//! Whether a request is tried again.

mod priorities;
mod terms;

use std::time::Duration;

use maille_http::{HeaderId, ResponseHead};

use crate::config::{ResetFormat, RetryOn, RetryPolicy};
use crate::upstream::outlier::Outcome;

pub(crate) use priorities::Priorities;
pub(crate) use terms::Terms;

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
    /// The attempt took too long.
    TryTimeout,
    /// The attempt was without activity for too long.
    TrySilence,
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
            Reset::TryTimeout | Reset::TrySilence => Some(Outcome::TimedOut),
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
    if response.headers.has(HeaderId::XEnvoyRatelimited) {
        // To ask again at once is what the limit is against.
        return on.has(RetryOn::ENVOY_RATELIMITED);
    }
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

/// The pause before a retry: fully jittered, its bound doubling each time.
pub(crate) fn pause(policy: &RetryPolicy, retries_so_far: u32) -> Duration {
    let bound = policy.backoff_base.saturating_mul(1 << retries_so_far.min(16)).min(policy.backoff_max);
    bound.mul_f64(fastrand::f64())
}

/// The pause that a response asks for, if it does and the policy listens. `now` in seconds since 1970.
pub(crate) fn asked_pause(policy: &RetryPolicy, response: &ResponseHead, now: u64) -> Option<Duration> {
    let limited = policy.rate_limited.as_ref()?;
    let asked = limited.headers.iter().find_map(|(name, format)| {
        let value = response.header(name)?;
        let seconds: u64 = std::str::from_utf8(&value).ok()?.trim().parse().ok()?;
        let pause = match format {
            ResetFormat::Seconds => seconds,
            ResetFormat::UnixTimestamp => seconds.checked_sub(now)?,
        };
        Some(Duration::from_secs(pause)).filter(|pause| *pause <= limited.max)
    });
    // Up to half as long again, so that not everybody is back at the same moment.
    asked.filter(|pause| !pause.is_zero()).map(|pause| pause.mul_f64(1.0 + fastrand::f64() / 2.0))
}

#[cfg(test)]
mod tests;
