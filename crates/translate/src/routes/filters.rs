//! What a route says to HTTP filters: faults and cross-origin rules.

use std::collections::HashMap;

use maille_api::networking::virtual_service::{
    CorsPolicy, FaultAbortType, FaultDelayType, HttpFaultInjection, HttpRoute, Percent, StringMatch,
    UnmatchedPreflights,
};
use maille_xds::types::core::RuntimeFractionalPercent;
use maille_xds::types::kind::FractionalPercent;
use maille_xds::types::kind::fractional_percent::DenominatorType;
use maille_xds::types::pb::envoy::extensions::filters::common::fault::v3::{FaultDelay, fault_delay};
use maille_xds::types::{Any, BoolValue, any, cors, fault};

use super::matching::string_matcher;
use crate::convert::{duration, ordered_map};

/// The name of the filter that delays and aborts.
pub(crate) const FAULT: &str = "envoy.filters.http.fault";
/// The name of the filter that answers preflight requests.
pub(crate) const CORS: &str = "envoy.filters.http.cors";

/// The per-filter configuration of a route.
pub(crate) fn per_filter_config(route: &HttpRoute) -> HashMap<String, Any> {
    let mut filters = Vec::new();
    if let Some(policy) = &route.cors_policy {
        filters.push((CORS.to_owned(), any(&cors_policy(policy))));
    }
    if let Some(injection) = &route.fault {
        filters.push((FAULT.to_owned(), any(&http_fault(injection))));
    }
    ordered_map(filters)
}

fn http_fault(injection: &HttpFaultInjection) -> fault::HttpFault {
    let delay = injection.delay.as_ref().and_then(|delay| {
        let Some(FaultDelayType::FixedDelay(fixed)) = delay.http_delay_type else { return None };
        Some(FaultDelay {
            percentage: Some(match &delay.percentage {
                Some(share) => millionths(share),
                None => hundredths(u32::try_from(delay.percent).unwrap_or(0)),
            }),
            fault_delay_secifier: Some(fault_delay::FaultDelaySecifier::FixedDelay(duration(fixed))),
        })
    });
    let abort = injection.abort.as_ref().and_then(|abort| {
        let error = match abort.error_type.as_ref()? {
            FaultAbortType::HttpStatus(status) => {
                fault::fault_abort::ErrorType::HttpStatus(u32::try_from(*status).unwrap_or(0))
            }
            FaultAbortType::GrpcStatus(name) => {
                // Validation lets no other names through.
                fault::fault_abort::ErrorType::GrpcStatus(maille_api::grpc::status_number(name)?)
            }
            FaultAbortType::Http2Error(_) => return None,
        };
        Some(fault::FaultAbort {
            percentage: abort.percentage.as_ref().map(millionths),
            error_type: Some(error),
            ..Default::default()
        })
    });
    fault::HttpFault { delay, abort, ..Default::default() }
}

fn cors_policy(policy: &CorsPolicy) -> cors::CorsPolicy {
    let exact = policy.allow_origin.iter().cloned().map(StringMatch::Exact).collect::<Vec<_>>();
    let origins = if policy.allow_origins.is_empty() { &exact } else { &policy.allow_origins };
    cors::CorsPolicy {
        allow_origin_string_match: origins.iter().filter_map(string_matcher).collect(),
        allow_methods: policy.allow_methods.join(","),
        allow_headers: policy.allow_headers.join(","),
        expose_headers: policy.expose_headers.join(","),
        max_age: policy.max_age.map(|age| age.seconds().to_string()).unwrap_or_default(),
        allow_credentials: policy.allow_credentials.map(|value| BoolValue { value }),
        filter_enabled: Some(share_of_requests(hundredths(100))),
        forward_not_matching_preflights: Some(BoolValue {
            value: policy.unmatched_preflights != UnmatchedPreflights::Ignore,
        }),
        ..Default::default()
    }
}

/// A share that Envoy could change at run time and here never does.
pub(crate) fn share_of_requests(share: FractionalPercent) -> RuntimeFractionalPercent {
    RuntimeFractionalPercent { default_value: Some(share), ..Default::default() }
}

/// A percentage with four decimals.
pub(crate) fn millionths(share: &Percent) -> FractionalPercent {
    FractionalPercent { numerator: (share.value * 10_000.0) as u32, denominator: DenominatorType::Million.into() }
}

/// A whole percentage.
pub(crate) fn hundredths(percent: u32) -> FractionalPercent {
    FractionalPercent { numerator: percent, denominator: DenominatorType::Hundred.into() }
}
