//! The hosts of a cluster, as the main thread hands them to the workers: immutable but for their load.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::Notify;

use super::outlier::{Monitor, Outcome};
use super::{Breakers, Load};
use crate::balance::Table;
use crate::config::{Cluster, Endpoint, EndpointAddress, Endpoints, Health, LocalityLb, Metadata, Priority};

/// A cluster and its hosts at one moment.
#[derive(Debug)]
pub struct ClusterEntry {
    /// The configuration.
    pub config: Arc<Cluster>,
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
    /// Its own name; may be empty.
    pub hostname: Arc<str>,
    /// Its share of the traffic.
    pub weight: u32,
    /// What discovery says.
    pub health: Health,
    /// For logs and transport choice.
    pub metadata: Option<Arc<Metadata>>,
    /// What is going on there.
    pub load: Arc<Load>,
    /// Its record, where hosts are ejected for it.
    pub(crate) monitor: Option<Arc<Monitor>>,
}

impl Host {
    /// Its health, with what we have seen ourselves.
    pub fn condition(&self) -> Health {
        match &self.monitor {
            Some(monitor) if monitor.is_ejected() => Health::Unhealthy,
            _ => self.health,
        }
    }
}

/// What hosts with the same address share.
#[derive(Clone, Default)]
struct Shared {
    load: Arc<Load>,
    monitor: Option<Arc<Monitor>>,
}

/// All hosts of a cluster, by priority.
#[derive(Debug, Default)]
pub struct HostSet {
    /// Hosts by priority; some may be empty.
    pub priorities: Vec<PriorityHosts>,
}

/// The hosts of one priority.
#[derive(Debug, Default)]
pub struct PriorityHosts {
    /// Every host.
    pub all: Vec<Arc<Host>>,
    /// Those that take requests.
    pub usable: Vec<Arc<Host>>,
    /// The share of requests that goes here, in percent.
    pub percent: u32,
    /// Tables of consistent-hash policies.
    pub(crate) table: Option<Table>,
}

impl HostSet {
    /// From discovered endpoints; addresses that still are names are passed over. `old` gives its counts to hosts that stay.
    pub fn new(config: &Cluster, endpoints: &Endpoints, old: Option<&HostSet>) -> HostSet {
        let of = |host: &Arc<Host>| Shared { load: host.load.clone(), monitor: host.monitor.clone() };
        let mut shared: HashMap<SocketAddr, Shared> =
            old.iter().flat_map(|set| set.hosts()).map(|host| (host.address, of(host))).collect();
        let weighted = config.locality_lb == LocalityLb::Weighted;
        let mut priorities: Vec<PriorityHosts> = Vec::new();
        for locality in &endpoints.localities {
            // Istio's locality weights are shares: a locality that is given none gets none.
            if weighted && locality.weight.unwrap_or(0) == 0 {
                continue;
            }
            let at = locality.priority as usize;
            // Priorities have no gaps; a server that leaves some would otherwise make us allocate without bound.
            if at > 128 {
                continue;
            }
            priorities.resize_with(priorities.len().max(at + 1), PriorityHosts::default);
            let sum: u64 = locality.endpoints.iter().map(|e| u64::from(e.weight)).sum();
            for endpoint in &locality.endpoints {
                let EndpointAddress::Socket(address) = endpoint.address else { continue };
                let weight = match locality.weight {
                    Some(share) if weighted => share_of(share, endpoint.weight, sum),
                    _ => endpoint.weight.max(1),
                };
                let shared = shared.entry(address).or_default();
                match config.outlier {
                    Some(_) => drop(shared.monitor.get_or_insert_default()),
                    None => shared.monitor = None,
                }
                priorities[at].all.push(Arc::new(host(endpoint, address, weight, shared.clone())));
            }
        }
        for hosts in &mut priorities {
            hosts.usable = usable(&hosts.all, config.panic_threshold);
            hosts.table = Table::new(&config.lb, &hosts.usable);
        }
        spread(&mut priorities, endpoints.overprovisioning_factor);
        HostSet { priorities }
    }

    /// Every host, best priority first.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<Host>> {
        self.priorities.iter().flat_map(|hosts| &hosts.all)
    }
}

fn host(endpoint: &Endpoint, address: SocketAddr, weight: u32, shared: Shared) -> Host {
    Host {
        address,
        hostname: endpoint.hostname.clone(),
        weight,
        health: endpoint.health,
        metadata: endpoint.metadata.clone(),
        load: shared.load,
        monitor: shared.monitor,
    }
}

/// A host's part of its locality's share, fine enough that small weights do not vanish.
fn share_of(share: u32, weight: u32, sum: u64) -> u32 {
    let part = u128::from(share) * 10_000 * u128::from(weight) / u128::from(sum.max(1));
    u32::try_from(part).unwrap_or(u32::MAX).max(1)
}

/// The healthy hosts, or the degraded ones when there are none; all of them in a panic.
fn usable(all: &[Arc<Host>], panic_threshold: f64) -> Vec<Arc<Host>> {
    let with = |health: Health| all.iter().filter(|h| h.condition() == health).cloned().collect::<Vec<_>>();
    let healthy = with(Health::Healthy);
    let degraded = with(Health::Degraded);
    let able = healthy.len() + degraded.len();
    if !all.is_empty() && (able as f64) * 100.0 < panic_threshold * all.len() as f64 {
        return all.to_vec();
    }
    if healthy.is_empty() { degraded } else { healthy }
}

/// How much of the traffic each priority takes: the first as much as its health allows, then the next.
fn spread(priorities: &mut [PriorityHosts], overprovisioning: u32) {
    let factor = if overprovisioning == 0 { 140 } else { overprovisioning };
    let ability: Vec<u32> = priorities
        .iter()
        .map(|p| match p.all.len() {
            0 => 0,
            n => {
                let able = p.all.iter().filter(|h| matches!(h.condition(), Health::Healthy | Health::Degraded)).count();
                (u64::from(factor) * able as u64 / n as u64).min(100) as u32
            }
        })
        .collect();
    let total = ability.iter().sum::<u32>().min(100);
    let mut left = 100;
    for (hosts, ability) in priorities.iter_mut().zip(&ability) {
        // When all together cannot take everything, each takes more than it should rather than requests failing.
        let share = (ability * 100).checked_div(total).unwrap_or(0).min(left);
        hosts.percent = share;
        left -= share;
    }
    if left > 0
        && let Some(hosts) = priorities.iter_mut().find(|p| p.percent > 0)
    {
        hosts.percent += left;
        left = 0;
    }
    if left > 0
        && let Some(hosts) = priorities.iter_mut().find(|p| !p.usable.is_empty())
    {
        hosts.percent = left;
    }
}

#[cfg(test)]
pub(crate) mod tests;
