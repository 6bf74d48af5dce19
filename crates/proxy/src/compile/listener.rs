//! Listeners, filter chains, listener filters and TCP proxying.

use std::sync::Arc;
use std::time::Duration;

use maille_xds::types::core::TrafficDirection;
use maille_xds::types::core::proxy_protocol_config::Version;
use maille_xds::types::hcm::HttpConnectionManager;
use maille_xds::types::http_inspector::HttpInspector;
use maille_xds::types::istio::StatsConfig;
use maille_xds::types::listener::filter_chain_match::ConnectionSourceType;
use maille_xds::types::listener::listener::connection_balance_config::BalanceType;
use maille_xds::types::listener::listener_filter_chain_match_predicate::Rule;
use maille_xds::types::listener::{self as proto, filter, listener_filter};
use maille_xds::types::original_dst::OriginalDst;
use maille_xds::types::pb::envoy::extensions::filters::network::ext_authz::v3::ExtAuthz as ExtAuthzProto;
use maille_xds::types::pb::envoy::extensions::filters::network::rbac::v3::Rbac as RbacProto;
use maille_xds::types::pb::envoy::r#type::v3::{HashPolicy, Int32Range, hash_policy};
use maille_xds::types::proxy_protocol::ProxyProtocol;
use maille_xds::types::sni_cluster::SniCluster;
use maille_xds::types::tcp_proxy::tcp_proxy::ClusterSpecifier;
use maille_xds::types::tcp_proxy::{self, TcpProxy as TcpProto};
use maille_xds::types::tls_inspector::TlsInspector;
use maille_xds::types::{Any, BoolValue, Message, Name};

use crate::compile::Refused;
use crate::compile::at::{At, Compiled, is_true, number, unset};
use crate::compile::endpoint::local_address;
use crate::compile::{access_log, ext_authz, filters, http, matcher, rbac, tls};
use crate::config::{
    AuthzGrpc, Destination, Direction, ExtAuthz, FilterChain, IstioStats, Listener, ListenerFilter, ListenerFilterKind,
    MadeFrom, Network, PortPredicate, Priority, ProxyVersion, Rbac, TcpDestination, TcpProxy, Tunnel, WeightedClusters,
};
use crate::headers::HeaderMutations;
use crate::route::{ChainMatch, FilterChains, SourceKind};

/// Envoy's defaults.
const FILTERS_TIMEOUT: Duration = Duration::from_secs(15);
const BUFFER_BYTES: u32 = 1 << 20;
const TCP_IDLE: Duration = Duration::from_secs(3600);

