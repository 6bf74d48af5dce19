//! A token, taken apart; nothing in it is believed yet.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::Status;

/// Longer tokens are not looked at: no issuer makes them, and whoever sends them wants us to work.
pub const MAX_TOKEN: usize = 64 * 1024;

/// As lenient about padding as Envoy is.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

const ALGORITHMS: [&str; 13] = [
    "ES256", "ES384", "ES512", "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA",
];

/// A token, taken apart.
#[derive(Clone, Debug)]
pub struct Token<'a> {
    pub(super) header: Map<String, Value>,
    pub(super) payload: Map<String, Value>,
    pub(super) payload_base64: &'a str,
    /// What is signed.
    pub(super) signed: String,
    pub(super) signature: Vec<u8>,
    pub(super) alg: String,
    pub(super) kid: String,
    pub(super) iss: String,
    pub(super) sub: String,
    pub(super) aud: Vec<String>,
    pub(super) nbf: u64,
    pub(super) exp: u64,
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    pub fn parse(text: &'a str) -> Result<Token<'a>, Status> {
        if text.len() > MAX_TOKEN {
            return Err(Status::BadFormat);
        }
        let mut sections = text.split('.').filter(|section| !section.is_empty());
        let (Some(head), Some(body), Some(signature), None) =
            (sections.next(), sections.next(), sections.next(), sections.next())
        else {
            return Err(Status::BadFormat);
        };
        let header = decode(head, Status::HeaderBadBase64, Status::HeaderBadJson)?;
        let alg = string(&header, "alg", Status::HeaderBadAlg)?.ok_or(Status::HeaderBadAlg)?;
        if !ALGORITHMS.contains(&alg.as_str()) {
            return Err(Status::HeaderUnknownAlg);
        }
        let kid = string(&header, "kid", Status::HeaderBadKid)?.unwrap_or_default();
        let payload = decode(body, Status::PayloadBadBase64, Status::PayloadBadJson)?;
        let iss = string(&payload, "iss", Status::IssNotString)?.unwrap_or_default();
        let sub = string(&payload, "sub", Status::SubNotString)?.unwrap_or_default();
        seconds(&payload, "iat", Status::IatNotInteger, Status::IatOutOfRange)?;
        let nbf = seconds(&payload, "nbf", Status::NbfNotInteger, Status::NbfOutOfRange)?;
        let exp = seconds(&payload, "exp", Status::ExpNotInteger, Status::ExpOutOfRange)?;
        string(&payload, "jti", Status::JtiNotString)?;
        let aud = strings(&payload, "aud", Status::AudNotString)?;
        let signature = unescape(signature).ok_or(Status::SignatureBadBase64)?;
        let signed = format!("{head}.{body}");
        Ok(Token { header, payload, payload_base64: body, signed, signature, alg, kid, iss, sub, aud, nbf, exp })
    }

    /// Whether it is good at a time, in seconds since 1970.
    pub(super) fn check_time(&self, now: u64, skew: u64) -> Result<(), Status> {
        if now.saturating_add(skew) < self.nbf {
            return Err(Status::NotYetValid);
        }
        if self.exp != 0 && now > self.exp.saturating_add(skew) {
            return Err(Status::Expired);
        }
        Ok(())
    }
}

/// Passes over white space, as the decoder that Envoy uses does: what is in front of a token then makes it bad JSON.
fn unescape(text: &str) -> Option<Vec<u8>> {
    match text.bytes().any(|b| b.is_ascii_whitespace()) {
        true => BASE64.decode(text.bytes().filter(|b| !b.is_ascii_whitespace()).collect::<Vec<_>>()).ok(),
        false => BASE64.decode(text).ok(),
    }
}

fn decode(section: &str, base64: Status, json: Status) -> Result<Map<String, Value>, Status> {
    let bytes = unescape(section).ok_or(base64)?;
    match serde_json::from_slice(&bytes) {
        Ok(Unique(Value::Object(map))) => Ok(map),
        _ => Err(json),
    }
}

/// JSON in which no object has a name twice: readers differ on which one counts (RFC 8259 §4), and a token is read by several.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Unique)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(all.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some((name, Unique(value))) = entries.next_entry::<String, Unique>()? {
            if all.insert(name, value).is_some() {
                return Err(de::Error::custom("a name twice"));
            }
        }
        Ok(all.into())
    }
}

fn string(map: &Map<String, Value>, key: &str, wrong: Status) -> Result<Option<String>, Status> {
    match map.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(wrong),
    }
}

/// A time; 0 when there is none.
fn seconds(map: &Map<String, Value>, key: &str, wrong: Status, range: Status) -> Result<u64, Status> {
    match map.get(key) {
        None => Ok(0),
        Some(Value::Number(number)) => match number.as_f64() {
            Some(n) if n >= 0.0 && n < u64::MAX as f64 => Ok(n as u64),
            _ => Err(range),
        },
        Some(_) => Err(wrong),
    }
}

/// A list of strings, or one.
fn strings(map: &Map<String, Value>, key: &str, wrong: Status) -> Result<Vec<String>, Status> {
    match map.get(key) {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(Value::Array(items)) => items.iter().map(|item| item.as_str().map(str::to_owned).ok_or(wrong)).collect(),
        Some(_) => Err(wrong),
    }
}
