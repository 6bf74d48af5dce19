//! One type on one stream: what is subscribed to, what was sent, what is outstanding, what was refused.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::{Refusal, Sync, TooManyNames, TypeStatus};
use crate::{Resource, Resources, TypeUrl};

/// Names one stream may subscribe to, per type; far above what any proxy needs, and small enough to keep.
pub(super) const MAX_NAMES: usize = 100_000;

/// When a delta response grows beyond this, the rest goes into the next one, so that neither side holds it all.
const RESPONSE_BYTES: usize = 2 << 20;

pub(super) struct Watch {
    type_url: TypeUrl,
    started: bool,
    /// The client brought resources along from an earlier stream.
    resumed: bool,
    wildcard: bool,
    names: BTreeSet<Arc<str>>,
    /// What the client holds or was sent.
    sent: Resources,
    /// Names to be answered even if nothing changed.
    owed: BTreeSet<Arc<str>>,
    /// Names to be sent each in a response of its own, because a response that held several was refused whole.
    alone: VecDeque<Arc<str>>,
    /// A response is due even if it is empty: the client waits for a first one.
    owes_response: bool,
    outstanding: Option<Outstanding>,
    answered: Option<String>,
    acked: Option<Arc<str>>,
    refused: BTreeMap<Arc<str>, Refusal>,
    /// The map for which there is known to be nothing left to send.
    settled: Option<Arc<Resources>>,
}

struct Outstanding {
    nonce: String,
    version: Arc<str>,
    names: Vec<Arc<str>>,
}

/// What to send next.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) added: Vec<Resource>,
    pub(super) removed: Vec<Arc<str>>,
    due: bool,
}

/// How a list of names differs from the one before.
pub(super) struct NameChanges {
    pub(super) new: Vec<Arc<str>>,
    pub(super) gone: Vec<Arc<str>>,
}

/// What an answer turned out to be.
pub(super) enum Answer {
    Accepted,
    Refused(Vec<Refusal>),
    Stale,
}

impl Watch {
    pub(super) fn new(type_url: TypeUrl) -> Self {
        Self {
            type_url,
            started: false,
            resumed: false,
            wildcard: false,
            names: BTreeSet::new(),
            sent: Resources::new(),
            owed: BTreeSet::new(),
            alone: VecDeque::new(),
            owes_response: false,
            outstanding: None,
            answered: None,
            acked: None,
            refused: BTreeMap::new(),
            settled: None,
        }
    }

    /// Whether this was the first request for the type on the stream.
    pub(super) fn start(&mut self) -> bool {
        !std::mem::replace(&mut self.started, true)
    }

    pub(super) fn is_started(&self) -> bool {
        self.started
    }

    pub(super) fn is_resumed(&self) -> bool {
        self.resumed
    }

    pub(super) fn is_outstanding(&self) -> bool {
        self.outstanding.is_some()
    }

    pub(super) fn has_refusals(&self) -> bool {
        !self.refused.is_empty()
    }

