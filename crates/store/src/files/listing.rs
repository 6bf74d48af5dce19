//! What is on disk right now: which files the given paths mean, and a stamp for each that changes when the file does.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// No configuration file is this large; a mistaken path may be.
const LARGEST: u64 = 32 << 20;

/// A file changed this recently may change again without its times moving on: their clock ticks coarsely.
const COARSE: Duration = Duration::from_millis(50);

/// A path somebody asked to watch.
#[derive(Clone, Debug)]
pub(super) enum Root {
    /// One file, whatever its name.
    File(PathBuf),
    /// The YAML and JSON files directly inside.
    Directory(PathBuf),
}

/// The files behind the roots, in the order in which they count: by root, then by name.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Listing {
    pub(super) files: Vec<Entry>,
    /// Directories that could not be listed.
    pub(super) unreadable: Vec<(PathBuf, String)>,
    /// What has a file's name and is none, with the reason: a pipe, a link that leads nowhere, a directory where a file was named.
    pub(super) unusable: Vec<(PathBuf, String)>,
    /// Files named outright that are not there.
    pub(super) missing: Vec<PathBuf>,
    /// The directories in which changes to these files can be noticed, symbolic links resolved.
    pub(super) directories: BTreeSet<PathBuf>,
}

/// One file of a [`Listing`].
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// As people know it.
    pub(super) path: PathBuf,
    /// Its directory resolved, its own name not: as the kernel's notices name it.
    pub(super) noticed_as: PathBuf,
    pub(super) stamp: Stamp,
}

/// Differs when the file is another one or was written to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Root {
    /// Says what a path is, or why it cannot be watched.
    pub(super) fn of(path: PathBuf) -> io::Result<Self> {
        let meta = fs::metadata(&path)?;
        if meta.is_dir() {
            fs::read_dir(&path)?;
            Ok(Self::Directory(path))
        } else if meta.is_file() {
            Ok(Self::File(path))
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a file nor a directory, so it cannot be watched"))
        }
    }
}

impl Listing {
    pub(super) fn of(roots: &[Root]) -> Self {
        let mut listing = Self::default();
        let mut seen = BTreeSet::new();
        for root in roots {
            match root {
                Root::File(path) => match look(path) {
                    Looked::File(meta) => listing.add(path.clone(), &meta, &mut seen),
                    Looked::Directory => listing.is_no_file(path, "it is a directory"),
                    Looked::Unusable(reason) => listing.is_no_file(path, &reason),
                    Looked::Nothing => {
                        listing.missing.push(path.clone());
                        listing.directories.extend(directory_of(path));
                    }
                },
                Root::Directory(path) => {
                    listing.directories.extend(fs::canonicalize(path));
                    match names_in(path) {
                        Ok(names) => {
                            for path in names.into_iter().map(|name| path.join(name)) {
                                match look(&path) {
                                    Looked::File(meta) => listing.add(path, &meta, &mut seen),
                                    Looked::Unusable(reason) => listing.is_no_file(&path, &reason),
                                    // Gone between listing and looking, or a directory: not ours to read.
                                    Looked::Directory | Looked::Nothing => {}
                                }
                            }
                        }
                        Err(error) => listing.unreadable.push((path.clone(), error.to_string())),
                    }
                }
            }
        }
        listing
    }

    /// Adds a file once, by whatever paths and links it is reached.
    fn add(&mut self, path: PathBuf, meta: &Metadata, seen: &mut BTreeSet<PathBuf>) {
        let resolved = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        if let Some(target) = resolved.parent() {
            self.directories.insert(target.to_owned());
        }
        let Some((directory, name)) = directory_of(&path).zip(path.file_name()) else { return };
        let noticed_as = directory.join(name);
        self.directories.insert(directory);
        if seen.insert(resolved) {
            self.files.push(Entry { path, noticed_as, stamp: Stamp::of(meta) });
        }
    }

    fn is_no_file(&mut self, path: &Path, reason: &str) {
        self.unusable.push((path.to_owned(), reason.to_owned()));
        self.directories.extend(directory_of(path));
    }

    /// Whether a file that is not listed still counts: its directory could not be read, or something that is no file
    /// has taken its place.
    pub(super) fn cannot_tell(&self, path: &Path) -> bool {
        self.unreadable.iter().any(|(directory, _)| path.parent() == Some(directory))
            || self.unusable.iter().any(|(there, _)| path == there)
    }
}

/// What stands at a path that should be a file.
pub(super) enum Looked {
    File(Metadata),
    Directory,
    /// Something that cannot be read, and why.
    Unusable(String),
    Nothing,
}

/// Looks without opening: opening a pipe waits for its writer.
pub(super) fn look(path: &Path) -> Looked {
    match fs::metadata(path) {
        Ok(meta) if meta.is_file() => Looked::File(meta),
        Ok(meta) if meta.is_dir() => Looked::Directory,
        Ok(_) => Looked::Unusable("it is neither a file nor a directory".into()),
        Err(error) if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink()) => {
            Looked::Unusable(format!("it is a link that leads to no file: {error}"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Looked::Nothing,
        Err(error) => Looked::Unusable(error.to_string()),
    }
}

/// The names that count in a directory, sorted: YAML and JSON, and neither hidden nor an editor's own.
pub(super) fn names_in(directory: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if is_configuration(&name.to_string_lossy()) {
            names.insert(PathBuf::from(name));
        }
    }
    Ok(names)
}

/// Hidden files are editors' temporaries (`.routes.yaml.swp`, `.#routes.yaml`) or a mount's own (`..data`).
pub(super) fn is_configuration(name: &str) -> bool {
    let wanted = [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end));
    wanted && !name.starts_with('.') && !name.starts_with('#')
}

fn directory_of(path: &Path) -> Option<PathBuf> {
    let parent = path.parent()?;
    fs::canonicalize(if parent.as_os_str().is_empty() { Path::new(".") } else { parent }).ok()
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// How long ago the file was last written to, by the clock.
    pub(super) fn age(&self) -> Duration {
        let (seconds, nanos) = self.modified;
        let since = Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanos).unwrap_or(0));
        (SystemTime::UNIX_EPOCH + since).elapsed().unwrap_or_default()
    }

    /// Whether a write that follows at once would show in the stamp.
    pub(super) fn is_telling(&self) -> bool {
        self.age() > COARSE
    }
}

/// The whole text of a file, and the stamp of just what was read.
pub(super) fn read(path: &Path) -> Result<(String, Stamp), String> {
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    let text = text_of(&mut file)?;
    Ok((text, Stamp::of(&file.metadata().map_err(|error| error.to_string())?)))
}

/// Everything that can be read here, if it is text and of a configuration's size.
pub(super) fn text_of(source: &mut impl Read) -> Result<String, String> {
    let mut bytes = Vec::new();
    source.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > LARGEST {
        return Err(format!("more than {} MiB is no configuration", LARGEST >> 20));
    }
    String::from_utf8(bytes).map_err(|error| {
        format!("not UTF-8 text: the byte at offset {} fits no character", error.utf8_error().valid_up_to())
    })
}
