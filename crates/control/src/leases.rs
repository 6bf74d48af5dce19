//! Workloads that are in the mesh for as long as they hold a lease, and are remembered over a restart.
//!
//! Every lease is a WorkloadEntry in the store. What is held is also written to a file beside the token, so that a
//! control plane that is started again does not send everybody empty endpoints before the workloads have come back.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::convert::Infallible;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{Stream, stream};
use maille_api::{Key, Kind, Object, Spec, parse};
use maille_store::{Change, Store};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::auth::Caller;
use crate::status::Workload;
use crate::token::{TokenError, read_private, remove, write_private};

/// Who we are to the store.
const ORIGIN: &str = "leases";

/// How long workloads of an earlier run have to come back.
const GRACE: Duration = Duration::from_secs(30);

/// A file older than this says nothing about who is still there.
const MAX_AGE: Duration = Duration::from_secs(300);

/// How often the file is marked as current while leases are held.
const MARK: Duration = Duration::from_secs(30);

/// How often a byte is sent on each lease, so that the system notices when the other end is gone.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How long it may take us to notice that a workload has ended.
const NOTICED: Duration = Duration::from_secs(1);

const MAX_LEASES: usize = 10_000;
const MAX_FILE: u64 = 64 << 20;

/// All leases.
pub(crate) struct Leases {
    store: Arc<Store>,
    path: PathBuf,
    table: Mutex<Table>,
    dirty: Notify,
    released: Notify,
}

#[derive(Default)]
struct Table {
    closing: bool,
    next: u64,
    held: BTreeMap<Key, Held>,
}

struct Held {
    /// `None` while the workload of an earlier run has not come back.
    lease: Option<u64>,
    object: Arc<Object>,
}

/// One workload's lease; its entry goes when this is dropped.
pub(crate) struct Lease {
    id: u64,
    key: Key,
    greeting: Bytes,
    leases: Arc<Leases>,
}

/// Why a workload gets no lease.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the request is not a WorkloadEntry as JSON: {0}")]
    Invalid(String),
    #[error("{key} is {by}: give this workload another --name, or end the other")]
    Taken { key: Key, by: String },
    #[error("{caller} may not register a workload that runs as {account} in namespace {namespace}")]
    Forbidden { caller: String, account: String, namespace: String },
    #[error("{MAX_LEASES} workloads hold a lease already")]
    Full,
    #[error("the control plane is shutting down")]
    Stopping,
}

impl Leases {
    /// Leases as an earlier run on the same port left them; their workloads have [`GRACE`] to come back.
    pub(crate) fn restore(store: Arc<Store>, path: PathBuf) -> Arc<Self> {
        let objects = match remembered(&path) {
            Ok(objects) => objects,
            Err(error) => {
                tracing::warn!(%error, "the workloads of the last run are not known");
                Vec::new()
            }
        };
        if !objects.is_empty() {
            tracing::info!(workloads = objects.len(), "waiting for the workloads of the last run to come back");
        }
        store.apply(ORIGIN, objects.iter().cloned().map(Change::Put).collect());
        let held = objects.into_iter().map(|object| (object.key(), Held { lease: None, object })).collect();
        let table = Mutex::new(Table { held, ..Table::default() });
        Arc::new(Self { store, path, table, dirty: Notify::new(), released: Notify::new() })
    }

    /// Registers a workload. One that is started again may be here before we have noticed that it had ended.
    pub(crate) async fn take_when_free(self: &Arc<Self>, caller: &Caller, body: &[u8]) -> Result<Lease, Refused> {
        let deadline = Instant::now() + NOTICED;
        loop {
            // Listening before looking, so that no release falls in between.
            let mut released = pin!(self.released.notified());
            released.as_mut().enable();
            match self.take(caller, body) {
                Err(Refused::Taken { .. }) if timeout_at(deadline, released).await.is_ok() => {}
                outcome => return outcome,
            }
        }
    }

