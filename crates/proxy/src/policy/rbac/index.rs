//! Finds the first policy that applies without trying them all.
//!
//! Most policies apply to nothing that lacks one of a few texts: the name of a caller, a path or its beginning, a host. They are filed
//! by those texts, the others in a list. A lookup tries what is filed under the texts that are there, and the list, which finds what
//! trying all policies in order finds.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ahash::RandomState;
use maille_http::RequestHead;

use super::Facts;
use crate::config::{Condition, HeaderMatcher, RbacPolicy, StringMatcher, ValueMatcher};

/// Up to this many policies are tried one by one: that is as fast.
const LINEAR: usize = 4;

/// Prefixes are filed by their beginning, whose length is a multiple of this, so that few lengths are looked for.
const STEP: usize = 4;

/// No more of a prefix than this is looked at.
const LONGEST: usize = 64;

/// Where policies are filed.
#[derive(Clone, Debug, Default)]
pub struct PolicyIndex {
    /// `None`: there are few policies.
    filed: Option<Box<Filed>>,
}

#[derive(Clone, Debug, Default)]
struct Filed {
    names: Table,
    paths: Table,
    hosts: Table,
    /// By the length of the beginning.
    prefixes: BTreeMap<usize, Table>,
    /// Everything else.
    rest: Vec<u32>,
}

/// Policies, in order, by a text. Random keys: requests must not be able to choose what they collide with.
type Table = HashMap<Box<[u8]>, Vec<u32>, RandomState>;

/// A text; the kinds that tell most policies apart come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key<'a> {
    /// A name of the caller.
    Name(&'a [u8]),
    /// The path.
    Path(&'a [u8]),
    /// What the path begins with.
    Prefix(&'a [u8]),
    /// The host in lower case.
    Host(&'a [u8]),
}

impl PolicyIndex {
    /// Files policies.
    pub fn new(policies: &[RbacPolicy]) -> PolicyIndex {
        if policies.len() <= LINEAR {
            return PolicyIndex { filed: None };
        }
        let mut filed = Filed::default();
        for (ordinal, policy) in policies.iter().enumerate() {
            filed.file(ordinal as u32, policy);
        }
        PolicyIndex { filed: Some(Box::new(filed)) }
    }

    /// The first of `policies` (those that were filed) that applies.
    pub(super) fn find<'a>(&self, policies: &'a [RbacPolicy], facts: &Facts<'_>) -> Option<&'a RbacPolicy> {
        let Some(filed) = &self.filed else { return policies.iter().find(|policy| policy.applies(facts)) };
        let mut first = policies.len();
        filed.collect(facts, |listed| {
            let mut earlier = listed.iter().map(|n| *n as usize).take_while(|n| *n < first);
            if let Some(n) = earlier.find(|n| policies[*n].applies(facts)) {
                first = n;
            }
        });
        policies.get(first)
    }
}

impl Filed {
    fn file(&mut self, ordinal: u32, policy: &RbacPolicy) {
        let Some(keys) = best([any(&policy.permissions), any(&policy.principals)]) else {
            return self.rest.push(ordinal);
        };
        for key in keys {
            let (table, text) = match key {
                Key::Name(text) => (&mut self.names, text),
                Key::Path(text) => (&mut self.paths, text),
                Key::Host(text) => (&mut self.hosts, text),
                Key::Prefix(text) => (self.prefixes.entry(text.len()).or_default(), text),
            };
            table.entry(text.into()).or_default().push(ordinal);
        }
    }

    /// Offers every list that a policy which applies can be in.
    fn collect(&self, facts: &Facts<'_>, mut offer: impl FnMut(&[u32])) {
        let mut look = |table: &Table, text: &[u8]| {
            if let Some(listed) = table.get(text) {
                offer(listed);
            }
        };
        if !self.names.is_empty() {
            for name in facts.peer.iter().flat_map(|peer| peer.names()) {
                look(&self.names, name.as_bytes());
            }
        }
        if let Some(path) = super::path(facts) {
            look(&self.paths, path);
            for (length, table) in &self.prefixes {
                let Some(beginning) = path.get(..*length) else { break };
                look(table, beginning);
            }
        }
        if !self.hosts.is_empty() {
            let host = facts.head.map_or(&b""[..], RequestHead::authority);
            match host.iter().any(u8::is_ascii_uppercase) {
                true => look(&self.hosts, &host.to_ascii_lowercase()),
                false => look(&self.hosts, host),
            }
        }
        offer(&self.rest);
    }
}

/// Texts of which one is there whenever the condition holds; `None` when none are known.
fn needed(condition: &Condition) -> Option<BTreeSet<Key<'_>>> {
    let key = match condition {
        Condition::All(all) => return best(all.iter().map(needed)),
        Condition::Any(conditions) => return any(conditions),
        Condition::Authenticated(Some(StringMatcher::Exact(name))) => Key::Name(name),
        Condition::Path(StringMatcher::Exact(path)) => Key::Path(path),
        Condition::Path(StringMatcher::Prefix(prefix)) => {
            let length = prefix.len().min(LONGEST) / STEP * STEP;
            Key::Prefix(prefix.get(..length).filter(|beginning| !beginning.is_empty())?)
        }
        Condition::Header(HeaderMatcher { name, value: ValueMatcher::String(matcher), invert: false, .. })
            if name.as_str() == ":authority" =>
        {
            match matcher {
                StringMatcher::ExactIgnoreCase(host) => Key::Host(host),
                StringMatcher::Exact(host) if !host.iter().any(u8::is_ascii_uppercase) => Key::Host(host),
                _ => return None,
            }
        }
        _ => return None,
    };
    Some([key].into())
}

/// What is needed when one of the conditions has to hold.
fn any(conditions: &[Condition]) -> Option<BTreeSet<Key<'_>>> {
    conditions.iter().map(needed).try_fold(BTreeSet::new(), |mut all, keys| {
        all.extend(keys?);
        Some(all)
    })
}

/// Of what is needed each, what tells most policies apart: that by whose worst key more is told.
fn best<'a>(each: impl IntoIterator<Item = Option<BTreeSet<Key<'a>>>>) -> Option<BTreeSet<Key<'a>>> {
    let rank = |keys: &BTreeSet<Key<'a>>| match keys.last() {
        None => 0,
        Some(Key::Name(_)) => 1,
        Some(Key::Path(_)) => 2,
        Some(Key::Prefix(_)) => 3,
        Some(Key::Host(_)) => 4,
    };
    each.into_iter().flatten().min_by_key(rank)
}
