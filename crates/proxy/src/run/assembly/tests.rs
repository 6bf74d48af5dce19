use maille_xds::types::{self, core, hcm, listener as l, router};

use super::*;

fn cluster(name: &str, eds: bool) -> Resource {
    let kind = cluster::cluster::DiscoveryType::Eds as i32;
    let proto = cluster::Cluster {
        name: name.into(),
        cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::Type(if eds { kind } else { 0 })),
        eds_cluster_config: eds
            .then(|| cluster::cluster::EdsClusterConfig { eds_config: Some(ads()), ..Default::default() }),
        ..Default::default()
    };
    Resource::encode(name, &proto)
}

fn ads() -> core::ConfigSource {
    core::ConfigSource {
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(Default::default())),
        ..Default::default()
    }
}

fn address(port: u16) -> core::Address {
    let port = core::socket_address::PortSpecifier::PortValue(port.into());
    let socket = core::SocketAddress { address: "127.0.0.1".into(), port_specifier: Some(port), ..Default::default() };
    core::Address { address: Some(core::address::Address::SocketAddress(socket)) }
}

fn endpoints(name: &str, ports: &[u16]) -> Resource {
    let lb_endpoints = ports.iter().map(|&port| endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint::Endpoint {
            address: Some(address(port)),
            ..Default::default()
        })),
        ..Default::default()
    });
    let locality = endpoint::LocalityLbEndpoints { lb_endpoints: lb_endpoints.collect(), ..Default::default() };
    let proto =
        endpoint::ClusterLoadAssignment { cluster_name: name.into(), endpoints: vec![locality], ..Default::default() };
    Resource::encode(name, &proto)
}

fn routes(name: &str) -> Resource {
    Resource::encode(name, &route::RouteConfiguration { name: name.into(), ..Default::default() })
}

fn listener(name: &str, port: u16, rds: &str) -> Resource {
    let router = hcm::HttpFilter {
        name: "router".into(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(types::any(&router::Router::default()))),
        ..Default::default()
    };
    let manager = hcm::HttpConnectionManager {
        stat_prefix: "x".into(),
        http_filters: vec![router],
        route_specifier: Some(hcm::http_connection_manager::RouteSpecifier::Rds(hcm::Rds {
            config_source: Some(ads()),
            route_config_name: rds.into(),
        })),
        ..Default::default()
    };
    let filter =
        l::Filter { name: "http".into(), config_type: Some(l::filter::ConfigType::TypedConfig(types::any(&manager))) };
    let proto = l::Listener {
        name: name.into(),
        address: Some(address(port)),
        filter_chains: vec![l::FilterChain { filters: vec![filter], ..Default::default() }],
        ..Default::default()
    };
    Resource::encode(name, &proto)
}

/// Takes resources; what was refused.
fn put(assembly: &mut Assembly, type_url: TypeUrl, added: &[Resource]) -> Vec<String> {
    let applied = assembly.apply(type_url, added, &[], |_| Ok(()));
    applied.refused.into_iter().map(|(_, reason)| reason).collect()
}

fn remove(assembly: &mut Assembly, type_url: TypeUrl, name: &str) {
    assembly.apply(type_url, &[], &[name.into()], |_| Ok(()));
}

fn ports(snapshot: &Snapshot, cluster: &str) -> Option<Vec<u16>> {
    snapshot.clusters.get(cluster).map(|entry| entry.hosts.hosts().map(|h| h.address.port()).collect())
}

#[test]
fn a_cluster_is_served_once_its_hosts_are_known() {
    let mut assembly = Assembly::new();
    put(&mut assembly, TypeUrl::Cluster, &[cluster("a", true), cluster("b", false)]);
    assert_eq!(assembly.wanted(TypeUrl::Endpoint), BTreeSet::from(["a".into()]));
    let snapshot = assembly.assemble();
    assert_eq!((ports(&snapshot, "a"), ports(&snapshot, "b")), (None, Some(vec![])));
    assert!(!assembly.is_warm());

    put(&mut assembly, TypeUrl::Endpoint, &[endpoints("a", &[1, 2])]);
    let first = assembly.assemble();
    assert_eq!(ports(&first, "a"), Some(vec![1, 2]));
    assert!(assembly.is_warm());
    assert!(Arc::ptr_eq(&first, &assembly.assemble()), "nothing changed");

    // The cluster changes, its hosts do not and are not sent again.
    put(&mut assembly, TypeUrl::Cluster, &[cluster("a", true)]);
    let second = assembly.assemble();
    assert_eq!(ports(&second, "a"), Some(vec![1, 2]));
    let loads = |s: &Snapshot| s.clusters["a"].hosts.hosts().next().map(|h| h.load.clone());
    assert!(Arc::ptr_eq(&loads(&first).unwrap(), &loads(&second).unwrap()), "hosts keep their counts");

    remove(&mut assembly, TypeUrl::Endpoint, "a");
    assert_eq!(ports(&assembly.assemble(), "a"), Some(vec![]), "the server says that there are none");
    remove(&mut assembly, TypeUrl::Cluster, "a");
    assert_eq!(ports(&assembly.assemble(), "a"), None);
    assert!(assembly.wanted(TypeUrl::Endpoint).is_empty());
}

