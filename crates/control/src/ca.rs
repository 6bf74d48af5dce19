//! The CA of a running control plane: what it signs with, what is believed, and who holds what.

mod holders;
mod kept;
mod plugged;
mod rotate;
pub(crate) mod service;
pub mod status;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use maille_identity::ca::{DEFAULT_LEAF_TTL, Issued, KeyKind, Names, Signer};
use maille_identity::csr::Request;
use maille_identity::rotation::{Phase, Roots};
use maille_identity::token::TokenKey;
use maille_identity::{SpiffeId, TrustDomain, pem};
use maille_store::Store;
use rustls::pki_types::CertificateDer;
use tokio::sync::{Notify, watch};

use crate::token::TokenFile;
use holders::Holders;
use kept::Kept;

/// How the CA is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a workload's certificate is good for when it does not ask for less or more.
    pub leaf_ttl: Duration,
    /// The kind of key a new root gets.
    pub key: KeyKind,
    /// A folder in the layout of Istio's `cacerts`, whose CA is used instead of one of our own; watched.
    pub cacerts: Option<PathBuf>,
    /// Further names that the control plane is reached by.
    pub names: Vec<String>,
}

/// What everybody is to believe, and who signs.
#[derive(Debug)]
pub(crate) struct Trust {
    pub(crate) roots: Vec<CertificateDer<'static>>,
    pub(crate) pem: String,
    /// Tells one set of roots from another.
    pub(crate) hash: String,
    /// The key that signs, in hex.
    pub(crate) authority: String,
}

/// The CA.
pub(crate) struct Ca {
    options: Options,
    inner: Mutex<Inner>,
    trust: watch::Sender<Arc<Trust>>,
    tokens: TokenKey,
    holders: Holders,
    kept: Kept,
    /// Wakes whoever drives a rotation.
    nudge: Notify,
    /// Held by whoever changes what signs.
    changing: Mutex<()>,
}

struct Inner {
    signing: Arc<Signer>,
    /// What the control plane shows its own certificate under.
    serving: Arc<Signer>,
    source: Source,
}

/// Where what signs comes from.
enum Source {
    /// Made by us, and kept.
    Own(Roots),
    /// Given by somebody, in whose hands its rotation is.
    Plugged { from: String, content: maille_identity::ca::Cacerts },
}

/// Why the CA cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// What is kept, or was plugged in, cannot be used.
    #[error("the CA in {place}: {source}")]
    Unusable {
        /// The file or folder.
        place: String,
        /// What is wrong.
        source: maille_identity::ca::CaError,
    },
    /// What is kept cannot be read or written.
    #[error("the CA: {0}")]
    Kept(#[from] crate::token::TokenError),
    /// What is kept is none of ours.
    #[error("{} is not the state of a CA: {reason}; restore it, or remove it to begin with a new root", .path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl Default for Options {
    fn default() -> Self {
        Self { leaf_ttl: DEFAULT_LEAF_TTL, key: KeyKind::default(), cacerts: None, names: Vec::new() }
    }
}

impl Ca {
    /// The CA as it was left, or plugged in, or else a new one.
    pub(crate) fn open(
        options: Options,
        beside: &TokenFile,
        store: &Store,
        organization: &str,
    ) -> Result<Self, CaError> {
        let now = SystemTime::now();
        let kept = Kept::beside(beside);
        let mut state = kept.read()?;
        let tokens = state.token_key()?;
        let (inner, trust) = match &options.cacerts {
            Some(folder) => plugged::from_folder(folder, now)?,
            None if let Some(found) = plugged::from_store(store, now) => found?,
            None => {
                let roots = match state.roots.take() {
                    Some(roots) => roots,
                    None => Roots::steady(rotate::new_root(organization, options.key, now)?),
                };
                state.roots = Some(roots.clone());
                Inner::own(roots, now, &kept)?
            }
        };
        kept.write(&state)?;
        let ca = Self {
            holders: Holders::restore(kept.holders_path()),
            trust: watch::Sender::new(Arc::new(trust)),
            inner: Mutex::new(inner),
            options,
            tokens,
            kept,
            nudge: Notify::new(),
            changing: Mutex::new(()),
        };
        ca.publish_file();
        Ok(ca)
    }

    /// Issues a certificate to somebody proven.
    pub(crate) fn issue(
        &self,
        request: &Request,
        id: &SpiffeId,
        ttl: Option<Duration>,
        replaces: Option<&str>,
    ) -> Result<(Issued, Arc<Trust>), maille_identity::ca::CaError> {
        // Both of the same moment: a certificate goes out with the roots that it leads to.
        let (signing, trust) = {
            let inner = self.lock();
            (inner.signing.clone(), self.trust())
        };
        let ttl = ttl.unwrap_or(self.options.leaf_ttl);
        let issued = signing.issue(request, &id.clone().into(), ttl, SystemTime::now())?;
        self.holders.issued(&issued, id, &trust, replaces);
        self.nudge.notify_one();
        Ok((issued, trust))
    }

