//! PEM in and out: certificates and keys as files and messages hold them.

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Every certificate in a text, in its order.
///
/// # Errors
/// When a block is broken. A text without any certificate is an empty list.
pub fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, rustls_pki_types::pem::Error> {
    CertificateDer::pem_slice_iter(text).collect()
}

/// The first key in a text: PKCS #8, PKCS #1 or SEC 1.
///
/// # Errors
/// When there is none, or it is broken.
pub fn key(text: &[u8]) -> Result<PrivateKeyDer<'static>, rustls_pki_types::pem::Error> {
    PrivateKeyDer::from_pem_slice(text)
}

/// Certificates one after the other.
pub fn encode_certificates<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>) -> String {
    certificates.into_iter().map(|certificate| encode("CERTIFICATE", certificate)).collect()
}

/// A key under the label that its form has.
pub fn encode_key(key: &PrivateKeyDer<'_>) -> String {
    let label = match key {
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        _ => "PRIVATE KEY",
    };
    encode(label, key.secret_der())
}

/// Tells one set of certificates from another, in whatever order they are.
pub fn fingerprint(certificates: &[CertificateDer<'_>]) -> String {
    use aws_lc_rs::digest::{SHA256, digest};
    let mut each: Vec<_> = certificates.iter().map(|certificate| digest(&SHA256, certificate)).collect();
    each.sort_by(|one, other| one.as_ref().cmp(other.as_ref()));
    each.dedup_by(|one, other| one.as_ref() == other.as_ref());
    let all: Vec<u8> = each.iter().flat_map(|each| each.as_ref().iter().copied()).collect();
    hex(digest(&SHA256, &all).as_ref())
}

/// The SHA-256 of one certificate, as people compare it.
pub fn fingerprint_of(certificate: &CertificateDer<'_>) -> String {
    hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate).as_ref())
}

/// Bytes as people compare them.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn encode(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        // Base64 is ASCII.
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem + &format!("-----END {label}-----\n")
}
