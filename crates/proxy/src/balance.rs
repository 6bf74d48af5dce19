//! Which host of a cluster a request goes to.

mod edf;
mod picker;
mod table;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::config::{LbPolicy, LocalityLb};
use crate::upstream::{Able, HostSet, Loads, LocalityHosts, WorkerHost, Zones};

use edf::Edf;
use picker::{Picker, Policy};
pub(crate) use table::{Member, Table};

/// Chooses among the hosts of one cluster, for one worker.
pub(crate) struct Balancer {
    policy: Policy,
    /// Whether hosts are found by hash; where a request has none, any number is one.
    hashes: bool,
    /// How much of the traffic is balanced by zones, in percent.
    zone_aware: f64,
    priorities: Vec<Priority>,
    /// What the last choice came to.
    event: Cell<Option<Event>>,
}

/// What a choice came to that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Health was disregarded.
    Panic,
    /// All goes to the own zone.
    OwnZone,
    /// It stayed in the own zone.
    Stayed,
    /// It left the own zone.
    Left,
}

/// Chooses within a priority.
struct Priority {
    hosts: Vec<Rc<WorkerHost>>,
    all: Picker,
    able: AblePickers,
    localities: Vec<AblePickers>,
    /// Whose turn it is of the localities, for healthy hosts and for degraded ones: numbers into those that have a share.
    turns: [Option<Turns>; 2],
}

/// Whose turn it is, and the shares by which turns are taken.
type Turns = (RefCell<Edf>, Vec<(u32, f64)>);

/// For healthy hosts, and for degraded ones.
struct AblePickers([Picker; 2]);

/// What a request asks of the choice.
pub(crate) struct Wish<'a, A> {
    /// Decides where the policy is to hash.
    pub(crate) hash: Option<u64>,
    /// How often to try again for a host that is not to be avoided.
    pub(crate) attempts: u32,
    /// Hosts for which this holds are passed over, as long as there are attempts.
    pub(crate) avoid: A,
    /// Other shares of the priorities than the cluster's own.
    pub(crate) loads: Option<&'a Loads>,
}

impl Wish<'_, fn(&WorkerHost) -> bool> {
    /// Any host will do, by this hash if it counts.
    pub(crate) fn of(hash: Option<u64>) -> Self {
        Wish { hash, attempts: 0, avoid: |_| false, loads: None }
    }
}

