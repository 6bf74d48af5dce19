//! A leaf: what is in it, and what is sent with it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;

use super::{CLOCK_SKEW, CaError, MAX_LEAF_TTL, Signer};
use crate::csr::Request;
use crate::{SpiffeId, pem};

/// The longest common name (RFC 5280, appendix A).
const MAX_COMMON_NAME: usize = 64;

/// Whom a leaf is for. Proven, not asked for.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The workload.
    pub id: Option<SpiffeId>,
    /// The names a server is reached by.
    pub dns: Vec<String>,
    /// The addresses a server is reached at.
    pub addresses: Vec<std::net::IpAddr>,
}

/// A leaf that was issued.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The leaf, and what leads from it to a root; not the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its number, as people write it.
    pub serial: String,
    /// When it is over.
    pub not_after: SystemTime,
}

impl Issued {
    /// The chain in PEM, one certificate each.
    pub fn pem(&self) -> impl Iterator<Item = String> + '_ {
        self.chain.iter().map(|certificate| pem::encode_certificates([certificate]))
    }
}

impl From<SpiffeId> for Names {
    fn from(id: SpiffeId) -> Self {
        Self { id: Some(id), ..Self::default() }
    }
}

impl Signer {
    /// Issues a certificate for the key of a request. It ends no later than the signer's own.
    ///
    /// # Errors
    /// When a longer life is asked for than anybody gets, or the signer's own is over.
    pub fn issue(&self, request: &Request, names: &Names, ttl: Duration, now: SystemTime) -> Result<Issued, CaError> {
        self.issue_for(&request.key, request.wants_common_name, names, ttl, now)
    }

    pub(super) fn issue_for(
        &self,
        key: &impl PublicKeyData,
        wants_common_name: bool,
        names: &Names,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Issued, CaError> {
        if ttl > MAX_LEAF_TTL {
            return Err(CaError::TooLong { asked: ttl, most: MAX_LEAF_TTL });
        }
        if now >= self.not_after {
            return Err(CaError::Expired);
        }
        let not_after = (now + ttl).min(self.not_after);
        let serial = serial()?;
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        live(&mut params, now, not_after);
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names.alternatives()?;
        let common_name = names.id.as_ref().map(ToString::to_string).filter(|name| name.len() <= MAX_COMMON_NAME);
        if let Some(name) = common_name.filter(|_| wants_common_name) {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(key, &self.issuer)?;
        let chain = std::iter::once(leaf.into()).chain(self.chain.iter().cloned()).collect();
        let serial = serial.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Issued { chain, serial, not_after })
    }
}

impl Names {
    fn alternatives(&self) -> Result<Vec<SanType>, CaError> {
        let uri = |id: &SpiffeId| Ia5String::try_from(id.to_string()).map(SanType::URI);
        let dns = |name: &String| Ia5String::try_from(name.as_str()).map(SanType::DnsName);
        let addresses = self.addresses.iter().map(|address| Ok(SanType::IpAddress(*address)));
        let all = self.id.iter().map(uri).chain(self.dns.iter().map(dns)).chain(addresses);
        Ok(all.collect::<Result<_, _>>()?)
    }
}

/// What a root of ours is like.
pub(super) fn root(
    name: &str,
    key_id_text: &str,
    now: SystemTime,
    ttl: Duration,
) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&serial()?));
    live(&mut params, now, now + ttl);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, name);
    // Roots that follow one another are told apart by people and programs alike.
    params.distinguished_name.push(DnType::CommonName, format!("maille root {key_id_text}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// 128 random bits. The first is never set (numbers are positive), and the first byte is never 0 (they are written as short
/// as can be).
fn serial() -> Result<[u8; 16], CaError> {
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| CaError::Crypto(rcgen::Error::RingUnspecified))?;
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(serial)
}

/// From now, allowing for clocks that are behind, to an end; to the second, as certificates have it.
fn live(params: &mut CertificateParams, now: SystemTime, not_after: SystemTime) {
    let date = |time: SystemTime| {
        let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
    };
    params.not_before = date(now.checked_sub(CLOCK_SKEW).unwrap_or(UNIX_EPOCH));
    params.not_after = date(not_after);
}
