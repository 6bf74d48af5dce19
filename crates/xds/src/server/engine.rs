//! What goes next on a stream: the order among the types, and what may be removed when.

use std::collections::BTreeSet;
use std::sync::Arc;

use xxhash_rust::xxh64::Xxh64;

use super::watch::{Answer, NameChanges, Plan, Watch};
use super::{Received, TooManyNames, TypeStatus, needs};
use crate::{Resource, TypeUrl, World};

/// Removed clusters kept for the sake of refused listeners and routes, beyond which they go after all: a client that
/// refuses forever must not make us keep everything that ever was.
const MAX_LEFTOVERS: usize = 1000;

/// Everything whose acceptance shows that nothing refers to an old cluster any more.
const REFERRERS: [TypeUrl; 4] = [TypeUrl::Listener, TypeUrl::Route, TypeUrl::ScopedRoute, TypeUrl::VirtualHost];

pub(super) struct Engine {
    /// Delta, as opposed to state of the world.
    delta: bool,
    world: Option<World>,
    watches: [Watch; TypeUrl::COUNT],
    /// What clusters and listeners that were sent will make the client subscribe to.
    awaited: BTreeSet<(TypeUrl, Arc<str>)>,
    stalled: bool,
    nonce_prefix: u64,
    nonces: u64,
}

/// One response to send.
pub(super) struct Sending {
    pub(super) type_url: TypeUrl,
    pub(super) nonce: String,
    pub(super) version: Arc<str>,
    pub(super) resources: Vec<Resource>,
    pub(super) removed: Vec<Arc<str>>,
}

impl Engine {
    pub(super) fn new(delta: bool, nonce_prefix: u64) -> Self {
        Self {
            delta,
            world: None,
            watches: TypeUrl::ALL.map(Watch::new),
            awaited: BTreeSet::new(),
            stalled: false,
            nonce_prefix,
            nonces: 0,
        }
    }

    pub(super) fn set_world(&mut self, world: World) {
        self.stalled = false;
        self.world = Some(world);
    }

    /// The client has said nothing for too long: whoever waits for it waits no longer.
    pub(super) fn stall(&mut self) {
        self.stalled = true;
        self.awaited.clear();
    }

    pub(super) fn watch(&mut self, type_url: TypeUrl) -> &mut Watch {
        &mut self.watches[type_url as usize]
    }

    pub(super) fn subscribe(&mut self, type_url: TypeUrl, name: &str) -> Result<(), TooManyNames> {
        self.awaited.remove(&(type_url, name.into()));
        self.watch(type_url).subscribe(name)
    }

    pub(super) fn unsubscribe(&mut self, type_url: TypeUrl, name: &str) {
        self.watch(type_url).unsubscribe(name);
        self.await_again(type_url, name);
    }

    pub(super) fn replace_names(&mut self, type_url: TypeUrl, names: &[String]) -> Result<(), TooManyNames> {
        let NameChanges { new, gone } = self.watch(type_url).replace_names(names)?;
        if !new.is_empty() {
            self.watch(type_url).owe_response();
        }
        for name in new {
            self.awaited.remove(&(type_url, name));
        }
        for name in gone {
            self.await_again(type_url, &name);
        }
        Ok(())
    }

    pub(super) fn answer(&mut self, type_url: TypeUrl, nonce: &str, refusal: Option<&str>) -> Received {
        match self.watch(type_url).answer(nonce, refusal) {
            Answer::Accepted => Received::Ack(type_url),
            Answer::Stale => Received::Stale(type_url),
            Answer::Refused(refusals) => {
                // What a refused resource would have made the client ask for, it will not ask for.
                for name in refusals.iter().filter_map(|refusal| refusal.name.as_ref()) {
                    self.retract_needs(type_url, name);
                }
                Received::Nack(type_url, refusals)
            }
        }
    }

    /// Everything that may be sent now, in the order in which it must be.
    pub(super) fn poll(&mut self) -> Vec<Sending> {
        let Some(world) = self.world.clone() else { return Vec::new() };
        TypeUrl::ALL.into_iter().filter_map(|type_url| self.send(type_url, &world)).collect()
    }

