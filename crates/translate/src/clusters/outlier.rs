//! Outlier detection: which failures take an endpoint out of rotation, and for how long.

use maille_api::networking::destination_rule::OutlierDetection;
use maille_model::{Service, TrafficDistribution};
use maille_xds::types::UInt32Value;
use maille_xds::types::cluster::OutlierDetection as EnvoyOutlierDetection;
use maille_xds::types::kind::Percent;
use maille_xds::types::matcher::{StringMatcher, string_matcher};
use maille_xds::types::pb::envoy::config::common::matcher::v3::{HttpHeadersMatch, MatchPredicate, match_predicate};
use maille_xds::types::route::{HeaderMatcher, header_matcher};
use maille_xds::types::upstream_http::http_protocol_options;

use super::base::Draft;
use crate::convert::duration;

pub(super) fn apply(draft: &mut Draft, settings: Option<&OutlierDetection>, service: &Service) {
    let Some(settings) = settings else { return };
    let number = |value: u32| Some(UInt32Value { value });
    // Detection that is switched off counts without ejecting.
    let enforce = |value: u32| number(if value > 0 { 100 } else { 0 });
    let mut out = EnvoyOutlierDetection {
        // Success rates are compared between endpoints: of no use with the few endpoints most services have.
        enforcing_success_rate: number(0),
        consecutive_5xx: settings.consecutive_5xx_errors.and_then(number),
        enforcing_consecutive_5xx: settings.consecutive_5xx_errors.and_then(enforce),
        consecutive_gateway_failure: settings.consecutive_gateway_errors.and_then(number),
        enforcing_consecutive_gateway_failure: settings.consecutive_gateway_errors.and_then(enforce),
        interval: settings.interval.map(duration),
        base_ejection_time: settings.base_ejection_time.map(duration),
        max_ejection_percent: u32::try_from(settings.max_ejection_percent).ok().filter(|p| *p > 0).and_then(number),
        ..EnvoyOutlierDetection::default()
    };
    if settings.split_external_local_origin_errors {
        out.split_external_local_origin_errors = true;
        if let Some(failures) = settings.consecutive_local_origin_failures.filter(|failures| *failures > 0) {
            out.consecutive_local_origin_failure = number(failures);
            out.enforcing_consecutive_local_origin_failure = number(100);
        }
        out.enforcing_local_origin_success_rate = number(0);
    }
    draft.cluster.outlier_detection = Some(out);

    // Said even when it is zero, since Envoy's own threshold (half of the endpoints) would send traffic to ejected ones.
    if settings.min_health_percent >= 0 {
        let spread = service.traffic_distribution != TrafficDistribution::Any;
        let percent = if spread { 0 } else { settings.min_health_percent };
        let common = draft.cluster.common_lb_config.get_or_insert_default();
        common.healthy_panic_threshold = Some(Percent { value: f64::from(percent) });
    }
    if !settings.outlier_detection_http_error_codes.is_empty() {
        let error_matcher = Some(any_of(&settings.outlier_detection_http_error_codes));
        draft.http().outlier_detection = Some(http_protocol_options::OutlierDetection { error_matcher });
    }
}

fn any_of(codes: &[u32]) -> MatchPredicate {
    let mut rules: Vec<MatchPredicate> = codes.iter().map(|code| status(*code)).collect();
    if rules.len() == 1 {
        return rules.remove(0);
    }
    MatchPredicate { rule: Some(match_predicate::Rule::OrMatch(match_predicate::MatchSet { rules })) }
}

fn status(code: u32) -> MatchPredicate {
    let exact = StringMatcher {
        match_pattern: Some(string_matcher::MatchPattern::Exact(code.to_string())),
        ..StringMatcher::default()
    };
    let header = HeaderMatcher {
        name: ":status".to_owned(),
        header_match_specifier: Some(header_matcher::HeaderMatchSpecifier::StringMatch(exact)),
        ..HeaderMatcher::default()
    };
    let headers = HttpHeadersMatch { headers: vec![header] };
    MatchPredicate { rule: Some(match_predicate::Rule::HttpResponseHeadersMatch(headers)) }
}
