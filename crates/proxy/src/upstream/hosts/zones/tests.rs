use std::sync::Arc;

use super::*;
use crate::compile;
use crate::config::{EndpointAddress, LocalityEndpoints};
use crate::upstream::HostSet;

fn locality(zone: &str) -> Locality {
    Locality { region: "r".into(), zone: zone.into(), ..Locality::default() }
}

/// So many healthy hosts in each zone.
fn endpoints(zones: &[(&str, usize)]) -> Endpoints {
    let mut port = 0;
    let localities = zones.iter().map(|(zone, count)| LocalityEndpoints {
        locality: locality(zone),
        priority: 0,
        weight: None,
        endpoints: std::iter::repeat_with(|| {
            port += 1;
            Endpoint {
                address: EndpointAddress::Socket(([127, 0, 0, 1], port).into()),
                others: Arc::default(),
                hostname: "".into(),
                weight: 1,
                health: Health::Healthy,
                metadata: None,
            }
        })
        .take(*count)
        .collect(),
    });
    Endpoints { localities: localities.collect(), overprovisioning_factor: 140, ..Endpoints::default() }
}

fn zones(
    own: &str,
    peers: &[(&str, usize)],
    hosts: &[(&str, usize)],
    change: impl FnOnce(&mut LocalityLb),
) -> Option<Zones> {
    let mut cluster = compile::cluster(&maille_xds::types::cluster::Cluster {
        cluster_discovery_type: Some(maille_xds::types::cluster::cluster::ClusterDiscoveryType::Type(0)),
        ..Default::default()
    })
    .unwrap();
    cluster.locality_lb = LocalityLb::ZoneAware {
        enabled: 100.0,
        min_cluster_size: 6,
        fail_on_panic: false,
        force_local_zone: None,
        by_weight: false,
    };
    change(&mut cluster.locality_lb);
    let (own, peers) = (locality(own), endpoints(peers));
    let local = Local { locality: &own, peers: Some(&peers) };
    HostSet::new(&cluster, &endpoints(hosts), None, Some(local)).zones
}

#[test]
fn what_stays_in_the_own_zone() {
    let hosts = [("a", 4), ("b", 4)];
    let plain = |peers: &[(&str, usize)], hosts: &[(&str, usize)]| zones("a", peers, hosts, |_| {});
    for (what, found, want) in [
        ("as many clients as servers in each zone", plain(&[("a", 2), ("b", 2)], &hosts), Some(Zones::Own)),
        ("fewer clients than servers here", plain(&[("a", 1), ("b", 3)], &hosts), Some(Zones::Own)),
        (
            "more clients than servers here: two thirds stay",
            plain(&[("a", 3), ("b", 1)], &hosts),
            Some(Zones::Shared { own: 6666, residual: vec![0, 2500] }),
        ),
        (
            "the documentation's example: 40/40/20 of clients, 25/50/25 of servers",
            plain(&[("a", 4), ("b", 4), ("c", 2)], &[("a", 3), ("b", 6), ("c", 3)]),
            Some(Zones::Shared { own: 6250, residual: vec![0, 1000, 1500] }),
        ),
        (
            "no servers here",
            plain(&[("a", 2), ("b", 2)], &[("b", 3), ("c", 3)]),
            Some(Zones::Shared { own: 0, residual: vec![0, 5000] }),
        ),
        ("too few servers", plain(&[("a", 2), ("b", 2)], &[("a", 2), ("b", 3)]), None),
        ("one zone of servers", plain(&[("a", 2), ("b", 2)], &[("a", 8)]), None),
        ("one zone of clients", plain(&[("a", 2)], &hosts), None),
        ("nobody knows us", plain(&[("b", 2), ("c", 2)], &hosts), None),
    ] {
        assert_eq!(found, want, "{what}");
    }
}

#[test]
fn the_own_zone_can_be_forced() {
    let forced = |least| {
        zones("a", &[("a", 9), ("b", 1)], &[("a", 3), ("b", 5)], |lb| {
            if let LocalityLb::ZoneAware { force_local_zone, .. } = lb {
                *force_local_zone = Some(least);
            }
        })
    };
    assert_eq!(forced(3), Some(Zones::Own));
    assert!(matches!(forced(4), Some(Zones::Shared { .. })));
}

#[test]
fn draws_follow_the_shares() {
    let zones = Zones::Shared { own: 6250, residual: vec![0, 1000, 1500] };
    let chosen = |numbers: [u64; 2]| {
        let mut numbers = numbers.into_iter();
        zones.choose(|| numbers.next().unwrap()).unwrap()
    };
    for (numbers, zone) in [([6249, 0], 0), ([6250, 0], 1), ([6250, 999], 1), ([6250, 1000], 2), ([6250, 1499], 2)] {
        assert_eq!(chosen(numbers), zone, "{numbers:?}");
    }
    assert_eq!(Zones::Shared { own: 0, residual: vec![0, 0] }.choose(|| 3), Some(1), "lost to rounding: any");
    assert_eq!(Zones::Nowhere.choose(|| 0), None);
}
