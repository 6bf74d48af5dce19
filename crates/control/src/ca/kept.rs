//! What is kept of a CA between runs: the roots with their keys, and the key that makes tokens. One file of mode 0600.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use maille_identity::rotation::Roots;
use maille_identity::token::TokenKey;
use rustls::pki_types::PrivateKeyDer;
use serde::{Deserialize, Serialize};

use super::CaError;
use crate::token::{TokenError, TokenFile, read_private, remove, write_private};
use maille_identity::pem;

const MAX_FILE: u64 = 1 << 20;

/// The files of one CA.
pub(super) struct Kept {
    path: PathBuf,
    /// The roots alone, for everybody.
    public: PathBuf,
    holders: PathBuf,
    /// Whether others than this process's children may know this CA.
    known: AtomicBool,
}

/// What the file holds.
#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct State {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) roots: Option<Roots>,
    /// In PEM.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    token_key: String,
    /// Somebody elsewhere may know this CA: it is not to be forgotten.
    #[serde(default)]
    known: bool,
}

impl Kept {
    pub(super) fn beside(token: &TokenFile) -> Self {
        let beside = |extension: &str| token.path().with_extension(extension);
        Self {
            path: beside("ca"),
            public: beside("ca.pem"),
            holders: beside("certificates"),
            known: AtomicBool::new(false),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn holders_path(&self) -> PathBuf {
        self.holders.clone()
    }

    pub(super) fn read(&self) -> Result<State, CaError> {
        let Some(text) = read_private(&self.path, MAX_FILE)? else { return Ok(State::default()) };
        // What serde says may hold a piece of what it read.
        let broken = |_| CaError::Broken { path: self.path.clone(), reason: "it is not JSON of its shape".into() };
        let state: State = serde_json::from_str(&text).map_err(broken)?;
        self.known.store(state.known, Ordering::Relaxed);
        Ok(state)
    }

    /// Writes it as a whole or not at all.
    pub(super) fn write(&self, state: &State) -> Result<(), CaError> {
        let state = serde_json::to_vec(&State {
            roots: state.roots.clone(),
            token_key: state.token_key.clone(),
            known: state.known || self.known.load(Ordering::Relaxed),
        });
        let state = state.map_err(io::Error::other).and_then(|state| write_private(&self.path, &state));
        state.map_err(|source| TokenError::Io { path: self.path.clone(), source }.into())
    }

    /// Writes down new roots and nothing else.
    pub(super) fn write_roots(&self, roots: &Roots) -> Result<(), CaError> {
        let mut state = self.read()?;
        state.roots = Some(roots.clone());
        self.write(&state)
    }

    /// The roots alone, in a file that may be read by everybody who can reach it.
    pub(super) fn publish(&self, pem: &str) -> io::Result<()> {
        let draft = self.public.with_extension(format!("{}.new", std::process::id()));
        let _ = fs::remove_file(&draft);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&draft)?;
        file.write_all(pem.as_bytes()).and_then(|()| fs::rename(&draft, &self.public))
    }

    /// Somebody elsewhere may know this CA from now on.
    pub(super) fn keep(&self) {
        if !self.known.swap(true, Ordering::Relaxed)
            && let Err(error) = self.read().and_then(|mut state| {
                state.known = true;
                self.known.store(true, Ordering::Relaxed);
                self.write(&state)
            })
        {
            tracing::warn!(%error, "the CA may be forgotten at the next stop");
        }
    }

    /// Removes everything, unless others may know this CA.
    pub(super) fn remove_if_unknown(&self) {
        if !self.known.load(Ordering::Relaxed) {
            [&self.path, &self.public, &self.holders].into_iter().for_each(|path| remove(path));
        }
    }
}

impl State {
    /// The key that makes tokens; made when there is none.
    pub(super) fn token_key(&mut self) -> Result<TokenKey, CaError> {
        let unusable = |reason: String| CaError::Broken { path: "the key of the tokens".into(), reason };
        if self.token_key.is_empty() {
            let key = TokenKey::generate().map_err(|error| unusable(error.to_string()))?;
            self.token_key = pem::encode_key(&PrivateKeyDer::Pkcs8(key.into()));
        }
        let key = pem::key(self.token_key.as_bytes()).map_err(|error| unusable(error.to_string()))?;
        TokenKey::read(key.secret_der()).map_err(|error| unusable(error.to_string()))
    }
}
