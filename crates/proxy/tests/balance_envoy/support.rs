//! Backends, a maille proxy and a real Envoy in front of them, and clients of both.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

use maille_proxy::{Handle, Options, run_fixed};
use maille_xds::types::bootstrap::Bootstrap;
use maille_xds::types::bootstrap::bootstrap::StaticResources;
use maille_xds::types::cluster::Cluster;
use maille_xds::types::cluster::cluster::{ClusterDiscoveryType, DiscoveryType};
use maille_xds::types::core::{self, Node};
use maille_xds::types::endpoint::{self, ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints};
use maille_xds::types::listener::{Filter, FilterChain, Listener, filter};
use maille_xds::types::pb::envoy::r#type::v3::{HashPolicy as TcpHash, hash_policy};
use maille_xds::types::route::{Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost};
use maille_xds::types::route::{route, route_action::ClusterSpecifier, route_match::PathSpecifier};
use maille_xds::types::{self, Any, Message, Struct, UInt32Value, Value, ValueKind, hcm, router, tcp_proxy};
use maille_xds::{Resource, TypeUrl};

use crate::cases::{Case, Host};

/// Long enough for any machine; only what is broken takes as long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Servers that say which of them they are.
pub(crate) struct Backends {
    addresses: Vec<SocketAddr>,
    held: Mutex<mpsc::Receiver<usize>>,
    /// How many times those that were held have been let go.
    released: Arc<(Mutex<usize>, Condvar)>,
}

impl Backends {
    pub(crate) fn start(count: usize) -> Backends {
        let (held_in, held) = mpsc::channel();
        let released: Arc<(Mutex<usize>, Condvar)> = Arc::default();
        let addresses = (0..count).map(|number| {
            let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let address = socket.local_addr().unwrap();
            let (held, released) = (held_in.clone(), released.clone());
            std::thread::spawn(move || {
                for stream in socket.incoming() {
                    let (held, released) = (held.clone(), released.clone());
                    std::thread::spawn(move || serve(stream.unwrap(), number, &held, &released));
                }
            });
            address
        });
        Backends { addresses: addresses.collect(), held: Mutex::new(held), released }
    }

    /// The backend that holds the next request.
    pub(crate) fn next_held(&self) -> usize {
        self.held.lock().unwrap().recv_timeout(PATIENCE).expect("a request that is held")
    }

    /// Lets go of all that are held.
    pub(crate) fn release(&self) {
        *self.released.0.lock().unwrap() += 1;
        self.released.1.notify_all();
    }
}

