//! gRPC: every kind of call, deadlines, cancellation, and answers of our own in its terms.

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Request, Response};
use maille_xds::types;
use maille_xds::types::route::RetryPolicy;
use maille_xds::types::route::route::Action;
use maille_xds::types::route::route_action::MaxStreamDuration;

use crate::peers::{Asked, Server2, Whole, connect, http2, run, send, whole};
use crate::script::{Proxy, Setup};

fn call(path: &str, more: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::post(format!("http://a.example{path}")).header("content-type", "application/grpc");
    for (name, value) in more {
        request = request.header(*name, *value);
    }
    request.header("te", "trailers").body(()).unwrap()
}

fn millis(n: i32) -> Option<types::Duration> {
    Some(types::Duration { seconds: 0, nanos: n * 1_000_000 })
}

fn action(setup: &mut Setup) -> &mut types::route::RouteAction {
    match &mut setup.rule.action {
        Some(Action::Route(action)) => action,
        other => unreachable!("{other:?}"),
    }
}

/// Ends a call with a status and nothing else.
fn only_trailers(mut asked: Asked, status: &str) {
    let response = Response::builder().header("content-type", "application/grpc").header("grpc-status", status);
    asked.respond.send_response(response.body(()).unwrap(), true).unwrap();
}

#[test]
fn a_stream_each_way_at_the_same_time() {
    run(async {
        let mut server = Server2::start().await;
        let proxy = Proxy::build(server.address, http2);
        let mut client = connect(&proxy).await;
        let (response, mut out) = client.send_request(call("/chat", &[]), false).unwrap();
        let asked = server.next().await;
        assert_eq!(asked.request.headers()["te"], "trailers");
        let (_, mut requests) = asked.request.into_parts();
        let mut respond = asked.respond;
        let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut back = respond.send_response(head, false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/grpc");
        let mut responses = response.into_body();
        for n in 0..20u8 {
            send(&mut out, &[n; 100], false).await.unwrap();
            assert_eq!(requests.data().await.unwrap().unwrap(), vec![n; 100]);
            send(&mut back, &[n; 50], false).await.unwrap();
            assert_eq!(responses.data().await.unwrap().unwrap(), vec![n; 50]);
        }
        // The server ends while the client still might go on.
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        back.send_trailers(trailers).unwrap();
        assert!(responses.data().await.is_none());
        assert_eq!(responses.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    });
}

/// What the server is told, when the client gives up.
#[test]
fn cancellation_goes_on_to_the_server() {
    run(async {
        let mut server = Server2::start().await;
        let proxy = Proxy::build(server.address, http2);
        let mut client = connect(&proxy).await;
        // Before the response and after it has begun; with the request under way and after it.
        for (answered, ended) in [(false, false), (false, true), (true, false), (true, true)] {
            let (response, mut out) = client.send_request(call("/", &[]), ended).unwrap();
            let mut asked = server.next().await;
            let mut back = None;
            if answered {
                let mut stream = asked.respond.send_response(Response::new(()), false).unwrap();
                stream.send_data(Bytes::from("x"), false).unwrap();
                let mut body = response.await.unwrap().into_body();
                body.data().await.unwrap().unwrap();
                out.send_reset(Reason::CANCEL);
                back = Some(stream);
            } else {
                out.send_reset(Reason::CANCEL);
            }
            let reason = match &mut back {
                Some(stream) => std::future::poll_fn(|cx| stream.poll_reset(cx)).await,
                None => std::future::poll_fn(|cx| asked.respond.poll_reset(cx)).await,
            };
            assert_eq!(reason.unwrap(), Reason::CANCEL, "answered: {answered}, ended: {ended}");
        }
    });
}

async fn ask(client: &mut h2::client::SendRequest<Bytes>, request: Request<()>) -> Whole {
    crate::peers::ask(client, request).await
}

#[test]
fn our_own_answers_are_grpc() {
    run(async {
        let absent = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let proxy = Proxy::build(absent, http2);
        let mut client = connect(&proxy).await;
        let answer = ask(&mut client, call("/", &[])).await;
        assert_eq!((answer.status, answer.header("grpc-status")), (200, "14"));
        assert!(answer.header("grpc-message").starts_with("upstream connect error"));
        assert!(answer.body.is_empty() && answer.trailers.is_none());
        assert_eq!(answer.header("content-type"), "application/grpc");
    });
}

#[test]
fn deadlines_are_the_clients_as_far_as_the_route_lets_them_be() {
    run(async {
        let mut server = Server2::start().await;
        // The route's timeout, and the stream's: what the server is told, and what the client is.
        for (stream, told, status) in [(false, "200m", "14"), (true, "5S", "4")] {
            let proxy = Proxy::build(server.address, |setup| {
                http2(setup);
                match stream {
                    #[allow(deprecated, reason = "what control planes still send")]
                    false => action(setup).max_grpc_timeout = millis(200),
                    true => {
                        action(setup).max_stream_duration =
                            Some(MaxStreamDuration { grpc_timeout_header_max: millis(200), ..Default::default() });
                    }
                }
            });
            let mut client = connect(&proxy).await;
            let (answer, asked) = tokio::join!(ask(&mut client, call("/", &[("grpc-timeout", "5S")])), server.next());
            assert_eq!(asked.request.headers()["grpc-timeout"], told);
            assert_eq!((answer.status, answer.header("grpc-status")), (200, status), "{answer:?}");
        }
    });
}

#[test]
fn statuses_that_are_tried_again() {
    run(async {
        let mut server = Server2::start().await;
        for (on, status) in [
            ("cancelled", "1"),
            ("deadline-exceeded", "4"),
            ("resource-exhausted", "8"),
            ("internal", "13"),
            ("unavailable", "14"),
        ] {
            let proxy = Proxy::build(server.address, |setup| {
                http2(setup);
                action(setup).retry_policy = Some(RetryPolicy { retry_on: on.into(), ..Default::default() });
            });
            let mut client = connect(&proxy).await;
            let (response, mut out) = client.send_request(call("/", &[]), false).unwrap();
            send(&mut out, b"request", true).await.unwrap();
            only_trailers(server.next().await, status);
            let again = server.next().await;
            let (_, body) = again.request.into_parts();
            assert_eq!(crate::peers::read(body).await.0, b"request", "the request is sent again whole");
            let mut respond = again.respond;
            let mut back = respond.send_response(Response::new(()), false).unwrap();
            send(&mut back, b"response", false).await.unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            back.send_trailers(trailers).unwrap();
            let answer = whole(response.await.unwrap()).await;
            assert_eq!((answer.body.as_slice(), answer.trailer("grpc-status")), (&b"response"[..], "0"), "{on}");
            // Another status is an answer.
            let (answer, ()) = tokio::join!(ask(&mut client, call("/", &[])), async {
                only_trailers(server.next().await, "5");
            });
            assert_eq!(answer.header("grpc-status"), "5");
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(server.is_quiet());
        }
    });
}
