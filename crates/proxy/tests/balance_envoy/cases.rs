//! Clusters, and what their requests are told apart by.

use maille_xds::types::cluster::Cluster;
use maille_xds::types::cluster::LoadBalancingPolicy;
use maille_xds::types::cluster::cluster::common_lb_config::{
    ConsistentHashingLbConfig, LocalityConfigSpecifier, LocalityWeightedLbConfig,
};
use maille_xds::types::cluster::cluster::ring_hash_lb_config::HashFunction;
use maille_xds::types::cluster::cluster::{
    CommonLbConfig, LbConfig, LbPolicy, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig,
};
use maille_xds::types::cluster::load_balancing_policy::Policy;
use maille_xds::types::core::{HealthStatus, RuntimeDouble, TypedExtensionConfig};
use maille_xds::types::kind::Percent;
use maille_xds::types::load_balancing::{least_request::v3 as least_request, maglev::v3 as maglev};
use maille_xds::types::route::route_action::HashPolicy;
use maille_xds::types::route::route_action::hash_policy::{
    ConnectionProperties, Cookie, Header, PolicySpecifier, QueryParameter,
};
use maille_xds::types::{UInt32Value, UInt64Value, any};

/// What a request is told apart by.
pub(crate) enum Key {
    None,
    Header,
    /// Two of the same name.
    Headers,
    /// Of two names.
    TwoHeaders,
    Cookie,
    Query,
    Source,
}

/// What has to be the same.
pub(crate) enum Want {
    SameHost,
    SameShare,
}

/// A host: which backend, and the rest.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) backend: usize,
    pub(crate) weight: u32,
    pub(crate) priority: u32,
    /// The zone and its weight.
    pub(crate) zone: (&'static str, u32),
    pub(crate) health: HealthStatus,
    pub(crate) name: &'static str,
    pub(crate) hash_key: &'static str,
}

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) cluster: Cluster,
    pub(crate) hosts: Vec<Host>,
    pub(crate) hash: Vec<HashPolicy>,
    pub(crate) key: Key,
    pub(crate) want: Want,
}

fn host(backend: usize) -> Host {
    Host { backend, weight: 1, priority: 0, zone: ("a", 1), health: HealthStatus::Unknown, name: "", hash_key: "" }
}

fn weighted(weights: &[u32]) -> Vec<Host> {
    weights.iter().enumerate().map(|(backend, weight)| Host { weight: *weight, ..host(backend) }).collect()
}

fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

fn long(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

fn of(policy: LbPolicy, config: Option<LbConfig>) -> Cluster {
    Cluster { lb_policy: policy as i32, lb_config: config, ..Cluster::default() }
}

fn ring(min: u64, max: Option<u64>, murmur: bool) -> Cluster {
    let hash_function = if murmur { HashFunction::MurmurHash2 } else { HashFunction::XxHash } as i32;
    let config =
        RingHashLbConfig { minimum_ring_size: long(min), maximum_ring_size: max.and_then(long), hash_function };
    of(LbPolicy::RingHash, Some(LbConfig::RingHashLbConfig(config)))
}

fn table(size: Option<u64>) -> Cluster {
    let config = size.map(|size| LbConfig::MaglevLbConfig(MaglevLbConfig { table_size: long(size) }));
    of(LbPolicy::Maglev, config)
}

fn common(cluster: &mut Cluster) -> &mut CommonLbConfig {
    cluster.common_lb_config.get_or_insert_default()
}

fn by_locality(mut cluster: Cluster) -> Cluster {
    common(&mut cluster).locality_config_specifier =
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {}));
    cluster
}

fn panic_at(mut cluster: Cluster, percent: f64) -> Cluster {
    common(&mut cluster).healthy_panic_threshold = Some(Percent { value: percent });
    cluster
}

fn on(specifier: PolicySpecifier, terminal: bool) -> HashPolicy {
    HashPolicy { policy_specifier: Some(specifier), terminal }
}

fn header(name: &str, terminal: bool) -> HashPolicy {
    on(PolicySpecifier::Header(Header { header_name: name.into(), ..Header::default() }), terminal)
}

fn source() -> HashPolicy {
    on(PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true }), false)
}

fn hashed(name: &str, cluster: Cluster, hosts: Vec<Host>) -> Case {
    let hash = vec![header("x-key", false)];
    Case { name: name.into(), cluster, hosts, hash, key: Key::Header, want: Want::SameHost }
}

fn shared(name: &str, cluster: Cluster, hosts: Vec<Host>) -> Case {
    Case { name: name.into(), cluster, hosts, hash: Vec::new(), key: Key::None, want: Want::SameShare }
}

