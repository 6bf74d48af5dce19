//! Earliest deadline first: hosts in turn by weight, evenly spaced, as Envoy does it.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use crate::upstream::WorkerHost;

/// The hosts, next one first.
pub(super) struct Edf {
    queue: BinaryHeap<Entry>,
    now: f64,
    turn: u64,
}

struct Entry {
    deadline: f64,
    turn: u64,
    host: usize,
}

impl Edf {
    pub(super) fn new(hosts: &[Rc<WorkerHost>]) -> Edf {
        let mut edf = Edf { queue: BinaryHeap::with_capacity(hosts.len()), now: 0.0, turn: 0 };
        for (at, host) in hosts.iter().enumerate() {
            edf.push(at, f64::from(host.host.weight));
        }
        // Begin somewhere along the way, so that many proxies do not favour the same host at first.
        for _ in 0..fastrand::usize(..=hosts.len()) {
            edf.pick(hosts, false);
        }
        edf
    }

    /// The next host; with `least_request` its weight counts less the more requests it has.
    pub(super) fn pick(&mut self, hosts: &[Rc<WorkerHost>], least_request: bool) -> usize {
        let Some(entry) = self.queue.pop() else { return 0 };
        self.now = entry.deadline;
        let host = &hosts[entry.host].host;
        let active = if least_request { f64::from(host.load.requests.load(Relaxed)) } else { 0.0 };
        self.push(entry.host, f64::from(host.weight) / (active + 1.0));
        entry.host
    }

    fn push(&mut self, host: usize, weight: f64) {
        self.turn += 1;
        self.queue.push(Entry { deadline: self.now + 1.0 / weight, turn: self.turn, host });
    }
}

impl Ord for Entry {
    /// The greatest is the next: the earliest deadline, and of equals the one that came first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.deadline.total_cmp(&self.deadline).then(other.turn.cmp(&self.turn))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}
