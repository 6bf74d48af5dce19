//! Keeps a store in step with files on disk: saved is live.
//!
//! A file counts whole or not at all: one that is broken keeps what its last good version said, and the fault is
//! reported until it is mended. Editors and mounts replace files in many ways (write a temporary and rename it, truncate
//! and write, swap a symbolic link under a directory); so nothing is read before two looks a moment apart agree, and
//! nothing that a writer still holds open after writing. The kernel's notices make this quick, and a look every few
//! seconds makes it certain.

mod listing;
mod notices;
mod said;

mod once;

pub use once::{Checked, check, read};

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use maille_api::Diagnostic;
use tokio::sync::watch;

use crate::Store;
use listing::{Listing, Root};
use notices::Notices;
use said::{Outcome, Said};

/// The origin of everything that comes from files.
pub const ORIGIN: &str = "files";

/// Two looks this far apart must agree before anything is read.
const QUIET: Duration = Duration::from_millis(60);

/// Looks that never agree (a directory that is written to without end) are cut off after this many.
const LOOKS: usize = 50;

/// How often to look when no notice comes.
const RESCAN: Duration = Duration::from_secs(2);

/// How often to look while somebody is writing.
const WAITING: Duration = Duration::from_millis(200);

/// Files and directories being watched. Dropping it ends the watch and leaves the store as it is.
#[derive(Debug)]
pub struct Watch {
    problems: Arc<Problems>,
    wake: Sender<Wake>,
    thread: Option<JoinHandle<()>>,
}

/// Why a path cannot be watched at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {source}", path.display())]
pub struct StartError {
    /// The path as it was given.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// What the watching thread waits for.
enum Wake {
    Notice(notify::Result<notify::Event>),
    Stop,
}

/// The current faults, and a count of their changes.
#[derive(Debug)]
struct Problems {
    list: Mutex<Vec<Diagnostic>>,
    version: watch::Sender<u64>,
}

impl Watch {
    /// Loads the paths into the store and keeps watching them. What they say is in the store when this returns; what
    /// is wrong with them is in [`Watch::problems`], and keeps nobody from starting.
    ///
    /// In a directory the files `*.yaml`, `*.yml` and `*.json` directly inside count, hidden ones aside.
    ///
    /// # Errors
    /// A path that does not exist, cannot be read, or is neither a file nor a directory.
    pub fn start(paths: Vec<PathBuf>, store: Arc<Store>) -> Result<Self, StartError> {
        let roots = paths
            .into_iter()
            .map(|path| Root::of(path.clone()).map_err(|source| StartError { path, source }))
            .collect::<Result<Vec<_>, _>>()?;
        let (wake, woken) = mpsc::channel();
        let problems = Arc::new(Problems { list: Mutex::default(), version: watch::Sender::new(0) });
        let mut follower = Follower {
            notices: Notices::new(wake.clone()),
            roots,
            woken,
            looked: Listing::default(),
            said: Said::default(),
            store,
            problems: problems.clone(),
        };
        follower.load();
        let thread = thread::Builder::new()
            .name("watch-files".into())
            .spawn(move || follower.run())
            .map_err(|source| StartError { path: PathBuf::new(), source })?;
        Ok(Self { problems, wake, thread: Some(thread) })
    }

    /// Everything that is wrong with the files at this moment.
    pub fn problems(&self) -> Vec<Diagnostic> {
        self.problems.list.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells when [`Watch::problems`] has changed.
    pub fn problems_changed(&self) -> watch::Receiver<u64> {
        self.problems.version.subscribe()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.wake.send(Wake::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The watching thread's own.
struct Follower {
    roots: Vec<Root>,
    notices: Notices,
    woken: Receiver<Wake>,
    /// What the last look found.
    looked: Listing,
    said: Said,
    store: Arc<Store>,
    problems: Arc<Problems>,
}

impl Follower {
    /// The first look: nothing is known yet, so there is nothing to protect from a writer.
    fn load(&mut self) {
        let listing = Listing::of(&self.roots);
        self.notices.follow(&listing.directories);
        let outcome = self.said.update(&listing, |_| false);
        self.looked = listing;
        self.publish(outcome);
    }

    fn run(mut self) {
        let mut patience = RESCAN;
        loop {
            let look = match self.woken.recv_timeout(patience) {
                Ok(Wake::Notice(event)) => self.notices.take(event),
                Err(RecvTimeoutError::Timeout) => true,
                Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            };
            if look {
                let Some(listing) = self.settled() else { return };
                if listing == self.looked && !self.said.is_news(&listing) {
                    continue;
                }
                self.notices.follow(&listing.directories);
                let notices = &mut self.notices;
                let outcome = self.said.update(&listing, |entry| notices.being_written(entry));
                patience = if outcome.waiting { WAITING } else { RESCAN };
                self.looked = listing;
                self.publish(outcome);
            }
        }
    }

    /// Looks until two looks agree, taking in the notices that come meanwhile. `None` when told to stop.
    fn settled(&mut self) -> Option<Listing> {
        let mut listing = Listing::of(&self.roots);
        if !self.said.is_news(&listing) {
            return Some(listing);
        }
        for _ in 0..LOOKS {
            thread::sleep(QUIET);
            while let Ok(wake) = self.woken.try_recv() {
                match wake {
                    Wake::Notice(event) => drop(self.notices.take(event)),
                    Wake::Stop => return None,
                }
            }
            let again = Listing::of(&self.roots);
            if again == listing {
                break;
            }
            listing = again;
        }
        Some(listing)
    }

    fn publish(&mut self, outcome: Outcome) {
        if !outcome.changes.is_empty() {
            self.store.apply(ORIGIN, outcome.changes);
        }
        let mut list = self.problems.list.lock().unwrap_or_else(PoisonError::into_inner);
        if *list != outcome.problems {
            *list = outcome.problems;
            drop(list);
            self.problems.version.send_modify(|version| *version += 1);
        }
    }
}

#[cfg(test)]
mod tests;
