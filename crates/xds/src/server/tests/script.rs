//! The interpreter of the scripts.
//!
//! A line is `what the client says => what is sent`. Worlds are lists of `type:name:version>needs`, with `c`, `e`, `l`
//! and `r` for the types and version 1 where none is given. Responses read `type +added -removed`, refusals
//! `! type name version reason`, other outcomes `? word`.

use std::collections::HashMap;

use crate::server::{DeltaSession, Received, Refusal, SotwSession};
use crate::types::{Status, any, cluster, discovery, endpoint, hcm, listener, route};
use crate::{Resource, TypeUrl, World};

pub(super) fn delta(script: &str) {
    run(script, Delta { session: DeltaSession::new(7, "test"), nonces: HashMap::new() });
}

pub(super) fn sotw(script: &str) {
    run(script, Sotw { session: SotwSession::new(7, "test"), nonces: HashMap::new() });
}

trait Peer {
    fn world(&mut self, world: World);
    fn stall(&mut self);
    fn settled(&self) -> bool;
    fn refused(&self) -> Vec<Refusal>;
    /// `nonce`: none for a subscription, the last one for an answer, something else for a stale one.
    fn request(&mut self, type_url: &str, words: &[&str], nonce: Nonce, error: Option<String>) -> Received;
    fn poll(&mut self) -> Vec<String>;
}

#[derive(PartialEq)]
enum Nonce {
    None,
    Last,
    Stale,
}

fn run(script: &str, mut peer: impl Peer) {
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (said, expected) = line.split_once("=>").unwrap_or_else(|| panic!("no => in {line:?}"));
        let words: Vec<&str> = said.split_whitespace().collect();
        let mut outcome = Vec::new();
        let type_url = || {
            TypeUrl::ALL.into_iter().find(|known| known.short() == words[1]).map_or(words[1], |known| known.as_str())
        };
        match words[0] {
            "world" => peer.world(world(&words[1..])),
            "stall" => peer.stall(),
            "settled" => outcome.push(if peer.settled() { "yes" } else { "no" }.to_string()),
            "refused" => outcome.extend(peer.refused().iter().map(show_refusal)),
            "ask" => outcome.extend(show_received(peer.request(type_url(), &words[2..], Nonce::None, None))),
            "ack" => outcome.extend(show_received(peer.request(type_url(), &words[2..], Nonce::Last, None))),
            "stale" => outcome.extend(show_received(peer.request(type_url(), &words[2..], Nonce::Stale, None))),
            "nack" => {
                let colon = words.iter().position(|word| *word == ":");
                let (names, reason) = colon.map_or((&words[..0], &words[2..]), |at| (&words[2..at], &words[at + 1..]));
                let received = peer.request(type_url(), names, Nonce::Last, Some(reason.join(" ")));
                outcome.extend(show_received(received));
            }
            other => panic!("unknown command {other:?}"),
        }
        outcome.extend(peer.poll());
        assert_eq!(outcome.join(" | "), expected.trim(), "\nafter: {line}\nin:{script}");
    }
}

fn show_received(received: Received) -> Vec<String> {
    match received {
        Received::Subscription(_) | Received::Ack(_) => vec![],
        Received::Nack(_, refusals) => refusals.iter().map(show_refusal).collect(),
        Received::Stale(_) => vec!["? stale".into()],
        Received::UnknownType(_) => vec!["? unknown".into()],
    }
}

fn show_refusal(refusal: &Refusal) -> String {
    let name = refusal.name.as_deref().unwrap_or("-");
    format!("! {} {name} {} {}", refusal.type_url.short(), refusal.version, refusal.reason)
}

fn show<'a>(
    type_url: &str,
    added: impl Iterator<Item = &'a String>,
    removed: impl Iterator<Item = &'a String>,
) -> String {
    let mut parts = vec![TypeUrl::parse(type_url).unwrap().short().to_string()];
    parts.extend(added.map(|name| format!("+{name}")));
    parts.extend(removed.map(|name| format!("-{name}")));
    parts.join(" ")
}

pub(super) fn world(words: &[&str]) -> World {
    let mut world = World::new();
    for word in words {
        let (what, needs) = word.split_once('>').map_or((*word, None), |(what, needs)| (what, Some(needs)));
        let mut parts = what.split(':');
        let (kind, name) = (parts.next().unwrap(), parts.next().unwrap());
        let (type_url, mut resource) = resource(kind, name, needs);
        resource.version = parts.next().unwrap_or("1").into();
        world.insert(type_url, resource);
    }
    world
}

