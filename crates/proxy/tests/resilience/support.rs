//! A proxy, its clients and its backends, all in this process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use maille_proxy::{Handle, Options, run_fixed};
use maille_xds::types::cluster::cluster::{ClusterDiscoveryType, DiscoveryType};
use maille_xds::types::cluster::{CircuitBreakers, Cluster, circuit_breakers::Thresholds};
use maille_xds::types::core::{self, DataSource, SubstitutionFormatString};
use maille_xds::types::core::{Node, data_source::Specifier, substitution_format_string::Format};
use maille_xds::types::listener::{Filter, FilterChain, Listener, filter};
use maille_xds::types::route::{Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost};
use maille_xds::types::route::{route, route_action::ClusterSpecifier, route_match::PathSpecifier};
use maille_xds::types::{self, Any, UInt32Value, accesslog, endpoint, file_access_log, hcm, router, tcp_proxy};
use maille_xds::{Resource, TypeUrl};

/// Long enough for any machine; only what is broken takes as long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A backend that answers requests for `/held…` only once it is told to.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) requests: usize,
    pub(crate) connections: usize,
    /// The lines of the last request's head.
    pub(crate) last_head: Vec<String>,
    status: u16,
    released: bool,
}

impl Backend {
    pub(crate) fn start() -> Backend {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let state: Arc<(Mutex<State>, Condvar)> = Arc::default();
        state.0.lock().unwrap().status = 200;
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in socket.incoming() {
                let shared = shared.clone();
                std::thread::spawn(move || serve(stream.unwrap(), &shared));
            }
        });
        Backend { address, state }
    }

    /// Somebody else serves there.
    pub(crate) fn at(address: SocketAddr) -> Backend {
        Backend { address, state: Arc::default() }
    }

    /// Nobody is there.
    pub(crate) fn absent() -> Backend {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        Backend { address: socket.local_addr().unwrap(), state: Arc::default() }
    }

    pub(crate) fn answer_with(&self, status: u16) {
        self.state.0.lock().unwrap().status = status;
    }

    /// Answers what is held, and holds no more.
    pub(crate) fn release(&self) {
        self.state.0.lock().unwrap().released = true;
        self.state.1.notify_all();
    }

    pub(crate) fn see<R>(&self, f: impl FnOnce(&State) -> R) -> R {
        f(&self.state.0.lock().unwrap())
    }

    pub(crate) fn wait_for_requests(&self, n: usize) {
        let state = self.state.0.lock().unwrap();
        let (state, _) = self.state.1.wait_timeout_while(state, PATIENCE, |state| state.requests < n).unwrap();
        assert!(state.requests >= n, "{} requests have come, not {n}", state.requests);
    }
}

fn serve(mut stream: TcpStream, (state, changed): &(Mutex<State>, Condvar)) {
    state.lock().unwrap().connections += 1;
    let mut input = BufReader::new(stream.try_clone().unwrap());
    loop {
        let Some((first, lines)) = read_head(&mut input) else { return };
        let status = {
            let mut state = state.lock().unwrap();
            state.requests += 1;
            state.last_head = lines;
            changed.notify_all();
            if first.contains(" /held") {
                state = changed.wait_while(state, |state| !state.released).unwrap();
            }
            state.status
        };
        let answer = format!("HTTP/1.1 {status} Said\r\ncontent-length: 2\r\n\r\nok");
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// What a test may change.
pub(crate) struct Config {
    pub(crate) cluster: Cluster,
    /// Of requests for anything but `/held…`.
    pub(crate) route: RouteAction,
    /// Of requests for `/held…`.
    pub(crate) held: RouteAction,
    pub(crate) workers: usize,
    /// Routes before those.
    pub(crate) routes: Vec<Route>,
    /// What requests pass before the router.
    pub(crate) filters: Vec<Any>,
    /// What connections of the other listener pass.
    pub(crate) network_filters: Vec<Any>,
    /// Other clusters.
    pub(crate) clusters: Vec<Cluster>,
    /// How clients speak HTTP/1.
    pub(crate) http1: core::Http1ProtocolOptions,
}

impl Config {
    /// The limits; none but those that are set.
    pub(crate) fn limits(&mut self) -> &mut Thresholds {
        &mut self.cluster.circuit_breakers.as_mut().unwrap().thresholds[0]
    }
}

pub(crate) struct Proxy {
    http: SocketAddr,
    tcp: SocketAddr,
    log: PathBuf,
    _handle: Handle,
}

/// An answer to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<String>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// Whether it is what Envoy answers when a limit is reached.
    pub(crate) fn is_overflow(&self) -> bool {
        self.status == 503
            && self.header("x-envoy-overloaded") == Some("true")
            && self.body == "upstream connect error or disconnect/reset before headers. reset reason: overflow"
    }
}

/// A request that has been sent.
pub(crate) struct Sent(BufReader<TcpStream>);

impl Sent {
    /// The answer; `None` when there is none for a while.
    pub(crate) fn answer_within(&mut self, limit: Duration) -> Option<Answer> {
        self.0.get_ref().set_read_timeout(Some(limit)).unwrap();
        let (first, headers) = read_head(&mut self.0)?;
        let status = first.split(' ').nth(1).unwrap().parse().unwrap();
        let mut body = String::new();
        self.0.read_to_string(&mut body).unwrap();
        Some(Answer { status, headers, body })
    }

    pub(crate) fn answer(&mut self) -> Answer {
        self.answer_within(PATIENCE).expect("an answer")
    }
}

fn read_head(input: &mut impl BufRead) -> Option<(String, Vec<String>)> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if input.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    Some((lines.remove(0), lines))
}

