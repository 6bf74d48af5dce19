use std::collections::HashMap;

use maille_xds::types::cluster as proto;
use maille_xds::types::cluster::cluster::LbPolicy as Policy;

use super::*;
use crate::config::Health;
use crate::upstream::Pool;
use crate::upstream::tests::set;

const N: usize = 20_000;

fn balancer(policy: Policy, weights: &[u32]) -> (HostSet, Balancer) {
    let hosts: Vec<_> = weights.iter().map(|&w| (0, Health::Healthy, w, None)).collect();
    of(policy, &hosts)
}

fn of(policy: Policy, hosts: &[(u32, Health, u32, Option<u32>)]) -> (HostSet, Balancer) {
    let cluster = proto::Cluster {
        name: "c".into(),
        cluster_discovery_type: Some(proto::cluster::ClusterDiscoveryType::Type(0)),
        lb_policy: policy as i32,
        ..Default::default()
    };
    let lb = crate::compile::cluster(&cluster).unwrap().lb;
    let set = set(|c| c.lb_policy = policy as i32, hosts);
    let balancer =
        Balancer::new(&lb, &set, |host| Rc::new(WorkerHost { host: host.clone(), pool: Rc::new(Pool::new()) }));
    (set, balancer)
}

/// How often each port was picked.
fn count(set: &HostSet, balancer: &Balancer, hash: impl Fn(usize) -> Option<u64>) -> HashMap<u16, usize> {
    let mut out = HashMap::new();
    for i in 0..N {
        let host = balancer.pick(set, hash(i), 0, |_| false).unwrap();
        *out.entry(host.host.address.port()).or_default() += 1;
    }
    out
}

fn share(counts: &HashMap<u16, usize>, port: u16) -> f64 {
    counts.get(&port).copied().unwrap_or(0) as f64 / N as f64
}

#[test]
fn round_robin_deals_evenly_and_by_weight() {
    let (set, balancer) = balancer(Policy::RoundRobin, &[1, 1, 1, 1]);
    assert!(count(&set, &balancer, |_| None).values().all(|&n| n == N / 4));
    let (set, balancer) = self::balancer(Policy::RoundRobin, &[1, 3]);
    assert!((share(&count(&set, &balancer, |_| None), 2) - 0.75).abs() < 0.001);
}

#[test]
fn random_and_least_request_spread() {
    for policy in [Policy::Random, Policy::LeastRequest] {
        let (set, balancer) = balancer(policy, &[1, 1]);
        assert!((share(&count(&set, &balancer, |_| None), 1) - 0.5).abs() < 0.03, "{policy:?}");
    }
}

#[test]
fn least_request_avoids_the_busy() {
    for (weights, most) in [(&[1, 1][..], 0.30), (&[1, 2], 0.05)] {
        let (set, balancer) = balancer(Policy::LeastRequest, weights);
        set.priorities[0].all[0].load.requests.store(50, Ordering::Relaxed);
        let busy = share(&count(&set, &balancer, |_| None), 1);
        // Of two draws among two, both are the busy one a quarter of the time.
        assert!(busy < most, "{weights:?}: {busy}");
    }
}

#[test]
fn a_hash_sticks_and_moves_little_when_hosts_go() {
    for policy in [Policy::RingHash, Policy::Maglev] {
        let (four, by_four) = balancer(policy, &[1, 1, 1, 1]);
        let (three, by_three) = balancer(policy, &[1, 1, 1]);
        let counts = count(&four, &by_four, |i| Some(xxhash_rust::xxh64::xxh64(&i.to_le_bytes(), 0)));
        assert!((1..=4).all(|port| (share(&counts, port) - 0.25).abs() < 0.08), "{policy:?}: {counts:?}");
        let mut moved = 0;
        for i in 0..N {
            let hash = Some(xxhash_rust::xxh64::xxh64(&i.to_le_bytes(), 0));
            let port = |set: &HostSet, b: &Balancer| b.pick(set, hash, 0, |_| false).unwrap().host.address.port();
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
    let (set, balancer) = of(Policy::RoundRobin, &hosts);
    let counts = count(&set, &balancer, |_| None);
    assert!((share(&counts, 2) - 0.7).abs() < 0.03 && share(&counts, 1) == 0.0, "{counts:?}");
}

#[test]
fn hosts_that_were_tried_are_avoided_while_there_are_others() {
    let (set, balancer) = balancer(Policy::RoundRobin, &[1, 1]);
    for _ in 0..100 {
        let host = balancer.pick(&set, None, 5, |host| host.host.address.port() == 1).unwrap();
        assert_eq!(host.host.address.port(), 2);
    }
    assert!(balancer.pick(&set, None, 5, |_| true).is_some());
    let (set, balancer) = self::balancer(Policy::RoundRobin, &[]);
    assert!(balancer.pick(&set, None, 5, |_| false).is_none());
}
