use maille_xds::types::{cluster as proto, kind};

use super::*;
use crate::compile;
use crate::config::{Locality, LocalityEndpoints};

/// A cluster, with `(priority, health, weight, locality weight)` for each host; hosts get ports 1, 2, 3…, each a locality of its own.
pub(crate) fn set(change: impl FnOnce(&mut proto::Cluster), hosts: &[(u32, Health, u32, Option<u32>)]) -> HostSet {
    let (config, endpoints) = parts(change, hosts);
    HostSet::new(&config, &endpoints, None)
}

fn parts(change: impl FnOnce(&mut proto::Cluster), hosts: &[(u32, Health, u32, Option<u32>)]) -> (Cluster, Endpoints) {
    let mut cluster = proto::Cluster {
        name: "c".into(),
        cluster_discovery_type: Some(proto::cluster::ClusterDiscoveryType::Type(0)),
        ..Default::default()
    };
    change(&mut cluster);
    let localities = hosts.iter().zip(1..).map(|(&(priority, health, weight, share), port)| LocalityEndpoints {
        locality: Locality::default(),
        priority,
        weight: share,
        endpoints: vec![Endpoint {
            address: EndpointAddress::Socket(([127, 0, 0, 1], port).into()),
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
        let percents: Vec<u32> = set(|_| {}, &hosts).priorities.iter().map(|p| p.percent).collect();
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
        set(|c| c.common_lb_config = common, hosts).priorities[0].usable.len()
    };
    let mostly_bad = [host(0, OK), host(0, BAD), host(0, BAD)];
    assert_eq!(usable(None, &mostly_bad), 3, "fewer than half are healthy");
    assert_eq!(usable(Some(0.0), &mostly_bad), 1, "never a panic");
    assert_eq!(usable(Some(0.0), &[host(0, BAD)]), 0);
    assert_eq!(usable(None, &[host(0, OK), host(0, BAD)]), 1, "exactly half is enough");
    assert_eq!(
        usable(None, &[host(0, Health::Degraded), host(0, OK)]),
        1,
        "degraded hosts only when there are no others"
    );
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
    let weights: Vec<u32> = set.hosts().map(|h| h.weight).collect();
    assert_eq!(weights, [200_000, 800_000]);
}

#[test]
fn hosts_that_stay_keep_their_counts() {
    let (config, endpoints) = parts(|_| {}, &[host(0, OK), host(0, OK)]);
    let old = HostSet::new(&config, &endpoints, None);
    let mut fewer = endpoints.clone();
    fewer.localities.remove(0);
    let new = HostSet::new(&config, &fewer, Some(&old));
    assert!(Arc::ptr_eq(&new.priorities[0].all[0].load, &old.priorities[0].all[1].load));
}
