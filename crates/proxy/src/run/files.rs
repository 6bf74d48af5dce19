//! The files that secrets are in: read when they are first needed, and again when they have changed.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use crate::tls::Materials;

/// No certificate, and no list of them, is larger.
const LARGEST: u64 = 4 << 20;

/// What is known of the files.
#[derive(Default)]
pub(super) struct Files {
    known: BTreeMap<Arc<str>, Known>,
}

struct Known {
    stamp: Result<Stamp, String>,
    content: Option<Arc<[u8]>>,
}

/// Changes when a file does.
type Stamp = (u64, u64, i64, i64, u64);

impl Files {
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Reads what has not been read yet, and what has changed.
    pub(super) fn refresh(&mut self, materials: &mut Materials) {
        let wanted: Vec<Arc<str>> = materials.files().cloned().collect();
        self.known.retain(|path, _| wanted.contains(path));
        for path in wanted {
            let stamp = stamp(&path);
            if self.known.get(&path).is_some_and(|known| known.stamp == stamp) {
                continue;
            }
            let read = stamp.clone().and_then(|_| read(&path));
            let content = read.as_ref().ok().cloned();
            // A file that was only touched is still the same.
            if content.is_none() || self.known.get(&path).is_none_or(|known| known.content != content) {
                materials.put_file(&path, read);
            }
            self.known.insert(path, Known { stamp, content });
        }
    }
}

fn stamp(path: &str) -> Result<Stamp, String> {
    let data = fs::metadata(path).map_err(|e| e.to_string())?;
    if !data.is_file() {
        return Err("it is not a file".to_owned());
    }
    Ok((data.dev(), data.ino(), data.mtime(), data.mtime_nsec(), data.size()))
}

fn read(path: &str) -> Result<Arc<[u8]>, String> {
    let mut out = Vec::new();
    let file = fs::File::open(path).map_err(|e| e.to_string())?;
    file.take(LARGEST + 1).read_to_end(&mut out).map_err(|e| e.to_string())?;
    match out.len() as u64 > LARGEST {
        true => Err("it is too large for a secret".to_owned()),
        false => Ok(out.into()),
    }
}
