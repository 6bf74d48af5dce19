//! TLS as described by xDS: which secrets, which protocols. Keys are not in here.

use std::sync::Arc;

/// TLS towards clients.
#[derive(Clone, Debug, PartialEq)]
pub struct DownstreamTls {
    /// What both sides have in common.
    pub common: TlsContext,
    /// Whether a client without a certificate is refused.
    pub require_client_certificate: bool,
}

/// TLS towards upstreams.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamTls {
    /// What both sides have in common.
    pub common: TlsContext,
    /// The name sent in SNI; empty is none.
    pub sni: Arc<str>,
    /// Whether SNI is the request's host.
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

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum SecretSource {
    /// Discovered under this name.
    Sds(Arc<str>),
    /// From files.
    Files {
        /// The certificate chain.
        certificate: Arc<str>,
        /// Its key.
        key: Arc<str>,
    },
}

/// How the peer's certificate is checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Validation {
    /// The trusted roots: a discovered secret.
    pub roots: Option<Arc<str>>,
    /// The trusted roots: a file.
    pub roots_file: Option<Arc<str>>,
    /// Names of which the certificate must have one; any when empty.
    pub names: Vec<crate::config::StringMatcher>,
}
