//! Servers that go away, refuse, reset, limit or fall silent; clients that are told to go.

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::Response;
use maille_xds::types;
use maille_xds::types::core::{HttpProtocolOptions, KeepaliveSettings};
use maille_xds::types::route::RetryPolicy;
use maille_xds::types::route::route::Action;
use maille_xds::types::upstream_http::HttpProtocolOptions as ClusterOptions;
use maille_xds::types::upstream_http::http_protocol_options::{UpstreamProtocolOptions, UseDownstreamHttpConfig};

use crate::peers::{Server2, ask, connect, get, http2, run, whole};
use crate::raw::{GOAWAY, Raw, whole as whole_request};
use crate::script::{Proxy, Server, Setup};

fn retry(setup: &mut Setup, on: &str) {
    let Some(Action::Route(action)) = &mut setup.rule.action else { unreachable!() };
    action.retry_policy = Some(RetryPolicy { retry_on: on.into(), ..Default::default() });
}

#[test]
fn a_server_that_leaves_finishes_what_it_has() {
    run(async {
        let mut server = Server2::start().await;
        let proxy = Proxy::build(server.address, http2);
        let mut client = connect(&proxy).await;
        let (leaving, _) = client.send_request(get("/leave"), true).unwrap();
        let asked = server.next().await;
        // Let GOAWAY come through.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (next, _) = client.send_request(get("/next"), true).unwrap();
        let other = server.next().await;
        assert_eq!((asked.connection, other.connection), (1, 2));
        asked.answer(200, b"last").await;
        other.answer(200, b"first").await;
        assert_eq!(whole(leaving.await.unwrap()).await.body, b"last");
        assert_eq!(whole(next.await.unwrap()).await.body, b"first");
    });
}

#[test]
fn refused_streams_are_tried_again_where_the_route_says_so() {
    run(async {
        let mut server = Server2::start().await;
        let proxy = Proxy::build(server.address, |setup| {
            http2(setup);
            retry(setup, "refused-stream");
        });
        let mut client = connect(&proxy).await;
        let (response, _) = client.send_request(get("/"), true).unwrap();
        server.next().await.respond.send_reset(Reason::REFUSED_STREAM);
        server.next().await.answer(200, b"ok").await;
        assert_eq!(whole(response.await.unwrap()).await.body, b"ok");
        // A reset of another kind is not.
        let (response, _) = client.send_request(get("/"), true).unwrap();
        server.next().await.respond.send_reset(Reason::INTERNAL_ERROR);
        let answer = whole(response.await.unwrap()).await;
        let body = String::from_utf8(answer.body).unwrap();
        assert_eq!(answer.status, 503);
        assert!(body.ends_with("reset reason: remote reset"), "{body}");
        assert!(server.is_quiet());
    });
}

/// A response that is cut off must not look whole.
#[test]
fn a_reset_in_the_middle_reaches_the_client() {
    run(async {
        let mut server = Server2::start().await;
        let proxy = Proxy::build(server.address, http2);
        let mut client = connect(&proxy).await;
        let (response, _) = client.send_request(get("/"), true).unwrap();
        let mut asked = server.next().await;
        let mut stream = asked.respond.send_response(Response::new(()), false).unwrap();
        stream.send_data(Bytes::from("begin"), false).unwrap();
        let response = response.await.unwrap();
        let mut body = response.into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "begin");
        stream.send_reset(Reason::INTERNAL_ERROR);
        let error = body.data().await.unwrap().unwrap_err();
        assert!(error.is_reset(), "{error}");
        // The connection goes on.
        let (answer, ()) =
            tokio::join!(ask(&mut client, get("/")), async { server.next().await.answer(200, b"ok").await });
        assert_eq!(answer.body, b"ok");
    });
}

#[test]
fn as_many_streams_as_the_server_takes_and_then_another_connection() {
    run(async {
        let mut server = Server2::with(|builder| {
            builder.max_concurrent_streams(2);
        })
        .await;
        let proxy = Proxy::build(server.address, http2);
        let mut client = connect(&proxy).await;
        // The first tells us the limit.
        let (answer, ()) =
            tokio::join!(ask(&mut client, get("/")), async { server.next().await.answer(200, b"ok").await });
        assert_eq!(answer.status, 200);
        let mut responses = Vec::new();
        for _ in 0..4 {
            let (response, _) = client.send_request(get("/"), true).unwrap();
            responses.push(response);
        }
        let mut asked = Vec::new();
        for _ in 0..4 {
            asked.push(server.next().await);
        }
        let mut connections: Vec<_> = asked.iter().map(|asked| asked.connection).collect();
        connections.sort_unstable();
        assert_eq!(connections, [1, 1, 2, 2]);
        for asked in asked {
            asked.answer(200, b"ok").await;
        }
        for response in responses {
            assert_eq!(whole(response.await.unwrap()).await.status, 200);
        }
    });
}

