//! Servers that are reached by TLS, or told who the client is.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::channel;

use maille_xds::types::tls::{CertificateValidationContext, SubjectAltNameMatcher, UpstreamTlsContext};
use maille_xds::types::{self, cluster, core, matcher, upstream_http};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::certificates::{Authority, Identity};
use crate::support::*;

fn secure(server: SocketAddr, validation: CertificateValidationContext, own: &[&Identity]) -> cluster::Cluster {
    let mut out = cluster("server", server);
    out.transport_socket = upstream_tls(common(own, Some(validation)), "a.example");
    out
}

fn dns_is(name: &str) -> SubjectAltNameMatcher {
    SubjectAltNameMatcher {
        san_type: 2,
        matcher: Some(matcher::StringMatcher {
            match_pattern: Some(matcher::string_matcher::MatchPattern::Exact(name.into())),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The answer that comes through a proxy with this cluster.
fn through(cluster: cluster::Cluster) -> (u16, String) {
    let at = free();
    let _proxy = proxy(vec![listener("l", at, vec![http("server")])], vec![cluster]);
    ask_plain(at, "a.example")
}

#[test]
fn servers_are_who_they_have_to_be() {
    let (ca, stranger) = (Authority::new("ca"), Authority::new("stranger"));
    let server = Server::tls("one", &ca.server(&["a.example", "*.b.example"]));
    let of = |ca: &Authority, names: &[&str]| CertificateValidationContext {
        match_typed_subject_alt_names: names.iter().map(|name| dns_is(name)).collect(),
        ..trusting(&ca.pem)
    };
    let (status, body) = through(secure(server.address, of(&ca, &["a.example"]), &[]));
    assert_eq!((status, body.starts_with("one\n")), (200, true));
    assert_eq!(server.seen.recv().unwrap().0.as_deref(), Some("a.example"));
    assert_eq!(through(secure(server.address, of(&ca, &[]), &[])).0, 200);
    assert_eq!(through(secure(server.address, of(&ca, &["x.b.example"]), &[])).0, 200);
    // As Envoy 1.40 does: why is in the log.
    let refused = "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure";
    for validation in [of(&ca, &["c.example"]), of(&stranger, &[]), of(&ca, &["x.y.b.example"])] {
        let (status, body) = through(secure(server.address, validation, &[]));
        assert_eq!((status, body.as_str()), (503, refused));
    }
}

#[test]
fn we_show_our_certificate_when_asked() {
    let ca = Authority::new("ca");
    let mut roots = RootCertStore::empty();
    let authority = rustls::pki_types::pem::PemObject::from_pem_slice(ca.pem.as_bytes()).unwrap();
    roots.add(authority).unwrap();
    let provider = maille_identity::verify::provider();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let (chain, key) = ca.server(&["a.example"]).der();
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap();
    let server = Server::start("one", Some(Arc::new(config)));
    let own = ca.workload("spiffe://td/ns/a/sa/b");
    assert_eq!(through(secure(server.address, trusting(&ca.pem), &[&own])).0, 200);
    assert!(server.seen.recv().unwrap().1);
    assert_eq!(through(secure(server.address, trusting(&ca.pem), &[])).0, 503);
}

#[test]
fn the_request_decides_which_name_is_asked_for_and_checked() {
    let ca = Authority::new("ca");
    let server = Server::tls("one", &ca.server(&["a.example", "b.example"]));
    let mut cluster = cluster("server", server.address);
    cluster.transport_socket = upstream_tls(common(&[], Some(trusting(&ca.pem))), "");
    let options = upstream_http::HttpProtocolOptions {
        upstream_http_protocol_options: Some(core::UpstreamHttpProtocolOptions {
            auto_sni: true,
            auto_san_validation: true,
            ..Default::default()
        }),
        upstream_protocol_options: Some(
            upstream_http::http_protocol_options::UpstreamProtocolOptions::ExplicitHttpConfig(
                upstream_http::http_protocol_options::ExplicitHttpConfig {
                    protocol_config: Some(
                        upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig::HttpProtocolOptions(
                            Default::default(),
                        ),
                    ),
                },
            ),
        ),
        ..Default::default()
    };
    let name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    cluster.typed_extension_protocol_options.insert(name.into(), types::any(&options));
    let at = free();
    let _proxy = proxy(vec![listener("l", at, vec![http("server")])], vec![cluster]);
    for name in ["a.example", "b.example", "a.example"] {
        assert_eq!(ask_plain(at, name).0, 200, "{name}");
    }
    // One connection for each name, and the third request on the first of them.
    let asked: Vec<_> = server.seen.try_iter().map(|(name, _)| name.unwrap()).collect();
    assert_eq!(asked, ["a.example", "b.example"]);
    assert_eq!(ask_plain(at, "c.example").0, 503);
}

#[test]
fn connections_made_for_one_trust_are_not_used_for_another() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("ca.crt");
    std::fs::write(&roots, &ca.pem).unwrap();
    let server = Server::tls("one", &ca.server(&["a.example"]));
    let validation = CertificateValidationContext { trusted_ca: file(&roots), ..Default::default() };
    let at = free();
    let clusters = vec![secure(server.address, validation, &[])];
    let _proxy = proxy(vec![listener("l", at, vec![http("server")])], clusters);
    let mut client = std::net::TcpStream::connect(at).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(ask(&mut client, "a.example").unwrap().0, 200);
    assert_eq!(ask(&mut client, "a.example").unwrap().0, 200);
    assert_eq!(server.seen.try_iter().count(), 1, "both requests went by one connection");
    std::fs::write(&roots, &other.pem).unwrap();
    eventually("the server is no longer believed", || ask(&mut client, "a.example").unwrap().0 == 503);
    std::fs::write(&roots, &ca.pem).unwrap();
    eventually("the server is believed again", || ask(&mut client, "a.example").unwrap().0 == 200);
}

#[test]
fn hosts_are_reached_by_tls_or_not_as_their_metadata_says() {
    let ca = Authority::new("ca");
    let (with, without) = (Server::tls("with", &ca.server(&["a.example"])), Server::plain("without"));
    let mut cluster = cluster("server", with.address);
    let text = types::Value { kind: Some(types::ValueKind::StringValue("istio".into())) };
    let fields = types::Struct { fields: [("tlsMode".to_owned(), text)].into() };
    let hosts = &mut cluster.load_assignment.as_mut().unwrap().endpoints[0].lb_endpoints;
    hosts[0].metadata = Some(core::Metadata {
        filter_metadata: [("envoy.transport_socket_match".to_owned(), fields.clone())].into(),
        ..Default::default()
    });
    let plain = super::support::cluster("server", without.address);
    hosts.extend(plain.load_assignment.unwrap().endpoints[0].lb_endpoints.clone());
    cluster.transport_socket_matches = vec![
        cluster::cluster::TransportSocketMatch {
            name: "tls".into(),
            r#match: Some(fields),
            transport_socket: upstream_tls(common(&[], Some(trusting(&ca.pem))), "a.example"),
        },
        cluster::cluster::TransportSocketMatch {
            name: "plain".into(),
            r#match: Some(types::Struct::default()),
            transport_socket: None,
        },
    ];
    let at = free();
    let _proxy = proxy(vec![listener("l", at, vec![http("server")])], vec![cluster]);
    let mut names: Vec<String> =
        (0..4).map(|_| ask_plain(at, "a.example").1.lines().next().unwrap().to_owned()).collect();
    names.sort();
    assert_eq!(names, ["with", "with", "without", "without"]);
}

#[test]
fn bytes_go_by_tls_too() {
    let ca = Authority::new("ca");
    let server = Server::tls("one", &ca.server(&["a.example"]));
    let at = free();
    let clusters = vec![secure(server.address, trusting(&ca.pem), &[])];
    let _proxy = proxy(vec![listener("l", at, vec![tcp("server")])], clusters);
    assert!(ask_plain(at, "a.example").1.starts_with("one\n"));
}

#[test]
fn a_server_is_told_who_the_client_is() {
    for (version, start) in [(0, &b"PROXY TCP4 127.0.0.1 127.0.0.1 "[..]), (1, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c")]
    {
        for with_http in [false, true] {
            let socket_ = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut cluster = cluster("server", socket_.local_addr().unwrap());
            cluster.transport_socket =
                socket(types::any(&types::proxy_protocol_upstream::ProxyProtocolUpstreamTransport {
                    config: Some(core::ProxyProtocolConfig { version, ..Default::default() }),
                    transport_socket: socket(types::any(&types::raw_buffer::RawBuffer::default())),
                    ..Default::default()
                }));
            let at = free();
            let chain = if with_http { http("server") } else { tcp("server") };
            let _proxy = proxy(vec![listener("l", at, vec![chain])], vec![cluster]);
            let mut client = std::net::TcpStream::connect(at).unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
            let (mut server, _) = socket_.accept().unwrap();
            server.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut got = vec![0; start.len()];
            server.read_exact(&mut got).unwrap();
            assert_eq!(got, start);
            if version == 0 {
                let (from, to) = (client.local_addr().unwrap().port(), at.port());
                let expected = format!("{from} {to}\r\n");
                let mut got = vec![0; expected.len()];
                server.read_exact(&mut got).unwrap();
                assert_eq!(String::from_utf8(got).unwrap(), expected);
            }
        }
    }
}

/// What a server says in the clear, before or instead of its handshake, is nobody's answer.
#[test]
fn row_32_plain_text_before_the_handshake_is_no_answer() {
    let ca = Authority::new("ca");
    let early = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nevil\n";
    for at_once in [true, false] {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let (done, finished) = channel();
        std::thread::spawn(move || {
            let (mut stream, _) = socket.accept().unwrap();
            if !at_once {
                // After the hello, as if in answer to it.
                let _ = stream.read(&mut [0; 16]);
            }
            let _ = stream.write_all(early);
            let _ = stream.read(&mut [0; 4096]);
            let _ = done.send(());
        });
        let (status, body) = through(secure(address, trusting(&ca.pem), &[]));
        assert_eq!(status, 503);
        assert!(body.ends_with("reset reason: remote connection failure"), "{body}");
        finished.recv_timeout(PATIENCE).unwrap();
    }
}

/// Nor are bytes in the clear in front of a good handshake.
#[test]
fn row_32_plain_text_in_front_of_a_good_handshake_spoils_it() {
    let ca = Authority::new("ca");
    let good = Server::tls("good", &ca.server(&["a.example"]));
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut client, _) = socket.accept().unwrap();
        let _ = client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nevil\n");
        let mut server = std::net::TcpStream::connect(good.address).unwrap();
        let (mut a, mut b) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut a, &mut b));
        let _ = std::io::copy(&mut server, &mut client);
    });
    let (status, body) = through(secure(address, trusting(&ca.pem), &[]));
    assert_eq!(status, 503);
    assert!(!body.contains("evil"), "{body}");
}

