//! Tunnels: CONNECT and other protocols, over either version of HTTP, once the server has agreed and not a byte before.

use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use h2::ext::Protocol;
use http::{Method, Request, Response};
use maille_xds::types::BoolValue;
use maille_xds::types::core::Http2ProtocolOptions;
use maille_xds::types::route::route::Action;
use maille_xds::types::route::route_action::UpgradeConfig;
use maille_xds::types::route::route_action::upgrade_config::ConnectConfig;
use maille_xds::types::route::route_match::{ConnectMatcher, PathSpecifier};

use crate::peers::{Server2, connect, http2, run, send};
use crate::script::{Proxy, Server, Setup, Wire};

/// Routes CONNECT; `ends`: to where the tunnel's bytes are all there is.
fn connects(setup: &mut Setup, ends: bool) {
    setup.rule.r#match.as_mut().unwrap().path_specifier =
        Some(PathSpecifier::ConnectMatcher(ConnectMatcher::default()));
    let Some(Action::Route(action)) = &mut setup.rule.action else { unreachable!() };
    action.upgrade_configs = vec![UpgradeConfig {
        upgrade_type: "CONNECT".into(),
        enabled: Some(BoolValue { value: true }),
        connect_config: ends.then(ConnectConfig::default),
    }];
    setup.manager.http2_protocol_options = Some(Http2ProtocolOptions { allow_connect: true, ..Default::default() });
}

fn websockets(setup: &mut Setup) {
    setup.manager.http2_protocol_options = Some(Http2ProtocolOptions { allow_connect: true, ..Default::default() });
}

/// Whether nothing comes for a while.
fn is_silent(wire: &mut Wire) -> bool {
    wire.0.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let silent = wire.0.read(&mut [0]).is_err();
    wire.0.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    silent
}

const ASK: &str = "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n";

/// What a client sends before the server has agreed waits; if the server does not agree, it is for nobody.
#[test]
fn row_07_nothing_enters_a_tunnel_before_it_is_open() {
    let server = Server::start();
    let proxy = Proxy::build(server.address, |setup| connects(setup, false));
    let mut client = proxy.connect();
    client.send(ASK).send("early");
    let mut upstream = server.accept();
    assert!(upstream.head().starts_with("CONNECT a.example:443 HTTP/1.1\r\nhost: a.example:443\r\n"));
    assert!(is_silent(&mut upstream));
    upstream.send("HTTP/1.1 200 OK\r\n\r\nhello");
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 200 ") && !head.contains("transfer-encoding"), "{head}");
    assert_eq!(client.exactly(5), b"hello");
    assert_eq!(upstream.exactly(5), b"early");

    for refusal in ["HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 302 Found\r\nlocation: /\r\n\r\n"]
    {
        let mut client = proxy.connect();
        client.send(ASK).send("GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut upstream = server.accept();
        upstream.head();
        upstream.send(refusal);
        upstream.0.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(client.head().contains("connection: close\r\n"));
        client.rest();
        assert!(upstream.rest().is_empty());
    }
    assert!(server.is_quiet());
}

/// To be told 200 is not to be told 101.
#[test]
fn row_07_only_the_right_answer_opens_an_upgrade() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").send("early");
    let mut upstream = server.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("connection: close\r\n"), "{head}");
    assert!(client.rest().is_empty() && upstream.rest().is_empty(), "nothing goes either way");
    // Nor does an answer of that kind come unasked.
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut upstream = server.accept();
    upstream.head();
    upstream.send("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n");
    assert!(client.until("protocol error").starts_with("HTTP/1.1 502 "));
}

#[test]
fn connect_is_not_for_everybody() {
    let server = Server::start();
    let proxy = Proxy::build(server.address, |setup| {
        connects(setup, false);
        let Some(Action::Route(action)) = &mut setup.rule.action else { unreachable!() };
        action.upgrade_configs.clear();
    });
    let mut client = proxy.connect();
    client.send(ASK);
    assert!(client.head().starts_with("HTTP/1.1 403 "));
    assert!(server.is_quiet());
}