#[test]
fn a_listener_is_served_once_its_routes_are_known() {
    let mut assembly = Assembly::new();
    assert!(put(&mut assembly, TypeUrl::Listener, &[listener("l", 80, "r1")]).is_empty());
    assert_eq!(assembly.wanted(TypeUrl::Route), BTreeSet::from(["r1".into()]));
    assert!(assembly.assemble().listeners.is_empty() && !assembly.is_warm());
    put(&mut assembly, TypeUrl::Route, &[routes("r1")]);
    let old = assembly.assemble();
    assert!(old.bound.contains_key(&([127, 0, 0, 1], 80).into()) && assembly.is_warm());

    // A newer one waits for its routes; until then the older one serves.
    put(&mut assembly, TypeUrl::Listener, &[listener("l", 81, "r2")]);
    let waiting = assembly.assemble();
    assert!(Arc::ptr_eq(&waiting.listeners["l"], &old.listeners["l"]));
    assert!(assembly.wants_address(([127, 0, 0, 1], 80).into()));
    remove(&mut assembly, TypeUrl::Route, "r2");
    let new = assembly.assemble();
    assert_eq!(new.bound.keys().collect::<Vec<_>>(), [&([127, 0, 0, 1], 81).into()], "no routes is an answer too");
    assert!(!assembly.wants_address(([127, 0, 0, 1], 80).into()));
}

#[test]
fn no_listener_is_served_before_the_first_clusters() {
    let mut assembly = Assembly::new();
    put(&mut assembly, TypeUrl::Cluster, &[cluster("a", true), cluster("b", false)]);
    put(&mut assembly, TypeUrl::Listener, &[listener("l", 80, "r")]);
    put(&mut assembly, TypeUrl::Route, &[routes("r")]);
    assert!(assembly.assemble().bound.is_empty(), "requests would find no host");
    put(&mut assembly, TypeUrl::Endpoint, &[endpoints("a", &[1])]);
    assert_eq!(assembly.assemble().bound.len(), 1);

    // Later ones hold up nobody.
    put(&mut assembly, TypeUrl::Cluster, &[cluster("c", true)]);
    put(&mut assembly, TypeUrl::Listener, &[listener("m", 81, "r")]);
    assert_eq!(assembly.assemble().bound.len(), 2);
}

#[test]
fn what_is_refused_changes_nothing() {
    let mut assembly = Assembly::new();
    put(&mut assembly, TypeUrl::Cluster, &[cluster("a", false)]);
    put(&mut assembly, TypeUrl::Route, &[routes("r")]);
    put(&mut assembly, TypeUrl::Listener, &[listener("l", 80, "r")]);
    let before = assembly.assemble();

    let garbage = Resource::from_body("a", vec![0xff, 0xff].into());
    let refused = put(&mut assembly, TypeUrl::Cluster, &[garbage, cluster("b", false)]);
    assert!(matches!(refused.as_slice(), [one] if one.contains("\"a\"")), "{refused:?}");
    let refused = put(&mut assembly, TypeUrl::Listener, &[listener("m", 80, "r")]);
    assert!(matches!(refused.as_slice(), [one] if one.contains("listener \"l\"")), "{refused:?}");
    let applied = assembly.apply(TypeUrl::Listener, &[listener("n", 82, "r")], &[], |_| Err("no such luck".into()));
    assert!(applied.refused[0].1.contains("no such luck"), "{applied:?}");

    let after = assembly.assemble();
    assert!(Arc::ptr_eq(&before.clusters["a"], &after.clusters["a"]), "the last good one goes on");
    assert!(after.clusters.contains_key("b"), "its neighbour is taken");
    assert_eq!(after.listeners.len(), 1);
    assert_eq!(assembly.refused().count(), 3);

    put(&mut assembly, TypeUrl::Cluster, &[cluster("a", false)]);
    remove(&mut assembly, TypeUrl::Listener, "m");
    assert_eq!(assembly.refused().count(), 1, "what is mended or gone is refused no longer");
}

/// A listener may take the place of another within one update.
#[test]
fn an_address_changes_hands() {
    let mut assembly = Assembly::new();
    put(&mut assembly, TypeUrl::Listener, &[listener("old", 80, "r")]);
    put(&mut assembly, TypeUrl::Route, &[routes("r")]);
    let applied = assembly.apply(TypeUrl::Listener, &[listener("new", 80, "r")], &["old".into()], |_| Ok(()));
    assert!(applied.refused.is_empty());
    assert_eq!(&*assembly.assemble().bound[&([127, 0, 0, 1], 80).into()].name, "new");
}

mod secrets;
