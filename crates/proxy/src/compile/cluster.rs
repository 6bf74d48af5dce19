//! Clusters.

use std::sync::Arc;
use std::time::Duration;

use maille_xds::types::cluster::circuit_breakers::{Thresholds, thresholds};
use maille_xds::types::cluster::cluster::{self, ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, LbConfig};
use maille_xds::types::cluster::{self as proto, CircuitBreakers, UpstreamConnectionOptions};
use maille_xds::types::core::{self, RoutingPriority};
use maille_xds::types::pb::envoy::config::common::matcher::v3::MatchPredicate;
use maille_xds::types::upstream_http::http_protocol_options::{
    AutoHttpConfig, ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
    explicit_http_config::ProtocolConfig,
};
use maille_xds::types::upstream_http::{self};
use maille_xds::types::{UInt32Value, pb};

use crate::compile::Refused;
use crate::compile::at::{At, Compiled, is_true, number, unset};
use crate::compile::endpoint::{load_assignment, local_socket_address};
use crate::compile::{http, load_balancing, matcher, tls};
use crate::config::{
    Cluster, Discovery, DnsFamily, DnsOptions, EndpointAddress, Endpoints, Limits, OriginalDst, OutlierDetection,
    ResponsePredicate, RetryBudget, TcpKeepalive, TransportMatch, UpstreamHttp, UpstreamProtocol,
};

/// Envoy's defaults.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const BUFFER_BYTES: u32 = 1 << 20;
const DNS_REFRESH: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(3600);
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Compiles a cluster.
pub fn cluster(proto: &proto::Cluster) -> Result<Cluster, Refused> {
    let at = &At::resource(&proto.name);
    let proto::Cluster {
        transport_socket_matches,
        transport_socket_matcher,
        name,
        alt_stat_name,
        stats_matcher: _,
        eds_cluster_config: _,
        connect_timeout,
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout,
        lb_policy: _,
        load_assignment: _,
        health_checks,
        max_requests_per_connection,
        circuit_breakers,
        upstream_http_protocol_options,
        common_http_protocol_options,
        http_protocol_options,
        http2_protocol_options,
        typed_extension_protocol_options,
        dns_refresh_rate: _,
        dns_jitter: _,
        dns_failure_refresh_rate: _,
        respect_dns_ttl: _,
        dns_lookup_family: _,
        dns_resolvers,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        typed_dns_resolver_config,
        // Clusters warm without waiting for health checks, which there are none of.
        wait_for_warm_on_init: _,
        outlier_detection,
        // How soon unused original destinations are forgotten.
        cleanup_interval: _,
        upstream_bind_config,
        lb_subset_config,
        common_lb_config,
        transport_socket,
        metadata,
        protocol_selection,
        upstream_connection_options,
        close_connections_on_host_health_failure,
        // Hosts are never health-checked.
        ignore_health_on_host_removal: _,
        filters,
        load_balancing_policy: _,
        lrs_server,
        lrs_report_endpoint_metrics,
        // Metrics.
        track_timeout_budgets: _,
        track_cluster_stats: _,
        upstream_config,
        preconnect_policy,
        connection_pool_per_downstream_connection,
        queuing_policies,
        cluster_discovery_type,
        lb_config: _,
    } = proto;
    unset!(at; transport_socket_matcher, per_connection_buffer_high_watermark_timeout, health_checks);
    unset!(at; dns_resolvers, use_tcp_for_dns_lookups, dns_resolution_config, lb_subset_config, protocol_selection);
    unset!(at; filters, lrs_server, lrs_report_endpoint_metrics, upstream_config);
    unset!(at; preconnect_policy, connection_pool_per_downstream_connection, queuing_policies);
    dns_resolver(at, typed_dns_resolver_config)?;
    let common = load_balancing::common(at, common_lb_config)?;
    let (lb, own_localities) = load_balancing::policy(at, proto, common.hashing)?;
    let (limits, high_priority_limits) = circuit_breakers_of(at, circuit_breakers)?;
    let mut http = match typed_extension_protocol_options.iter().next() {
        None => plain_http(
            at,
            common_http_protocol_options,
            http_protocol_options,
            http2_protocol_options,
            upstream_http_protocol_options,
        )?,
        Some((key, any)) if typed_extension_protocol_options.len() == 1 && key == HTTP_OPTIONS => {
            unset!(at; common_http_protocol_options, http_protocol_options, http2_protocol_options);
            unset!(at; upstream_http_protocol_options);
            let at = at.field("typed_extension_protocol_options");
            match at.unpack::<upstream_http::HttpProtocolOptions>(any)? {
                Some(proto) => typed_http(&at, &proto)?,
                None => return at.refuse(format!("{} are no protocol options we have", any.type_url)),
            }
        }
        Some(_) => {
            return at.field("typed_extension_protocol_options").refuse("only HttpProtocolOptions are supported");
        }
    };
    http.max_requests_per_connection =
        http.max_requests_per_connection.or(number(max_requests_per_connection).filter(|n| *n > 0));
    let matches = transport_socket_matches.iter().enumerate();
    let matches = matches.map(|(i, proto)| transport_match(&at.item("transport_socket_matches", i), proto));
    Ok(Cluster {
        name: name.as_str().into(),
        stat_name: if alt_stat_name.is_empty() { name.as_str().into() } else { alt_stat_name.as_str().into() },
        discovery: discovery(at, proto, at.required("cluster_discovery_type", cluster_discovery_type)?)?,
        lb,
        locality_lb: own_localities.unwrap_or(common.locality),
        panic_threshold: common.panic,
        connect_timeout: at.duration("connect_timeout", connect_timeout)?.unwrap_or(CONNECT_TIMEOUT),
        limits,
        high_priority_limits,
        outlier: outlier_detection.as_ref().map(|proto| outlier(&at.field("outlier_detection"), proto)).transpose()?,
        http,
        transport: tls::upstream(at, transport_socket)?,
        transport_matches: matches.collect::<Compiled<_>>()?,
        tcp_keepalive: keepalive(at, upstream_connection_options)?,
        buffer_limit: number(per_connection_buffer_limit_bytes).unwrap_or(BUFFER_BYTES),
        source_addresses: source_addresses(at, upstream_bind_config)?,
        close_on_host_failure: *close_connections_on_host_health_failure,
        close_on_host_removal: common.close_on_host_removal,
        metadata: matcher::metadata(metadata),
    })
}

