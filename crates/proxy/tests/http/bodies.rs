//! Bodies: every byte arrives, none too many, and nobody can tell two messages apart differently than we do.

use std::thread;

use maille_xds::types::route;

use crate::support::{Proxy, Server};

const BIG: usize = 1 << 20;

#[test]
fn a_large_body_each_way() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let mut client = proxy.connect();
    let sender = {
        let mut stream = client.0.try_clone().unwrap();
        thread::spawn(move || {
            use std::io::Write;
            let head = format!("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: {BIG}\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&vec![b'q'; BIG]).unwrap();
        })
    };
    let mut upstream = server.accept();
    assert!(upstream.head().contains(&format!("content-length: {BIG}\r\n")));
    assert_eq!(upstream.exactly(BIG), vec![b'q'; BIG]);
    sender.join().unwrap();
    let answer = thread::spawn(move || {
        upstream.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n")).send(vec![b'a'; BIG]);
        upstream
    });
    assert!(client.head().starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(client.exactly(BIG), vec![b'a'; BIG]);
    // Both connections go on.
    let mut upstream = answer.join().unwrap();
    client.send("GET /b HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(upstream.head().starts_with("GET /b "));
    assert!(server.is_quiet());
}

#[test]
fn chunks_are_framed_anew() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n5;ext=1\r\nhello\r\n");
    let mut upstream = server.accept();
    let head = upstream.head();
    assert!(head.contains("transfer-encoding: chunked\r\n") && !head.contains("content-length"), "{head}");
    assert_eq!(upstream.until("hello\r\n"), "5\r\nhello\r\n");
    client.send("1\r\n!\r\n0\r\nX-Trailer: 1\r\n\r\n");
    assert_eq!(upstream.until("0\r\n\r\n"), "1\r\n!\r\n0\r\n\r\n");
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nhi\r\n0\r\n\r\n");
    assert!(client.head().contains("transfer-encoding: chunked\r\n"));
    assert_eq!(client.until("0\r\n\r\n"), "2\r\nhi\r\n0\r\n\r\n");
}

#[test]
fn a_body_that_ends_with_the_connection_goes_on_in_chunks() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut upstream = server.accept();
    upstream.head();
    upstream.send("HTTP/1.0 200 OK\r\n\r\nall of it");
    drop(upstream);
    assert!(client.head().contains("transfer-encoding: chunked\r\n"));
    assert!(client.until("0\r\n\r\n").contains("all of it"));
    client.send("GET /next HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(server.accept().head().starts_with("GET /next "));
}

/// A response cut short must not look whole.
#[test]
fn a_body_cut_short_cuts_the_client() {
    for body in ["Content-Length: 10\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
        let server = Server::start();
        let proxy = Proxy::start(&server);
        let mut client = proxy.connect();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut upstream = server.accept();
        upstream.head();
        upstream.send(format!("HTTP/1.1 200 OK\r\n{body}"));
        drop(upstream);
        client.head();
        let rest = client.rest();
        assert!(!rest.ends_with(b"0\r\n\r\n") && rest.len() < 20, "{rest:?}");
    }
}

/// What a server sends beyond its response belongs to no request.
#[test]
fn a_response_too_many_reaches_nobody() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let mut client = proxy.connect();
    client.send("GET /1 HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut upstream = server.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
    client.head();
    assert_eq!(client.exactly(2), b"ok");
    client.send("GET /2 HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut second = server.accept();
    assert!(second.head().starts_with("GET /2 "));
    second.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
    client.head();
    assert_eq!(client.exactly(4), b"good");
}

/// An answer before the request's end ends both connections: where the next request begins is not known.
#[test]
fn an_early_answer_is_passed_on_and_ends_it() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nbegin");
    let mut upstream = server.accept();
    upstream.head();
    upstream.send("HTTP/1.1 413 Payload Too Large\r\nContent-Length: 3\r\n\r\nbig");
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 413 ") && head.contains("connection: close\r\n"), "{head}");
    assert_eq!(client.exactly(3), b"big");
    upstream.until("begin");
    assert!(upstream.rest().is_empty());
}

#[test]
fn a_route_cannot_break_framing() {
    let remove = |route: &mut route::Route| {
        route.request_headers_to_remove = vec!["content-length".into()];
        route.response_headers_to_remove = vec!["content-length".into()];
    };
    let server = Server::start();
    let proxy = Proxy::with(&server, |_, route| remove(route));
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
    let mut upstream = server.accept();
    assert!(upstream.head().contains("transfer-encoding: chunked\r\n"));
    assert_eq!(upstream.until("0\r\n\r\n"), "5\r\nhello\r\n0\r\n\r\n");
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert!(client.head().contains("transfer-encoding: chunked\r\n"));
    assert_eq!(client.until("0\r\n\r\n"), "2\r\nok\r\n0\r\n\r\n");
}

#[test]
fn interim_responses_come_first() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let mut upstream = server.accept();
    assert!(upstream.head().contains("expect: 100-continue\r\n"));
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello");
    upstream.until("hello");
    upstream.send("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 103 "));
    assert!(client.head().starts_with("HTTP/1.1 204 "));
}

/// A server may speak before it has read the request, which still arrives whole.
#[test]
fn a_request_goes_on_after_an_interim_response() {
    let server = Server::start();
    let proxy = Proxy::with(&server, |manager, _| {
        manager.max_request_headers_kb = Some(maille_xds::types::UInt32Value { value: 8192 });
    });
    let mut client = proxy.connect();
    let long = "x".repeat(8_000_000);
    let sender = {
        let mut stream = client.0.try_clone().unwrap();
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\nlong: {long}\r\nContent-Length: 5\r\n\r\nhello");
        thread::spawn(move || std::io::Write::write_all(&mut stream, head.as_bytes()).unwrap())
    };
    let mut upstream = server.accept();
    upstream.send("HTTP/1.1 103 Early Hints\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 103 "));
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 200 "));
    upstream.until("long: ");
    assert!(upstream.exactly(long.len()) == long.as_bytes());
    assert!(upstream.until("hello").contains("\r\n\r\n"));
    upstream.send("bye-bye");
    assert_eq!(client.exactly(7), b"bye-bye");
    sender.join().unwrap();
}

#[test]
fn heads_have_no_bodies() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let mut client = proxy.connect();
    client.send("HEAD /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut upstream = server.accept();
    assert!(upstream.head().starts_with("HEAD /1 "));
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
    assert!(client.head().contains("content-length: 1000\r\n"));
    assert!(upstream.head().starts_with("GET /2 "), "pipelined, on the same connection");
    upstream.send("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 304 "));
    client.send("GET /3 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(upstream.head().starts_with("GET /3 "));
}
