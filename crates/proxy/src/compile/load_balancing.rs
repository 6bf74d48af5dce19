//! How a cluster's hosts are chosen: the policies in the cluster itself, and the same ones as extensions.

use maille_xds::types::cluster as proto;
use maille_xds::types::cluster::cluster::common_lb_config::{
    ConsistentHashingLbConfig, LocalityConfigSpecifier, ZoneAwareLbConfig,
};
use maille_xds::types::cluster::cluster::ring_hash_lb_config::HashFunction;
use maille_xds::types::cluster::cluster::{self, LbConfig, LbPolicy as LbProto};
use maille_xds::types::core::RuntimeDouble;
use maille_xds::types::kind::Percent;
use maille_xds::types::load_balancing::common::v3 as shared;
use maille_xds::types::load_balancing::{
    cluster_provided::v3 as provided, least_request::v3 as least_request, maglev::v3 as maglev, random::v3 as random,
    ring_hash::v3 as ring_hash, round_robin::v3 as round_robin,
};
use maille_xds::types::{Any, Duration as Span, UInt64Value};

use crate::compile::at::{At, Compiled, is_true, number, unset};
use crate::config::{Hashing, LbPolicy, LocalityLb, SlowStart};

/// Envoy's defaults.
const PANIC_PERCENT: f64 = 50.0;
const MIN_RING: u64 = 1024;
const MAX_RING: u64 = 8 << 20;
const MAGLEV_SIZE: u64 = 65_537;
const MIN_CLUSTER_SIZE: u64 = 6;
/// As in Envoy.
const MAX_MAGLEV: u64 = 5_000_011;

/// What holds for every policy.
pub(crate) struct Common {
    pub(crate) panic: f64,
    pub(crate) locality: LocalityLb,
    pub(crate) hashing: Hashing,
    pub(crate) close_on_host_removal: bool,
}

pub(crate) fn common(at: &At<'_>, proto: &Option<cluster::CommonLbConfig>) -> Compiled<Common> {
    let default = cluster::CommonLbConfig::default();
    let cluster::CommonLbConfig {
        healthy_panic_threshold,
        // How soon changes of health or weight count: here at once.
        update_merge_window: _,
        // Hosts are never health-checked.
        ignore_new_hosts_until_first_hc: _,
        close_connections_on_host_set_change,
        consistent_hashing_lb_config,
        override_host_status,
        locality_config_specifier,
    } = proto.as_ref().unwrap_or(&default);
    let at = at.field("common_lb_config");
    unset!(at; override_host_status);
    let hashing = consistent_hashing_lb_config.as_ref().map(
        |ConsistentHashingLbConfig { use_hostname_for_hashing, hash_balance_factor }| Hashing {
            by_hostname: *use_hostname_for_hashing,
            balance_factor: number(hash_balance_factor).unwrap_or(0),
        },
    );
    Ok(Common {
        panic: healthy_panic_threshold.as_ref().map_or(PANIC_PERCENT, |Percent { value }| *value),
        locality: match locality_config_specifier {
            None => LocalityLb::None,
            Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => LocalityLb::Weighted,
            Some(LocalityConfigSpecifier::ZoneAwareLbConfig(proto)) => {
                let ZoneAwareLbConfig { routing_enabled, min_cluster_size, fail_traffic_on_panic, .. } = proto;
                LocalityLb::ZoneAware {
                    enabled: percent(routing_enabled, 100.0),
                    min_cluster_size: long(min_cluster_size).unwrap_or(MIN_CLUSTER_SIZE),
                    fail_on_panic: *fail_traffic_on_panic,
                    force_local_zone: None,
                    by_weight: false,
                }
            }
        },
        hashing: checked(&at.field("consistent_hashing_lb_config"), hashing.unwrap_or_default())?,
        close_on_host_removal: *close_connections_on_host_set_change,
    })
}

