//! Key sets written into a resource (RFC 7517): whether they can be read, and whether they say too much.

use serde_json::{Map, Value};

use super::findings::Problem;
use crate::bytes::Bytes;

/// The members a key of each type must have.
const REQUIRED: [(&str, &[&str]); 4] =
    [("RSA", &["n", "e"]), ("EC", &["crv", "x", "y"]), ("OKP", &["crv", "x"]), ("oct", &["k"])];

/// Reads a key set, or a key alone: `Err` is why it cannot be used, `Ok` which of the keys are private.
pub(super) fn check(text: &str) -> Result<Vec<usize>, Problem> {
    let shape =
        || Problem::new("this is not a JSON Web Key Set").hint("the form is `{\"keys\": [{\"kty\": \"RSA\", …}]}`");
    let Ok(Value::Object(set)) = serde_json::from_str::<Value>(text) else { return Err(shape()) };
    let keys = match set.get("keys") {
        Some(Value::Array(keys)) => keys.iter().map(Value::as_object).collect::<Option<Vec<_>>>().ok_or_else(shape)?,
        Some(_) => return Err(shape()),
        None => vec![&set],
    };
    let mut private = Vec::new();
    for (i, key) in keys.into_iter().enumerate() {
        let secret = self::key(key).map_err(|why| Problem::new(format!("key {i} of the set cannot be used: {why}")))?;
        if secret {
            private.push(i);
        }
    }
    Ok(private)
}

/// Whether a key is private.
fn key(key: &Map<String, Value>) -> Result<bool, String> {
    let kind = key.get("kty").and_then(Value::as_str).ok_or("`kty` is missing")?;
    let required = REQUIRED.iter().find(|(name, _)| *name == kind);
    let (_, required) = required.ok_or_else(|| format!("`{kind}` is not a type of key"))?;
    for member in *required {
        let value = key.get(*member).and_then(Value::as_str).ok_or_else(|| format!("`{member}` is missing"))?;
        if *member != "crv" && Bytes::from_base64(value).is_none_or(|bytes| bytes.is_empty()) {
            return Err(format!("`{member}` is not base64url"));
        }
    }
    Ok(kind == "oct" || key.contains_key("d"))
}