/// Compiles a listener.
pub fn listener(proto: &proto::Listener) -> Result<Listener, Refused> {
    let at = &At::resource(&proto.name);
    let proto::Listener {
        name,
        address,
        additional_addresses,
        stat_prefix: _,
        stats_matcher: _,
        filter_chains,
        fcds_config,
        filter_chain_matcher,
        use_original_dst,
        default_filter_chain,
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout,
        metadata: _,
        deprecated_v1,
        // Which events drain it: here it drains when it goes or the process does, which both types mean.
        drain_type: _,
        listener_filters,
        listener_filters_timeout,
        continue_on_listener_filters_timeout,
        transparent,
        freebind,
        socket_options,
        tcp_fast_open_queue_length,
        traffic_direction,
        udp_listener_config,
        api_listener,
        connection_balance_config,
        reuse_port,
        enable_reuse_port,
        access_log,
        tcp_backlog_size,
        max_connections_to_accept_per_socket_event,
        bind_to_port,
        enable_mptcp,
        ignore_global_conn_limit: _,
        bypass_overload_manager: _,
        tcp_keepalive,
        listener_specifier,
    } = proto;
    unset!(at; fcds_config, filter_chain_matcher, per_connection_buffer_high_watermark_timeout, socket_options);
    unset!(at; tcp_fast_open_queue_length, udp_listener_config, api_listener, enable_mptcp, tcp_keepalive);
    unset!(at; listener_specifier);

    let mut more = Vec::new();
    for (i, proto) in additional_addresses.iter().enumerate() {
        let at = at.item("additional_addresses", i);
        let proto::AdditionalAddress { address, socket_options, tcp_keepalive } = proto;
        unset!(at; socket_options, tcp_keepalive);
        more.push(local_address(&at.field("address"), at.required("address", address)?)?);
    }
    let filters = listener_filters.iter().enumerate();
    let filters = filters.map(|(i, proto)| listener_filter(&at.item("listener_filters", i), proto));
    let chains = filter_chains.iter().enumerate().map(|(i, proto)| filter_chain(&at.item("filter_chains", i), proto));
    let chains = FilterChains::new(chains.collect::<Compiled<_>>()?);
    let default_at = at.field("default_filter_chain");
    let default_chain = default_filter_chain.as_ref().map(|proto| filter_chain(&default_at, proto)).transpose()?;
    let deprecated_bind = deprecated_v1.as_ref().and_then(|v1| v1.bind_to_port);
    let balance = connection_balance_config.as_ref().and_then(|config| config.balance_type.as_ref());
    Ok(Listener {
        name: name.as_str().into(),
        address: local_address(&at.field("address"), at.required("address", address)?)?,
        additional_addresses: more,
        bind_to_port: !matches!(bind_to_port.or(deprecated_bind), Some(BoolValue { value: false })),
        use_original_dst: is_true(use_original_dst),
        direction: match at.one_of("traffic_direction", *traffic_direction)? {
            TrafficDirection::Unspecified => Direction::Unspecified,
            TrafficDirection::Inbound => Direction::Inbound,
            TrafficDirection::Outbound => Direction::Outbound,
        },
        filters: filters.collect::<Compiled<_>>()?,
        filters_timeout: at.timeout("listener_filters_timeout", listener_filters_timeout, Some(FILTERS_TIMEOUT))?,
        continue_on_filters_timeout: *continue_on_listener_filters_timeout,
        chains: chains.or_else(|error| at.field("filter_chains").refuse(error.to_string()))?,
        default_chain: default_chain.map(|(_, chain)| chain),
        buffer_limit: number(per_connection_buffer_limit_bytes).unwrap_or(BUFFER_BYTES),
        reuse_port: enable_reuse_port.is_none_or(|v| v.value) || *reuse_port,
        exact_balance: match balance {
            None => false,
            Some(BalanceType::ExactBalance(_)) => true,
            Some(_) => return at.field("connection_balance_config").refuse("must be exact_balance"),
        },
        transparent: is_true(transparent),
        freebind: is_true(freebind),
        backlog: number(tcp_backlog_size),
        accepts_per_event: number(max_connections_to_accept_per_socket_event),
        access_logs: access_log::access_logs(at, access_log)?,
    })
}

fn listener_filter(at: &At<'_>, proto: &proto::ListenerFilter) -> Compiled<ListenerFilter> {
    let proto::ListenerFilter { name: _, filter_disabled, config_type } = proto;
    let Some(listener_filter::ConfigType::TypedConfig(any)) = config_type else {
        return at.field("typed_config").refuse("is missing");
    };
    let typed = at.field("typed_config");
    let kind = if let Some(OriginalDst {}) = typed.unpack(any)? {
        ListenerFilterKind::OriginalDst
    } else if let Some(HttpInspector {}) = typed.unpack(any)? {
        ListenerFilterKind::HttpInspector
    } else if let Some(proto) = typed.unpack::<TlsInspector>(any)? {
        let TlsInspector {
            enable_ja3_fingerprinting,
            enable_ja4_fingerprinting,
            // How much is read at once, and how much at most: ours is Envoy's greatest.
            initial_read_buffer_size: _,
            max_client_hello_size: _,
            close_connection_on_client_hello_parsing_errors,
        } = &proto;
        unset!(typed; enable_ja3_fingerprinting, enable_ja4_fingerprinting);
        ListenerFilterKind::TlsInspector { strict: *close_connection_on_client_hello_parsing_errors }
    } else if let Some(proto) = typed.unpack::<ProxyProtocol>(any)? {
        let ProxyProtocol {
            rules,
            allow_requests_without_proxy_protocol,
            pass_through_tlvs,
            disallowed_versions,
            stat_prefix: _,
            tlv_location: _,
        } = &proto;
        unset!(typed; rules, pass_through_tlvs);
        let mut refused = Vec::new();
        for version in disallowed_versions {
            refused.push(match typed.one_of("disallowed_versions", *version)? {
                Version::V1 => ProxyVersion::V1,
                Version::V2 => ProxyVersion::V2,
            });
        }
        if refused.contains(&ProxyVersion::V1) && refused.contains(&ProxyVersion::V2) {
            return typed.field("disallowed_versions").refuse("leaves no version");
        }
        let optional = *allow_requests_without_proxy_protocol;
        ListenerFilterKind::ProxyProtocol { optional, refused: refused.first().copied() }
    } else {
        return typed.refuse(format!("{} is no listener filter we have", any.type_url));
    };
    let disabled = filter_disabled.as_ref().map(|proto| predicate(&at.field("filter_disabled"), proto)).transpose()?;
    Ok(ListenerFilter { kind, disabled })
}

