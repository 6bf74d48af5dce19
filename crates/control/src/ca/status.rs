//! What `maille ca status` shows.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{Ca, Source};

/// Certificates of workloads that are listed; the others are counted.
const LISTED: usize = 20;

/// The CA, as others may see it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CaStatus {
    /// Where it comes from.
    pub source: String,
    /// How far a rotation is: `steady`, `distribute`, `reissue` or `retire`.
    pub phase: String,
    /// Every root that is believed.
    pub roots: Vec<Certificate>,
    /// What leads from workloads' certificates to a root.
    pub intermediates: Vec<Certificate>,
    /// How long a workload's certificate is good for, in seconds.
    pub leaf_ttl: u64,
    /// How many workloads hold a certificate.
    pub holders: usize,
    /// Those whose certificates end first.
    pub soonest: Vec<Holder>,
    /// Whom a rotation still waits for: the first of them.
    pub waited_for: Vec<Holder>,
    /// How many it still waits for.
    pub waiting: usize,
}

/// A certificate of a CA.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// Whose it is.
    pub subject: String,
    /// The SHA-256 of it, in hex.
    pub fingerprint: String,
    /// When it ends, in seconds since 1970.
    pub not_after: u64,
    /// Whether it signs.
    pub signs: bool,
}

/// Who holds a certificate.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// Its SPIFFE id.
    pub id: String,
    /// The certificate's number.
    pub serial: String,
    /// When it ends, in seconds since 1970.
    pub not_after: u64,
    /// Whether it has not been heard of for a while.
    pub absent: bool,
}

impl Ca {
    /// What there is to see.
    pub(crate) fn status(&self) -> CaStatus {
        let (source, phase, signer) = {
            let inner = self.lock();
            let (source, phase) = match &inner.source {
                Source::Own(roots) => (format!("its own, kept in {}", self.kept.path().display()), roots.phase),
                Source::Plugged { from, .. } => (from.clone(), maille_identity::rotation::Phase::Steady),
            };
            (source, phase, inner.signing.clone())
        };
        let trust = self.trust();
        let described = |certificate: &rustls::pki_types::CertificateDer<'static>| Certificate {
            subject: maille_identity::ca::subject(certificate),
            fingerprint: maille_identity::pem::fingerprint_of(certificate),
            not_after: seconds(maille_identity::ca::not_after(certificate)),
            signs: certificate == signer.certificate(),
        };
        let holders = self.holders.list();
        let waited_for = self.waited_for();
        CaStatus {
            source,
            phase: serde_json::to_value(phase).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default(),
            roots: trust.roots.iter().map(described).collect(),
            intermediates: signer.chain().iter().map(described).collect(),
            leaf_ttl: self.options.leaf_ttl.as_secs(),
            holders: holders.len(),
            soonest: holders.iter().take(LISTED).map(Holder::from).collect(),
            waiting: waited_for.len(),
            waited_for: waited_for.iter().take(LISTED).map(Holder::from).collect(),
        }
    }
}

impl From<&super::holders::Holder> for Holder {
    fn from(holder: &super::holders::Holder) -> Self {
        let super::holders::Holder { serial, id, not_after, absent, .. } = holder;
        Self { id: id.clone(), serial: serial.clone(), not_after: seconds(*not_after), absent: *absent }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
