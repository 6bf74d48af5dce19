use std::collections::BTreeMap;

use maille_xds::types::core::{self, address, socket_address::PortSpecifier};
use maille_xds::types::listener::{Filter, FilterChain, FilterChainMatch, ListenerFilter, filter, listener_filter};
use maille_xds::types::tcp_proxy::{TcpProxy, tcp_proxy::ClusterSpecifier};
use maille_xds::types::{Message, Name, any, http_inspector, original_dst, tls_inspector};

use super::*;

fn chain(name: &str, wanted: FilterChainMatch) -> FilterChain {
    let cluster_specifier = Some(ClusterSpecifier::Cluster(format!("to-{name}")));
    let proxy = TcpProxy { stat_prefix: "t".into(), cluster_specifier, ..Default::default() };
    let filter = Filter { name: "tcp".into(), config_type: Some(filter::ConfigType::TypedConfig(any(&proxy))) };
    FilterChain { name: name.into(), filters: vec![filter], filter_chain_match: Some(wanted), ..Default::default() }
}

fn inspector<M: Message + Name>(config: &M) -> ListenerFilter {
    let config_type = Some(listener_filter::ConfigType::TypedConfig(any(config)));
    ListenerFilter { name: "f".into(), config_type, ..Default::default() }
}

fn tables() -> Tables {
    let listener = |name: &str, ip: &str, port| listener::Listener {
        name: name.into(),
        address: Some(core::Address {
            address: Some(address::Address::SocketAddress(core::SocketAddress {
                address: ip.into(),
                port_specifier: Some(PortSpecifier::PortValue(port)),
                ..Default::default()
            })),
        }),
        filter_chains: vec![chain(name, FilterChainMatch::default())],
        ..Default::default()
    };
    let on = || Some(maille_xds::types::BoolValue { value: true });
    let sniffing = listener::Listener {
        listener_filters: vec![
            inspector(&tls_inspector::TlsInspector::default()),
            inspector(&http_inspector::HttpInspector {}),
        ],
        filter_chains: vec![
            chain("http", FilterChainMatch { application_protocols: vec!["http/1.1".into()], ..Default::default() }),
            chain(
                "tls",
                FilterChainMatch {
                    server_names: vec!["*.example".into()],
                    transport_protocol: "tls".into(),
                    ..Default::default()
                },
            ),
        ],
        ..listener("sniffing", "0.0.0.0", 90)
    };
    let capture_out = listener::Listener { use_original_dst: on(), ..listener("out", "0.0.0.0", 15001) };
    let capture_in = listener::Listener {
        traffic_direction: core::TrafficDirection::Inbound.into(),
        listener_filters: vec![inspector(&original_dst::OriginalDst {})],
        ..listener("in", "0.0.0.0", 15006)
    };
    let mut world = World::new();
    for one in [listener("exact", "10.0.0.1", 80), listener("any", "0.0.0.0", 80), sniffing, capture_out, capture_in] {
        let name = one.name.clone();
        world.encode(TypeUrl::Listener, name.as_str(), &one);
    }
    let (tables, refused) = Tables::compile(&world);
    assert_eq!(refused, []);
    tables
}

#[test]
fn a_call_finds_its_listener_and_chain() {
    let tables = tables();
    let tls = |name: &str| Call {
        tls: CallTls::Simple,
        server_name: name.into(),
        alpn: vec!["http/1.1".into()],
        ..Call::get("10.0.0.9:90".parse().unwrap(), "", "/")
    };
    let plain = |destination: &str| Call::get(destination.parse().unwrap(), "a", "/");
    let tcp = |destination: &str| Call { protocol: CallProtocol::Tcp, ..plain(destination) };
    for (call, expected) in [
        (plain("10.0.0.1:80"), "to-exact"),
        (plain("10.0.0.2:80"), "to-any"),
        (plain("10.0.0.2:81"), "to-out"),
        (Call { mode: Mode::Inbound, ..plain("10.0.0.1:80") }, "to-in"),
        (plain("10.0.0.2:90"), "to-http"),
        (tls("a.example"), "to-tls"),
        (tls("a.other"), "to-http"),
        (tcp("10.0.0.2:90"), "no filter chains matched"),
    ] {
        let outcome = tables.run(&call);
        let got = outcome.error.map_or_else(|| outcome.cluster.unwrap_or_default().to_string(), |e| e.to_string());
        assert_eq!(got, expected, "{call:?}");
    }
    let none = Tables { listeners: Vec::new(), routes: BTreeMap::new() };
    assert_eq!(none.run(&plain("10.0.0.1:80")).error, Some(Failure::NoListener));
}
