//! Certificate signing requests: what is taken from one, and how ours is made.
//!
//! Of a request only the key counts, once its signature shows that the caller has it, and whether it asks for a common
//! name. Whatever names it asks for, it is not asked.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, SubjectPublicKeyInfo};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateSigningRequestDer, PrivateKeyDer};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

/// No request is longer. One with an RSA key of 8192 bits takes a quarter of it.
pub const MAX_CSR: usize = 16 << 10;

/// RSA keys have at least so many bits.
const MIN_RSA: usize = 2048;

/// RSA keys have at most so many bits: beyond it, checking signatures is a way to keep others busy.
const MAX_RSA: usize = 8192;

/// A request whose sender has shown that the key is its own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    /// The key.
    pub(crate) key: SubjectPublicKeyInfo,
    /// Whether a common name is asked for.
    pub(crate) wants_common_name: bool,
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CsrError {
    /// Larger than any request is.
    #[error("the certificate request is longer than {MAX_CSR} bytes")]
    TooLong,
    /// Not PEM, or not of a request.
    #[error("the certificate request is not PEM of one CERTIFICATE REQUEST")]
    Pem,
    /// Not DER of a request.
    #[error("the certificate request cannot be read as PKCS #10")]
    Der,
    /// Signed by another key, or not at all.
    #[error("the certificate request is not signed by the key it is about")]
    Signature,
    /// A kind of key, or of signature, that is not used here.
    #[error(
        "the certificate request's key must be ECDSA P-256 or P-384, or RSA of {MIN_RSA} to {MAX_RSA} bits, signed with SHA-2"
    )]
    Algorithm,
    /// The key could not be made.
    #[error("no key could be made")]
    Key,
}

impl Request {
    /// Reads a request in PEM and checks that the key it is about has signed it.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn read(pem: &str) -> Result<Self, CsrError> {
        if pem.len() > MAX_CSR {
            return Err(CsrError::TooLong);
        }
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|_| CsrError::Pem)?;
        let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|_| CsrError::Der)?;
        if !rest.is_empty() {
            return Err(CsrError::Der);
        }
        let info = &request.certification_request_info;
        if !is_key_allowed(&info.subject_pki) || is_weak(&request) {
            return Err(CsrError::Algorithm);
        }
        request.verify_signature().map_err(|_| CsrError::Signature)?;
        let key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw).map_err(|_| CsrError::Algorithm)?;
        let wants_common_name =
            info.subject.iter_common_name().any(|name| name.as_str().is_ok_and(|name| !name.is_empty()));
        Ok(Self { key, wants_common_name })
    }
}

/// A key of our own (ECDSA P-256) and the request for its certificate, which names nobody: who we are is for the CA to find
/// out.
///
/// # Errors
/// When the system gives no randomness.
pub fn generate() -> Result<(PrivateKeyDer<'static>, String), CsrError> {
    let key = KeyPair::generate().map_err(|_| CsrError::Key)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).and_then(|request| request.pem()).map_err(|_| CsrError::Key)?;
    Ok((key.into(), request))
}

fn is_key_allowed(key: &x509_parser::x509::SubjectPublicKeyInfo) -> bool {
    match key.parsed() {
        Ok(PublicKey::RSA(rsa)) => {
            // The exponent of a key that was made as keys are made; a huge one makes checking slow.
            let exponent = rsa.try_exponent().unwrap_or_default();
            (MIN_RSA..=MAX_RSA).contains(&rsa.key_size()) && exponent >= 3 && exponent <= u64::from(u32::MAX) * 2
        }
        // That it is on P-256 or P-384 is seen to when its signature is checked.
        Ok(PublicKey::EC(_)) => true,
        _ => false,
    }
}

/// SHA-1 is checked by the library, for old certificates' sake; no request is that old.
fn is_weak(request: &X509CertificationRequest) -> bool {
    use x509_parser::oid_registry as oid;
    let algorithm = &request.signature_algorithm.algorithm;
    *algorithm == oid::OID_PKCS1_SHA1WITHRSA || *algorithm == oid::OID_SHA1_WITH_RSA
}

#[cfg(test)]
mod tests;
