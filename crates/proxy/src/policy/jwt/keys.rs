//! Public keys of an issuer (a JSON web key set, RFC 7517), and signatures made with them.
//!
//! The kind of a key decides how a signature is checked, never the token alone: a public key is no HMAC secret.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};
use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use serde_json::{Map, Value};

use super::token::BASE64;
use super::verified::{self, KeySetId, Seal};
use super::{Status, Token};

/// The keys of an issuer.
#[derive(Debug)]
pub struct Keys {
    id: KeySetId,
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    kid: String,
    alg: String,
    public: Public,
}

enum Public {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Ec { curve: Curve, point: Vec<u8> },
    Ed25519(Vec<u8>),
    Hmac(Vec<u8>),
}

impl std::fmt::Debug for Public {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The kind alone: one of them is a secret.
        f.write_str(match self {
            Public::Rsa { .. } => "RSA",
            Public::Ec { .. } => "EC",
            Public::Ed25519(_) => "OKP",
            Public::Hmac(_) => "oct",
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

impl Keys {
    /// Reads a set. Keys of kinds we do not know are passed over; a set without any other is an error.
    pub fn parse(json: &str) -> Result<Keys, String> {
        let set: Value = serde_json::from_str(json).map_err(|error| format!("is no JSON: {error}"))?;
        let Some(Value::Array(keys)) = set.get("keys") else { return Err("has no list of [keys]".into()) };
        let keys: Vec<Key> = keys.iter().filter_map(|key| Key::parse(key.as_object()?)).collect();
        if keys.is_empty() { Err("has no key that we can use".into()) } else { Ok(Keys { id: KeySetId::next(), keys }) }
    }

    /// Whether one of the keys made a token's signature.
    pub(super) fn verify(&self, token: &Token<'_>) -> Result<(), Status> {
        let seal = Seal::of(&self.id, token);
        if seal.as_ref().is_some_and(verified::is_known) {
            return Ok(());
        }
        self.try_each(token)?;
        seal.into_iter().for_each(verified::remember);
        Ok(())
    }

    fn try_each(&self, token: &Token<'_>) -> Result<(), Status> {
        let mut failure = Status::NoMatchingKey;
        for key in &self.keys {
            let other_id = !token.kid.is_empty() && !key.kid.is_empty() && key.kid != token.kid;
            if other_id || (!key.alg.is_empty() && key.alg != token.alg) {
                continue;
            }
            failure = Status::VerificationFails;
            // Whatever the token says of itself (Envoy: verify.cc).
            if matches!(key.public, Public::Ed25519(_)) && token.signature.len() != 64 {
                return Err(Status::Ed25519WrongLength);
            }
            if key.made(token) {
                return Ok(());
            }
        }
        Err(failure)
    }
}

impl Key {
    fn parse(jwk: &Map<String, Value>) -> Option<Key> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| BASE64.decode(text(name)?).ok();
        let alg = text("alg").unwrap_or_default();
        let is_of = |families: &[&str]| alg.is_empty() || families.iter().any(|family| alg.starts_with(family));
        let public = match text("kty")? {
            "RSA" if is_of(&["RS", "PS"]) => {
                let e = stripped(bytes("e")?);
                // Other exponents are nobody's (Envoy: jwks.cc).
                if !matches!(e[..], [3] | [1, 0, 1]) {
                    return None;
                }
                Public::Rsa { n: stripped(bytes("n")?), e }
            }
            "EC" if is_of(&["ES"]) => {
                let curve = match (alg, text("crv").unwrap_or_default()) {
                    ("" | "ES256", "P-256" | "") => Curve::P256,
                    ("" | "ES384", "P-384") | ("ES384", "") => Curve::P384,
                    ("" | "ES512", "P-521") | ("ES512", "") => Curve::P521,
                    _ => return None,
                };
                let (x, y) = (padded(bytes("x")?, curve.length())?, padded(bytes("y")?, curve.length())?);
                Public::Ec { curve, point: [&[4], &x[..], &y[..]].concat() }
            }
            "OKP" if is_of(&["EdDSA"]) && text("crv") == Some("Ed25519") => {
                Public::Ed25519(bytes("x").filter(|x| x.len() == 32)?)
            }
            "oct" if is_of(&["HS256", "HS384", "HS512"]) => Public::Hmac(bytes("k").filter(|k| !k.is_empty())?),
            _ => return None,
        };
        Some(Key { kid: text("kid").unwrap_or_default().into(), alg: alg.into(), public })
    }

    /// Whether it made the token's signature.
    fn made(&self, token: &Token<'_>) -> bool {
        let (message, signature) = (token.signed.as_bytes(), token.signature.as_slice());
        match (&self.public, token.alg.as_str()) {
            (Public::Rsa { n, e }, alg) => {
                let parameters: &RsaParameters = match alg {
                    "RS256" => &RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &RSA_PKCS1_2048_8192_SHA512,
                    "PS256" => &RSA_PSS_2048_8192_SHA256,
                    "PS384" => &RSA_PSS_2048_8192_SHA384,
                    "PS512" => &RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }
            (Public::Ec { curve, point }, alg) => {
                let algorithm = match (curve, alg) {
                    (Curve::P256, "ES256") => &ECDSA_P256_SHA256_FIXED,
                    (Curve::P384, "ES384") => &ECDSA_P384_SHA384_FIXED,
                    (Curve::P521, "ES512") => &ECDSA_P521_SHA512_FIXED,
                    _ => return false,
                };
                UnparsedPublicKey::new(algorithm, point).verify(message, signature).is_ok()
            }
            (Public::Ed25519(key), "EdDSA") => UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok(),
            (Public::Hmac(secret), alg) => {
                let algorithm = match alg {
                    "HS256" => hmac::HMAC_SHA256,
                    "HS384" => hmac::HMAC_SHA384,
                    "HS512" => hmac::HMAC_SHA512,
                    _ => return false,
                };
                let tag = hmac::sign(&hmac::Key::new(algorithm, secret), message);
                constant_time::verify_slices_are_equal(tag.as_ref(), signature).is_ok()
            }
            _ => false,
        }
    }
}

impl Curve {
    /// Bytes of a coordinate.
    fn length(self) -> usize {
        match self {
            Curve::P256 => 32,
            Curve::P384 => 48,
            Curve::P521 => 66,
        }
    }
}

fn stripped(bytes: Vec<u8>) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|b| **b == 0).count();
    bytes.into_iter().skip(zeros).collect()
}

fn padded(bytes: Vec<u8>, length: usize) -> Option<Vec<u8>> {
    let bytes = stripped(bytes);
    let missing = length.checked_sub(bytes.len())?;
    Some([vec![0; missing], bytes].concat())
}
