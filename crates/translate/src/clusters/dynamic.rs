//! Clusters whose host is resolved for each request, by the name in it.

use maille_model::Proxy;
use maille_xds::types::cluster::cluster::{ClusterDiscoveryType, CustomClusterType, DiscoveryType, LbPolicy};
use maille_xds::types::pb::envoy::extensions::clusters::dynamic_forward_proxy::v3::{ClusterConfig, cluster_config};
use maille_xds::types::pb::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig;
use maille_xds::types::{UInt32Value, any};

use super::base::{Draft, lookup_family};

/// Filter and cluster have to name the same cache with the same settings.
pub(crate) fn allow_any_cache(proxy: &Proxy) -> DnsCacheConfig {
    DnsCacheConfig {
        name: "allow_any_dfp_dns_cache".to_owned(),
        dns_lookup_family: lookup_family(proxy).into(),
        max_hosts: Some(UInt32Value { value: 1024 }),
        ..DnsCacheConfig::default()
    }
}

/// The cache of a service with a wildcard host.
pub(crate) fn service_cache(proxy: &Proxy, hostname: &str) -> DnsCacheConfig {
    DnsCacheConfig {
        name: format!("{hostname}_dfp_dns_cache"),
        dns_lookup_family: lookup_family(proxy).into(),
        ..DnsCacheConfig::default()
    }
}

pub(super) fn draft(name: String, cache: DnsCacheConfig, insecure: bool) -> Draft {
    let config = ClusterConfig {
        cluster_implementation_specifier: Some(cluster_config::ClusterImplementationSpecifier::DnsCacheConfig(cache)),
        allow_insecure_cluster_options: insecure,
        ..ClusterConfig::default()
    };
    let mut draft = Draft::new(name, DiscoveryType::Static);
    draft.cluster.common_lb_config = None;
    draft.cluster.set_lb_policy(LbPolicy::ClusterProvided);
    draft.cluster.cluster_discovery_type = Some(ClusterDiscoveryType::ClusterType(CustomClusterType {
        name: "envoy.clusters.dynamic_forward_proxy".to_owned(),
        typed_config: Some(any(&config)),
    }));
    draft
}
