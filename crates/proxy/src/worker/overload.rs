//! What the process can take: how many may be connected, over all workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Descriptors that are kept for everything but connections: listeners, logs, the control plane, administration.
const RESERVE: u64 = 64;

/// Counts connections of clients over all workers, and knows how many there may be.
#[derive(Debug)]
pub(crate) struct Overload {
    connections: AtomicUsize,
    most: usize,
    /// Connections that ended in a panic.
    panics: AtomicU64,
    /// Workers that did.
    fallen: AtomicU64,
}

/// A connection that was let in, until dropped.
#[derive(Debug)]
pub(crate) struct Admitted(Arc<Overload>);

impl Overload {
    /// `most` connections, else as many as descriptors allow when each has one upstream.
    pub(crate) fn new(most: Option<usize>, descriptors: u64) -> Overload {
        let by_descriptors = descriptors.saturating_sub(RESERVE.min(descriptors / 4)) / 2;
        let by_descriptors = usize::try_from(by_descriptors).unwrap_or(usize::MAX).max(1);
        Overload {
            connections: AtomicUsize::new(0),
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
    fn as_many_as_there_may_be() {
        for (most, descriptors, expected) in
            [(None, 256, 96), (None, 1 << 20, 524_256), (Some(10), 1 << 20, 10), (Some(1000), 256, 96), (None, 0, 1)]
        {
            assert_eq!(Overload::new(most, descriptors).most(), expected, "{most:?} {descriptors}");
        }
        let overload = Arc::new(Overload::new(Some(2), 1024));
        let first = overload.admit();
        let second = overload.admit();
        assert!(first.is_some() && second.is_some() && overload.admit().is_none());
        drop(first);
        assert!(overload.admit().is_some());
        assert_eq!(overload.connections(), 1);
    }
}
