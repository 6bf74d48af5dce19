//! The store itself: objects by key and origin, and the revision that counts their changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use maille_api::{Key, Object};
use tokio::sync::watch;

/// One step of the stream.
#[derive(Clone, Debug)]
pub enum Change {
    /// The object is there, and says this.
    Put(Arc<Object>),
    /// The object is gone.
    Delete(Key),
}

/// Every resource the mesh knows. Cheap to share behind an `Arc`; all methods take `&self`.
#[derive(Debug)]
pub struct Store {
    objects: Mutex<BTreeMap<Key, Vec<Held>>>,
    revision: watch::Sender<u64>,
}

/// One origin's word on one key.
#[derive(Debug)]
struct Held {
    origin: String,
    object: Arc<Object>,
}

impl Store {
    /// An empty store at revision 0.
    pub fn new() -> Self {
        Self { objects: Mutex::default(), revision: watch::Sender::new(0) }
    }

    /// Applies the changes of one origin as one step: readers see all of them or none. Returns the revision that holds
    /// them; changes that change nothing make no new revision.
    ///
    /// An origin can only replace and take away what it put itself. When two origins put the same key, the first one's
    /// word stands until it takes it away: a workload that joins cannot overwrite what a file says.
    pub fn apply(&self, origin: &str, changes: Vec<Change>) -> u64 {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = false;
        for change in changes {
            changed |= match change {
                Change::Put(object) => put(&mut objects, origin, object),
                Change::Delete(key) => delete(&mut objects, origin, &key),
            };
        }
        // Still under the lock, so that revisions and lists can never be seen out of step.
        if changed {
            self.revision.send_modify(|revision| *revision += 1);
        }
        *self.revision.borrow()
    }

    /// Every object, in the order of their keys, and the revision they stand at.
    pub fn list(&self) -> (u64, Vec<Arc<Object>>) {
        let objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let list = objects.values().filter_map(|held| held.first()).map(|held| held.object.clone()).collect();
        (*self.revision.borrow(), list)
    }

    /// What stands under a key.
    pub fn get(&self, key: &Key) -> Option<Arc<Object>> {
        let objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        objects.get(key).and_then(|held| held.first()).map(|held| held.object.clone())
    }

    /// Tells of every new revision. Revisions that come faster than they are looked at collapse into the newest.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether what readers see under the object's key has changed.
fn put(objects: &mut BTreeMap<Key, Vec<Held>>, origin: &str, object: Arc<Object>) -> bool {
    let held = objects.entry(object.key()).or_default();
    match held.iter().position(|h| h.origin == origin) {
        Some(at) => {
            let same = held[at].object == object;
            held[at].object = object;
            at == 0 && !same
        }
        None => {
            held.push(Held { origin: origin.to_owned(), object });
            held.len() == 1
        }
    }
}

/// Whether what readers see under the key has changed.
fn delete(objects: &mut BTreeMap<Key, Vec<Held>>, origin: &str, key: &Key) -> bool {
    let Some(held) = objects.get_mut(key) else { return false };
    let Some(at) = held.iter().position(|h| h.origin == origin) else { return false };
    held.remove(at);
    if held.is_empty() {
        objects.remove(key);
    }
    at == 0
}

#[cfg(test)]
mod tests;
