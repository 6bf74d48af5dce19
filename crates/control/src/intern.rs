//! Equal resources are kept once, however many proxies see them and however often they are made anew.

use std::collections::HashMap;
use std::sync::Arc;

use maille_xds::{Resource, Resources, TypeUrl, World};

type Pool = HashMap<(TypeUrl, Arc<str>), Vec<Resource>>;

/// The resources of the newest worlds, and while those are being made, of the ones before.
#[derive(Default)]
pub(crate) struct Interner {
    new: Pool,
    old: Pool,
}

impl Interner {
    /// Worlds are about to be made for everybody: what none of them has will be forgotten.
    pub(crate) fn begin(&mut self) {
        self.old = std::mem::take(&mut self.new);
    }

    /// They are made.
    pub(crate) fn end(&mut self) {
        self.old = Pool::new();
    }

    /// The same world, sharing what it has in common with the proxy's previous one and with all others.
    pub(crate) fn intern(&mut self, world: World, previous: Option<&World>) -> World {
        let mut shared = World::new();
        for type_url in TypeUrl::ALL {
            let made = world.of(type_url);
            let same = previous.map(|previous| previous.of(type_url)).filter(|same| *same == made);
            let resources = match same {
                Some(same) => {
                    same.values().for_each(|resource| drop(self.one(type_url, resource)));
                    same.clone()
                }
                None => Arc::new(self.all(type_url, made)),
            };
            shared.set(type_url, resources);
        }
        shared
    }

    fn all(&mut self, type_url: TypeUrl, made: &Resources) -> Resources {
        made.values()
            .map(|resource| {
                let resource = self.one(type_url, resource);
                (resource.name.clone(), resource)
            })
            .collect()
    }

    fn one(&mut self, type_url: TypeUrl, resource: &Resource) -> Resource {
        let key = (type_url, resource.name.clone());
        let known =
            |pool: &Pool| pool.get(&key).and_then(|known| known.iter().find(|known| *known == resource)).cloned();
        if let Some(known) = known(&self.new) {
            return known;
        }
        let shared = known(&self.old).unwrap_or_else(|| resource.clone());
        self.new.entry((type_url, shared.name.clone())).or_default().push(shared.clone());
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(resources: &[(TypeUrl, &str, &str)]) -> World {
        let mut world = World::new();
        for (type_url, name, body) in resources {
            world.insert(*type_url, Resource::from_body(*name, body.as_bytes().to_vec().into()));
        }
        world
    }

    fn body(world: &World, type_url: TypeUrl, name: &str) -> *const u8 {
        world.get(type_url, name).unwrap().body.as_ptr()
    }

    const CDS: TypeUrl = TypeUrl::Cluster;
    const LDS: TypeUrl = TypeUrl::Listener;

    #[test]
    fn what_did_not_change_stays_the_same_in_memory() {
        let mut interner = Interner::default();
        let first = interner.intern(world(&[(CDS, "a", "1"), (CDS, "b", "1"), (LDS, "x", "1")]), None);
        interner.begin();
        let second = interner.intern(world(&[(CDS, "a", "1"), (CDS, "b", "2"), (LDS, "x", "1")]), Some(&first));
        let other_proxy = interner.intern(world(&[(CDS, "a", "1"), (LDS, "x", "2")]), None);
        interner.end();
        assert!(Arc::ptr_eq(first.of(LDS), second.of(LDS)), "a type that did not change is the same map");
        assert_eq!(body(&first, CDS, "a"), body(&second, CDS, "a"));
        assert_eq!(body(&first, CDS, "a"), body(&other_proxy, CDS, "a"));
        assert_ne!(body(&second, LDS, "x"), body(&other_proxy, LDS, "x"));
        assert_eq!(second, world(&[(CDS, "a", "1"), (CDS, "b", "2"), (LDS, "x", "1")]));
    }

    #[test]
    fn what_nobody_has_any_more_is_forgotten() {
        let mut interner = Interner::default();
        interner.intern(world(&[(CDS, "a", "1")]), None);
        interner.begin();
        interner.intern(world(&[(CDS, "b", "1")]), None);
        interner.end();
        assert_eq!(interner.new.keys().map(|(_, name)| &**name).collect::<Vec<_>>(), ["b"]);
        assert!(interner.old.is_empty());
    }
}