/// The policy, and how localities count if it says so itself.
pub(crate) fn policy(
    at: &At<'_>,
    proto: &proto::Cluster,
    hashing: Hashing,
) -> Compiled<(LbPolicy, Option<LocalityLb>)> {
    if let Some(proto) = &proto.load_balancing_policy {
        return extension(&at.field("load_balancing_policy"), proto);
    }
    let policy = match at.one_of("lb_policy", proto.lb_policy)? {
        LbProto::RoundRobin => match &proto.lb_config {
            Some(LbConfig::RoundRobinLbConfig(cluster::RoundRobinLbConfig { slow_start_config })) => {
                LbPolicy::RoundRobin(old_slow_start(&at.field("round_robin_lb_config"), slow_start_config)?)
            }
            _ => LbPolicy::RoundRobin(SlowStart::default()),
        },
        LbProto::LeastRequest => {
            let default = cluster::LeastRequestLbConfig::default();
            let config = match &proto.lb_config {
                Some(LbConfig::LeastRequestLbConfig(config)) => config,
                _ => &default,
            };
            let cluster::LeastRequestLbConfig { choice_count, active_request_bias, slow_start_config } = config;
            let at = at.field("least_request_lb_config");
            LbPolicy::LeastRequest {
                choices: number(choice_count).unwrap_or(2).max(2),
                full_scan: false,
                active_bias: bias(&at, active_request_bias)?,
                slow_start: old_slow_start(&at, slow_start_config)?,
            }
        }
        LbProto::Random => LbPolicy::Random,
        LbProto::RingHash => {
            let default = cluster::RingHashLbConfig::default();
            let config = match &proto.lb_config {
                Some(LbConfig::RingHashLbConfig(config)) => config,
                _ => &default,
            };
            let cluster::RingHashLbConfig { minimum_ring_size, hash_function, maximum_ring_size } = config;
            let at = at.field("ring_hash_lb_config");
            let murmur = at.one_of::<HashFunction>("hash_function", *hash_function)? == HashFunction::MurmurHash2;
            ring(&at, minimum_ring_size, maximum_ring_size, murmur, hashing)?
        }
        LbProto::Maglev => {
            let size = match &proto.lb_config {
                Some(LbConfig::MaglevLbConfig(cluster::MaglevLbConfig { table_size })) => table_size,
                _ => &None,
            };
            table(&at.field("maglev_lb_config"), size, hashing)?
        }
        LbProto::ClusterProvided => LbPolicy::ClusterProvided,
        LbProto::LoadBalancingPolicyConfig => return at.field("load_balancing_policy").refuse("is missing"),
    };
    Ok((policy, None))
}

/// The first of some policies that we have.
fn extension(at: &At<'_>, proto: &proto::LoadBalancingPolicy) -> Compiled<(LbPolicy, Option<LocalityLb>)> {
    let mut unknown = Vec::new();
    for (i, policy) in proto.policies.iter().enumerate() {
        let at = at.item("policies", i);
        let Some(any) = policy.typed_extension_config.as_ref().and_then(|config| config.typed_config.as_ref()) else {
            return at.field("typed_extension_config").refuse("is missing");
        };
        if let Some(found) = one(&at.field("typed_extension_config"), any)? {
            return Ok(found);
        }
        unknown.push(any.type_url.as_str());
    }
    at.refuse(format!("has no policy that is supported: {}", unknown.join(", ")))
}

