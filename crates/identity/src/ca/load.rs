//! Where a signer comes from: made anew, read back, or plugged in as Istio's `cacerts`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, Issuer, KeyPair, PublicKeyData, RsaKeySize};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{CaError, Names, ROOT_TTL, Signer, issue};
use crate::{SpiffeId, pem};

/// What kind of key a root gets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum KeyKind {
    /// ECDSA on P-256.
    #[default]
    EcdsaP256,
    /// RSA of 2048 bits.
    Rsa2048,
    /// RSA of 4096 bits.
    Rsa4096,
}

/// A CA that somebody plugs in: the content of the files of Istio's `cacerts`, each in PEM.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cacerts {
    /// `ca-cert.pem`: what signs.
    pub certificate: Vec<u8>,
    /// `ca-key.pem`: its key.
    pub key: Secret,
    /// `cert-chain.pem`: from what signs up to a root.
    pub chain: Vec<u8>,
    /// `root-cert.pem`: every root that is to be believed.
    pub roots: Vec<u8>,
}

/// A secret that is not printed.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(pub Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl Signer {
    /// A new root with a key of its own, for ten years. Gives the key too, for whoever keeps it.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn new_root(
        organization: &str,
        kind: KeyKind,
        now: SystemTime,
    ) -> Result<(Self, PrivateKeyDer<'static>), CaError> {
        let key = match kind {
            KeyKind::EcdsaP256 => KeyPair::generate()?,
            KeyKind::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)?,
            KeyKind::Rsa4096 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096)?,
        };
        let id = CertificateParams::default().key_identifier(&key);
        let id: String = id.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let root = issue::root(organization, &id, now, ROOT_TTL)?.self_signed(&key)?;
        let secret = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Ok((Self::new(root.into(), key, Vec::new())?, secret))
    }

    /// A root that was made before.
    ///
    /// # Errors
    /// When the two do not belong together, or cannot sign.
    pub fn root(
        certificate: CertificateDer<'static>,
        key: &PrivateKeyDer<'_>,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        let key = KeyPair::try_from(key).map_err(|error| unusable("the CA's key", error))?;
        let roots = [certificate.clone()];
        let signer = Self::new(certificate, key, Vec::new())?;
        signer.prove(&roots, now)?;
        Ok(signer)
    }

    /// What somebody plugged in, with the roots that are to be believed. It has proved that it can issue.
    ///
    /// # Errors
    /// Names the file that is wrong.
    pub fn plugged_in(files: &Cacerts, now: SystemTime) -> Result<(Self, Vec<CertificateDer<'static>>), CaError> {
        let read = |file, text: &[u8]| pem::certificates(text).map_err(|error| unusable(file, error));
        let certificate = read("ca-cert.pem", &files.certificate)?;
        let certificate = certificate.into_iter().next().ok_or_else(|| unusable("ca-cert.pem", NO_CERTIFICATE))?;
        let key = pem::key(&files.key.0).map_err(|error| unusable("ca-key.pem", error))?;
        let key = KeyPair::try_from(&key).map_err(|error| unusable("ca-key.pem", error))?;
        let roots = read("root-cert.pem", &files.roots)?;
        if roots.is_empty() {
            return Err(unusable("root-cert.pem", NO_CERTIFICATE));
        }
        let mut chain = read("cert-chain.pem", &files.chain)?;
        chain.retain(|link| !roots.contains(link) && *link != certificate);
        if !roots.contains(&certificate) {
            chain.insert(0, certificate.clone());
        }
        let signer = Self::new(certificate, key, chain)?;
        signer.prove(&roots, now)?;
        Ok((signer, roots))
    }

    fn new(
        certificate: CertificateDer<'static>,
        key: KeyPair,
        chain: Vec<CertificateDer<'static>>,
    ) -> Result<Self, CaError> {
        let (not_after, key_id) = {
            let parsed = parse(&certificate)?;
            if parsed.public_key().raw != key.subject_public_key_info() {
                return Err(unusable("ca-key.pem", "it is not the key of the CA's certificate"));
            }
            if !parsed.is_ca() {
                return Err(unusable("ca-cert.pem", "it is not the certificate of a CA: it may not sign others"));
            }
            let key_id = parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            });
            (ends(&parsed), key_id)
        };
        let key_id = key_id.unwrap_or_else(|| {
            // As rcgen will write it into the leaves.
            CertificateParams::default().key_identifier(&key)
        });
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { issuer, certificate, chain, not_after, key_id })
    }

    /// Issues a certificate to nobody and checks it as others would: whatever is wrong with the chain shows now, and not
    /// when workloads no longer believe each other.
    fn prove(&self, roots: &[CertificateDer<'static>], now: SystemTime) -> Result<(), CaError> {
        let id = SpiffeId::new(crate::TrustDomain::default(), "probe", "probe");
        let names = id.map(Names::from).unwrap_or_default();
        let issued = self.issue_for(&KeyPair::generate()?, false, &names, Duration::from_secs(60), now)?;
        let wrong = |error: webpki::Error| match error {
            webpki::Error::UnknownIssuer => unusable(
                "cert-chain.pem",
                "what the CA issues does not lead to a root in root-cert.pem: the certificates between them are missing",
            ),
            error => unusable("ca-cert.pem", format!("what the CA issues is not believed: {error}")),
        };
        let anchors = roots.iter().map(anchor_from_trusted_cert).collect::<Result<Vec<_>, _>>();
        let anchors = anchors.map_err(|error| unusable("root-cert.pem", error))?;
        let [leaf, intermediates @ ..] = issued.chain.as_slice() else { return Err(CaError::Expired) };
        let leaf = EndEntityCert::try_from(leaf).map_err(wrong)?;
        let time = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
        leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            intermediates,
            time,
            KeyUsage::server_auth(),
            None,
            None,
        )
        .map_err(wrong)?;
        Ok(())
    }
}

const NO_CERTIFICATE: &str = "there is no certificate in it";

fn unusable(file: &'static str, reason: impl ToString) -> CaError {
    CaError::Unusable { file, reason: reason.to_string() }
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CaError> {
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        _ => Err(unusable("ca-cert.pem", "it is not an X.509 certificate")),
    }
}

/// When a certificate ends; in 1970 when it is none.
pub fn not_after(certificate: &CertificateDer<'_>) -> SystemTime {
    parse(certificate).map_or(UNIX_EPOCH, |parsed| ends(&parsed))
}

/// Whose a certificate is, as people write it.
pub fn subject(certificate: &CertificateDer<'_>) -> String {
    parse(certificate).map(|parsed| parsed.subject().to_string()).unwrap_or_default()
}

/// A certificate's number, as people write it.
pub fn serial(certificate: &CertificateDer<'_>) -> String {
    parse(certificate).map(|parsed| pem::hex(parsed.raw_serial())).unwrap_or_default()
}

/// The key that has signed a certificate, as far as the certificate says, in hex.
pub fn authority(certificate: &CertificateDer<'_>) -> String {
    let Ok(parsed) = parse(certificate) else { return String::new() };
    let found = parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| pem::hex(id.0)),
        _ => None,
    });
    found.unwrap_or_default()
}

fn ends(certificate: &X509Certificate<'_>) -> SystemTime {
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(seconds)
}
