//! Something accepted that does not do what its author may think.

use std::fmt;

use maille_api::{Key, Kind, ObjectMeta};

/// One remark about one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// The object.
    pub key: Key,
    /// What about it, in words.
    pub message: String,
}

impl Warning {
    /// Whether a policy does not do what it says.
    pub fn is_about_policy(&self) -> bool {
        matches!(self.key.kind, Kind::PeerAuthentication | Kind::RequestAuthentication | Kind::AuthorizationPolicy)
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

pub(crate) fn key(kind: Kind, meta: &ObjectMeta) -> Key {
    Key { kind, namespace: meta.namespace.clone(), name: meta.name.clone() }
}
