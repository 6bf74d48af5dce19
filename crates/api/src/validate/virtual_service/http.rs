//! One HTTP route: what it matches, where requests go, and what is done to them.

mod matches;

use super::{destination, total_weight, weighted_destination};
use crate::networking::virtual_service::{
    CorsPolicy, FaultAbortType, FaultDelayType, Headers, HttpBody, HttpDirectResponse, HttpFaultInjection,
    HttpMatchRequest, HttpMirrorPolicy, HttpRedirect, HttpRetry, HttpRewrite, HttpRoute, HttpRouteDestination,
    RedirectPort, StringMatch,
};
use crate::validate::findings::{At, Problem, Verdict};
use crate::validate::{header, re2, rules};

const BIG_BODY: usize = 100 * 1024;
const HUGE_BODY: usize = 1024 * 1024;
const CORS_METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"];
/// What Envoy takes in `x-envoy-retry-on` and `x-envoy-retry-grpc-on`.
const RETRY_ON: [&str; 16] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "envoy-ratelimited",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

pub(super) fn validate(route: &HttpRoute, is_delegate: bool, semantics: bool, at: &mut At<'_>) {
    one_action(route, is_delegate, at);
    for (i, found) in route.r#match.iter().enumerate() {
        matches::validate(found, &mut at.field("match").index(i).errors_only());
    }
    header::manipulation(route.headers.as_ref(), at);
    if let Some(policy) = &route.cors_policy {
        cors(policy, &mut at.field("corsPolicy"));
    }
    if let Some(injection) = &route.fault {
        fault(injection, &mut at.field("fault"));
    }
    mirrors(route, at);
    if let Some(to) = &route.redirect {
        redirect(to, &route.r#match, &mut at.field("redirect"));
    }
    if let Some(response) = &route.direct_response {
        direct_response(response, &mut at.field("directResponse"));
    }
    if let Some(policy) = &route.retries {
        retries(policy, &mut at.field("retries"));
    }
    if let Some(change) = &route.rewrite {
        rewrite(change, &mut at.field("rewrite"));
    }
    one_authority(route.rewrite.as_ref(), route.headers.as_ref(), at);
    destinations(&route.route, semantics, &mut at.field("route"));
    if let Some(timeout) = route.timeout {
        at.field("timeout").check(rules::duration(timeout));
    }
}

// === actions ===

/// A route does one thing: delegate, redirect, answer, or forward.
fn one_action(route: &HttpRoute, is_delegate: bool, at: &mut At<'_>) {
    let has_route = !route.route.is_empty();
    if route.delegate.is_some() {
        if is_delegate {
            at.field("delegate")
                .error(Problem::new("a delegate cannot delegate again").hint("put the routes here, or add hosts"));
        } else {
            let taken = [("redirect", route.redirect.is_some()), ("route", has_route)];
            return exclusive("delegate", &taken, at);
        }
    }
    let besides = |action| {
        [
            ("route", has_route),
            ("fault", route.fault.is_some()),
            ("rewrite", route.rewrite.is_some()),
            ("directResponse", action == "redirect" && route.direct_response.is_some()),
        ]
    };
    if route.redirect.is_some() {
        exclusive("redirect", &besides("redirect"), at);
    } else if route.direct_response.is_some() {
        exclusive("directResponse", &besides("directResponse"), at);
    } else if !has_route {
        at.error(
            Problem::new("the route does nothing with the requests it matches")
                .hint("add `route`, `redirect` or `directResponse`"),
        );
    }
    if route.mirror.is_some() && !route.mirrors.is_empty() {
        at.field("mirror").error(Problem::new("mirror and mirrors exclude each other").hint("keep mirrors"));
    }
}

fn exclusive(action: &str, others: &[(&str, bool)], at: &mut At<'_>) {
    for (other, _) in others.iter().filter(|(_, is_set)| *is_set) {
        at.field(other)
            .error(Problem::new(format!("{other} has no effect beside {action}")).hint("remove one of them"));
    }
}

fn destinations(destinations: &[HttpRouteDestination], semantics: bool, at: &mut At<'_>) {
    for (i, weighted) in destinations.iter().enumerate() {
        let at = &mut at.index(i);
        weighted_destination(weighted.destination.as_ref(), weighted.weight, semantics, at);
        header::manipulation(weighted.headers.as_ref(), at);
    }
    total_weight(destinations.iter().map(|weighted| weighted.weight), at);
}

