//! Load balancing: the algorithm, its settings, and how localities come into it.

use maille_api::networking::destination_rule::{
    ConsistentHashLb, HashAlgorithm, LbPolicy, LoadBalancerSettings, SimpleLb, WarmupConfiguration,
};
use maille_model::Service;
use maille_xds::types::UInt64Value;
use maille_xds::types::cluster::cluster::common_lb_config::{
    LocalityConfigSpecifier, LocalityWeightedLbConfig, ZoneAwareLbConfig,
};
use maille_xds::types::cluster::cluster::{
    DiscoveryType, LbConfig, LbPolicy as EnvoyLbPolicy, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig,
    RoundRobinLbConfig, SlowStartConfig,
};
use maille_xds::types::core::RuntimeDouble;
use maille_xds::types::kind::Percent;

use super::base::Draft;
use crate::Context;
use crate::convert::duration;
use crate::endpoints::spread::Spread;

/// Applies the settings; comes after outlier detection, which decides whether localities can fail over.
pub(super) fn apply(
    draft: &mut Draft,
    context: &Context<'_>,
    settings: Option<&LoadBalancerSettings>,
    service: &Service,
) {
    if draft.cluster.lb_policy() == EnvoyLbPolicy::ClusterProvided {
        return;
    }
    localities(draft, context, settings, service);
    if draft.discovery() == Some(DiscoveryType::OriginalDst) {
        draft.cluster.set_lb_policy(EnvoyLbPolicy::ClusterProvided);
        return;
    }
    match settings.and_then(|settings| settings.lb_policy.as_ref()) {
        Some(LbPolicy::ConsistentHash(hash)) => consistent_hash(draft, hash),
        Some(LbPolicy::Simple(SimpleLb::Random)) => draft.cluster.set_lb_policy(EnvoyLbPolicy::Random),
        Some(LbPolicy::Simple(SimpleLb::RoundRobin)) => {
            draft.cluster.set_lb_policy(EnvoyLbPolicy::RoundRobin);
            draft.cluster.lb_config = settings.and_then(slow_start).map(|slow_start_config| {
                LbConfig::RoundRobinLbConfig(RoundRobinLbConfig { slow_start_config: Some(slow_start_config) })
            });
        }
        Some(LbPolicy::Simple(SimpleLb::Passthrough)) => {
            draft.cluster.set_lb_policy(EnvoyLbPolicy::ClusterProvided);
            draft.set_discovery(DiscoveryType::OriginalDst);
            draft.cluster.load_assignment = None;
        }
        Some(LbPolicy::Simple(SimpleLb::Unspecified | SimpleLb::LeastConn | SimpleLb::LeastRequest)) | None => {
            draft.cluster.set_lb_policy(EnvoyLbPolicy::LeastRequest);
            draft.cluster.lb_config = settings.and_then(slow_start).map(|slow_start_config| {
                LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
                    slow_start_config: Some(slow_start_config),
                    ..LeastRequestLbConfig::default()
                })
            });
        }
    }
}

fn localities(draft: &mut Draft, context: &Context<'_>, settings: Option<&LoadBalancerSettings>, service: &Service) {
    let detects_failures = draft.cluster.outlier_detection.is_some();
    let common = draft.cluster.common_lb_config.get_or_insert_default();
    // Unhealthy endpoints are sent too; in a panic they would get traffic.
    common.healthy_panic_threshold.get_or_insert(Percent { value: 0.0 });
    match Spread::new(context.mesh(), settings, service) {
        Spread::None => {}
        Spread::Locality { setting, force } => {
            let fails_over = !setting.failover.is_empty() || !setting.failover_priority.is_empty();
            // Weights of localities would disturb an algorithm that looks at endpoints, so they count only when asked for.
            if !setting.distribute.is_empty() || ((force || detects_failures) && fails_over) {
                let weighted = LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {});
                common.locality_config_specifier = Some(weighted);
            }
        }
        Spread::Zone(setting) => {
            let zone_aware = ZoneAwareLbConfig {
                routing_enabled: (setting.enabled == Some(false)).then_some(Percent { value: 0.0 }),
                min_cluster_size: setting.min_cluster_size.map(|value| UInt64Value { value }),
                ..ZoneAwareLbConfig::default()
            };
            common.locality_config_specifier = Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zone_aware));
        }
    }
}

fn slow_start(settings: &LoadBalancerSettings) -> Option<SlowStartConfig> {
    match (&settings.warmup, settings.warmup_duration_secs) {
        (Some(warmup), _) => Some(warm_up(warmup)),
        (None, Some(window)) => {
            Some(SlowStartConfig { slow_start_window: Some(duration(window)), ..SlowStartConfig::default() })
        }
        (None, None) => None,
    }
}

fn warm_up(warmup: &WarmupConfiguration) -> SlowStartConfig {
    SlowStartConfig {
        slow_start_window: warmup.duration.map(duration),
        // Envoy asks for a runtime key; this one is never set, so the value stands.
        aggression: Some(RuntimeDouble {
            default_value: warmup.aggression.unwrap_or(1.0),
            runtime_key: "(".to_owned(),
        }),
        min_weight_percent: Some(Percent { value: warmup.minimum_percent.unwrap_or(10.0) }),
    }
}

fn consistent_hash(draft: &mut Draft, hash: &ConsistentHashLb) {
    let number = |value: u64| Some(UInt64Value { value });
    let ring = |value: u64| {
        LbConfig::RingHashLbConfig(RingHashLbConfig { minimum_ring_size: number(value), ..Default::default() })
    };
    let (policy, config) = match &hash.hash_algorithm {
        Some(HashAlgorithm::Maglev(maglev)) => {
            let config = LbConfig::MaglevLbConfig(MaglevLbConfig { table_size: number(maglev.table_size) });
            (EnvoyLbPolicy::Maglev, (maglev.table_size != 0).then_some(config))
        }
        Some(HashAlgorithm::RingHash(settings)) => {
            (EnvoyLbPolicy::RingHash, (settings.minimum_ring_size != 0).then(|| ring(settings.minimum_ring_size)))
        }
        None => {
            let size = if hash.minimum_ring_size == 0 { 1024 } else { hash.minimum_ring_size };
            (EnvoyLbPolicy::RingHash, Some(ring(size)))
        }
    };
    draft.cluster.set_lb_policy(policy);
    draft.cluster.lb_config = config;
}