fn predicate(at: &At<'_>, proto: &proto::ListenerFilterChainMatchPredicate) -> Compiled<PortPredicate> {
    let all = |rules: &[proto::ListenerFilterChainMatchPredicate]| {
        rules.iter().enumerate().map(|(i, proto)| predicate(&at.item("rules", i), proto)).collect::<Compiled<_>>()
    };
    Ok(match at.required("rule", &proto.rule)? {
        Rule::AnyMatch(true) => PortPredicate::Any,
        Rule::AnyMatch(false) => PortPredicate::Or(Vec::new()),
        Rule::DestinationPortRange(Int32Range { start, end }) => {
            let port = |value: i32| u32::try_from(value).unwrap_or(0);
            PortPredicate::Range(port(*start)..port(*end))
        }
        Rule::NotMatch(other) => PortPredicate::Not(Box::new(predicate(&at.field("not_match"), other)?)),
        Rule::OrMatch(proto::listener_filter_chain_match_predicate::MatchSet { rules }) => {
            PortPredicate::Or(all(rules)?)
        }
        Rule::AndMatch(proto::listener_filter_chain_match_predicate::MatchSet { rules }) => {
            PortPredicate::And(all(rules)?)
        }
    })
}

fn filter_chain(at: &At<'_>, proto: &proto::FilterChain) -> Compiled<(ChainMatch, Arc<FilterChain>)> {
    let proto::FilterChain {
        filter_chain_match,
        filters,
        use_proxy_proto,
        metadata,
        transport_socket,
        transport_socket_connect_timeout,
        name,
    } = proto;
    unset!(at; use_proxy_proto);
    let wanted = match filter_chain_match {
        Some(proto) => chain_match(&at.field("filter_chain_match"), proto)?,
        None => ChainMatch::default(),
    };
    let (Policies { rbac, authorizers }, network) = network(at, filters)?;
    let fingerprint = match &network {
        Network::Tcp(_) => fingerprint(proto),
        Network::Http(_) | Network::Close => 0,
    };
    let chain = FilterChain {
        name: name.as_str().into(),
        made_from: made_from(metadata),
        transport: tls::downstream(at, transport_socket)?,
        rbac,
        authorizers,
        network,
        transport_timeout: at.timeout("transport_socket_connect_timeout", transport_socket_connect_timeout, None)?,
        fingerprint,
    };
    Ok((wanted, Arc::new(chain)))
}

/// Of everything that is done with the connections of a chain, but for who may connect.
fn fingerprint(proto: &proto::FilterChain) -> u64 {
    let rbac = RbacProto::type_url();
    let judges = |filter: &proto::Filter| match &filter.config_type {
        Some(filter::ConfigType::TypedConfig(any)) => any.type_url == rbac,
        _ => false,
    };
    let filters = proto.filters.iter().filter(|filter| !judges(filter)).cloned().collect();
    // Metadata is for those who look at a configuration, and maps have no order.
    let rest = proto::FilterChain { filters, metadata: None, ..proto.clone() };
    xxhash_rust::xxh64::xxh64(&rest.encode_to_vec(), 0)
}

fn made_from(metadata: &Option<maille_xds::types::core::Metadata>) -> MadeFrom {
    let metadata = matcher::metadata(metadata);
    let said = |key: &str| Some(metadata.as_ref()?.get("istio", &[key])?.as_str()?.into());
    MadeFrom { config: said("config"), tls: said("tls") }
}

