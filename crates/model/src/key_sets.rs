//! Keys of issuers of tokens: where they are to be had, and what was had there last.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use maille_api::security::request_authentication::JwtRule;

/// Where an issuer's keys are.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum KeySource {
    /// At this address.
    Uri(String),
    /// Where the issuer's own document says (`/.well-known/openid-configuration`).
    Discovery(String),
}

/// What was fetched, by where from. What could not be is not there.
pub type KeySets = BTreeMap<KeySource, Arc<str>>;

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeySource::Uri(uri) => f.write_str(uri),
            KeySource::Discovery(issuer) => write!(f, "{issuer} (by discovery)"),
        }
    }
}

impl KeySource {
    /// Where the keys for a rule are that does not have them written down.
    pub fn of(rule: &JwtRule) -> KeySource {
        match rule.jwks_uri.as_str() {
            "" => KeySource::Discovery(rule.issuer.clone()),
            uri => KeySource::Uri(uri.to_owned()),
        }
    }
}
