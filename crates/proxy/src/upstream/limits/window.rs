//! How many there were in the last while, counted by all workers without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Into how many parts the while is divided: what is older goes part by part.
const PARTS: u64 = 16;

/// A count of what has happened lately.
#[derive(Debug)]
pub(super) struct Window {
    start: Instant,
    part: Duration,
    /// For each part the number of the part, and how many there were: 40 bits and 24.
    counts: [AtomicU64; PARTS as usize + 1],
}

impl Window {
    pub(super) fn new(length: Duration) -> Window {
        let part = (length / PARTS as u32).max(Duration::from_micros(1));
        Window { start: Instant::now(), part, counts: Default::default() }
    }

    /// One more.
    pub(super) fn count(&self, now: Instant) {
        let part = self.part_at(now);
        let slot = &self.counts[(part % (PARTS + 1)) as usize];
        // Full is full: what counts has long been allowed then.
        let add = |old: u64| match (old >> 24 == part, old & 0xff_ffff) {
            (true, 0xff_ffff) => None,
            (true, _) => Some(old + 1),
            (false, _) => Some(part << 24 | 1),
        };
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// How many there were.
    pub(super) fn sum(&self, now: Instant) -> u32 {
        let part = self.part_at(now);
        let counts = self.counts.iter().map(|slot| slot.load(Ordering::Relaxed));
        let recent = counts.filter(|slot| part.saturating_sub(slot >> 24) < PARTS + 1 && slot >> 24 <= part);
        recent.fold(0, |sum, slot| sum.saturating_add((slot & 0xff_ffff) as u32))
    }

    fn part_at(&self, now: Instant) -> u64 {
        // From 1 on: 0 is a slot that was never used.
        let parts = now.saturating_duration_since(self.start).as_nanos() / self.part.as_nanos();
        (parts as u64 & 0xff_ffff_fffe) + 1
    }
}

#[cfg(test)]
#[test]
fn what_is_older_no_longer_counts() {
    let window = Window::new(Duration::from_millis(160));
    let at = |millis| window.start + Duration::from_millis(millis);
    for millis in [0, 5, 50, 100] {
        window.count(at(millis));
    }
    for (millis, count) in [(100, 4), (150, 4), (200, 2), (250, 1), (300, 0), (10_000, 0)] {
        assert_eq!(window.sum(at(millis)), count, "{millis} ms");
    }
    window.count(at(10_000));
    assert_eq!(window.sum(at(10_100)), 1);
}
