//! The messages that JSON has a form of its own for.

use prost::Message;
use serde_json::{Map, Number, Value};

use super::{Schema, Secrets, float, scalar, wire};
use crate::json::schema::Scalar;
use crate::types::{Any, Duration, ListValue, Struct, Timestamp, ValueKind, pb};

const PACKAGE: &str = "google.protobuf.";

/// Whether a message is one of them.
pub(super) fn is_special(name: &str) -> bool {
    name.strip_prefix(PACKAGE).is_some_and(|name| {
        wrapped(name).is_some()
            || matches!(
                name,
                "Any" | "Duration" | "Empty" | "FieldMask" | "ListValue" | "Struct" | "Timestamp" | "Value"
            )
    })
}

pub(super) fn print(schema: &Schema, name: &str, bytes: &[u8], secrets: Secrets, depth: usize) -> Option<Value> {
    let name = name.strip_prefix(PACKAGE)?;
    if let Some((kind, zero)) = wrapped(name) {
        return match wire::fields(bytes).last() {
            Some(raw) => scalar(kind, raw?.1, secrets),
            None => Some(zero),
        };
    }
    match name {
        "Any" => {
            let any = Any::decode(bytes).ok()?;
            // Somebody else's extension: its name is all that can be said.
            let unknown = || Value::Object(Map::from_iter([("@type".to_owned(), any.type_url.as_str().into())]));
            Some(schema.any(&any.type_url, &any.value, secrets, depth + 1).unwrap_or_else(unknown))
        }
        "Duration" => {
            let Duration { seconds, nanos } = Duration::decode(bytes).ok()?;
            let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
            Some(format!("{sign}{}{}s", seconds.unsigned_abs(), fraction(nanos.unsigned_abs())).into())
        }
        "Empty" => Some(Value::Object(Map::new())),
        "Timestamp" => Timestamp::decode(bytes).ok().map(|time| timestamp(time.seconds, time.nanos).into()),
        "FieldMask" => {
            let paths = wire::fields(bytes).map(|raw| raw?.1.bytes().map(String::from_utf8_lossy));
            Some(paths.collect::<Option<Vec<_>>>()?.join(",").into())
        }
        "Struct" => Struct::decode(bytes).ok().map(|fields| object(fields, secrets)),
        "ListValue" => ListValue::decode(bytes).ok().map(|list| array(list, secrets)),
        "Value" => pb::google::protobuf::Value::decode(bytes).ok().map(|value| plain(value, secrets)),
        _ => None,
    }
}

/// What a wrapper holds, and what an empty one stands for.
fn wrapped(name: &str) -> Option<(Scalar, Value)> {
    Some(match name {
        "BoolValue" => (Scalar::Bool, false.into()),
        "BytesValue" => (Scalar::Bytes, "".into()),
        "DoubleValue" => (Scalar::Double, 0.into()),
        "FloatValue" => (Scalar::Float, 0.into()),
        "Int32Value" => (Scalar::Int32, 0.into()),
        "Int64Value" => (Scalar::Int64, "0".into()),
        "StringValue" => (Scalar::Text, "".into()),
        "UInt32Value" => (Scalar::UInt32, 0.into()),
        "UInt64Value" => (Scalar::UInt64, "0".into()),
        _ => return None,
    })
}

/// RFC 3339, in UTC.
pub(super) fn timestamp(seconds: i64, nanos: i32) -> String {
    let (days, time) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Howard Hinnant's civil_from_days: years that begin in March have their leap day at the end.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{}Z", fraction(nanos.unsigned_abs()))
}

/// Nanoseconds behind a point, in groups of three; nothing when there are none.
fn fraction(nanos: u32) -> String {
    match nanos {
        0 => String::new(),
        n if n % 1_000_000 == 0 => format!(".{:03}", n / 1_000_000),
        n if n % 1000 == 0 => format!(".{:06}", n / 1000),
        n => format!(".{n:09}"),
    }
}

fn object(fields: Struct, secrets: Secrets) -> Value {
    Value::Object(fields.fields.into_iter().map(|(name, value)| (name, plain(value, secrets))).collect())
}

fn array(list: ListValue, secrets: Secrets) -> Value {
    Value::Array(list.values.into_iter().map(|value| plain(value, secrets)).collect())
}

fn plain(value: pb::google::protobuf::Value, secrets: Secrets) -> Value {
    match value.kind {
        None | Some(ValueKind::NullValue(_)) => Value::Null,
        Some(ValueKind::StructValue(fields)) => object(fields, secrets),
        Some(ValueKind::ListValue(list)) => array(list, secrets),
        Some(ValueKind::StringValue(_)) if secrets == Secrets::Redacted => super::REDACTED.into(),
        Some(_) if secrets == Secrets::Redacted => Value::Null,
        Some(ValueKind::StringValue(text)) => text.into(),
        Some(ValueKind::BoolValue(truth)) => truth.into(),
        // Whole numbers look like what they are.
        Some(ValueKind::NumberValue(n)) if n.fract() == 0.0 && n.abs() < 1e15 => Value::Number(Number::from(n as i64)),
        Some(ValueKind::NumberValue(n)) => float(n),
    }
}
