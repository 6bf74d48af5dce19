//! Certificates for TLS, and how the other side's is checked: its signatures against roots, revocation lists, digests and
//! names, as Envoy does it.

mod known;

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, TrustAnchor, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, CipherSuite, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList, RevocationCheckDepth,
    RevocationOptionsBuilder, UnknownStatusPolicy,
};

use self::known::Known;
use crate::x509::{self, PeerCertificate, dns_matches};
use crate::{TrustDomain, ocsp};

/// A certificate chain with its key, ready to be shown, and what it says.
#[derive(Debug)]
pub struct Certificate {
    /// For rustls.
    pub key: Arc<CertifiedKey>,
    /// What the leaf says.
    pub leaf: Arc<PeerCertificate>,
    /// The same with a response about it, which is shown until then (Unix seconds).
    stapled: Option<(Arc<CertifiedKey>, i64)>,
}

/// Certificates that are trusted to sign others.
pub struct Roots {
    anchors: Vec<TrustAnchor<'static>>,
    /// As they are: a certificate that stands here itself needs no signature.
    certificates: Vec<CertificateDer<'static>>,
}

/// What is wrong with a secret. It says nothing of what is in it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BadSecret {
    /// No certificates where there should be some.
    #[error("there is no certificate in it (PEM, `-----BEGIN CERTIFICATE-----`)")]
    NoCertificate,
    /// Something that calls itself a certificate.
    #[error("certificate {0} cannot be read: {1}")]
    Certificate(usize, String),
    /// No key where there should be one.
    #[error("there is no private key that can be read in it (PEM, PKCS#8, PKCS#1 or SEC1, not encrypted)")]
    NoKey,
    /// A key that cannot sign.
    #[error("the private key is of no kind that we can use: RSA from 2048 bits, ECDSA or Ed25519")]
    Key,
    /// A key for another certificate.
    #[error("the private key does not belong to the first certificate")]
    Mismatch,
    /// An OCSP response.
    #[error("the OCSP response cannot be used: {0}")]
    Staple(&'static str),
    /// An OCSP response about another certificate.
    #[error("the OCSP response is about another certificate")]
    StapleOfAnother,
    /// A revocation list.
    #[error("the certificate revocation list cannot be read: {0}")]
    RevocationList(String),
}

impl Certificate {
    /// Reads a chain and its key from PEM.
    pub fn read(chain: &[u8], key: &[u8]) -> Result<Certificate, BadSecret> {
        let chain = certificates(chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| BadSecret::NoKey)?;
        Certificate::new(chain, key)
    }

    /// Of a chain, leaf first, and its key.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Certificate, BadSecret> {
        let leaf = chain.first().ok_or(BadSecret::NoCertificate)?;
        let leaf = PeerCertificate::parse(leaf).map_err(|e| BadSecret::Certificate(1, e.to_string()))?;
        let key = provider().key_provider.load_private_key(key).map_err(|_| BadSecret::Key)?;
        let key = CertifiedKey::new(chain, key);
        match key.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(_) => return Err(BadSecret::Mismatch),
        }
        Ok(Certificate { key: Arc::new(key), leaf: Arc::new(leaf), stapled: None })
    }

    /// With an OCSP response about it (DER); without any when that is empty.
    pub fn stapled(mut self, response: &[u8]) -> Result<Certificate, BadSecret> {
        if response.is_empty() {
            return Ok(self);
        }
        let read = ocsp::read(response).map_err(BadSecret::Staple)?;
        // Envoy goes by the number alone.
        if x509::hex(x509::trimmed(&read.serial)) != self.leaf.serial {
            return Err(BadSecret::StapleOfAnother);
        }
        let key = CertifiedKey { ocsp: Some(response.to_vec()), ..(*self.key).clone() };
        self.stapled = read.until.map(|until| (Arc::new(key), until));
        Ok(self)
    }

    /// What is shown now, in seconds of Unix: what has been said of it no longer than it counts (Envoy: LENIENT_STAPLING).
    pub fn shown(&self, now: i64) -> &Arc<CertifiedKey> {
        match &self.stapled {
            Some((stapled, until)) if now <= *until => stapled,
            _ => &self.key,
        }
    }
}

impl Roots {
    /// Reads certificates from PEM.
    pub fn read(pem: &[u8]) -> Result<Roots, BadSecret> {
        Roots::new(certificates(pem)?)
    }

    /// Of certificates.
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Roots, BadSecret> {
        if certificates.is_empty() {
            return Err(BadSecret::NoCertificate);
        }
        let anchor = |(i, der): (usize, &CertificateDer<'static>)| match webpki::anchor_from_trusted_cert(der) {
            Ok(anchor) => Ok(anchor.to_owned()),
            Err(e) => Err(BadSecret::Certificate(i + 1, e.to_string())),
        };
        let anchors = certificates.iter().enumerate().map(anchor).collect::<Result<_, _>>()?;
        Ok(Roots { anchors, certificates })
    }

