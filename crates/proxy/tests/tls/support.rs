//! A proxy with what a test wants of it, servers with and without TLS, and a client that says what came of its handshake.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use maille_proxy::{Handle, Options, run_fixed};
use maille_xds::types::core::data_source::Specifier;
use maille_xds::types::core::{self, Address, DataSource, Node, SocketAddress, address, socket_address};
use maille_xds::types::tls::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, TlsCertificate, UpstreamTlsContext,
    common_tls_context::ValidationContextType,
};
use maille_xds::types::{self, cluster, endpoint, hcm, listener, route, router, tcp_proxy};
use maille_xds::{Resource, TypeUrl};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::certificates::Identity;

/// Long enough for any machine; only what is broken takes as long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Starts a proxy with these listeners and clusters.
pub(crate) fn proxy(listeners: Vec<listener::Listener>, clusters: Vec<cluster::Cluster>) -> Handle {
    start(listeners, clusters, None)
}

/// The same, with an admin endpoint.
pub(crate) fn start(
    listeners: Vec<listener::Listener>,
    clusters: Vec<cluster::Cluster>,
    admin: Option<SocketAddr>,
) -> Handle {
    let count = listeners.len();
    let encode = |name: &str, message: &dyn Fn(&str) -> Resource| message(name);
    let listeners = listeners.iter().map(|l| encode(&l.name, &|name| Resource::encode(name, l))).collect();
    let clusters = clusters.iter().map(|c| encode(&c.name, &|name| Resource::encode(name, c))).collect();
    let mut options = Options::new(Node::default(), "");
    options.concurrency = 1;
    let otherwise = maille_proxy::run::Otherwise::Without;
    options.endpoints.admin = admin.map(|address| maille_proxy::run::Bind { address, otherwise });
    let handle = run_fixed(options, vec![(TypeUrl::Cluster, clusters), (TypeUrl::Listener, listeners)]).unwrap();
    let status = handle.status();
    for _ in 0..PATIENCE.as_millis() {
        if status.borrow().listening.len() == count {
            return handle;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("{:?}", status.borrow());
}

pub(crate) fn free() -> SocketAddr {
    let ip = Ipv4Addr::LOCALHOST.into();
    SocketAddr::new(ip, maille_net::free_port(ip).unwrap())
}

pub(crate) fn inline(text: &str) -> Option<DataSource> {
    Some(DataSource { specifier: Some(Specifier::InlineString(text.into())), ..Default::default() })
}

pub(crate) fn file(path: &std::path::Path) -> Option<DataSource> {
    let path = path.to_str().unwrap().to_owned();
    Some(DataSource { specifier: Some(Specifier::Filename(path)), ..Default::default() })
}

/// What both sides of TLS have in common.
pub(crate) fn common(identities: &[&Identity], validation: Option<CertificateValidationContext>) -> CommonTlsContext {
    let certificate = |identity: &&Identity| TlsCertificate {
        certificate_chain: inline(&identity.chain),
        private_key: inline(&identity.key),
        ..Default::default()
    };
    CommonTlsContext {
        tls_certificates: identities.iter().map(certificate).collect(),
        validation_context_type: validation.map(ValidationContextType::ValidationContext),
        ..Default::default()
    }
}

pub(crate) fn trusting(pem: &str) -> CertificateValidationContext {
    CertificateValidationContext { trusted_ca: inline(pem), ..Default::default() }
}

pub(crate) fn downstream_tls(common: CommonTlsContext, require: bool) -> Option<core::TransportSocket> {
    let context = DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: Some(types::BoolValue { value: require }),
        ..Default::default()
    };
    socket(types::any(&context))
}

pub(crate) fn upstream_tls(common: CommonTlsContext, sni: &str) -> Option<core::TransportSocket> {
    let context = UpstreamTlsContext { common_tls_context: Some(common), sni: sni.into(), ..Default::default() };
    socket(types::any(&context))
}

pub(crate) fn socket(config: types::Any) -> Option<core::TransportSocket> {
    let config_type = Some(core::transport_socket::ConfigType::TypedConfig(config));
    Some(core::TransportSocket { name: "socket".into(), config_type })
}

/// A listener with these chains.
pub(crate) fn listener(name: &str, at: SocketAddr, chains: Vec<listener::FilterChain>) -> listener::Listener {
    listener::Listener { name: name.into(), address: address(at), filter_chains: chains, ..Default::default() }
}

pub(crate) fn listener_filter(config: types::Any) -> listener::ListenerFilter {
    listener::ListenerFilter {
        name: "filter".into(),
        config_type: Some(listener::listener_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

pub(crate) fn tls_inspector() -> listener::ListenerFilter {
    listener_filter(types::any(&types::tls_inspector::TlsInspector::default()))
}

/// HTTP that goes to a cluster.
pub(crate) fn http(cluster: &str) -> listener::FilterChain {
    chain(types::any(&manager(cluster)))
}

/// Bytes that go to a cluster.
pub(crate) fn tcp(cluster: &str) -> listener::FilterChain {
    let forward = tcp_proxy::TcpProxy {
        stat_prefix: "tcp".into(),
        cluster_specifier: Some(tcp_proxy::tcp_proxy::ClusterSpecifier::Cluster(cluster.into())),
        ..Default::default()
    };
    chain(types::any(&forward))
}

pub(crate) fn chain(filter: types::Any) -> listener::FilterChain {
    let config_type = Some(listener::filter::ConfigType::TypedConfig(filter));
    let filter = listener::Filter { name: "filter".into(), config_type };
    listener::FilterChain { filters: vec![filter], ..Default::default() }
}

/// A chain for these names.
pub(crate) fn for_names(mut chain: listener::FilterChain, names: &[&str]) -> listener::FilterChain {
    let wanted = listener::FilterChainMatch {
        server_names: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    };
    chain.filter_chain_match = Some(wanted);
    chain
}

pub(crate) fn manager(cluster: &str) -> hcm::HttpConnectionManager {
    let action = route::RouteAction {
        cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster(cluster.into())),
        timeout: Some(types::Duration::default()),
        ..Default::default()
    };
    let everything = route::RouteMatch {
        path_specifier: Some(route::route_match::PathSpecifier::Prefix("/".into())),
        ..Default::default()
    };
    let rule = route::Route {
        r#match: Some(everything),
        action: Some(route::route::Action::Route(action)),
        ..Default::default()
    };
    let host =
        route::VirtualHost { name: "all".into(), domains: vec!["*".into()], routes: vec![rule], ..Default::default() };
    let table = route::RouteConfiguration { name: "all".into(), virtual_hosts: vec![host], ..Default::default() };
    let router = hcm::HttpFilter {
        name: "envoy.filters.http.router".into(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(types::any(&router::Router::default()))),
        ..Default::default()
    };
    hcm::HttpConnectionManager {
        stat_prefix: "test".into(),
        use_remote_address: Some(types::BoolValue { value: true }),
        http_filters: vec![router],
        route_specifier: Some(hcm::http_connection_manager::RouteSpecifier::RouteConfig(table)),
        ..Default::default()
    }
}

fn address(of: SocketAddr) -> Option<Address> {
    let port = socket_address::PortSpecifier::PortValue(of.port().into());
    let socket = SocketAddress { address: of.ip().to_string(), port_specifier: Some(port), ..Default::default() };
    Some(Address { address: Some(address::Address::SocketAddress(socket)) })
}

pub(crate) fn cluster(name: &str, server: SocketAddr) -> cluster::Cluster {
    let host = endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint::Endpoint {
            address: address(server),
            ..Default::default()
        })),
        ..Default::default()
    };
    cluster::Cluster {
        name: name.into(),
        cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::Type(0)),
        load_assignment: Some(endpoint::ClusterLoadAssignment {
            cluster_name: name.into(),
            endpoints: vec![endpoint::LocalityLbEndpoints { lb_endpoints: vec![host], ..Default::default() }],
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A server that answers requests with its name and the head that it got, and says what came first on each connection.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// The names that clients asked for, and whether they showed a certificate; only with TLS.
    pub(crate) seen: Receiver<(Option<String>, bool)>,
}

impl Server {
    pub(crate) fn plain(name: &'static str) -> Server {
        Server::start(name, None)
    }

    pub(crate) fn start(name: &'static str, tls: Option<Arc<ServerConfig>>) -> Server {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let (sender, seen) = channel();
        std::thread::spawn(move || {
            for stream in socket.incoming() {
                let (stream, tls, sender) = (stream.unwrap(), tls.clone(), sender.clone());
                std::thread::spawn(move || match tls {
                    None => answer(name, stream),
                    Some(config) => {
                        let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
                        if stream.conn.complete_io(&mut stream.sock).is_err() {
                            return;
                        }
                        let asked = stream.conn.server_name().map(str::to_owned);
                        let _ = sender.send((asked, stream.conn.peer_certificates().is_some()));
                        answer(name, stream);
                    }
                });
            }
        });
        Server { address, seen }
    }

    pub(crate) fn tls(name: &'static str, identity: &Identity) -> Server {
        let (chain, key) = identity.der();
        let config = ServerConfig::builder_with_provider(maille_identity::verify::provider());
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        Server::start(name, Some(Arc::new(config.with_single_cert(chain, key).unwrap())))
    }
}

fn answer(name: &str, mut stream: impl Read + Write) {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            match stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return,
            }
        }
        let body = format!("{name}\n{}", String::from_utf8_lossy(&head));
        let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(response.as_bytes()).is_err() {
            return;
        }
    }
}

