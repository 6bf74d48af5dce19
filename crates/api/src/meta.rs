//! What every resource has: a kind, a name, a namespace, and the place it was written.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::core::{ConfigMap, Namespace, Secret, Service};
use crate::networking::{
    DestinationRule, Gateway, ServiceEntry, Sidecar, VirtualService, WorkloadEntry, WorkloadGroup,
};
use crate::security::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};

/// One resource. Shared as `Arc<Object>`: resources do not change, they are replaced.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Name, namespace, labels and so on.
    pub meta: ObjectMeta,
    /// What the resource says.
    pub spec: Spec,
    /// Where it was written, if it came from a file.
    pub source: Option<Source>,
}

impl Object {
    /// The resource's kind.
    pub fn kind(&self) -> Kind {
        self.spec.kind()
    }

    /// What no other resource has at the same time.
    pub fn key(&self) -> Key {
        Key { kind: self.kind(), namespace: self.meta.namespace.clone(), name: self.meta.name.clone() }
    }

    /// The resource as it would be written in a file of its own.
    pub fn to_json(&self) -> Value {
        let kind = self.kind();
        let mut object =
            json!({ "apiVersion": kind.api_version(), "kind": kind.as_str(), "metadata": self.meta.to_json() });
        match (self.spec.to_json(), kind) {
            // These kinds keep their fields beside the metadata.
            (Value::Object(fields), Kind::Secret | Kind::ConfigMap) => {
                object.as_object_mut().into_iter().for_each(|object| object.extend(fields.clone()));
            }
            (spec, _) => object["spec"] = spec,
        }
        object
    }
}

/// A resource's identity.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Key {
    /// The kind.
    pub kind: Kind,
    /// The namespace; empty for a `Namespace`.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl fmt::Display for Key {
    /// `VirtualService default/reviews`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// A resource's name and what is known about it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ObjectMeta {
    /// The name, unique for its kind and namespace.
    pub name: String,
    /// The namespace; empty for a `Namespace`.
    pub namespace: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// When it was made, in seconds since 1970; the older of two in conflict wins.
    pub creation_timestamp: Option<i64>,
    /// An identity that a namesake made later does not share.
    pub uid: String,
    /// How often the spec has changed.
    pub generation: i64,
    /// The store's version of it.
    pub resource_version: String,
}

impl ObjectMeta {
    /// The metadata as Kubernetes writes it.
    pub fn to_json(&self) -> Value {
        let mut meta = serde_json::Map::new();
        let mut put = |name: &str, value: Value| {
            if !matches!(&value, Value::String(s) if s.is_empty()) && value != json!({}) && value != json!(0) {
                meta.insert(name.to_owned(), value);
            }
        };
        put("name", json!(self.name));
        put("namespace", json!(self.namespace));
        put("labels", json!(self.labels));
        put("annotations", json!(self.annotations));
        put("uid", json!(self.uid));
        put("generation", json!(self.generation));
        put("resourceVersion", json!(self.resource_version));
        if let Some(seconds) = self.creation_timestamp {
            put("creationTimestamp", json!(crate::timestamp::format(seconds)));
        }
        Value::Object(meta)
    }
}

/// The place in a file where a resource was written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Source {
    /// The file, as it was named to us.
    pub file: Arc<str>,
    /// Which of the file's documents, counted from 0.
    pub document: usize,
    /// The line the resource begins on, counted from 1.
    pub line: usize,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

macro_rules! kinds {
    ($( $kind:ident $api_version:literal, )*) => {
        /// What a resource says, by its kind.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)]
        // Objects live behind an Arc, one each.
        #[allow(clippy::large_enum_variant)]
        pub enum Spec { $( $kind($kind), )* }

        /// The kinds of resources there are.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[allow(missing_docs)]
        pub enum Kind { $( $kind, )* }

        impl Spec {
            /// Which kind this is.
            pub fn kind(&self) -> Kind {
                match self { $( Spec::$kind(_) => Kind::$kind, )* }
            }

            /// The spec as protobuf's or Kubernetes' JSON.
            pub fn to_json(&self) -> Value {
                // Types made of strings, numbers, lists and string-keyed maps always have a JSON form.
                match self { $( Spec::$kind(spec) => serde_json::to_value(spec).unwrap_or_default(), )* }
            }
        }

        $( impl From<$kind> for Spec {
            fn from(spec: $kind) -> Spec {
                Spec::$kind(spec)
            }
        } )*

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Kind] = &[$( Kind::$kind, )*];

            /// The name in the `kind` field.
            pub fn as_str(self) -> &'static str {
                match self { $( Kind::$kind => stringify!($kind), )* }
            }

            /// The newest `apiVersion` of it.
            pub fn api_version(self) -> &'static str {
                match self { $( Kind::$kind => $api_version, )* }
            }
        }
    };
}

kinds! {
    Gateway "networking.istio.io/v1",
    VirtualService "networking.istio.io/v1",
    DestinationRule "networking.istio.io/v1",
    ServiceEntry "networking.istio.io/v1",
    WorkloadEntry "networking.istio.io/v1",
    WorkloadGroup "networking.istio.io/v1",
    Sidecar "networking.istio.io/v1",
    PeerAuthentication "security.istio.io/v1",
    RequestAuthentication "security.istio.io/v1",
    AuthorizationPolicy "security.istio.io/v1",
    Service "v1",
    Namespace "v1",
    Secret "v1",
    ConfigMap "v1",
}

impl Kind {
    /// Whether it is one of Istio's, whose fields follow protobuf's JSON rules.
    pub fn is_istio(self) -> bool {
        self.api_version() != "v1"
    }

    /// The API group; empty for Kubernetes' own kinds.
    pub fn group(self) -> &'static str {
        self.api_version().rsplit_once('/').map_or("", |(group, _)| group)
    }

    /// The versions there are, newest first; they do not differ.
    pub fn versions(self) -> &'static [&'static str] {
        match self.group() {
            "networking.istio.io" => &["v1", "v1beta1", "v1alpha3"],
            "security.istio.io" => &["v1", "v1beta1"],
            _ => &["v1"],
        }
    }

    /// Whether resources of this kind live in a namespace.
    pub fn is_namespaced(self) -> bool {
        self != Kind::Namespace
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Kind, UnknownKind> {
        Kind::ALL.iter().copied().find(|kind| kind.as_str() == name).ok_or_else(|| UnknownKind(name.to_owned()))
    }
}

/// A kind this version does not have.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("kind `{0}` is not known; known are {known}", known = Kind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", "))]
pub struct UnknownKind(pub String);
