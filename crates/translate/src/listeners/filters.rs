//! Filters that look at a connection before a chain is chosen.

use maille_xds::types::kind::Int32Range;
use maille_xds::types::listener::{
    ListenerFilter, ListenerFilterChainMatchPredicate as Predicate, listener_filter,
    listener_filter_chain_match_predicate,
};
use maille_xds::types::{Message, Name, UInt32Value, any, http_inspector, original_dst, proxy_protocol, tls_inspector};

/// The transport protocol of a connection that is not TLS.
pub(crate) const RAW_BUFFER: &str = "raw_buffer";
/// That of one that is.
pub(crate) const TLS: &str = "tls";
/// What the HTTP inspector recognizes and we serve as HTTP.
pub(crate) const PLAINTEXT_HTTP: [&str; 2] = ["http/1.1", "h2c"];

/// Finds the server name and the protocols a TLS client offers.
pub(crate) fn tls_inspector() -> ListenerFilter {
    let config = tls_inspector::TlsInspector {
        initial_read_buffer_size: Some(UInt32Value { value: 512 }),
        ..Default::default()
    };
    filter("envoy.filters.listener.tls_inspector", &config)
}

/// Finds out whether a plaintext client speaks HTTP.
pub(crate) fn http_inspector() -> ListenerFilter {
    filter("envoy.filters.listener.http_inspector", &http_inspector::HttpInspector::default())
}

/// Asks the kernel where a redirected connection was going.
pub(crate) fn original_destination() -> ListenerFilter {
    filter("envoy.filters.listener.original_dst", &original_dst::OriginalDst::default())
}

/// Keeps the client's address towards the application.
pub(crate) fn original_source() -> ListenerFilter {
    let config = maille_xds::types::pb::envoy::extensions::filters::listener::original_src::v3::OriginalSrc {
        mark: 1337,
        ..Default::default()
    };
    filter("envoy.filters.listener.original_src", &config)
}

/// Reads the client's address from the PROXY protocol of a load balancer in front.
pub(crate) fn proxy_protocol() -> ListenerFilter {
    filter("envoy.filters.listener.proxy_protocol", &proxy_protocol::ProxyProtocol::default())
}

/// Turns a filter off for connections to these ports.
pub(crate) fn except_ports(filter: ListenerFilter, ports: &[u32]) -> ListenerFilter {
    ListenerFilter { filter_disabled: any_port(ports), ..filter }
}

/// Turns a filter off for connections to any other port.
pub(crate) fn only_ports(filter: ListenerFilter, ports: &[u32]) -> ListenerFilter {
    let others = any_port(ports)
        .map(|ports| Predicate { rule: Some(listener_filter_chain_match_predicate::Rule::NotMatch(Box::new(ports))) });
    ListenerFilter { filter_disabled: others, ..filter }
}

fn any_port(ports: &[u32]) -> Option<Predicate> {
    let mut rules: Vec<Predicate> =
        ports.iter().filter_map(|port| Some(port_rule(i32::try_from(*port).ok()?))).collect();
    if rules.len() < 2 {
        return rules.pop();
    }
    let set = listener_filter_chain_match_predicate::MatchSet { rules };
    Some(Predicate { rule: Some(listener_filter_chain_match_predicate::Rule::OrMatch(set)) })
}

fn port_rule(port: i32) -> Predicate {
    let range = Int32Range { start: port, end: port + 1 };
    Predicate { rule: Some(listener_filter_chain_match_predicate::Rule::DestinationPortRange(range)) }
}

fn filter<M: Message + Name>(name: &str, config: &M) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        filter_disabled: None,
        config_type: Some(listener_filter::ConfigType::TypedConfig(any(config))),
    }
}
