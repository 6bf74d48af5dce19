//! Service-account tokens: the JWTs with which a workload elsewhere asks for its first certificate.
//!
//! They are signed with ES256 by a key of the control plane, and nothing else is accepted: no other algorithm, no other
//! issuer, no other audience.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::{SpiffeId, TrustDomain};

/// Whom the tokens are for: Istio's CA, and we in its place.
pub const AUDIENCE: &str = "istio-ca";

/// No token is longer.
pub const MAX_TOKEN: usize = 8 << 10;

/// How long a token is good for when nobody says otherwise, as Istio's.
pub const DEFAULT_TTL: Duration = Duration::from_secs(3600);

/// Nobody gets a token for longer.
pub const MAX_TTL: Duration = Duration::from_secs(365 * 24 * 3600);

/// By how much the clocks of those who made a token and those who read it may differ. An end is an end.
const SKEW: Duration = Duration::from_secs(60);

/// What a token of ours says in its header.
#[derive(Debug, Deserialize, Serialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crit: Option<serde_json::Value>,
}

/// What a token of ours says.
#[derive(Debug, Deserialize, Serialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: u64,
    #[serde(default)]
    nbf: u64,
    #[serde(default)]
    iat: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    jti: String,
}

/// One audience, or a list of them.
#[derive(Debug, Deserialize, Serialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// The key that makes tokens and knows them again.
pub struct TokenKey {
    pair: EcdsaKeyPair,
    id: String,
}

/// Why a token proves nothing. The words are for the log of whoever issued it, and tell a caller nothing new.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TokenError {
    /// Longer than any of ours.
    #[error("the token is longer than {MAX_TOKEN} bytes")]
    TooLong,
    /// Not three parts of base64url, or no JSON in them.
    #[error("the token is not a signed JWT")]
    Malformed,
    /// `none`, an HMAC, or what else ours are not.
    #[error("the token is not signed with ES256")]
    Algorithm,
    /// Not ours, or not any more.
    #[error("the token was not signed by this control plane")]
    Signature,
    /// For somebody else.
    #[error("the token is not for the audience {AUDIENCE}")]
    Audience,
    /// Over.
    #[error("the token has expired: mint another with `maille token create`")]
    Expired,
    /// Not yet.
    #[error("the token is not valid yet: check the clocks of both machines")]
    NotYet,
    /// Not a service account.
    #[error("the token's subject is not system:serviceaccount:NAMESPACE:NAME")]
    Subject,
    /// A key that cannot be used.
    #[error("the key of the tokens cannot be used")]
    Key,
    /// A life that nobody gets.
    #[error("a token is good for at most {} days", MAX_TTL.as_secs() / 86400)]
    TooLongALife,
}

impl TokenKey {
    /// A new key, as PKCS #8.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate() -> Result<Vec<u8>, TokenError> {
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        key.map(|key| key.as_ref().to_vec()).map_err(|_| TokenError::Key)
    }

    /// A key that was made before.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(pkcs8: &[u8]) -> Result<Self, TokenError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).map_err(|_| TokenError::Key)?;
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, pair.public_key().as_ref());
        let id = URL_SAFE_NO_PAD.encode(&hash.as_ref()[..12]);
        Ok(Self { pair, id })
    }

    /// A token for a service account.
    ///
    /// # Errors
    /// When it is to live longer than any does.
    pub fn mint(&self, id: &SpiffeId, ttl: Duration, now: SystemTime) -> Result<String, TokenError> {
        if ttl > MAX_TTL {
            return Err(TokenError::TooLongALife);
        }
        let mut number = [0; 16];
        aws_lc_rs::rand::fill(&mut number).map_err(|_| TokenError::Key)?;
        let claims = Claims {
            iss: issuer(id.trust_domain()),
            sub: format!("system:serviceaccount:{}:{}", id.namespace(), id.service_account()),
            aud: Audience::Many(vec![AUDIENCE.to_owned()]),
            exp: seconds(now + ttl),
            nbf: seconds(now),
            iat: seconds(now),
            jti: URL_SAFE_NO_PAD.encode(number),
        };
        let header = Header { alg: "ES256".into(), kid: self.id.clone(), crit: None };
        let part = |json: Result<Vec<u8>, serde_json::Error>| json.map(|json| URL_SAFE_NO_PAD.encode(json));
        let header = part(serde_json::to_vec(&header)).map_err(|_| TokenError::Key)?;
        let claims = part(serde_json::to_vec(&claims)).map_err(|_| TokenError::Key)?;
        let signed = format!("{header}.{claims}");
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).map_err(|_| TokenError::Key)?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Whose token it is, if it is one of ours and good now. The trust domain is the mesh's own.
    ///
    /// # Errors
    /// Says why it proves nothing.
    pub fn verify(&self, token: &str, trust_domain: &TrustDomain, now: SystemTime) -> Result<SpiffeId, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed);
        let (header, claims, signature) = (decode(header)?, decode(claims)?, decode(signature)?);
        let header: Header = serde_json::from_slice(&header).map_err(|_| TokenError::Malformed)?;
        if header.alg != "ES256" || header.crit.is_some() {
            return Err(TokenError::Algorithm);
        }
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key());
        if header.kid != self.id || key.verify(signed.as_bytes(), &signature).is_err() {
            return Err(TokenError::Signature);
        }
        // From here on we have written it ourselves; what follows holds for what we wrote under other settings.
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| TokenError::Malformed)?;
        if claims.iss != issuer(trust_domain) {
            return Err(TokenError::Signature);
        }
        let for_us = match &claims.aud {
            Audience::One(one) => one == AUDIENCE,
            Audience::Many(many) => many.iter().any(|one| one == AUDIENCE),
        };
        if !for_us {
            return Err(TokenError::Audience);
        }
        if seconds(now) >= claims.exp {
            return Err(TokenError::Expired);
        }
        if seconds(now + SKEW) < claims.nbf.max(claims.iat) {
            return Err(TokenError::NotYet);
        }
        let mut subject = claims.sub.splitn(4, ':');
        match (subject.next(), subject.next(), subject.next(), subject.next()) {
            (Some("system"), Some("serviceaccount"), Some(namespace), Some(name)) => {
                SpiffeId::new(trust_domain.clone(), namespace, name).map_err(|_| TokenError::Subject)
            }
            _ => Err(TokenError::Subject),
        }
    }
}

/// Says nothing of the key.
impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Who has issued a token: the control plane of a mesh.
fn issuer(trust_domain: &TrustDomain) -> String {
    format!("spiffe://{trust_domain}/ns/istio-system/sa/istiod")
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests;
