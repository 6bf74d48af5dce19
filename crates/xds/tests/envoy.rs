//! A real Envoy under our ADS server: until it is live, and while what it serves by is replaced under load.
//!
//! `ENVOY` names the binary, else it is `envoy` on the PATH. Without one these tests say so and pass; under `CI=true`
//! they fail.

#[path = "support/server.rs"]
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use maille_xds::types::{any, cluster, core, endpoint, hcm, listener, route, router};
use maille_xds::{TypeUrl, World};
use support::Server;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_delta_serves_through_changes() {
    serves_through_changes("DELTA_GRPC").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_state_of_the_world_serves_through_changes() {
    serves_through_changes("GRPC").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_refusals_name_the_resource_and_the_last_good_version_serves() {
    let Some(binary) = envoy() else { return };
    let (one, port) = (backend("one"), free_port());
    let server = Server::start(world(port, &[("one", one)], "one", "*")).await;
    let _envoy = Envoy::start(binary, "DELTA_GRPC", server.port());
    assert_eq!(eventually(port, "one"), "one");

    // Envoy takes no domain twice in one route configuration.
    server.set(world(port, &[("one", one)], "one", "twice twice"));
    let refusal = server.refusal().await;
    assert!(refusal.starts_with("envoy-under-test refused rds http: "), "{refusal}");
    assert_eq!(get(port).unwrap(), "one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_keeps_serving_when_the_server_restarts() {
    let Some(binary) = envoy() else { return };
    let (one, two, port) = (backend("one"), backend("two"), free_port());
    let server = Server::start(world(port, &[("one", one)], "one", "*")).await;
    let _envoy = Envoy::start(binary, "DELTA_GRPC", server.port());
    assert_eq!(eventually(port, "one"), "one");

    let load = Load::start(port);
    let xds_port = server.stop().await;
    let server = Server::start_on(xds_port, world(port, &[("one", one)], "one", "*")).await;
    server.wait_until_settled().await;
    server.set(world(port, &[("two", two)], "two", "*"));
    assert_eq!(eventually(port, "two"), "two");
    server.wait_until_settled().await;
    load.stop();
}

async fn serves_through_changes(api_type: &str) {
    let Some(binary) = envoy() else { return };
    let (one, two, port) = (backend("one"), backend("two"), free_port());
    let server = Server::start(world(port, &[("one", one)], "one", "*")).await;
    let _envoy = Envoy::start(binary, api_type, server.port());
    assert_eq!(eventually(port, "one"), "one");
    server.wait_until_settled().await;

    let load = Load::start(port);
    for round in 0..20 {
        // The cluster in use is replaced by one that did not exist, in one change.
        let (name, address) = if round % 2 == 0 { ("two", two) } else { ("one", one) };
        server.set(world(port, &[(name, address)], name, "*"));
        assert_eq!(eventually(port, name), name);
    }
    // The same cluster, changed: its endpoints have to come again or it never becomes warm.
    server.set(world(port, &[("one", one), ("two", two)], "two", "*"));
    assert_eq!(eventually(port, "two"), "two");
    let mut changed = world(port, &[("one", one), ("two", two)], "one", "*");
    changed.encode(TypeUrl::Cluster, "one", &eds_cluster("one", 7));
    server.set(changed);
    assert_eq!(eventually(port, "one"), "one");
    server.wait_until_settled().await;
    load.stop();
}

/// One listener, one route to one of the clusters, and each cluster's endpoint.
fn world(port: u16, clusters: &[(&str, SocketAddr)], to: &str, domains: &str) -> World {
    let mut world = World::new();
    for (name, address) in clusters {
        world.encode(TypeUrl::Cluster, *name, &eds_cluster(name, 5));
        let host = endpoint::LbEndpoint {
            host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint::Endpoint {
                address: Some(socket(&address.ip().to_string(), address.port())),
                ..Default::default()
            })),
            ..Default::default()
        };
        let locality = endpoint::LocalityLbEndpoints { lb_endpoints: vec![host], ..Default::default() };
        let assignment = endpoint::ClusterLoadAssignment {
            cluster_name: (*name).into(),
            endpoints: vec![locality],
            ..Default::default()
        };
        world.encode(TypeUrl::Endpoint, *name, &assignment);
    }
    world.encode(TypeUrl::Listener, "in", &http_listener(port));
    world.encode(TypeUrl::Route, "http", &routes(to, domains));
    world
}

fn eds_cluster(name: &str, connect_timeout: i64) -> cluster::Cluster {
    use cluster::cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig};
    cluster::Cluster {
        name: name.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: Some(over_ads()), ..Default::default() }),
        connect_timeout: Some(maille_xds::types::Duration { seconds: connect_timeout, nanos: 0 }),
        ..Default::default()
    }
}

