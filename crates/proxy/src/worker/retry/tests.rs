use maille_http::h1::{Limits, parse_response};

use super::*;
use crate::config::{RateLimited, RetryOn};

fn response(text: &str) -> ResponseHead {
    let mut head = ResponseHead::default();
    let limits = Limits { head_bytes: 4096, fields: 20, http10: true, ..Limits::ENVOYS };
    parse_response(format!("HTTP/1.1 {text}\r\n\r\n").as_bytes(), &limits, false, &mut head).unwrap().unwrap();
    head
}

fn policy(on: &str) -> RetryPolicy {
    let bits = on.split(',').fold(0, |bits, word| bits | RetryOn::named(word));
    RetryPolicy { on: RetryOn(bits), status_codes: vec![418], ..RetryPolicy::default() }
}

#[test]
fn which_responses_are_tried_again() {
    for (on, answer, again) in [
        ("5xx", "500 x", true),
        ("5xx", "499 x", false),
        ("gateway-error", "500 x", false),
        ("gateway-error", "502 x", true),
        ("gateway-error", "504 x", true),
        ("retriable-4xx", "409 x", true),
        ("retriable-4xx", "404 x", false),
        ("retriable-status-codes", "418 x", true),
        ("5xx", "418 x", false),
        ("cancelled", "200 x\r\ngrpc-status: 1", true),
        ("deadline-exceeded", "200 x\r\ngrpc-status: 4", true),
        ("resource-exhausted", "200 x\r\ngrpc-status: 8", true),
        ("internal", "200 x\r\ngrpc-status: 13", true),
        ("unavailable", "200 x\r\ngrpc-status: 14", true),
        ("unavailable,cancelled", "200 x\r\ngrpc-status: 13", false),
        ("connect-failure,refused-stream,reset", "503 x", false),
        ("5xx", "503 x\r\nx-envoy-ratelimited: true", false),
        ("envoy-ratelimited", "429 x\r\nx-envoy-ratelimited: true", true),
        ("envoy-ratelimited", "429 x", false),
    ] {
        assert_eq!(on_response(&policy(on), &response(answer)), again, "{on}: {answer}");
    }
}

#[test]
fn which_failures_are_tried_again() {
    use Reset::*;
    let all = [Connect, ConnectTimeout, Terminated, Remote, Refused, Gone, Protocol, TryTimeout, TrySilence, Overflow];
    for (on, again) in [
        ("connect-failure", &[Connect, ConnectTimeout][..]),
        ("reset-before-request", &[Connect, ConnectTimeout]),
        ("refused-stream", &[Refused, Gone]),
        ("retriable-4xx", &[]),
        ("5xx", &[Connect, ConnectTimeout, Terminated, Remote, Refused, Gone, Protocol, TryTimeout, TrySilence]),
        (
            "gateway-error",
            &[Connect, ConnectTimeout, Terminated, Remote, Refused, Gone, Protocol, TryTimeout, TrySilence],
        ),
        ("reset", &[Connect, ConnectTimeout, Terminated, Remote, Refused, Gone, Protocol, TryTimeout, TrySilence]),
    ] {
        let found: Vec<_> = all.into_iter().filter(|reset| on_reset(&policy(on), *reset)).collect();
        assert_eq!(found, again, "{on}");
    }
}

#[test]
fn pauses_double_up_to_a_bound() {
    let policy = policy("5xx");
    for (retries, most) in [(0, 25), (1, 50), (2, 100), (4, 250), (40, 250)] {
        let longest = (0..500).map(|_| pause(&policy, retries)).max().unwrap();
        assert!(longest <= Duration::from_millis(most) && longest > Duration::from_millis(most * 8 / 10), "{retries}");
    }
}

#[test]
fn pauses_that_responses_ask_for() {
    let name = |name: &str| maille_http::Name::new(name);
    let headers = vec![(name("retry-after"), ResetFormat::Seconds), (name("x-reset"), ResetFormat::UnixTimestamp)];
    let listens =
        RetryPolicy { rate_limited: Some(RateLimited { headers, max: Duration::from_secs(100) }), ..policy("5xx") };
    for (answer, seconds) in [
        ("503 x\r\nretry-after: 10", Some(10)),
        ("503 x\r\nx-reset: 1020", Some(20)),
        ("503 x\r\nx-reset: 1020\r\nretry-after: 10", Some(10)),
        ("503 x\r\nretry-after: 101\r\nx-reset: 1020", Some(20)),
        ("503 x\r\nx-reset: 999", None),
        ("503 x\r\nretry-after: soon", None),
        ("503 x\r\nretry-after: 0", None),
        ("503 x", None),
    ] {
        let asked = asked_pause(&listens, &response(answer), 1000);
        match (asked, seconds) {
            (None, None) => {}
            (Some(asked), Some(seconds)) => {
                let least = Duration::from_secs(seconds);
                assert!(asked >= least && asked <= least.mul_f64(1.5), "{answer}: {asked:?}");
            }
            other => panic!("{answer}: {other:?}"),
        }
    }
    assert_eq!(asked_pause(&policy("5xx"), &response("503 x\r\nretry-after: 10"), 1000), None);
}

#[test]
fn priorities_that_were_tried_come_last() {
    let ok = |priority| (priority, crate::config::Health::Healthy, 1, None);
    let set = crate::upstream::tests::set(|_| {}, &[ok(0), ok(1), ok(2)]);
    let mut priorities = Priorities::new(2);
    let mut seen = Vec::new();
    for _ in 0..7 {
        let loads = priorities.loads(&set).unwrap_or(&set.loads).clone();
        let (priority, _) = loads.choose(42);
        seen.push(priority);
        priorities.tried(priority as u32);
    }
    assert_eq!(seen, [0, 0, 1, 1, 2, 2, 0], "two tries each, then from the beginning");
}
