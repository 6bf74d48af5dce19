//! The hosts of a cluster, as the main thread hands them to the workers: immutable but for their load.

mod health;
mod zones;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;

use super::outlier::{Monitor, Outcome};
use super::{Breakers, Load};
use crate::balance::{Member, Table};
use crate::config::{
    Cluster, Discovery, Endpoint, EndpointAddress, Endpoints, Health, LbPolicy, Locality, LocalityEndpoints,
    LocalityLb, Metadata, Priority,
};
use crate::tls::Transports;

pub(crate) use health::Loads;
pub(crate) use zones::Zones;

/// A cluster and its hosts at one moment.
#[derive(Debug)]
pub struct ClusterEntry {
    /// The configuration.
    pub config: Arc<Cluster>,
    /// How connections to them are made.
    pub(crate) transports: Arc<Transports>,
    /// The hosts.
    pub hosts: Arc<HostSet>,
    /// What counts against its limits, by priority; survives updates.
    pub(crate) loads: [Arc<Load>; 2],
    /// Calls the main thread when a host ought to be looked at.
    pub(crate) alarm: Arc<Notify>,
}

impl ClusterEntry {
    /// The limits that hold for a priority.
    #[inline]
    pub(crate) fn breakers(&self, priority: Priority) -> Breakers<'_> {
        match priority {
            Priority::Default => Breakers { limits: &self.config.limits, load: &self.loads[0] },
            Priority::High => Breakers { limits: &self.config.high_priority_limits, load: &self.loads[1] },
        }
    }

    /// Puts on record what came of an attempt at a host.
    #[inline]
    pub(crate) fn report(&self, host: &Host, outcome: Outcome) {
        if let (Some(monitor), Some(config)) = (&host.monitor, &self.config.outlier)
            && monitor.record(config, outcome)
        {
            self.alarm.notify_one();
        }
    }
}

/// One host. Updates make new ones that share what those with the same address have counted.
#[derive(Debug)]
pub struct Host {
    /// Where it is.
    pub address: SocketAddr,
    /// Where it is too.
    pub others: Arc<[SocketAddr]>,
    /// Its own name; may be empty.
    pub hostname: Arc<str>,
    /// Its share of the traffic.
    pub weight: u32,
    /// 0 is used first.
    pub priority: u32,
    /// Where it is in the world.
    pub locality: Locality,
    /// What discovery says.
    pub health: Health,
    /// For logs and transport choice.
    pub metadata: Option<Arc<Metadata>>,
    /// What is going on there.
    pub load: Arc<Load>,
    /// Since when it is one of the cluster's healthy hosts, where new hosts are used gradually.
    pub(crate) since: Option<Instant>,
    /// Its record, where hosts are ejected for it.
    pub(crate) monitor: Option<Arc<Monitor>>,
}

impl Host {
    /// Its health, with what we have seen ourselves.
    pub fn condition(&self) -> Health {
        if self.is_ejected() { Health::Unhealthy } else { self.health }
    }

    /// Whether we have seen it fail.
    pub(crate) fn is_ejected(&self) -> bool {
        self.monitor.as_ref().is_some_and(|monitor| monitor.is_ejected())
    }

    /// Whether it is on its way out: then it counts neither as able nor as lost.
    fn is_leaving(&self) -> bool {
        self.health == Health::Draining
    }

    /// What consistent hashing knows it by.
    fn hash_key(&self, by_hostname: bool) -> String {
        let own = self.metadata.as_ref().and_then(|metadata| metadata.get("envoy.lb", &["hash_key"]));
        match own.and_then(|key| key.as_str()) {
            Some(key) if !key.is_empty() => key.to_owned(),
            _ if by_hostname && !self.hostname.is_empty() => self.hostname.to_string(),
            _ => self.address.to_string(),
        }
    }
}

/// What hosts with the same address share.
#[derive(Clone, Default)]
struct Shared {
    load: Arc<Load>,
    monitor: Option<Arc<Monitor>>,
    since: Option<Instant>,
}

/// Where this proxy is, and the hosts of the cluster that it is one of: what balancing by zones compares with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local<'a> {
    /// Where we are.
    pub locality: &'a Locality,
    /// Those like us, if they are known.
    pub peers: Option<&'a Endpoints>,
}