impl Proxy {
    /// A proxy in front of these backends, used in turn.
    pub(crate) fn start(backends: &[&Backend], change: impl FnOnce(&mut Config)) -> Proxy {
        let unlimited = Some(UInt32Value { value: u32::MAX });
        let thresholds = Thresholds {
            max_connections: unlimited,
            max_pending_requests: unlimited,
            max_requests: unlimited,
            max_retries: unlimited,
            ..Thresholds::default()
        };
        let action = RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster("backends".into())),
            timeout: Some(types::Duration::default()),
            ..RouteAction::default()
        };
        let mut config = Config {
            cluster: Cluster {
                name: "backends".into(),
                cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
                circuit_breakers: Some(CircuitBreakers { thresholds: vec![thresholds], ..Default::default() }),
                load_assignment: Some(load_assignment(backends)),
                ..Cluster::default()
            },
            route: action.clone(),
            held: action,
            workers: 1,
            routes: Vec::new(),
            filters: Vec::new(),
            network_filters: Vec::new(),
            clusters: Vec::new(),
            http1: core::Http1ProtocolOptions::default(),
        };
        change(&mut config);
        let (number, ip) = own_ip();
        let log = std::env::temp_dir().join(format!("maille-resilience-{}-{number}.log", std::process::id()));
        let (http, tcp) = (SocketAddr::new(ip.into(), 10080), SocketAddr::new(ip.into(), 10081));
        let listeners = [
            ("http", http, vec![http_manager(&config, &log)]),
            ("tcp", tcp, [&config.network_filters[..], &[types::any(&tcp_proxy())]].concat()),
        ];
        let listeners = listeners.map(|(name, at, filters)| Resource::encode(name, &listener(name, at, filters)));
        let mut options = Options::new(Node::default(), "");
        options.concurrency = config.workers;
        let clusters = config.clusters.iter().chain([&config.cluster]);
        let clusters = clusters.map(|cluster| Resource::encode(cluster.name.as_str(), cluster)).collect();
        let resources = vec![(TypeUrl::Cluster, clusters), (TypeUrl::Listener, listeners.to_vec())];
        let handle = run_fixed(options, resources).unwrap();
        let proxy = Proxy { http, tcp, log, _handle: handle };
        wait("the proxy is ready", || {
            let status = proxy._handle.status().borrow().clone();
            assert!(status.refused.is_empty(), "{:?}", status.refused);
            status.ready
        });
        proxy
    }

    /// Where requests go.
    pub(crate) fn http(&self) -> SocketAddr {
        self.http
    }

    pub(crate) fn send(&self, path: &str) -> Sent {
        self.send_with(path, "")
    }

    /// With more headers, each with its line's end.
    pub(crate) fn send_with(&self, path: &str, headers: &str) -> Sent {
        let mut stream = TcpStream::connect(self.http).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: backends\r\n{headers}connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        Sent(BufReader::new(stream))
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send(path).answer()
    }

    /// A connection to the listener that forwards connections.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.tcp).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// What the log says of the only request for a path: response flags, details, upstream.
    pub(crate) fn logged(&self, path: &str) -> String {
        let mut found = None;
        wait(&format!("{path} is logged"), || {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            found = log.lines().find_map(|line| line.strip_prefix(path)?.strip_prefix(' ').map(str::to_owned));
            found.is_some()
        });
        found.unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.log);
    }
}

