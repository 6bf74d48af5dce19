//! Who holds which certificate, and what they believe: what a rotation waits for, and what `maille ca status` shows.
//!
//! It is kept in a file: the whole table, written when it has changed and at most once a second, and behind it a line for each
//! certificate that was issued or given up since. So whoever got one in the moment before a crash is waited for after it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use maille_identity::SpiffeId;
use maille_identity::ca::Issued;
use maille_identity::rotation::Holding;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Trust;
use crate::token::{append_private, read_private, remove, write_private};

/// More certificates than this are not remembered one by one; the ones that end first go first.
const MAX: usize = 50_000;

const MAX_FILE: u64 = 64 << 20;

/// Somebody who asks us for news and has not for so long is absent: ended without a word, or cut off.
const ABSENT: Duration = Duration::from_secs(60);

/// Everybody, by the number of their certificate.
pub(crate) struct Holders {
    path: PathBuf,
    table: Mutex<Table>,
    /// Held by whoever writes: what was added to the table before it is in the file after it.
    writing: Mutex<()>,
}

#[derive(Default)]
struct Table {
    held: HashMap<String, Held>,
    dirty: bool,
}

/// One certificate and whoever holds it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Held {
    id: String,
    not_after: u64,
    authority: String,
    /// The roots that its holder believes.
    trust: String,
    /// Its holder asks for news. Others are known only by what they were issued.
    #[serde(default)]
    listens: bool,
    #[serde(skip)]
    asking: u32,
    #[serde(skip)]
    seen: Option<Instant>,
}

/// What has come since the table was written.
#[derive(Deserialize, Serialize)]
struct Entry {
    /// The certificate that is nobody's any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gone: Option<String>,
    /// The one that was issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    came: Option<(String, Held)>,
}

/// One holder as others see it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Holder {
    pub(crate) serial: String,
    pub(crate) id: String,
    pub(crate) not_after: SystemTime,
    pub(crate) authority: String,
    pub(crate) trust: String,
    pub(crate) absent: bool,
}

impl Holder {
    pub(crate) fn holding(&self) -> Holding<'_> {
        Holding { trust: &self.trust, authority: &self.authority }
    }
}

impl Holders {
    /// As they were when they were last written down.
    pub(super) fn restore(path: PathBuf) -> Self {
        let held = read(&path);
        Self { path, table: Mutex::new(Table { held, dirty: false }), writing: Mutex::default() }
    }

    /// A certificate was issued. The one that it replaces is its owner's to name.
    pub(super) fn issued(&self, issued: &Issued, id: &SpiffeId, trust: &Trust, replaces: Option<&str>) {
        let id = id.to_string();
        let entry = {
            let mut table = self.lock();
            let before = replaces.filter(|serial| table.held.get(*serial).is_some_and(|held| held.id == id));
            let gone = before.map(str::to_owned);
            let before = before.and_then(|serial| table.held.remove(serial));
            let held = Held {
                id,
                not_after: seconds(issued.not_after),
                authority: trust.authority.clone(),
                trust: trust.hash.clone(),
                listens: before.as_ref().is_some_and(|before| before.listens),
                asking: 0,
                seen: Some(Instant::now()),
            };
            table.held.insert(issued.serial.clone(), held.clone());
            table.dirty = true;
            table.make_room();
            Entry { gone, came: Some((issued.serial.clone(), held)) }
        };
        self.add(&entry);
    }

