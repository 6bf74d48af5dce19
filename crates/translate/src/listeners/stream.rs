//! Connections forwarded as they are: the filters of a TCP or TLS route.

use maille_api::ObjectMeta;
use maille_api::networking::destination_rule::{
    ConsistentHashLb, DestinationRule, HashKey, LbPolicy, TrafficPolicy, TunnelSettings,
};
use maille_api::networking::virtual_service::RouteDestination;
use maille_model::Service;
use maille_xds::types::kind::{HashPolicy, hash_policy};
use maille_xds::types::listener::{Filter, filter};
use maille_xds::types::pb::envoy::extensions::filters::network::sni_dynamic_forward_proxy;
use maille_xds::types::tcp_proxy::TcpProxy;
use maille_xds::types::tcp_proxy::tcp_proxy::{ClusterSpecifier, TunnelingConfig, WeightedCluster, weighted_cluster};
use maille_xds::types::{Message, Name, any};

use super::hcm::idle_timeout;
use super::{access_log, istio_stats};
use crate::Context;
use crate::clusters::BLACK_HOLE;
use crate::clusters::dynamic::service_cache;
use crate::convert::{duration, host_port};
use crate::routes::http::destination_cluster;

/// Everything goes to one cluster, without regard to any rule.
pub(crate) fn to_cluster(context: &Context<'_>, cluster: &str) -> Vec<Filter> {
    reported(
        context,
        TcpProxy {
            stat_prefix: cluster.to_owned(),
            cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
            idle_timeout: idle_timeout(context.proxy),
            access_log: access_log::of_traffic(context.mesh()),
            ..Default::default()
        },
    )
}

/// Behind what enforces the policies of the workload, for connections that come in.
pub(crate) fn guarded(context: &Context<'_>, filters: Vec<Filter>) -> Vec<Filter> {
    context.policies().network.iter().cloned().chain(filters).collect()
}

/// A chain that ends every connection at once, and counts it.
pub(crate) fn black_hole() -> Vec<Filter> {
    vec![tcp_filter(TcpProxy {
        stat_prefix: BLACK_HOLE.to_owned(),
        cluster_specifier: Some(ClusterSpecifier::Cluster(BLACK_HOLE.to_owned())),
        ..Default::default()
    })]
}

/// To a service's own cluster, by its DestinationRule.
pub(crate) fn to_service(context: &Context<'_>, service: &Service, cluster: &str, port: u32) -> Vec<Filter> {
    let rule = context.snapshot.destination_rule(context.proxy, service);
    let mut filters = Vec::new();
    if super::resolves_names(service) {
        // The name to resolve is the one in the client's hello.
        let config = sni_dynamic_forward_proxy::v3::FilterConfig {
            dns_cache_config: Some(service_cache(context.proxy, &service.hostname)),
            port_specifier: Some(sni_dynamic_forward_proxy::v3::filter_config::PortSpecifier::PortValue(port)),
            ..Default::default()
        };
        filters.push(network_filter(super::SNI_DYNAMIC_FORWARD_PROXY, &config));
    }
    filters.extend(single(context, rule.as_ref().map(|rule| &rule.rule), cluster, ""));
    filters
}

/// To the destinations of a TCP or TLS route. `None` when it has none that could be chosen.
pub(crate) fn to_destinations(
    context: &Context<'_>,
    routes: &[RouteDestination],
    port: u32,
    meta: &ObjectMeta,
) -> Option<Vec<Filter>> {
    let service = |route: &RouteDestination| {
        let host = &route.destination.as_ref()?.host;
        context
            .scope
            .service(host)
            .or_else(|| context.snapshot.destination_service(host, &context.proxy.namespace))
            .cloned()
    };
    let first = routes.first()?;
    let rule = service(first).and_then(|service| context.snapshot.destination_rule(context.proxy, &service));
    let rule = rule.as_ref().map(|rule| &rule.rule);
    let cluster = |route: &RouteDestination| {
        Some(destination_cluster(route.destination.as_ref()?, service(route).as_deref(), port))
    };
    if let [only] = routes {
        let subset = only.destination.as_ref().map_or("", |destination| destination.subset.as_str());
        return Some(single(context, rule, &cluster(only)?, subset));
    }
    let clusters: Vec<weighted_cluster::ClusterWeight> = routes
        .iter()
        .filter_map(|route| {
            let weight = u32::try_from(route.weight).ok().filter(|weight| *weight > 0)?;
            Some(weighted_cluster::ClusterWeight { name: cluster(route)?, weight, metadata_match: None })
        })
        .collect();
    if clusters.is_empty() {
        return None;
    }
    let stat_prefix = format!("{}.{}", meta.name, meta.namespace);
    let specifier = ClusterSpecifier::WeightedClusters(WeightedCluster { clusters });
    Some(proxy_filters(context, rule, specifier, &stat_prefix, ""))
}

