//! One look at files, without watching: what they say, and everything that is wrong with them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use maille_api::{Diagnostic, Object, Severity, parse};

use super::StartError;
use super::listing::{Looked, look, names_in, text_of};
use super::said::unite;

/// The name under which standard input is reported.
const STDIN: &str = "<stdin>";

/// What files hold.
#[derive(Debug, Default)]
pub struct Checked {
    /// How many files were read.
    pub files: usize,
    /// The resources that can be used.
    pub objects: Vec<Arc<Object>>,
    /// What is wrong, file by file.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads files, the files of directories ([`super::Watch::start`] says which), and standard input for `-`.
///
/// # Errors
/// A path that cannot be read at all. What is wrong inside a file is a diagnostic.
pub fn check(paths: &[PathBuf]) -> Result<Checked, StartError> {
    let mut checked = Checked::default();
    let mut seen = BTreeSet::new();
    let mut is_new = |path: &Path| fs::canonicalize(path).map_or(true, |resolved| seen.insert(resolved));
    for path in paths {
        let failed = |source| StartError { path: path.clone(), source };
        if path == Path::new("-") {
            checked.add(STDIN, &mut io::stdin().lock());
        } else if fs::metadata(path).map_err(failed)?.is_dir() {
            let mut nothing = true;
            for file in names_in(path).map_err(failed)?.into_iter().map(|name| path.join(name)) {
                nothing &= matches!(look(&file), Looked::Directory | Looked::Nothing);
                if !is_new(&file) {
                    continue;
                }
                let name = file.display().to_string();
                match look(&file) {
                    Looked::File(_) => match File::open(&file) {
                        Ok(mut opened) => checked.add(&name, &mut opened),
                        Err(error) => checked.unreadable(&name, &error.to_string()),
                    },
                    Looked::Unusable(reason) => checked.unreadable(&name, &reason),
                    // Gone between listing and looking, or a directory: not ours to read.
                    Looked::Directory | Looked::Nothing => {}
                }
            }
            if nothing {
                let message = "no *.yaml, *.yml or *.json directly in this directory; directories inside are not read";
                let name = path.display().to_string();
                checked.diagnostics.push(Diagnostic::about_file(Severity::Warning, name, message));
            }
        } else if is_new(path) {
            checked.add(&path.display().to_string(), &mut File::open(path).map_err(failed)?);
        }
    }
    let (union, conflicts) = unite(&checked.objects);
    checked.diagnostics.extend(conflicts);
    checked.objects = union.into_values().collect();
    Ok(checked)
}

/// The text of one file, if it is one and of a configuration's size.
///
/// # Errors
/// Why not, in words.
pub fn read(path: &Path) -> Result<String, String> {
    match look(path) {
        Looked::File(_) => text_of(&mut File::open(path).map_err(|error| error.to_string())?),
        Looked::Directory => Err("it is a directory".into()),
        Looked::Unusable(reason) => Err(reason),
        Looked::Nothing => Err("there is no such file".into()),
    }
}

impl Checked {
    /// Whether anything cannot be used.
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// How many findings are of this severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count()
    }

    fn add(&mut self, name: &str, source: &mut impl Read) {
        self.files += 1;
        match text_of(source) {
            Ok(text) => {
                let loaded = parse::load(&text, name);
                self.diagnostics.extend(loaded.diagnostics);
                for object in loaded.objects {
                    self.diagnostics.extend(parse::mesh_config_of(&object).map(|(_, found)| found).unwrap_or_default());
                    self.objects.push(object);
                }
            }
            Err(reason) => self.unreadable(name, &reason),
        }
    }

    fn unreadable(&mut self, name: &str, reason: &str) {
        self.diagnostics.push(Diagnostic::about_file(Severity::Error, name, format!("cannot be read: {reason}")));
    }
}
