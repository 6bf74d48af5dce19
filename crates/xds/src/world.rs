//! Everything one proxy should have: resources by type and name, cheap to clone and to compare.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use xxhash_rust::xxh64::xxh64;

use crate::TypeUrl;
use crate::types::Any;

/// The resources of one type, by name.
pub type Resources = BTreeMap<Arc<str>, Resource>;

/// One encoded resource. Cloning shares the bytes.
#[derive(Clone, Eq, PartialEq)]
pub struct Resource {
    /// The name under which it is subscribed to.
    pub name: Arc<str>,
    /// A hash of the body: equal bodies have equal versions.
    pub version: Arc<str>,
    /// The encoded message: the `value` of its `Any`.
    pub body: Bytes,
}

/// What one proxy should have. Clones share everything; changing a clone copies only the map of the type it touches.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct World {
    types: [Arc<Resources>; TypeUrl::COUNT],
}

impl Resource {
    /// Encodes a message under the given name.
    pub fn encode<M: Message>(name: impl Into<Arc<str>>, message: &M) -> Self {
        Self::from_body(name, message.encode_to_vec().into())
    }

    /// A resource whose message is encoded already.
    pub fn from_body(name: impl Into<Arc<str>>, body: Bytes) -> Self {
        let version = format!("{:016x}", xxh64(&body, 0));
        Self { name: name.into(), version: version.into(), body }
    }

    /// Decodes the body; the type is the caller's to know.
    pub fn decode<M: Message + Default>(&self) -> Result<M, prost::DecodeError> {
        M::decode(self.body.clone())
    }

    /// The body as an `Any` of the given type.
    pub fn to_any(&self, type_url: TypeUrl) -> Any {
        Any { type_url: type_url.as_str().into(), value: self.body.to_vec() }
    }
}

impl World {
    /// An empty world.
    pub fn new() -> Self {
        Self::default()
    }

    /// All resources of one type.
    pub fn of(&self, type_url: TypeUrl) -> &Arc<Resources> {
        &self.types[type_url as usize]
    }

    /// One resource.
    pub fn get(&self, type_url: TypeUrl, name: &str) -> Option<&Resource> {
        self.of(type_url).get(name)
    }

    /// Puts a resource in, in the place of one of the same type and name.
    pub fn insert(&mut self, type_url: TypeUrl, resource: Resource) {
        self.of_mut(type_url).insert(resource.name.clone(), resource);
    }

    /// Encodes a message and puts it in.
    pub fn encode<M: Message>(&mut self, type_url: TypeUrl, name: impl Into<Arc<str>>, message: &M) {
        self.insert(type_url, Resource::encode(name, message));
    }

    /// Takes a resource out.
    pub fn remove(&mut self, type_url: TypeUrl, name: &str) -> Option<Resource> {
        self.of(type_url).get(name)?;
        self.of_mut(type_url).remove(name)
    }

    /// Replaces all resources of one type, sharing the given map.
    pub fn set(&mut self, type_url: TypeUrl, resources: Arc<Resources>) {
        self.types[type_url as usize] = resources;
    }

    /// How many resources there are, over all types.
    pub fn len(&self) -> usize {
        self.types.iter().map(|resources| resources.len()).sum()
    }

    /// Whether there are no resources at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn of_mut(&mut self, type_url: TypeUrl) -> &mut Resources {
        Arc::make_mut(&mut self.types[type_url as usize])
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{} ({} bytes)", self.name, self.version, self.body.len())
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(TypeUrl::ALL.iter().map(|t| (t.short(), self.of(*t).values().collect::<Vec<_>>())))
            .finish()
    }
}