fn http_listener(port: u16) -> listener::Listener {
    let manager = hcm::HttpConnectionManager {
        stat_prefix: "in".into(),
        route_specifier: Some(hcm::http_connection_manager::RouteSpecifier::Rds(hcm::Rds {
            config_source: Some(over_ads()),
            route_config_name: "http".into(),
        })),
        http_filters: vec![hcm::HttpFilter {
            name: "envoy.filters.http.router".into(),
            config_type: Some(hcm::http_filter::ConfigType::TypedConfig(any(&router::Router::default()))),
            ..Default::default()
        }],
        ..Default::default()
    };
    let filter = listener::Filter {
        name: "http".into(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(any(&manager))),
    };
    listener::Listener {
        name: "in".into(),
        address: Some(socket("127.0.0.1", port)),
        filter_chains: vec![listener::FilterChain { filters: vec![filter], ..Default::default() }],
        ..Default::default()
    }
}

fn routes(to: &str, domains: &str) -> route::RouteConfiguration {
    let route = route::Route {
        r#match: Some(route::RouteMatch {
            path_specifier: Some(route::route_match::PathSpecifier::Prefix("/".into())),
            ..Default::default()
        }),
        action: Some(route::route::Action::Route(route::RouteAction {
            cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster(to.into())),
            ..Default::default()
        })),
        ..Default::default()
    };
    let host = route::VirtualHost {
        name: "all".into(),
        domains: domains.split(' ').map(Into::into).collect(),
        routes: vec![route],
        ..Default::default()
    };
    route::RouteConfiguration { name: "http".into(), virtual_hosts: vec![host], ..Default::default() }
}

fn over_ads() -> core::ConfigSource {
    core::ConfigSource {
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(Default::default())),
        resource_api_version: core::ApiVersion::V3.into(),
        ..Default::default()
    }
}

fn socket(address: &str, port: u16) -> core::Address {
    core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            address: address.into(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port.into())),
            ..Default::default()
        })),
    }
}

struct Envoy(Child);

impl Envoy {
    fn start(binary: PathBuf, api_type: &str, xds_port: u16) -> Self {
        let bootstrap = format!(
            r#"
node: {{id: envoy-under-test, cluster: test}}
dynamic_resources:
  ads_config:
    api_type: {api_type}
    transport_api_version: V3
    set_node_on_first_message_only: true
    grpc_services: [{{envoy_grpc: {{cluster_name: xds}}}}]
  lds_config: {{ads: {{}}, resource_api_version: V3}}
  cds_config: {{ads: {{}}, resource_api_version: V3}}
static_resources:
  clusters:
  - name: xds
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: xds
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {xds_port}}}}}}}}}]}}]
"#
        );
        let child = Command::new(binary)
            .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"])
            .args(["--drain-time-s", "1", "--config-yaml", &bootstrap])
            .stdin(Stdio::null())
            .spawn()
            .expect("envoy starts");
        Self(child)
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn envoy() -> Option<PathBuf> {
    let named = std::env::var_os("ENVOY").map(PathBuf::from);
    let found = named.or_else(|| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join("envoy")).find(|candidate| candidate.is_file())
    });
    if found.is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "no envoy: set ENVOY or put one on the PATH");
        eprintln!("SKIPPED: no envoy; set ENVOY or put one on the PATH");
    }
    found
}

/// A port nobody listens on at this moment.
fn free_port() -> u16 {
    maille_net::free_port(std::net::Ipv4Addr::LOCALHOST.into()).unwrap()
}

/// An HTTP server that answers everything with its name, for as long as the test binary runs.
fn backend(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream, name));
        }
    });
    address
}

fn answer(stream: TcpStream, name: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line == "\r\n" {
                break;
            }
        }
        write!(writer, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len())?;
    }
}

/// The body of one answer, or why there is none.
fn get(port: u16) -> Result<String, String> {
    let attempt = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let text = attempt().map_err(|error: std::io::Error| error.to_string())?;
    match text.strip_prefix("HTTP/1.1 200 OK\r\n").and_then(|rest| rest.split_once("\r\n\r\n")) {
        Some((_, body)) => Ok(body.into()),
        None => Err(text),
    }
}

/// Asks until the answer is the expected one or patience is at its end, and returns the last.
fn eventually(port: u16, expected: &str) -> String {
    let started = Instant::now();
    loop {
        let answer = get(port).unwrap_or_else(|error| error);
        if answer == expected || started.elapsed() > PATIENCE {
            return answer;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Requests one after another, none of which may fail.
struct Load {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<usize>,
}

impl Load {
    fn start(port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut answers = 0;
            while !stopped.load(Ordering::Relaxed) {
                get(port).unwrap_or_else(|error| panic!("after {answers} good answers: {error}"));
                answers += 1;
            }
            answers
        });
        Self { stop, thread }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        let answers = self.thread.join().expect("no request failed");
        assert!(answers > 0);
    }
}
