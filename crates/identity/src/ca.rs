//! The CA: a certificate with its key that signs, the roots that are believed, and the leaves it issues.
//!
//! Nothing in here reads a clock or a file: the time is handed in, and whoever keeps the key hands it in too.

mod issue;
mod load;

use std::fmt;
use std::time::{Duration, SystemTime};

use rcgen::{Issuer, KeyPair};
use rustls_pki_types::CertificateDer;

pub use issue::{Issued, Names};
pub use load::{Cacerts, KeyKind, Secret, authority, not_after, serial, subject};

/// How long a workload's certificate is good for when nobody says otherwise, as Istio's.
pub const DEFAULT_LEAF_TTL: Duration = Duration::from_secs(24 * 3600);

/// Nobody gets a certificate for longer, as from Istio.
pub const MAX_LEAF_TTL: Duration = Duration::from_secs(90 * 24 * 3600);

/// How long a root that we make is good for, as Istio's.
pub const ROOT_TTL: Duration = Duration::from_secs(3650 * 24 * 3600);

/// How far back the life of a certificate begins: clocks differ.
pub const CLOCK_SKEW: Duration = Duration::from_secs(120);

/// What signs: a certificate of ours with its key, and what leads from it to a root.
pub struct Signer {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// What is sent after a leaf: the signer's certificate and those above it, without the root.
    chain: Vec<CertificateDer<'static>>,
    not_after: SystemTime,
    key_id: Vec<u8>,
}

/// Why the CA does not work, or does not issue.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// What was plugged in cannot be used.
    #[error("{file}: {reason}")]
    Unusable {
        /// Which of the files.
        file: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The signing certificate's time is over.
    #[error("the CA's certificate has expired: replace it, or run `maille ca rotate`")]
    Expired,
    /// A life that nobody gets.
    #[error("a certificate for {} s was asked for; this CA gives at most {} s", .asked.as_secs(), .most.as_secs())]
    TooLong {
        /// What was asked for.
        asked: Duration,
        /// What there is.
        most: Duration,
    },
    /// The cryptography failed.
    #[error("the certificate could not be made: {0}")]
    Crypto(#[from] rcgen::Error),
}

impl Signer {
    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// What is sent after a leaf: the certificates that lead to a root, without the root.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// When its time is over.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// What its leaves name as their authority's key: by it a leaf tells whether the signer is still the one it comes from.
    pub fn key_id(&self) -> &[u8] {
        &self.key_id
    }
}

/// Says nothing of the key.
impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
