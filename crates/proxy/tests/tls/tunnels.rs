//! Connections that go through an HTTP proxy.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use maille_xds::types::tcp_proxy::tcp_proxy::TunnelingConfig;
use maille_xds::types::{self, tcp_proxy, upstream_http};

use crate::support::*;

fn through(use_post: bool, server: SocketAddr, http2: bool) -> (SocketAddr, maille_proxy::Handle) {
    let forward = tcp_proxy::TcpProxy {
        stat_prefix: "tcp".into(),
        cluster_specifier: Some(tcp_proxy::tcp_proxy::ClusterSpecifier::Cluster("proxy".into())),
        tunneling_config: Some(TunnelingConfig { hostname: "far.example:443".into(), use_post, ..Default::default() }),
        ..Default::default()
    };
    let mut cluster = cluster("proxy", server);
    if http2 {
        use upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig;
        use upstream_http::http_protocol_options::{ExplicitHttpConfig, UpstreamProtocolOptions};
        let protocol_config = Some(ProtocolConfig::Http2ProtocolOptions(Default::default()));
        let options = upstream_http::HttpProtocolOptions {
            upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
                protocol_config,
            })),
            ..Default::default()
        };
        let name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        cluster.typed_extension_protocol_options.insert(name.into(), types::any(&options));
    }
    let at = free();
    (at, proxy(vec![listener("l", at, vec![chain(types::any(&forward))])], vec![cluster]))
}

fn until(stream: &mut TcpStream, end: &[u8]) -> String {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut got = Vec::new();
    while !got.ends_with(end) {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{:?}", String::from_utf8_lossy(&got));
        got.push(byte[0]);
    }
    String::from_utf8(got).unwrap()
}

#[test]
fn nothing_is_sent_before_the_proxy_has_agreed() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let (at, _proxy) = through(false, server.local_addr().unwrap(), false);
    let mut client = TcpStream::connect(at).unwrap();
    client.write_all(b"early").unwrap();
    let (mut far, _) = server.accept().unwrap();
    let head = until(&mut far, b"\r\n\r\n");
    assert_eq!(head, "CONNECT far.example:443 HTTP/1.1\r\nhost: far.example:443\r\n\r\n");
    far.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(far.read(&mut [0]).is_err(), "what the client says is for the other end alone");
    // A length in the answer to a CONNECT means nothing.
    far.write_all(b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhello ").unwrap();
    assert_eq!(until(&mut far, b"early"), "early");
    far.write_all(b"there").unwrap();
    assert_eq!(until(&mut client, b"there"), "hello there");
    drop(client);
    assert_eq!(rest(&mut far), b"");
}

#[test]
fn a_proxy_that_refuses_ends_the_connection() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let (at, _proxy) = through(false, server.local_addr().unwrap(), false);
    let mut client = TcpStream::connect(at).unwrap();
    client.write_all(b"secret").unwrap();
    let (mut far, _) = server.accept().unwrap();
    until(&mut far, b"\r\n\r\n");
    far.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 4\r\n\r\nno!\n").unwrap();
    assert_eq!(rest(&mut client), b"", "its answer is not for the client");
    assert_eq!(rest(&mut far), b"", "nor is what the client said for it");
}

#[test]
fn a_post_carries_the_connection_in_its_body() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let (at, _proxy) = through(true, server.local_addr().unwrap(), false);
    let mut client = TcpStream::connect(at).unwrap();
    client.write_all(b"one").unwrap();
    let (mut far, _) = server.accept().unwrap();
    let head = until(&mut far, b"\r\n\r\n");
    assert_eq!(head, "POST / HTTP/1.1\r\nhost: far.example:443\r\ntransfer-encoding: chunked\r\n\r\n");
    far.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\ntwo\r\n").unwrap();
    assert_eq!(until(&mut far, b"3\r\none\r\n"), "3\r\none\r\n");
    assert_eq!(until(&mut client, b"two"), "two");
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(until(&mut far, b"0\r\n\r\n"), "0\r\n\r\n");
    far.write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(rest(&mut client), b"");
}

#[test]
fn a_stream_of_http2_carries_the_connection() {
    for use_post in [false, true] {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let (at, _proxy) = through(use_post, server.local_addr().unwrap(), true);
        let far = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (stream, _) = server.accept().unwrap();
                stream.set_nonblocking(true).unwrap();
                let stream = tokio::net::TcpStream::from_std(stream).unwrap();
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let (request, mut respond) = connection.accept().await.unwrap().unwrap();
                let (method, authority) = (request.method().clone(), request.uri().authority().unwrap().to_string());
                let mut body = request.into_body();
                let talk = async {
                    let mut send = respond.send_response(http::Response::new(()), false).unwrap();
                    let got = body.data().await.unwrap().unwrap();
                    send.send_data(Bytes::from([&b"echo "[..], &got].concat()), true).unwrap();
                    while body.data().await.is_some() {}
                };
                tokio::join!(talk, async { while connection.accept().await.is_some() {} });
                (method, authority)
            })
        });
        let mut client = TcpStream::connect(at).unwrap();
        client.write_all(b"hello").unwrap();
        assert_eq!(until(&mut client, b"hello"), "echo hello");
        assert_eq!(rest(&mut client), b"");
        drop(client);
        let method = if use_post { http::Method::POST } else { http::Method::CONNECT };
        assert_eq!(far.join().unwrap(), (method, "far.example:443".to_owned()));
    }
}