/// c-ares settings tune a resolver that is not ours; another resolver's would mean other answers.
fn dns_resolver(at: &At<'_>, proto: &Option<core::TypedExtensionConfig>) -> Compiled<()> {
    use pb::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
    let Some(any) = proto.as_ref().and_then(|proto| proto.typed_config.as_ref()) else { return Ok(()) };
    let at = at.field("typed_dns_resolver_config");
    match at.unpack::<CaresDnsResolverConfig>(any)? {
        Some(cares) if cares.resolvers.is_empty() => Ok(()),
        Some(_) => at.field("resolvers").refuse("is not supported: the system's resolvers are asked"),
        None => at.refuse(format!("{} is not supported", any.type_url)),
    }
}

fn discovery(at: &At<'_>, proto: &proto::Cluster, kind: &ClusterDiscoveryType) -> Compiled<Discovery> {
    let hosts = || match &proto.load_assignment {
        Some(hosts) => load_assignment(&at.field("load_assignment"), hosts).map(Arc::new),
        None => Ok(Arc::new(Endpoints { cluster: proto.name.as_str().into(), ..Endpoints::default() })),
    };
    let kind = match kind {
        ClusterDiscoveryType::Type(kind) => at.one_of("type", *kind)?,
        ClusterDiscoveryType::ClusterType(custom) => return custom_discovery(&at.field("cluster_type"), custom),
    };
    Ok(match kind {
        DiscoveryType::Eds => {
            let Some(cluster::EdsClusterConfig { eds_config, service_name }) = &proto.eds_cluster_config else {
                return at.field("eds_cluster_config").refuse("is missing");
            };
            let at = at.field("eds_cluster_config");
            http::ads(&at, "eds_config", eds_config)?;
            Discovery::Eds(if service_name.is_empty() { proto.name.as_str() } else { service_name }.into())
        }
        DiscoveryType::Static => {
            let hosts = hosts()?;
            if has_names(&hosts) {
                return at.field("load_assignment").refuse("a STATIC cluster needs IP addresses, not names");
            }
            Discovery::Static(hosts)
        }
        DiscoveryType::StrictDns => Discovery::StrictDns(hosts()?, dns(at, proto)?),
        DiscoveryType::LogicalDns => {
            let hosts = hosts()?;
            if hosts.localities.iter().map(|l| l.endpoints.len()).sum::<usize>() != 1 {
                return at.field("load_assignment").refuse("a LOGICAL_DNS cluster has exactly one endpoint");
            }
            Discovery::LogicalDns(hosts, dns(at, proto)?)
        }
        DiscoveryType::OriginalDst => Discovery::OriginalDst(original_dst(at, proto)?),
    })
}