    /// Registers a workload.
    pub(crate) fn take(self: &Arc<Self>, caller: &Caller, body: &[u8]) -> Result<Lease, Refused> {
        let mut entry: Value = serde_json::from_slice(body).map_err(|error| Refused::Invalid(error.to_string()))?;
        let mut table = self.lock();
        if table.closing {
            return Err(Refused::Stopping);
        }
        if table.held.len() >= MAX_LEASES {
            return Err(Refused::Full);
        }
        table.complete(&mut entry);
        let mut object = read(&entry.to_string()).map_err(Refused::Invalid)?;
        if let Some(reason) = unreachable(address(&object)) {
            return Err(Refused::Invalid(format!("spec.address: {reason}")));
        }
        let key = object.key();
        let account = service_account(&object);
        if !caller.is(&key.namespace, account) {
            let (caller, account) = (caller.to_string(), account.to_owned());
            return Err(Refused::Forbidden { caller, account, namespace: key.namespace });
        }
        object.meta.creation_timestamp = Some(match table.held.get(&key) {
            Some(Held { lease: Some(_), .. }) => {
                return Err(Refused::Taken { key, by: "a workload that is running".into() });
            }
            // As old as it was: age decides conflicts.
            Some(Held { object, .. }) => object.meta.creation_timestamp.unwrap_or_default(),
            None => {
                if let Some(other) = self.store.get(&key) {
                    let place = other.source.as_ref().map_or_else(|| "elsewhere".into(), ToString::to_string);
                    return Err(Refused::Taken { key, by: format!("written in the configuration ({place})") });
                }
                unix_seconds()
            }
        });
        let object = Arc::new(object);
        let id = table.next;
        table.next += 1;
        table.held.insert(key.clone(), Held { lease: Some(id), object: object.clone() });
        self.store.apply(ORIGIN, vec![Change::Put(object.clone())]);
        drop(table);
        self.dirty.notify_one();
        tracing::info!(workload = %key, address = address(&object), "joined");
        let greeting = json!({"name": key.name, "namespace": key.namespace, "address": address(&object)});
        Ok(Lease { id, key, greeting: format!("{greeting}\n").into(), leases: self.clone() })
    }

    /// From now on nobody comes, and whoever goes is remembered.
    pub(crate) fn close(&self) {
        self.lock().closing = true;
    }

    /// Writes down who holds a lease; when nobody does, leaves no file and returns `false`.
    pub(crate) fn save_or_remove(&self) -> bool {
        let table = self.lock();
        let objects: Vec<Value> = table.held.values().map(|held| held.object.to_json()).collect();
        if objects.is_empty() {
            remove(&self.path);
            return false;
        }
        if let Err(error) = write_private(&self.path, json!({ "items": objects }).to_string().as_bytes()) {
            tracing::warn!(path = %self.path.display(), %error, "the workloads will not be known after a restart");
        }
        true
    }

