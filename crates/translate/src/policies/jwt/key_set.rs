//! Key sets as a proxy has to have them: one that has no key to judge by would cost it the whole listener.

use std::borrow::Cow;

use maille_api::Bytes;
use serde_json::{Map, Value, json};

/// A key whose private half nobody has: a point of P-256 that was made so that its logarithm is unknown (M of RFC 9382).
/// It stands where an issuer's keys could not be had, and no token is signed with it.
const NOBODYS_KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","kid":"unavailable","x":"iG4vl6zkblW6ndckJXnymTtk4W7z3KuVr9SXMz2PoS8","y":"X_NVFj5DziJOCw5l_wKsjlx74JQZx4XgylR9VaEuLSA"}]}"#;

/// The set, or one that no token can be signed with where it has no key that a proxy can use. A key alone becomes a set.
pub(super) fn usable(text: Option<&str>) -> Cow<'_, str> {
    let Some(text) = text else { return NOBODYS_KEYS.into() };
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(set)) => match set.get("keys") {
            Some(Value::Array(keys)) if keys.iter().filter_map(Value::as_object).any(is_usable) => text.into(),
            None if is_usable(&set) => json!({ "keys": [set] }).to_string().into(),
            _ => NOBODYS_KEYS.into(),
        },
        _ => NOBODYS_KEYS.into(),
    }
}

fn is_usable(key: &Map<String, Value>) -> bool {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let length = |name: &str| text(name).and_then(Bytes::from_base64).map_or(0, |bytes| bytes.len());
    let is_for = |algorithms: &[&str]| text("alg").is_none_or(|alg| algorithms.contains(&alg));
    match text("kty") {
        Some("RSA") => {
            length("n") > 0
                && length("e") > 0
                && text("alg").is_none_or(|alg| alg.len() == 5 && (alg.starts_with("RS") || alg.starts_with("PS")))
        }
        Some("EC") => {
            let (size, algorithm) = match text("crv") {
                Some("P-256") | None => (32, "ES256"),
                Some("P-384") => (48, "ES384"),
                Some("P-521") => (66, "ES512"),
                Some(_) => return false,
            };
            length("x") == size && length("y") == size && is_for(&[algorithm])
        }
        Some("OKP") => text("crv") == Some("Ed25519") && length("x") == 32 && is_for(&["EdDSA"]),
        Some("oct") => length("k") > 0 && is_for(&["HS256", "HS384", "HS512"]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_without_a_key_is_nobodys() {
        let rsa = r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#;
        let of = |keys: &str| format!(r#"{{"keys":[{keys}]}}"#);
        let fine = of(&format!(r#"{{"kty":"none"}},{rsa}"#));
        assert_eq!(usable(Some(&fine)), fine);
        assert_eq!(serde_json::from_str::<Value>(&usable(Some(rsa))).unwrap()["keys"][0]["kty"], "RSA");
        let bad = [
            String::new(),
            "[]".to_owned(),
            of(""),
            of("1"),
            of(r#"{"kty":"RSA","n":"AQAB"}"#),
            of(r#"{"kty":"RSA","n":"AQAB","e":"AQAB","alg":"ES256"}"#),
            of(r#"{"kty":"EC","crv":"P-256","x":"AQAB","y":"AQAB"}"#),
            of(r#"{"kty":"OKP","crv":"X25519","x":"AQAB"}"#),
        ];
        for text in bad.iter().map(|text| Some(text.as_str())).chain([None]) {
            assert_eq!(usable(text), NOBODYS_KEYS, "{text:?}");
        }
        assert_eq!(usable(Some(NOBODYS_KEYS)), NOBODYS_KEYS);
    }
}
