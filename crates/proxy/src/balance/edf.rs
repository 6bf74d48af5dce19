//! Earliest deadline first: things in turn by weight, evenly spaced, as Envoy does it.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// The things, next one first; they are numbers from 0.
pub(super) struct Edf {
    queue: BinaryHeap<Entry>,
    now: f64,
    turn: u64,
}

struct Entry {
    deadline: f64,
    turn: u64,
    number: u32,
}

impl Edf {
    /// So many things of these weights, all of them more than 0.
    pub(super) fn new(count: u32, weight: impl Fn(u32) -> f64) -> Edf {
        let mut edf = Edf { queue: BinaryHeap::with_capacity(count as usize), now: 0.0, turn: 0 };
        for number in 0..count {
            edf.push(number, weight(number));
        }
        // Begin somewhere along the way, so that many proxies do not favour the same host at first.
        for _ in 0..fastrand::u32(..=count) {
            edf.pick(&weight);
        }
        edf
    }

    /// The next one; it gets its turn again by the weight it has now.
    pub(super) fn pick(&mut self, weight: impl Fn(u32) -> f64) -> u32 {
        let Some(entry) = self.queue.pop() else { return 0 };
        self.now = entry.deadline;
        self.push(entry.number, weight(entry.number));
        entry.number
    }

    fn push(&mut self, number: u32, weight: f64) {
        self.turn += 1;
        self.queue.push(Entry { deadline: self.now + 1.0 / weight, turn: self.turn, number });
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