/// How a client goes about TLS.
pub(crate) fn client(ca: &str, identity: Option<&Identity>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(maille_identity::verify::provider());
    let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    match identity {
        None => config.with_no_client_auth(),
        Some(identity) => {
            let (chain, key) = identity.der();
            config.with_client_auth_cert(chain, key).unwrap()
        }
    }
}

pub(crate) type Secure = StreamOwned<ClientConnection, TcpStream>;

/// Connects and makes a handshake.
pub(crate) fn connect(to: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> std::io::Result<Secure> {
    let stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    handshake(stream, config, name)
}

pub(crate) fn handshake(stream: TcpStream, config: &Arc<ClientConfig>, name: &str) -> std::io::Result<Secure> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let session = ClientConnection::new(config.clone(), name).unwrap();
    let mut stream = StreamOwned::new(session, stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// Sends a request; the status and the body that come back.
pub(crate) fn ask(stream: &mut (impl Read + Write), host: &str) -> std::io::Result<(u16, String)> {
    write!(stream, "GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body)?;
    Ok((head[9..12].parse().unwrap(), String::from_utf8(body).unwrap()))
}

/// One request without TLS.
pub(crate) fn ask_plain(to: SocketAddr, host: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    ask(&mut stream, host).unwrap()
}

/// One request by TLS on a connection of its own.
pub(crate) fn ask_once(to: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> std::io::Result<(u16, String)> {
    ask(&mut connect(to, config, name)?, name)
}

/// Everything up to the end of a connection, however it ends.
pub(crate) fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut got = Vec::new();
    match stream.read_to_end(&mut got) {
        Ok(_) => got,
        Err(e) if e.kind() == ErrorKind::ConnectionReset => got,
        Err(e) => panic!("{e}"),
    }
}

/// Tries until it holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..PATIENCE.as_millis() / 20 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("never: {what}");
}

/// What the proxy has counted under names that end like this.
pub(crate) fn counted(admin: SocketAddr, name: &str) -> u64 {
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET /stats HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n").unwrap();
    let text = String::from_utf8(rest(&mut stream)).unwrap();
    let values = text.lines().filter_map(|line| line.split_once(": ").filter(|(key, _)| key.ends_with(name)));
    values.map(|(_, value)| value.trim().parse::<u64>().unwrap()).sum()
}
