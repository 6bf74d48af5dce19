//! What is looked at before a connection is served: ClientHellos, request lines, PROXY protocol headers.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use maille_xds::types::{self, listener, tcp_proxy};

use crate::certificates::Authority;
use crate::support::*;

fn proxy_protocol(optional: bool) -> listener::ListenerFilter {
    listener_filter(types::any(&types::proxy_protocol::ProxyProtocol {
        allow_requests_without_proxy_protocol: optional,
        ..Default::default()
    }))
}

fn http_inspector() -> listener::ListenerFilter {
    listener_filter(types::any(&types::http_inspector::HttpInspector::default()))
}

fn connect_plain(at: std::net::SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn tls_is_passed_through_by_the_name_it_asks_for() {
    let ca = Authority::new("ca");
    let (a, b) = (Server::tls("a", &ca.server(&["a.example"])), Server::tls("b", &ca.server(&["b.example"])));
    let at = free();
    let chains = vec![for_names(tcp("a"), &["a.example"]), for_names(tcp("b"), &["*.example"])];
    let mut listener = listener("l", at, chains);
    listener.listener_filters = vec![tls_inspector()];
    let _proxy = proxy(vec![listener], vec![cluster("a", a.address), cluster("b", b.address)]);
    let config = Arc::new(client(&ca.pem, None));
    assert!(ask_once(at, &config, "a.example").unwrap().1.starts_with("a\n"));
    assert!(ask_once(at, &config, "b.example").unwrap().1.starts_with("b\n"));
    assert!(connect(at, &config, "else.where").is_err());
    assert_eq!(a.seen.recv().unwrap().0.as_deref(), Some("a.example"), "the server gets the hello as it was");
}

#[test]
fn the_name_of_a_connection_is_the_name_of_its_cluster() {
    let ca = Authority::new("ca");
    let name = "outbound_.443_._.a.example";
    let server = Server::tls("a", &ca.server(&[name]));
    let at = free();
    let mut chain = tcp("ignored");
    let sni = types::sni_cluster::SniCluster::default();
    let config_type = Some(listener::filter::ConfigType::TypedConfig(types::any(&sni)));
    chain.filters.insert(0, listener::Filter { name: "sni_cluster".into(), config_type });
    let mut listener = listener("l", at, vec![chain]);
    listener.listener_filters = vec![tls_inspector()];
    let _proxy = proxy(vec![listener], vec![cluster(name, server.address)]);
    let config = Arc::new(client(&ca.pem, None));
    assert_eq!(ask_once(at, &config, name).unwrap().0, 200);
    assert!(connect(at, &config, "outbound_.80_._.a.example").is_err(), "there is no such cluster");
    let mut plain = connect_plain(at);
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(rest(&mut plain), b"");
}

#[test]
fn plain_text_and_tls_share_a_port() {
    let ca = Authority::new("ca");
    let (secure, plain, bytes) = (Server::plain("secure"), Server::plain("plain"), Server::plain("bytes"));
    let at = free();
    let mut with_tls = http("secure");
    with_tls.transport_socket = downstream_tls(common(&[&ca.server(&["a.example"])], None), false);
    with_tls.filter_chain_match =
        Some(listener::FilterChainMatch { transport_protocol: "tls".into(), ..Default::default() });
    let mut with_http = http("plain");
    with_http.filter_chain_match = Some(listener::FilterChainMatch {
        application_protocols: ["http/1.0", "http/1.1", "h2c"].map(str::to_owned).to_vec(),
        ..Default::default()
    });
    let mut listener = listener("l", at, vec![with_tls, with_http, tcp("bytes")]);
    listener.listener_filters = vec![tls_inspector(), http_inspector()];
    let clusters =
        vec![cluster("secure", secure.address), cluster("plain", plain.address), cluster("bytes", bytes.address)];
    let _proxy = proxy(vec![listener], clusters);
    let config = Arc::new(client(&ca.pem, None));
    assert!(ask_once(at, &config, "a.example").unwrap().1.starts_with("secure\n"));
    assert!(ask_plain(at, "a.example").1.starts_with("plain\n"));
    // Whatever is no HTTP goes as bytes; the server happens to take anything that ends with an empty line.
    let mut stream = connect_plain(at);
    stream.write_all(b"\x01\x02\r\n\r\n").unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    // A request that comes a byte at a time is still one.
    let mut slow = connect_plain(at);
    for byte in b"GET / HTTP/1.1\r\nhost: a\r\n\r\n" {
        slow.write_all(&[*byte]).unwrap();
        std::thread::yield_now();
    }
    let mut got = vec![0; 200];
    let n = slow.read(&mut got).unwrap();
    assert!(String::from_utf8_lossy(&got[..n]).starts_with("HTTP/1.1 200"));
}

/// Whoever says nothing is not waited for without end; a server that speaks first may have its way.
#[test]
fn row_20_filters_that_wait_for_bytes_do_not_wait_without_end() {
    let banner = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = banner.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in banner.incoming() {
            let _ = stream.unwrap().write_all(b"220 hello\r\n");
        }
    });
    let (strict, lenient) = (free(), free());
    let listeners = [(strict, false), (lenient, true)].map(|(at, goes_on)| {
        let mut listener = listener(&at.to_string(), at, vec![tcp("banner")]);
        listener.listener_filters = vec![tls_inspector()];
        listener.listener_filters_timeout = Some(types::Duration { seconds: 0, nanos: 300_000_000 });
        listener.continue_on_listener_filters_timeout = goes_on;
        listener
    });
    let _proxy = proxy(listeners.to_vec(), vec![cluster("banner", address)]);
    assert_eq!(rest(&mut connect_plain(strict)), b"");
    assert_eq!(rest(&mut connect_plain(lenient)), b"220 hello\r\n");
    let mut stalled = connect_plain(strict);
    stalled.write_all(b"\x16\x03\x01\x02\x00\x01").unwrap();
    assert_eq!(rest(&mut stalled), b"", "half a hello is none");
}