/// With the client's version of HTTP where the cluster is told so.
#[test]
fn the_clients_version_goes_on() {
    run(async {
        let both = |setup: &mut Setup| {
            let options = ClusterOptions {
                upstream_protocol_options: Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(
                    UseDownstreamHttpConfig { http2_protocol_options: Some(Default::default()), ..Default::default() },
                )),
                ..Default::default()
            };
            setup.cluster.typed_extension_protocol_options =
                [("envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(), types::any(&options))].into();
        };
        let mut server = Server2::start().await;
        let proxy = Proxy::build(server.address, both);
        let mut client = connect(&proxy).await;
        let (answer, ()) =
            tokio::join!(ask(&mut client, get("/")), async { server.next().await.answer(200, b"two").await });
        assert_eq!(answer.body, b"two");
        let server = Server::start();
        let proxy = Proxy::build(server.address, both);
        let mut client = proxy.connect();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let asked = tokio::task::spawn_blocking(move || server.accept().head());
        assert!(asked.await.unwrap().starts_with("GET / HTTP/1.1\r\n"));
    });
}

/// A server that does not answer PINGs is gone, and what was asked of it fails.
#[test]
fn a_server_that_falls_silent() {
    run(async {
        let server = Server::start();
        let proxy = Proxy::build(server.address, |setup| {
            http2(setup);
            #[allow(deprecated, reason = "the short way to say it")]
            let options = setup.cluster.http2_protocol_options.as_mut().unwrap();
            options.connection_keepalive = Some(KeepaliveSettings {
                interval: Some(types::Duration { seconds: 0, nanos: 100_000_000 }),
                timeout: Some(types::Duration { seconds: 0, nanos: 100_000_000 }),
                ..Default::default()
            });
        });
        let mut client = connect(&proxy).await;
        let answer = ask(&mut client, get("/")).await;
        let body = String::from_utf8(answer.body).unwrap();
        assert_eq!(answer.status, 503);
        assert!(body.ends_with("reset reason: connection termination"), "{body}");
        drop(server);
    });
}

#[test]
fn clients_are_told_to_go_when_the_proxy_does() {
    run(async {
        let server = Server::start();
        let proxy = Proxy::start(&server);
        let mut raw = Raw::start(&proxy);
        raw.send(whole_request(1));
        let wait = tokio::task::spawn_blocking(move || {
            let upstream = server.accept();
            (server, upstream)
        });
        let (_server, mut upstream) = wait.await.unwrap();
        let Proxy { handle, .. } = proxy;
        let drained = tokio::task::spawn_local(async move { handle.drain().await });
        let done = tokio::task::spawn_blocking(move || {
            let told = raw.next_of(&[GOAWAY]).unwrap();
            assert_eq!((told.code(), &told.payload[..4]), (0, &[0x7f, 0xff, 0xff, 0xff][..]));
            upstream.head();
            upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
            // What was under way comes to its end.
            assert_eq!(raw.next_of(&[crate::raw::DATA]).unwrap().payload, b"ok");
        });
        done.await.unwrap();
        drop(drained);
    });
}

#[test]
fn connections_end_after_so_many_requests() {
    run(async {
        let mut server = Server2::start().await;
        let proxy = Proxy::build(server.address, |setup| {
            http2(setup);
            let options = HttpProtocolOptions {
                max_requests_per_connection: Some(types::UInt32Value { value: 2 }),
                ..Default::default()
            };
            #[allow(deprecated, reason = "the short way to say it")]
            {
                setup.cluster.common_http_protocol_options = Some(options);
            }
        });
        let mut client = connect(&proxy).await;
        let mut connections = Vec::new();
        for _ in 0..4 {
            let (_, connection) = tokio::join!(ask(&mut client, get("/")), async {
                let asked = server.next().await;
                let connection = asked.connection;
                asked.answer(200, b"").await;
                connection
            });
            connections.push(connection);
        }
        assert_eq!(connections, [1, 1, 2, 2]);
    });
}
