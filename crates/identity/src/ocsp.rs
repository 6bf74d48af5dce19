//! OCSP responses that are shown with a certificate: whose they are, and until when. Who signed them is for clients to check (Envoy: ocsp.cc).

use x509_parser::asn1_rs::FromDer;
use x509_parser::time::ASN1Time;

/// What is read of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    /// The serial number that it is about, as it is encoded.
    pub(crate) serial: Vec<u8>,
    /// Until when it counts, in seconds of Unix; without an end it has ended already.
    pub(crate) until: Option<i64>,
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OID: u8 = 0x06;
const ENUMERATED: u8 = 0x0a;
const TIME: u8 = 0x18;
/// `[0]`, `[1]` and `[2]`, with something in them.
const IN: [u8; 3] = [0xa0, 0xa1, 0xa2];
/// id-pkix-ocsp-basic.
const BASIC: [u8; 9] = [0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];

/// Reads a response in DER (RFC 6960 §4.2.1): one that was successful, about one certificate.
pub(crate) fn read(der: &[u8]) -> Result<Response, &'static str> {
    const MALFORMED: &str = "it is no DER of an OCSP response";
    let mut all = Der(der);
    let mut response = all.take(SEQUENCE).ok_or(MALFORMED)?;
    if !all.0.is_empty() {
        return Err("there is something behind it");
    }
    if response.take(ENUMERATED).ok_or(MALFORMED)?.0 != [0] {
        return Err("it says that there was no answer");
    }
    let mut bytes = response.take(IN[0]).and_then(|mut bytes| bytes.take(SEQUENCE)).ok_or(MALFORMED)?;
    if bytes.take(OID).ok_or(MALFORMED)?.0 != BASIC {
        return Err("it is of an unknown kind");
    }
    let mut singles = bytes.take(OCTETS).and_then(singles).ok_or(MALFORMED)?;
    let single = singles.take(SEQUENCE).and_then(single).ok_or(MALFORMED)?;
    if !singles.0.is_empty() {
        return Err("it is about more than one certificate");
    }
    Ok(single)
}

/// What a basic response has about each certificate.
fn singles(mut basic: Der<'_>) -> Option<Der<'_>> {
    let mut data = basic.take(SEQUENCE)?.take(SEQUENCE)?;
    if let Some(mut version) = data.take(IN[0]) {
        (version.take(INTEGER)?.0 == [0]).then_some(())?;
    }
    data.take(IN[1]).or_else(|| data.take(IN[2]))?;
    data.take(TIME)?;
    data.take(SEQUENCE)
}

fn single(mut single: Der<'_>) -> Option<Response> {
    let mut id = single.take(SEQUENCE)?;
    id.take(SEQUENCE)?;
    id.take(OCTETS)?;
    id.take(OCTETS)?;
    let serial = id.take(INTEGER)?.0.to_vec();
    // Good, revoked or unknown: it is shown all the same.
    single.take(0x80).or_else(|| single.take(IN[1])).or_else(|| single.take(0x82))?;
    single.take(TIME)?;
    let until = match single.take(IN[0]) {
        Some(time) => Some(ASN1Time::from_der(time.0).ok()?.1.timestamp()),
        None => None,
    };
    Some(Response { serial, until })
}

/// Elements one after the other.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// What is in the next one, if it is of this kind.
    fn take(&mut self, tag: u8) -> Option<Der<'a>> {
        let (&[kind, length], rest) = self.0.split_first_chunk::<2>()?;
        if kind != tag {
            return None;
        }
        let (length, rest) = match length {
            0..=0x7f => (usize::from(length), rest),
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(length - 0x80))?;
                (digits.iter().fold(0, |n, &digit| n << 8 | usize::from(digit)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(Der(content))
    }
}

#[cfg(test)]
mod tests;