    /// Whether everything was sent and answered.
    pub(super) fn is_settled(&self) -> bool {
        let Some(world) = &self.world else { return true };
        TypeUrl::ALL.into_iter().all(|type_url| {
            let watch = self.of(type_url);
            !watch.is_outstanding() && watch.plan(world.of(type_url), true, self.delta).is_empty()
        })
    }

    pub(super) fn status(&self) -> Vec<TypeStatus> {
        TypeUrl::ALL
            .into_iter()
            .filter(|type_url| self.of(*type_url).is_started())
            .map(|type_url| {
                let watch = self.of(type_url);
                let pending = self
                    .world
                    .as_ref()
                    .is_none_or(|world| !watch.plan(world.of(type_url), true, self.delta).is_empty());
                watch.status(pending)
            })
            .collect()
    }

    fn of(&self, type_url: TypeUrl) -> &Watch {
        &self.watches[type_url as usize]
    }

    fn send(&mut self, type_url: TypeUrl, world: &World) -> Option<Sending> {
        let watch = self.of(type_url);
        if !watch.is_started() || watch.is_outstanding() || !self.may_send(type_url, world) {
            return None;
        }
        let removals = self.may_remove(type_url, world);
        let (delta, resources) = (self.delta, world.of(type_url));
        let watch = self.watch(type_url);
        watch.trim(resources);
        let plan = watch.plan(resources, removals, delta);
        if plan.is_empty() {
            if removals {
                watch.settle(resources);
            }
            return None;
        }
        // State of the world: clusters and listeners are removed by their absence, and the rest cannot be.
        let stated_whole = !delta && type_url.is_wildcard_by_default();
        if !delta && !stated_whole && !plan.adds() {
            watch.forget(&plan.removed);
            return None;
        }
        for name in &plan.removed {
            self.retract_needs(type_url, name);
        }
        let sending = self.commit(type_url, &plan, stated_whole);
        self.note_needs(type_url, &plan.added);
        Some(sending)
    }

    fn commit(&mut self, type_url: TypeUrl, plan: &Plan, stated_whole: bool) -> Sending {
        self.nonces += 1;
        let nonce = format!("{:x}-{}", self.nonce_prefix, self.nonces);
        let version = version_of(&plan.added, &plan.removed);
        let watch = self.watch(type_url);
        watch.commit(plan, nonce.clone(), version.clone());
        let (resources, version) = match stated_whole {
            false => (plan.added.clone(), version),
            true => {
                let state = watch.state();
                let version = version_of(&state, &[]);
                (state, version)
            }
        };
        Sending { type_url, nonce, version, resources, removed: plan.removed.clone() }
    }

    /// Whether it is this type's turn to send additions.
    fn may_send(&self, type_url: TypeUrl, world: &World) -> bool {
        use TypeUrl::*;
        let quiet = |before: &[TypeUrl]| before.iter().all(|type_url| self.is_quiet(*type_url, world));
        match type_url {
            // Envoy accepts clusters only once they are warm, so what warms them must not wait for that.
            Cluster | Endpoint | Secret | ExtensionConfig | Runtime => true,
            Listener => quiet(&[Cluster, Endpoint]),
            Route | ScopedRoute | VirtualHost => quiet(&[Cluster, Endpoint, Listener]),
        }
    }

    /// Whether nothing can refer to removed resources of this type any more.
    fn may_remove(&self, type_url: TypeUrl, world: &World) -> bool {
        use TypeUrl::*;
        match type_url {
            Cluster => {
                let moved_on =
                    |referrer: &TypeUrl| self.is_gone(*referrer, world) && !self.of(*referrer).has_refusals();
                (REFERRERS.iter().all(moved_on) && !self.has_yet_to_resume()) || self.has_too_many(Cluster, world)
            }
            Endpoint => self.is_gone(Cluster, world),
            Secret => self.is_gone(Cluster, world) && self.is_gone(Listener, world),
            // A listener that moved to other routes serves by the old ones until it has the new.
            Route | ScopedRoute | VirtualHost => self.is_quiet(type_url, world),
            Listener | ExtensionConfig | Runtime => true,
        }
    }