fn one(at: &At<'_>, any: &Any) -> Compiled<Option<(LbPolicy, Option<LocalityLb>)>> {
    if let Some(round_robin::RoundRobin { slow_start_config, locality_lb_config }) = at.unpack(any)? {
        let policy = LbPolicy::RoundRobin(slow_start(at, &slow_start_config)?);
        return Ok(Some((policy, Some(locality(&locality_lb_config)))));
    }
    if let Some(proto) = at.unpack::<least_request::LeastRequest>(any)? {
        let least_request::LeastRequest {
            choice_count,
            active_request_bias,
            slow_start_config,
            locality_lb_config,
            enable_full_scan,
            selection_method,
        } = proto;
        use least_request::least_request::SelectionMethod;
        let method = at.one_of::<SelectionMethod>("selection_method", selection_method)?;
        let policy = LbPolicy::LeastRequest {
            choices: number(&choice_count).unwrap_or(2).max(2),
            full_scan: method == SelectionMethod::FullScan || is_true(&enable_full_scan),
            active_bias: bias(at, &active_request_bias)?,
            slow_start: slow_start(at, &slow_start_config)?,
        };
        return Ok(Some((policy, Some(locality(&locality_lb_config)))));
    }
    if let Some(random::Random { locality_lb_config }) = at.unpack(any)? {
        return Ok(Some((LbPolicy::Random, Some(locality(&locality_lb_config)))));
    }
    if let Some(proto) = at.unpack::<ring_hash::RingHash>(any)? {
        // These two stood here before they had a message of their own.
        #[allow(deprecated)]
        let old = Hashing {
            by_hostname: proto.use_hostname_for_hashing,
            balance_factor: number(&proto.hash_balance_factor).unwrap_or(0),
        };
        let hashing = hashing(at, &proto.consistent_hashing_lb_config)?;
        let murmur = proto.hash_function == ring_hash::ring_hash::HashFunction::MurmurHash2 as i32;
        let hashing = hashing.unwrap_or(old);
        let policy = ring(at, &proto.minimum_ring_size, &proto.maximum_ring_size, murmur, hashing)?;
        return Ok(Some((policy, Some(weighted(proto.locality_weighted_lb_config.is_some())))));
    }
    if let Some(proto) = at.unpack::<maglev::Maglev>(any)? {
        let hashing = hashing(at, &proto.consistent_hashing_lb_config)?;
        let policy = table(at, &proto.table_size, hashing.unwrap_or_default())?;
        return Ok(Some((policy, Some(weighted(proto.locality_weighted_lb_config.is_some())))));
    }
    Ok(at.unpack::<provided::ClusterProvided>(any)?.map(|_| (LbPolicy::ClusterProvided, None)))
}

fn locality(proto: &Option<shared::LocalityLbConfig>) -> LocalityLb {
    use shared::locality_lb_config::zone_aware_lb_config::LocalityBasis;
    use shared::locality_lb_config::{LocalityConfigSpecifier, ZoneAwareLbConfig};
    match proto.as_ref().and_then(|proto| proto.locality_config_specifier.as_ref()) {
        None => LocalityLb::None,
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => LocalityLb::Weighted,
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(proto)) => {
            #[allow(deprecated, reason = "what force_local_zone was called before")]
            let ZoneAwareLbConfig {
                routing_enabled,
                min_cluster_size,
                fail_traffic_on_panic,
                force_locality_direct_routing,
                force_local_zone,
                locality_basis,
            } = proto;
            LocalityLb::ZoneAware {
                enabled: percent(routing_enabled, 100.0),
                min_cluster_size: long(min_cluster_size).unwrap_or(MIN_CLUSTER_SIZE),
                fail_on_panic: *fail_traffic_on_panic,
                force_local_zone: match force_local_zone {
                    Some(force) => Some(number(&force.min_size).unwrap_or(1)),
                    None => force_locality_direct_routing.then_some(1),
                },
                by_weight: *locality_basis == LocalityBasis::HealthyHostsWeight as i32,
            }
        }
    }
}

fn weighted(yes: bool) -> LocalityLb {
    if yes { LocalityLb::Weighted } else { LocalityLb::None }
}

fn hashing(at: &At<'_>, proto: &Option<shared::ConsistentHashingLbConfig>) -> Compiled<Option<Hashing>> {
    let Some(proto) = proto else { return Ok(None) };
    let shared::ConsistentHashingLbConfig { use_hostname_for_hashing, hash_balance_factor, hash_policy } = proto;
    let at = at.field("consistent_hashing_lb_config");
    unset!(at; hash_policy);
    let hashing =
        Hashing { by_hostname: *use_hostname_for_hashing, balance_factor: number(hash_balance_factor).unwrap_or(0) };
    checked(&at, hashing).map(Some)
}

