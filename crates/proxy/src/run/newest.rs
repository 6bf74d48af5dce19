//! What a worker is to serve next: only ever the newest, so that a worker that is slow does not make a pile of what is old.

use std::sync::{Arc, Mutex};

use crate::snapshot::Snapshot;

/// A place for one snapshot, between the main thread and a worker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Newest(Arc<Mutex<Option<Arc<Snapshot>>>>);

impl Newest {
    /// Puts a snapshot in place of one that nobody has taken; whether the worker has to be told that there is one.
    pub(crate) fn put(&self, snapshot: Arc<Snapshot>) -> bool {
        self.slot().replace(snapshot).is_none()
    }

    /// Takes what is there.
    pub(crate) fn take(&self) -> Option<Arc<Snapshot>> {
        self.slot().take()
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Arc<Snapshot>>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
#[test]
fn row_34_a_worker_that_is_slow_has_one_snapshot_waiting_at_most() {
    let newest = Newest::default();
    let snapshots: Vec<_> = (0..1000).map(|_| Arc::new(Snapshot::default())).collect();
    let told = snapshots.iter().filter(|snapshot| newest.put((*snapshot).clone())).count();
    assert_eq!(told, 1, "one message for all of them");
    let held = snapshots.iter().filter(|snapshot| Arc::strong_count(snapshot) > 1).count();
    assert_eq!(held, 1);
    assert!(Arc::ptr_eq(&newest.take().unwrap(), snapshots.last().unwrap()), "the newest");
    assert!(newest.take().is_none());
    assert!(newest.put(snapshots[0].clone()), "it is told again");
}
