use maille_xds::types::{cluster as proto, kind};

use super::*;
use crate::compile;
use crate::config::{Locality, LocalityEndpoints};

/// A cluster, with `(priority, health, weight, locality weight)` for each host; hosts get ports 1, 2, 3…, each a locality of its own.
pub(crate) fn set(change: impl FnOnce(&mut proto::Cluster), hosts: &[(u32, Health, u32, Option<u32>)]) -> HostSet {
    let (config, endpoints) = parts(change, hosts);
    HostSet::new(&config, &endpoints, None, None)
}

fn parts(change: impl FnOnce(&mut proto::Cluster), hosts: &[(u32, Health, u32, Option<u32>)]) -> (Cluster, Endpoints) {
    let mut cluster = proto::Cluster {
        name: "c".into(),
        cluster_discovery_type: Some(proto::cluster::ClusterDiscoveryType::Type(0)),
        ..Default::default()
    };
    change(&mut cluster);
    let localities = hosts.iter().zip(1..).map(|(&(priority, health, weight, share), port)| LocalityEndpoints {
        locality: Locality { zone: format!("{port:05}").into(), ..Locality::default() },
        priority,
        weight: share,
        endpoints: vec![Endpoint {
            address: EndpointAddress::Socket(([127, 0, 0, 1], port).into()),
            others: Arc::default(),
            hostname: "".into(),
            weight,
            health,
            metadata: None,
        }],
    });
    let endpoints =
        Endpoints { localities: localities.collect(), overprovisioning_factor: 140, ..Endpoints::default() };
    (compile::cluster(&cluster).unwrap(), endpoints)
}

const OK: Health = Health::Healthy;
const BAD: Health = Health::Unhealthy;

fn host(priority: u32, health: Health) -> (u32, Health, u32, Option<u32>) {
    (priority, health, 1, None)
}

#[test]
fn priorities_take_what_their_health_allows() {
    let (good, bad) = (|p| host(p, OK), |p| host(p, BAD));
    for (hosts, want) in [
        (vec![good(0), good(1)], vec![100, 0]),
        (vec![bad(0), bad(0), good(1), good(1)], vec![0, 100]),
        // Half of the first is healthy: 140 % of 50 % stay, the rest goes on.
        (vec![good(0), bad(0), good(1)], vec![70, 30]),
        (vec![good(1)], vec![0, 100]),
        (vec![bad(0)], vec![100]),
    ] {
        let percents: Vec<u32> = set(|_| {}, &hosts).loads.healthy.clone();
        assert_eq!(percents, want, "{hosts:?}");
    }
}

#[test]
fn a_panic_disregards_health() {
    let usable = |threshold: Option<f64>, hosts: &[(u32, Health, u32, Option<u32>)]| {
        let common = threshold.map(|value| proto::cluster::CommonLbConfig {
            healthy_panic_threshold: Some(kind::Percent { value }),
            ..Default::default()
        });
        set(|c| c.common_lb_config = common, hosts).priorities[0].usable().count()
    };
    let mostly_bad = [host(0, OK), host(0, BAD), host(0, BAD)];
    assert_eq!(usable(None, &mostly_bad), 3, "fewer than half are healthy");
    assert_eq!(usable(Some(0.0), &mostly_bad), 1, "never a panic");
    assert_eq!(usable(Some(0.0), &[host(0, BAD)]), 0);
    assert_eq!(usable(None, &[host(0, OK), host(0, BAD)]), 1, "exactly half is enough");
}

#[test]
fn degraded_hosts_take_what_the_healthy_ones_cannot() {
    let degraded = |p| host(p, Health::Degraded);
    for (hosts, healthy, low) in [
        (vec![host(0, OK), degraded(0)], vec![70], vec![30]),
        (vec![degraded(0), host(0, BAD)], vec![0], vec![100]),
        (vec![host(0, OK), degraded(0), host(1, OK)], vec![70, 30], vec![0, 0]),
        (vec![host(0, OK), host(0, Health::Draining)], vec![100], vec![0]),
    ] {
        let loads = set(|_| {}, &hosts).loads;
        assert_eq!((loads.healthy, loads.degraded), (healthy, low), "{hosts:?}");
    }
}

#[test]
fn localities_share_by_weight() {
    let weighted = |c: &mut proto::Cluster| {
        c.common_lb_config = Some(proto::cluster::CommonLbConfig {
            locality_config_specifier: Some(
                proto::cluster::common_lb_config::LocalityConfigSpecifier::LocalityWeightedLbConfig(Default::default()),
            ),
            ..Default::default()
        });
    };
    let set = set(weighted, &[(0, OK, 5, Some(20)), (0, OK, 1, Some(80)), (0, OK, 1, None)]);
    let localities: Vec<_> = set.priorities[0].localities.iter().map(|l| (l.weight, l.all.as_slice())).collect();
    assert_eq!(localities, [(20, &[0][..]), (80, &[1]), (0, &[2])]);
}

#[test]
fn hosts_that_stay_keep_their_counts() {
    let (config, endpoints) = parts(|_| {}, &[host(0, OK), host(0, OK)]);
    let old = HostSet::new(&config, &endpoints, None, None);
    let mut fewer = endpoints.clone();
    fewer.localities.remove(0);
    let new = HostSet::new(&config, &fewer, Some(&old), None);
    assert!(Arc::ptr_eq(&new.priorities[0].all[0].load, &old.priorities[0].all[1].load));
}