/// Waits until something is so.
pub(crate) fn wait(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An address that no other proxy of these tests has.
fn own_ip() -> (u8, Ipv4Addr) {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    (number, Ipv4Addr::new(127, 100 + high % 100, low, number))
}

fn address(of: SocketAddr) -> core::Address {
    let port = core::socket_address::PortSpecifier::PortValue(of.port().into());
    let socket = core::SocketAddress { address: of.ip().to_string(), port_specifier: Some(port), ..Default::default() };
    core::Address { address: Some(core::address::Address::SocketAddress(socket)) }
}

pub(crate) fn load_assignment(backends: &[&Backend]) -> endpoint::ClusterLoadAssignment {
    let host = |backend: &&Backend| {
        let host = endpoint::Endpoint { address: Some(address(backend.address)), ..Default::default() };
        let host = endpoint::lb_endpoint::HostIdentifier::Endpoint(host);
        endpoint::LbEndpoint { host_identifier: Some(host), ..Default::default() }
    };
    let lb_endpoints = backends.iter().map(host).collect();
    endpoint::ClusterLoadAssignment {
        cluster_name: "backends".into(),
        endpoints: vec![endpoint::LocalityLbEndpoints { lb_endpoints, ..Default::default() }],
        ..Default::default()
    }
}

fn listener(name: &str, at: SocketAddr, filters: Vec<Any>) -> Listener {
    let filter = |config: Any| Filter {
        name: config.type_url.clone(),
        config_type: Some(filter::ConfigType::TypedConfig(config)),
    };
    Listener {
        name: name.into(),
        address: Some(address(at)),
        filter_chains: vec![FilterChain { filters: filters.into_iter().map(filter).collect(), ..Default::default() }],
        ..Default::default()
    }
}

fn tcp_proxy() -> tcp_proxy::TcpProxy {
    let cluster = tcp_proxy::tcp_proxy::ClusterSpecifier::Cluster("backends".into());
    tcp_proxy::TcpProxy { stat_prefix: "tcp".into(), cluster_specifier: Some(cluster), ..Default::default() }
}

fn http_manager(config: &Config, log: &std::path::Path) -> Any {
    let rule = |prefix: &str, action: &RouteAction| Route {
        r#match: Some(RouteMatch { path_specifier: Some(PathSpecifier::Prefix(prefix.into())), ..Default::default() }),
        action: Some(route::Action::Route(action.clone())),
        ..Default::default()
    };
    let host = VirtualHost {
        name: "all".into(),
        domains: vec!["*".into()],
        routes: [&config.routes[..], &[rule("/held", &config.held), rule("/", &config.route)]].concat(),
        ..Default::default()
    };
    let table = RouteConfiguration { name: "all".into(), virtual_hosts: vec![host], ..Default::default() };
    let filter = |config: &Any| hcm::HttpFilter {
        name: config.type_url.clone(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(config.clone())),
        ..Default::default()
    };
    let router = types::any(&router::Router::default());
    let line = "%REQ(:PATH)% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_HOST%\n";
    let line = DataSource { specifier: Some(Specifier::InlineString(line.into())), ..Default::default() };
    let format = SubstitutionFormatString { format: Some(Format::TextFormatSource(line)), ..Default::default() };
    let file = file_access_log::FileAccessLog {
        path: log.to_str().unwrap().into(),
        access_log_format: Some(file_access_log::file_access_log::AccessLogFormat::LogFormat(format)),
    };
    types::any(&hcm::HttpConnectionManager {
        stat_prefix: "http".into(),
        internal_address_config: Some(hcm::http_connection_manager::InternalAddressConfig {
            cidr_ranges: vec![core::CidrRange {
                address_prefix: "10.0.0.0".into(),
                prefix_len: Some(UInt32Value { value: 8 }),
            }],
            ..Default::default()
        }),
        stream_idle_timeout: Some(types::Duration::default()),
        http_protocol_options: Some(config.http1.clone()),
        http_filters: config.filters.iter().chain([&router]).map(filter).collect(),
        access_log: vec![accesslog::AccessLog {
            name: "envoy.access_loggers.file".into(),
            config_type: Some(accesslog::access_log::ConfigType::TypedConfig(types::any(&file))),
            ..Default::default()
        }],
        route_specifier: Some(hcm::http_connection_manager::RouteSpecifier::RouteConfig(table)),
        ..Default::default()
    })
}
