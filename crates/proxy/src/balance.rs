//! Which host of a cluster a request goes to.

mod edf;
mod table;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering;

use crate::config::LbPolicy;
use crate::upstream::{HostSet, WorkerHost};

use edf::Edf;
pub(crate) use table::Table;

/// Chooses among the hosts of one cluster, for one worker.
pub(crate) struct Balancer {
    priorities: Vec<Picker>,
}

/// Chooses within a priority.
struct Picker {
    hosts: Vec<Rc<WorkerHost>>,
    percent: u32,
    next: Cell<usize>,
    /// For weights that differ.
    edf: Option<RefCell<Edf>>,
    least_request: Option<u32>,
    random: bool,
}

impl Balancer {
    /// For a set of hosts; `host` finds this worker's side of each.
    pub(crate) fn new(
        lb: &LbPolicy,
        set: &HostSet,
        mut host: impl FnMut(&std::sync::Arc<crate::upstream::Host>) -> Rc<WorkerHost>,
    ) -> Balancer {
        let priorities = set.priorities.iter().map(|priority| {
            let hosts: Vec<_> = priority.usable.iter().map(&mut host).collect();
            let weights_differ = hosts.windows(2).any(|pair| pair[0].host.weight != pair[1].host.weight);
            let by_weight = matches!(lb, LbPolicy::RoundRobin(_) | LbPolicy::LeastRequest { .. });
            Picker {
                percent: priority.percent,
                // Workers and proxies that start together must not all begin with the same host.
                next: Cell::new(fastrand::usize(..)),
                edf: (by_weight && weights_differ).then(|| RefCell::new(Edf::new(&hosts))),
                least_request: match lb {
                    LbPolicy::LeastRequest { choices, .. } => Some((*choices).max(2)),
                    _ => None,
                },
                random: matches!(lb, LbPolicy::Random | LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. }),
                hosts,
            }
        });
        Balancer { priorities: priorities.collect() }
    }

    /// A host for a request; `None` when there is none that takes requests. `hash` decides where the policy is to hash;
    /// hosts for which `avoid` holds are passed over a few times, then taken all the same.
    pub(crate) fn pick(
        &self,
        set: &HostSet,
        hash: Option<u64>,
        attempts: u32,
        avoid: impl Fn(&WorkerHost) -> bool,
    ) -> Option<Rc<WorkerHost>> {
        let at = self.priority(hash)?;
        let picker = &self.priorities[at];
        let mut hash = hash;
        for _ in 0..attempts {
            let host = picker.pick(set.priorities[at].table.as_ref(), hash)?;
            if !avoid(&host) {
                return Some(host);
            }
            // Another draw: a hash would only find the same host again.
            hash = None;
        }
        picker.pick(set.priorities[at].table.as_ref(), hash)
    }

    fn priority(&self, hash: Option<u64>) -> Option<usize> {
        if let [only] = self.priorities.as_slice() {
            return (!only.hosts.is_empty()).then_some(0);
        }
        let point = (hash.unwrap_or_else(|| fastrand::u64(..)) % 100) as u32;
        let mut sum = 0;
        let drawn = self.priorities.iter().position(|p| {
            sum += p.percent;
            point < sum
        });
        drawn
            .filter(|&at| !self.priorities[at].hosts.is_empty())
            .or_else(|| self.priorities.iter().position(|p| !p.hosts.is_empty()))
    }
}

impl Picker {
    fn pick(&self, table: Option<&Table>, hash: Option<u64>) -> Option<Rc<WorkerHost>> {
        let n = self.hosts.len();
        if n == 0 {
            return None;
        }
        let at = match (table, hash) {
            _ if n == 1 => 0,
            (Some(table), Some(hash)) => table.find(hash),
            _ if self.random => fastrand::usize(..n),
            _ => match (&self.edf, self.least_request) {
                (Some(edf), _) => edf.borrow_mut().pick(&self.hosts, self.least_request.is_some()),
                (None, Some(choices)) => self.least_loaded(choices),
                (None, None) => {
                    let next = self.next.get();
                    self.next.set(next.wrapping_add(1));
                    next % n
                }
            },
        };
        self.hosts.get(at).cloned()
    }

    /// The one with the fewest requests among some drawn with replacement, the first of equals.
    fn least_loaded(&self, choices: u32) -> usize {
        let load = |at: usize| self.hosts[at].host.load.requests.load(Ordering::Relaxed);
        let mut best = fastrand::usize(..self.hosts.len());
        for _ in 1..choices {
            let other = fastrand::usize(..self.hosts.len());
            if load(other) < load(best) {
                best = other;
            }
        }
        best
    }
}

#[cfg(test)]
mod tests;