fn custom_discovery(at: &At<'_>, proto: &cluster::CustomClusterType) -> Compiled<Discovery> {
    use pb::envoy::extensions::clusters::dynamic_forward_proxy::v3::ClusterConfig;
    use pb::envoy::extensions::clusters::dynamic_forward_proxy::v3::cluster_config::ClusterImplementationSpecifier;
    let cluster::CustomClusterType { name, typed_config } = proto;
    let Some(any) = typed_config else { return at.field("typed_config").refuse("is missing") };
    let Some(proto) = at.unpack::<ClusterConfig>(any)? else {
        return at.refuse(format!("{name:?} is no kind of cluster we have"));
    };
    match &proto.cluster_implementation_specifier {
        Some(ClusterImplementationSpecifier::DnsCacheConfig(cache)) => {
            Ok(Discovery::DynamicForwardProxy(family(at, cache.dns_lookup_family)?))
        }
        _ => at.field("typed_config").refuse("must have a dns_cache_config"),
    }
}

fn has_names(hosts: &Endpoints) -> bool {
    hosts.localities.iter().flat_map(|l| &l.endpoints).any(|e| matches!(e.address, EndpointAddress::Host(..)))
}

fn dns(at: &At<'_>, proto: &proto::Cluster) -> Compiled<DnsOptions> {
    let failure =
        proto.dns_failure_refresh_rate.as_ref().map(|cluster::RefreshRate { base_interval, max_interval }| {
            let at = at.field("dns_failure_refresh_rate");
            let base = at.duration("base_interval", base_interval)?.unwrap_or(DNS_REFRESH);
            Ok((base, at.duration("max_interval", max_interval)?.unwrap_or(base.saturating_mul(10))))
        });
    Ok(DnsOptions {
        refresh: at.duration("dns_refresh_rate", &proto.dns_refresh_rate)?.unwrap_or(DNS_REFRESH),
        failure_refresh: failure.transpose()?,
        jitter: at.duration("dns_jitter", &proto.dns_jitter)?.unwrap_or_default(),
        respect_ttl: proto.respect_dns_ttl,
        family: family(at, proto.dns_lookup_family)?,
    })
}

fn family(at: &At<'_>, value: i32) -> Compiled<DnsFamily> {
    Ok(match at.one_of("dns_lookup_family", value)? {
        DnsLookupFamily::Auto => DnsFamily::Auto,
        DnsLookupFamily::V4Only => DnsFamily::V4Only,
        DnsLookupFamily::V6Only => DnsFamily::V6Only,
        DnsLookupFamily::V4Preferred => DnsFamily::V4Preferred,
        DnsLookupFamily::All => DnsFamily::All,
    })
}

