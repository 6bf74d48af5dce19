//! The proxies that are connected: what each should have, and how far it is.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use maille_model::Proxy;
use maille_xds::World;
use maille_xds::server::{Refusal, TypeStatus};
use tokio::sync::{Notify, watch};

/// Refusals remembered for the status page.
const REMEMBERED: usize = 100;

/// Everyone who is connected.
#[derive(Default)]
pub(crate) struct Proxies {
    table: Mutex<Table>,
    connected: Notify,
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Table {
    closed: bool,
    next: u64,
    proxies: BTreeMap<u64, Connected>,
    refusals: VecDeque<(SystemTime, Arc<str>, Refusal)>,
}

/// One stream of one proxy.
pub(crate) struct Connected {
    pub(crate) node: Arc<str>,
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) since: SystemTime,
    pub(crate) types: Vec<TypeStatus>,
    worlds: watch::Sender<Option<World>>,
}

/// A proxy to translate for, and what it has.
pub(crate) struct Wanted {
    pub(crate) id: u64,
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) previous: Option<World>,
}

impl Proxies {
    /// A proxy came; its worlds will arrive at the receiver. `None` when nobody is let in any more.
    pub(crate) fn connect(&self, node: Arc<str>, proxy: Proxy) -> Option<(u64, watch::Receiver<Option<World>>)> {
        let mut table = self.lock();
        if table.closed {
            return None;
        }
        let (worlds, receiver) = watch::channel(None);
        let id = table.next;
        table.next += 1;
        let connected = Connected { node, proxy: Arc::new(proxy), since: SystemTime::now(), types: Vec::new(), worlds };
        table.proxies.insert(id, connected);
        drop(table);
        self.connected.notify_one();
        self.changed();
        Some((id, receiver))
    }

    /// A proxy went.
    pub(crate) fn disconnect(&self, id: u64) {
        self.lock().proxies.remove(&id);
        self.changed();
    }

    /// Returns when a proxy has come since the last call returned.
    pub(crate) async fn connected(&self) {
        self.connected.notified().await;
    }

    /// Every proxy, or only those that have no world yet.
    pub(crate) fn wanted(&self, only_new: bool) -> Vec<Wanted> {
        let table = self.lock();
        let wanted = table.proxies.iter().map(|(id, connected)| Wanted {
            id: *id,
            proxy: connected.proxy.clone(),
            previous: connected.worlds.borrow().clone(),
        });
        wanted.filter(|wanted| !only_new || wanted.previous.is_none()).collect()
    }

    /// Gives a proxy its world; tells whether it is another than it had.
    pub(crate) fn publish(&self, id: u64, world: World) -> bool {
        let table = self.lock();
        let Some(connected) = table.proxies.get(&id) else { return false };
        connected.worlds.send_if_modified(|held| {
            let other = held.as_ref() != Some(&world);
            if other {
                *held = Some(world);
            }
            other
        })
    }

    /// How far a proxy is.
    pub(crate) fn report(&self, id: u64, types: Vec<TypeStatus>) {
        let refused = |types: &[TypeStatus]| types.iter().map(|of_type| of_type.refused.len()).sum::<usize>();
        let mut table = self.lock();
        let Some(connected) = table.proxies.get_mut(&id) else { return };
        let before = refused(&connected.types);
        connected.types = types;
        let other = refused(&connected.types) != before;
        drop(table);
        if other {
            self.changed();
        }
    }

    /// A proxy refused something.
    pub(crate) fn refused(&self, node: &Arc<str>, refusals: &[Refusal]) {
        let mut table = self.lock();
        for refusal in refusals {
            if table.refusals.len() == REMEMBERED {
                table.refusals.pop_front();
            }
            table.refusals.push_back((SystemTime::now(), node.clone(), refusal.clone()));
        }
        drop(table);
        self.changed();
    }

    /// Ends every stream and lets nobody in.
    pub(crate) fn close(&self) {
        let mut table = self.lock();
        table.closed = true;
        table.proxies.clear();
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Calls `see` with each proxy, and returns the refusals remembered, oldest first.
    pub(crate) fn inspect(&self, mut see: impl FnMut(&Connected)) -> Vec<(SystemTime, Arc<str>, Refusal)> {
        let table = self.lock();
        table.proxies.values().for_each(&mut see);
        table.refusals.iter().cloned().collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().proxies.len()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
