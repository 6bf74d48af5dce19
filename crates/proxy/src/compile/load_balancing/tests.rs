use maille_xds::types::core::TypedExtensionConfig;
use maille_xds::types::{Message, Name, UInt32Value, any};

use super::*;

#[test]
fn maglev_sizes() {
    for (size, good) in [(0, false), (1, false), (2, true), (4, false), (49, false), (65_537, true)] {
        assert_eq!(is_maglev_size(size), good, "{size}");
    }
    assert!(is_maglev_size(MAX_MAGLEV) && !is_maglev_size(u64::MAX));
}

fn typed<M: Message + Name>(message: &M) -> Result<(LbPolicy, Option<LocalityLb>), String> {
    let config = TypedExtensionConfig { name: "policy".into(), typed_config: Some(any(message)) };
    let policy = proto::load_balancing_policy::Policy { typed_extension_config: Some(config) };
    let cluster = proto::Cluster {
        name: "c".into(),
        load_balancing_policy: Some(proto::LoadBalancingPolicy { policies: vec![policy] }),
        ..Default::default()
    };
    policy_of(&cluster)
}

fn policy_of(cluster: &proto::Cluster) -> Result<(LbPolicy, Option<LocalityLb>), String> {
    policy(&At::resource("c"), cluster, Hashing::default()).map_err(|refused| refused.to_string())
}

#[test]
fn policies_as_extensions() {
    let zones = shared::LocalityLbConfig {
        locality_config_specifier: Some(shared::locality_lb_config::LocalityConfigSpecifier::ZoneAwareLbConfig(
            shared::locality_lb_config::ZoneAwareLbConfig {
                force_local_zone: Some(Default::default()),
                ..Default::default()
            },
        )),
    };
    let zone_aware = LocalityLb::ZoneAware {
        enabled: 100.0,
        min_cluster_size: 6,
        fail_on_panic: false,
        force_local_zone: Some(1),
        by_weight: false,
    };
    let full_scan = least_request::LeastRequest {
        selection_method: least_request::least_request::SelectionMethod::FullScan as i32,
        locality_lb_config: Some(zones),
        ..Default::default()
    };
    let policy =
        LbPolicy::LeastRequest { choices: 2, full_scan: true, active_bias: 1.0, slow_start: SlowStart::default() };
    assert_eq!(typed(&full_scan), Ok((policy, Some(zone_aware))));

    let hashing = shared::ConsistentHashingLbConfig {
        use_hostname_for_hashing: true,
        hash_balance_factor: Some(UInt32Value { value: 150 }),
        hash_policy: Vec::new(),
    };
    let bounded = ring_hash::RingHash {
        hash_function: ring_hash::ring_hash::HashFunction::MurmurHash2 as i32,
        consistent_hashing_lb_config: Some(hashing.clone()),
        locality_weighted_lb_config: Some(Default::default()),
        ..Default::default()
    };
    let hashing_too = Hashing { by_hostname: true, balance_factor: 150 };
    let policy = LbPolicy::RingHash { min_size: 1024, max_size: MAX_RING, murmur: true, hashing: hashing_too };
    assert_eq!(typed(&bounded), Ok((policy, Some(LocalityLb::Weighted))));
    let maglev = maglev::Maglev { consistent_hashing_lb_config: Some(hashing), ..Default::default() };
    let policy = LbPolicy::Maglev { table_size: MAGLEV_SIZE, hashing: hashing_too };
    assert_eq!(typed(&maglev), Ok((policy, Some(LocalityLb::None))));
    assert_eq!(typed(&random::Random::default()), Ok((LbPolicy::Random, Some(LocalityLb::None))));
    assert_eq!(typed(&provided::ClusterProvided::default()), Ok((LbPolicy::ClusterProvided, None)));
}

#[test]
fn what_cannot_be_balanced_is_refused_by_name() {
    let little = shared::ConsistentHashingLbConfig {
        hash_balance_factor: Some(UInt32Value { value: 99 }),
        ..Default::default()
    };
    let least = |value| least_request::LeastRequest {
        active_request_bias: Some(RuntimeDouble { default_value: value, runtime_key: "k".into() }),
        ..Default::default()
    };
    let ring = |min, max| ring_hash::RingHash {
        minimum_ring_size: Some(UInt64Value { value: min }),
        maximum_ring_size: Some(UInt64Value { value: max }),
        ..Default::default()
    };
    let maglev = maglev::Maglev { consistent_hashing_lb_config: Some(little), ..Default::default() };
    for (result, field) in [
        (typed(&maglev), "hash_balance_factor"),
        (typed(&least(-1.0)), "active_request_bias"),
        (typed(&least(f64::NAN)), "active_request_bias"),
        (typed(&ring(10, 9)), "minimum_ring_size"),
        (typed(&ring(10, MAX_RING + 1)), "maximum_ring_size"),
        (typed(&maglev::Maglev { table_size: Some(UInt64Value { value: 10 }), ..Default::default() }), "table_size"),
        (typed(&UInt32Value { value: 1 }), "google.protobuf.UInt32Value"),
    ] {
        let refused = result.expect_err(field);
        assert!(refused.contains(field), "{refused}");
    }
}