fn chain_match(at: &At<'_>, proto: &proto::FilterChainMatch) -> Compiled<ChainMatch> {
    let proto::FilterChainMatch {
        destination_port,
        prefix_ranges,
        address_suffix,
        suffix_len,
        direct_source_prefix_ranges,
        source_type,
        source_prefix_ranges,
        source_ports,
        server_names,
        transport_protocol,
        application_protocols,
    } = proto;
    unset!(at; address_suffix, suffix_len);
    let port = |name: &str, value: u32| match u16::try_from(value) {
        Ok(port) => Ok(port),
        Err(_) => at.field(name).refuse(format!("{value} is no port")),
    };
    for (i, name) in server_names.iter().enumerate() {
        if name.contains('*') && !name.starts_with("*.") {
            return at.item("server_names", i).refuse(format!("{name:?}: a wildcard stands for a whole first label"));
        }
    }
    Ok(ChainMatch {
        destination_port: number(destination_port).map(|value| port("destination_port", value)).transpose()?,
        destinations: matcher::cidrs(at, "prefix_ranges", prefix_ranges)?,
        server_names: server_names.iter().map(|name| name.as_str().into()).collect(),
        transport_protocol: transport_protocol.as_str().into(),
        application_protocols: application_protocols.iter().map(|p| p.as_str().into()).collect(),
        direct_sources: matcher::cidrs(at, "direct_source_prefix_ranges", direct_source_prefix_ranges)?,
        source_kind: match at.one_of("source_type", *source_type)? {
            ConnectionSourceType::Any => SourceKind::Any,
            ConnectionSourceType::SameIpOrLoopback => SourceKind::SameIpOrLoopback,
            ConnectionSourceType::External => SourceKind::External,
        },
        sources: matcher::cidrs(at, "source_prefix_ranges", source_prefix_ranges)?,
        source_ports: source_ports.iter().map(|value| port("source_ports", *value)).collect::<Compiled<_>>()?,
    })
}

/// Who may connect.
#[derive(Default)]
struct Policies {
    rbac: Vec<Arc<Rbac>>,
    authorizers: Vec<Arc<ExtAuthz<AuthzGrpc>>>,
}

/// The network filters: one that ends the chain, after `sni_cluster`, policies and Istio's metrics at most.
fn network(at: &At<'_>, protos: &[proto::Filter]) -> Compiled<(Policies, Network)> {
    let mut sni_cluster = false;
    let mut policies = Policies::default();
    let mut stats = None;
    for (i, proto) in protos.iter().enumerate() {
        let at = at.item("filters", i);
        let proto::Filter { name: _, config_type } = proto;
        let Some(filter::ConfigType::TypedConfig(any)) = config_type else {
            return at.field("typed_config").refuse("is missing");
        };
        let at = at.field("typed_config");
        if let Some(SniCluster {}) = at.unpack(any)? {
            sni_cluster = true;
            continue;
        }
        if let Some(proto) = at.unpack::<RbacProto>(any)? {
            policies.rbac.push(Arc::new(rbac::network(&at, &proto)?));
            continue;
        }
        if let Some(proto) = at.unpack::<ExtAuthzProto>(any)? {
            policies.authorizers.push(Arc::new(ext_authz::network(&at, &proto)?));
            continue;
        }
        if let Some(proto) = at.unpack::<StatsConfig>(any)? {
            stats = Some(filters::istio_stats(&at, &proto)?);
            continue;
        }
        let network = terminal(&at, any, sni_cluster, stats)?;
        if let (Network::Http(_), false) = (&network, policies.authorizers.is_empty()) {
            return at.refuse("cannot stand behind ext_authz: HTTP asks for each request");
        }
        return match i + 1 == protos.len() {
            true => Ok((policies, network)),
            false => at.refuse("must be the last filter: nothing gets past it"),
        };
    }
    Ok((policies, Network::Close))
}

fn terminal(at: &At<'_>, any: &Any, sni_cluster: bool, stats: Option<IstioStats>) -> Compiled<Network> {
    if let Some(proto) = at.unpack::<HttpConnectionManager>(any)? {
        return http::http_manager(at, &proto).map(|manager| Network::Http(Arc::new(manager)));
    }
    if let Some(proto) = at.unpack::<TcpProto>(any)? {
        let proxy = tcp_proxy(at, &proto, sni_cluster)?;
        return Ok(Network::Tcp(Arc::new(TcpProxy { istio_stats: stats, ..proxy })));
    }
    at.refuse(format!("{} is no network filter we have", any.type_url))
}

