//! When a failed request is tried again.

use maille_api::networking::virtual_service::HttpRetry;
use maille_xds::types::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use maille_xds::types::previous_hosts::PreviousHostsPredicate;
use maille_xds::types::route::RetryPolicy;
use maille_xds::types::route::retry_policy::{
    RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority,
};
use maille_xds::types::{UInt32Value, any};

use crate::convert::duration;

const RETRIABLE_STATUS_CODES: &str = "retriable-status-codes";
const OUTBOUND_RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
/// The only failure of which it is certain that the application saw nothing of the request.
const INBOUND_RETRY_ON: &str = "reset-before-request";
const DEFAULT_RETRIES: u32 = 2;

/// The policy of an outbound route; `None` when retries are turned off.
///
/// A request hashed to one endpoint keeps to it, so then no other is preferred for the next try.
pub(crate) fn outbound(policy: Option<&HttpRetry>, hashed: bool) -> Option<RetryPolicy> {
    let default = RetryPolicy {
        num_retries: Some(UInt32Value { value: DEFAULT_RETRIES }),
        retry_on: OUTBOUND_RETRY_ON.into(),
        host_selection_retry_max_attempts: 5,
        retry_host_predicate: if hashed { Vec::new() } else { vec![previous_hosts()] },
        ..Default::default()
    };
    let Some(policy) = policy else { return Some(default) };
    let mut out = RetryPolicy { num_retries: Some(attempts(policy)?), ..default };
    if !policy.retry_on.is_empty() {
        (out.retry_on, out.retriable_status_codes) = conditions(&policy.retry_on);
    }
    out.per_try_timeout = policy.per_try_timeout.map(duration);
    match policy.retry_ignore_previous_hosts {
        Some(true) => out.retry_host_predicate = vec![previous_hosts()],
        Some(false) => out.retry_host_predicate.clear(),
        None => {}
    }
    if policy.retry_remote_localities == Some(true) {
        out.retry_priority = Some(previous_priorities());
    }
    out.retry_back_off = back_off(policy);
    Some(out)
}

/// The policy of a sidecar towards its own application.
pub(crate) fn inbound(policy: Option<&HttpRetry>) -> Option<RetryPolicy> {
    let default = RetryPolicy {
        num_retries: Some(UInt32Value { value: DEFAULT_RETRIES }),
        retry_on: INBOUND_RETRY_ON.into(),
        ..Default::default()
    };
    let Some(policy) = policy else { return Some(default) };
    let mut out = RetryPolicy { num_retries: Some(attempts(policy)?), ..default };
    if !policy.retry_on.is_empty() {
        (out.retry_on, out.retriable_status_codes) = conditions(&policy.retry_on);
    }
    out.retry_back_off = back_off(policy);
    Some(out)
}

fn attempts(policy: &HttpRetry) -> Option<UInt32Value> {
    u32::try_from(policy.attempts).ok().filter(|attempts| *attempts > 0).map(|value| UInt32Value { value })
}

fn back_off(policy: &HttpRetry) -> Option<RetryBackOff> {
    policy.backoff.map(|interval| RetryBackOff { base_interval: Some(duration(interval)), ..Default::default() })
}

/// `retryOn` names conditions and status codes in one list; Envoy keeps them apart and wants the codes announced.
fn conditions(retry_on: &str) -> (String, Vec<u32>) {
    let mut names = Vec::new();
    let mut codes = Vec::new();
    for part in retry_on.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.parse::<u32>() {
            Ok(code) if is_registered_status(code) => codes.push(code),
            _ => names.push(part),
        }
    }
    let mut retry_on = names.join(",");
    if !codes.is_empty() && !retry_on.contains(RETRIABLE_STATUS_CODES) {
        retry_on.push(',');
        retry_on.push_str(RETRIABLE_STATUS_CODES);
    }
    (retry_on, codes)
}

/// Status codes with a registered meaning; other numbers are taken as condition names, as upstream does.
fn is_registered_status(code: u32) -> bool {
    matches!(code, 100..=103 | 200..=208 | 226 | 300..=305 | 307 | 308 | 400..=418 | 421..=426 | 428 | 429 | 431 | 451
        | 500..=508 | 510 | 511)
}

fn previous_hosts() -> RetryHostPredicate {
    RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".into(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(any(&PreviousHostsPredicate {}))),
    }
}

fn previous_priorities() -> RetryPriority {
    RetryPriority {
        name: "envoy.retry_priorities.previous_priorities".into(),
        config_type: Some(retry_priority::ConfigType::TypedConfig(any(&PreviousPrioritiesConfig {
            update_frequency: 2,
        }))),
    }
}
