//! Retries and timeouts: what the route says, and what requests from inside say themselves.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use maille_xds::types::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use maille_xds::types::route::retry_policy::{
    RateLimitedRetryBackOff, ResetHeader, RetryPriority, retry_priority::ConfigType,
};
use maille_xds::types::route::{HeaderMatcher, RetryPolicy};
use maille_xds::types::{self, UInt32Value};

use crate::support::{Backend, Proxy};

fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

fn retries(on: &str, most: u32) -> RetryPolicy {
    RetryPolicy { retry_on: on.into(), num_retries: number(most), ..RetryPolicy::default() }
}

/// What makes a request one from inside the mesh.
const INSIDE: &str = "x-forwarded-for: 10.0.0.1\r\n";

#[test]
fn requests_from_inside_say_how_often_they_are_tried() {
    // (the route's policy, headers, status of the backend) -> requests that reach it
    for (policy, headers, status, requests) in [
        (None, "", 503, 1),
        (None, "x-envoy-retry-on: 5xx\r\n", 503, 2),
        (None, "x-envoy-retry-on: 5xx\r\nx-envoy-max-retries: 3\r\n", 503, 4),
        (None, "x-envoy-retry-on: retriable-4xx\r\n", 503, 1),
        (None, "x-envoy-retry-grpc-on: 5xx\r\n", 503, 1),
        (Some(retries("5xx", 2)), "", 503, 3),
        (Some(retries("5xx", 2)), "x-envoy-max-retries: 0\r\n", 503, 1),
        (Some(retries("", 2)), "x-envoy-retry-on: gateway-error\r\n", 503, 3),
        (Some(retries("retriable-status-codes", 1)), "x-envoy-retriable-status-codes: 404, 418\r\n", 418, 2),
        (Some(retries("retriable-headers", 1)), "x-envoy-retriable-header-names: content-length\r\n", 200, 2),
        (
            Some(RetryPolicy {
                retriable_request_headers: vec![HeaderMatcher { name: "x-again".into(), ..Default::default() }],
                ..retries("5xx", 1)
            }),
            "",
            503,
            1,
        ),
    ] {
        let backend = Backend::start();
        backend.answer_with(status);
        let proxy = Proxy::start(&[&backend], |config| config.route.retry_policy = policy.clone());
        let answer = proxy.send_with("/", &format!("{INSIDE}{headers}")).answer();
        assert_eq!(answer.status, status, "{headers}");
        assert_eq!(backend.see(|state| state.requests), requests, "{policy:?} {headers}");
        let heads = backend.see(|state| state.last_head.join("\n"));
        assert!(!heads.contains("x-envoy-retr") && !heads.contains("x-envoy-max-retries"), "{heads}");
    }
}

#[test]
fn requests_from_outside_say_nothing() {
    let backend = Backend::start();
    backend.answer_with(503);
    let proxy = Proxy::start(&[&backend], |_| {});
    let outside = "x-forwarded-for: 8.8.8.8\r\nx-envoy-retry-on: 5xx\r\nx-envoy-upstream-rq-timeout-ms: 1\r\n";
    assert_eq!(proxy.send_with("/", outside).answer().status, 503);
    assert_eq!(backend.see(|state| state.requests), 1);
}

#[test]
fn how_long_a_request_and_a_try_may_take() {
    let millis = |ms: i32| Some(types::Duration { seconds: 0, nanos: ms * 1_000_000 });
    let per_try = RetryPolicy { per_try_timeout: millis(50), ..retries("", 1) };
    let again = RetryPolicy { per_try_timeout: millis(50), ..retries("5xx", 1) };
    let silent = RetryPolicy { per_try_idle_timeout: millis(50), ..retries("reset", 1) };
    let too_long = RetryPolicy { per_try_timeout: Some(types::Duration { seconds: 90, nanos: 0 }), ..retries("", 1) };
    for (what, policy, timeout, headers, tries, status, details) in [
        ("a timeout of its own", None, None, "x-envoy-upstream-rq-timeout-ms: 50\r\n", 1, 504, "UT response_timeout"),
        (
            "answered without content",
            None,
            millis(50),
            "x-envoy-upstream-rq-timeout-alt-response: 1\r\n",
            1,
            204,
            "UT response_timeout",
        ),
        ("a try's timeout", Some(per_try), None, "", 1, 504, "UT upstream_per_try_timeout"),
        ("tries until there are no more", Some(again), None, "", 2, 504, "UT,URX upstream_per_try_timeout"),
        (
            "a try's timeout of its own",
            Some(retries("5xx", 1)),
            None,
            "x-envoy-upstream-rq-per-try-timeout-ms: 50\r\n",
            2,
            504,
            "UT,URX upstream_per_try_timeout",
        ),
        ("silence", Some(silent), None, "", 2, 504, "UT,URX upstream_per_try_idle_timeout"),
        ("a try may not take longer than all of it", Some(too_long), millis(50), "", 1, 504, "UT response_timeout"),
    ] {
        let backend = Backend::start();
        let proxy = Proxy::start(&[&backend], |config| {
            config.held.retry_policy = policy;
            config.held.timeout = timeout.or(config.held.timeout);
        });
        let answer = proxy.send_with("/held", &format!("{INSIDE}{headers}")).answer();
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (status, if status == 504 { "upstream request timeout" } else { "" }),
            "{what}"
        );
        assert!(proxy.logged("/held").starts_with(details), "{what}: {}", proxy.logged("/held"));
        assert_eq!(backend.see(|state| state.requests), tries, "{what}");
        backend.release();
    }
}

