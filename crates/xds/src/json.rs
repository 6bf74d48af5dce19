//! Encoded Envoy messages as JSON, as protobuf's JSON mapping wants it and with Envoy's names of fields; secrets blacked out.
//!
//! The messages are read by a table of their fields (`json/schema.txt`, which `json/schema.py` writes), not by their Rust types: whatever
//! is inside an `Any` is shown as well.

mod known;
mod schema;
mod wire;

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};

use schema::{Field, Kind, Scalar};
use wire::Raw;

pub use schema::Schema;

/// A time in RFC 3339's form, as JSON has it.
pub fn timestamp(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    known::timestamp(i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_millis() as i32 * 1_000_000)
}

/// Nobody nests deeper; bytes that say so are not a message.
const DEEPEST: usize = 64;

/// What stands in place of a secret.
const REDACTED: &str = "[redacted]";

/// Whether secrets are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Secrets {
    Shown,
    Redacted,
}

impl Schema {
    /// A message as JSON, with its `@type`. Fields that hold secrets are blacked out, as in Envoy. `None`: the type is not known, or
    /// these bytes are not one.
    pub fn print(&self, type_url: &str, bytes: &[u8]) -> Option<Value> {
        self.any(type_url, bytes, Secrets::Shown, 0)
    }

    fn any(&self, type_url: &str, bytes: &[u8], secrets: Secrets, depth: usize) -> Option<Value> {
        let name = type_url.rsplit('/').next().unwrap_or_default();
        let value = self.message(name, bytes, secrets, depth)?;
        let mut out = Map::new();
        out.insert("@type".into(), type_url.into());
        match value {
            Value::Object(fields) if !known::is_special(name) => out.extend(fields),
            special => drop(out.insert("value".into(), special)),
        }
        Some(Value::Object(out))
    }

    fn message(&self, name: &str, bytes: &[u8], secrets: Secrets, depth: usize) -> Option<Value> {
        if depth > DEEPEST {
            return None;
        }
        if known::is_special(name) {
            return known::print(self, name, bytes, secrets, depth);
        }
        let fields = self.fields(name)?;
        let mut out = Map::new();
        for raw in wire::fields(bytes) {
            let (number, raw) = raw?;
            // What is newer than our table is left out, as it would be by any reader.
            let Some(field) = schema::find(fields, number) else { continue };
            self.field(&field, raw, secrets, depth, &mut out)?;
        }
        Some(Value::Object(out))
    }

    fn field(
        &self,
        field: &Field<'_>,
        raw: Raw<'_>,
        secrets: Secrets,
        depth: usize,
        out: &mut Map<String, Value>,
    ) -> Option<()> {
        let secrets = if field.sensitive { Secrets::Redacted } else { secrets };
        match &field.kind {
            Kind::Map(key, value) => {
                let entries = out.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
                let (key, value) = self.entry(*key, value, raw.bytes()?, secrets, depth)?;
                entries.as_object_mut()?.insert(key, value);
            }
            kind if field.repeated => {
                let list = out.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
                let list = list.as_array_mut()?;
                match (kind, raw) {
                    // Numbers of a list come one by one, or all together.
                    (Kind::Scalar(scalar), Raw::Bytes(packed)) if scalar.is_packable() => {
                        for raw in wire::packed(packed, scalar.wire()) {
                            list.push(self.value(kind, raw?, secrets, depth)?);
                        }
                    }
                    (Kind::Enum(_), Raw::Bytes(packed)) => {
                        for raw in wire::packed(packed, wire::Type::Varint) {
                            list.push(self.value(kind, raw?, secrets, depth)?);
                        }
                    }
                    (kind, raw) => list.push(self.value(kind, raw, secrets, depth)?),
                }
            }
            kind => {
                out.insert(field.name.to_owned(), self.value(kind, raw, secrets, depth)?);
            }
        }
        Some(())
    }

    fn entry(
        &self,
        key: Scalar,
        value: &Kind<'_>,
        bytes: &[u8],
        secrets: Secrets,
        depth: usize,
    ) -> Option<(String, Value)> {
        let mut name = String::new();
        let mut content = None;
        for raw in wire::fields(bytes) {
            match raw? {
                (1, raw) => {
                    name = match scalar(key, raw, Secrets::Shown)? {
                        Value::String(text) => text,
                        other => other.to_string(),
                    };
                }
                (2, raw) => content = Some(self.value(value, raw, secrets, depth)?),
                _ => {}
            }
        }
        let empty = || match value {
            Kind::Message(name) => self.message(name, &[], secrets, depth + 1),
            Kind::Scalar(Scalar::Text) => Some("".into()),
            _ => Some(Value::Null),
        };
        Some((
            name,
            match content {
                Some(content) => content,
                None => empty()?,
            },
        ))
    }

    fn value(&self, kind: &Kind<'_>, raw: Raw<'_>, secrets: Secrets, depth: usize) -> Option<Value> {
        match kind {
            Kind::Scalar(kind) => scalar(*kind, raw, secrets),
            Kind::Message(name) => self.message(name, raw.bytes()?, secrets, depth + 1),
            Kind::Enum(name) => {
                let number = raw.varint()? as i32;
                Some(self.constant(name, number).map_or_else(|| number.into(), Into::into))
            }
            Kind::Map(..) => None,
        }
    }
}

fn scalar(kind: Scalar, raw: Raw<'_>, secrets: Secrets) -> Option<Value> {
    let hidden = secrets == Secrets::Redacted;
    // 64 bits do not fit in a JSON number.
    let value = match kind {
        Scalar::Text if hidden => REDACTED.into(),
        Scalar::Text => String::from_utf8_lossy(raw.bytes()?).into_owned().into(),
        Scalar::Bytes if hidden => STANDARD.encode(REDACTED).into(),
        Scalar::Bytes => STANDARD.encode(raw.bytes()?).into(),
        _ if hidden => Value::Null,
        Scalar::Bool => (raw.varint()? != 0).into(),
        Scalar::Int32 => (raw.varint()? as i32).into(),
        Scalar::UInt32 => (raw.varint()? as u32).into(),
        Scalar::SInt32 => zigzag(raw.varint()?).into(),
        Scalar::Int64 => (raw.varint()? as i64).to_string().into(),
        Scalar::UInt64 => raw.varint()?.to_string().into(),
        Scalar::SInt64 => zigzag(raw.varint()?).to_string().into(),
        Scalar::Fixed32 => raw.fixed32()?.into(),
        Scalar::SFixed32 => (raw.fixed32()? as i32).into(),
        Scalar::Fixed64 => raw.fixed64()?.to_string().into(),
        Scalar::SFixed64 => (raw.fixed64()? as i64).to_string().into(),
        Scalar::Float => float(f32::from_bits(raw.fixed32()?).into()),
        Scalar::Double => float(f64::from_bits(raw.fixed64()?)),
    };
    Some(value)
}

fn zigzag(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

fn float(n: f64) -> Value {
    match Number::from_f64(n) {
        Some(number) => Value::Number(number),
        None if n.is_nan() => "NaN".into(),
        None if n > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    }
}

#[cfg(test)]
mod tests;