    pub(super) fn covers(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// What the client says it holds from an earlier stream.
    pub(super) fn hold(&mut self, versions: impl IntoIterator<Item = (String, String)>) -> Result<(), TooManyNames> {
        for (name, version) in versions {
            let name: Arc<str> = name.into();
            if self.covers(&name) {
                self.resumed = true;
                self.owes_response = false;
                self.owed.remove(&name);
                self.sent.insert(name.clone(), Resource { name, version: version.into(), body: Bytes::new() });
            }
            self.within_limit(self.sent.len())?;
        }
        Ok(())
    }

    pub(super) fn owe_response(&mut self) {
        self.owes_response = true;
        self.settled = None;
    }

    /// The endpoints of a changed cluster, or a name that has to be answered whatever its version.
    pub(super) fn owe(&mut self, name: &Arc<str>) {
        if self.covers(name) {
            self.owed.insert(name.clone());
            self.settled = None;
        }
    }

    pub(super) fn subscribe(&mut self, name: &str) -> Result<(), TooManyNames> {
        self.settled = None;
        if name == "*" {
            if !std::mem::replace(&mut self.wildcard, true) {
                self.owes_response = true;
            }
            return Ok(());
        }
        let name: Arc<str> = name.into();
        self.owed.insert(name.clone());
        self.names.insert(name);
        self.within_limit(self.names.len())
    }

    pub(super) fn unsubscribe(&mut self, name: &str) {
        self.settled = None;
        if name == "*" {
            self.wildcard = false;
            let names = &self.names;
            self.sent.retain(|name, _| names.contains(name));
            self.refused.retain(|name, _| names.contains(name));
            self.owed.retain(|name| names.contains(name));
        } else if let Some(name) = self.names.take(name) {
            if self.wildcard {
                // The client no longer knows whether the wildcard covers the name; the protocol wants it told.
                self.owed.insert(name);
            } else {
                self.sent.remove(&name);
                self.refused.remove(&name);
                self.owed.remove(&name);
            }
        }
    }

    /// Replaces the names (state of the world), and reports those that are new and those that are gone.
    pub(super) fn replace_names(&mut self, names: &[String]) -> Result<NameChanges, TooManyNames> {
        self.within_limit(names.len())?;
        let wanted: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let gone: Vec<Arc<str>> = self.names.iter().filter(|name| !wanted.contains(&***name)).cloned().collect();
        for name in &gone {
            self.unsubscribe(name);
        }
        if self.wildcard && !wanted.contains("*") && !wanted.is_empty() {
            self.unsubscribe("*");
        }
        let mut new = Vec::new();
        for name in wanted {
            let known = if name == "*" { self.wildcard } else { self.names.contains(name) };
            if !known {
                self.subscribe(name)?;
                new.push(name.into());
            }
        }
        Ok(NameChanges { new, gone })
    }

    /// Whether a state-of-the-world request with this nonce speaks of the present: the protocol has requests that name
    /// an older response ignored, because the client will repeat them in its answer to the newer one.
    pub(super) fn is_current(&self, nonce: &str) -> bool {
        nonce.is_empty() || (self.outstanding.is_none() && self.answered.as_deref() == Some(nonce))
    }

    /// Drops what can no longer be sent alone.
    pub(super) fn trim(&mut self, world: &Resources) {
        while self.alone.front().is_some_and(|name| !self.covers(name) || !world.contains_key(name)) {
            self.alone.pop_front();
        }
    }

    /// The resource as it was sent.
    pub(super) fn sent(&self, name: &str) -> Option<&Resource> {
        self.sent.get(name)
    }

    /// All resources as they were sent.
    pub(super) fn sent_resources(&self) -> impl Iterator<Item = &Resource> {
        self.sent.values()
    }

    /// How many resources the client holds or was sent.
    pub(super) fn sent_count(&self) -> usize {
        self.sent.len()
    }

    /// What there is to send of the given resources.
    pub(super) fn plan(&self, world: &Arc<Resources>, removals: bool, delta: bool) -> Plan {
        if !self.started || self.settled.as_ref().is_some_and(|settled| Arc::ptr_eq(settled, world)) {
            return Plan::default();
        }
        if let Some(name) = self.alone.front() {
            return Plan { added: world.get(name).cloned().into_iter().collect(), removed: Vec::new(), due: true };
        }
        let mut plan = Plan { due: self.owes_response, ..Plan::default() };
        let mut bytes = 0;
        for resource in self.changed(world) {
            bytes += resource.body.len();
            if delta && bytes > RESPONSE_BYTES && !plan.added.is_empty() {
                return plan;
            }
            plan.added.push(resource.clone());
        }
        let gone = |name: &&Arc<str>| !world.contains_key(*name);
        if removals {
            plan.removed.extend(self.sent.keys().filter(gone).cloned());
        }
        for name in self.owed.iter().filter(gone) {
            // Asked for, and not there; or there no more, and then its removal has to wait its turn like any other.
            if !self.sent.contains_key(name) {
                plan.removed.push(name.clone());
            }
        }
        plan
    }

    /// Whether anything but removals is left to send.
    pub(super) fn has_additions(&self, world: &Arc<Resources>) -> bool {
        self.started
            && self.settled.as_ref().is_none_or(|settled| !Arc::ptr_eq(settled, world))
            && (self.owes_response || !self.alone.is_empty() || self.changed(world).next().is_some())
    }

    /// Remembers that there is nothing to send for this map until something changes here.
    pub(super) fn settle(&mut self, world: &Arc<Resources>) {
        self.settled = Some(world.clone());
    }

    /// The plan is being sent under this nonce.
    pub(super) fn commit(&mut self, plan: &Plan, nonce: String, version: Arc<str>) {
        self.owes_response = false;
        self.alone.pop_front();
        for resource in &plan.added {
            self.owed.remove(&resource.name);
            self.sent.insert(resource.name.clone(), resource.clone());
        }
        self.forget(&plan.removed);
        let names = plan.added.iter().map(|resource| resource.name.clone()).collect();
        self.outstanding = Some(Outstanding { nonce, version, names });
    }

    /// The client cannot be told of these removals, or was just told.
    pub(super) fn forget(&mut self, removed: &[Arc<str>]) {
        for name in removed {
            self.owed.remove(name);
            self.sent.remove(name);
            self.refused.remove(name);
        }
    }

    /// Everything the client should be holding, for a protocol that always states all of it.
    pub(super) fn state(&self) -> Vec<Resource> {
        self.sent.values().cloned().collect()
    }

    /// Everything the client holds or was sent that is no longer in the world.
    pub(super) fn has_leftovers(&self, world: &Resources) -> bool {
        self.started && self.sent.keys().any(|name| !world.contains_key(name))
    }

    pub(super) fn answer(&mut self, nonce: &str, refusal: Option<&str>) -> Answer {
        let Some(outstanding) = self.outstanding.take_if(|outstanding| outstanding.nonce == nonce) else {
            return Answer::Stale;
        };
        self.answered = Some(outstanding.nonce.clone());
        let Some(reason) = refusal else {
            for name in &outstanding.names {
                self.refused.remove(name);
            }
            self.acked = Some(outstanding.version);
            return Answer::Accepted;
        };
        Answer::Refused(self.refuse(outstanding, reason.into()))
    }

    pub(super) fn status(&self, pending: bool) -> TypeStatus {
        let sync = match (&self.outstanding, pending) {
            (Some(_), _) => Sync::Sent,
            (None, true) => Sync::Pending,
            (None, false) => Sync::Synced,
        };
        TypeStatus {
            type_url: self.type_url,
            sync,
            resources: self.sent.len(),
            acked: self.acked.clone(),
            refused: self.refused.values().cloned().collect(),
        }
    }

    /// Resources of the world that the client does not have, or has to be sent again.
    fn changed<'a>(&'a self, world: &'a Resources) -> impl Iterator<Item = &'a Resource> {
        let all = self.wildcard.then(|| world.values()).into_iter().flatten();
        let named = (!self.wildcard).then(|| self.names.iter().filter_map(|name| world.get(name)));
        all.chain(named.into_iter().flatten()).filter(|resource| {
            self.owed.contains(&resource.name)
                || self.sent.get(&resource.name).is_none_or(|sent| sent.version != resource.version)
        })
    }

    fn refuse(&mut self, outstanding: Outstanding, reason: Arc<str>) -> Vec<Refusal> {
        let refusal = |name: Option<&Arc<str>>, version: &Arc<str>| Refusal {
            type_url: self.type_url,
            name: name.cloned(),
            version: version.clone(),
            reason: reason.clone(),
        };
        if outstanding.names.is_empty() {
            return vec![refusal(None, &outstanding.version)];
        }
        let named: Vec<&Arc<str>> = outstanding.names.iter().filter(|name| mentions(&reason, name)).collect();
        let culprits = if named.is_empty() { outstanding.names.iter().collect() } else { named };
        let refusals: Vec<Refusal> = culprits
            .into_iter()
            .filter_map(|name| self.sent.get(name))
            .map(|resource| refusal(Some(&resource.name), &resource.version))
            .collect();
        for name in &outstanding.names {
            self.refused.remove(name);
        }
        for refusal in &refusals {
            if let Some(name) = &refusal.name {
                self.refused.insert(name.clone(), refusal.clone());
            }
        }
        // Clients take what is good of clusters and listeners; of the other types they may have dropped everything
        // that came after the first bad one.
        if outstanding.names.len() > 1 && !self.type_url.is_wildcard_by_default() {
            self.alone.extend(outstanding.names);
            self.settled = None;
        }
        refusals
    }

    fn within_limit(&self, names: usize) -> Result<(), TooManyNames> {
        match names > MAX_NAMES {
            true => Err(TooManyNames { type_url: self.type_url, limit: MAX_NAMES }),
            false => Ok(()),
        }
    }
}

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && !self.due
    }

    /// Whether there is more in it than removals.
    pub(super) fn adds(&self) -> bool {
        self.due || !self.added.is_empty()
    }
}

/// Whether a client's reason speaks of this resource: the name as a whole word.
fn mentions(reason: &str, name: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '|');
    reason.match_indices(name).any(|(at, _)| {
        !reason[..at].chars().next_back().is_some_and(part_of_name)
            && !reason[at + name.len()..].chars().next().is_some_and(part_of_name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_mentions_whole_names_only() {
        let envoy = "Error adding/updating listener(s) 0.0.0.0_8080: duplicate address, virtual: no";
        for (name, expected) in
            [("0.0.0.0_8080", true), ("0.0.0.0_80", false), ("virtual", true), ("dup", false), ("0.0.0.0_8080:", true)]
        {
            assert_eq!(mentions(envoy, name), expected, "{name}");
        }
        assert!(!mentions("cluster outbound|80|v1|a.b", "outbound|80|"));
        assert!(mentions("", ""));
    }
}