impl Balancer {
    /// For a set of hosts; `host` finds this worker's side of each.
    pub(crate) fn new(
        lb: &LbPolicy,
        locality: &LocalityLb,
        set: &HostSet,
        mut host: impl FnMut(&std::sync::Arc<crate::upstream::Host>) -> Rc<WorkerHost>,
    ) -> Balancer {
        let policy = Policy::new(lb, set.newest);
        let priorities = set.priorities.iter().map(|priority| {
            let hosts: Vec<_> = priority.all.iter().map(&mut host).collect();
            let everything: Vec<u32> = if priority.panic { (0..hosts.len() as u32).collect() } else { Vec::new() };
            let pickers = |able: &Able| {
                AblePickers([Picker::new(&policy, &hosts, &able.healthy), Picker::new(&policy, &hosts, &able.degraded)])
            };
            let weighted = *locality == LocalityLb::Weighted;
            Priority {
                all: Picker::new(&policy, &hosts, &everything),
                able: pickers(&priority.able),
                localities: priority.localities.iter().map(|locality| pickers(&locality.able)).collect(),
                turns: [false, true].map(|degraded| {
                    weighted.then(|| turns(&priority.localities, set.loads.factor(), degraded)).flatten()
                }),
                hosts,
            }
        });
        Balancer {
            priorities: priorities.collect(),
            hashes: matches!(lb, LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. }),
            zone_aware: match locality {
                LocalityLb::ZoneAware { enabled, .. } => *enabled,
                _ => 0.0,
            },
            event: Cell::new(None),
            policy,
        }
    }

    /// What the last choice came to, if that is to be counted.
    #[inline]
    pub(crate) fn take_event(&self) -> Option<Event> {
        self.event.take()
    }

    /// A host for a request; `None` when there is none that takes requests.
    pub(crate) fn pick<A: Fn(&WorkerHost) -> bool>(&self, set: &HostSet, wish: &Wish<'_, A>) -> Option<Rc<WorkerHost>> {
        if self.hashes {
            return self.by_hash(set, wish);
        }
        let mut host = self.once(set, wish.loads)?;
        for _ in 0..wish.attempts {
            if !(wish.avoid)(host) {
                break;
            }
            host = self.once(set, wish.loads)?;
        }
        Some(host.clone())
    }

    fn by_hash<A: Fn(&WorkerHost) -> bool>(&self, set: &HostSet, wish: &Wish<'_, A>) -> Option<Rc<WorkerHost>> {
        let hash = wish.hash.unwrap_or_else(|| fastrand::u64(..));
        let (priority, _) = set.loads.choose(hash);
        let hosts = &self.priorities.get(priority)?.hosts;
        if set.priorities.get(priority)?.panic {
            self.event.set(Some(Event::Panic));
        }
        let table = set.priorities.get(priority)?.table.as_ref()?;
        let active = |place: u32| hosts.get(place as usize).map_or(0, |host| host.host.load.active());
        let find = |attempt| hosts.get(table.find(hash, attempt, active) as usize);
        let found = (0..=wish.attempts).map(find).find(|host| host.is_none_or(|host| !(wish.avoid)(host)));
        found.unwrap_or_else(|| find(wish.attempts)).cloned()
    }

    fn once(&self, set: &HostSet, loads: Option<&Loads>) -> Option<&Rc<WorkerHost>> {
        let (at, degraded) = match (self.priorities.len(), loads) {
            // Nothing to draw for.
            (1, _) if set.loads.degraded.first() == Some(&0) => (0, false),
            (_, loads) => loads.unwrap_or(&set.loads).choose(fastrand::u64(..)),
        };
        let priority = self.priorities.get(at)?;
        let hosts = set.priorities.get(at)?;
        if hosts.panic {
            self.event.set(Some(Event::Panic));
            let all = 0..hosts.all.len() as u32;
            return match set.zones {
                Some(Zones::Nowhere) => None,
                _ => self.policy.pick(&priority.all, &priority.hosts, all.len(), |at| at as u32),
            };
        }
        let which = usize::from(degraded);
        let pick = |picker: &Picker, places: &[u32]| {
            self.policy.pick(picker, &priority.hosts, places.len(), |at| places.get(at).copied().unwrap_or(0))
        };
        let locality = match &priority.turns[which] {
            Some((edf, shares)) => {
                let share = |number: u32| shares.get(number as usize).map_or(1.0, |(_, share)| *share);
                let number = edf.borrow_mut().pick(share);
                shares.get(number as usize).map(|(locality, _)| *locality as usize)
            }
            None => match &set.zones {
                Some(zones) if at == 0 && fastrand::f64() * 100.0 < self.zone_aware => {
                    let zone = zones.choose(|| fastrand::u64(..))?;
                    self.event.set(Some(match (zones, zone) {
                        (Zones::Own, _) => Event::OwnZone,
                        (_, 0) => Event::Stayed,
                        _ => Event::Left,
                    }));
                    Some(zone)
                }
                _ => None,
            },
        };
        match locality {
            Some(locality) => pick(
                &priority.localities.get(locality)?.0[which],
                hosts.localities.get(locality)?.able.places(degraded),
            ),
            None => pick(&priority.able.0[which], hosts.able.places(degraded)),
        }
    }
}

/// Localities take turns by their weights, less where not all of their hosts are able.
fn turns(localities: &[LocalityHosts], overprovisioning: u32, degraded: bool) -> Option<Turns> {
    let shares: Vec<(u32, f64)> = localities
        .iter()
        .zip(0..)
        .map(|(locality, at)| {
            let able = locality.able.places(degraded).len() as f64 / locality.counted.max(1) as f64;
            (at, f64::from(locality.weight) * (f64::from(overprovisioning) / 100.0 * able).min(1.0))
        })
        .filter(|(_, share)| *share > 0.0)
        .collect();
    let edf = Edf::new(u32::try_from(shares.len()).ok()?, |number| shares[number as usize].1);
    (!shares.is_empty()).then(|| (RefCell::new(edf), shares))
}

#[cfg(test)]
mod tests;