fn original_dst(at: &At<'_>, proto: &proto::Cluster) -> Compiled<OriginalDst> {
    let Some(LbConfig::OriginalDstLbConfig(config)) = &proto.lb_config else { return Ok(OriginalDst::default()) };
    let at = at.field("original_dst_lb_config");
    let cluster::OriginalDstLbConfig { use_http_header, http_header_name, upstream_port_override, metadata_key } =
        config;
    unset!(at; metadata_key);
    let header = match http_header_name.as_str() {
        "" => "x-envoy-original-dst-host",
        name => name,
    };
    let port = number(upstream_port_override).map(u16::try_from).transpose();
    Ok(OriginalDst {
        header: use_http_header.then(|| matcher::header_name(&at, "http_header_name", header)).transpose()?,
        port: port.or_else(|_| at.field("upstream_port_override").refuse("is no port"))?,
    })
}

fn circuit_breakers_of(at: &At<'_>, proto: &Option<CircuitBreakers>) -> Compiled<(Limits, Limits)> {
    let mut out = (Limits::default(), Limits::default());
    let Some(CircuitBreakers { thresholds, per_host_thresholds }) = proto else { return Ok(out) };
    let at = at.field("circuit_breakers");
    // Of several for a priority the first counts.
    for (i, proto) in thresholds.iter().enumerate().rev() {
        let at = at.item("thresholds", i);
        match at.one_of("priority", proto.priority)? {
            RoutingPriority::Default => out.0 = limits(&at, proto)?,
            RoutingPriority::High => out.1 = limits(&at, proto)?,
        }
    }
    for (i, proto) in per_host_thresholds.iter().enumerate().rev() {
        let at = at.item("per_host_thresholds", i);
        let Thresholds {
            priority,
            max_connections,
            max_pending_requests,
            max_requests,
            max_retries,
            retry_budget,
            track_remaining,
            max_connection_pools,
        } = proto;
        unset!(at; max_pending_requests, max_requests, max_retries, retry_budget, track_remaining);
        unset!(at; max_connection_pools);
        let most = number(max_connections).unwrap_or(u32::MAX);
        match at.one_of("priority", *priority)? {
            RoutingPriority::Default => out.0.max_connections_per_host = most,
            RoutingPriority::High => out.1.max_connections_per_host = most,
        }
    }
    Ok(out)
}

fn limits(at: &At<'_>, proto: &Thresholds) -> Compiled<Limits> {
    let Thresholds {
        priority: _,
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget,
        track_remaining,
        max_connection_pools,
    } = proto;
    let default = Limits::default();
    let budget = retry_budget.as_ref().map(|proto| {
        let at = at.field("retry_budget");
        let thresholds::RetryBudget { budget_percent, budget_interval, min_retry_concurrency } = proto;
        Ok(RetryBudget {
            percent: budget_percent.as_ref().map_or(20.0, |p| p.value),
            least: number(min_retry_concurrency).unwrap_or(3),
            interval: at.timeout("budget_interval", budget_interval, None)?,
        })
    });
    Ok(Limits {
        max_connections: number(max_connections).unwrap_or(default.max_connections),
        max_pending_requests: number(max_pending_requests).unwrap_or(default.max_pending_requests),
        max_requests: number(max_requests).unwrap_or(default.max_requests),
        max_retries: number(max_retries).unwrap_or(default.max_retries),
        retry_budget: budget.transpose()?,
        max_connection_pools: number(max_connection_pools).unwrap_or(u32::MAX),
        max_connections_per_host: u32::MAX,
        track_remaining: *track_remaining,
    })
}

