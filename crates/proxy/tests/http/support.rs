//! A proxy in front of a server that keeps to a script.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use maille_proxy::{Handle, Options, run_fixed};
use maille_xds::types::cluster::{self, circuit_breakers::Thresholds};
use maille_xds::types::core::{Address, Node, SocketAddress, address, socket_address};
use maille_xds::types::route::{self, route_action::ClusterSpecifier};
use maille_xds::types::{self, endpoint, hcm, listener, router, tcp_proxy};
use maille_xds::{Resource, TypeUrl};

/// Long enough for any machine; only what is broken takes as long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection that can be scripted.
pub(crate) struct Wire(pub(crate) TcpStream);

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Wire {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Wire(stream)
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Wire {
        self.0.write_all(bytes.as_ref()).unwrap();
        self
    }

    /// Reads until `end` has come.
    pub(crate) fn until(&mut self, end: &str) -> String {
        let mut got = Vec::new();
        while !got.ends_with(end.as_bytes()) {
            let mut byte = [0];
            match self.0.read(&mut byte) {
                Ok(1) => got.push(byte[0]),
                other => panic!("{other:?} after {:?}, waiting for {end:?}", String::from_utf8_lossy(&got)),
            }
        }
        String::from_utf8(got).unwrap()
    }

    pub(crate) fn head(&mut self) -> String {
        self.until("\r\n\r\n")
    }

    pub(crate) fn exactly(&mut self, n: usize) -> Vec<u8> {
        let mut got = vec![0; n];
        self.0.read_exact(&mut got).unwrap();
        got
    }

    /// Everything up to the end of the connection, however it ends.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut got = Vec::new();
        match self.0.read_to_end(&mut got) {
            Ok(_) => got,
            Err(e) if e.kind() == ErrorKind::ConnectionReset => got,
            Err(e) => panic!("{e} after {:?}", String::from_utf8_lossy(&got)),
        }
    }
}

/// A server: each connection it gets is handed to the test.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    connections: Receiver<TcpStream>,
}

impl Server {
    pub(crate) fn start() -> Server {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let (sender, connections) = channel();
        std::thread::spawn(move || {
            for stream in socket.incoming() {
                if sender.send(stream.unwrap()).is_err() {
                    return;
                }
            }
        });
        Server { address, connections }
    }

    /// The next connection.
    pub(crate) fn accept(&self) -> Wire {
        Wire::new(self.connections.recv_timeout(PATIENCE).expect("a connection from the proxy"))
    }

    /// The next connection, if there has been one.
    #[allow(dead_code, reason = "not every suite that shares this asks")]
    pub(crate) fn try_accept(&self) -> Option<Wire> {
        self.connections.recv_timeout(Duration::from_millis(50)).ok().map(Wire::new)
    }

    /// Whether nobody has connected since.
    pub(crate) fn is_quiet(&self) -> bool {
        self.connections.try_recv().is_err()
    }
}

/// What a test may change.
pub(crate) struct Setup {
    pub(crate) manager: hcm::HttpConnectionManager,
    pub(crate) rule: route::Route,
    pub(crate) cluster: cluster::Cluster,
    pub(crate) options: Options,
    /// Resources besides.
    pub(crate) more: Vec<(TypeUrl, Vec<Resource>)>,
}

/// A proxy in front of a server.
pub(crate) struct Proxy {
    pub(crate) http: SocketAddr,
    pub(crate) tcp: SocketAddr,
    pub(crate) handle: Handle,
}

impl Proxy {
    pub(crate) fn start(server: &Server) -> Proxy {
        Proxy::with(server, |_, _| {})
    }

    pub(crate) fn with(
        server: &Server,
        change: impl FnOnce(&mut hcm::HttpConnectionManager, &mut route::Route),
    ) -> Proxy {
        Proxy::build(server.address, |setup| change(&mut setup.manager, &mut setup.rule))
    }

