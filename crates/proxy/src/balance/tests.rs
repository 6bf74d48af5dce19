use std::collections::HashMap;

use std::sync::atomic::Ordering;

use maille_xds::types::cluster as proto;
use maille_xds::types::cluster::cluster::LbPolicy as ByName;
use maille_xds::types::cluster::cluster::common_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig};

use super::*;
use crate::config::Health;
use crate::upstream::tests::set;

const N: usize = 20_000;

fn balancer(policy: ByName, weights: &[u32]) -> (HostSet, Balancer) {
    let hosts: Vec<_> = weights.iter().map(|&w| (0, Health::Healthy, w, None)).collect();
    of(policy, &hosts)
}

fn of(policy: ByName, hosts: &[(u32, Health, u32, Option<u32>)]) -> (HostSet, Balancer) {
    let cluster = proto::Cluster {
        name: "c".into(),
        cluster_discovery_type: Some(proto::cluster::ClusterDiscoveryType::Type(0)),
        lb_policy: policy as i32,
        ..Default::default()
    };
    let lb = crate::compile::cluster(&cluster).unwrap().lb;
    let set = set(|c| c.lb_policy = policy as i32, hosts);
    let balancer = Balancer::new(&lb, &LocalityLb::None, &set, |host| Rc::new(WorkerHost::plain(host.clone())));
    (set, balancer)
}

fn avoiding<A: Fn(&WorkerHost) -> bool>(avoid: A) -> Wish<'static, A> {
    Wish { hash: None, attempts: 5, avoid, loads: None }
}

/// How often each port was picked.
fn count(set: &HostSet, balancer: &Balancer, hash: impl Fn(usize) -> Option<u64>) -> HashMap<u16, usize> {
    let mut out = HashMap::new();
    for i in 0..N {
        let host = balancer.pick(set, &Wish::of(hash(i))).unwrap();
        *out.entry(host.host.address.port()).or_default() += 1;
    }
    out
}

fn share(counts: &HashMap<u16, usize>, port: u16) -> f64 {
    counts.get(&port).copied().unwrap_or(0) as f64 / N as f64
}

#[test]
fn round_robin_deals_evenly_and_by_weight() {
    let (set, balancer) = balancer(ByName::RoundRobin, &[1, 1, 1, 1]);
    assert!(count(&set, &balancer, |_| None).values().all(|&n| n == N / 4));
    let (set, balancer) = self::balancer(ByName::RoundRobin, &[1, 3]);
    assert!((share(&count(&set, &balancer, |_| None), 2) - 0.75).abs() < 0.001);
}

#[test]
fn random_and_least_request_spread() {
    for policy in [ByName::Random, ByName::LeastRequest] {
        let (set, balancer) = balancer(policy, &[1, 1]);
        assert!((share(&count(&set, &balancer, |_| None), 1) - 0.5).abs() < 0.03, "{policy:?}");
    }
}

#[test]
fn least_request_avoids_the_busy() {
    for (weights, most) in [(&[1, 1][..], 0.30), (&[1, 2], 0.05)] {
        let (set, balancer) = balancer(ByName::LeastRequest, weights);
        set.priorities[0].all[0].load.requests.store(50, Ordering::Relaxed);
        let busy = share(&count(&set, &balancer, |_| None), 1);
        // Of two draws among two, both are the busy one a quarter of the time.
        assert!(busy < most, "{weights:?}: {busy}");
    }
}

#[test]
fn a_hash_sticks_and_moves_little_when_hosts_go() {
    for policy in [ByName::RingHash, ByName::Maglev] {
        let (four, by_four) = balancer(policy, &[1, 1, 1, 1]);
        let (three, by_three) = balancer(policy, &[1, 1, 1]);
        let counts = count(&four, &by_four, |i| Some(xxhash_rust::xxh64::xxh64(&i.to_le_bytes(), 0)));
        assert!((1..=4).all(|port| (share(&counts, port) - 0.25).abs() < 0.08), "{policy:?}: {counts:?}");
        let mut moved = 0;
        for i in 0..N {
            let hash = Some(xxhash_rust::xxh64::xxh64(&i.to_le_bytes(), 0));
            let port = |set: &HostSet, b: &Balancer| b.pick(set, &Wish::of(hash)).unwrap().host.address.port();
            let (before, after) = (port(&four, &by_four), port(&three, &by_three));
            moved += usize::from(before != 4 && before != after);
        }
        // A ring gives each of fewer hosts more points, which take from each other.
        assert!((moved as f64 / N as f64) < 0.12, "{policy:?}: {moved} moved without need");
    }
}

