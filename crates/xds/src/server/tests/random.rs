//! Random worlds against a client that checks, at every step, that nothing it serves by refers to something it lacks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use fastrand::Rng;

use super::script;
use crate::client::{DeltaClient, Update};
use crate::server::DeltaSession;
use crate::types::core::Node;
use crate::types::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use crate::{Resource, TypeUrl, World};

const SEEDS: u64 = 400;
const STEPS: usize = 120;

/// Both ends of one stream and what is on its way between them.
struct Mesh {
    rng: Rng,
    world: World,
    /// Which clusters each version of a route refers to, and which route each version of a listener.
    refers: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    versions: u32,
    streams: u64,
    session: DeltaSession,
    client: DeltaClient,
    held: BTreeMap<TypeUrl, BTreeMap<Arc<str>, Resource>>,
    up: VecDeque<DeltaDiscoveryRequest>,
    down: VecDeque<DeltaDiscoveryResponse>,
    refusing: bool,
}

#[test]
fn nothing_served_ever_refers_to_what_is_missing() {
    for seed in 0..SEEDS {
        let mut mesh = Mesh::new(seed, false);
        for step in 0..STEPS {
            mesh.step();
            mesh.check(&format!("seed {seed}, step {step}"));
        }
        mesh.settle();
        mesh.check_complete(&format!("seed {seed}"));
    }
}

#[test]
fn refusals_delay_nothing_else_for_ever() {
    for seed in 0..SEEDS {
        let mut mesh = Mesh::new(seed, true);
        for _ in 0..STEPS {
            mesh.step();
        }
        mesh.refusing = false;
        mesh.world = World::new();
        mesh.session.on_world(World::new());
        mesh.poll();
        mesh.settle();
        mesh.check_complete(&format!("seed {seed}"));
    }
}

impl Mesh {
    fn new(seed: u64, refusing: bool) -> Self {
        let mut mesh = Self {
            rng: Rng::with_seed(seed),
            world: World::new(),
            refers: BTreeMap::new(),
            versions: 0,
            streams: 0,
            session: DeltaSession::new(0, "test"),
            client: DeltaClient::new(Node::default()),
            held: BTreeMap::new(),
            up: VecDeque::new(),
            down: VecDeque::new(),
            refusing,
        };
        mesh.client.subscribe_all(TypeUrl::Cluster);
        mesh.client.subscribe_all(TypeUrl::Listener);
        mesh.change();
        mesh.reconnect();
        mesh
    }

    fn step(&mut self) {
        match self.rng.u32(0..20) {
            0..=1 => self.change(),
            2 if self.rng.u32(0..8) == 0 => self.reconnect(),
            3..=10 => self.serve(),
            _ => self.consume(),
        }
    }

    /// Another world, some of it as it was.
    fn change(&mut self) {
        let mut words = Vec::new();
        let mut refers = BTreeMap::new();
        let clusters: Vec<String> = (0..5).filter(|_| self.rng.bool()).map(|n| format!("c{n}")).collect();
        let routes: Vec<String> =
            (0..3).filter(|_| self.rng.bool() && !clusters.is_empty()).map(|n| format!("r{n}")).collect();
        for cluster in &clusters {
            // The service name differs from the cluster's for some.
            let version = self.rng.u32(0..3);
            words.push(format!("c:{cluster}:{version}>e{cluster}"));
            words.push(format!("e:e{cluster}:{}", self.rng.u32(0..3)));
        }
        for route in &routes {
            self.versions += 1;
            let version = format!("v{}", self.versions);
            let to = (0..self.rng.usize(1..3)).map(|_| clusters[self.rng.usize(..clusters.len())].as_str().into());
            refers.insert(version.as_str().into(), to.collect());
            words.push(format!("r:{route}:{version}"));
        }
        for listener in (0..3).filter(|_| !routes.is_empty()) {
            let route = &routes[self.rng.usize(..routes.len())];
            words.push(format!("l:l{listener}:{route}>{route}"));
        }
        self.refers.extend(refers);
        self.world = script::world(&words.iter().map(String::as_str).collect::<Vec<_>>());
        self.session.on_world(self.world.clone());
        self.poll();
    }

    fn reconnect(&mut self) {
        self.streams += 1;
        self.session = DeltaSession::new(self.streams, "test");
        self.session.on_world(self.world.clone());
        self.up.clear();
        self.down.clear();
        self.client.on_close();
        self.client.on_open();
        self.say();
    }

    fn say(&mut self) {
        while let Some(request) = self.client.next_request() {
            self.up.push_back(request);
        }
    }

    fn serve(&mut self) {
        let Some(request) = self.up.pop_front() else { return };
        self.session.on_request(request).unwrap();
        self.poll();
    }

