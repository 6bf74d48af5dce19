//! How much of the traffic each priority takes, by how many of its hosts can: Envoy's arithmetic, down to the rounding.

use super::{Able, PriorityHosts};
use crate::config::{Cluster, Endpoints};

const OVERPROVISIONING: u32 = 140;

/// The share of requests that goes to each priority, in percent; together 100.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Loads {
    /// To healthy hosts.
    pub(crate) healthy: Vec<u32>,
    /// To degraded ones.
    pub(crate) degraded: Vec<u32>,
    /// What each could take, before it is known what the others can: for retries that avoid priorities.
    able: Vec<(u32, u32)>,
    /// By how much hosts may be over-used before others take over, in percent.
    factor: u32,
}

impl Loads {
    /// Also says which priorities are in panic.
    pub(super) fn new(config: &Cluster, endpoints: &Endpoints, priorities: &mut [PriorityHosts]) -> Loads {
        let factor = match endpoints.overprovisioning_factor {
            0 => OVERPROVISIONING,
            factor => factor,
        };
        let able: Vec<_> =
            priorities.iter().map(|hosts| ability(hosts, factor, endpoints.weighted_priority_health)).collect();
        let total = total(&able);
        let mut loads = match total {
            0 => Loads { healthy: vec![0; able.len()], degraded: vec![0; able.len()], able, factor },
            _ => Loads::spread(able, factor),
        };
        let threshold = config.panic_threshold.clamp(0.0, 100.0).round();
        if threshold == 0.0 && total == 0 {
            // Nobody gets anything; it has to be somebody's all the same.
            if let Some(first) = loads.healthy.first_mut() {
                *first = 100;
            }
            return loads;
        }
        for hosts in priorities.iter_mut() {
            hosts.panic = total < 100 && in_panic(&hosts.able, counted(hosts).count(), threshold);
        }
        if priorities.iter().all(|hosts| hosts.panic) {
            loads.by_size(priorities);
        }
        loads
    }

    /// By how much hosts may be over-used, in percent.
    pub(crate) fn factor(&self) -> u32 {
        self.factor
    }

    /// The priority that a number stands for, and whether its degraded hosts are meant.
    pub(crate) fn choose(&self, number: u64) -> (usize, bool) {
        let point = (number % 100 + 1) as u32;
        let mut sum = 0;
        let mut reaches = |load: &u32| {
            sum += load;
            point <= sum
        };
        match self.healthy.iter().position(&mut reaches) {
            Some(priority) => (priority, false),
            None => self.degraded.iter().position(reaches).map_or((0, false), |priority| (priority, true)),
        }
    }

    /// The loads without these priorities; `None` when the others cannot take anything.
    pub(crate) fn without(&self, excluded: &[bool]) -> Option<Loads> {
        let is_excluded = |priority: usize| excluded.get(priority).copied().unwrap_or(false);
        let able: Vec<_> =
            self.able.iter().enumerate().map(|(i, able)| if is_excluded(i) { (0, 0) } else { *able }).collect();
        (total(&able) > 0).then(|| Loads::spread(able, self.factor))
    }

    /// Fills the priorities in turn, healthy hosts before degraded ones, each by what it can take.
    fn spread(able: Vec<(u32, u32)>, factor: u32) -> Loads {
        let total = total(&able);
        let mut left = 100;
        let mut fill = |ability: u32| {
            let load = (ability * 100).checked_div(total).unwrap_or(0).min(left);
            left -= load;
            load
        };
        let mut healthy: Vec<u32> = able.iter().map(|(healthy, _)| fill(*healthy)).collect();
        let mut degraded: Vec<u32> = able.iter().map(|(_, degraded)| fill(*degraded)).collect();
        // What is left was lost to rounding.
        if let Some(first) = able.iter().position(|(healthy, _)| *healthy > 0) {
            healthy[first] += left;
        } else if let Some(first) = able.iter().position(|(_, degraded)| *degraded > 0) {
            degraded[first] += left;
        }
        Loads { healthy, degraded, able, factor }
    }

    /// When every priority is in panic, each gets what its number of hosts deserves.
    fn by_size(&mut self, priorities: &[PriorityHosts]) {
        let total: usize = priorities.iter().map(|hosts| hosts.all.len()).sum();
        let mut left = 100;
        for (load, hosts) in self.healthy.iter_mut().zip(priorities) {
            *load = (100 * hosts.all.len()).checked_div(total).unwrap_or(0) as u32;
            left -= *load;
        }
        self.degraded.fill(0);
        let first = priorities.iter().position(|hosts| !hosts.all.is_empty()).unwrap_or(0);
        if let Some(load) = self.healthy.get_mut(first) {
            *load += left;
        }
    }
}

/// Hosts that are leaving neither count as able nor as lost.
fn counted(hosts: &PriorityHosts) -> impl Iterator<Item = &super::Host> {
    hosts.all.iter().map(|host| &**host).filter(|host| !host.is_leaving())
}

/// How much healthy and degraded hosts could take, in percent.
fn ability(hosts: &PriorityHosts, factor: u32, by_weight: bool) -> (u32, u32) {
    let worth = |host: &super::Host| if by_weight { u64::from(host.weight) } else { 1 };
    let of = |places: &[u32]| places.iter().map(|at| worth(&hosts.all[*at as usize])).sum::<u64>();
    let total: u64 = counted(hosts).map(worth).sum();
    let share = |worth: u64| (u64::from(factor) * worth).checked_div(total).unwrap_or(0).min(100) as u32;
    (share(of(&hosts.able.healthy)), share(of(&hosts.able.degraded)))
}

fn total(able: &[(u32, u32)]) -> u32 {
    able.iter().map(|(healthy, degraded)| healthy + degraded).sum::<u32>().min(100)
}

pub(super) fn in_panic(able: &Able, of: usize, threshold: f64) -> bool {
    let percent = |n: usize| if of == 0 { 0.0 } else { 100.0 * n as f64 / of as f64 };
    percent(able.healthy.len()) + percent(able.degraded.len()) < threshold
}

#[cfg(test)]
mod tests;
