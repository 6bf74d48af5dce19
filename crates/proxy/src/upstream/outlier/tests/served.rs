//! What ejections make of the hosts that are served, over updates of cluster and endpoints.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use maille_telemetry::metrics::Registry;
use maille_xds::types::cluster::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, EdsClusterConfig, LbPolicy,
};
use maille_xds::types::cluster::{Cluster, OutlierDetection};
use maille_xds::types::core::{self, address::Address, socket_address::PortSpecifier};
use maille_xds::types::endpoint::{self, lb_endpoint::HostIdentifier};
use maille_xds::types::kind::Percent;
use maille_xds::types::{self, UInt32Value};
use maille_xds::{Resource, TypeUrl};

use crate::run::Assembly;
use crate::upstream::outlier::Outcome;
use crate::upstream::{ClusterEntry, WorkerCluster};

struct Served {
    assembly: Assembly,
    now: Instant,
    /// Whether hosts that come or go cost all of them their connections.
    close_on_change: bool,
}

impl Served {
    /// A cluster with hosts of these ports, by priority.
    fn new(panic_threshold: f64, hosts: &[&[u32]]) -> Served {
        let mut served = Served { assembly: Assembly::new(), now: Instant::now(), close_on_change: false };
        served.cluster(panic_threshold, true);
        served.endpoints(hosts);
        assert_eq!(served.assembly.next_check(served.now), Some(served.now + Duration::from_secs(10)));
        served
    }

    fn cluster(&mut self, panic_threshold: f64, detect: bool) {
        let ads = core::config_source::ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {});
        let eds_config = Some(core::ConfigSource { config_source_specifier: Some(ads), ..Default::default() });
        let detection = OutlierDetection {
            consecutive_5xx: Some(UInt32Value { value: 2 }),
            max_ejection_percent: Some(UInt32Value { value: 100 }),
            ..OutlierDetection::default()
        };
        let cluster = Cluster {
            name: "c".into(),
            cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
            eds_cluster_config: Some(EdsClusterConfig { eds_config, ..EdsClusterConfig::default() }),
            lb_policy: LbPolicy::RoundRobin as i32,
            outlier_detection: detect.then_some(detection),
            common_lb_config: Some(CommonLbConfig {
                healthy_panic_threshold: Some(Percent { value: panic_threshold }),
                close_connections_on_host_set_change: self.close_on_change,
                ..CommonLbConfig::default()
            }),
            ..Cluster::default()
        };
        self.apply(TypeUrl::Cluster, &cluster);
    }

    fn endpoints(&mut self, hosts: &[&[u32]]) {
        let endpoint = |port: &u32| {
            let port_specifier = Some(PortSpecifier::PortValue(*port));
            let socket = core::SocketAddress { address: "127.0.0.1".into(), port_specifier, ..Default::default() };
            let address = Some(core::Address { address: Some(Address::SocketAddress(socket)) });
            let host = HostIdentifier::Endpoint(endpoint::Endpoint { address, ..Default::default() });
            endpoint::LbEndpoint { host_identifier: Some(host), ..Default::default() }
        };
        let localities = hosts.iter().enumerate().map(|(priority, ports)| endpoint::LocalityLbEndpoints {
            priority: priority as u32,
            lb_endpoints: ports.iter().map(endpoint).collect(),
            ..Default::default()
        });
        let assignment = endpoint::ClusterLoadAssignment {
            cluster_name: "c".into(),
            endpoints: localities.collect(),
            ..Default::default()
        };
        self.apply(TypeUrl::Endpoint, &assignment);
    }

    fn apply<M: types::Message + types::Name>(&mut self, type_url: TypeUrl, message: &M) {
        let applied = self.assembly.apply(type_url, &[Resource::encode("c", message)], &[], |_| Ok(()));
        assert!(applied.refused.is_empty(), "{:?}", applied.refused);
    }

    fn entry(&mut self) -> Arc<ClusterEntry> {
        self.assembly.assemble().clusters["c"].clone()
    }

    /// Failures enough for ejection at these hosts.
    fn fail(&mut self, ports: &[u16]) {
        let entry = self.entry();
        for host in entry.hosts.hosts().filter(|host| ports.contains(&host.address.port())) {
            entry.report(host, Outcome::Response(500));
            entry.report(host, Outcome::Response(500));
        }
        self.assembly.check(self.now, &mut || 0);
    }

    fn check(&mut self, what: &str, expected: &str) {
        let entry = self.entry();
        let loads = &entry.hosts.loads.healthy;
        let priorities = entry.hosts.priorities.iter().zip(loads).map(|(priority, load)| {
            let ports: Vec<_> = priority.usable().map(|host| host.address.port().to_string()).collect();
            format!("{load}%{}", ports.iter().map(|port| format!(" {port}")).collect::<String>())
        });
        assert_eq!(priorities.collect::<Vec<_>>().join("; "), expected, "{what}");
    }
}

