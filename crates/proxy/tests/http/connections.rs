//! Connections: kept, given up, upgraded, drained.

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use maille_xds::types::route;

use crate::support::{Proxy, Server, Wire};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Sends a request and answers it on that connection to the server.
fn round(client: &mut Wire, upstream: &mut Wire) {
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    upstream.head();
    upstream.send(OK);
    assert!(client.until("ok").starts_with("HTTP/1.1 200 "));
}

#[test]
fn an_upstream_connection_serves_one_client_after_the_other() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(OK);
    client.until("ok");
    drop(client);
    for _ in 0..3 {
        round(&mut proxy.connect(), &mut upstream);
    }
    assert!(server.is_quiet());
}

#[test]
fn a_connection_that_the_server_closed_is_not_used() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let mut client = proxy.connect();
    for _ in 0..5 {
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut upstream = server.accept();
        upstream.head();
        upstream.send(OK);
        client.until("ok");
        drop(upstream);
    }
}

/// The server closes just as the request comes: nobody sees it.
#[test]
fn a_request_on_a_connection_that_dies_is_not_sent_again_unasked() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let mut client = proxy.connect();
    client.send("GET /1 HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(OK);
    client.until("ok");
    client.send("GET /2 HTTP/1.1\r\nHost: x\r\n\r\n");
    upstream.head();
    drop(upstream);
    assert!(client.head().starts_with("HTTP/1.1 503 "));
    assert!(server.is_quiet());
}

/// Part of a body may have been acted upon: without a policy that says so nothing is sent again.
#[test]
fn a_body_that_is_still_coming_is_not_sent_again_unasked() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let mut client = proxy.connect();
    client.send("GET /1 HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(OK);
    client.until("ok");
    client.send("PUT /2 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    upstream.head();
    drop(upstream);
    assert!(client.head().starts_with("HTTP/1.1 503 "));
}

/// With all of its body, however much of that the dead connection has had.
#[test]
fn a_body_is_sent_again_whole() {
    let server = Server::start();
    let proxy = Proxy::with(&server, |_, route| {
        let Some(route::route::Action::Route(action)) = &mut route.action else { unreachable!() };
        action.retry_policy = Some(route::RetryPolicy { retry_on: "reset".into(), ..Default::default() });
    });
    let mut client = proxy.connect();
    client.send("GET /1 HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(OK);
    client.until("ok");
    client.send("PUT /2 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    upstream.head();
    client.send("5\r\nfirst\r\n");
    upstream.until("first\r\n");
    drop(upstream);
    let mut fresh = server.accept();
    fresh.head();
    client.send("4\r\nlast\r\n0\r\n\r\n");
    assert_eq!(fresh.until("0\r\n\r\n"), "5\r\nfirst\r\n4\r\nlast\r\n0\r\n\r\n");
    fresh.send(OK);
    assert!(client.until("ok").starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_client_that_goes_takes_its_request_with_it() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut upstream = server.accept();
    upstream.head();
    drop(client);
    assert!(upstream.rest().is_empty());
}

#[test]
fn what_is_not_http_is_the_servers_fault() {
    for answer in ["SSH-2.0-x\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"] {
        let server = Server::start();
        let proxy = Proxy::start(&server);
        let mut client = proxy.connect();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut upstream = server.accept();
        upstream.head();
        upstream.send(answer);
        assert!(client.until("protocol error").starts_with("HTTP/1.1 502 "), "{answer:?}");
    }
}

#[test]
fn an_upgrade_becomes_a_tunnel_only_when_the_server_agrees() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let ask = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut client = proxy.connect();
    // What comes before the server's answer waits for it.
    client.send(ask).send("early");
    let mut upstream = server.accept();
    let head = upstream.head();
    assert!(head.contains("connection: Upgrade\r\n") && head.contains("upgrade: websocket\r\n"), "{head}");
    upstream.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello");
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("upgrade: websocket\r\n"), "{head}");
    assert_eq!(client.exactly(5), b"hello");
    assert_eq!(upstream.exactly(5), b"early");
    client.send("ping");
    assert_eq!(upstream.exactly(4), b"ping");
    drop(upstream);
    assert!(client.rest().is_empty());

    let mut client = proxy.connect();
    client.send(ask).send("GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut upstream = server.accept();
    upstream.head();
    upstream.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 403 ") && head.contains("connection: close\r\n"), "{head}");
    assert!(client.rest().is_empty() && server.is_quiet(), "what follows is neither a request nor goes on");

    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 403 "));
}

/// Nobody may be left waiting for a body that the other side takes for the next request.
#[test]
fn an_upgrade_has_no_body() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    for framing in ["Content-Length: 40\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n28\r\n"] {
        let mut client = proxy.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{framing}"));
        client.send("GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n");
        let all = String::from_utf8(client.rest()).unwrap();
        assert!(all.starts_with("HTTP/1.1 400 ") && all.matches("HTTP/1.1 ").count() == 1, "{all}");
    }
    assert!(server.is_quiet());
}

#[test]
fn an_offer_of_http2_is_not_taken_up() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n");
    client.send("HTTP2-Settings: AAMAAABk\r\nContent-Length: 2\r\n\r\nhi");
    let mut upstream = server.accept();
    let head = upstream.until("hi");
    assert!(!head.contains("upgrade") && !head.contains("http2-settings"), "{head}");
    upstream.send(OK);
    assert!(client.until("ok").starts_with("HTTP/1.1 200 "));
}

/// Who asks and asks, and never reads the answers, is not waited for longer than anyone else who does nothing.
#[test]
fn a_client_that_never_reads_is_let_go() {
    let server = Server::start();
    let proxy = Proxy::with(&server, |manager, route| {
        manager.stream_idle_timeout = Some(maille_xds::types::Duration { seconds: 1, nanos: 0 });
        manager.server_name = "x".repeat(4000);
        let never = route::route_match::PathSpecifier::Prefix("/never".into());
        route.r#match = Some(route::RouteMatch { path_specifier: Some(never), ..Default::default() });
    });
    let mut client = proxy.connect().0;
    client.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    let requests = "GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
    let error = loop {
        if let Err(error) = client.write_all(requests.as_bytes()) {
            break error;
        }
    };
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
}

#[test]
fn each_direction_of_a_connection_ends_on_its_own() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let mut client = Wire::new(TcpStream::connect(proxy.tcp).unwrap());
    let mut upstream = server.accept();
    upstream.send("server first");
    client.until("server first");
    client.send("question");
    client.0.shutdown(Shutdown::Write).unwrap();
    assert_eq!(upstream.rest(), b"question");
    upstream.send("answer");
    drop(upstream);
    assert_eq!(client.rest(), b"answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_lets_requests_finish() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let (mut idle, mut busy) = (proxy.connect(), proxy.connect());
    busy.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut upstream = server.accept();
    upstream.head();
    let Proxy { http, handle, .. } = proxy;
    let drained = tokio::spawn(handle.drain());
    let answered = tokio::task::spawn_blocking(move || {
        assert!(idle.rest().is_empty(), "a connection without a request is closed");
        while TcpStream::connect(http).is_ok() {}
        upstream.send(OK);
        let head = busy.head();
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("connection: close\r\n"), "{head}");
        assert_eq!(busy.rest(), b"ok");
    });
    answered.await.unwrap();
    drained.await.unwrap();
}