#[test]
fn other_priorities_only_when_the_first_cannot() {
    let hosts = [(0, Health::Unhealthy, 1, None), (0, Health::Healthy, 1, None), (1, Health::Healthy, 1, None)];
    let (set, balancer) = of(ByName::RoundRobin, &hosts);
    let counts = count(&set, &balancer, |_| None);
    assert!((share(&counts, 2) - 0.7).abs() < 0.03 && share(&counts, 1) == 0.0, "{counts:?}");
}

#[test]
fn hosts_that_were_tried_are_avoided_while_there_are_others() {
    let (set, balancer) = balancer(ByName::RoundRobin, &[1, 1]);
    for _ in 0..100 {
        let host = balancer.pick(&set, &avoiding(|host| host.host.address.port() == 1)).unwrap();
        assert_eq!(host.host.address.port(), 2);
    }
    assert!(balancer.pick(&set, &avoiding(|_| true)).is_some());
    let (set, balancer) = self::balancer(ByName::RoundRobin, &[]);
    assert!(balancer.pick(&set, &avoiding(|_| false)).is_none());
}

#[test]
fn hashed_retries_go_elsewhere_and_always_to_the_same() {
    for policy in [ByName::RingHash, ByName::Maglev] {
        let (set, balancer) = balancer(policy, &[1, 1, 1]);
        let mut stuck = 0;
        for i in 0..200u64 {
            let hash = Some(xxhash_rust::xxh64::xxh64(&i.to_le_bytes(), 0));
            let first = balancer.pick(&set, &Wish::of(hash)).unwrap().host.address;
            let again = || {
                let avoid = |host: &WorkerHost| host.host.address == first;
                balancer.pick(&set, &Wish { hash, attempts: 20, avoid, loads: None }).unwrap().host.address
            };
            stuck += usize::from(again() == first);
            assert_eq!(again(), again());
        }
        // A Maglev table has runs of slots with the same host.
        assert!(stuck < 20, "{policy:?}: {stuck}");
    }
}

/// As [`balancer`], with localities that share by weight.
fn weighted(policy: ByName, hosts: &[(u32, Health, u32, Option<u32>)]) -> (HostSet, Balancer) {
    let mut lb = LbPolicy::Random;
    let set = set(
        |c| {
            c.lb_policy = policy as i32;
            c.common_lb_config = Some(proto::cluster::CommonLbConfig {
                locality_config_specifier: Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(
                    LocalityWeightedLbConfig {},
                )),
                healthy_panic_threshold: Some(Default::default()),
                ..Default::default()
            });
            lb = crate::compile::cluster(c).unwrap().lb;
        },
        hosts,
    );
    let worker = |host: &std::sync::Arc<crate::upstream::Host>| Rc::new(WorkerHost::plain(host.clone()));
    let balancer = Balancer::new(&lb, &LocalityLb::Weighted, &set, worker);
    (set, balancer)
}

#[test]
fn localities_take_their_shares() {
    let ok = |share| (0, Health::Healthy, 1, Some(share));
    for policy in [ByName::RoundRobin, ByName::LeastRequest, ByName::Random, ByName::RingHash, ByName::Maglev] {
        let (set, balancer) = weighted(policy, &[ok(10), ok(30), ok(60), ok(0)]);
        let counts = count(&set, &balancer, |i| Some(xxhash_rust::xxh64::xxh64(&i.to_le_bytes(), 0)));
        for (port, want) in [(1, 0.1), (2, 0.3), (3, 0.6), (4, 0.0)] {
            assert!((share(&counts, port) - want).abs() < 0.06, "{policy:?}: {counts:?}");
        }
    }
    let bad = (0, Health::Unhealthy, 1, Some(50));
    let (set, balancer) = weighted(ByName::RoundRobin, &[ok(50), bad]);
    assert_eq!(share(&count(&set, &balancer, |_| None), 1), 1.0, "a locality without healthy hosts gets nothing");
}