fn serve(mut stream: TcpStream, number: usize, held: &mpsc::Sender<usize>, released: &(Mutex<usize>, Condvar)) {
    // Who only connects is told as well.
    let mut input = BufReader::new(stream.try_clone().unwrap());
    while let Some(first) = head(&mut input) {
        if first.contains("/held") {
            let before = *released.0.lock().unwrap();
            held.send(number).unwrap();
            drop(released.1.wait_while(released.0.lock().unwrap(), |now| *now == before).unwrap());
        }
        let body = number.to_string();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn head(input: &mut impl BufRead) -> Option<String> {
    let mut first = String::new();
    loop {
        let mut line = String::new();
        if input.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line.trim_end().is_empty() {
            return Some(first);
        }
        if first.is_empty() {
            first = line;
        }
    }
}

/// Ours, and Envoy.
pub(crate) struct Both {
    /// Where each listens: for requests, and for connections by case.
    http: [SocketAddr; 2],
    tcp: [BTreeMap<String, SocketAddr>; 2],
    _ours: Handle,
    envoy: Child,
}

impl Drop for Both {
    fn drop(&mut self) {
        let _ = self.envoy.kill();
        let _ = self.envoy.wait();
    }
}

impl Both {
    /// `None` when there is no Envoy.
    pub(crate) fn start(backends: &Backends, cases: &[Case]) -> Option<Both> {
        let envoy = envoy()?;
        let clusters: Vec<Cluster> = cases.iter().map(|case| cluster(case, backends)).collect();
        let [ours, theirs] = [(); 2].map(|()| {
            let http = free_port();
            let tcp: BTreeMap<String, SocketAddr> = cases.iter().map(|case| (case.name.clone(), free_port())).collect();
            let mut listeners = vec![listener("http", http, "http_connection_manager", requests(cases))];
            listeners.extend(tcp.iter().map(|(name, at)| listener(name, *at, "tcp_proxy", connections(name))));
            (http, tcp, listeners)
        });
        let mut options = Options::new(Node::default(), "");
        options.concurrency = 1;
        let encoded = |name: &str, listener: &Listener| Resource::encode(name, listener);
        let listeners = ours.2.iter().map(|listener| encoded(&listener.name, listener)).collect();
        let resources = clusters.iter().map(|cluster| Resource::encode(cluster.name.as_str(), cluster)).collect();
        let handle = run_fixed(options, vec![(TypeUrl::Cluster, resources), (TypeUrl::Listener, listeners)]).unwrap();
        let bootstrap = Bootstrap {
            static_resources: Some(StaticResources { clusters, listeners: theirs.2, ..Default::default() }),
            ..Bootstrap::default()
        };
        let file = std::env::temp_dir().join(format!("maille-balance-{}-{}.pb", std::process::id(), theirs.0.port()));
        std::fs::write(&file, bootstrap.encode_to_vec()).unwrap();
        let envoy = Command::new(envoy)
            .args(["--concurrency", "1", "--use-dynamic-base-id", "-l", "error", "-c"])
            .arg(&file)
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut both = Both { http: [ours.0, theirs.0], tcp: [ours.1, theirs.1], _ours: handle, envoy };
        let start = Instant::now();
        while both
            .http
            .iter()
            .chain(both.tcp.iter().flat_map(BTreeMap::values))
            .any(|at| TcpStream::connect(at).is_err())
        {
            let refused = both._ours.status().borrow().refused.clone();
            assert!(refused.is_empty(), "{refused:?}");
            assert!(both.envoy.try_wait().unwrap().is_none(), "Envoy does not take the configuration");
            assert!(start.elapsed() < PATIENCE, "not both are listening");
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = std::fs::remove_file(file);
        Some(both)
    }

    pub(crate) fn clients(&self) -> [Client; 2] {
        [0, 1].map(|which| self.client(which))
    }

    /// A client of ours, or of Envoy.
    pub(crate) fn client(&self, which: usize) -> Client {
        Client(BufReader::new(TcpStream::connect(self.http[which]).unwrap()))
    }

    /// Lets what has been answered come to its end everywhere.
    pub(crate) fn settle(&self) {
        std::thread::sleep(Duration::from_millis(30));
    }

    /// The backend that a connection from an address comes to.
    pub(crate) fn connect_from(&self, which: usize, case: &str, from: [u8; 4]) -> String {
        let to = self.tcp[which][case];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let stream = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind((Ipv4Addr::from(from), 0).into()).unwrap();
            socket.connect(to).await.unwrap().into_std().unwrap()
        });
        stream.set_nonblocking(false).unwrap();
        Client(BufReader::new(stream)).get("/", "")
    }
}

/// A connection for requests.
pub(crate) struct Client(BufReader<TcpStream>);

impl Client {
    pub(crate) fn get(&mut self, path: &str, headers: &str) -> String {
        self.send(path, headers);
        self.receive()
    }

    pub(crate) fn send(&mut self, path: &str, headers: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: all\r\n{headers}\r\n");
        self.0.get_mut().set_read_timeout(Some(PATIENCE)).unwrap();
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
    }

    /// The body of the answer, with its status when that is not 200.
    pub(crate) fn receive(&mut self) -> String {
        let (mut status, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "closed after {status:?}");
            let line = line.trim_end();
            if status.is_empty() {
                status = line.split(' ').nth(1).unwrap().to_owned();
            } else if line.is_empty() {
                break;
            } else if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        let body = String::from_utf8(body).unwrap();
        if status == "200" { body } else { format!("{status} {body}") }
    }
}

fn envoy() -> Option<String> {
    let name = std::env::var("ENVOY").unwrap_or_else(|_| "envoy".to_owned());
    if Command::new(&name).arg("--version").output().is_ok() {
        return Some(name);
    }
    assert!(std::env::var_os("CI").is_none(), "no Envoy: set ENVOY or put `envoy` on the PATH");
    eprintln!("skipped: no Envoy on the PATH, and ENVOY is not set");
    None
}

/// A port of an address that only this process has, below those that the system hands out, and never the same twice.
fn free_port() -> SocketAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, 130 + high % 64, low, 1 + high / 64).into();
    SocketAddr::new(own, maille_net::free_port(own).unwrap())
}