pub(crate) fn cases() -> Vec<Case> {
    let five = || weighted(&[1; 5]);
    let bad = |host: Host| Host { health: HealthStatus::Unhealthy, ..host };
    let low = |host: Host| Host { health: HealthStatus::Degraded, ..host };
    let later = |priority: u32, host: Host| Host { priority, ..host };
    let zone = |zone: &'static str, weight: u32, host: Host| Host { zone: (zone, weight), ..host };
    let keyed = |hash_key: &'static str, host: Host| Host { hash_key, ..host };
    let named = |name: &'static str, host: Host| Host { name, ..host };
    let mut by_name = ring(1024, None, false);
    common(&mut by_name).consistent_hashing_lb_config =
        Some(ConsistentHashingLbConfig { use_hostname_for_hashing: true, hash_balance_factor: None });
    let mut maglev_by_name = table(None);
    maglev_by_name.common_lb_config = by_name.common_lb_config.clone();
    let two_zones =
        || vec![zone("b", 30, host(0)), zone("b", 30, host(1)), zone("a", 70, host(2)), zone("a", 70, host(3))];
    let cookie = Cookie { name: "user".into(), ..Cookie::default() };
    let query = QueryParameter { name: "key".into() };
    let policy = |name: &str, hash: Vec<HashPolicy>, key: Key| Case {
        hash,
        key,
        ..hashed(name, ring(1024, None, false), five())
    };
    let biased = |bias: f64| {
        of(
            LbPolicy::LeastRequest,
            Some(LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
                active_request_bias: Some(RuntimeDouble { default_value: bias, runtime_key: "bias".into() }),
                ..LeastRequestLbConfig::default()
            })),
        )
    };
    let full_scan = least_request::LeastRequest {
        selection_method: least_request::least_request::SelectionMethod::FullScan as i32,
        ..Default::default()
    };
    vec![
        hashed("ring", ring(1024, None, false), five()),
        hashed("ring-weights", ring(1024, None, false), weighted(&[1, 2, 5, 10, 3])),
        hashed("ring-tiny", ring(7, Some(9), false), weighted(&[1, 2, 5, 10, 3])),
        hashed("ring-large", ring(100_000, None, false), weighted(&[3, 1, 4])),
        hashed("ring-murmur", ring(1024, None, true), weighted(&[1, 2, 3, 4, 5])),
        hashed("ring-keys", ring(1024, None, false), vec![keyed("one", host(0)), keyed("two", host(1)), host(2)]),
        hashed("ring-names", by_name, vec![named("x", host(0)), named("y", host(1)), named("z", host(2))]),
        hashed("ring-zones", by_locality(ring(1024, None, false)), two_zones()),
        hashed("ring-unwell", ring(1024, None, false), vec![host(0), bad(host(1)), host(2), host(3)]),
        hashed("ring-panic", ring(1024, None, false), vec![host(0), bad(host(1)), bad(host(2)), bad(host(3))]),
        hashed(
            "ring-priorities",
            panic_at(ring(1024, None, false), 0.0),
            vec![host(0), bad(host(1)), bad(host(2)), later(1, host(3)), later(1, host(4))],
        ),
        hashed("ring-degraded", panic_at(ring(1024, None, false), 0.0), vec![host(0), low(host(1)), host(2)]),
        hashed("maglev", table(None), five()),
        hashed("maglev-weights", table(None), weighted(&[1, 2, 5, 10, 3])),
        hashed("maglev-small", table(Some(101)), weighted(&[5, 1, 1, 1])),
        hashed("maglev-keys", table(None), vec![keyed("two", host(0)), keyed("one", host(1)), host(2)]),
        hashed("maglev-names", maglev_by_name, vec![named("x", host(0)), named("y", host(1)), named("z", host(2))]),
        hashed("maglev-zones", by_locality(table(None)), two_zones()),
        policy("headers", vec![header("x-key", false)], Key::Headers),
        policy("two-headers", vec![header("x-key", false), header("x-other", false)], Key::TwoHeaders),
        policy("terminal", vec![header("x-key", true), header("x-other", false)], Key::TwoHeaders),
        policy("missing-then-terminal", vec![header("x-none", true), header("x-other", false)], Key::TwoHeaders),
        policy("cookie", vec![on(PolicySpecifier::Cookie(cookie), false)], Key::Cookie),
        policy("query", vec![on(PolicySpecifier::QueryParameter(query), false)], Key::Query),
        policy("source", vec![source()], Key::Source),
        policy("source-and-host", vec![source(), header(":authority", false)], Key::Source),
        shared("robin", of(LbPolicy::RoundRobin, None), five()),
        shared("robin-weights", of(LbPolicy::RoundRobin, None), weighted(&[1, 2, 5])),
        shared("least", of(LbPolicy::LeastRequest, None), five()),
        shared("least-weights", of(LbPolicy::LeastRequest, None), weighted(&[1, 2, 5])),
        shared("least-biased", biased(0.0), weighted(&[1, 2, 5])),
        shared("least-full-scan", extension(any(&full_scan)), weighted(&[1, 1, 1])),
        shared("random", of(LbPolicy::Random, None), weighted(&[1, 2, 5])),
        shared("ring-without-a-key", ring(1024, None, false), weighted(&[1, 2, 5])),
        shared("zones", by_locality(of(LbPolicy::RoundRobin, None)), two_zones()),
        shared(
            "zones-unwell",
            by_locality(panic_at(of(LbPolicy::RoundRobin, None), 0.0)),
            vec![
                zone("a", 50, host(0)),
                zone("a", 50, bad(host(1))),
                zone("a", 50, bad(host(2))),
                zone("b", 50, host(3)),
            ],
        ),
        shared(
            "zones-without-weight",
            by_locality(of(LbPolicy::Random, None)),
            vec![zone("a", 0, host(0)), zone("b", 10, host(1)), zone("c", 20, host(2))],
        ),
        shared("unwell", of(LbPolicy::Random, None), vec![host(0), host(1), bad(host(2))]),
        shared("panic", of(LbPolicy::Random, None), vec![host(0), bad(host(1)), bad(host(2))]),
        shared(
            "draining",
            of(LbPolicy::Random, None),
            vec![
                host(0),
                Host { health: HealthStatus::Draining, ..host(1) },
                Host { health: HealthStatus::Draining, ..host(2) },
            ],
        ),
        shared("degraded", of(LbPolicy::Random, None), vec![host(0), low(host(1)), low(host(2))]),
        shared("only-degraded", of(LbPolicy::Random, None), vec![bad(host(0)), low(host(1)), low(host(2))]),
        shared(
            "priorities",
            of(LbPolicy::RoundRobin, None),
            vec![host(0), bad(host(1)), later(1, host(2)), later(2, host(3))],
        ),
        shared(
            "priorities-unwell",
            panic_at(of(LbPolicy::RoundRobin, None), 0.0),
            vec![
                host(0),
                bad(host(1)),
                bad(host(2)),
                bad(host(3)),
                later(1, host(4)),
                later(1, bad(host(5))),
                later(1, bad(host(6))),
            ],
        ),
        shared(
            "priorities-panic",
            of(LbPolicy::Random, None),
            vec![bad(host(0)), bad(host(1)), later(1, bad(host(2))), later(1, host(3)), later(1, bad(host(4)))],
        ),
        shared("priority-gap", of(LbPolicy::Random, None), vec![bad(host(0)), later(1, host(1)), later(1, host(2))]),
    ]
}