    /// Somebody asks for news, and says by that what it has. The guard stands for as long as it asks.
    pub(super) fn asks(&self, serial: &str, id: Option<&SpiffeId>, trust: &str) -> Asking<'_> {
        let mut table = self.lock();
        if let Some(held) = table.held.get_mut(serial)
            && id.is_none_or(|id| id.to_string() == held.id)
        {
            held.asking += 1;
            let changed = held.trust != trust || !held.listens;
            held.listens = true;
            if changed {
                held.trust = trust.to_owned();
            }
            table.dirty |= changed;
            return Asking { holders: self, serial: Some(serial.to_owned()) };
        }
        Asking { holders: self, serial: None }
    }

    /// A workload has ended and takes its certificate with it.
    pub(super) fn leaves(&self, serial: &str, id: Option<&SpiffeId>) {
        {
            let mut table = self.lock();
            let own = table.held.get(serial).is_some_and(|held| id.is_none_or(|id| id.to_string() == held.id));
            if !own {
                return;
            }
            table.held.remove(serial);
            table.dirty = true;
        }
        self.add(&Entry { gone: Some(serial.to_owned()), came: None });
    }

    /// Everybody whose certificate is good still, the soonest to end first.
    pub(crate) fn list(&self) -> Vec<Holder> {
        let mut table = self.lock();
        table.forget_expired(SystemTime::now());
        let now = Instant::now();
        let mut holders: Vec<Holder> = table
            .held
            .iter_mut()
            .map(|(serial, held)| {
                // Whoever was there before we were has its time from now on.
                let seen = *held.seen.get_or_insert(now);
                Holder {
                    serial: serial.clone(),
                    id: held.id.clone(),
                    not_after: UNIX_EPOCH + Duration::from_secs(held.not_after),
                    authority: held.authority.clone(),
                    trust: held.trust.clone(),
                    absent: held.listens && held.asking == 0 && now.duration_since(seen) > ABSENT,
                }
            })
            .collect();
        holders.sort_by(|one, other| (one.not_after, &one.serial).cmp(&(other.not_after, &other.serial)));
        holders
    }

    /// Forgets those who are absent: whoever rotates has decided not to wait for them.
    pub(super) fn forget_absent(&self) -> usize {
        let absent: Vec<String> =
            self.list().into_iter().filter(|holder| holder.absent).map(|holder| holder.serial).collect();
        let mut table = self.lock();
        for serial in &absent {
            table.held.remove(serial);
        }
        table.dirty = true;
        absent.len()
    }

    /// Writes them down, if anything has changed.
    pub(crate) fn save(&self) {
        let _writing = self.writing();
        let text = {
            let mut table = self.lock();
            if !std::mem::take(&mut table.dirty) {
                return;
            }
            table.forget_expired(SystemTime::now());
            if table.held.is_empty() {
                remove(&self.path);
                return;
            }
            serde_json::to_vec(&table.held)
        };
        let written = text.map_err(std::io::Error::other).and_then(|text| write_private(&self.path, &text));
        if let Err(error) = written {
            self.lock().dirty = true;
            tracing::warn!(path = %self.path.display(), %error, "who holds which certificate will not be known after a restart");
        }
    }

    /// Writes down one entry, at once.
    fn add(&self, entry: &Entry) {
        let _writing = self.writing();
        let line = serde_json::to_vec(entry).map_err(std::io::Error::other);
        let written = line.and_then(|line| append_private(&self.path, &[b"\n", line.as_slice(), b"\n"].concat()));
        if let Err(error) = written {
            // `save` writes it, and complains.
            tracing::debug!(path = %self.path.display(), %error, "not written down at once");
        }
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was written down: the table if there is one, and the entries behind it. A line that was cut off in its middle is not
/// there.
fn read(path: &Path) -> HashMap<String, Held> {
    let text = read_private(path, MAX_FILE).ok().flatten().unwrap_or_default();
    let mut held: HashMap<String, Held> = HashMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Ok(table) = serde_json::from_str::<HashMap<String, Held>>(line) {
            held = table;
        } else if let Ok(Entry { gone, came }) = serde_json::from_str(line) {
            gone.into_iter().for_each(|serial| drop(held.remove(&serial)));
            held.extend(came);
        }
    }
    held
}

impl Table {
    /// More than can be remembered: those that end first are forgotten.
    fn make_room(&mut self) {
        if self.held.len() <= MAX {
            return;
        }
        self.forget_expired(SystemTime::now());
        if self.held.len() > MAX
            && let Some(first) =
                self.held.iter().min_by_key(|(_, held)| held.not_after).map(|(serial, _)| serial.clone())
        {
            self.held.remove(&first);
        }
    }

    fn forget_expired(&mut self, now: SystemTime) {
        let before = self.held.len();
        self.held.retain(|_, held| held.not_after > seconds(now));
        self.dirty |= self.held.len() != before;
    }
}

/// Somebody who is waiting for news.
pub(super) struct Asking<'a> {
    holders: &'a Holders,
    serial: Option<String>,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let Some(serial) = &self.serial else { return };
        if let Some(held) = self.holders.lock().held.get_mut(serial) {
            held.asking = held.asking.saturating_sub(1);
            held.seen = Some(Instant::now());
        }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issued(serial: &str) -> Issued {
        let not_after = SystemTime::now() + Duration::from_secs(60);
        Issued { chain: Vec::new(), serial: serial.to_owned(), not_after }
    }

    fn serials(holders: &Holders) -> Vec<String> {
        let mut serials: Vec<String> = holders.list().into_iter().map(|holder| holder.serial).collect();
        serials.sort();
        serials
    }

    #[test]
    fn a_crash_forgets_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.certificates");
        let id: SpiffeId = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
        let trust =
            Trust { roots: Vec::new(), pem: String::new(), hash: "trust".into(), authority: "authority".into() };
        // Nothing is saved from here on but what is written at once.
        let first = Holders::restore(path.clone());
        first.issued(&issued("a"), &id, &trust, None);
        first.issued(&issued("b"), &id, &trust, None);
        first.save();
        first.issued(&issued("c"), &id, &trust, Some("a"));
        first.issued(&issued("d"), &id, &trust, None);
        first.leaves("b", Some(&id));
        assert_eq!(serials(&first), ["c", "d"]);
        assert_eq!(first.list(), Holders::restore(path.clone()).list());

        // Cut off in the middle of a line, which is lost, and those after it are not.
        let text = std::fs::read_to_string(&path).unwrap();
        let cut = text.find("\"gone\":\"b\"").unwrap();
        write_private(&path, &text.as_bytes()[..cut]).unwrap();
        let second = Holders::restore(path.clone());
        assert_eq!(serials(&second), ["b", "c", "d"]);
        second.issued(&issued("e"), &id, &trust, None);
        assert_eq!(serials(&Holders::restore(path)), ["b", "c", "d", "e"]);
    }
}
