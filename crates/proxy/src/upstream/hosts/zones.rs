//! Balancing by zones: what of the traffic stays in our own, such that no zone's hosts get more than the others'.

use std::collections::BTreeMap;

use super::health::in_panic;
use super::{Able, Local, PriorityHosts};
use crate::config::{Cluster, Endpoint, Endpoints, Health, Locality, LocalityLb};

/// How the zones of the first priority are used.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Zones {
    /// Our own zone takes everything.
    Own,
    /// Our own takes a part, the others the rest.
    Shared {
        /// How much of the traffic stays, in hundredths of a percent.
        own: u64,
        /// How much more each zone can take than its own clients need, summed up from the first.
        residual: Vec<u64>,
    },
    /// So few of those like us are healthy that nobody can say; requests fail rather than go anywhere.
    Nowhere,
}

impl Zones {
    /// `None` when zones make no difference.
    pub(super) fn new(config: &Cluster, first: &PriorityHosts, local: Local<'_>) -> Option<Zones> {
        let LocalityLb::ZoneAware { min_cluster_size, fail_on_panic, force_local_zone, by_weight, .. } =
            config.locality_lb
        else {
            return None;
        };
        let peers = Shares::of_peers(local.peers?, by_weight);
        let has_own = first.localities.len() > 1 && first.locality_is(local.locality);
        let enough_zones = force_local_zone.is_some() || peers.zones.len() > 1;
        let knows_us = peers.hosts.get(local.locality).is_some_and(|hosts| *hosts > 0);
        if first.localities.len() < 2 || !enough_zones || !knows_us {
            return None;
        }
        if (first.able.healthy.len() as u64) < min_cluster_size {
            return None;
        }
        if peers.in_panic(config.panic_threshold) {
            return fail_on_panic.then_some(Zones::Nowhere);
        }
        let upstream: Vec<u64> = first
            .localities
            .iter()
            .map(|zone| {
                let worth = |at: &u32| if by_weight { u64::from(first.all[*at as usize].weight) } else { 1 };
                zone.able.healthy.iter().map(worth).sum()
            })
            .collect();
        let total: u64 = upstream.iter().sum();
        let share = |part: u64, of: u64| (10_000 * part).checked_div(of).unwrap_or(0);
        let percentages: Vec<(u64, u64)> = first
            .localities
            .iter()
            .zip(&upstream)
            .map(|(zone, worth)| match first.locality_of(zone) {
                Some(locality) if *worth > 0 => {
                    let here = peers.zones.get(locality).copied().unwrap_or(0);
                    (share(here, peers.total()), share(*worth, total))
                }
                _ => (0, 0),
            })
            .collect();
        let (here, there) = percentages.first().copied().unwrap_or_default();
        let own_healthy = first.localities.first().map_or(0, |zone| zone.able.healthy.len());
        if has_own
            && ((there > 0 && there >= here) || force_local_zone.is_some_and(|least| own_healthy >= least as usize))
        {
            return Some(Zones::Own);
        }
        let own = if has_own { (there * 10_000).checked_div(here).unwrap_or(0) } else { 0 };
        let mut sum = 0;
        let residual = percentages.iter().enumerate().map(|(i, (here, there))| {
            // Our own zone has what it can take already.
            if !(has_own && i == 0) {
                sum += there.saturating_sub(*here);
            }
            sum
        });
        Some(Zones::Shared { own, residual: residual.collect() })
    }

    /// The zone for a request, by the numbers drawn for it. `None` when it is to fail.
    pub(crate) fn choose(&self, mut random: impl FnMut() -> u64) -> Option<usize> {
        match self {
            Zones::Own => Some(0),
            Zones::Nowhere => None,
            Zones::Shared { own, residual } => {
                if random() % 10_000 < *own {
                    return Some(0);
                }
                Some(match residual.last() {
                    // Lost to rounding: any.
                    None | Some(0) => (random() % residual.len().max(1) as u64) as usize,
                    Some(most) => {
                        let point = random() % most;
                        residual.partition_point(|end| *end <= point)
                    }
                })
            }
        }
    }
}

impl PriorityHosts {
    fn locality_of(&self, zone: &super::LocalityHosts) -> Option<&Locality> {
        zone.all.first().and_then(|at| self.all.get(*at as usize)).map(|host| &host.locality)
    }

    fn locality_is(&self, own: &Locality) -> bool {
        self.localities.first().and_then(|zone| self.locality_of(zone)) == Some(own)
    }
}

/// What each zone has of the hosts that are like us.
#[derive(Default)]
struct Shares<'a> {
    /// The worth of the healthy ones, by zone.
    zones: BTreeMap<&'a Locality, u64>,
    /// How many there are at all, by zone.
    hosts: BTreeMap<&'a Locality, u64>,
    able: Able,
    counted: usize,
}

impl<'a> Shares<'a> {
    fn of_peers(peers: &'a Endpoints, by_weight: bool) -> Shares<'a> {
        let mut out = Shares::default();
        let first = peers.localities.iter().filter(|zone| zone.priority == 0 && !zone.endpoints.is_empty());
        for zone in first {
            let worth = |host: &Endpoint| match host.health {
                Health::Healthy if by_weight => u64::from(host.weight),
                Health::Healthy => 1,
                _ => 0,
            };
            *out.zones.entry(&zone.locality).or_default() += zone.endpoints.iter().map(worth).sum::<u64>();
            *out.hosts.entry(&zone.locality).or_default() += zone.endpoints.len() as u64;
            for host in &zone.endpoints {
                match host.health {
                    Health::Healthy => out.able.healthy.push(0),
                    Health::Degraded => out.able.degraded.push(0),
                    Health::Draining | Health::Unhealthy => {}
                }
                out.counted += usize::from(host.health != Health::Draining);
            }
        }
        out
    }

    fn total(&self) -> u64 {
        self.zones.values().sum()
    }

    fn in_panic(&self, threshold: f64) -> bool {
        in_panic(&self.able, self.counted, threshold)
    }
}

#[cfg(test)]
mod tests;
