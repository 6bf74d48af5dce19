//! What holds for one request: the route's timeouts and retries, and what the request says about them itself.

use std::borrow::Cow;
use std::time::Duration;

use maille_http::{HeaderId, RequestHead};

use crate::config::{HeaderMatcher, RetryOn, RetryPolicy, ValueMatcher};
use crate::worker::timers::Limits;

/// What holds for one request.
#[derive(Debug)]
pub(crate) struct Terms<'p> {
    policy: Option<Cow<'p, RetryPolicy>>,
    /// How long the whole of it may take.
    pub(crate) timeout: Option<Duration>,
    /// How long one try may take.
    pub(crate) per_try: Option<Duration>,
    /// How long one try may be without activity.
    pub(crate) per_try_idle: Option<Duration>,
    /// What a request says a stream to the upstream may take (`Some(None)`: as long as it likes).
    pub(crate) stream: Option<Option<Duration>>,
    /// What the client gets when it has taken too long.
    pub(crate) timeout_status: u16,
    /// Whether the upstream is told the limit in `grpc-timeout`.
    pub(crate) tell_grpc: bool,
}

impl<'p> Terms<'p> {
    /// `policy` and `limits` are what the route has and allows. The request's own headers count when it comes from inside; they end here.
    pub(crate) fn new(policy: Option<&'p RetryPolicy>, limits: &Limits, head: &mut RequestHead) -> Terms<'p> {
        let mut terms = Terms {
            policy: policy.map(Cow::Borrowed),
            timeout: limits.route,
            per_try: policy.and_then(|policy| policy.per_try_timeout),
            per_try_idle: policy.and_then(|policy| policy.per_try_idle_timeout),
            stream: millis(head, HeaderId::XEnvoyUpstreamStreamDurationMs),
            timeout_status: 504,
            tell_grpc: limits.tell_grpc,
        };
        // Whoever said them, they end here (Envoy: router.cc).
        head.headers.remove_id(HeaderId::XEnvoyUpstreamStreamDurationMs);
        head.headers.remove_id(HeaderId::XEnvoyUpstreamAltStatName);
        // From outside none of the others gets this far.
        if head.headers.has(HeaderId::XEnvoyInternal) {
            terms.hear(head);
        }
        if terms.policy.as_ref().is_some_and(|policy| policy.on == RetryOn::default() || !is_for(policy, head)) {
            terms.policy = None;
        }
        if let (Some(all), Some(one)) = (terms.timeout, terms.per_try)
            && one >= all
        {
            terms.per_try = None;
        }
        terms
    }

    /// When the request is tried again, if ever.
    pub(crate) fn retry(&self) -> Option<&RetryPolicy> {
        self.policy.as_deref()
    }

    /// How long an upstream has got for the request.
    pub(crate) fn expected(&self) -> Option<Duration> {
        self.per_try.or(self.timeout)
    }

    fn hear(&mut self, head: &mut RequestHead) {
        use HeaderId::*;
        if let Some(timeout) = millis(head, XEnvoyUpstreamRqTimeoutMs) {
            self.timeout = timeout;
        }
        if let Some(per_try) = millis(head, XEnvoyUpstreamRqPerTryTimeoutMs) {
            self.per_try = per_try;
        }
        if head.headers.has(XEnvoyUpstreamRqTimeoutAltResponse) {
            self.timeout_status = 204;
        }
        const ABOUT_RETRIES: [HeaderId; 5] = [
            XEnvoyRetryOn,
            XEnvoyRetryGrpcOn,
            XEnvoyMaxRetries,
            XEnvoyRetriableStatusCodes,
            XEnvoyRetriableHeaderNames,
        ];
        if ABOUT_RETRIES.into_iter().any(|id| head.headers.has(id)) {
            self.hear_about_retries(head);
        }
        for id in ABOUT_RETRIES {
            head.headers.remove_id(id);
        }
        for id in [
            XEnvoyUpstreamRqTimeoutMs,
            XEnvoyUpstreamRqPerTryTimeoutMs,
            XEnvoyUpstreamRqTimeoutAltResponse,
            XEnvoyHedgeOnPerTryTimeout,
        ] {
            head.headers.remove_id(id);
        }
    }

    fn hear_about_retries(&mut self, head: &RequestHead) {
        use HeaderId::*;
        let policy = self.policy.get_or_insert(Cow::Owned(RetryPolicy::default())).to_mut();
        let words = |id: HeaderId| {
            let value = head.headers.get(id).and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default();
            value.split(',').map(str::trim).filter(|word| !word.is_empty())
        };
        for word in words(XEnvoyRetryOn) {
            policy.on.0 |= RetryOn::named(word) & !RetryOn::GRPC;
        }
        for word in words(XEnvoyRetryGrpcOn) {
            policy.on.0 |= RetryOn::named(word) & RetryOn::GRPC;
        }
        if let Some(max) = head.headers.get(XEnvoyMaxRetries).and_then(number) {
            policy.max = u32::try_from(max).unwrap_or(u32::MAX);
        }
        policy.status_codes.extend(words(XEnvoyRetriableStatusCodes).filter_map(|word| word.parse::<u32>().ok()));
        policy.headers.extend(words(XEnvoyRetriableHeaderNames).map(|name| HeaderMatcher {
            name: maille_http::Name::new(name),
            value: ValueMatcher::Present(true),
            invert: false,
            missing_as_empty: false,
        }));
    }
}

/// Whether a policy is for a request at all.
fn is_for(policy: &RetryPolicy, request: &RequestHead) -> bool {
    policy.request_headers.is_empty() || policy.request_headers.iter().any(|matcher| matcher.matches(request))
}

/// A time in milliseconds; none is no limit.
fn millis(head: &RequestHead, id: HeaderId) -> Option<Option<Duration>> {
    let millis = number(head.headers.get(id)?)?;
    Some(Some(Duration::from_millis(millis)).filter(|time| !time.is_zero()))
}

fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}