fn outlier(at: &At<'_>, proto: &proto::OutlierDetection) -> Compiled<OutlierDetection> {
    let proto::OutlierDetection {
        consecutive_5xx,
        interval,
        base_ejection_time,
        max_ejection_percent,
        enforcing_consecutive_5xx,
        enforcing_success_rate,
        success_rate_minimum_hosts,
        success_rate_request_volume,
        success_rate_stdev_factor,
        consecutive_gateway_failure,
        enforcing_consecutive_gateway_failure,
        split_external_local_origin_errors,
        consecutive_local_origin_failure,
        enforcing_consecutive_local_origin_failure,
        enforcing_local_origin_success_rate,
        failure_percentage_threshold,
        enforcing_failure_percentage,
        enforcing_failure_percentage_local_origin,
        failure_percentage_minimum_hosts,
        failure_percentage_request_volume,
        max_ejection_time,
        max_ejection_time_jitter,
        // There are no active health checks that could succeed.
        successful_active_health_check_uneject_host: _,
        monitors,
        always_eject_one_host,
        detect_degraded_hosts,
    } = proto;
    unset!(at; monitors, detect_degraded_hosts);
    let percentages = [
        ("max_ejection_percent", max_ejection_percent),
        ("enforcing_consecutive_5xx", enforcing_consecutive_5xx),
        ("enforcing_consecutive_gateway_failure", enforcing_consecutive_gateway_failure),
        ("enforcing_consecutive_local_origin_failure", enforcing_consecutive_local_origin_failure),
        ("enforcing_success_rate", enforcing_success_rate),
        ("enforcing_local_origin_success_rate", enforcing_local_origin_success_rate),
        ("failure_percentage_threshold", failure_percentage_threshold),
        ("enforcing_failure_percentage", enforcing_failure_percentage),
        ("enforcing_failure_percentage_local_origin", enforcing_failure_percentage_local_origin),
    ];
    for (name, value) in percentages {
        if let Some(value) = number(value).filter(|value| *value > 100) {
            return at.field(name).refuse(format!("{value} is more than 100 percent"));
        }
    }
    let times =
        [("interval", interval), ("base_ejection_time", base_ejection_time), ("max_ejection_time", max_ejection_time)];
    for (name, time) in times {
        if at.duration(name, time)? == Some(Duration::ZERO) {
            return at.field(name).refuse("must be longer than 0s");
        }
    }
    let or = |value: &Option<UInt32Value>, default: u32| number(value).unwrap_or(default);
    let base = at.duration("base_ejection_time", base_ejection_time)?.unwrap_or(Duration::from_secs(30));
    let most = at.duration("max_ejection_time", max_ejection_time)?.unwrap_or(base.max(Duration::from_secs(300)));
    if most < base {
        return at.field("max_ejection_time").refuse(format!("must be at least base_ejection_time, {base:?}"));
    }
    Ok(OutlierDetection {
        consecutive_5xx: or(consecutive_5xx, 5),
        enforcing_consecutive_5xx: or(enforcing_consecutive_5xx, 100),
        consecutive_gateway_failure: or(consecutive_gateway_failure, 5),
        enforcing_consecutive_gateway_failure: or(enforcing_consecutive_gateway_failure, 0),
        consecutive_local_origin_failure: or(consecutive_local_origin_failure, 5),
        enforcing_consecutive_local_origin_failure: or(enforcing_consecutive_local_origin_failure, 100),
        split_external_local_origin_errors: *split_external_local_origin_errors,
        interval: at.duration("interval", interval)?.unwrap_or(Duration::from_secs(10)),
        base_ejection_time: base,
        max_ejection_time: most,
        max_ejection_time_jitter: at
            .duration("max_ejection_time_jitter", max_ejection_time_jitter)?
            .unwrap_or_default(),
        max_ejection_percent: or(max_ejection_percent, 10),
        always_eject_one_host: is_true(always_eject_one_host),
        enforcing_success_rate: or(enforcing_success_rate, 100),
        success_rate_minimum_hosts: or(success_rate_minimum_hosts, 5),
        success_rate_request_volume: or(success_rate_request_volume, 100),
        success_rate_stdev_factor: or(success_rate_stdev_factor, 1900),
        enforcing_local_origin_success_rate: or(enforcing_local_origin_success_rate, 100),
        failure_percentage_threshold: or(failure_percentage_threshold, 85),
        enforcing_failure_percentage: or(enforcing_failure_percentage, 0),
        enforcing_failure_percentage_local_origin: or(enforcing_failure_percentage_local_origin, 0),
        failure_percentage_minimum_hosts: or(failure_percentage_minimum_hosts, 5),
        failure_percentage_request_volume: or(failure_percentage_request_volume, 50),
    })
}