    /// Issues the control plane its own certificate, for a key it made.
    pub(crate) fn serve(&self, request: &Request, names: &Names) -> Result<Issued, maille_identity::ca::CaError> {
        let serving = self.lock().serving.clone();
        serving.issue(request, names, DEFAULT_LEAF_TTL, SystemTime::now())
    }

    /// What is believed now.
    pub(crate) fn trust(&self) -> Arc<Trust> {
        self.trust.borrow().clone()
    }

    /// What is believed, as it changes.
    pub(crate) fn trust_changes(&self) -> watch::Receiver<Arc<Trust>> {
        self.trust.subscribe()
    }

    /// Somebody asks for news, and says by that what it has. The guard stands for as long as it asks.
    pub(crate) fn asks(&self, serial: &str, id: Option<&SpiffeId>, trust: &str) -> impl Drop {
        self.nudge.notify_one();
        self.holders.asks(serial, id, trust)
    }

    /// A workload has ended and takes its certificate with it.
    pub(crate) fn leaves(&self, serial: &str, id: Option<&SpiffeId>) {
        self.holders.leaves(serial, id);
        self.nudge.notify_one();
    }

    /// Writes down who holds what.
    pub(crate) fn save(&self) {
        self.holders.save();
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// Whose token this is.
    pub(crate) fn bearer(
        &self,
        token: &str,
        trust_domain: &TrustDomain,
    ) -> Result<SpiffeId, maille_identity::token::TokenError> {
        self.tokens.verify(token, trust_domain, SystemTime::now())
    }

    /// A token for somebody elsewhere. From now on the CA is known beyond this machine, and stays.
    pub(crate) fn mint(&self, id: &SpiffeId, ttl: Duration) -> Result<String, maille_identity::token::TokenError> {
        let token = self.tokens.mint(id, ttl, SystemTime::now())?;
        self.kept.keep();
        Ok(token)
    }

    /// Forgets everything, when nobody holds a certificate of ours and nobody elsewhere knows the root.
    pub(crate) fn remove_if_unknown(&self) {
        if self.holders.list().is_empty() {
            self.kept.remove_if_unknown();
        }
    }

    /// Does not forget, whatever comes.
    pub(crate) fn keep(&self) {
        self.kept.keep();
    }

    /// Takes a new signer and new roots into use, and tells everybody.
    fn publish(&self, inner: Inner, trust: Trust) {
        {
            let mut current = self.lock();
            *current = inner;
            self.trust.send_replace(Arc::new(trust));
        }
        self.publish_file();
        self.nudge.notify_one();
    }

    /// The roots as a file, for whoever on this machine wants to check us.
    fn publish_file(&self) {
        if let Err(error) = self.kept.publish(&self.trust().pem) {
            tracing::warn!(%error, "the roots could not be written for others to read");
        }
    }

    fn phase(&self) -> Phase {
        match &self.lock().source {
            Source::Own(roots) => roots.phase,
            Source::Plugged { .. } => Phase::Steady,
        }
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// A CA of our own, as its state says.
    fn own(roots: Roots, now: SystemTime, kept: &Kept) -> Result<(Self, Trust), CaError> {
        let signer = |root: &maille_identity::rotation::Root| {
            let broken = |reason: String| CaError::Broken { path: kept.path().to_owned(), reason };
            let certificates =
                pem::certificates(root.certificate.as_bytes()).map_err(|error| broken(error.to_string()))?;
            let certificate = certificates.into_iter().next().ok_or_else(|| broken("a root is missing".into()))?;
            let key = pem::key(root.key.as_bytes()).map_err(|error| broken(error.to_string()))?;
            Signer::root(certificate, &key, now)
                .map(Arc::new)
                .map_err(|source| CaError::Unusable { place: kept.path().display().to_string(), source })
        };
        let signing = signer(&roots.signing)?;
        let beside = roots.beside.as_ref().map(signer).transpose()?;
        let serving = match (&beside, roots.phase) {
            (Some(old), Phase::Reissue) => old.clone(),
            _ => signing.clone(),
        };
        let believed = std::iter::once(&signing).chain(&beside).map(|signer| signer.certificate().clone()).collect();
        let trust = Trust::new(believed, &signing);
        Ok((Self { signing, serving, source: Source::Own(roots) }, trust))
    }
}

impl Trust {
    fn new(roots: Vec<CertificateDer<'static>>, signing: &Signer) -> Self {
        let (pem, hash) = (pem::encode_certificates(&roots), pem::fingerprint(&roots));
        Self { pem, hash, authority: pem::hex(signing.key_id()), roots }
    }
}

#[cfg(test)]
mod tests;