fn redirect(redirect: &HttpRedirect, matches: &[HttpMatchRequest], at: &mut At<'_>) {
    if !redirect.uri.is_empty() && !redirect.prefix_rewrite.is_empty() {
        at.field("prefixRewrite")
            .error(Problem::new("uri and prefixRewrite exclude each other").hint("remove one of them"));
    }
    let is_prefix = |found: &HttpMatchRequest| matches!(found.uri, None | Some(StringMatch::Prefix(_)));
    if !redirect.prefix_rewrite.is_empty() && !matches.iter().all(is_prefix) {
        at.field("prefixRewrite").error(
            Problem::new("a prefix can only be rewritten if every match on the uri is by prefix")
                .hint("use `uri`, or match by prefix"),
        );
    }
    let is_empty = redirect.uri.is_empty()
        && redirect.prefix_rewrite.is_empty()
        && redirect.authority.is_empty()
        && redirect.scheme.is_empty()
        && redirect.redirect_port.is_none();
    if is_empty {
        at.error(
            Problem::new("the redirect leads back to where it came from").hint("set uri, authority, scheme or port"),
        );
    }
    if redirect.redirect_code != 0 && !(300..=399).contains(&redirect.redirect_code) {
        at.field("redirectCode").error(
            Problem::new(format!("{} is not a redirect's status", redirect.redirect_code))
                .hint("use one from 300 to 399"),
        );
    }
    if !matches!(redirect.scheme.as_str(), "" | "http" | "https") {
        at.field("scheme").error(
            Problem::new(format!("`{}` is not a scheme to redirect to", redirect.scheme)).hint("write http or https"),
        );
    }
    if let Some(RedirectPort::Port(port)) = redirect.redirect_port
        && port != 0
    {
        at.field("port").check(rules::port(port));
    }
}

fn direct_response(response: &HttpDirectResponse, at: &mut At<'_>) {
    let size = match &response.body {
        Some(HttpBody::String(text)) => text.len(),
        Some(HttpBody::Bytes(bytes)) => bytes.len(),
        Some(HttpBody::Unset) | None => 0,
    };
    if size > HUGE_BODY {
        at.field("body").error(
            Problem::new(format!("the body has {size} bytes, at most {HUGE_BODY} are allowed"))
                .hint("serve it from a workload"),
        );
    } else if size > BIG_BODY {
        at.field("body").warn(
            Problem::new(format!("every proxy keeps a copy of this body, {size} bytes"))
                .hint("serve it from a workload"),
        );
    }
    at.field("status").check(http_status(i64::from(response.status)));
}

/// 600 is let through, as it is by Istio.
fn http_status(status: i64) -> Verdict {
    if (200..=600).contains(&status) {
        return Ok(());
    }
    Err(format!("{status} is not an HTTP status from 200 to 599").into())
}