    pub(crate) fn build(server: SocketAddr, change: impl FnOnce(&mut Setup)) -> Proxy {
        let (http, tcp) = (free(), free());
        let mut options = Options::new(Node::default(), "");
        options.concurrency = 1;
        let more = Vec::new();
        let mut setup = Setup { manager: manager(), rule: rule(), cluster: cluster(server), options, more };
        change(&mut setup);
        let Setup { mut manager, rule, cluster, options, more } = setup;
        let host = route::VirtualHost {
            name: "all".into(),
            domains: vec!["*".into()],
            routes: vec![rule],
            ..Default::default()
        };
        let table = route::RouteConfiguration { name: "all".into(), virtual_hosts: vec![host], ..Default::default() };
        manager.route_specifier = Some(hcm::http_connection_manager::RouteSpecifier::RouteConfig(table));
        let forward = tcp_proxy::TcpProxy {
            stat_prefix: "tcp".into(),
            cluster_specifier: Some(tcp_proxy::tcp_proxy::ClusterSpecifier::Cluster("server".into())),
            ..Default::default()
        };
        let mut resources = vec![
            (TypeUrl::Cluster, vec![Resource::encode("server", &cluster)]),
            (
                TypeUrl::Listener,
                vec![
                    Resource::encode("http", &listener("http", http, types::any(&manager))),
                    Resource::encode("tcp", &listener("tcp", tcp, types::any(&forward))),
                ],
            ),
        ];
        resources.extend(more);
        let proxy = Proxy { http, tcp, handle: run_fixed(options, resources).unwrap() };
        proxy.wait_for_sockets();
        proxy
    }

    fn wait_for_sockets(&self) {
        let status = self.handle.status();
        for _ in 0..PATIENCE.as_millis() {
            if status.borrow().listening.len() == 2 {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("{:?}", status.borrow());
    }

    pub(crate) fn connect(&self) -> Wire {
        Wire::new(TcpStream::connect(self.http).unwrap())
    }
}

fn free() -> SocketAddr {
    let ip = Ipv4Addr::LOCALHOST.into();
    SocketAddr::new(ip, maille_net::free_port(ip).unwrap())
}

fn address(of: SocketAddr) -> Option<Address> {
    let port = socket_address::PortSpecifier::PortValue(of.port().into());
    let socket = SocketAddress { address: of.ip().to_string(), port_specifier: Some(port), ..Default::default() };
    Some(Address { address: Some(address::Address::SocketAddress(socket)) })
}

pub(crate) fn cluster(server: SocketAddr) -> cluster::Cluster {
    let host = endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint::Endpoint {
            address: address(server),
            ..Default::default()
        })),
        ..Default::default()
    };
    let locality = endpoint::LocalityLbEndpoints { lb_endpoints: vec![host], ..Default::default() };
    let most = Some(types::UInt32Value { value: u32::MAX });
    let limits = Thresholds {
        max_connections: most,
        max_pending_requests: most,
        max_requests: most,
        max_retries: most,
        ..Default::default()
    };
    cluster::Cluster {
        name: "server".into(),
        cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::Type(0)),
        circuit_breakers: Some(cluster::CircuitBreakers { thresholds: vec![limits], ..Default::default() }),
        load_assignment: Some(endpoint::ClusterLoadAssignment {
            cluster_name: "server".into(),
            endpoints: vec![locality],
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn rule() -> route::Route {
    let action = route::RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster("server".into())),
        timeout: Some(types::Duration::default()),
        ..Default::default()
    };
    route::Route {
        r#match: Some(route::RouteMatch {
            path_specifier: Some(route::route_match::PathSpecifier::Prefix("/".into())),
            ..Default::default()
        }),
        action: Some(route::route::Action::Route(action)),
        ..Default::default()
    }
}

fn manager() -> hcm::HttpConnectionManager {
    let router = hcm::HttpFilter {
        name: "envoy.filters.http.router".into(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(types::any(&router::Router::default()))),
        ..Default::default()
    };
    hcm::HttpConnectionManager {
        stat_prefix: "test".into(),
        proxy_100_continue: true,
        http_filters: vec![router],
        upgrade_configs: vec![hcm::http_connection_manager::UpgradeConfig {
            upgrade_type: "websocket".into(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn listener(name: &str, at: SocketAddr, filter: types::Any) -> listener::Listener {
    let filter =
        listener::Filter { name: name.into(), config_type: Some(listener::filter::ConfigType::TypedConfig(filter)) };
    listener::Listener {
        name: name.into(),
        address: address(at),
        filter_chains: vec![listener::FilterChain { filters: vec![filter], ..Default::default() }],
        ..Default::default()
    }
}