    /// Those that the system trusts, as far as they can be read.
    pub fn of_system() -> Roots {
        let certificates = rustls_native_certs::load_native_certs().certs;
        let anchors = certificates
            .iter()
            .filter_map(|der| Some(webpki::anchor_from_trusted_cert(der).ok()?.to_owned()))
            .collect();
        Roots { anchors, certificates }
    }

    /// These and others.
    pub fn and(&self, others: &Roots) -> Roots {
        Roots {
            anchors: [self.anchors.as_slice(), &others.anchors].concat(),
            certificates: [self.certificates.as_slice(), &others.certificates].concat(),
        }
    }

    /// The certificates, as they are.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.anchors.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roots").field("len", &self.anchors.len()).finish_non_exhaustive()
    }
}

/// Certificates that count no more, by who signed them.
#[derive(Clone, Debug)]
pub struct RevocationList(Arc<CertRevocationList<'static>>);

/// Reads revocation lists from PEM.
pub fn revocation_lists(pem: &[u8]) -> Result<Vec<RevocationList>, BadSecret> {
    let bad = |e: &dyn fmt::Display| BadSecret::RevocationList(e.to_string());
    let lists = CertificateRevocationListDer::pem_slice_iter(pem).map(|der| {
        let der = der.map_err(|e| bad(&e))?;
        let list = OwnedCertRevocationList::from_der(&der).map_err(|e| bad(&e))?;
        Ok(RevocationList(Arc::new(list.into())))
    });
    let lists: Vec<_> = lists.collect::<Result<_, _>>()?;
    if lists.is_empty() { Err(bad(&"there is none in it (PEM, `-----BEGIN X509 CRL-----`)")) } else { Ok(lists) }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, BadSecret> {
    let found: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
        .enumerate()
        .map(|(i, der)| der.map_err(|e| BadSecret::Certificate(i + 1, e.to_string())))
        .collect::<Result<_, _>>()?;
    if found.is_empty() { Err(BadSecret::NoCertificate) } else { Ok(found) }
}

/// The cryptography that everything here uses.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    let make = || {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        // As Envoy has it: with hashes of 256 bits, which processors compute themselves, a handshake takes a tenth less.
        let long_keys = |suite: CipherSuite| suite.as_str().is_some_and(|name| name.contains("AES_256"));
        provider.cipher_suites.sort_by_key(|suite| long_keys(suite.suite()));
        Arc::new(provider)
    };
    PROVIDER.get_or_init(make).clone()
}

/// Says whether a certificate has one of the names that are wanted.
pub type Names = Arc<dyn Fn(&PeerCertificate) -> bool + Send + Sync>;

/// What the other side's certificate must be. The default takes any.
#[derive(Default)]
pub struct Checks {
    /// Who must have signed it; `None` is anybody.
    pub roots: Option<Arc<Roots>>,
    /// Certificates that count no more; none is no check.
    pub revoked: Vec<RevocationList>,
    /// Whether only the leaf is looked for among them.
    pub revoked_leaf_only: bool,
    /// Whether certificates whose time is over are good enough.
    pub allow_expired: bool,
    /// Whether a certificate that nobody trusted has signed is taken all the same.
    pub accept_untrusted: bool,
    /// The most certificates between the root and the leaf.
    pub max_depth: Option<u32>,
    /// The certificate must have one of these SHA-256 digests, or its key one of [`Checks::keys`].
    pub hashes: Vec<[u8; 32]>,
    /// SHA-256 digests of keys.
    pub keys: Vec<[u8; 32]>,
    /// The names of which it must have one.
    pub names: Option<Names>,
    /// Whether it must be for the name that was asked for.
    pub server_name: bool,
}

/// Checks the other side's certificate.
pub struct PeerVerifier {
    checks: Checks,
    /// Whether a client must show a certificate.
    mandatory: bool,
    algorithms: WebPkiSupportedAlgorithms,
    hints: Vec<DistinguishedName>,
    known: Known,
}

impl PeerVerifier {
    /// That makes these checks. `mandatory`: a client without a certificate is refused.
    pub fn new(checks: Checks, mandatory: bool) -> PeerVerifier {
        let roots = checks.roots.iter().flat_map(|roots| &roots.anchors);
        let hints = roots.map(|anchor| DistinguishedName::in_sequence(&anchor.subject)).collect();
        let algorithms = provider().signature_verification_algorithms;
        PeerVerifier { checks, mandatory, algorithms, hints, known: Known::default() }
    }

