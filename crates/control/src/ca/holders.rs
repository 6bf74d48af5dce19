//! Who holds which certificate, and what they believe: what a rotation waits for, and what `maille ca status` shows.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use maille_identity::SpiffeId;
use maille_identity::ca::Issued;
use maille_identity::rotation::Holding;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Trust;
use crate::token::{read_private, remove, write_private};

/// More certificates than this are not remembered one by one; the ones that end first go first.
const MAX: usize = 50_000;

const MAX_FILE: u64 = 64 << 20;

/// Somebody who asks us for news and has not for so long is absent: ended without a word, or cut off.
const ABSENT: Duration = Duration::from_secs(60);

/// Everybody, by the number of their certificate.
pub(crate) struct Holders {
    path: PathBuf,
    table: Mutex<Table>,
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
        let held = read_private(&path, MAX_FILE).ok().flatten();
        let held: HashMap<String, Held> = held.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Self { path, table: Mutex::new(Table { held, dirty: false }) }
    }

    /// A certificate was issued. The one that it replaces is its owner's to name.
    pub(super) fn issued(&self, issued: &Issued, id: &SpiffeId, trust: &Trust, replaces: Option<&str>) {
        let id = id.to_string();
        let mut table = self.lock();
        let before = replaces.filter(|serial| table.held.get(*serial).is_some_and(|held| held.id == id));
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
        table.held.insert(issued.serial.clone(), held);
        table.dirty = true;
        if table.held.len() > MAX {
            table.forget_expired(SystemTime::now());
            if table.held.len() > MAX
                && let Some(first) =
                    table.held.iter().min_by_key(|(_, held)| held.not_after).map(|(serial, _)| serial.clone())
            {
                table.held.remove(&first);
            }
        }
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
        let mut table = self.lock();
        if table.held.get(serial).is_some_and(|held| id.is_none_or(|id| id.to_string() == held.id)) {
            table.held.remove(serial);
            table.dirty = true;
        }
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

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
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
