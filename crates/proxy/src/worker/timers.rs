//! What limits how long a request may take.

use std::pin::Pin;
use std::task::Context;
use std::time::{Duration, Instant};

use maille_http::{HeaderId, RequestHead};
use tokio::time::{Sleep, sleep, sleep_until};

use super::http::Client;
use super::reply::is_grpc;
use super::upstream_request::Lost;
use crate::config::{Forward, HttpManager};

/// The limits of one request, and how far each has run. Those that are not set cost nothing.
#[derive(Default)]
pub(crate) struct Timers {
    /// For the response, once the request has come whole.
    route: Timer,
    /// For one try, once it has a connection and the request has come whole.
    attempt: Timer,
    /// For a try to be without activity.
    attempt_idle: Timer,
    /// For the stream to the host, once there is one.
    upstream: Timer,
    upstream_said: Option<Option<Duration>>,
    /// For the stream as such.
    stream: Timer,
    /// For the request to come whole.
    request: Timer,
    /// Whether the try has a connection.
    connected: bool,
    received: bool,
    /// When the request had come whole, if it had not at once.
    pub(crate) received_at: Option<Instant>,
}

#[derive(Default)]
struct Timer {
    limit: Option<Duration>,
    running: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    fn start(&mut self) {
        if self.running.is_none() {
            self.running = self.limit.map(|limit| Box::pin(sleep(limit)));
        }
    }

    /// Starts to run as if it had at a time that has passed.
    fn start_from(&mut self, then: Instant) {
        self.running = self.limit.map(|limit| Box::pin(sleep_until((then + limit).into())));
    }

    /// Starts anew, if it runs.
    fn rewind(&mut self, cx: &mut Context<'_>) {
        if let (Some(limit), Some(timer)) = (self.limit, &mut self.running) {
            timer.as_mut().reset(tokio::time::Instant::now() + limit);
            let _ = timer.as_mut().poll(cx);
        }
    }

    #[inline]
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        self.running.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready())
    }
}

impl Timers {
    /// For a request that began at `start`.
    pub(crate) fn new(
        manager: &HttpManager,
        route: Option<Duration>,
        stream: Option<Duration>,
        start: Instant,
    ) -> Timers {
        let timer = |limit| Timer { limit, running: None };
        let mut timers = Timers {
            route: timer(route),
            stream: timer(stream),
            request: timer(manager.timeouts.request),
            ..Timers::default()
        };
        timers.stream.start_from(start);
        timers.request.start_from(start);
        timers
    }

    /// A try begins: it may last this long once it has a connection, and be without activity for so long.
    pub(crate) fn try_begins(&mut self, limit: Option<Duration>, idle: Option<Duration>) {
        self.attempt = Timer { limit, running: None };
        self.attempt_idle = Timer { limit: idle, running: None };
        self.upstream = Timer::default();
        self.connected = false;
    }

    /// What the request itself says a stream to the upstream may take, if it does.
    pub(crate) fn limit_upstream(&mut self, said: Option<Option<Duration>>) {
        self.upstream_said = said;
    }

    /// The try has a connection, on which it may use a stream for this long, unless the request says otherwise.
    pub(crate) fn try_connected(&mut self, stream: Option<Duration>) {
        self.connected = true;
        self.upstream.limit = self.upstream_said.unwrap_or(stream);
        self.upstream.start();
        self.attempt_idle.start();
        if self.received {
            self.attempt.start();
        }
    }

    /// The try has an answer that counts.
    pub(crate) fn try_answered(&mut self) {
        self.attempt = Timer::default();
    }

    /// Whether the request has come whole.
    pub(crate) fn is_received(&self) -> bool {
        self.received
    }