    /// Whether anything is checked at all.
    pub fn checks_anything(&self) -> bool {
        let Checks { roots, hashes, keys, accept_untrusted, .. } = &self.checks;
        (roots.is_some() && !accept_untrusted) || !hashes.is_empty() || !keys.is_empty()
    }

    /// Checks a chain, leaf first. For sessions that are taken up again too: what was good then may not be so now.
    pub fn check(
        &self,
        chain: &[CertificateDer<'_>],
        server_name: Option<&ServerName<'_>>,
        is_server: bool,
        now: UnixTime,
    ) -> Result<(), Error> {
        let (leaf, intermediates) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
        if let Some(peer) = self.known(chain, is_server, now) {
            return self.named(&peer, server_name);
        }
        let usage = if is_server { KeyUsage::server_auth() } else { KeyUsage::client_auth() };
        let checks = &self.checks;
        if let Some(roots) = checks.roots.as_ref().filter(|_| !checks.accept_untrusted) {
            self.trusted(roots, leaf, intermediates, usage, now)?;
        }
        if !checks.hashes.is_empty() || !checks.keys.is_empty() {
            self.pinned(leaf)?;
        }
        if checks.roots.is_none() && checks.names.is_none() && !checks.server_name {
            return Ok(());
        }
        let peer = PeerCertificate::parse(leaf).map_err(|_| Error::from(CertificateError::BadEncoding))?;
        self.named(&peer, server_name)?;
        if self.keeps() {
            self.known.keep(known::digest(chain, is_server), peer, intermediates);
        }
        Ok(())
    }

    /// What the leaf of a chain says, when the chain was found good before and still is, but for the name that is asked for.
    pub fn known(&self, chain: &[CertificateDer<'_>], is_server: bool, now: UnixTime) -> Option<Arc<PeerCertificate>> {
        if self.keeps() { self.known.find(&known::digest(chain, is_server), now) } else { None }
    }

    /// Whether a chain that was found good is so again for as long as its certificates are in their time.
    fn keeps(&self) -> bool {
        let Checks { roots, revoked, allow_expired, .. } = &self.checks;
        roots.is_some() && revoked.is_empty() && !allow_expired
    }

    fn named(&self, peer: &PeerCertificate, server_name: Option<&ServerName<'_>>) -> Result<(), Error> {
        let checks = &self.checks;
        let named = checks.names.as_ref().is_none_or(|names| names(peer));
        let asked = !checks.server_name || server_name.is_some_and(|name| is_for(peer, name));
        if is_unambiguous(peer) && named && asked { Ok(()) } else { Err(unwanted_names(peer)) }
    }

    fn trusted(
        &self,
        roots: &Roots,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        usage: KeyUsage,
        now: UnixTime,
    ) -> Result<(), Error> {
        let checks = &self.checks;
        if roots.certificates.iter().any(|root| root == leaf) {
            return self.in_time(leaf, now);
        }
        let end = EndEntityCert::try_from(leaf).map_err(certificate_error)?;
        let revoked: Vec<&CertRevocationList<'static>> = checks.revoked.iter().map(|list| &*list.0).collect();
        let mut time = now;
        // Each certificate of a chain may be out of date for itself.
        for _ in 0..=8 {
            let revocation = match RevocationOptionsBuilder::new(&revoked) {
                Ok(builder) => Some(
                    builder
                        .with_depth(match checks.revoked_leaf_only {
                            true => RevocationCheckDepth::EndEntity,
                            false => RevocationCheckDepth::Chain,
                        })
                        .with_status_policy(UnknownStatusPolicy::Deny)
                        .with_expiration_policy(ExpirationPolicy::Enforce)
                        .build(),
                ),
                // There are no lists.
                Err(_) => None,
            };
            let depth = checks.max_depth;
            let verify_path = |path: &webpki::VerifiedPath<'_>| match depth {
                Some(most) if path.intermediate_certificates().count() > most as usize => {
                    Err(webpki::Error::MaximumPathDepthExceeded)
                }
                _ => Ok(()),
            };
            let verified = end.verify_for_usage(
                self.algorithms.all,
                &roots.anchors,
                intermediates,
                time,
                usage,
                revocation,
                Some(&verify_path),
            );
            match verified {
                Ok(_) => return Ok(()),
                Err(webpki::Error::CertExpired { not_after, .. }) if checks.allow_expired && not_after < time => {
                    time = not_after;
                }
                Err(webpki::Error::CertNotValidYet { not_before, .. }) if checks.allow_expired && not_before > time => {
                    time = not_before;
                }
                Err(error) => return Err(certificate_error(error)),
            }
        }
        Err(CertificateError::Expired.into())
    }

    /// Whether a certificate that is trusted itself is so now.
    fn in_time(&self, leaf: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
        let peer = PeerCertificate::parse(leaf).map_err(|_| Error::from(CertificateError::BadEncoding))?;
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        match () {
            () if self.checks.allow_expired => Ok(()),
            () if now < peer.not_before => Err(CertificateError::NotValidYet.into()),
            () if now > peer.not_after => Err(CertificateError::Expired.into()),
            () => Ok(()),
        }
    }

    fn pinned(&self, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        let end = EndEntityCert::try_from(leaf).map_err(certificate_error)?;
        let is = |known: &[[u8; 32]], bytes: &[u8]| {
            let own = digest(&SHA256, bytes);
            known.iter().any(|hash| hash == own.as_ref())
        };
        let key = end.subject_public_key_info();
        match is(&self.checks.hashes, leaf) || is(&self.checks.keys, &key) {
            true => Ok(()),
            false => Err(other(Unwanted::Digest)),
        }
    }
}

/// Why a certificate is not the one that is wanted, in Envoy's words.
#[derive(Debug, thiserror::Error)]
enum Unwanted {
    #[error("SAN matcher, certificate SANs are [{0}]")]
    Names(String),
    #[error("cert hash and spki")]
    Digest,
}

fn unwanted_names(peer: &PeerCertificate) -> Error {
    let texts = peer.dns_sans.iter().chain(&peer.uri_sans).chain(&peer.email_sans).map(|name| name.to_string());
    let all: Vec<String> = texts.chain(peer.ip_sans.iter().map(|ip| ip.to_string())).collect();
    other(Unwanted::Names(all.join(", ")))
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    CertificateError::Other(rustls::OtherError(Arc::new(error))).into()
}

/// A certificate for a workload says exactly one thing about who that is.
fn is_unambiguous(peer: &PeerCertificate) -> bool {
    let is_spiffe = |uri: &str| uri.get(..9).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe://"));
    match peer.uri_sans.iter().find(|uri| is_spiffe(uri)) {
        None => true,
        Some(id) => peer.uri_sans.len() == 1 && is_spiffe_id(id),
    }
}

/// Whether a SPIFFE id is spelt in the one way that it may be.
fn is_spiffe_id(uri: &str) -> bool {
    let Some(rest) = uri.strip_prefix("spiffe://") else { return false };
    let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'@');
    let segment = |s: &str| !s.is_empty() && s != "." && s != ".." && s.bytes().all(allowed);
    uri.len() <= crate::spiffe::MAX_ID
        && domain.parse::<TrustDomain>().is_ok()
        && (path.is_empty() || path[1..].split('/').all(segment))
}