/// All hosts of a cluster, by priority.
#[derive(Debug, Default)]
pub struct HostSet {
    /// Hosts by priority; some may be empty.
    pub priorities: Vec<PriorityHosts>,
    /// How much of the traffic goes where.
    pub(crate) loads: Loads,
    /// How the first priority's zones are used, when they are.
    pub(crate) zones: Option<Zones>,
    /// When the newest host came, where new hosts are used gradually.
    pub(crate) newest: Option<Instant>,
}

/// The hosts of one priority.
#[derive(Debug, Default)]
pub struct PriorityHosts {
    /// Every host.
    pub all: Vec<Arc<Host>>,
    /// Which of them are healthy, and which only half so.
    pub(crate) able: Able,
    /// Whether so few are that it is disregarded.
    pub panic: bool,
    /// The same hosts by locality, where that matters.
    pub(crate) localities: Vec<LocalityHosts>,
    /// Tables of consistent-hash policies.
    pub(crate) table: Option<Table>,
}

/// The hosts of one locality in a priority, as places in [`PriorityHosts::all`].
#[derive(Debug)]
pub(crate) struct LocalityHosts {
    pub(crate) weight: u32,
    pub(crate) all: Vec<u32>,
    pub(crate) able: Able,
    /// How many hosts there are without those that are leaving.
    pub(crate) counted: u32,
}

/// Hosts that take requests, as places in [`PriorityHosts::all`].
#[derive(Debug, Default)]
pub(crate) struct Able {
    pub(crate) healthy: Vec<u32>,
    pub(crate) degraded: Vec<u32>,
}

impl HostSet {
    /// From discovered endpoints; addresses that still are names are passed over. `old` gives its counts to hosts that stay.
    pub(crate) fn new(
        config: &Cluster,
        endpoints: &Endpoints,
        old: Option<&HostSet>,
        local: Option<Local<'_>>,
    ) -> HostSet {
        let of =
            |host: &Arc<Host>| Shared { load: host.load.clone(), monitor: host.monitor.clone(), since: host.since };
        let mut shared: HashMap<SocketAddr, Shared> =
            old.iter().flat_map(|set| set.hosts()).map(|host| (host.address, of(host))).collect();
        // One host, wherever it is right now.
        let logical = matches!(config.discovery, Discovery::LogicalDns(..));
        let only = old.and_then(|set| set.hosts().next()).filter(|_| logical).map(of);
        let now = gradual(&config.lb).then(Instant::now);
        let by_locality = config.locality_lb != LocalityLb::None;
        let mut priorities: Vec<PriorityHosts> = Vec::new();
        let mut places: Vec<BTreeMap<&Locality, (u32, Vec<u32>)>> = Vec::new();
        for locality in &endpoints.localities {
            let at = locality.priority as usize;
            // Priorities have no gaps; a server that leaves some would otherwise make us allocate without bound.
            if at > 128 {
                continue;
            }
            let count = priorities.len().max(at + 1);
            priorities.resize_with(count, PriorityHosts::default);
            places.resize_with(count, BTreeMap::new);
            let place = places[at].entry(&locality.locality).or_default();
            place.0 = locality.weight.unwrap_or(place.0);
            for endpoint in &locality.endpoints {
                let EndpointAddress::Socket(address) = endpoint.address else { continue };
                let shared = shared.entry(address).or_insert_with(|| only.clone().unwrap_or_default());
                match config.outlier {
                    Some(_) => drop(shared.monitor.get_or_insert_default()),
                    None => shared.monitor = None,
                }
                shared.since = match now {
                    Some(now) if endpoint.health == Health::Healthy => Some(shared.since.unwrap_or(now)),
                    Some(_) => shared.since,
                    None => None,
                };
                place.1.push(priorities[at].all.len() as u32);
                priorities[at].all.push(Arc::new(host(endpoint, address, locality, shared.clone())));
            }
        }
        for (hosts, places) in priorities.iter_mut().zip(places) {
            hosts.able = Able::of(&hosts.all, 0..hosts.all.len() as u32);
            if by_locality {
                hosts.localities = ordered(places, local.map(|local| local.locality))
                    .map(|(weight, all)| LocalityHosts {
                        weight,
                        able: Able::of(&hosts.all, all.iter().copied()),
                        counted: all.iter().filter(|at| !hosts.all[**at as usize].is_leaving()).count() as u32,
                        all,
                    })
                    .collect();
            }
        }
        let loads = Loads::new(config, endpoints, &mut priorities);
        let weighted = config.locality_lb == LocalityLb::Weighted;
        for hosts in &mut priorities {
            hosts.table = hosts.table(&config.lb, weighted);
        }
        let zones = local.zip(priorities.first()).and_then(|(local, first)| Zones::new(config, first, local));
        let newest = priorities.iter().flat_map(|hosts| &hosts.all).filter_map(|host| host.since).max();
        HostSet { priorities, loads, zones, newest }
    }

