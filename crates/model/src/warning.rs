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

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

pub(crate) fn key(kind: Kind, meta: &ObjectMeta) -> Key {
    Key { kind, namespace: meta.namespace.clone(), name: meta.name.clone() }
}