/// The options before they had a message of their own.
fn plain_http(
    at: &At<'_>,
    common: &Option<core::HttpProtocolOptions>,
    http1: &Option<core::Http1ProtocolOptions>,
    http2: &Option<core::Http2ProtocolOptions>,
    upstream: &Option<core::UpstreamHttpProtocolOptions>,
) -> Compiled<UpstreamHttp> {
    let protocol = if http2.is_some() { UpstreamProtocol::Http2 } else { UpstreamProtocol::Http1 };
    upstream_http(at, protocol, common, http1, http2, upstream)
}

fn typed_http(at: &At<'_>, proto: &upstream_http::HttpProtocolOptions) -> Compiled<UpstreamHttp> {
    let upstream_http::HttpProtocolOptions {
        common_http_protocol_options: common,
        upstream_http_protocol_options: upstream,
        http_filters,
        header_validation_config,
        outlier_detection,
        request_mirror_policies,
        hash_policy,
        retry_policy,
        upstream_protocol_options,
    } = proto;
    unset!(at; http_filters, header_validation_config, request_mirror_policies, hash_policy);
    unset!(at; retry_policy);
    let (protocol, http1, http2) = match at.required("upstream_protocol_options", upstream_protocol_options)? {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config }) => {
            let at = at.field("explicit_http_config");
            match at.required("protocol_config", protocol_config)? {
                ProtocolConfig::HttpProtocolOptions(http1) => (UpstreamProtocol::Http1, Some(http1.clone()), None),
                ProtocolConfig::Http2ProtocolOptions(http2) => (UpstreamProtocol::Http2, None, Some(http2.clone())),
                ProtocolConfig::Http3ProtocolOptions(_) => return at.refuse("HTTP/3 is not supported"),
            }
        }
        UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
            http_protocol_options: http1,
            http2_protocol_options: http2,
            http3_protocol_options,
        }) => {
            let at = at.field("use_downstream_protocol_config");
            unset!(at; http3_protocol_options);
            (UpstreamProtocol::Downstream, http1.clone(), http2.clone())
        }
        UpstreamProtocolOptions::AutoConfig(AutoHttpConfig {
            http_protocol_options: http1,
            http2_protocol_options: http2,
            http3_protocol_options,
            alternate_protocols_cache_options,
        }) => {
            let at = at.field("auto_config");
            unset!(at; http3_protocol_options, alternate_protocols_cache_options);
            (UpstreamProtocol::Alpn, http1.clone(), http2.clone())
        }
    };
    let mut http = upstream_http(at, protocol, common, &http1, &http2, upstream)?;
    if let Some(upstream_http::http_protocol_options::OutlierDetection { error_matcher }) = outlier_detection {
        let at = at.field("outlier_detection");
        http.errors =
            error_matcher.as_ref().map(|proto| response_predicate(&at.field("error_matcher"), proto)).transpose()?;
    }
    Ok(http)
}

fn response_predicate(at: &At<'_>, proto: &MatchPredicate) -> Compiled<ResponsePredicate> {
    use maille_xds::types::pb::envoy::config::common::matcher::v3::match_predicate::{MatchSet, Rule};
    let all = |at: &At<'_>, MatchSet { rules }: &MatchSet| -> Compiled<Vec<_>> {
        rules.iter().enumerate().map(|(i, rule)| response_predicate(&at.item("rules", i), rule)).collect()
    };
    Ok(match at.required("rule", &proto.rule)? {
        Rule::AnyMatch(_) => ResponsePredicate::Any,
        Rule::NotMatch(inner) => ResponsePredicate::Not(Box::new(response_predicate(&at.field("not_match"), inner)?)),
        Rule::AndMatch(set) => ResponsePredicate::All(all(&at.field("and_match"), set)?),
        Rule::OrMatch(set) => ResponsePredicate::OneOf(all(&at.field("or_match"), set)?),
        Rule::HttpResponseHeadersMatch(headers) => {
            let at = at.field("http_response_headers_match");
            ResponsePredicate::Headers(matcher::headers(&at, "headers", &headers.headers)?)
        }
        _ => return at.refuse("only response headers can be matched here"),
    })
}