#[test]
fn an_answer_that_asks_for_a_pause_gets_it() {
    let backend = Backend::start();
    backend.answer_with(503);
    let reset = ResetHeader { name: "content-length".into(), format: 0 };
    let limited = RateLimitedRetryBackOff { reset_headers: vec![reset], max_interval: None };
    let policy = RetryPolicy { rate_limited_retry_back_off: Some(limited), ..retries("5xx", 1) };
    let proxy = Proxy::start(&[&backend], |config| config.route.retry_policy = Some(policy));
    // The backend's bodies have two bytes: it asks for two seconds.
    let mut sent = proxy.send("/");
    backend.wait_for_requests(1);
    assert!(sent.answer_within(std::time::Duration::from_millis(1500)).is_none());
    assert_eq!(backend.see(|state| state.requests), 1, "not yet");
    assert_eq!(sent.answer().status, 503);
    assert_eq!(backend.see(|state| state.requests), 2);
}

#[test]
fn the_next_try_goes_to_another_priority() {
    let (first, second) = (Backend::start(), Backend::start());
    first.answer_with(503);
    let config = types::any(&PreviousPrioritiesConfig { update_frequency: 1 });
    let priority = RetryPriority {
        name: "envoy.retry_priorities.previous_priorities".into(),
        config_type: Some(ConfigType::TypedConfig(config)),
    };
    let policy = RetryPolicy { retry_priority: Some(priority), ..retries("5xx", 1) };
    let proxy = Proxy::start(&[&first, &second], |config| {
        config.route.retry_policy = Some(policy);
        let hosts = &mut config.cluster.load_assignment.as_mut().unwrap().endpoints;
        let mut other = hosts[0].clone();
        other.lb_endpoints.remove(0);
        other.priority = 1;
        hosts[0].lb_endpoints.truncate(1);
        hosts.push(other);
    });
    for _ in 0..5 {
        assert_eq!(proxy.get("/").status, 200);
    }
    assert_eq!(first.see(|state| state.requests), 5);
    assert_eq!(second.see(|state| state.requests), 5);
}

/// A server that reads a chunked request to its end, then says nothing (`answers[n]` is false) or 200; and what each connection brought.
fn server_of_chunks(answers: &'static [bool]) -> (Backend, mpsc::Receiver<String>) {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let backend = Backend::at(socket.local_addr().unwrap());
    let (seen_in, seen) = mpsc::channel();
    std::thread::spawn(move || {
        for &answers in answers {
            let (mut stream, _) = socket.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut all = String::new();
            let mut some = [0; 4096];
            while !all.ends_with("\r\n0\r\n\r\n") {
                match stream.read(&mut some) {
                    Ok(n) if n > 0 => all.push_str(&String::from_utf8_lossy(&some[..n])),
                    _ => break,
                }
            }
            // Nobody may be listening any more.
            let _ = seen_in.send(all);
            if answers {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
            }
        }
    });
    (backend, seen)
}

/// The data of a chunked message.
fn data(message: &str) -> String {
    let mut rest = message.split_once("\r\n\r\n").unwrap().1;
    let mut data = String::new();
    while let Some((size, more)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        data.push_str(&more[..size]);
        rest = more[size..].strip_prefix("\r\n").unwrap();
    }
    data
}

#[test]
fn a_chunked_body_goes_out_whole_at_each_try() {
    let (backend, seen) = server_of_chunks(&[false, false, true]);
    let proxy = Proxy::start(&[&backend], |config| config.route.retry_policy = Some(retries("5xx", 2)));
    let mut stream = TcpStream::connect(proxy.http()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n").unwrap();
    let body = "x".repeat(10_000);
    // So late that it is streamed.
    for end in ["\r\n", "\r\n0\r\n\r\n"] {
        std::thread::sleep(Duration::from_millis(30));
        stream.write_all(format!("{:x}\r\n{body}{end}", body.len()).as_bytes()).unwrap();
    }
    for attempt in 1..=3 {
        let request = seen.recv_timeout(Duration::from_secs(20)).expect("a request");
        assert!(request.ends_with("\r\n0\r\n\r\n"), "the end of attempt {attempt} is missing");
        assert_eq!(data(&request), body.repeat(2), "attempt {attempt}");
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}
