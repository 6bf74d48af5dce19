//! A real Envoy on either side: requests go from it to us, from us to it, and from there to a server of ours.
//!
//! `ENVOY` names the binary, else it is `envoy` on the PATH. Without one these tests say so and pass; under `CI=true` they fail.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Response};

use crate::peers::{PATIENCE, Server2, connect_to, get, http2, post, read, run, send, whole};
use crate::script::Proxy;

fn envoy() -> Option<PathBuf> {
    let named = std::env::var_os("ENVOY").map(PathBuf::from);
    let found = named.or_else(|| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|dir| dir.join("envoy")).find(|file| file.is_file())
    });
    if found.is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "no envoy: set ENVOY or put one on the PATH");
        eprintln!("SKIPPED: no envoy; set ENVOY or put one on the PATH");
    }
    found
}

/// An Envoy that speaks HTTP/2 on both sides, and forwards what comes at one port to another.
struct Envoy(Child);

impl Envoy {
    fn start(binary: PathBuf, ways: &[(SocketAddr, SocketAddr)]) -> Envoy {
        let mut config = String::from("static_resources:\n  listeners:\n");
        for (from, to) in ways {
            config += &format!(
                r#"  - address: {{socket_address: {{address: {}, port_value: {}}}}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: way
          codec_type: HTTP2
          http2_protocol_options: {{allow_connect: true}}
          upgrade_configs: [{{upgrade_type: websocket}}]
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: "/"}}, route: {{cluster: "{to}", timeout: 0s}}}}]
          http_filters:
          - name: router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
"#,
                from.ip(),
                from.port()
            );
        }
        config += "  clusters:\n";
        for (_, to) in ways {
            config += &format!(
                r#"  - name: "{to}"
    connect_timeout: 5s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: "{to}"
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}]}}]
"#,
                to.ip(),
                to.port()
            );
        }
        let process = Command::new(binary)
            .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "error", "--config-yaml", &config])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let envoy = Envoy(process);
        for (from, _) in ways {
            let mut left = PATIENCE.as_millis() / 20;
            while TcpStream::connect(from).is_err() {
                assert!(left > 0, "envoy does not listen on {from}");
                left -= 1;
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        envoy
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free() -> SocketAddr {
    let ip = Ipv4Addr::LOCALHOST.into();
    SocketAddr::new(ip, maille_net::free_port(ip).unwrap())
}

#[test]
fn a_real_envoy_before_and_behind() {
    let Some(binary) = envoy() else { return };
    run(async {
        let mut server = Server2::start().await;
        let behind = free();
        let proxy = Proxy::build(behind, http2);
        let before = free();
        let _envoy = Envoy::start(binary, &[(before, proxy.http), (behind, server.address)]);
        let mut client = connect_to(before).await;

        // Headers, a large body and trailers, both ways.
        let big = vec![b'q'; 3 << 20];
        let (response, mut out) = client.send_request(post("/big?x=1"), false).unwrap();
        let sender = tokio::task::spawn_local({
            let big = big.clone();
            async move {
                send(&mut out, &big, false).await.unwrap();
                let mut trailers = HeaderMap::new();
                trailers.insert("x-t", "1".parse().unwrap());
                out.send_trailers(trailers).unwrap();
            }
        });
        let asked = server.next().await;
        assert_eq!(asked.request.uri().path_and_query().unwrap().as_str(), "/big?x=1");
        let mut respond = asked.respond;
        let (body, _, error) = read(asked.request.into_body()).await;
        assert!(error.is_none() && body == big);
        sender.await.unwrap();
        let mut back = respond.send_response(Response::new(()), false).unwrap();
        let receiver = tokio::task::spawn_local(async move { whole(response.await.unwrap()).await });
        send(&mut back, &big, false).await.unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        back.send_trailers(trailers).unwrap();
        let answer = receiver.await.unwrap();
        assert!(answer.body == big);
        assert_eq!(answer.trailer("grpc-status"), "0");

        // Many at a time.
        let mut responses = Vec::new();
        for n in 0..100 {
            let (response, _) =
                client.clone().ready().await.unwrap().send_request(get(&format!("/{n}")), true).unwrap();
            responses.push(tokio::task::spawn_local(async move { whole(response.await.unwrap()).await }));
        }
        for _ in 0..100 {
            let asked = server.next().await;
            let path = asked.path().to_owned();
            asked.answer(200, path.as_bytes()).await;
        }
        for (n, response) in responses.into_iter().enumerate() {
            assert_eq!(response.await.unwrap().body, format!("/{n}").as_bytes());
        }

        // Who gives up is heard at the other end, and who breaks off.
        let (response, mut out) = client.send_request(post("/"), false).unwrap();
        let mut asked = server.next().await;
        out.send_reset(Reason::CANCEL);
        drop(response);
        assert!(std::future::poll_fn(|cx| asked.respond.poll_reset(cx)).await.is_ok());
        let (response, _) = client.send_request(get("/"), true).unwrap();
        let mut asked = server.next().await;
        let mut stream = asked.respond.send_response(Response::new(()), false).unwrap();
        stream.send_data(Bytes::from("begin"), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "begin");
        stream.send_reset(Reason::INTERNAL_ERROR);
        let error = body.data().await.unwrap().unwrap_err();
        assert_eq!((error.is_reset(), error.reason()), (true, Some(Reason::INTERNAL_ERROR)));
    });
}