fn upstream_http(
    at: &At<'_>,
    protocol: UpstreamProtocol,
    common: &Option<core::HttpProtocolOptions>,
    http1: &Option<core::Http1ProtocolOptions>,
    http2: &Option<core::Http2ProtocolOptions>,
    upstream: &Option<core::UpstreamHttpProtocolOptions>,
) -> Compiled<UpstreamHttp> {
    let common = http::common(&at.field("common_http_protocol_options"), common, Some(IDLE))?;
    let default = core::UpstreamHttpProtocolOptions::default();
    let core::UpstreamHttpProtocolOptions { auto_sni, auto_san_validation, override_auto_sni_header } =
        upstream.as_ref().unwrap_or(&default);
    unset!(at; override_auto_sni_header);
    Ok(UpstreamHttp {
        protocol,
        http1: http::http1(&at.field("http_protocol_options"), http1)?,
        http2: http::http2(&at.field("http2_protocol_options"), http2)?,
        idle_timeout: common.idle,
        max_connection_duration: common.max_connection_duration,
        max_stream_duration: common.max_stream_duration,
        max_requests_per_connection: common.max_requests,
        errors: None,
        max_header_count: common.max_headers,
        max_header_bytes: common.max_response_bytes,
        auto_sni: *auto_sni,
        auto_san_validation: *auto_san_validation,
    })
}

fn transport_match(at: &At<'_>, proto: &cluster::TransportSocketMatch) -> Compiled<TransportMatch> {
    let cluster::TransportSocketMatch { name, r#match, transport_socket } = proto;
    let criteria = r#match.as_ref().map(matcher::json);
    let criteria = criteria.as_ref().and_then(|json| json.as_object()).into_iter().flatten();
    Ok(TransportMatch {
        name: name.as_str().into(),
        criteria: criteria.map(|(key, value)| (key.as_str().into(), value.clone())).collect(),
        transport: tls::upstream(at, transport_socket)?,
    })
}

fn keepalive(at: &At<'_>, proto: &Option<UpstreamConnectionOptions>) -> Compiled<Option<TcpKeepalive>> {
    let Some(proto) = proto else { return Ok(None) };
    let at = at.field("upstream_connection_options");
    let UpstreamConnectionOptions {
        tcp_keepalive,
        // Metrics.
        set_local_interface_name_on_upstream_connections: _,
        happy_eyeballs_config,
    } = proto;
    unset!(at; happy_eyeballs_config);
    let seconds = |value: &Option<UInt32Value>| number(value).map(|s| Duration::from_secs(s.into()));
    Ok(tcp_keepalive.as_ref().map(|core::TcpKeepalive { keepalive_probes, keepalive_time, keepalive_interval }| {
        TcpKeepalive {
            probes: number(keepalive_probes),
            time: seconds(keepalive_time),
            interval: seconds(keepalive_interval),
        }
    }))
}

/// The addresses to connect from.
fn source_addresses(at: &At<'_>, proto: &Option<core::BindConfig>) -> Compiled<Vec<std::net::IpAddr>> {
    let Some(proto) = proto else { return Ok(Vec::new()) };
    let at = at.field("upstream_bind_config");
    let core::BindConfig {
        source_address,
        // Loopback addresses can be bound without; that another one cannot is an error of that connection.
        freebind: _,
        socket_options,
        extra_source_addresses,
        additional_source_addresses,
        local_address_selector,
        validate_network_namespaces: _,
    } = proto;
    unset!(at; socket_options, additional_source_addresses, local_address_selector);

    let mut out = Vec::new();
    if let Some(proto) = source_address {
        out.push(local_socket_address(&at.field("source_address"), proto)?);
    }
    for (i, proto) in extra_source_addresses.iter().enumerate() {
        let at = at.item("extra_source_addresses", i);
        let core::ExtraSourceAddress { address, socket_options } = proto;
        unset!(at; socket_options);
        out.push(local_socket_address(&at.field("address"), at.required("address", address)?)?);
    }
    match out.iter().find(|address| address.port() != 0) {
        Some(address) => at.refuse(format!("{address}: connecting from a fixed port is not supported")),
        None => Ok(out.iter().map(|address| address.ip()).collect()),
    }
}