#[test]
fn a_handshake_counts_as_connecting() {
    let ca = Authority::new("ca");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut cluster = secure(silent.local_addr().unwrap(), trusting(&ca.pem), &[]);
    cluster.connect_timeout = Some(types::Duration { seconds: 0, nanos: 300_000_000 });
    let (status, body) = through(cluster);
    assert_eq!(status, 503);
    assert!(body.contains("connection timeout"), "{body}");
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let ca = Authority::new("ca");
    let context = UpstreamTlsContext {
        common_tls_context: Some(common(
            &[],
            Some(CertificateValidationContext {
                match_typed_subject_alt_names: vec![dns_is("a.example")],
                ..Default::default()
            }),
        )),
        ..Default::default()
    };
    let mut proto = cluster("server", free());
    proto.transport_socket = socket(types::any(&context));
    let refused = maille_proxy::compile::cluster(&proto).unwrap_err().to_string();
    assert!(refused.contains("names are worth nothing without a trusted_ca"), "{refused}");
    let mut mixed = ca.server(&["a.example"]);
    mixed.key = ca.server(&["b.example"]).key;
    proto.transport_socket = upstream_tls(common(&[&mixed], None), "");
    let refused = maille_proxy::compile::cluster(&proto).unwrap_err().to_string();
    assert!(refused.contains("tls_certificates[0]: the private key does not belong"), "{refused}");
    assert!(!refused.contains("PRIVATE KEY"), "{refused}");
}
