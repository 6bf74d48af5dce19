//! Who somebody is: SPIFFE ids, certificates, requests for them.

use maille_identity::x509::PeerCertificate;
use maille_identity::{SpiffeId, csr, spiffe};
use rustls_pki_types::CertificateDer;

use super::{Answer, ensure};

/// What SPIFFE ids are made of.
pub(super) const ID_WORDS: &[&[u8]] = &[
    b"spiffe://",
    b"SPIFFE://",
    b"/ns/",
    b"/sa/",
    b"/",
    b"..",
    b".",
    b"cluster.local",
    b"%2f",
    b"?",
    b"#",
    b"@",
    b":80",
    b"\0",
    b"\xc3\xa9",
];

/// What certificates are made of.
pub(super) const DER_WORDS: &[&[u8]] = &[
    b"\x30\x80",
    b"\x30\x82\x01\0",
    b"\x30\x84\xff\xff\xff\xff",
    b"\x02\x01\0",
    b"\x86\x05spiff",
    b"\x82\x01*",
    b"\x87\x04\x7f\0\0\x01",
    b"\x06\x03\x55\x1d\x11",
    b"\x06\x03\x55\x04\x03",
    b"\x05\0",
    b"\0",
    b"\x0c\x01\x0a",
    b"\x17\x0d",
    b"\x18\x0f",
    b"\x31\0",
    b"\xa3",
    b"spiffe://cluster.local/ns/a/sa/b",
];

/// An id is written as it was read.
pub(super) fn spiffe(input: &[u8]) -> Answer {
    let Ok(text) = std::str::from_utf8(input) else { return Ok("no text".into()) };
    match text.parse::<SpiffeId>() {
        Ok(id) => {
            ensure(id.to_string() == text, || format!("read as {id}"))?;
            let parts = [id.trust_domain().as_str(), id.namespace(), id.service_account()];
            let plain = |part: &&str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            ensure(parts.iter().all(plain), || format!("a part that is no name: {parts:?}"))?;
            Ok(format!("an id {}", parts[1].len().min(4)))
        }
        Err(why) => Ok(format!("{why:?}")),
    }
}

/// Those who ask a certificate who it is get the same answer as those who ask what it says.
pub(super) fn certificate(input: &[u8]) -> Answer {
    let id = spiffe::of_certificate(&CertificateDer::from(input));
    match PeerCertificate::parse(input) {
        Ok(peer) => {
            let names = peer.uri_sans.iter().chain(&peer.dns_sans).chain(&peer.email_sans);
            ensure(names.flat_map(|name| name.bytes()).all(|b| (0x20..0x7f).contains(&b)), || format!("{peer:?}"))?;
            let text = [&peer.subject, &peer.issuer];
            let fine = !text.iter().any(|name| name.chars().any(char::is_control)) && peer.sha256.len() == 64;
            ensure(fine && *peer.der == *input, || format!("{peer:?}"))?;
            if let Ok(id) = &id {
                ensure(peer.uri_sans.len() == 1 && *peer.uri_sans[0] == *id.to_string(), || {
                    format!("{id}, but names {:?}", peer.uri_sans)
                })?;
            }
            let counts = [&peer.uri_sans, &peer.dns_sans, &peer.email_sans].map(|names| names.len().min(3));
            Ok(format!("{counts:?} {} {:?}", peer.ip_sans.len().min(3), id.map(|_| ())))
        }
        Err(error) => {
            ensure(id.is_err(), || format!("{id:?} of what is no certificate: {error}"))?;
            Ok(error
                .to_string()
                .rsplit(": ")
                .next()
                .map_or("", |why| why.split([' ', '(']).next().unwrap_or(""))
                .into())
        }
    }
}

/// A request is read as text, and as what its text stands for.
pub(super) fn csr(input: &[u8]) -> Answer {
    use base64::Engine as _;
    let der = base64::engine::general_purpose::STANDARD.encode(input);
    let pem = format!("-----BEGIN CERTIFICATE REQUEST-----\n{der}\n-----END CERTIFICATE REQUEST-----\n");
    let read = csr::Request::read(&pem);
    let text = std::str::from_utf8(input).ok().map(csr::Request::read);
    ensure(read == csr::Request::read(&pem), || "read twice, read differently".into())?;
    Ok(format!("{:?} {:?}", read.map(|_| ()), text.map(|read| read.map(|_| ()))))
}
