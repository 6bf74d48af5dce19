//! What a certificate says, as logs, headers and policies speak of it.

use std::net::IpAddr;

use aws_lc_rs::digest::{SHA256, digest};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::x509::X509Name;

/// A certificate that somebody has shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerCertificate {
    /// Subject alternative names that are URIs, in order: a SPIFFE id is one.
    pub uri_sans: Vec<Box<str>>,
    /// Subject alternative names that are DNS names.
    pub dns_sans: Vec<Box<str>>,
    /// Subject alternative names that are addresses.
    pub ip_sans: Vec<IpAddr>,
    /// Subject alternative names that are mail addresses.
    pub email_sans: Vec<Box<str>>,
    /// The subject, as RFC 2253 writes it: the last part first.
    pub subject: Box<str>,
    /// Who signed it, as RFC 2253 writes it.
    pub issuer: Box<str>,
    /// The serial number in hexadecimal.
    pub serial: Box<str>,
    /// The SHA-256 of the whole, in hexadecimal.
    pub sha256: Box<str>,
    /// The certificate itself.
    pub der: Box<[u8]>,
    /// Valid from, in seconds since 1970.
    pub not_before: i64,
    /// Valid to, in seconds since 1970.
    pub not_after: i64,
}

/// The bytes are no certificate.
#[derive(Clone, Debug, thiserror::Error)]
#[error("not an X.509 certificate: {0}")]
pub struct NoCertificate(String);

impl PeerCertificate {
    /// Reads a certificate. What it says is only as true as whoever verified it made sure of.
    pub fn parse(der: &[u8]) -> Result<PeerCertificate, NoCertificate> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|e| NoCertificate(e.to_string()))?;
        let mut peer = PeerCertificate {
            subject: name(certificate.subject()),
            issuer: name(certificate.issuer()),
            serial: hex(trimmed(certificate.raw_serial())),
            sha256: hex(digest(&SHA256, der).as_ref()),
            der: der.into(),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            ..PeerCertificate::default()
        };
        let names = certificate.subject_alternative_name().map_err(|e| NoCertificate(e.to_string()))?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::URI(uri) => peer.uri_sans.push(printable(uri)?),
                GeneralName::DNSName(dns) => peer.dns_sans.push(printable(dns)?),
                GeneralName::RFC822Name(mail) => peer.email_sans.push(printable(mail)?),
                GeneralName::IPAddress(bytes) => peer.ip_sans.extend(address(bytes)),
                _ => {}
            }
        }
        Ok(peer)
    }
}

/// Whether a name in a certificate stands for a host: the same but for ASCII case, or with a wildcard for its whole first
/// label.
pub fn dns_matches(pattern: &str, host: &str) -> bool {
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    let (Some(parent), Some((first, rest))) = (pattern.strip_prefix("*."), host.split_once('.')) else { return false };
    !first.is_empty() && !parent.is_empty() && parent.eq_ignore_ascii_case(rest)
}

/// A name without characters that end it for one reader and not for another.
fn printable(name: &str) -> Result<Box<str>, NoCertificate> {
    match name.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        true => Ok(name.into()),
        false => Err(NoCertificate("a name in it has characters that no name has".to_owned())),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// Without the zero that only keeps a number from being negative.
pub(crate) fn trimmed(serial: &[u8]) -> &[u8] {
    match serial {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    }
}

pub(crate) fn hex(bytes: &[u8]) -> Box<str> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]).map(char::from).collect()
}

/// A name as RFC 2253 writes it.
fn name(name: &X509Name<'_>) -> Box<str> {
    let mut parts: Vec<String> = Vec::new();
    for rdn in name.iter() {
        let attributes: Vec<String> = rdn
            .iter()
            .map(|attribute| {
                let oid = attribute.attr_type();
                let key = SHORT.iter().find(|(id, _)| oid.to_id_string() == *id).map(|(_, key)| *key);
                let value = attribute.as_str().map(escaped);
                match (key, value) {
                    (Some(key), Ok(value)) => format!("{key}={value}"),
                    (key, _) => {
                        let key = key.map_or_else(|| oid.to_id_string(), str::to_owned);
                        format!("{key}=#{}", hex(attribute.attr_value().data))
                    }
                }
            })
            .collect();
        parts.push(attributes.join("+"));
    }
    parts.reverse();
    parts.join(",").into()
}

/// Attributes by the names that OpenSSL gives them.
const SHORT: [(&str, &str); 12] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (at, c) in value.chars().enumerate() {
        let special = matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';');
        if special || (at == 0 && matches!(c, '#' | ' ')) || (at == last && c == ' ') {
            out.push('\\');
        }
        if c.is_control() {
            out.push_str(&format!("\\{:02X}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests;