    /// Whether all additions of this type, those that the client has yet to ask for included, are with the client.
    fn is_quiet(&self, type_url: TypeUrl, world: &World) -> bool {
        let watch = self.of(type_url);
        if self.awaited.iter().any(|(awaited, _)| *awaited == type_url) {
            return false;
        }
        if watch.is_outstanding() {
            return self.stalled;
        }
        !watch.has_additions(world.of(type_url))
    }

    /// Whether a client that reconnected with clusters has not yet said what else it has: listeners and routes of the
    /// old world may still refer to them.
    fn has_yet_to_resume(&self) -> bool {
        let said = |type_url| self.of(type_url).is_started();
        self.of(TypeUrl::Cluster).is_resumed() && !self.stalled && !(said(TypeUrl::Listener) && said(TypeUrl::Route))
    }

    /// Whether the client knows of every removal of this type.
    fn is_gone(&self, type_url: TypeUrl, world: &World) -> bool {
        self.is_quiet(type_url, world) && !self.of(type_url).has_leftovers(world.of(type_url))
    }

    fn has_too_many(&self, type_url: TypeUrl, world: &World) -> bool {
        self.of(type_url).sent_count() > 2 * world.of(type_url).len() + MAX_LEFTOVERS
    }

    /// What was sent makes the client need more: endpoints for clusters, routes for listeners.
    fn note_needs(&mut self, type_url: TypeUrl, added: &[Resource]) {
        for (needed, name) in added.iter().flat_map(|resource| needs_of(type_url, resource)) {
            let watch = self.watch(needed);
            if needed == TypeUrl::Endpoint && watch.covers(&name) {
                // Envoy warms a changed cluster as if it were new, without asking again for what it subscribes to.
                watch.owe(&name);
            } else if !watch.covers(&name) {
                self.awaited.insert((needed, name));
            }
        }
    }

    /// The client dropped a name while a resource that needs it was on its way: it will ask for it again.
    fn await_again(&mut self, type_url: TypeUrl, name: &str) {
        let needs_it = |by: TypeUrl| {
            self.of(by)
                .sent_resources()
                .any(|resource| needs_of(by, resource).iter().any(|(_, needed)| **needed == *name))
        };
        let exists = self.world.as_ref().is_some_and(|world| world.get(type_url, name).is_some());
        let needed = exists
            && match type_url {
                TypeUrl::Endpoint => needs_it(TypeUrl::Cluster),
                TypeUrl::Route => needs_it(TypeUrl::Listener),
                _ => false,
            };
        if needed && !self.of(type_url).covers(name) {
            self.awaited.insert((type_url, name.into()));
        }
    }

    fn retract_needs(&mut self, type_url: TypeUrl, name: &str) {
        let Some(resource) = self.of(type_url).sent(name) else { return };
        for needed in needs_of(type_url, resource) {
            self.awaited.remove(&needed);
        }
    }
}

fn needs_of(type_url: TypeUrl, resource: &Resource) -> Vec<(TypeUrl, Arc<str>)> {
    match type_url {
        TypeUrl::Cluster => needs::endpoints_of(resource).map(|name| (TypeUrl::Endpoint, name)).into_iter().collect(),
        TypeUrl::Listener => needs::routes_of(resource).into_iter().map(|name| (TypeUrl::Route, name)).collect(),
        _ => Vec::new(),
    }
}

fn version_of(resources: &[Resource], removed: &[Arc<str>]) -> Arc<str> {
    let mut hash = Xxh64::new(0);
    for resource in resources {
        hash.update(resource.name.as_bytes());
        hash.update(b"\0");
        hash.update(resource.version.as_bytes());
        hash.update(b"\0");
    }
    for name in removed {
        hash.update(name.as_bytes());
        hash.update(b"\0\0");
    }
    format!("{:016x}", hash.digest()).into()
}
