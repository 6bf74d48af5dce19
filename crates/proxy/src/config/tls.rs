//! TLS as described by xDS: which secrets, which protocols, how the other side is checked. No key is in here in the clear.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use maille_identity::x509::PeerCertificate;

use crate::config::StringMatcher;

/// TLS towards clients.
#[derive(Clone, Debug, PartialEq)]
pub struct DownstreamTls {
    /// What both sides have in common.
    pub common: TlsContext,
    /// Whether a client without a certificate is refused.
    pub require_client_certificate: bool,
    /// Whether clients are given tickets to take their sessions up again.
    pub tickets: bool,
    /// Tells it apart.
    pub id: TlsId,
}

/// Tells configurations of TLS apart: equal ones have the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TlsId([u8; 32]);

impl DownstreamTls {
    /// Of its parts.
    pub fn new(common: TlsContext, require_client_certificate: bool, tickets: bool) -> DownstreamTls {
        let text = format!("{common:?} {require_client_certificate} {tickets}");
        let mut id = TlsId::default();
        id.0.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        DownstreamTls { common, require_client_certificate, tickets, id }
    }
}

/// TLS towards upstreams.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamTls {
    /// What both sides have in common.
    pub common: TlsContext,
    /// The name sent in SNI; empty is none.
    pub sni: Arc<str>,
    /// Whether SNI is the host's own name, where it has one.
    pub auto_host_sni: bool,
    /// Whether the server's certificate must be for that name.
    pub auto_sni_san_validation: bool,
}

/// What both sides of TLS have in common.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsContext {
    /// Our certificates.
    pub certificates: Vec<SecretSource>,
    /// How the peer's certificate is checked; `None` is not at all.
    pub validation: Option<Validation>,
    /// Protocols offered, best first.
    pub alpn: Vec<Box<str>>,
    /// The oldest version.
    pub min_version: TlsVersion,
    /// The newest version.
    pub max_version: TlsVersion,
    /// Cipher suites for TLS 1.2, by OpenSSL's names.
    pub cipher_suites: Vec<Box<str>>,
    /// Key exchange groups.
    pub curves: Vec<Box<str>>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are the versions")]
pub enum TlsVersion {
    #[default]
    Auto,
    Tls10,
    Tls11,
    Tls12,
    Tls13,
}

/// Where a certificate and its key come from.
#[derive(Clone, Debug, PartialEq)]
pub enum SecretSource {
    /// Discovered.
    Sds(SdsName),
    /// Given here.
    Given(CertificateData),
}

/// A secret that is discovered.
#[derive(Clone, Debug, PartialEq)]
pub struct SdsName {
    /// Its name.
    pub name: Arc<str>,
    /// How long it is waited for before what needs it goes on without; `None` is for ever.
    pub patience: Option<Duration>,
}

/// A certificate chain and the key of its first certificate, both PEM, and what is shown with them.
#[derive(Clone, Debug, PartialEq)]
pub struct CertificateData {
    /// The chain, leaf first.
    pub chain: Data,
    /// The key.
    pub key: Data,
    /// What an OCSP responder has said of the certificate (DER).
    pub staple: Option<Data>,
}

/// Bytes from the configuration or from a file.
#[derive(Clone, PartialEq)]
pub enum Data {
    /// What a file has in it, as long as it is used.
    File(Arc<str>),
    /// These.
    Inline(Arc<[u8]>),
}

/// Bytes that may be a key are told apart by their digest alone.
impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Data::File(path) => write!(f, "File({path:?})"),
            Data::Inline(bytes) => write!(f, "Inline(sha256 {:?})", digest(&SHA256, bytes)),
        }
    }
}

/// A secret as it is discovered.
#[derive(Clone, Debug, PartialEq)]
pub enum Secret {
    /// A certificate and its key.
    Certificate(CertificateData),
    /// How others' certificates are checked.
    Validation(Box<Validation>),
}

/// How the peer's certificate is checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Validation {
    /// More of this comes as a secret, and is added.
    pub secret: Option<SdsName>,
    /// The trusted roots.
    pub trusted_ca: Option<Data>,
    /// Whether the roots that the system trusts are trusted too.
    pub system_roots: bool,
    /// Certificates that count no more. With a list, every issuer must have one.
    pub crl: Option<Data>,
    /// Whether only the peer's own certificate is looked for in the lists.
    pub crl_of_leaf_only: bool,
    /// Names of which the certificate must have one; any when empty.
    pub names: Vec<SanMatcher>,
    /// The certificate must have one of these SHA-256 digests, or its key one of [`Validation::keys`].
    pub hashes: Vec<[u8; 32]>,
    /// SHA-256 digests of keys.
    pub keys: Vec<[u8; 32]>,
    /// Whether certificates whose time is over are good enough.
    pub allow_expired: bool,
    /// Whether it does not matter who signed the certificate.
    pub accept_untrusted: bool,
    /// The most certificates between the root and the peer's own.
    pub max_depth: Option<u32>,
}

impl Validation {
    /// This and more of it.
    pub fn with(&self, more: &Validation) -> Validation {
        let mut out = self.clone();
        out.secret = None;
        out.trusted_ca = more.trusted_ca.clone().or(out.trusted_ca);
        out.system_roots |= more.system_roots;
        out.crl = more.crl.clone().or(out.crl);
        out.crl_of_leaf_only |= more.crl_of_leaf_only;
        out.names.extend(more.names.iter().cloned());
        out.hashes.extend(&more.hashes);
        out.keys.extend(&more.keys);
        out.allow_expired |= more.allow_expired;
        out.accept_untrusted |= more.accept_untrusted;
        out.max_depth = more.max_depth.or(out.max_depth);
        out
    }

    /// Whether there is anything that signatures are checked against.
    pub fn has_roots(&self) -> bool {
        self.trusted_ca.is_some() || self.system_roots
    }
}

/// A name that a certificate must have.
#[derive(Clone, Debug, PartialEq)]
pub struct SanMatcher {
    /// What sort of name; `None` is any sort.
    pub kind: Option<SanKind>,
    /// What it must be.
    pub value: StringMatcher,
}

/// Sorts of names in certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are the sorts")]
pub enum SanKind {
    Email,
    Dns,
    Uri,
    Ip,
}

impl SanMatcher {
    /// Whether a certificate has such a name.
    pub fn accepts(&self, certificate: &PeerCertificate) -> bool {
        let wanted = |kind| self.kind.is_none_or(|own| own == kind);
        let text = |name: &str| self.value.matches(name.as_bytes());
        let address = |ip: &IpAddr| text(&ip.to_string());
        (wanted(SanKind::Uri) && certificate.uri_sans.iter().any(|name| text(name)))
            || (wanted(SanKind::Dns) && certificate.dns_sans.iter().any(|name| self.accepts_dns(name)))
            || (wanted(SanKind::Ip) && certificate.ip_sans.iter().any(address))
            || (wanted(SanKind::Email) && certificate.email_sans.iter().any(|name| text(name)))
    }

    /// A certificate's name with a wildcard stands for one whole label.
    fn accepts_dns(&self, name: &str) -> bool {
        match &self.value {
            StringMatcher::Exact(wanted) => {
                std::str::from_utf8(wanted).is_ok_and(|wanted| maille_identity::x509::dns_matches(name, wanted))
            }
            other => other.matches(name.as_bytes()),
        }
    }
}
