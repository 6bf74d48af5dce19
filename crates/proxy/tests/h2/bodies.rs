//! Requests and responses of either version become those of the other, whole.

use bytes::Bytes;
use http::{HeaderMap, Request, Response};

use crate::peers::{Server2, ask, connect, get, http2, post, read, run, send, whole};
use crate::script::{Proxy, Server};

const BIG: usize = 3 << 20;

#[test]
fn a_client_of_http2_and_a_server_of_http1() {
    run(async {
        let server = Server::start();
        let proxy = Proxy::start(&server);
        let mut client = connect(&proxy).await;
        let request = Request::get("http://a.example/p?q=1")
            .header("x-a", "1")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("te", "trailers");
        let (response, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
        let upstream = tokio::task::spawn_blocking(move || {
            let mut upstream = server.accept();
            let head = upstream.head();
            upstream.send("HTTP/1.1 200 OK\r\nx-b: 2\r\nconnection: x-c\r\nx-c: 3\r\ncontent-length: 2\r\n\r\nok");
            head
        });
        let head = upstream.await.unwrap();
        assert!(head.starts_with("GET /p?q=1 HTTP/1.1\r\nhost: a.example\r\n"), "{head}");
        for part in ["x-a: 1\r\n", "cookie: a=1; b=2\r\n", "te: trailers\r\n", "x-forwarded-proto: http\r\n"] {
            assert!(head.contains(part), "{part} in {head}");
        }
        assert!(!head.contains("transfer-encoding") && !head.contains("content-length"), "{head}");
        let response = whole(response.await.unwrap()).await;
        assert_eq!((response.status, response.body.as_slice()), (200, &b"ok"[..]));
        assert_eq!((response.header("x-b"), response.header("x-c")), ("2", ""));
        assert_eq!(response.header("content-length"), "2");
    });
}

#[test]
fn bodies_of_any_length_from_http2_to_http1_and_back() {
    run(async {
        let server = Server::start();
        let proxy = Proxy::start(&server);
        let mut client = connect(&proxy).await;
        let (response, mut stream) = client.send_request(post("/"), false).unwrap();
        let upstream = tokio::task::spawn_blocking(move || {
            let mut upstream = server.accept();
            let head = upstream.head();
            assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
            let mut got = 0;
            loop {
                let size = usize::from_str_radix(upstream.until("\r\n").trim_end(), 16).unwrap();
                assert!(upstream.exactly(size).iter().all(|b| *b == b'q'));
                upstream.until("\r\n");
                got += size;
                if size == 0 {
                    break;
                }
            }
            upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            for _ in 0..BIG / 1024 {
                upstream.send(b"400\r\n").send([b'a'; 1024]).send("\r\n");
            }
            upstream.send("0\r\n\r\n");
            got
        });
        send(&mut stream, &vec![b'q'; BIG], true).await.unwrap();
        let response = whole(response.await.unwrap()).await;
        assert_eq!(upstream.await.unwrap(), BIG);
        assert_eq!(response.body.len(), BIG);
        assert!(response.error.is_none() && response.body.iter().all(|b| *b == b'a'));
    });
}

#[test]
fn http2_on_both_sides_with_trailers() {
    run(async {
        let mut server = Server2::start().await;
        let proxy = Proxy::build(server.address, http2);
        let mut client = connect(&proxy).await;
        let (response, mut stream) = client.send_request(post("/a"), false).unwrap();
        let asked = server.next().await;
        assert_eq!((asked.path(), asked.request.uri().authority().unwrap().as_str()), ("/a", "a.example"));
        let (_, body) = asked.request.into_parts();
        send(&mut stream, b"hello", false).await.unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-t", "1".parse().unwrap());
        stream.send_trailers(trailers.clone()).unwrap();
        let (body, got, _) = read(body).await;
        assert_eq!(body, b"hello");
        assert_eq!(got.unwrap()["x-t"], "1");
        let mut respond = asked.respond;
        let mut out = respond.send_response(Response::new(()), false).unwrap();
        send(&mut out, b"bye", false).await.unwrap();
        trailers.insert("grpc-status", "0".parse().unwrap());
        out.send_trailers(trailers).unwrap();
        let response = whole(response.await.unwrap()).await;
        assert_eq!((response.body.as_slice(), response.trailer("grpc-status")), (&b"bye"[..], "0"));
    });
}

/// Data goes one way only as fast as the other end takes it: nothing piles up here.
#[test]
fn credit_is_given_for_what_the_other_side_took() {
    run(async {
        let mut server = Server2::with(|builder| {
            builder.initial_window_size(1000);
        })
        .await;
        let proxy = Proxy::build(server.address, |setup| {
            http2(setup);
            let options = maille_xds::types::core::Http2ProtocolOptions {
                initial_stream_window_size: Some(maille_xds::types::UInt32Value { value: 65535 }),
                initial_connection_window_size: Some(maille_xds::types::UInt32Value { value: 65535 }),
                ..Default::default()
            };
            setup.manager.http2_protocol_options = Some(options);
        });
        let mut client = connect(&proxy).await;
        let (_response, mut stream) = client.send_request(post("/a"), false).unwrap();
        let asked = server.next().await;
        // The server takes nothing: what may be on the way is our window, the proxy's and the server's.
        let mut sent = 0;
        while sent < BIG {
            stream.reserve_capacity(16384);
            let wait = std::future::poll_fn(|cx| stream.poll_capacity(cx));
            let Ok(Some(Ok(n))) = tokio::time::timeout(std::time::Duration::from_millis(300), wait).await else {
                break;
            };
            stream.send_data(Bytes::from(vec![0; n]), false).unwrap();
            sent += n;
        }
        assert!(sent < 300_000, "{sent}");
        // Once it does, everything comes.
        let (_, body) = asked.request.into_parts();
        let reading = tokio::task::spawn_local(read(body));
        send(&mut stream, &vec![0; BIG], true).await.unwrap();
        let (body, _, error) = reading.await.unwrap();
        assert!(error.is_none());
        assert_eq!(body.len(), sent + BIG);
    });
}

#[test]
fn a_client_of_http1_and_a_server_of_http2() {
    run(async {
        let mut server = Server2::start().await;
        let proxy = Proxy::build(server.address, http2);
        let mut client = proxy.connect();
        client.send(
            "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTE: gzip\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        );
        let asked = server.next().await;
        let headers = asked.request.headers();
        assert!(
            headers.get("host").is_none() && headers.get("transfer-encoding").is_none() && headers.get("te").is_none()
        );
        let (_, body) = asked.request.into_parts();
        assert_eq!(read(body).await.0, b"hello");
        let mut respond = asked.respond;
        let mut out = respond.send_response(Response::new(()), false).unwrap();
        send(&mut out, b"bye", false).await.unwrap();
        out.send_trailers(HeaderMap::new()).unwrap();
        let client = tokio::task::spawn_blocking(move || {
            assert!(client.head().contains("transfer-encoding: chunked\r\n"));
            assert_eq!(client.until("0\r\n\r\n"), "3\r\nbye\r\n0\r\n\r\n");
            client
        });
        let mut client = client.await.unwrap();
        client.send("GET /b HTTP/1.1\r\nHost: x\r\n\r\n");
        let asked = server.next().await;
        assert_eq!((asked.path(), asked.connection), ("/b", 1));
        asked.answer(200, b"ok").await;
        tokio::task::spawn_blocking(move || client.until("ok")).await.unwrap();
    });
}

#[test]
fn many_streams_share_a_connection() {
    run(async {
        let mut server = Server2::start().await;
        let proxy = Proxy::build(server.address, http2);
        let mut client = connect(&proxy).await;
        let mut responses = Vec::new();
        for n in 0..50 {
            let (response, _) = client.send_request(get(&format!("/{n}")), true).unwrap();
            responses.push(tokio::task::spawn_local(async move { whole(response.await.unwrap()).await }));
        }
        for _ in 0..50 {
            let asked = server.next().await;
            assert_eq!(asked.connection, 1);
            let path = asked.path().to_owned();
            asked.answer(200, path.as_bytes()).await;
        }
        for (n, response) in responses.into_iter().enumerate() {
            assert_eq!(response.await.unwrap().body, format!("/{n}").as_bytes());
        }
        let last = ask(&mut client, get("/nowhere"));
        let (last, ()) = tokio::join!(last, async { server.next().await.answer(204, b"").await });
        assert_eq!(last.status, 204);
    });
}