fn resource(kind: &str, name: &str, needs: Option<&str>) -> (TypeUrl, Resource) {
    match kind {
        "c" => {
            use cluster::cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig};
            let message = cluster::Cluster {
                name: name.into(),
                cluster_discovery_type: needs.map(|_| ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
                eds_cluster_config: needs
                    .map(|service| EdsClusterConfig { service_name: service.into(), ..Default::default() }),
                ..Default::default()
            };
            (TypeUrl::Cluster, Resource::encode(name, &message))
        }
        "e" => {
            let message = endpoint::ClusterLoadAssignment { cluster_name: name.into(), ..Default::default() };
            (TypeUrl::Endpoint, Resource::encode(name, &message))
        }
        "l" => {
            let manager = |route: &str| hcm::HttpConnectionManager {
                route_specifier: Some(hcm::http_connection_manager::RouteSpecifier::Rds(hcm::Rds {
                    route_config_name: route.into(),
                    ..Default::default()
                })),
                ..Default::default()
            };
            let filter = |route: &str| listener::Filter {
                name: "http".into(),
                config_type: Some(listener::filter::ConfigType::TypedConfig(any(&manager(route)))),
            };
            let chain = |route: &str| listener::FilterChain { filters: vec![filter(route)], ..Default::default() };
            let message = listener::Listener {
                name: name.into(),
                filter_chains: needs.map(chain).into_iter().collect(),
                ..Default::default()
            };
            (TypeUrl::Listener, Resource::encode(name, &message))
        }
        "r" => {
            let message = route::RouteConfiguration { name: name.into(), ..Default::default() };
            (TypeUrl::Route, Resource::encode(name, &message))
        }
        other => panic!("no resources of kind {other:?}"),
    }
}

struct Delta {
    session: DeltaSession,
    nonces: HashMap<String, String>,
}

impl Peer for Delta {
    fn world(&mut self, world: World) {
        self.session.on_world(world);
    }

    fn stall(&mut self) {
        self.session.on_stall();
    }

    fn settled(&self) -> bool {
        self.session.is_settled()
    }

    fn refused(&self) -> Vec<Refusal> {
        self.session.status().into_iter().flat_map(|status| status.refused).collect()
    }

    fn request(&mut self, type_url: &str, words: &[&str], nonce: Nonce, error: Option<String>) -> Received {
        let names = |sign: char| words.iter().filter_map(move |word| word.strip_prefix(sign)).map(str::to_string);
        let request = discovery::DeltaDiscoveryRequest {
            type_url: type_url.into(),
            resource_names_subscribe: names('+').collect(),
            resource_names_unsubscribe: names('-').collect(),
            initial_resource_versions: names('@')
                .map(|held| held.split_once('=').map(|(name, version)| (name.into(), version.into())).unwrap())
                .collect(),
            response_nonce: match nonce {
                Nonce::None => String::new(),
                Nonce::Last => self.nonces[type_url].clone(),
                Nonce::Stale => "6-1".into(),
            },
            error_detail: error.map(|message| Status { message, ..Default::default() }),
            ..Default::default()
        };
        self.session.on_request(request).unwrap()
    }

    fn poll(&mut self) -> Vec<String> {
        let responses = self.session.poll();
        for response in &responses {
            self.nonces.insert(response.type_url.clone(), response.nonce.clone());
        }
        responses
            .iter()
            .map(|response| {
                show(
                    &response.type_url,
                    response.resources.iter().map(|resource| &resource.name),
                    response.removed_resources.iter(),
                )
            })
            .collect()
    }
}

struct Sotw {
    session: SotwSession,
    nonces: HashMap<String, String>,
}

impl Peer for Sotw {
    fn world(&mut self, world: World) {
        self.session.on_world(world);
    }

    fn stall(&mut self) {
        self.session.on_stall();
    }

    fn settled(&self) -> bool {
        self.session.is_settled()
    }

    fn refused(&self) -> Vec<Refusal> {
        self.session.status().into_iter().flat_map(|status| status.refused).collect()
    }

    fn request(&mut self, type_url: &str, words: &[&str], nonce: Nonce, error: Option<String>) -> Received {
        // Every request after the first names the last response, whether it answers it or changes the subscription.
        let last = self.nonces.get(type_url).cloned().unwrap_or_default();
        let request = discovery::DiscoveryRequest {
            type_url: type_url.into(),
            resource_names: words.iter().map(|word| word.to_string()).collect(),
            response_nonce: if nonce == Nonce::Stale { "7-0".into() } else { last },
            error_detail: error.map(|message| Status { message, ..Default::default() }),
            ..Default::default()
        };
        self.session.on_request(request).unwrap()
    }

    fn poll(&mut self) -> Vec<String> {
        let responses = self.session.poll();
        for response in &responses {
            self.nonces.insert(response.type_url.clone(), response.nonce.clone());
        }
        let name = |any: &crate::types::Any| {
            use prost::Message;
            let name = |type_url: TypeUrl| match type_url {
                TypeUrl::Cluster => cluster::Cluster::decode(any.value.as_slice()).unwrap().name,
                TypeUrl::Endpoint => {
                    endpoint::ClusterLoadAssignment::decode(any.value.as_slice()).unwrap().cluster_name
                }
                TypeUrl::Listener => listener::Listener::decode(any.value.as_slice()).unwrap().name,
                _ => route::RouteConfiguration::decode(any.value.as_slice()).unwrap().name,
            };
            name(TypeUrl::parse(&any.type_url).unwrap())
        };
        responses
            .iter()
            .map(|response| {
                let names: Vec<String> = response.resources.iter().map(name).collect();
                show(&response.type_url, names.iter(), [].iter())
            })
            .collect()
    }
}