const LOCAL_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";

#[test]
fn row_30_a_header_is_believed_where_it_is_expected_and_nowhere_else() {
    let (with, optional, without) = (free(), free(), free());
    let filters = [(with, vec![proxy_protocol(false)]), (optional, vec![proxy_protocol(true)]), (without, vec![])];
    let listeners = filters.map(|(at, filters)| {
        let mut listener = listener(&at.to_string(), at, vec![http("server")]);
        listener.listener_filters = filters;
        listener
    });
    let server = Server::plain("one");
    let _proxy = proxy(listeners.to_vec(), vec![cluster("server", server.address)]);
    let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let v1 = b"PROXY TCP4 192.0.2.7 192.0.2.8 7000 80\r\n";
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0f\xc0\x00\x02\x07\xc0\x00\x02\x08\x1b\x58\x00\x50\x04\x00\x00";
    let crafted = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0e\xc0\x00\x02\x07\xc0\x00\x02\x08\x1b\x58\x00\x50\x04\x00";
    // A client on this machine goes by the machine's address.
    let own = maille_net::own_address().to_string();
    for (what, at, header, client) in [
        ("version 1", with, &v1[..], Some("192.0.2.7")),
        ("version 2", with, v2, Some("192.0.2.7")),
        ("a proxy for itself (CVE-2024-23327)", with, LOCAL_V2, Some(&*own)),
        ("none where there must be one", with, b"", None),
        ("a vector that is cut off", with, crafted, None),
        ("two", with, &[v1.as_slice(), v1].concat(), None),
        ("one where there may be one", optional, v1, Some("192.0.2.7")),
        ("none where there need not be one", optional, b"", Some(&*own)),
        ("one where none is expected", without, v1, None),
        ("version 2 where none is expected", without, v2, None),
    ] {
        let mut stream = connect_plain(at);
        stream.write_all(header).unwrap();
        let _ = stream.write_all(request);
        let got = String::from_utf8_lossy(&rest(&mut stream)).into_owned();
        match client {
            Some(client) => assert!(got.contains(&format!("x-forwarded-for: {client}\r\n")), "{what}: {got}"),
            None => assert!(got.is_empty() || got.starts_with("HTTP/1.1 400"), "{what}: {got}"),
        }
    }
}

/// A listener that sends connections where they were going.
fn passthrough(filter: listener::ListenerFilter) -> (std::net::SocketAddr, std::net::SocketAddr, maille_proxy::Handle) {
    let (at, admin) = (free(), free());
    let mut listener = listener("l", at, vec![tcp("passthrough")]);
    listener.listener_filters = vec![filter];
    let mut passthrough = cluster("passthrough", at);
    passthrough.cluster_discovery_type = Some(types::cluster::cluster::ClusterDiscoveryType::Type(4));
    passthrough.lb_policy = types::cluster::cluster::LbPolicy::ClusterProvided as i32;
    passthrough.load_assignment = None;
    (at, admin, start(vec![listener], vec![passthrough], Some(admin)))
}

/// Whoever comes without having been redirected is sent nowhere, least of all here again; nor does a header of the PROXY
/// protocol make a way to where it says.
#[test]
fn row_33_what_would_come_back_here_goes_nowhere() {
    let original = listener_filter(types::any(&types::original_dst::OriginalDst::default()));
    for (filter, header) in [(original, false), (proxy_protocol(false), true)] {
        let (at, admin, _proxy) = passthrough(filter);
        let mut stream = connect_plain(at);
        if header {
            let _ = stream.write_all(format!("PROXY TCP4 127.0.0.9 127.0.0.1 7000 {}\r\n", at.port()).as_bytes());
        }
        let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(rest(&mut stream), b"");
        let counted = counted(admin, "downstream_cx_total");
        assert_eq!(counted, 1, "the client's own connection and no other");
    }
}

#[test]
fn a_connection_ends_when_its_time_is_over() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = free();
    let forward = tcp_proxy::TcpProxy {
        stat_prefix: "tcp".into(),
        cluster_specifier: Some(tcp_proxy::tcp_proxy::ClusterSpecifier::Cluster("silent".into())),
        max_downstream_connection_duration: Some(types::Duration { seconds: 0, nanos: 200_000_000 }),
        ..Default::default()
    };
    let chains = vec![chain(types::any(&forward))];
    let _proxy = proxy(vec![listener("l", at, chains)], vec![cluster("silent", silent.local_addr().unwrap())]);
    assert_eq!(rest(&mut connect_plain(at)), b"");
}
