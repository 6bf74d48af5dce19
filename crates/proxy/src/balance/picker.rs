//! One choice among some hosts, by the cluster's policy.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Edf;
use crate::config::{Health, LbPolicy, SlowStart};
use crate::upstream::WorkerHost;

/// What decides among hosts.
pub(super) struct Policy {
    kind: Kind,
    slow_start: SlowStart,
    /// Until when some host is new.
    gradual_until: Option<Instant>,
}

#[derive(Clone, Copy)]
enum Kind {
    RoundRobin,
    LeastRequest { choices: u32, full_scan: bool, bias: f64 },
    Random,
}

/// Where a policy stands with some hosts.
pub(super) struct Picker {
    next: Cell<usize>,
    /// For weights that differ.
    edf: Option<RefCell<Edf>>,
}

impl Policy {
    pub(super) fn new(lb: &LbPolicy, newest: Option<Instant>) -> Policy {
        let (kind, slow_start) = match *lb {
            LbPolicy::RoundRobin(slow_start) => (Kind::RoundRobin, slow_start),
            LbPolicy::LeastRequest { choices, full_scan, active_bias, slow_start } => {
                (Kind::LeastRequest { choices: choices.max(2), full_scan, bias: active_bias }, slow_start)
            }
            LbPolicy::Random | LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. } | LbPolicy::ClusterProvided => {
                (Kind::Random, SlowStart::default())
            }
        };
        let gradual_until = newest.zip(slow_start.window).and_then(|(newest, window)| newest.checked_add(window));
        Policy { kind, slow_start, gradual_until: gradual_until.filter(|until| *until > Instant::now()) }
    }

    /// One of so many hosts, whose places `place` knows.
    pub(super) fn pick<'h>(
        &self,
        picker: &Picker,
        hosts: &'h [Rc<WorkerHost>],
        count: usize,
        place: impl Fn(usize) -> u32,
    ) -> Option<&'h Rc<WorkerHost>> {
        let host = |at: usize| hosts.get(place(at) as usize);
        let at = match (count, &picker.edf, self.kind) {
            (0, ..) => return None,
            (1, ..) => 0,
            (_, Some(edf), _) => {
                let now = self.gradual_until.map(|_| Instant::now());
                let weight = |number: u32| host(number as usize).map_or(1.0, |host| self.weight(host, now));
                edf.borrow_mut().pick(weight) as usize
            }
            (n, None, Kind::Random) => fastrand::usize(..n),
            (n, None, Kind::LeastRequest { full_scan: true, .. }) => least_of_all(n, |at| load(host(at))),
            (n, None, Kind::LeastRequest { choices, .. }) => least_of_some(n, choices, |at| load(host(at))),
            (n, None, Kind::RoundRobin) => {
                let next = picker.next.get();
                picker.next.set(next.wrapping_add(1));
                next % n
            }
        };
        host(at)
    }

    /// What a host's turn depends on: its weight, how much it has to do, how new it is.
    fn weight(&self, host: &WorkerHost, now: Option<Instant>) -> f64 {
        let weight = f64::from(host.host.weight);
        let weight = match self.kind {
            Kind::LeastRequest { bias: 0.0, .. } | Kind::RoundRobin | Kind::Random => weight,
            Kind::LeastRequest { bias: 1.0, .. } => weight / (f64::from(host.host.load.active()) + 1.0),
            Kind::LeastRequest { bias, .. } => weight / (f64::from(host.host.load.active()) + 1.0).powf(bias),
        };
        let age = match (now, host.host.since) {
            (Some(now), Some(since)) if host.host.condition() == Health::Healthy => {
                now.saturating_duration_since(since)
            }
            _ => return weight,
        };
        weight * rise(&self.slow_start, age)
    }
}

impl Picker {
    pub(super) fn new(policy: &Policy, hosts: &[Rc<WorkerHost>], places: &[u32]) -> Picker {
        let of = |number: usize| &hosts[places[number] as usize];
        let weights_differ = places.windows(2).any(|pair| {
            let weight = |place: u32| hosts[place as usize].host.weight;
            weight(pair[0]) != weight(pair[1])
        });
        let by_weight = !matches!(policy.kind, Kind::Random) && (weights_differ || policy.gradual_until.is_some());
        let now = policy.gradual_until.map(|_| Instant::now());
        let edf = || Edf::new(places.len() as u32, |number| policy.weight(of(number as usize), now));
        Picker {
            // Workers and proxies that start together must not all begin with the same host.
            next: Cell::new(fastrand::usize(..)),
            edf: (by_weight && places.len() > 1).then(|| RefCell::new(edf())),
        }
    }
}

fn load(host: Option<&Rc<WorkerHost>>) -> u32 {
    host.map_or(u32::MAX, |host| host.host.load.active())
}

/// How much of its weight a host of this age has.
pub(super) fn rise(slow_start: &SlowStart, age: Duration) -> f64 {
    match slow_start.window {
        Some(window) if age < window => {
            let time = age.max(Duration::from_millis(1)).as_secs_f64() / window.as_secs_f64();
            let factor = if slow_start.aggression == 1.0 { time } else { time.powf(1.0 / slow_start.aggression) };
            factor.max(slow_start.min_weight_percent / 100.0)
        }
        _ => 1.0,
    }
}

/// The one with the fewest requests among some drawn with replacement, the first of equals.
fn least_of_some(count: usize, choices: u32, load: impl Fn(usize) -> u32) -> usize {
    let mut best = fastrand::usize(..count);
    for _ in 1..choices {
        let other = fastrand::usize(..count);
        if load(other) < load(best) {
            best = other;
        }
    }
    best
}

/// The one with the fewest requests, any of equals.
fn least_of_all(count: usize, load: impl Fn(usize) -> u32) -> usize {
    let (mut best, mut least, mut equals) = (0, u32::MAX, 0);
    for at in 0..count {
        let load = load(at);
        if load < least {
            (best, least, equals) = (at, load, 1);
        } else if load == least {
            equals += 1;
            if fastrand::usize(..equals) == 0 {
                best = at;
            }
        }
    }
    best
}