#[test]
fn a_full_scan_finds_the_least_busy() {
    let lb = LbPolicy::LeastRequest {
        choices: 2,
        full_scan: true,
        active_bias: 1.0,
        slow_start: crate::config::SlowStart::default(),
    };
    let hosts: Vec<_> = (0..5).map(|_| (0, Health::Healthy, 1, None)).collect();
    let set = set(|_| {}, &hosts);
    let worker = |host: &std::sync::Arc<crate::upstream::Host>| Rc::new(WorkerHost::plain(host.clone()));
    let balancer = Balancer::new(&lb, &LocalityLb::None, &set, worker);
    for (host, busy) in set.hosts().zip([3, 1, 2, 1, 9]) {
        host.load.requests.store(busy, Ordering::Relaxed);
    }
    let counts = count(&set, &balancer, |_| None);
    assert!((share(&counts, 2) - 0.5).abs() < 0.03 && (share(&counts, 4) - 0.5).abs() < 0.03, "{counts:?}");
}

#[test]
fn a_bias_says_how_much_being_busy_counts() {
    // Weights 1 and 2, the second with three requests: 1 to 2/4^bias.
    for (bias, want) in [(0.0, 2.0 / 3.0), (1.0, 1.0 / 3.0), (2.0, 1.0 / 9.0)] {
        let lb = LbPolicy::LeastRequest {
            choices: 2,
            full_scan: false,
            active_bias: bias,
            slow_start: crate::config::SlowStart::default(),
        };
        let set = set(|_| {}, &[(0, Health::Healthy, 1, None), (0, Health::Healthy, 2, None)]);
        set.priorities[0].all[1].load.requests.store(3, Ordering::Relaxed);
        let worker = |host: &std::sync::Arc<crate::upstream::Host>| Rc::new(WorkerHost::plain(host.clone()));
        let balancer = Balancer::new(&lb, &LocalityLb::None, &set, worker);
        let got = share(&count(&set, &balancer, |_| None), 2);
        assert!((got - want).abs() < 0.01, "{bias}: {got}");
    }
}

#[test]
fn new_hosts_rise_slowly() {
    use std::time::{Duration, Instant};
    let seconds = Duration::from_secs;
    let config = |aggression, min_weight_percent| crate::config::SlowStart {
        window: Some(seconds(100)),
        aggression,
        min_weight_percent,
    };
    for (aggression, least, age, want) in [
        (1.0, 10.0, 0, 0.1),
        (1.0, 10.0, 50, 0.5),
        (1.0, 10.0, 100, 1.0),
        (2.0, 10.0, 25, 0.5),
        (1.0, 60.0, 50, 0.6),
        (0.5, 0.0, 50, 0.25),
    ] {
        let got = picker::rise(&config(aggression, least), seconds(age));
        assert!((got - want).abs() < 1e-9, "{aggression} {least} {age}: {got}");
    }
    // One host has been there for half of its time, the other for all of it.
    for (lb, want) in [
        (LbPolicy::RoundRobin(config(1.0, 10.0)), 1.0 / 3.0),
        (
            LbPolicy::LeastRequest { choices: 2, full_scan: false, active_bias: 1.0, slow_start: config(1.0, 10.0) },
            1.0 / 3.0,
        ),
    ] {
        let mut set = set(|_| {}, &[(0, Health::Healthy, 1, None), (0, Health::Healthy, 1, None)]);
        let ages = [50, 200].map(|age| Instant::now().checked_sub(seconds(age)));
        for (host, since) in set.priorities[0].all.iter_mut().zip(ages) {
            std::sync::Arc::get_mut(host).unwrap().since = since;
        }
        set.newest = ages[0];
        let worker = |host: &std::sync::Arc<crate::upstream::Host>| Rc::new(WorkerHost::plain(host.clone()));
        let balancer = Balancer::new(&lb, &LocalityLb::None, &set, worker);
        let got = share(&count(&set, &balancer, |_| None), 1);
        assert!((got - want).abs() < 0.02, "{lb:?}: {got}");
    }
}
