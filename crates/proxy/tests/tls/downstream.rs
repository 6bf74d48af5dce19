//! Clients that come by TLS.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;

use maille_xds::types::tls::tls_parameters::TlsProtocol;
use maille_xds::types::tls::{CertificateValidationContext, SubjectAltNameMatcher, TlsCertificate, TlsParameters};
use maille_xds::types::{self, matcher};
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize, SerialNumber};
use rustls::HandshakeKind;

use crate::certificates::{Authority, dns, uri};
use crate::support::*;

fn uri_is(exact: &str) -> SubjectAltNameMatcher {
    SubjectAltNameMatcher {
        san_type: 3,
        matcher: Some(matcher::StringMatcher {
            match_pattern: Some(matcher::string_matcher::MatchPattern::Exact(exact.into())),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn each_name_gets_its_own_chain_and_an_unknown_one_none() {
    let ca = Authority::new("ca");
    let at = free();
    let chain = |name: &str| {
        let mut chain = for_names(http("server"), &[name]);
        chain.transport_socket = downstream_tls(common(&[&ca.server(&[name])], None), false);
        chain
    };
    let mut listener = listener("l", at, vec![chain("a.example"), chain("*.b.example")]);
    listener.listener_filters = vec![tls_inspector()];
    let server = Server::plain("one");
    let _proxy = proxy(vec![listener], vec![cluster("server", server.address)]);
    let config = Arc::new(client(&ca.pem, None));
    let (status, body) = ask_once(at, &config, "a.example").unwrap();
    assert_eq!(status, 200);
    assert!(body.contains("x-forwarded-proto: https"), "{body}");
    assert_eq!(ask_once(at, &config, "x.b.example").unwrap().0, 200);
    assert!(connect(at, &config, "c.example").is_err(), "nobody serves this name");
    let mut plain = TcpStream::connect(at).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").unwrap();
    assert_eq!(rest(&mut plain), b"", "plain text never gets past TLS");
}

#[test]
fn of_several_certificates_a_client_gets_the_one_for_its_name_and_its_algorithms() {
    let ca = Authority::new("ca");
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let rsa = ca.sign(rsa, |params| params.subject_alt_names = vec![dns("a.example")]);
    let (ecdsa, other) = (ca.server(&["a.example"]), ca.server(&["*.other.example"]));
    let at = free();
    let mut chain = http("server");
    chain.transport_socket = downstream_tls(common(&[&rsa, &ecdsa, &other], None), false);
    let server = Server::plain("one");
    let _proxy = proxy(vec![listener("l", at, vec![chain])], vec![cluster("server", server.address)]);
    let config = Arc::new(client(&ca.pem, None));
    let shown = |name: &str| {
        let stream = connect(at, &config, name).unwrap();
        stream.conn.peer_certificates().unwrap()[0].clone()
    };
    assert_eq!(shown("a.example"), ecdsa.der().0[0]);
    assert_eq!(shown("x.other.example"), other.der().0[0]);
    let openssl = |algorithms: &str| {
        let child = Command::new("openssl")
            .args(["s_client", "-connect", &at.to_string(), "-servername", "a.example", "-sigalgs", algorithms])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        String::from_utf8_lossy(&child.stdout).into_owned()
    };
    assert!(openssl("RSA-PSS+SHA256").contains("Peer signature type: RSA-PSS"));
    assert!(openssl("ECDSA+SHA256:RSA-PSS+SHA256").contains("Peer signature type: ECDSA"));
}

#[test]
fn only_the_right_clients_are_let_in() {
    let (ca, stranger) = (Authority::new("ca"), Authority::new("stranger"));
    let id = "spiffe://td/ns/a/sa/b";
    let validation = CertificateValidationContext {
        match_typed_subject_alt_names: vec![uri_is(id)],
        crl: inline(&ca.revoked(&[77])),
        ..trusting(&ca.pem)
    };
    let at = free();
    let mut chain = http("server");
    chain.transport_socket = downstream_tls(common(&[&ca.server(&["a.example"])], Some(validation)), true);
    let server = Server::plain("one");
    let _proxy = proxy(vec![listener("l", at, vec![chain])], vec![cluster("server", server.address)]);
    let revoked = ca.sign(KeyPair::generate().unwrap(), |params| {
        params.subject_alt_names = vec![uri(id)];
        params.serial_number = Some(SerialNumber::from(77_u64));
    });
    let expired = ca.sign(KeyPair::generate().unwrap(), |params| {
        params.subject_alt_names = vec![uri(id)];
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    for (who, identity, welcome) in [
        ("the right one", Some(ca.workload(id)), true),
        ("nobody", None, false),
        ("another", Some(ca.workload("spiffe://td/ns/a/sa/other")), false),
        ("a stranger with the name", Some(stranger.workload(id)), false),
        ("one whose certificate was revoked", Some(revoked), false),
        ("one whose time is over", Some(expired), false),
    ] {
        let config = Arc::new(client(&ca.pem, identity.as_ref()));
        let answer = ask_once(at, &config, "a.example");
        assert_eq!(answer.as_ref().is_ok_and(|(status, _)| *status == 200), welcome, "{who}: {answer:?}");
    }
}

#[test]
fn a_client_may_show_a_certificate_where_none_is_required() {
    let (ca, stranger) = (Authority::new("ca"), Authority::new("stranger"));
    let at = free();
    let mut chain = http("server");
    chain.transport_socket = downstream_tls(common(&[&ca.server(&["a.example"])], Some(trusting(&ca.pem))), false);
    let server = Server::plain("one");
    let _proxy = proxy(vec![listener("l", at, vec![chain])], vec![cluster("server", server.address)]);
    for (identity, welcome) in [
        (None, true),
        (Some(ca.workload("spiffe://td/ns/a/sa/b")), true),
        (Some(stranger.workload("spiffe://td/ns/a/sa/b")), false),
    ] {
        let config = Arc::new(client(&ca.pem, identity.as_ref()));
        assert_eq!(ask_once(at, &config, "a.example").is_ok(), welcome);
    }
}

#[test]
fn versions_suites_and_protocols_are_as_configured() {
    let ca = Authority::new("ca");
    let at = free();
    let mut tls = common(&[&ca.server(&["a.example"])], None);
    tls.alpn_protocols = vec!["http/1.1".into()];
    tls.tls_params = Some(TlsParameters {
        tls_maximum_protocol_version: TlsProtocol::TlSv12.into(),
        cipher_suites: vec!["ECDHE-ECDSA-AES256-GCM-SHA384".into()],
        ..Default::default()
    });
    let mut chain = http("server");
    chain.transport_socket = downstream_tls(tls, false);
    let server = Server::plain("one");
    let _proxy = proxy(vec![listener("l", at, vec![chain])], vec![cluster("server", server.address)]);
    let offering = |names: &[&str]| {
        let mut config = client(&ca.pem, None);
        config.alpn_protocols = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = connect(at, &Arc::new(config), "a.example").unwrap();
        assert_eq!(stream.conn.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
        let suite = stream.conn.negotiated_cipher_suite().unwrap().suite();
        assert_eq!(suite, rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384);
        stream.conn.alpn_protocol().map(<[u8]>::to_vec)
    };
    assert_eq!(offering(&["h2", "http/1.1"]).as_deref(), Some(&b"http/1.1"[..]));
    assert_eq!(offering(&["istio"]), None, "a client that wants something else is served without");
    assert_eq!(offering(&[]), None);
}

#[test]
fn a_certificate_is_replaced_under_connections_that_go_on() {
    let ca = Authority::new("ca");
    let folder = tempfile::tempdir().unwrap();
    let (chain_file, key_file) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    let write = |identity: &crate::certificates::Identity| {
        std::fs::write(&chain_file, &identity.chain).unwrap();
        std::fs::write(&key_file, &identity.key).unwrap();
    };
    let (old, new) = (ca.server(&["a.example"]), ca.server(&["a.example"]));
    write(&old);
    let at = free();
    let mut tls = common(&[], None);
    tls.tls_certificates = vec![TlsCertificate {
        certificate_chain: file(&chain_file),
        private_key: file(&key_file),
        ..Default::default()
    }];
    let mut chain = http("server");
    chain.transport_socket = downstream_tls(tls, false);
    let server = Server::plain("one");
    let _proxy = proxy(vec![listener("l", at, vec![chain])], vec![cluster("server", server.address)]);
    let config = Arc::new(client(&ca.pem, None));
    let mut first = connect(at, &config, "a.example").unwrap();
    assert_eq!(first.conn.peer_certificates().unwrap()[0], old.der().0[0]);
    // A certificate without its key is not used: what was there is served on.
    std::fs::write(&chain_file, &new.chain).unwrap();
    assert!(connect(at, &Arc::new(client(&ca.pem, None)), "a.example").is_ok());
    write(&new);
    eventually("the new certificate is shown", || {
        let fresh = Arc::new(client(&ca.pem, None));
        let stream = connect(at, &fresh, "a.example").unwrap();
        stream.conn.peer_certificates().unwrap()[0] == new.der().0[0]
    });
    assert_eq!(ask(&mut first, "a.example").unwrap().0, 200, "the old connection goes on");
}

#[test]
fn a_chain_whose_secret_is_not_there_serves_nobody_and_the_others_do() {
    let ca = Authority::new("ca");
    let at = free();
    let mut missing = for_names(http("server"), &["a.example"]);
    let mut tls = common(&[], None);
    tls.tls_certificates = vec![TlsCertificate {
        certificate_chain: file("/does/not/exist.crt".as_ref()),
        private_key: file("/does/not/exist.key".as_ref()),
        ..Default::default()
    }];
    missing.transport_socket = downstream_tls(tls, false);
    let mut there = for_names(http("server"), &["b.example"]);
    there.transport_socket = downstream_tls(common(&[&ca.server(&["b.example"])], None), false);
    let mut listener = listener("l", at, vec![missing, there]);
    listener.listener_filters = vec![tls_inspector()];
    let server = Server::plain("one");
    let proxy = proxy(vec![listener], vec![cluster("server", server.address)]);
    let config = Arc::new(client(&ca.pem, None));
    assert!(connect(at, &config, "a.example").is_err());
    assert_eq!(ask_once(at, &config, "b.example").unwrap().0, 200);
    let refused = proxy.status().borrow().refused.clone();
    assert!(refused.iter().any(|why| why.contains("/does/not/exist.crt")), "{refused:?}");
}

/// Sessions are taken up again within one configuration, and never at another: not even with the same name and certificate.
#[test]
fn row_26_a_session_is_taken_up_only_where_it_began() {
    let ca = Authority::new("ca");
    let (open, closed) = (free(), free());
    let identity = ca.server(&["a.example"]);
    let of = |at: std::net::SocketAddr, require: bool| {
        let mut chain = http("server");
        let validation = require.then(|| trusting(&ca.pem));
        chain.transport_socket = downstream_tls(common(&[&identity], validation), require);
        listener(&at.to_string(), at, vec![chain])
    };
    let server = Server::plain("one");
    let _proxy = proxy(vec![of(open, false), of(closed, true)], vec![cluster("server", server.address)]);
    let client_with = |own| {
        let mut config = client(&ca.pem, own);
        config.resumption = rustls::client::Resumption::store(Arc::new(OneSession::default()));
        Arc::new(config)
    };
    let visit = |at, config: &Arc<rustls::ClientConfig>| {
        let mut stream = connect(at, config, "a.example")?;
        ask(&mut stream, "a.example")?;
        Ok::<_, std::io::Error>(stream.conn.handshake_kind())
    };
    let nobody = client_with(None);
    assert_eq!(visit(open, &nobody).unwrap(), Some(HandshakeKind::Full));
    assert_eq!(visit(open, &nobody).unwrap(), Some(HandshakeKind::Resumed), "it can be taken up where it began");
    assert!(visit(closed, &nobody).is_err(), "a ticket of one listener is no certificate at the other");
    // The client with a certificate is let in, by a handshake of its own.
    let somebody = client_with(Some(&ca.workload("spiffe://td/ns/a/sa/b")));
    visit(open, &somebody).unwrap();
    assert_ne!(visit(closed, &somebody).unwrap(), Some(HandshakeKind::Resumed));
}

/// When those who are trusted change, sessions from before count no more.
#[test]
fn row_26_a_session_does_not_outlive_the_trust_it_began_with() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("ca.crt");
    std::fs::write(&roots, &ca.pem).unwrap();
    let at = free();
    let validation = CertificateValidationContext { trusted_ca: file(&roots), ..Default::default() };
    let mut chain = http("server");
    chain.transport_socket = downstream_tls(common(&[&ca.server(&["a.example"])], Some(validation)), true);
    let server = Server::plain("one");
    let _proxy = proxy(vec![listener("l", at, vec![chain])], vec![cluster("server", server.address)]);
    let config = Arc::new(client(&ca.pem, Some(&ca.workload("spiffe://td/ns/a/sa/b"))));
    let visit = || {
        let mut stream = connect(at, &config, "a.example")?;
        ask(&mut stream, "a.example")?;
        Ok::<_, std::io::Error>(stream.conn.handshake_kind())
    };
    visit().unwrap();
    assert_eq!(visit().unwrap(), Some(HandshakeKind::Resumed));
    std::fs::write(&roots, &other.pem).unwrap();
    eventually("the client is no longer let in", || visit().is_err());
}

/// Whoever says two things about who they are is nobody.
#[test]
fn row_27_a_client_with_two_ids_is_refused() {
    let ca = Authority::new("ca");
    let at = free();
    let id = "spiffe://td/ns/a/sa/b";
    let validation =
        CertificateValidationContext { match_typed_subject_alt_names: vec![uri_is(id)], ..trusting(&ca.pem) };
    let mut chain = http("server");
    chain.transport_socket = downstream_tls(common(&[&ca.server(&["a.example"])], Some(validation)), true);
    let server = Server::plain("one");
    let _proxy = proxy(vec![listener("l", at, vec![chain])], vec![cluster("server", server.address)]);
    for (ids, welcome) in [
        (vec![id], true),
        (vec![id, "spiffe://td/ns/a/sa/admin"], false),
        (vec!["https://else.example", id], false),
        (vec![id, id], false),
    ] {
        let identity = ca.sign(KeyPair::generate().unwrap(), |params| {
            params.subject_alt_names = ids.iter().map(|id| uri(id)).collect();
        });
        let config = Arc::new(client(&ca.pem, Some(&identity)));
        assert_eq!(ask_once(at, &config, "a.example").is_ok(), welcome, "{ids:?}");
    }
}

/// Whoever does not finish a handshake is let go.
#[test]
fn row_20_a_handshake_that_does_not_end_is_given_up() {
    let ca = Authority::new("ca");
    let at = free();
    let mut chain = http("server");
    chain.transport_socket = downstream_tls(common(&[&ca.server(&["a.example"])], None), false);
    chain.transport_socket_connect_timeout = Some(types::Duration { seconds: 0, nanos: 300_000_000 });
    let server = Server::plain("one");
    let _proxy = proxy(vec![listener("l", at, vec![chain])], vec![cluster("server", server.address)]);
    for start in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(start).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "closed, with nothing said");
    }
    assert_eq!(ask_once(at, &Arc::new(client(&ca.pem, None)), "a.example").unwrap().0, 200);
}

#[test]
fn large_bodies_come_through_whole() {
    let ca = Authority::new("ca");
    let at = free();
    let mut chain = tcp("echo");
    chain.transport_socket = downstream_tls(common(&[&ca.server(&["a.example"])], None), false);
    let echo = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let _proxy = proxy(vec![listener("l", at, vec![chain])], vec![cluster("echo", echo.local_addr().unwrap())]);
    std::thread::spawn(move || {
        let (mut stream, _) = echo.accept().unwrap();
        std::io::copy(&mut stream.try_clone().unwrap(), &mut stream).unwrap();
    });
    let mut stream = connect(at, &Arc::new(client(&ca.pem, None)), "a.example").unwrap();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|i| ((i * 31) >> 3) as u8).collect();
    let (mut written, mut got) = (0, Vec::new());
    while got.len() < sent.len() {
        let more = &sent[written..(written + 50_000).min(sent.len())];
        stream.write_all(more).unwrap();
        written += more.len();
        let mut part = vec![0; more.len()];
        stream.read_exact(&mut part).unwrap();
        got.extend(part);
    }
    assert!(got == sent);
}

/// A client that keeps one session and offers it everywhere.
#[derive(Debug, Default)]
struct OneSession(std::sync::Mutex<Vec<rustls::client::Tls13ClientSessionValue>>);

impl rustls::client::ClientSessionStore for OneSession {
    fn set_kx_hint(&self, _: rustls::pki_types::ServerName<'static>, _: rustls::NamedGroup) {}

    fn kx_hint(&self, _: &rustls::pki_types::ServerName<'_>) -> Option<rustls::NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: rustls::pki_types::ServerName<'static>, _: rustls::client::Tls12ClientSessionValue) {
    }

    fn tls12_session(&self, _: &rustls::pki_types::ServerName<'_>) -> Option<rustls::client::Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &rustls::pki_types::ServerName<'static>) {}

    fn insert_tls13_ticket(
        &self,
        _: rustls::pki_types::ServerName<'static>,
        value: rustls::client::Tls13ClientSessionValue,
    ) {
        self.0.lock().unwrap().push(value);
    }

    fn take_tls13_ticket(
        &self,
        _: &rustls::pki_types::ServerName<'static>,
    ) -> Option<rustls::client::Tls13ClientSessionValue> {
        self.0.lock().unwrap().pop()
    }
}