/// A tunnel from a stream to whatever the server is.
async fn through_http2(proxy: &Proxy, request: Request<()>, upstream: impl FnOnce() -> Wire + Send + 'static) {
    let client = connect(proxy).await;
    // The client may only ask once it knows that it may.
    let mut client = client.ready().await.unwrap();
    while request.extensions().get::<Protocol>().is_some() && !client.is_extended_connect_protocol_enabled() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (response, mut out) = client.send_request(request, false).unwrap();
    let upstream = tokio::task::spawn_blocking(upstream);
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.headers().get("upgrade").is_none());
    let mut upstream = upstream.await.unwrap();
    send(&mut out, b"ping", false).await.unwrap();
    let upstream = tokio::task::spawn_blocking(move || {
        assert_eq!(upstream.exactly(4), b"ping");
        upstream.send("pong");
        upstream
    });
    let mut body = response.into_body();
    let mut got = Vec::new();
    while got.len() < 9 {
        let data = body.data().await.unwrap().unwrap();
        got.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    assert_eq!(got, b"hellopong");
    // Each way ends on its own.
    send(&mut out, b"", true).await.unwrap();
    let mut upstream = upstream.await.unwrap();
    let upstream = tokio::task::spawn_blocking(move || {
        assert!(upstream.rest().is_empty());
        upstream.send("bye");
    });
    assert_eq!(body.data().await.unwrap().unwrap(), "bye");
    upstream.await.unwrap();
    assert!(body.data().await.is_none_or(|end| end.is_ok_and(|data| data.is_empty())));
}

fn connect_request() -> Request<()> {
    Request::builder().method(Method::CONNECT).uri("a.example:443").body(()).unwrap()
}

#[test]
fn connect_from_http2_to_http1() {
    run(async {
        let server = Server::start();
        let proxy = Proxy::build(server.address, |setup| connects(setup, false));
        through_http2(&proxy, connect_request(), move || {
            let mut upstream = server.accept();
            assert!(upstream.head().starts_with("CONNECT a.example:443 HTTP/1.1\r\n"));
            upstream.send("HTTP/1.1 200 OK\r\n\r\nhello");
            upstream
        })
        .await;
    });
}

#[test]
fn connect_ends_here() {
    run(async {
        let server = Server::start();
        let proxy = Proxy::build(server.address, |setup| connects(setup, true));
        let address = proxy.http;
        through_http2(&proxy, connect_request(), move || {
            let mut upstream = server.accept();
            upstream.send("hello");
            // Over HTTP/1 just so.
            let mut client = Wire::new(std::net::TcpStream::connect(address).unwrap());
            client.send(ASK).send("early");
            let mut other = server.accept();
            assert_eq!(other.exactly(5), b"early");
            other.send("late");
            assert!(client.until("late").starts_with("HTTP/1.1 200 OK\r\n"));
            upstream
        })
        .await;
    });
}

#[test]
fn websockets_over_http2_are_upgrades_to_http1() {
    run(async {
        let server = Server::start();
        let proxy = Proxy::build(server.address, websockets);
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri("http://a.example/chat")
            .header("sec-websocket-version", "13")
            .body(())
            .unwrap();
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        through_http2(&proxy, request, move || {
            let mut upstream = server.accept();
            let head = upstream.head();
            assert!(head.starts_with("GET /chat HTTP/1.1\r\n"), "{head}");
            for part in ["upgrade: websocket\r\n", "connection: upgrade\r\n", "sec-websocket-version: 13\r\n"] {
                assert!(head.contains(part), "{part} in {head}");
            }
            upstream.send("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nhello");
            upstream
        })
        .await;
    });
}

#[test]
fn websockets_over_http1_become_extended_connect() {
    run(async {
        let mut server = Server2::with(|builder| {
            builder.enable_connect_protocol();
        })
        .await;
        let proxy = Proxy::build(server.address, http2);
        let mut client = proxy.connect();
        client.send("GET /chat HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
        let asked = server.next().await;
        assert_eq!((asked.request.method(), asked.path()), (&Method::CONNECT, "/chat"));
        assert_eq!(asked.request.extensions().get::<Protocol>().unwrap().as_str(), "websocket");
        let (_, mut body) = asked.request.into_parts();
        let mut respond = asked.respond;
        let mut out = respond.send_response(Response::new(()), false).unwrap();
        out.send_data(Bytes::from("hello"), false).unwrap();
        let client = tokio::task::spawn_blocking(move || {
            let head = client.head();
            assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
            assert!(head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n"), "{head}");
            assert_eq!(client.exactly(5), b"hello");
            client.send("ping");
            client
        });
        assert_eq!(body.data().await.unwrap().unwrap(), "ping");
        drop((out, body, respond));
        let mut client = client.await.unwrap();
        tokio::task::spawn_blocking(move || assert!(client.rest().is_empty())).await.unwrap();
    });
}