fn address(of: SocketAddr) -> core::Address {
    let port = core::socket_address::PortSpecifier::PortValue(of.port().into());
    let socket = core::SocketAddress { address: of.ip().to_string(), port_specifier: Some(port), ..Default::default() };
    core::Address { address: Some(core::address::Address::SocketAddress(socket)) }
}

fn cluster(case: &Case, backends: &Backends) -> Cluster {
    let mut groups: Vec<((u32, &str), LocalityLbEndpoints)> = Vec::new();
    for host in &case.hosts {
        let place = (host.priority, host.zone.0);
        if !groups.iter().any(|(known, _)| *known == place) {
            let locality = core::Locality { zone: host.zone.0.into(), ..Default::default() };
            let group = LocalityLbEndpoints {
                locality: Some(locality),
                priority: host.priority,
                load_balancing_weight: (host.zone.1 > 0).then_some(UInt32Value { value: host.zone.1 }),
                ..Default::default()
            };
            groups.push((place, group));
        }
        let (_, group) = groups.iter_mut().find(|(known, _)| *known == place).unwrap();
        group.lb_endpoints.push(lb_endpoint(host, backends));
    }
    Cluster {
        name: case.name.clone(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(match case
            .hosts
            .iter()
            .any(|host| !host.name.is_empty())
        {
            // Only names that are resolved are known by name.
            true => DiscoveryType::StrictDns,
            false => DiscoveryType::Static,
        } as i32)),
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: case.name.clone(),
            endpoints: groups.into_iter().map(|(_, group)| group).collect(),
            ..Default::default()
        }),
        ..case.cluster.clone()
    }
}

fn lb_endpoint(host: &Host, backends: &Backends) -> LbEndpoint {
    let metadata = (!host.hash_key.is_empty()).then(|| {
        let key = Value { kind: Some(ValueKind::StringValue(host.hash_key.into())) };
        let fields = Struct { fields: [("hash_key".to_owned(), key)].into() };
        core::Metadata { filter_metadata: [("envoy.lb".to_owned(), fields)].into(), ..Default::default() }
    });
    let endpoint = endpoint::Endpoint {
        address: Some(address(backends.addresses[host.backend])),
        hostname: host.name.into(),
        ..Default::default()
    };
    LbEndpoint {
        health_status: host.health as i32,
        metadata,
        load_balancing_weight: Some(UInt32Value { value: host.weight }),
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint)),
    }
}

fn listener(name: &str, at: SocketAddr, filter: &str, config: Any) -> Listener {
    let filter = Filter {
        name: format!("envoy.filters.network.{filter}"),
        config_type: Some(filter::ConfigType::TypedConfig(config)),
    };
    Listener {
        name: name.into(),
        address: Some(address(at)),
        filter_chains: vec![FilterChain { filters: vec![filter], ..Default::default() }],
        ..Default::default()
    }
}

fn connections(case: &str) -> Any {
    let specifier = hash_policy::PolicySpecifier::SourceIp(hash_policy::SourceIp {});
    types::any(&tcp_proxy::TcpProxy {
        stat_prefix: "tcp".into(),
        cluster_specifier: Some(tcp_proxy::tcp_proxy::ClusterSpecifier::Cluster(case.into())),
        hash_policy: vec![TcpHash { policy_specifier: Some(specifier) }],
        ..Default::default()
    })
}

fn requests(cases: &[Case]) -> Any {
    let routes = cases.iter().map(|case| Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix(format!("/{}/", case.name))),
            ..Default::default()
        }),
        action: Some(route::Action::Route(RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(case.name.clone())),
            hash_policy: case.hash.clone(),
            ..RouteAction::default()
        })),
        ..Default::default()
    });
    let host =
        VirtualHost { name: "all".into(), domains: vec!["*".into()], routes: routes.collect(), ..Default::default() };
    let table = RouteConfiguration { name: "all".into(), virtual_hosts: vec![host], ..Default::default() };
    let router = hcm::HttpFilter {
        name: "envoy.filters.http.router".into(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(types::any(&router::Router::default()))),
        ..Default::default()
    };
    types::any(&hcm::HttpConnectionManager {
        stat_prefix: "http".into(),
        http_filters: vec![router],
        route_specifier: Some(hcm::http_connection_manager::RouteSpecifier::RouteConfig(table)),
        ..Default::default()
    })
}