    fn poll(&mut self) {
        self.down.extend(self.session.poll());
        for type_url in TypeUrl::ALL {
            // On its way, or being answered: never more than one.
            let waiting = self.down.iter().filter(|response| response.type_url == type_url.as_str()).count();
            let answers = self.up.iter().filter(|request| {
                request.type_url == type_url.as_str()
                    && request.response_nonce.starts_with(&format!("{:x}-", self.streams))
            });
            assert!(waiting + answers.count() <= 1, "two {} responses outstanding", type_url.short());
        }
    }

    fn consume(&mut self) {
        let Some(response) = self.down.pop_front() else { return };
        let Some(Update { type_url, added, removed, receipt }) = self.client.on_response(response) else { return };
        let refusing = self.refusing && self.rng.u32(0..4) == 0;
        let refused: Vec<Arc<str>> =
            added.iter().map(|resource| resource.name.clone()).filter(|_| refusing && self.rng.bool()).collect();
        let held = self.held.entry(type_url).or_default();
        for name in &removed {
            held.remove(name);
        }
        for resource in added.into_iter().filter(|resource| !refused.contains(&resource.name)) {
            held.insert(resource.name.clone(), resource);
        }
        self.follow();
        match refused.is_empty() {
            true => self.client.ack(receipt),
            false => self.client.nack(receipt, format!("{refused:?}"), &refused),
        }
        self.say();
    }

    /// Subscribes to what the clusters and listeners held need, and drops the rest.
    fn follow(&mut self) {
        let clusters = self.names(TypeUrl::Cluster);
        let endpoints: BTreeSet<Arc<str>> = clusters.iter().map(|name| format!("e{name}").into()).collect();
        self.want(TypeUrl::Endpoint, endpoints);
        let routes = self.of(TypeUrl::Listener).map(|listener| listener.version.clone()).collect();
        self.want(TypeUrl::Route, routes);
    }

    fn want(&mut self, type_url: TypeUrl, names: BTreeSet<Arc<str>>) {
        let held = self.held.entry(type_url).or_default();
        held.retain(|name, _| names.contains(name));
        let marker = self.subscribed(type_url);
        self.client.subscribe(type_url, names.difference(&marker).cloned().collect::<Vec<_>>());
        self.client.unsubscribe(type_url, marker.difference(&names).cloned().collect::<Vec<_>>());
    }

    fn subscribed(&self, type_url: TypeUrl) -> BTreeSet<Arc<str>> {
        self.client.names(type_url).cloned().unwrap_or_default()
    }

    fn of(&self, type_url: TypeUrl) -> impl Iterator<Item = &Resource> {
        self.held.get(&type_url).into_iter().flat_map(|held| held.values())
    }

    fn names(&self, type_url: TypeUrl) -> BTreeSet<Arc<str>> {
        self.of(type_url).map(|resource| resource.name.clone()).collect()
    }

    fn settle(&mut self) {
        for _ in 0..1000 {
            self.serve();
            self.consume();
        }
        if !self.session.is_settled() {
            // Refused clusters leave listeners waiting for endpoints that will never be asked for.
            self.session.on_stall();
            self.poll();
            for _ in 0..1000 {
                self.serve();
                self.consume();
            }
        }
        assert!(self.up.is_empty() && self.down.is_empty());
    }

    fn check(&self, when: &str) {
        let clusters = self.names(TypeUrl::Cluster);
        let endpoints = self.names(TypeUrl::Endpoint);
        for listener in self.of(TypeUrl::Listener) {
            // Without its route the listener is still warming and serves nothing.
            let Some(route) = self.of(TypeUrl::Route).find(|route| route.name == listener.version) else { continue };
            for cluster in &self.refers[&route.version] {
                assert!(clusters.contains(cluster), "{when}: {route:?} refers to {cluster}, which is not there");
                let wanted = format!("e{cluster}");
                assert!(endpoints.contains(&*wanted), "{when}: {route:?} refers to {cluster}, which has no endpoints");
            }
        }
    }

    fn check_complete(&self, when: &str) {
        assert!(self.session.is_settled(), "{when}");
        for type_url in [TypeUrl::Cluster, TypeUrl::Endpoint, TypeUrl::Listener] {
            let held: Vec<&Resource> = self.of(type_url).collect();
            let expected: Vec<&Resource> = self.world.of(type_url).values().collect();
            assert_eq!(held, expected, "{when}");
        }
        for route in self.of(TypeUrl::Route) {
            assert_eq!(Some(route), self.world.get(TypeUrl::Route, &route.name), "{when}");
        }
        for status in self.session.status() {
            assert_eq!(status.sync, crate::server::Sync::Synced, "{when}");
            assert_eq!(status.refused, [], "{when}");
        }
    }
}
