//! What each file says, and what all of them say together.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use maille_api::{Diagnostic, Severity, parse};
use maille_api::{Key, Object};

use super::listing::{Entry, Listing, Stamp, read};
use crate::Change;

/// Every file's last good word, and what is wrong with the present one.
#[derive(Debug, Default)]
pub(super) struct Said {
    files: HashMap<PathBuf, FileSaid>,
    /// The union as the store has it.
    applied: BTreeMap<Key, Arc<Object>>,
}

#[derive(Debug, Default)]
struct FileSaid {
    /// `None` when the next look must read the file whatever its stamp.
    stamp: Option<Stamp>,
    text: Option<u64>,
    /// From the last version of the file that was good as a whole.
    objects: Vec<Arc<Object>>,
    problems: Vec<Diagnostic>,
}

/// What follows from one look at the files.
pub(super) struct Outcome {
    pub(super) changes: Vec<Change>,
    pub(super) problems: Vec<Diagnostic>,
    /// A file was left alone because somebody is writing it.
    pub(super) waiting: bool,
}

impl Said {
    /// Whether this listing may say anything that is not known yet.
    pub(super) fn is_news(&self, listing: &Listing) -> bool {
        let gone = self.files.len() != listing.files.len();
        gone || listing
            .files
            .iter()
            .any(|entry| self.files.get(&entry.path).is_none_or(|f| f.stamp != Some(entry.stamp)))
    }

    /// Brings everything up to date with the files listed.
    pub(super) fn update(&mut self, listing: &Listing, mut being_written: impl FnMut(&Entry) -> bool) -> Outcome {
        let mut waiting = false;
        for entry in &listing.files {
            let said = self.files.entry(entry.path.clone()).or_default();
            if said.stamp == Some(entry.stamp) {
                continue;
            }
            if being_written(entry) {
                waiting = true;
            } else {
                said.read(&entry.path);
            }
        }
        let listed: HashMap<&Path, usize> =
            listing.files.iter().enumerate().map(|(i, e)| (e.path.as_path(), i)).collect();
        self.files.retain(|path, _| listed.contains_key(path.as_path()) || listing.cannot_tell(path));

        let mut files: Vec<_> = self.files.iter().collect();
        files.sort_by_key(|(path, _)| (listed.get(path.as_path()).copied().unwrap_or(usize::MAX), path.as_path()));
        let mut problems = faults(listing);
        problems.extend(files.iter().flat_map(|(_, said)| &said.problems).cloned());
        let (union, conflicts) = unite(files.iter().flat_map(|(_, said)| &said.objects));
        problems.extend(conflicts);
        Outcome { changes: self.turn_into(union), problems, waiting }
    }

    /// The steps from what was applied to the new union, which counts as applied from here on.
    fn turn_into(&mut self, union: BTreeMap<Key, Arc<Object>>) -> Vec<Change> {
        let gone = self.applied.keys().filter(|key| !union.contains_key(key)).cloned().map(Change::Delete);
        let puts = union.iter().filter(|(key, object)| self.applied.get(key) != Some(object));
        let changes = gone.chain(puts.map(|(_, object)| Change::Put(object.clone()))).collect();
        self.applied = union;
        changes
    }
}

impl FileSaid {
    /// Takes the file whole, or, when anything in it is wrong, keeps what it said before.
    fn read(&mut self, path: &Path) {
        let origin = path.display().to_string();
        let (text, stamp) = match read(path) {
            Ok(read) => read,
            Err(reason) => {
                (self.stamp, self.text) = (None, None);
                self.problems = vec![error(path, format!("cannot be read: {reason}")), self.kept(&origin)];
                return;
            }
        };
        self.stamp = Some(stamp).filter(Stamp::is_telling);
        let hash = hash(&text);
        if self.text.replace(hash) == Some(hash) {
            return;
        }
        let loaded = parse::load(&text, &origin);
        self.problems = loaded.diagnostics;
        if self.problems.iter().any(Diagnostic::is_error) {
            self.problems.push(self.kept(&origin));
        } else {
            self.objects = loaded.objects;
        }
    }

    /// What counts as long as the file is broken.
    fn kept(&self, origin: &str) -> Diagnostic {
        let message = match self.objects.len() {
            0 => "nothing in this file is used until it is mended".to_owned(),
            1 => "what this file said before stays in force until it is mended (1 resource)".to_owned(),
            n => format!("what this file said before stays in force until it is mended ({n} resources)"),
        };
        Diagnostic::about_file(Severity::Note, origin, message)
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

fn error(path: &Path, message: impl Into<String>) -> Diagnostic {
    Diagnostic::about_file(Severity::Error, path.display().to_string(), message)
}

/// What is wrong with the paths themselves.
fn faults(listing: &Listing) -> Vec<Diagnostic> {
    let unreadable = listing.unreadable.iter().map(|(path, reason)| {
        error(path, format!("this directory cannot be read ({reason}); what its files said stays in force"))
    });
    let unusable = listing.unusable.iter().map(|(path, reason)| {
        error(path, format!("cannot be read: {reason}; what a file of this name said stays in force"))
    });
    let missing = listing.missing.iter().map(|path| error(path, "this file is gone, and what it said with it"));
    unreadable.chain(unusable).chain(missing).collect()
}

/// Objects from several files: the first word on each stands, and every other is a fault.
pub(super) fn unite<'a>(
    objects: impl IntoIterator<Item = &'a Arc<Object>>,
) -> (BTreeMap<Key, Arc<Object>>, Vec<Diagnostic>) {
    let (mut union, mut conflicts) = (BTreeMap::<Key, Arc<Object>>::new(), Vec::new());
    for object in objects {
        match union.get(&object.key()) {
            Some(first) => conflicts.push(said_twice(first, object)),
            None => drop(union.insert(object.key(), object.clone())),
        }
    }
    (union, conflicts)
}

/// Two files claim the same object.
fn said_twice(first: &Object, second: &Object) -> Diagnostic {
    let place = |object: &Object| object.source.as_ref().map_or_else(String::new, ToString::to_string);
    let source = second.source.as_ref();
    let mut diagnostic = Diagnostic::about_file(
        Severity::Error,
        source.map_or_else(|| "".into(), |source| source.file.clone()),
        format!("defined twice: {} and {}; the first one stands", place(first), place(second)),
    );
    diagnostic.line = source.map_or(0, |source| source.line);
    diagnostic.column = usize::from(diagnostic.line > 0);
    diagnostic.end_column = diagnostic.column + 1;
    diagnostic.resource = Some(second.key().to_string());
    diagnostic.hint = Some("remove one of the two, or give it another name".into());
    diagnostic
}