fn extension(config: maille_xds::types::Any) -> Cluster {
    let config = TypedExtensionConfig { name: "envoy.load_balancing_policies.x".into(), typed_config: Some(config) };
    Cluster {
        lb_policy: LbPolicy::LoadBalancingPolicyConfig as i32,
        load_balancing_policy: Some(LoadBalancingPolicy {
            policies: vec![Policy { typed_extension_config: Some(config) }],
        }),
        ..Cluster::default()
    }
}

/// Policies with which hosts may have only so much more than the others.
pub(crate) fn bounded() -> Vec<Case> {
    use maille_xds::types::load_balancing::common::v3;
    let mut bounded_ring = ring(1024, None, false);
    common(&mut bounded_ring).consistent_hashing_lb_config =
        Some(ConsistentHashingLbConfig { use_hostname_for_hashing: false, hash_balance_factor: number(130) });
    let bounded_maglev = maglev::Maglev {
        consistent_hashing_lb_config: Some(v3::ConsistentHashingLbConfig {
            hash_balance_factor: number(200),
            ..v3::ConsistentHashingLbConfig::default()
        }),
        ..maglev::Maglev::default()
    };
    vec![
        hashed("bounded", bounded_ring.clone(), weighted(&[1; 4])),
        hashed("bounded-weights", bounded_ring, weighted(&[1, 2, 3, 4])),
        hashed("bounded-maglev", extension(any(&bounded_maglev)), weighted(&[1; 4])),
    ]
}

/// Clusters of forwarded connections.
pub(crate) fn connections() -> Vec<Case> {
    vec![
        hashed("tcp-ring", ring(1024, None, false), weighted(&[1, 2, 3, 4, 5])),
        hashed("tcp-maglev", table(None), weighted(&[1; 5])),
    ]
}
