//! What the process can take: how many may be connected, over all workers, and how many bytes each worker may hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Descriptors that are kept for everything but connections: listeners, logs, the control plane, administration.
const RESERVE: u64 = 64;

/// Counts connections of clients over all workers, and knows how many there may be.
#[derive(Debug)]
pub(crate) struct Overload {
    connections: AtomicUsize,
    most: usize,
    limits: Limits,
    /// Bytes that all workers hold, as they last said.
    held: AtomicUsize,
    /// Requests that were reset because they held most.
    streams_reset: AtomicU64,
    /// Connections that ended in a panic.
    panics: AtomicU64,
    /// Workers that did.
    fallen: AtomicU64,
}

/// From how many bytes on a worker sheds what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) idle: usize,
    pub(crate) largest: usize,
    pub(crate) new: usize,
}

/// How much a worker sheds; each includes those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Fine,
    /// Who is idle, and keep-alive.
    Idle,
    /// The requests that hold most.
    Largest,
    /// New requests and connections.
    New,
}

impl Limits {
    /// In hundredths of `bytes`: 80, 90, 95, as Envoy's examples have it.
    pub(crate) fn of(bytes: usize) -> Limits {
        let part = |hundredths: usize| bytes / 100 * hundredths;
        Limits { idle: part(80), largest: part(90), new: part(95) }
    }

    pub(crate) fn level(&self, bytes: usize) -> Level {
        match bytes {
            n if n <= self.idle => Level::Fine,
            n if n <= self.largest => Level::Idle,
            n if n <= self.new => Level::Largest,
            _ => Level::New,
        }
    }
}

/// A connection that was let in, until dropped.
#[derive(Debug)]
pub(crate) struct Admitted(Arc<Overload>);

impl Overload {
    /// `most` connections, else as many as descriptors allow when each has one upstream; `bytes` that each worker may hold.
    pub(crate) fn new(most: Option<usize>, descriptors: u64, bytes: usize) -> Overload {
        let by_descriptors = descriptors.saturating_sub(RESERVE.min(descriptors / 4)) / 2;
        let by_descriptors = usize::try_from(by_descriptors).unwrap_or(usize::MAX).max(1);
        Overload {
            connections: AtomicUsize::new(0),
            limits: Limits::of(bytes),
            held: AtomicUsize::new(0),
            streams_reset: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            fallen: AtomicU64::new(0),
            most: most.unwrap_or(usize::MAX).min(by_descriptors),
        }
    }

    /// How many there are.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// How many there may be.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// From how many bytes on a worker sheds what.
    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// How much the worker sheds that asks.
    #[inline]
    pub(crate) fn level(&self) -> Level {
        self.limits.level(super::held::sum())
    }

    /// A worker holds so many bytes now, instead of so many before.
    pub(crate) fn hold(&self, before: usize, now: usize) {
        self.held.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
    }

    /// How many bytes all workers hold, as they last said.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// So many requests were reset because they held most.
    pub(crate) fn reset_streams(&self, count: u64) {
        self.streams_reset.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn streams_reset(&self) -> u64 {
        self.streams_reset.load(Ordering::Relaxed)
    }

    /// A worker ended in a panic.
    pub(crate) fn worker_fell(&self) {
        self.fallen.fetch_add(1, Ordering::Relaxed);
    }

    /// How many connections, and how many workers, ended in a panic.
    pub(crate) fn panics(&self) -> (u64, u64) {
        (self.panics.load(Ordering::Relaxed), self.fallen.load(Ordering::Relaxed))
    }

    /// Lets a connection in, unless there are as many as there may be.
    pub(crate) fn admit(self: &Arc<Self>) -> Option<Admitted> {
        if self.connections.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Admitted(self.clone()))
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        // The runtime catches what goes wrong in a connection's task, after dropping what it had.
        if std::thread::panicking() {
            self.0.panics.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shed_when() {
        let limits = Limits::of(1000);
        for (bytes, level) in [
            (0, Level::Fine),
            (800, Level::Fine),
            (801, Level::Idle),
            (900, Level::Idle),
            (901, Level::Largest),
            (950, Level::Largest),
            (951, Level::New),
        ] {
            assert_eq!(limits.level(bytes), level, "{bytes}");
        }
    }

    #[test]
    fn as_many_as_there_may_be() {
        for (most, descriptors, expected) in
            [(None, 256, 96), (None, 1 << 20, 524_256), (Some(10), 1 << 20, 10), (Some(1000), 256, 96), (None, 0, 1)]
        {
            assert_eq!(Overload::new(most, descriptors, 0).most(), expected, "{most:?} {descriptors}");
        }
        let overload = Arc::new(Overload::new(Some(2), 1024, 0));
        let first = overload.admit();
        let second = overload.admit();
        assert!(first.is_some() && second.is_some() && overload.admit().is_none());
        drop(first);
        assert!(overload.admit().is_some());
        assert_eq!(overload.connections(), 1);
    }
}
