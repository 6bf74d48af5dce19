//! How a proxy ends, and what ends when something in it falls over.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use maille_proxy::run::{Bind, Endpoints, LameDuck, Otherwise, Purpose};

use crate::admin::{ask, endpoint, exchange};
use crate::support::{Proxy, Server};

fn start(server: &Server) -> Proxy {
    Proxy::build(server.address, |setup| {
        let any = Some(Bind { address: ([127, 0, 0, 1], 0).into(), otherwise: Otherwise::Fail });
        setup.options.endpoints = Endpoints { admin: any, ..Endpoints::default() };
        setup.options.lame_duck = LameDuck { least: Duration::from_millis(500), until_idle: true };
    })
}

/// Asks until a statistic says so.
fn wait_for(proxy: &Proxy, line: &str) {
    for _ in 0..2000 {
        if ask(endpoint(proxy, Purpose::Admin), "GET", "/stats").1.lines().any(|l| l == line) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{line} never came")
}

#[test]
fn a_panic_costs_the_connection_it_happens_in() {
    let server = Server::start();
    let proxy = start(&server);
    let mut first = proxy.connect();
    first.send("GET /a HTTP/1.1\r\n");
    wait_for(&proxy, &format!("listener.{}.downstream_cx_active: 1", proxy.http.to_string().replace(':', "_")));
    // Another of the same worker is in the midst of a request.
    let mut second = proxy.connect();
    second.send("GET /b HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut upstream = server.accept();
    upstream.head();
    proxy.handle.sabotage(0, false);
    assert_eq!(first.rest(), b"");
    wait_for(&proxy, "server.connection_panics: 1");
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi");
    assert!(second.until("hi").starts_with("HTTP/1.1 200 "));
    drop((second, upstream));
    wait_for(&proxy, "server.total_connections: 0");
    exchange(&proxy, &server);
    wait_for(&proxy, "server.worker_panics: 0");
}

#[test]
fn a_worker_that_falls_over_is_replaced() {
    let server = Server::start();
    let proxy = start(&server);
    exchange(&proxy, &server);
    let mut lost = proxy.connect();
    lost.send("GET /a HTTP/1.1\r\n");
    proxy.handle.sabotage(0, true);
    assert_eq!(lost.rest(), b"");
    wait_for(&proxy, "server.worker_panics: 1");
    // The replacement listens a moment after the old sockets are gone.
    for _ in 0..2000 {
        if TcpStream::connect(proxy.http).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    exchange(&proxy, &server);
    wait_for(&proxy, "server.total_connections: 0");
}

#[test]
fn a_worker_that_falls_over_takes_nobody_elses_connections_along() {
    let server = Server::start();
    let proxy = Proxy::build(server.address, |setup| {
        let any = Some(Bind { address: ([127, 0, 0, 1], 0).into(), otherwise: Otherwise::Fail });
        setup.options.endpoints = Endpoints { admin: any, ..Endpoints::default() };
        setup.options.concurrency = 2;
    });
    // The kernel says which worker has which: among so many, each has some.
    let mut all: Vec<_> = (0..32)
        .map(|n| {
            let mut client = proxy.connect();
            client.send(format!("GET /{n} HTTP/1.1\r\nhost: a\r\n\r\n"));
            let mut upstream = server.accept();
            assert!(upstream.head().starts_with(&format!("GET /{n} ")));
            (client, upstream)
        })
        .collect();
    proxy.handle.sabotage(0, true);
    wait_for(&proxy, "server.worker_panics: 1");
    let mut lost = 0;
    for (client, upstream) in &mut all {
        // Half of these servers have lost their proxy as well.
        let _ = upstream.0.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi");
        match client.0.read(&mut [0]) {
            Ok(1) => assert!(client.until("hi").starts_with("TTP/1.1 200 ")),
            _ => lost += 1,
        }
    }
    assert!((1..32).contains(&lost), "{lost} of 32");
    // Those that are left go on.
    let left: Vec<_> =
        all.into_iter().filter(|(client, _)| client.0.set_nonblocking(true).is_ok() && is_open(client)).collect();
    assert_eq!(left.len(), 32 - lost);
    wait_for(&proxy, &format!("server.total_connections: {}", left.len()));
}

/// Whether a connection that nothing is expected on has not ended.
fn is_open(wire: &crate::support::Wire) -> bool {
    wire.0.peek(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_loses_no_request() {
    let server = Server::start();
    let proxy = start(&server);
    let (http, admin) = (proxy.http, endpoint(&proxy, Purpose::Admin));
    // One connection waits for a response, one keeps quiet between requests.
    let mut at_work = proxy.connect();
    at_work.send("GET /a HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut upstream = server.accept();
    upstream.head();
    let mut idle = proxy.connect();
    idle.send("GET /b HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut second = server.accept();
    second.head();
    second.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    assert!(!idle.head().contains("connection: close"));
    let drained = tokio::spawn(proxy.handle.drain());
    tokio::task::spawn_blocking(move || {
        while ask(admin, "GET", "/ready").0 == 200 {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Whoever has not heard yet still comes.
        let mut late = crate::support::Wire::new(TcpStream::connect(http).unwrap());
        late.send("GET /c HTTP/1.1\r\nhost: a\r\n\r\n");
        second.head();
        second.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        assert!(late.head().contains("connection: close"));
        // The quiet one is told with its next response, and the one at work gets its own.
        idle.send("GET /d HTTP/1.1\r\nhost: a\r\n\r\n");
        second.head();
        second.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        assert!(idle.head().contains("connection: close"));
        upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi");
        assert!(at_work.head().contains("connection: close"));
        assert_eq!(at_work.exactly(2), b"hi");
        drop((idle, late));
        let mut end = [0];
        assert_eq!(at_work.0.read(&mut end).unwrap(), 0);
    })
    .await
    .unwrap();
    drained.await.unwrap();
    assert!(TcpStream::connect(http).is_err());
}

/// Run by [`row_21_open_files_run_out`] with few open files to use: a proxy that lives as long as its standard input is open.
#[test]
#[ignore = "run by row_21_open_files_run_out"]
fn row_21_proxy() {
    let server = Server::start();
    let proxy = start(&server);
    println!("\nPROXY {} {}", proxy.http, endpoint(&proxy, Purpose::Admin));
    std::thread::spawn(move || {
        loop {
            let mut upstream = server.accept();
            upstream.head();
            upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

#[test]
fn row_21_open_files_run_out() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let me = std::env::current_exe().unwrap();
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -n 256; exec \"$0\" \"$@\""])
        .arg(me)
        .args(["--exact", "ends::row_21_proxy", "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said = lines.find_map(|line| line.unwrap().strip_prefix("PROXY ").map(str::to_owned)).unwrap();
    let (http, admin) = said.split_once(' ').unwrap();
    let (http, admin): (std::net::SocketAddr, std::net::SocketAddr) = (http.parse().unwrap(), admin.parse().unwrap());
    let request = |mut stream: TcpStream| {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(b"GET /a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer.starts_with("HTTP/1.1 200")
    };
    let early = TcpStream::connect(http).unwrap();
    let mut crowd: Vec<TcpStream> = (0..400).filter_map(|_| TcpStream::connect(http).ok()).collect();
    crowd.iter_mut().for_each(|stream| drop(stream.write_all(b"GET /a HTTP/1.1\r\n")));
    // Those there are too many of are let go; who was there before is served, and so is whoever runs the proxy.
    assert!(request(early));
    let stats = ask(admin, "GET", "/stats?filter=downstream_(global_cx_overflow|cx_active)").1;
    let number = |name: &str| {
        let line = stats.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{name} in {stats}"));
        line.rsplit_once(": ").unwrap().1.parse::<u64>().unwrap()
    };
    assert!(number("downstream_global_cx_overflow") >= 250 && number("downstream_cx_active") <= 96, "{stats}");
    drop(crowd);
    assert!((0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        TcpStream::connect(http).is_ok_and(request)
    }));
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}