fn is_for(peer: &PeerCertificate, name: &ServerName<'_>) -> bool {
    match name {
        ServerName::DnsName(name) => peer.dns_sans.iter().any(|san| dns_matches(san, name.as_ref())),
        ServerName::IpAddress(ip) => peer.ip_sans.contains(&(*ip).into()),
        _ => false,
    }
}

/// What is wrong with a chain, in OpenSSL's words.
#[derive(Debug, thiserror::Error)]
#[error("X509_verify_cert: certificate verification error at depth 0: {0}")]
struct BadChain(&'static str);

fn certificate_error(error: webpki::Error) -> Error {
    use webpki::Error as E;
    match error {
        E::BadDer | E::TrailingData(_) => CertificateError::BadEncoding,
        E::CertExpired { .. } => CertificateError::Expired,
        E::CertNotValidYet { .. } => CertificateError::NotValidYet,
        E::CertRevoked => CertificateError::Revoked,
        E::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        E::CrlExpired { .. } => return other(BadChain("CRL has expired")),
        E::MaximumPathDepthExceeded => return other(BadChain("certificate chain too long")),
        E::UnknownIssuer => CertificateError::UnknownIssuer,
        E::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        _ => return other(BadChain("certificate rejected")),
    }
    .into()
}

impl fmt::Debug for PeerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerVerifier").field("mandatory", &self.mandatory).finish_non_exhaustive()
    }
}

/// What both of the traits below ask in the same words: whether the other side has the certificate's key.
macro_rules! proof_of_the_key {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain: Vec<_> = std::iter::once(leaf).chain(intermediates).cloned().collect();
        self.check(&chain, Some(server_name), true, now).map(|()| ServerCertVerified::assertion())
    }

    proof_of_the_key!();
}

impl ClientCertVerifier for PeerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain: Vec<_> = std::iter::once(leaf).chain(intermediates).cloned().collect();
        self.check(&chain, None, false, now).map(|()| ClientCertVerified::assertion())
    }

    proof_of_the_key!();
}

#[cfg(test)]
mod tests;
