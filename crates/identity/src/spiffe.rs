//! SPIFFE ids as Istio shapes them: `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`.

use std::fmt;
use std::str::FromStr;

use rustls_pki_types::CertificateDer;

use crate::x509::PeerCertificate;

/// No SPIFFE id is longer.
pub const MAX_ID: usize = 2048;

/// No trust domain is longer.
pub const MAX_TRUST_DOMAIN: usize = 255;

/// Who a workload is. What is in here is well formed.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    namespace: Box<str>,
    service_account: Box<str>,
}

/// Whom a root of trust speaks for: lower-case letters, digits, `.`, `-` and `_`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TrustDomain(Box<str>);

/// Why a text is no SPIFFE id of a workload.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotAnId {
    /// Not `spiffe://`.
    #[error("it does not begin with spiffe://")]
    Scheme,
    /// More than the standard allows.
    #[error("it is longer than {MAX_ID} bytes")]
    TooLong,
    /// Not a trust domain.
    #[error(
        "the trust domain must be 1 to {MAX_TRUST_DOMAIN} lower-case letters, digits, dots, hyphens and underscores"
    )]
    TrustDomain,
    /// Not the path that Istio gives to workloads.
    #[error("the path is not /ns/NAMESPACE/sa/SERVICE_ACCOUNT")]
    Path,
    /// A certificate that names nobody, or more than one.
    #[error("the certificate names no workload, or more than one")]
    Certificate,
    /// Characters that no name has.
    #[error("the {0} must be 1 to 253 letters, digits, dots, hyphens and underscores, and neither `.` nor `..`")]
    Name(&'static str),
}

impl SpiffeId {
    /// The id of a service account.
    ///
    /// # Errors
    /// When a name could not stand in an id.
    pub fn new(trust_domain: TrustDomain, namespace: &str, service_account: &str) -> Result<Self, NotAnId> {
        let id = Self {
            trust_domain,
            namespace: name(namespace, "namespace")?.into(),
            service_account: name(service_account, "service account")?.into(),
        };
        // The longest names and the longest trust domain together stay far below MAX_ID.
        Ok(id)
    }

    /// Whom its root speaks for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The service account.
    pub fn service_account(&self) -> &str {
        &self.service_account
    }
}

/// Whose certificate this is: its one URI, which must be a workload's id. Says nothing of who has signed it.
///
/// # Errors
/// When it names no workload, or more than one.
pub fn of_certificate(certificate: &CertificateDer<'_>) -> Result<SpiffeId, NotAnId> {
    // One reader for all: what is refused as somebody's certificate names nobody either.
    let peer = PeerCertificate::parse(certificate).map_err(|_| NotAnId::Certificate)?;
    match peer.uri_sans.as_slice() {
        [uri] => uri.parse(),
        _ => Err(NotAnId::Certificate),
    }
}

impl FromStr for SpiffeId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        if text.len() > MAX_ID {
            return Err(NotAnId::TooLong);
        }
        let rest = text.strip_prefix("spiffe://").ok_or(NotAnId::Scheme)?;
        let (trust_domain, path) = rest.split_once('/').ok_or(NotAnId::Path)?;
        let trust_domain = trust_domain.parse()?;
        let mut parts = path.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("ns"), Some(namespace), Some("sa"), Some(service_account), None) => {
                Self::new(trust_domain, namespace, service_account)
            }
            _ => Err(NotAnId::Path),
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trust_domain, namespace, service_account } = self;
        write!(f, "spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}")
    }
}

impl TrustDomain {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Istio's default.
impl Default for TrustDomain {
    fn default() -> Self {
        Self("cluster.local".into())
    }
}

impl FromStr for TrustDomain {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        match text.len() {
            1..=MAX_TRUST_DOMAIN if text.bytes().all(allowed) => Ok(Self(text.into())),
            _ => Err(NotAnId::TrustDomain),
        }
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn name<'a>(text: &'a str, which: &'static str) -> Result<&'a str, NotAnId> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    match text.len() {
        1..=253 if text.bytes().all(allowed) && text != "." && text != ".." => Ok(text),
        _ => Err(NotAnId::Name(which)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_and_written_alike() {
        for text in [
            "spiffe://cluster.local/ns/default/sa/default",
            "spiffe://td.example_1/ns/a.b-c/sa/istio-ingressgateway-service-account",
            "spiffe://1/ns/N/sa/S_1",
        ] {
            assert_eq!(text.parse::<SpiffeId>().map(|id| id.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn what_is_no_id_is_refused_with_its_reason() {
        let long = format!("spiffe://td/ns/{}/sa/s", "n".repeat(254));
        let longer = format!("spiffe://td/ns/n/sa/{}", "s".repeat(3000));
        let wide = format!("spiffe://{}/ns/n/sa/s", "d".repeat(256));
        for (text, reason) in [
            ("", NotAnId::Scheme),
            ("http://td/ns/n/sa/s", NotAnId::Scheme),
            ("SPIFFE://td/ns/n/sa/s", NotAnId::Scheme),
            ("spiffe://td", NotAnId::Path),
            ("spiffe://td/", NotAnId::Path),
            ("spiffe:///ns/n/sa/s", NotAnId::TrustDomain),
            ("spiffe://TD/ns/n/sa/s", NotAnId::TrustDomain),
            ("spiffe://td:80/ns/n/sa/s", NotAnId::TrustDomain),
            ("spiffe://me@td/ns/n/sa/s", NotAnId::TrustDomain),
            ("spiffe://t\u{e9}/ns/n/sa/s", NotAnId::TrustDomain),
            (wide.as_str(), NotAnId::TrustDomain),
            ("spiffe://td/ns/n/sa", NotAnId::Path),
            ("spiffe://td/ns/n/sa/s/", NotAnId::Path),
            ("spiffe://td/ns/n/sa/s/x", NotAnId::Path),
            ("spiffe://td//ns/n/sa/s", NotAnId::Path),
            ("spiffe://td/sa/s/ns/n", NotAnId::Path),
            ("spiffe://td/ns//sa/s", NotAnId::Name("namespace")),
            ("spiffe://td/ns/../sa/s", NotAnId::Name("namespace")),
            ("spiffe://td/ns/n/sa/.", NotAnId::Name("service account")),
            ("spiffe://td/ns/n/sa/s?x", NotAnId::Name("service account")),
            ("spiffe://td/ns/n/sa/s#x", NotAnId::Name("service account")),
            ("spiffe://td/ns/n/sa/s%2f", NotAnId::Name("service account")),
            ("spiffe://td/ns/n/sa/s\0", NotAnId::Name("service account")),
            (long.as_str(), NotAnId::Name("namespace")),
            (longer.as_str(), NotAnId::TooLong),
        ] {
            assert_eq!(text.parse::<SpiffeId>(), Err(reason), "{text}");
        }
    }

    #[test]
    fn a_name_cannot_smuggle_a_path_into_an_id() {
        for evil in ["", ".", "..", "a/sa/b", "a b", "a\n", "*"] {
            assert!(SpiffeId::new(TrustDomain::default(), evil, "s").is_err(), "{evil:?}");
            assert!(SpiffeId::new(TrustDomain::default(), "n", evil).is_err(), "{evil:?}");
        }
    }
}
