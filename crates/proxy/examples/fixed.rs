//! A proxy in front of one upstream, without a control plane: `fixed LISTEN UPSTREAM [WORKERS]`. For measurements.

use std::net::SocketAddr;

use maille_proxy::{Options, run_fixed};
use maille_xds::types::core::Node;
use maille_xds::types::{self, cluster, core, endpoint, hcm, listener, route, router};
use maille_xds::{Resource, TypeUrl};

fn address(of: SocketAddr) -> core::Address {
    let port = core::socket_address::PortSpecifier::PortValue(of.port().into());
    let socket = core::SocketAddress { address: of.ip().to_string(), port_specifier: Some(port), ..Default::default() };
    core::Address { address: Some(core::address::Address::SocketAddress(socket)) }
}

fn cluster(upstream: SocketAddr) -> cluster::Cluster {
    let host = endpoint::Endpoint { address: Some(address(upstream)), ..Default::default() };
    let host = endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(host)),
        ..Default::default()
    };
    let locality = endpoint::LocalityLbEndpoints { lb_endpoints: vec![host], ..Default::default() };
    let unlimited = Some(types::UInt32Value { value: u32::MAX });
    let limits = cluster::circuit_breakers::Thresholds {
        max_connections: unlimited,
        max_pending_requests: unlimited,
        max_requests: unlimited,
        max_retries: unlimited,
        ..Default::default()
    };
    cluster::Cluster {
        name: "upstream".into(),
        cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::Type(0)),
        lb_policy: cluster::cluster::LbPolicy::LeastRequest as i32,
        circuit_breakers: Some(cluster::CircuitBreakers { thresholds: vec![limits], ..Default::default() }),
        load_assignment: Some(endpoint::ClusterLoadAssignment {
            cluster_name: "upstream".into(),
            endpoints: vec![locality],
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn listener(listen: SocketAddr) -> listener::Listener {
    let action = route::RouteAction {
        cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster("upstream".into())),
        timeout: Some(types::Duration::default()),
        ..Default::default()
    };
    let rule = route::Route {
        r#match: Some(route::RouteMatch {
            path_specifier: Some(route::route_match::PathSpecifier::Prefix("/".into())),
            ..Default::default()
        }),
        action: Some(route::route::Action::Route(action)),
        ..Default::default()
    };
    let hosts = route::VirtualHost {
        name: "all".into(),
        domains: vec!["*".into()],
        routes: vec![rule],
        include_request_attempt_count: true,
        ..Default::default()
    };
    let table = route::RouteConfiguration { name: "all".into(), virtual_hosts: vec![hosts], ..Default::default() };
    let router = hcm::HttpFilter {
        name: "envoy.filters.http.router".into(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(types::any(&router::Router::default()))),
        ..Default::default()
    };
    let manager = hcm::HttpConnectionManager {
        stat_prefix: "fixed".into(),
        use_remote_address: Some(types::BoolValue { value: true }),
        normalize_path: Some(types::BoolValue { value: true }),
        server_name: "istio-envoy".into(),
        http_filters: vec![router],
        route_specifier: Some(hcm::http_connection_manager::RouteSpecifier::RouteConfig(table)),
        ..Default::default()
    };
    let filter = listener::Filter {
        name: "envoy.filters.network.http_connection_manager".into(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(types::any(&manager))),
    };
    listener::Listener {
        name: "in".into(),
        address: Some(address(listen)),
        filter_chains: vec![listener::FilterChain { filters: vec![filter], ..Default::default() }],
        ..Default::default()
    }
}

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let parse = |n: usize| arguments.get(n).and_then(|text| text.parse::<SocketAddr>().ok());
    let (Some(listen), Some(upstream)) = (parse(1), parse(2)) else {
        return Err(std::io::Error::other("usage: fixed LISTEN UPSTREAM [WORKERS]"));
    };
    let mut options = Options::new(Node::default(), "");
    options.concurrency = arguments.get(3).and_then(|n| n.parse().ok()).unwrap_or(1);
    let resources = vec![
        (TypeUrl::Cluster, vec![Resource::encode("upstream", &cluster(upstream))]),
        (TypeUrl::Listener, vec![Resource::encode("in", &listener(listen))]),
    ];
    let proxy = run_fixed(options, resources)?;
    println!("{:?}", proxy.status().borrow());
    loop {
        std::thread::park();
    }
}