#[test]
fn ejected_hosts_are_not_served_unless_in_panic() {
    let mut served = Served::new(50.0, &[&[1, 2, 3, 4]]);
    served.check("all are well", "100% 1 2 3 4");
    served.fail(&[2]);
    served.check("one fails", "100% 1 3 4");
    served.fail(&[3]);
    served.check("half of them fail", "100% 1 4");
    served.fail(&[4]);
    served.check("more than half fail", "100% 1 2 3 4");

    let mut served = Served::new(0.0, &[&[1, 2]]);
    served.fail(&[1, 2]);
    served.check("without panic, none is left", "100%");
}

#[test]
fn other_priorities_take_over() {
    let mut served = Served::new(0.0, &[&[1, 2], &[3]]);
    served.check("all are well", "100% 1 2; 0% 3");
    served.fail(&[1]);
    // 140 percent of a half.
    served.check("half of the first", "70% 2; 30% 3");
    served.fail(&[2]);
    served.check("all of the first", "0%; 100% 3");
}

#[test]
fn ejections_end_on_time_and_survive_updates() {
    let mut served = Served::new(0.0, &[&[1, 2]]);
    served.fail(&[1]);
    served.check("ejected", "100% 2");
    served.endpoints(&[&[3, 1]]);
    served.check("still ejected when others come and go", "100% 3");
    served.cluster(10.0, true);
    served.check("still ejected when something else about the cluster changes", "100% 3");
    let mut tick = |seconds| {
        served.now += Duration::from_secs(seconds);
        served.assembly.check(served.now, &mut || 0).len()
    };
    assert_eq!((tick(29), tick(1)), (0, 0));
    assert_eq!(tick(9), 1, "its time was over at 30 s, the interval is at 39 s");
    served.check("back", "100% 3 1");
    served.fail(&[1]);
    served.cluster(10.0, false);
    served.check("nobody is ejected where nobody detects", "100% 3 1");
    assert_eq!(served.assembly.next_check(served.now), None);
    served.fail(&[3]);
    served.check("nor any more", "100% 3 1");
}

#[test]
fn a_host_that_leaves_and_comes_back_begins_anew() {
    let mut served = Served::new(0.0, &[&[1, 2]]);
    served.fail(&[1]);
    served.endpoints(&[&[2]]);
    served.check("gone", "100% 2");
    served.endpoints(&[&[1, 2]]);
    served.check("another", "100% 1 2");
}

#[test]
fn the_alarm_rings_once() {
    let mut served = Served::new(0.0, &[&[1]]);
    let alarm = served.assembly.alarm();
    let rings = || {
        let mut notified = std::pin::pin!(alarm.notified());
        notified.as_mut().enable()
    };
    let entry = served.entry();
    let host = entry.hosts.hosts().next().unwrap().clone();
    let rung: Vec<bool> = (0..4)
        .map(|_| {
            entry.report(&host, Outcome::Failed);
            rings()
        })
        .collect();
    assert_eq!(rung, [false, true, false, false]);
}

/// Which of the hosts at ports 1, 2, … keep their connections over an update.
fn keep<const N: usize>(worker: &WorkerCluster, served: &mut Served) -> [bool; N] {
    let ports: [u16; N] = std::array::from_fn(|n| n as u16 + 1);
    let before = ports.map(|port| worker.pool(port));
    worker.update(served.entry());
    std::array::from_fn(|n| Rc::ptr_eq(&before[n], &worker.pool(ports[n])))
}

#[test]
fn a_host_that_fails_is_met_anew() {
    let mut served = Served::new(0.0, &[&[1, 2]]);
    let worker = WorkerCluster::new(served.entry(), &Registry::default());
    served.fail(&[1]);
    assert_eq!(keep(&worker, &mut served), [false, true], "when it fails");
    served.endpoints(&[&[1, 2, 3]]);
    assert_eq!(keep(&worker, &mut served), [true, true], "while it is left alone");
    served.now += Duration::from_secs(40);
    served.assembly.check(served.now, &mut || 0);
    served.check("it has another chance", "100% 1 2 3");
    assert_eq!(keep(&worker, &mut served), [true, true, true], "when it is used again");
    served.fail(&[1]);
    assert_eq!(keep(&worker, &mut served), [false, true, true], "when it fails again");
}

#[test]
fn where_it_is_wanted_all_are_met_anew_when_one_comes_or_goes() {
    let mut served = Served::new(0.0, &[&[1, 2]]);
    let worker = WorkerCluster::new(served.entry(), &Registry::default());
    served.endpoints(&[&[1, 2, 3]]);
    assert_eq!(keep(&worker, &mut served), [true, true], "where it is not wanted");
    served.close_on_change = true;
    served.cluster(0.0, true);
    worker.update(served.entry());
    served.fail(&[3]);
    assert_eq!(keep(&worker, &mut served), [true, true, false], "the same hosts");
    served.endpoints(&[&[1, 2]]);
    assert_eq!(keep(&worker, &mut served), [false, false], "one goes");
    served.endpoints(&[&[1, 2, 4]]);
    assert_eq!(keep(&worker, &mut served), [false, false], "one comes");
}
