//! Metrics: cells that one worker writes and anybody may read, made when they are first used, added up when they are read.
//!
//! A handle belongs to one thread, so counting is a load and a store. The registry is only locked to make a handle and
//! to read; a metric whose handles are all gone is gone.

mod bundle;
mod prometheus;

use std::cell::Cell as ThreadCell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

pub use bundle::{ClusterMetrics, HttpMetrics, RequestMetrics};

/// Upper bounds of a histogram's buckets in milliseconds: Envoy's and Istio's.
pub const BUCKETS_MS: [f64; 19] = [
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
    families: Arc<Mutex<BTreeMap<&'static str, Family>>>,
}

/// Metrics of one name.
#[derive(Debug)]
enum Family {
    Counter(Series<AtomicU64>),
    Gauge(Series<AtomicU64>),
    Histogram(Series<Buckets>),
}

/// The cells of each set of labels (already written as they are exported).
type Series<C> = BTreeMap<Box<str>, Vec<Weak<C>>>;

#[derive(Debug, Default)]
struct Buckets {
    counts: [AtomicU64; BUCKETS_MS.len() + 1],
    sum_micros: AtomicU64,
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

/// How long things take.
#[derive(Debug)]
pub struct Histogram {
    cell: Arc<Buckets>,
    one_thread: OneThread,
}

/// A metric's labels and their values.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

impl Registry {
    /// A counter of this thread's own. `None` when the name is another kind of metric's.
    pub fn counter(&self, name: &'static str, labels: Labels<'_>) -> Option<Counter> {
        match self.lock().entry(name).or_insert_with(|| Family::Counter(Series::new())) {
            Family::Counter(series) => Some(Counter { cell: new_cell(series, labels), one_thread: PhantomData }),
            _ => None,
        }
    }

    /// A gauge of this thread's own. `None` when the name is another kind of metric's.
    pub fn gauge(&self, name: &'static str, labels: Labels<'_>) -> Option<Gauge> {
        match self.lock().entry(name).or_insert_with(|| Family::Gauge(Series::new())) {
            Family::Gauge(series) => Some(Gauge { cell: new_cell(series, labels), one_thread: PhantomData }),
            _ => None,
        }
    }

    /// A histogram of this thread's own. `None` when the name is another kind of metric's.
    pub fn histogram(&self, name: &'static str, labels: Labels<'_>) -> Option<Histogram> {
        match self.lock().entry(name).or_insert_with(|| Family::Histogram(Series::new())) {
            Family::Histogram(series) => Some(Histogram { cell: new_cell(series, labels), one_thread: PhantomData }),
            _ => None,
        }
    }

    /// Appends every metric in Prometheus' text format.
    pub fn prometheus(&self, out: &mut String) {
        prometheus::write(&mut self.lock(), out);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Family>> {
        self.families.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn new_cell<C: Default>(series: &mut Series<C>, labels: Labels<'_>) -> Arc<C> {
    let cell = Arc::new(C::default());
    let cells = series.entry(prometheus::labels(labels)).or_default();
    cells.retain(|cell| cell.strong_count() > 0);
    cells.push(Arc::downgrade(&cell));
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
}

impl Histogram {
    /// One that took so long.
    #[inline]
    pub fn record(&self, took: Duration) {
        let micros = took.as_micros() as u64;
        let ms = micros as f64 / 1000.0;
        let bucket = BUCKETS_MS.iter().position(|bound| ms <= *bound).unwrap_or(BUCKETS_MS.len());
        if let Some(count) = self.cell.counts.get(bucket) {
            add(count, 1);
        }
        add(&self.cell.sum_micros, micros);
    }
}

#[cfg(test)]
mod tests;
