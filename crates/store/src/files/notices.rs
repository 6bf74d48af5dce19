//! The kernel's notices of change: which directories to look at again, and which files somebody is still writing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind};
use notify::{Event, EventKind, INotifyWatcher, RecursiveMode, Watcher};

use super::Wake;
use super::listing::Entry;

/// A writer that pauses this long without closing the file is taken to have said what it had to say.
const PAUSE: Duration = Duration::from_secs(1);

/// The directories being watched, and what their notices say.
#[derive(Debug)]
pub(super) struct Notices {
    /// `None` when the kernel would not give us any: then only the periodic look remains.
    watcher: Option<INotifyWatcher>,
    /// Each directory with the device and inode it had, to see when another one takes its name.
    watched: BTreeMap<PathBuf, (u64, u64)>,
    /// Files written to and not closed since, with the time of the last write.
    open: HashMap<PathBuf, Instant>,
}

impl Notices {
    pub(super) fn new(wake: Sender<Wake>) -> Self {
        let handler = move |event| {
            // The receiver is gone only while the watch is being dropped.
            let _ = wake.send(Wake::Notice(event));
        };
        let watcher = INotifyWatcher::new(handler, notify::Config::default());
        if let Err(error) = &watcher {
            tracing::warn!("the kernel gives no notice of changed files ({error}); looking every few seconds instead");
        }
        Self { watcher: watcher.ok(), watched: BTreeMap::new(), open: HashMap::new() }
    }

    /// Watches exactly these directories from now on.
    pub(super) fn follow(&mut self, directories: &BTreeSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else { return };
        let wanted: BTreeMap<_, _> = directories
            .iter()
            .filter_map(|path| fs::metadata(path).ok().map(|meta| (path.clone(), (meta.dev(), meta.ino()))))
            .collect();
        self.watched.retain(|path, inode| {
            let keep = wanted.get(path) == Some(inode);
            if !keep {
                // An error means that the directory, and the watch with it, is gone already.
                let _ = watcher.unwatch(path);
            }
            keep
        });
        for (path, inode) in wanted {
            if self.watched.contains_key(&path) {
                continue;
            }
            match watcher.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.watched.insert(path, inode)),
                Err(error) => tracing::warn!(
                    "no notice of changes in {} ({error}); looking every few seconds instead",
                    path.display()
                ),
            }
        }
    }

    /// Takes one notice in. Says whether it calls for another look at the files.
    pub(super) fn take(&mut self, event: notify::Result<Event>) -> bool {
        // An error or an overflow means that notices were lost: look.
        let Ok(event) = event else { return true };
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => self.closed(&event.paths),
            // Reading is what we do ourselves.
            EventKind::Access(_) => return false,
            EventKind::Modify(ModifyKind::Data(_)) | EventKind::Create(CreateKind::File) => {
                let now = Instant::now();
                self.open.extend(event.paths.into_iter().filter(|path| !path.is_symlink()).map(|path| (path, now)));
            }
            EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_) => self.closed(&event.paths),
            _ => {}
        }
        true
    }

    /// Whether somebody is in the middle of writing this file.
    pub(super) fn being_written(&mut self, entry: &Entry) -> bool {
        match &self.watcher {
            Some(_) => {
                self.open.retain(|_, last| last.elapsed() < PAUSE);
                self.open.contains_key(&entry.noticed_as)
            }
            None => entry.stamp.age() < PAUSE,
        }
    }

    fn closed(&mut self, paths: &[PathBuf]) {
        for path in paths {
            self.open.remove(path);
        }
    }
}