    /// Keeps the file current, and lets go of those who have not come back in time.
    pub(crate) async fn keep(self: Arc<Self>) {
        let grace = sleep_until(Instant::now() + GRACE);
        tokio::pin!(grace);
        let mut waiting = true;
        loop {
            tokio::select! {
                () = self.dirty.notified() => {
                    let leases = self.clone();
                    // Fails only when the runtime ends, and then `stop` has written it.
                    let _ = tokio::task::spawn_blocking(move || leases.save_or_remove()).await;
                }
                () = sleep(MARK) => self.mark(),
                () = &mut grace, if waiting => {
                    waiting = false;
                    self.forget_absent();
                }
            }
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().held.values().filter(|held| held.lease.is_some()).count()
    }

    pub(crate) fn workloads(&self) -> Vec<Workload> {
        let table = self.lock();
        let workload = |(key, held): (&Key, &Held)| Workload {
            name: key.name.clone(),
            namespace: key.namespace.clone(),
            address: address(&held.object).into(),
            awaited: held.lease.is_none(),
        };
        table.held.iter().map(workload).collect()
    }

    /// The service account of a workload that holds a lease.
    pub(crate) fn service_account(&self, namespace: &str, name: &str) -> Option<String> {
        let key = Key { kind: Kind::WorkloadEntry, namespace: namespace.to_owned(), name: name.to_owned() };
        self.lock().held.get(&key).map(|held| service_account(&held.object).to_owned())
    }

    fn forget_absent(&self) {
        let mut table = self.lock();
        let absent: Vec<Key> =
            table.held.iter().filter(|(_, held)| held.lease.is_none()).map(|(key, _)| key.clone()).collect();
        for key in &absent {
            tracing::info!(workload = %key, "did not come back");
            table.held.remove(key);
        }
        self.store.apply(ORIGIN, absent.into_iter().map(Change::Delete).collect());
        drop(table);
        self.dirty.notify_one();
    }

    fn release(&self, key: &Key, id: u64) {
        let mut table = self.lock();
        if table.closing {
            return;
        }
        if let Entry::Occupied(held) = table.held.entry(key.clone())
            && held.get().lease == Some(id)
        {
            held.remove();
            self.store.apply(ORIGIN, vec![Change::Delete(key.clone())]);
            tracing::info!(workload = %key, "left");
        }
        drop(table);
        self.dirty.notify_one();
        self.released.notify_waiters();
    }

    fn mark(&self) {
        if !self.lock().held.is_empty() {
            // Without a file there is nothing to mark; the next change writes one.
            let _ = File::options().append(true).open(&self.path).and_then(|file| file.set_modified(SystemTime::now()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// The response: one line of JSON that says what was registered, and then it stays open.
    pub(crate) fn stream(
        mut self,
        stopping: watch::Receiver<bool>,
    ) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
        let greeting = std::mem::take(&mut self.greeting);
        stream::unfold((self, Some(greeting)), move |(lease, greeting)| {
            let mut stopping = stopping.clone();
            async move {
                if let Some(greeting) = greeting {
                    return Some((Ok(greeting), (lease, None)));
                }
                tokio::select! {
                    () = async { drop(stopping.wait_for(|stopping| *stopping).await) } => None,
                    () = sleep(HEARTBEAT) => Some((Ok(Bytes::from_static(b"\n")), (lease, None))),
                }
            }
        })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.release(&self.key, self.id);
    }
}

impl Table {
    /// Fills in an address when the workload leaves the choice to us.
    fn complete(&self, entry: &mut Value) {
        let text = |path: &str| entry.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let is_open = |path: &str| entry.pointer(path).is_none_or(|value| value.is_null() || value == "");
        if !(is_open("/spec/address") && is_open("/spec/network")) {
            return;
        }
        let address = self.free_address(text("/metadata/namespace"), text("/metadata/name"));
        if let Some(spec) = entry.pointer_mut("/spec").and_then(Value::as_object_mut) {
            spec.insert("address".into(), json!(address.to_string()));
        }
    }

    /// An address from 127.0.0.0/8 that no lease has, the same one for the same name if possible. Stays clear of
    /// 127.0.0.0/16, where people put things by hand, and of .0 and .255.
    fn free_address(&self, namespace: &str, name: &str) -> Ipv4Addr {
        let candidate = |attempt: u64| {
            let mut hasher = DefaultHasher::new();
            (namespace, name, attempt).hash(&mut hasher);
            let hash = hasher.finish();
            let part = |shift: u32, low: u64, count: u64| (low + (hash >> shift) % count) as u8;
            Ipv4Addr::new(127, part(0, 1, 254), part(16, 0, 256), part(32, 1, 254))
        };
        let taken = |ip: &Ipv4Addr| self.held.values().any(|held| address(&held.object) == ip.to_string());
        // There are far more addresses than leases, so this ends; the last word keeps that from being a proof to read.
        (0..1000).map(candidate).find(|ip| !taken(ip)).unwrap_or_else(|| candidate(1000))
    }
}

/// The one WorkloadEntry that a text holds.
fn read(text: &str) -> Result<Object, String> {
    let loaded = parse::load(text, "the request");
    if let Some(error) = loaded.diagnostics.iter().find(|diagnostic| diagnostic.is_error()) {
        return Err(match &error.hint {
            Some(hint) => format!("{} ({hint})", error.message),
            None => error.message.clone(),
        });
    }
    match loaded.objects.as_slice() {
        [object] if object.kind() == Kind::WorkloadEntry => Ok(Object { source: None, ..(**object).clone() }),
        [object] => Err(format!("its kind is {}", object.kind())),
        objects => Err(format!("there are {} resources in it", objects.len())),
    }
}

/// Why nobody can be reached at an address that is one.
fn unreachable(address: &str) -> Option<String> {
    if address.starts_with("unix:") {
        return Some(format!("`{address}` is a socket of one machine: give an IP address or a host name"));
    }
    let ip = address.parse::<IpAddr>().ok()?.to_canonical();
    let broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    (ip.is_unspecified() || ip.is_multicast() || broadcast)
        .then(|| format!("`{address}` is no workload's own: nobody could be reached there"))
}

/// An entry that names none runs as `default`, as in Kubernetes.
fn service_account(object: &Object) -> &str {
    match &object.spec {
        Spec::WorkloadEntry(entry) if !entry.service_account.is_empty() => &entry.service_account,
        _ => "default",
    }
}

fn address(object: &Object) -> &str {
    match &object.spec {
        Spec::WorkloadEntry(entry) => &entry.address,
        _ => "",
    }
}

/// What an earlier run wrote down, if it is recent enough to mean anything.
fn remembered(path: &Path) -> Result<Vec<Arc<Object>>, TokenError> {
    let Some(text) = read_private(path, MAX_FILE)? else { return Ok(Vec::new()) };
    let io_error = |source| TokenError::Io { path: path.to_path_buf(), source };
    let modified = path.metadata().and_then(|metadata| metadata.modified()).map_err(io_error)?;
    if modified.elapsed().is_ok_and(|age| age > MAX_AGE) {
        remove(path);
        return Ok(Vec::new());
    }
    let unreadable = |reason: String| TokenError::Unsafe { path: path.to_path_buf(), reason };
    let mut state: Value = serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
    let items = state.get_mut("items").map(Value::take);
    let Some(Value::Array(items)) = items else { return Err(unreadable("it has no list of items".into())) };
    items.into_iter().map(|item| read(&item.to_string()).map(Arc::new)).collect::<Result<_, _>>().map_err(unreadable)
}

fn unix_seconds() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