fn tcp_proxy(at: &At<'_>, proto: &TcpProto, sni_cluster: bool) -> Compiled<TcpProxy> {
    let TcpProto {
        stat_prefix,
        on_demand,
        metadata_match,
        idle_timeout,
        downstream_idle_timeout,
        upstream_idle_timeout,
        access_log,
        max_connect_attempts,
        backoff_options,
        hash_policy,
        tunneling_config,
        max_downstream_connection_duration,
        max_downstream_connection_duration_jitter_percentage,
        access_log_flush_interval,
        flush_access_log_on_connected,
        access_log_options,
        proxy_protocol_tlvs,
        proxy_protocol_tlv_merge_policy,
        upstream_connect_mode,
        max_early_data_bytes,
        check_drain_close,
        cluster_specifier,
    } = proto;
    unset!(at; on_demand, metadata_match, downstream_idle_timeout, upstream_idle_timeout, backoff_options);
    unset!(at; max_downstream_connection_duration_jitter_percentage, access_log_flush_interval);
    unset!(at; flush_access_log_on_connected, access_log_options, proxy_protocol_tlvs, upstream_connect_mode);
    unset!(at; proxy_protocol_tlv_merge_policy, max_early_data_bytes, check_drain_close);
    let cluster = match at.required("cluster_specifier", cluster_specifier)? {
        // `sni_cluster` overrides whatever cluster is given.
        _ if sni_cluster => TcpDestination::Sni,
        ClusterSpecifier::Cluster(name) => TcpDestination::Cluster(at.text("cluster", name)?.into()),
        ClusterSpecifier::WeightedClusters(proto) => {
            TcpDestination::Weighted(weighted(&at.field("weighted_clusters"), proto)?)
        }
    };
    let mut hash_source_ip = false;
    for (i, proto) in hash_policy.iter().enumerate() {
        match proto {
            HashPolicy { policy_specifier: Some(hash_policy::PolicySpecifier::SourceIp(_)) } => hash_source_ip = true,
            _ => return at.item("hash_policy", i).refuse("must be source_ip"),
        }
    }
    Ok(TcpProxy {
        stat_prefix: stat_prefix.as_str().into(),
        cluster,
        idle_timeout: at.timeout("idle_timeout", idle_timeout, Some(TCP_IDLE))?,
        max_duration: at.timeout("max_downstream_connection_duration", max_downstream_connection_duration, None)?,
        max_connect_attempts: number(max_connect_attempts).unwrap_or(1).max(1),
        access_logs: access_log::access_logs(at, access_log)?,
        hash_source_ip,
        priority: Priority::Default,
        tunnel: tunneling_config.as_ref().map(|proto| tunnel(&at.field("tunneling_config"), proto)).transpose()?,
        istio_stats: None,
    })
}

fn tunnel(at: &At<'_>, proto: &tcp_proxy::tcp_proxy::TunnelingConfig) -> Compiled<Tunnel> {
    let tcp_proxy::tcp_proxy::TunnelingConfig {
        hostname,
        use_post,
        headers_to_add,
        propagate_response_headers,
        post_path,
        propagate_response_trailers,
        request_id_extension,
        request_id_header,
        request_id_metadata_key,
        formatters,
    } = proto;
    unset!(at; headers_to_add, propagate_response_headers, propagate_response_trailers, request_id_extension);
    unset!(at; request_id_header, request_id_metadata_key, formatters);
    let host = at.text("hostname", hostname)?;
    if !host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']')) {
        return at.field("hostname").refuse(format!("{host:?} must be a host and a port"));
    }
    let path = match (use_post, post_path.as_str()) {
        (false, "") => None,
        (false, _) => return at.field("post_path").refuse("has no meaning without use_post"),
        (true, "") => Some("/"),
        (true, path) if path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic()) => Some(path),
        (true, _) => return at.field("post_path").refuse("must begin with / and have no blanks in it"),
    };
    Ok(Tunnel { host: host.into(), post_path: path.map(Into::into) })
}

fn weighted(at: &At<'_>, proto: &tcp_proxy::tcp_proxy::WeightedCluster) -> Compiled<WeightedClusters> {
    let mut shares = Vec::new();
    for (i, proto) in proto.clusters.iter().enumerate() {
        let at = at.item("clusters", i);
        let tcp_proxy::tcp_proxy::weighted_cluster::ClusterWeight { name, weight, metadata_match } = proto;
        unset!(at; metadata_match);
        let destination = Destination {
            cluster: at.text("name", name)?.into(),
            request: HeaderMutations::default(),
            response: HeaderMutations::default(),
            host: None,
        };
        shares.push((*weight, destination));
    }
    match WeightedClusters::new(shares) {
        Some(clusters) => Ok(clusters),
        None => at.field("clusters").refuse("the weights add up to nothing"),
    }
}
