//! Metrics: cells that one worker writes and anybody may read, made when they are first used, added up when they are read.
//!
//! A handle belongs to one thread, so counting is a load and a store. The registry is only locked to make a handle and
//! to read; a metric whose handles are all gone is gone.

mod bundle;
mod collection;
mod istio;
mod name;
mod text;

use std::cell::Cell as ThreadCell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

pub use bundle::{ClusterMetrics, HttpMetrics, ListenerMetrics, TcpMetrics};
pub use collection::{Collection, Filter};
pub use istio::{Ended, RequestMetrics};
pub use name::{Labels, Name, Scope, Tag, labels};

/// Upper bounds of a histogram's buckets in its unit (milliseconds, bytes): Envoy's and Istio's.
pub const BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Every metric of a process.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    families: Arc<Mutex<BTreeMap<Name, Family>>>,
}

/// Metrics of one name.
#[derive(Debug)]
enum Family {
    Counter(SeriesOf<AtomicU64>),
    Gauge(SeriesOf<AtomicU64>),
    Histogram(SeriesOf<Buckets>),
}

/// By subject and tag.
type SeriesOf<C> = BTreeMap<(Box<str>, Tag), Series<C>>;

/// The cells of one metric, one for each worker that uses it.
#[derive(Debug)]
struct Series<C> {
    cells: Vec<Arc<C>>,
    /// What cells counted that are gone; less what was there at the last reset.
    carried: Carried,
}

#[derive(Clone, Copy, Debug, Default)]
struct Carried(u64);

#[derive(Debug, Default)]
struct Buckets {
    counts: [AtomicU64; BUCKETS.len() + 1],
    /// In thousandths.
    sum: AtomicU64,
}

/// Keeps a handle on the thread that has it: two threads would lose each other's counts.
type OneThread = PhantomData<ThreadCell<()>>;

/// Something that is counted.
#[derive(Debug)]
pub struct Counter {
    cell: Arc<AtomicU64>,
    one_thread: OneThread,
}

/// Something that goes up and down.
#[derive(Debug)]
pub struct Gauge {
    cell: Arc<AtomicU64>,
    one_thread: OneThread,
}

/// How long things take, or how large they are.
#[derive(Debug)]
pub struct Histogram {
    cell: Arc<Buckets>,
    one_thread: OneThread,
}

impl Registry {
    /// A counter of this thread's own. One whose name is another kind of metric's counts, but nobody sees it.
    pub fn counter(&self, name: Name, subject: &str, tag: Tag) -> Counter {
        let cell = match self.lock().entry(name).or_insert_with(|| Family::Counter(SeriesOf::new())) {
            Family::Counter(series) => new_cell(series, subject, tag, |cell| cell.load(Ordering::Relaxed)),
            _ => Arc::default(),
        };
        Counter { cell, one_thread: PhantomData }
    }

    /// A gauge of this thread's own; see [`Registry::counter`].
    pub fn gauge(&self, name: Name, subject: &str, tag: Tag) -> Gauge {
        let cell = match self.lock().entry(name).or_insert_with(|| Family::Gauge(SeriesOf::new())) {
            Family::Gauge(series) => new_cell(series, subject, tag, |_| 0),
            _ => Arc::default(),
        };
        Gauge { cell, one_thread: PhantomData }
    }

    /// A histogram of this thread's own; see [`Registry::counter`].
    pub fn histogram(&self, name: Name, subject: &str, tag: Tag) -> Histogram {
        let cell = match self.lock().entry(name).or_insert_with(|| Family::Histogram(SeriesOf::new())) {
            Family::Histogram(series) => new_cell(series, subject, tag, |_| 0),
            _ => Arc::default(),
        };
        Histogram { cell, one_thread: PhantomData }
    }

    /// Everything as it stands.
    pub fn collect(&self) -> Collection {
        Collection::of(&mut self.lock())
    }

    /// Begins all counters anew. The cells are their workers' to write: what they have counted is taken off when they are read.
    pub fn reset_counters(&self) {
        for family in self.lock().values_mut() {
            if let Family::Counter(series) = family {
                for one in series.values_mut() {
                    one.carried = Carried(one.live().wrapping_neg());
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Family>> {
        self.families.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Series<AtomicU64> {
    fn live(&self) -> u64 {
        self.cells.iter().map(|cell| cell.load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }

    fn total(&self) -> u64 {
        self.live().wrapping_add(self.carried.0)
    }
}

impl<C> Series<C> {
    /// Forgets the cells whose handles are gone, but not what they counted. Says whether any is left.
    fn tidy(&mut self, count: impl Fn(&C) -> u64) -> bool {
        if self.cells.iter().all(|cell| Arc::strong_count(cell) == 1) {
            return false;
        }
        self.cells.retain(|cell| {
            let used = Arc::strong_count(cell) > 1;
            if !used {
                self.carried.0 = self.carried.0.wrapping_add(count(cell));
            }
            used
        });
        true
    }
}

fn new_cell<C: Default>(series: &mut SeriesOf<C>, subject: &str, tag: Tag, count: fn(&C) -> u64) -> Arc<C> {
    let cell = Arc::new(C::default());
    let one = series.entry((subject.into(), tag)).or_insert_with(|| Series { cells: Vec::new(), carried: Carried(0) });
    one.cells.push(cell.clone());
    one.tidy(count);
    cell
}

/// One thread writes, so nothing can come between the load and the store.
#[inline]
fn add(cell: &AtomicU64, n: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

impl Counter {
    /// One more.
    #[inline]
    pub fn inc(&self) {
        add(&self.cell, 1);
    }

    /// So many more.
    #[inline]
    pub fn add(&self, n: u64) {
        add(&self.cell, n);
    }
}

impl Gauge {
    /// One more.
    #[inline]
    pub fn inc(&self) {
        add(&self.cell, 1);
    }

    /// One less.
    #[inline]
    pub fn dec(&self) {
        add(&self.cell, u64::MAX);
    }

    /// So many.
    #[inline]
    pub fn set(&self, n: u64) {
        self.cell.store(n, Ordering::Relaxed);
    }
}

impl Histogram {
    /// One that took so long.
    #[inline]
    pub fn record(&self, took: Duration) {
        self.thousandths(took.as_micros() as u64);
    }

    /// One that is so large.
    #[inline]
    pub fn size(&self, n: u64) {
        self.thousandths(n.saturating_mul(1000));
    }

    #[inline]
    fn thousandths(&self, n: u64) {
        let value = n as f64 / 1000.0;
        let bucket = BUCKETS.iter().position(|bound| value <= *bound).unwrap_or(BUCKETS.len());
        if let Some(count) = self.cell.counts.get(bucket) {
            add(count, 1);
        }
        add(&self.cell.sum, n);
    }
}

#[cfg(test)]
mod tests;