fn single(context: &Context<'_>, rule: Option<&DestinationRule>, cluster: &str, subset: &str) -> Vec<Filter> {
    proxy_filters(context, rule, ClusterSpecifier::Cluster(cluster.to_owned()), cluster, subset)
}

fn proxy_filters(
    context: &Context<'_>,
    rule: Option<&DestinationRule>,
    cluster_specifier: ClusterSpecifier,
    stat_prefix: &str,
    subset: &str,
) -> Vec<Filter> {
    let tcp = rule.and_then(|rule| rule.traffic_policy.as_ref()?.connection_pool.as_ref()?.tcp.as_ref());
    reported(
        context,
        TcpProxy {
            stat_prefix: stat_prefix.to_owned(),
            cluster_specifier: Some(cluster_specifier),
            idle_timeout: tcp.and_then(|tcp| tcp.idle_timeout).map(duration).or_else(|| idle_timeout(context.proxy)),
            max_downstream_connection_duration: tcp.and_then(|tcp| tcp.max_connection_duration).map(duration),
            hash_policy: rule.and_then(|rule| source_ip_hash(rule, subset)).into_iter().collect(),
            tunneling_config: rule.and_then(|rule| tunnel(rule, subset)),
            access_log: access_log::of_traffic(context.mesh()),
            ..Default::default()
        },
    )
}

/// Streams have nothing else to be hashed by; a subset's own load balancer decides for it.
fn source_ip_hash(rule: &DestinationRule, subset: &str) -> Option<HashPolicy> {
    let of_policy = |policy: &TrafficPolicy| {
        policy.load_balancer.as_ref().map(|lb| match &lb.lb_policy {
            Some(LbPolicy::ConsistentHash(ConsistentHashLb { hash_key: Some(HashKey::UseSourceIp(yes)), .. })) => *yes,
            _ => false,
        })
    };
    let of_subset = named_subset(rule, subset).and_then(|subset| of_policy(subset.traffic_policy.as_ref()?));
    let by_source = of_subset.or_else(|| of_policy(rule.traffic_policy.as_ref()?)).unwrap_or(false);
    by_source.then_some(HashPolicy {
        policy_specifier: Some(hash_policy::PolicySpecifier::SourceIp(hash_policy::SourceIp {})),
    })
}

fn tunnel(rule: &DestinationRule, subset: &str) -> Option<TunnelingConfig> {
    let policy = match subset {
        "" => rule.traffic_policy.as_ref(),
        name => named_subset(rule, name)?.traffic_policy.as_ref(),
    };
    let settings: &TunnelSettings = policy?.tunnel.as_ref()?;
    Some(TunnelingConfig {
        hostname: host_port(&settings.target_host, settings.target_port),
        use_post: settings.protocol.eq_ignore_ascii_case("POST"),
        ..Default::default()
    })
}

fn named_subset<'a>(
    rule: &'a DestinationRule,
    name: &str,
) -> Option<&'a maille_api::networking::destination_rule::Subset> {
    rule.subsets.iter().find(|subset| !name.is_empty() && subset.name == name)
}

/// Where connections go, and before it who counts them.
fn reported(context: &Context<'_>, proxy: TcpProxy) -> Vec<Filter> {
    let stats = istio_stats::config(context, false).map(|config| network_filter(istio_stats::NAME, &config));
    stats.into_iter().chain([tcp_filter(proxy)]).collect()
}

fn tcp_filter(proxy: TcpProxy) -> Filter {
    network_filter("envoy.filters.network.tcp_proxy", &proxy)
}

fn network_filter<M: Message + Name>(name: &str, config: &M) -> Filter {
    Filter { name: name.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(any(config))) }
}