    /// Every host, best priority first.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<Host>> {
        self.priorities.iter().flat_map(|hosts| &hosts.all)
    }
}

impl PriorityHosts {
    /// The hosts that get requests as things are; degraded ones only get what the healthy ones cannot take.
    pub fn usable(&self) -> impl Iterator<Item = &Arc<Host>> {
        let able = self.able.healthy.iter().chain(&self.able.degraded);
        let all = if self.panic { self.all.as_slice() } else { &[] };
        all.iter().chain(able.filter(|_| !self.panic).filter_map(|at| self.all.get(*at as usize)))
    }

    /// The table over the hosts that hashing chooses among: it knows no degraded ones, as in Envoy.
    fn table(&self, lb: &LbPolicy, weighted: bool) -> Option<Table> {
        let hashing = match lb {
            LbPolicy::RingHash { hashing, .. } | LbPolicy::Maglev { hashing, .. } => hashing,
            _ => return None,
        };
        let mut members = Vec::new();
        let mut add = |places: &mut dyn Iterator<Item = u32>, share: f64| {
            let hosts: Vec<(u32, &Host)> = places.map(|at| (at, &*self.all[at as usize])).collect();
            let sum: f64 = hosts.iter().map(|(_, host)| f64::from(host.weight)).sum();
            members.extend(hosts.into_iter().map(|(place, host)| Member {
                place,
                key: host.hash_key(hashing.by_hostname),
                weight: f64::from(host.weight) * share / sum,
            }));
        };
        if weighted && !self.localities.is_empty() {
            let sum: f64 = self.localities.iter().map(|locality| f64::from(locality.weight)).sum();
            for locality in self.localities.iter().filter(|locality| locality.weight > 0) {
                let places = if self.panic { &locality.all } else { &locality.able.healthy };
                add(&mut places.iter().copied(), f64::from(locality.weight) / sum);
            }
        } else if self.panic {
            add(&mut (0..self.all.len() as u32), 1.0);
        } else {
            add(&mut self.able.healthy.iter().copied(), 1.0);
        }
        Table::new(lb, members)
    }
}

impl Able {
    pub(crate) fn places(&self, degraded: bool) -> &[u32] {
        if degraded { &self.degraded } else { &self.healthy }
    }

    fn of(hosts: &[Arc<Host>], places: impl Iterator<Item = u32>) -> Able {
        let mut able = Able::default();
        for place in places {
            match hosts[place as usize].condition() {
                Health::Healthy => able.healthy.push(place),
                Health::Degraded => able.degraded.push(place),
                Health::Draining | Health::Unhealthy => {}
            }
        }
        able
    }
}

/// Localities with hosts: our own first, the others by name.
fn ordered(
    mut places: BTreeMap<&Locality, (u32, Vec<u32>)>,
    own: Option<&Locality>,
) -> impl Iterator<Item = (u32, Vec<u32>)> {
    let own = own.and_then(|own| places.remove(own));
    own.into_iter().chain(places.into_values()).filter(|(_, hosts)| !hosts.is_empty())
}

fn gradual(lb: &LbPolicy) -> bool {
    match lb {
        LbPolicy::RoundRobin(slow_start) | LbPolicy::LeastRequest { slow_start, .. } => slow_start.window.is_some(),
        _ => false,
    }
}

fn host(endpoint: &Endpoint, address: SocketAddr, place: &LocalityEndpoints, shared: Shared) -> Host {
    Host {
        address,
        others: endpoint.others.clone(),
        hostname: endpoint.hostname.clone(),
        weight: endpoint.weight.max(1),
        priority: place.priority,
        locality: place.locality.clone(),
        health: endpoint.health,
        metadata: endpoint.metadata.clone(),
        load: shared.load,
        since: shared.since,
        monitor: shared.monitor,
    }
}

#[cfg(test)]
pub(crate) mod tests;