    /// What is over, if anything is. `received`: the request has come whole.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, client: &Client, received: bool) -> Option<Lost> {
        if received {
            self.receive();
        }
        if client.registered.slot.is_shed() {
            return Some(Lost::Overload);
        }
        if client.is_silent(cx) {
            return Some(Lost::Silence);
        }
        if self.route.is_over(cx) {
            return Some(Lost::Timeout);
        }
        if self.attempt.is_over(cx) {
            return Some(Lost::TryTimeout);
        }
        if self.attempt_idle.is_over(cx) {
            return Some(Lost::TrySilence);
        }
        // Being asked is activity: nobody asks who was not woken.
        self.attempt_idle.rewind(cx);
        if self.stream.is_over(cx) {
            return Some(Lost::StreamTimeout);
        }
        if self.upstream.is_over(cx) {
            return Some(Lost::UpstreamTimeout);
        }
        self.request.is_over(cx).then_some(Lost::RequestTimeout)
    }

    /// The request has come whole.
    pub(crate) fn receive(&mut self) {
        if std::mem::replace(&mut self.received, true) {
            return;
        }
        self.request.running = None;
        self.route.start();
        if self.connected {
            self.attempt.start();
            self.received_at = Some(Instant::now());
        }
    }
}

/// How long a response and a stream may take, by route and request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// From the request's end to the response's.
    pub(crate) route: Option<Duration>,
    /// The stream as a whole.
    pub(crate) stream: Option<Duration>,
    /// Whether the upstream is told the limit in `grpc-timeout`.
    pub(crate) tell_grpc: bool,
}

impl Limits {
    /// What a route allows a request. gRPC's clients may say themselves how long they wait, where the route lets them.
    pub(crate) fn of(manager: &HttpManager, forward: &Forward, head: &RequestHead) -> Limits {
        let mut limits = Limits {
            route: forward.timeout,
            stream: forward.max_stream_duration.unwrap_or(manager.timeouts.max_stream_duration),
            tell_grpc: false,
        };
        let Some(rule) = &forward.grpc_timeout else { return limits };
        let asked = head.headers.get(HeaderId::GrpcTimeout).and_then(grpc_timeout);
        if rule.stream {
            if let Some(asked) = asked {
                let capped = if rule.max.is_zero() { asked } else { asked.min(rule.max) };
                limits.stream = Some(capped.saturating_sub(rule.offset));
            }
        } else if is_grpc(head) {
            // Zero is for ever.
            let mut timeout = asked.unwrap_or_default();
            if rule.offset < timeout {
                timeout -= rule.offset;
            }
            if !rule.max.is_zero() && (timeout.is_zero() || timeout > rule.max) {
                timeout = rule.max;
            }
            limits.route = Some(timeout).filter(|timeout| !timeout.is_zero());
            limits.tell_grpc = true;
        }
        limits
    }
}

/// The most that `grpc-timeout` may say, of whatever unit.
const MOST: u64 = 99_999_999;

/// What `grpc-timeout` says, in whole milliseconds.
pub(crate) fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n: u64 = std::str::from_utf8(digits).ok()?.parse().ok().filter(|n| *n <= MOST)?;
    let millis = match unit {
        b'H' => n * 3_600_000,
        b'M' => n * 60_000,
        b'S' => n * 1000,
        b'm' => n,
        b'u' => n.div_ceil(1000),
        b'n' => n.div_ceil(1_000_000),
        _ => return None,
    };
    Some(Duration::from_millis(millis))
}

/// A duration as `grpc-timeout` says it.
pub(crate) fn to_grpc_timeout(timeout: Duration) -> String {
    let mut n = timeout.as_millis();
    for (unit, next) in [('m', 1000), ('S', 60), ('M', 60)] {
        if n <= u128::from(MOST) {
            return format!("{n}{unit}");
        }
        n /= next;
    }
    format!("{}H", n.min(u128::from(MOST)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grpc_timeout_says() {
        for (text, millis) in [
            ("1H", Some(3_600_000)),
            ("2M", Some(120_000)),
            ("3S", Some(3000)),
            ("4m", Some(4)),
            ("1u", Some(1)),
            ("1001u", Some(2)),
            ("1n", Some(1)),
            ("0m", Some(0)),
            ("99999999m", Some(99_999_999)),
            ("100000000m", None),
            ("", None),
            ("m", None),
            ("-1m", None),
            ("1x", None),
            ("1 m", None),
        ] {
            assert_eq!(grpc_timeout(text.as_bytes()), millis.map(Duration::from_millis), "{text}");
        }
        for (millis, text) in [(5, "5m"), (99_999_999, "99999999m"), (100_000_000, "100000S"), (u64::MAX, "99999999H")]
        {
            assert_eq!(to_grpc_timeout(Duration::from_millis(millis)), text);
        }
    }
}