fn checked(at: &At<'_>, hashing: Hashing) -> Compiled<Hashing> {
    match hashing.balance_factor {
        1..100 => at.field("hash_balance_factor").refuse("must be at least 100: it is in percent of the average"),
        _ => Ok(hashing),
    }
}

fn ring(
    at: &At<'_>,
    min: &Option<UInt64Value>,
    max: &Option<UInt64Value>,
    murmur: bool,
    hashing: Hashing,
) -> Compiled<LbPolicy> {
    let (min_size, max_size) = (long(min).unwrap_or(MIN_RING), long(max).unwrap_or(MAX_RING));
    for (name, size) in [("minimum_ring_size", min_size), ("maximum_ring_size", max_size)] {
        if size > MAX_RING {
            return at.field(name).refuse(format!("{size} is more than {MAX_RING}"));
        }
    }
    if min_size > max_size {
        return at.field("minimum_ring_size").refuse(format!("{min_size} is more than the maximum, {max_size}"));
    }
    Ok(LbPolicy::RingHash { min_size, max_size, murmur, hashing })
}

fn table(at: &At<'_>, size: &Option<UInt64Value>, hashing: Hashing) -> Compiled<LbPolicy> {
    let table_size = long(size).unwrap_or(MAGLEV_SIZE);
    if !is_maglev_size(table_size) {
        return at.field("table_size").refuse(format!("{table_size} is no prime up to {MAX_MAGLEV}"));
    }
    Ok(LbPolicy::Maglev { table_size, hashing })
}

/// Hosts step through the table, and only where its size is a prime do they come to all of it.
fn is_maglev_size(size: u64) -> bool {
    let divides = |n: &u64| size.is_multiple_of(*n);
    (2..=MAX_MAGLEV).contains(&size) && !(2..size).take_while(|n| n * n <= size).any(|n| divides(&n))
}

fn bias(at: &At<'_>, proto: &Option<RuntimeDouble>) -> Compiled<f64> {
    let bias = proto.as_ref().map_or(1.0, |bias| bias.default_value);
    // Also refuses what is no number.
    if bias >= 0.0 { Ok(bias) } else { at.field("active_request_bias").refuse(format!("{bias} is less than 0")) }
}

fn old_slow_start(at: &At<'_>, proto: &Option<cluster::SlowStartConfig>) -> Compiled<SlowStart> {
    let Some(cluster::SlowStartConfig { slow_start_window, aggression, min_weight_percent }) = proto else {
        return Ok(SlowStart::default());
    };
    rise(at, slow_start_window, aggression, min_weight_percent)
}

fn slow_start(at: &At<'_>, proto: &Option<shared::SlowStartConfig>) -> Compiled<SlowStart> {
    let Some(shared::SlowStartConfig { slow_start_window, aggression, min_weight_percent }) = proto else {
        return Ok(SlowStart::default());
    };
    rise(at, slow_start_window, aggression, min_weight_percent)
}

fn rise(
    at: &At<'_>,
    window: &Option<Span>,
    aggression: &Option<RuntimeDouble>,
    least: &Option<Percent>,
) -> Compiled<SlowStart> {
    let at = at.field("slow_start_config");
    let aggression = aggression.as_ref().map_or(1.0, |a| a.default_value);
    Ok(SlowStart {
        window: at.timeout("slow_start_window", window, None)?,
        // As Envoy does with what makes no sense.
        aggression: if aggression > 0.0 { aggression } else { 1.0 },
        min_weight_percent: percent(least, 10.0),
    })
}

fn percent(proto: &Option<Percent>, default: f64) -> f64 {
    proto.as_ref().map_or(default, |percent| percent.value)
}

fn long(proto: &Option<UInt64Value>) -> Option<u64> {
    proto.as_ref().map(|value| value.value)
}

#[cfg(test)]
mod tests;
