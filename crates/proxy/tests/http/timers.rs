//! What takes too long, and from when on that is counted.

use std::thread::sleep;
use std::time::Duration;

use maille_xds::types;
use maille_xds::types::route::route::Action;
use maille_xds::types::route::{self, RetryPolicy, route_action::MaxStreamDuration};

use crate::support::{Proxy, Server};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn millis(n: i32) -> Option<types::Duration> {
    Some(types::Duration { seconds: 0, nanos: n * 1_000_000 })
}

fn action(route: &mut route::Route) -> &mut route::RouteAction {
    match &mut route.action {
        Some(Action::Route(action)) => action,
        other => unreachable!("{other:?}"),
    }
}

/// A slow client is not the server's fault.
#[test]
fn the_routes_time_runs_from_the_requests_end() {
    let server = Server::start();
    let proxy = Proxy::with(&server, |_, route| {
        action(route).timeout = millis(300);
        action(route).retry_policy =
            Some(RetryPolicy { retry_on: "5xx".into(), per_try_timeout: millis(200), ..Default::default() });
    });
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n");
    let mut upstream = server.accept();
    upstream.head();
    for byte in ["a", "b", "c"] {
        sleep(Duration::from_millis(200));
        client.send(byte);
    }
    upstream.until("abc");
    upstream.send(OK);
    assert!(client.until("ok").starts_with("HTTP/1.1 200 "));
    // From then on it does.
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
    upstream.until("abc");
    assert!(client.until("upstream request timeout").starts_with("HTTP/1.1 504 "));
}

#[test]
fn a_request_that_does_not_come_whole() {
    let server = Server::start();
    let proxy = Proxy::with(&server, |manager, _| manager.request_timeout = millis(200));
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na");
    let answer = client.until("request timeout");
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("connection: close\r\n"), "{answer}");
    // Whose answer takes long is another matter.
    let mut client = proxy.connect();
    server.accept();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
    let mut upstream = server.accept();
    upstream.until("abc");
    sleep(Duration::from_millis(400));
    upstream.send(OK);
    assert!(client.until("ok").starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_stream_that_lasts_too_long() {
    let limit = |setup: &mut crate::support::Setup, which: &str| match which {
        "route" => {
            action(&mut setup.rule).max_stream_duration =
                Some(MaxStreamDuration { max_stream_duration: millis(200), ..Default::default() });
        }
        "manager" => {
            let options = setup.manager.common_http_protocol_options.get_or_insert_default();
            options.max_stream_duration = millis(200);
        }
        _ => {
            #[allow(deprecated, reason = "the short way to say it")]
            let options = setup.cluster.common_http_protocol_options.get_or_insert_default();
            options.max_stream_duration = millis(200);
        }
    };
    for (which, said) in [
        ("route", "downstream duration timeout"),
        ("manager", "downstream duration timeout"),
        ("cluster", "upstream max stream duration reached"),
    ] {
        let server = Server::start();
        let proxy = Proxy::build(server.address, |setup| limit(setup, which));
        let mut client = proxy.connect();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut upstream = server.accept();
        upstream.head();
        assert!(client.until(said).starts_with("HTTP/1.1 504 "), "{which}");
        // A response that has begun is cut off.
        let mut client = proxy.connect();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut upstream = server.accept();
        upstream.head();
        upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nbegin");
        assert!(client.until("begin").starts_with("HTTP/1.1 200 "));
        assert!(client.rest().is_empty(), "{which}");
    }
}

#[test]
fn who_waits_for_a_continue_gets_one_here() {
    let server = Server::start();
    let proxy = Proxy::with(&server, |manager, _| manager.proxy_100_continue = false);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello");
    let mut upstream = server.accept();
    assert!(!upstream.until("hello").contains("expect"));
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n").send(OK);
    assert!(client.until("ok").starts_with("HTTP/1.1 200 "), "only one");
}

#[test]
fn interim_responses_come_to_an_end() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut upstream = server.accept();
    upstream.head();
    upstream.send("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000));
    assert!(client.until("protocol error").contains("HTTP/1.1 502 "));
}
