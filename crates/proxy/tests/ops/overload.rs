//! A worker that holds too much: what it sheds, in which order, and what is said about it.

use std::io::ErrorKind;
use std::io::Write;
use std::path::Path;

use maille_proxy::run::{Bind, Endpoints, Otherwise, Purpose};

use crate::admin::{ask, endpoint};
use crate::reports::{lines, log_to, scratch};
use crate::support::{Proxy, Server, Wire};

/// The size of the blocks that bytes in transit are in.
const BLOCK: usize = 16 * 1024;
/// Ten blocks and a bit are 80 hundredths of this, eleven 90, twelve more than 95.
const LIMIT: usize = BLOCK * 12;

fn start(server: &Server, log: &Path) -> Proxy {
    Proxy::build(server.address, |setup| {
        setup.options.max_held = Some(LIMIT);
        let any = Some(Bind { address: ([127, 0, 0, 1], 0).into(), otherwise: Otherwise::Fail });
        setup.options.endpoints = Endpoints { admin: any, ..Endpoints::default() };
        log_to(setup, log, "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n");
    })
}

fn statistic(proxy: &Proxy, name: &str) -> u64 {
    let all = ask(endpoint(proxy, Purpose::Admin), "GET", "/stats").1;
    let line = all.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{name} in {all}"));
    line.rsplit_once(": ").unwrap().1.parse().unwrap()
}

fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if so() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("{what} never came")
}

/// Sends until nothing more is taken.
fn fill(wire: &mut Wire) {
    wire.0.set_nonblocking(true).unwrap();
    let mut pauses = 0;
    while pauses < 20 {
        match wire.0.write(&[b'x'; BLOCK]) {
            Ok(_) => pauses = 0,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                pauses += 1;
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            Err(error) => panic!("{error}"),
        }
    }
    wire.0.set_nonblocking(false).unwrap();
}

/// A request whose body the server does not read, so that a block of it is held.
fn stuck(proxy: &Proxy, server: &Server, path: &str) -> (Wire, Wire) {
    let mut client = proxy.connect();
    client.send(format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000000\r\n\r\n"));
    let mut upstream = server.accept();
    upstream.head();
    fill(&mut client);
    (client, upstream)
}

#[test]
fn row_34_idle_connections_go_first_then_the_request_that_holds_most() {
    let (server, log) = (Server::start(), scratch("shed"));
    let proxy = start(&server, &log);
    // Two blocks: neither the request nor the response gets on.
    let mut largest = stuck(&proxy, &server, "/largest");
    largest.1.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n");
    fill(&mut largest.1);
    let mut idle = proxy.connect();
    idle.send("GET /idle HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut upstream = server.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    assert!(!idle.head().contains("connection: close"));
    let mut others: Vec<_> = (0..8).map(|n| stuck(&proxy, &server, &format!("/other-{n}"))).collect();
    assert_eq!(idle.rest(), b"", "ten blocks are too much for who is idle");
    assert_eq!(statistic(&proxy, "reset_high_memory_stream.count"), 0);
    others.push(stuck(&proxy, &server, "/one-too-many"));
    wait_until("the reset", || statistic(&proxy, "reset_high_memory_stream.count") == 1);
    assert!(lines(&log, 2).lines().any(|line| line == "/largest 200 OM overload"), "{}", lines(&log, 2));
    drop(largest);
    // The others are as they were.
    for (client, upstream) in &mut others {
        upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi");
        assert!(client.until("hi").starts_with("HTTP/1.1 200"));
    }
}

#[test]
fn row_34_requests_and_connections_are_refused_when_nothing_else_can_go() {
    let (server, log) = (Server::start(), scratch("refused"));
    let proxy = start(&server, &log);
    // Heads that do not end hold a block each and are no requests yet.
    let mut heads: Vec<Wire> = (0..13).map(|_| proxy.connect()).collect();
    wait_until("the last connection", || statistic(&proxy, "server.total_connections") == 13);
    for (n, wire) in heads.iter_mut().enumerate() {
        wire.send(format!("GET /head-{n} HTTP/1.1\r\n"));
    }
    wait_until("the last head", || statistic(&proxy, "overload.held_bytes.pressure") >= 108);
    assert_eq!(proxy.connect().rest(), b"");
    let answer = String::from_utf8(heads.pop().unwrap().send("host: a\r\n\r\n").rest()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("envoy overloaded"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert_eq!(lines(&log, 1), "/head-12 503 OM overload\n");
    assert!(statistic(&proxy, "downstream_rq_overload_close") == 1);
    assert!(statistic(&proxy, "downstream_cx_overload_reject") == 1);
    // Two blocks less, and requests are served again, each on its last connection for now.
    let mut next = heads.pop().unwrap();
    next.send("host: a\r\n\r\n");
    let mut upstream = server.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    assert!(next.head().contains("connection: close"));
    drop(heads);
    wait_until("calm", || statistic(&proxy, "overload.held_bytes.pressure") == 0);
}