fn rewrite(rewrite: &HttpRewrite, at: &mut At<'_>) {
    if !rewrite.uri.is_empty() && rewrite.uri_regex_rewrite.is_some() {
        at.field("uriRegexRewrite")
            .error(Problem::new("uri and uriRegexRewrite exclude each other").hint("remove one of them"));
    }
    if rewrite.uri.is_empty() && rewrite.uri_regex_rewrite.is_none() && rewrite.authority.is_empty() {
        at.error(Problem::new("the rewrite changes nothing").hint("set uri, uriRegexRewrite or authority"));
    }
    if let Some(regex) = &rewrite.uri_regex_rewrite {
        let mut at = at.field("uriRegexRewrite");
        at.field("match").check(re2::check(&regex.r#match));
        if regex.rewrite.is_empty() {
            at.field("rewrite").error("what the match is replaced by is missing");
        }
    }
}

/// The authority can be changed in three places; only one of them can win.
fn one_authority(rewrite: Option<&HttpRewrite>, headers: Option<&Headers>, at: &mut At<'_>) {
    let Some(request) = headers.and_then(|headers| headers.request.as_ref()) else { return };
    let mut is_set = rewrite.is_some_and(|rewrite| !rewrite.authority.is_empty());
    for (field, headers) in [("set", &request.set), ("add", &request.add)] {
        for (name, value) in headers.iter().filter(|(name, _)| header::is_authority(name)) {
            if is_set {
                let mut at = at.field("headers");
                return at
                    .field("request")
                    .field(field)
                    .key(name)
                    .error(Problem::new("the authority is set in another place already").hint("keep one of them"));
            }
            is_set = !value.is_empty();
        }
    }
}

// === what happens on the way ===

fn mirrors(route: &HttpRoute, at: &mut At<'_>) {
    if let Some(percent) = route.mirror_percent {
        if percent > 100 {
            at.field("mirrorPercent").error(format!("{percent} is more than 100 percent"));
        }
        at.field("mirrorPercent").warn(
            Problem::new("mirrorPercent is deprecated").hint(format!("write `mirrorPercentage: {{value: {percent}}}`")),
        );
    }
    if let Some(percentage) = &route.mirror_percentage {
        at.field("mirrorPercentage").field("value").check(mirrored(percentage.value));
    }
    if let Some(to) = &route.mirror {
        destination(to, &mut at.field("mirror"));
    }
    for (i, mirror) in route.mirrors.iter().enumerate() {
        self::mirror(mirror, &mut at.field("mirrors").index(i));
    }
}

fn mirror(mirror: &HttpMirrorPolicy, at: &mut At<'_>) {
    match &mirror.destination {
        Some(to) => destination(to, &mut at.field("destination")),
        None => {
            let problem = Problem::new("where copies go is missing");
            return at.field("destination").error(problem.hint("write `destination: {host: HOST}`"));
        }
    }
    if let Some(percentage) = &mirror.percentage {
        at.field("percentage").field("value").check(mirrored(percentage.value));
    }
}

fn mirrored(percent: f64) -> Verdict {
    if (0.0..=100.0).contains(&percent) { Ok(()) } else { Err(format!("{percent} is not between 0 and 100").into()) }
}

fn fault(fault: &HttpFaultInjection, at: &mut At<'_>) {
    if fault.abort.is_none() && fault.delay.is_none() {
        at.error(Problem::new("the fault does nothing").hint("add `delay` or `abort`"));
    }
    if let Some(abort) = &fault.abort {
        let at = &mut at.field("abort");
        if let Some(percentage) = &abort.percentage {
            at.field("percentage").field("value").check(rules::fine_percent(percentage.value));
        }
        match &abort.error_type {
            Some(FaultAbortType::HttpStatus(status)) => at.field("httpStatus").check(http_status(i64::from(*status))),
            Some(FaultAbortType::GrpcStatus(status)) => at.field("grpcStatus").check(grpc_status(status)),
            Some(FaultAbortType::Http2Error(_)) => at
                .field("http2Error")
                .error(Problem::new("faults of HTTP/2 itself cannot be made").hint("use httpStatus or grpcStatus")),
            None => {}
        }
    }
    if let Some(delay) = &fault.delay {
        let at = &mut at.field("delay");
        if let Some(percentage) = &delay.percentage {
            at.field("percentage").field("value").check(rules::fine_percent(percentage.value));
        }
        match &delay.http_delay_type {
            Some(FaultDelayType::FixedDelay(delay)) => at.field("fixedDelay").check(rules::duration(*delay)),
            Some(FaultDelayType::ExponentialDelay(_)) => {
                at.field("exponentialDelay").error(Problem::new("delays are fixed").hint("use fixedDelay"));
            }
            None => {}
        }
    }
}

fn grpc_status(status: &str) -> Verdict {
    if crate::grpc::status_number(status).is_some() {
        return Ok(());
    }
    Err(Problem::new(format!("`{status}` is not a gRPC status")).hint("use a name such as UNAVAILABLE or NOT_FOUND"))
}

/// Shared with the mesh's own retry policy.
pub(in crate::validate) fn retries(retries: &HttpRetry, at: &mut At<'_>) {
    at.field("attempts").check(rules::not_negative(retries.attempts));
    let says_more =
        retries.per_try_timeout.is_some() || !retries.retry_on.is_empty() || retries.retry_remote_localities.is_some();
    if retries.attempts == 0 && says_more {
        at.field("attempts").error(
            Problem::new("without attempts there are no retries, and the rest has no effect")
                .hint("set attempts to 1 or more, or remove the rest"),
        );
    }
    if let Some(timeout) = retries.per_try_timeout {
        at.field("perTryTimeout").check(rules::duration(timeout));
    }
    if !retries.retry_on.is_empty() {
        for condition in retries.retry_on.split(',') {
            at.field("retryOn").check(retry_condition(condition));
        }
    }
    if let Some(backoff) = retries.backoff {
        at.field("backoff").check(rules::duration(backoff));
    }
}

fn retry_condition(condition: &str) -> Verdict {
    if RETRY_ON.contains(&condition) || condition.parse().is_ok_and(is_known_status) {
        return Ok(());
    }
    let problem = Problem::new(format!("`{condition}` is no reason to retry"));
    if condition.trim() != condition {
        return Err(problem.hint("leave out the space"));
    }
    Err(problem.hint(format!("use a status such as 503, or one of {}", RETRY_ON.join(", "))))
}

/// The statuses that HTTP has given a name.
fn is_known_status(status: i64) -> bool {
    matches!(status, 100..=103 | 200..=208 | 226 | 300..=305 | 307 | 308 | 400..=418 | 421..=426 | 428 | 429 | 431 | 451)
        || matches!(status, 500..=508 | 510 | 511)
}

fn cors(policy: &CorsPolicy, at: &mut At<'_>) {
    for (i, origin) in policy.allow_origins.iter().enumerate() {
        let mut at = at.field("allowOrigins");
        let at = &mut at.index(i);
        match origin {
            StringMatch::Exact(text) | StringMatch::Prefix(text) if !text.is_empty() => {}
            StringMatch::Regex(pattern) => at.check(re2::check(pattern)),
            _ => at.error(Problem::new("the origin is empty").hint("write `exact: \"*\"` for any origin")),
        }
    }
    for (i, method) in policy.allow_methods.iter().enumerate() {
        if !CORS_METHODS.contains(&method.as_str()) {
            at.field("allowMethods").index(i).error(
                Problem::new(format!("`{method}` is not an HTTP method")).hint("methods are written in capitals"),
            );
        }
    }
    for (field, names) in [("allowHeaders", &policy.allow_headers), ("exposeHeaders", &policy.expose_headers)] {
        for (i, name) in names.iter().enumerate() {
            at.field(field).index(i).check(header::cors_name(name));
        }
    }
    if let Some(age) = policy.max_age {
        at.field("maxAge").check(rules::duration(age));
        if age.subsec_nanos() > 0 {
            at.field("maxAge").error("browsers are told whole seconds");
        }
    }
}
