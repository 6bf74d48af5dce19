//! Chains that were found good. The same few are shown with every connection, and asked about again when a session is taken up.
//!
//! Nothing is found good that would not be checked with the same result: what a chain is checked against never changes within one
//! verifier (other roots make another one), and an entry counts only while every certificate that was shown is in its time. Revocation lists
//! end by themselves, so with any nothing is kept. Who shows a chain still has to prove that the key is theirs.

use std::collections::HashMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use rustls::pki_types::{CertificateDer, UnixTime};

use crate::x509::PeerCertificate;

/// More than these are not kept: then all are forgotten, and checked once more.
const MOST: usize = 256;

/// Chains by their digest.
#[derive(Default)]
pub(super) struct Known(Mutex<HashMap<Digest, Good>>);

/// Of a chain, and of what it was shown for.
pub(super) type Digest = [u8; 32];

struct Good {
    leaf: Arc<PeerCertificate>,
    /// When all of its certificates are in their time, in Unix seconds.
    time: RangeInclusive<i64>,
}

impl Known {
    /// What the leaf of a chain says that was found good, and would be now.
    pub(super) fn find(&self, chain: &Digest, now: UnixTime) -> Option<Arc<PeerCertificate>> {
        let now = i64::try_from(now.as_secs()).ok()?;
        self.all().get(chain).filter(|good| good.time.contains(&now)).map(|good| good.leaf.clone())
    }

    /// Keeps one that was just found good.
    pub(super) fn keep(&self, digest: Digest, leaf: PeerCertificate, others: &[CertificateDer<'_>]) {
        let (mut from, mut until) = (leaf.not_before, leaf.not_after);
        for other in others {
            let Ok(other) = PeerCertificate::parse(other) else { return };
            from = from.max(other.not_before);
            until = until.min(other.not_after);
        }
        let mut all = self.all();
        if all.len() >= MOST {
            all.clear();
        }
        all.insert(digest, Good { leaf: Arc::new(leaf), time: from..=until });
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Digest, Good>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The digest of a chain that a server, or a client, has shown.
pub(super) fn digest(chain: &[CertificateDer<'_>], is_server: bool) -> Digest {
    let mut context = Context::new(&SHA256);
    context.update(&[is_server.into()]);
    for certificate in chain {
        context.update(&(certificate.len() as u64).to_be_bytes());
        context.update(certificate);
    }
    let mut digest = Digest::default();
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Known({})", self.all().len())
    }
}
