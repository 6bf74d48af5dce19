//! Finds the first route that matches without trying them all.
//!
//! The condition on the path decides where a route is filed: paths and prefixes in a table (prefixes of too many lengths in
//! a trie), everything else in a list. A lookup collects the few routes whose condition on the path holds and takes the
//! earliest one of which the other conditions hold too, which is what trying all routes in order would have found.

use std::borrow::Cow;
use std::collections::BTreeSet;

use regex::bytes::RegexSet;

use crate::config::{Case, PathMatcher, Route};
use crate::route::Request;
use crate::route::paths::{Kind, MANY_LENGTHS, NONE, PathTable};
use crate::route::trie::Trie;

/// Up to this many routes are tried one by one: that is faster.
const LINEAR: usize = 8;

/// From this many regular expressions on they are searched for together.
const MANY_REGEXES: usize = 16;

/// Where routes are filed by their condition on the path.
#[derive(Clone, Debug, Default)]
pub struct RouteIndex {
    /// `None`: there are few routes.
    filed: Option<Box<Filed>>,
}

#[derive(Clone, Debug)]
struct Filed {
    sensitive: Option<Paths>,
    ignoring_case: Option<Paths>,
    regexes: Option<Regexes>,
    /// Everything else, in order.
    rest: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Paths {
    table: PathTable,
    /// The prefixes, when they have too many lengths for the table.
    prefixes: Option<Trie<Prefixed>>,
}

/// Routes with one prefix: any path that starts with it, or only one in which the prefix ends at a `/` or the end.
#[derive(Clone, Debug, Default)]
struct Prefixed {
    plain: Vec<u32>,
    separated: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Regexes {
    set: RegexSet,
    routes: Vec<u32>,
}

impl RouteIndex {
    /// Files routes.
    pub fn new(routes: &[Route]) -> RouteIndex {
        if routes.len() <= LINEAR {
            return RouteIndex { filed: None };
        }
        let mut sensitive = Vec::new();
        let mut ignoring_case = Vec::new();
        let mut regexes = Vec::new();
        let mut rest = Vec::new();
        for (ordinal, route) in routes.iter().enumerate() {
            let ordinal = ordinal as u32;
            let (kind, text, case) = match &route.matcher.path {
                PathMatcher::Exact(text, case) => (Kind::Exact, text, case),
                PathMatcher::Prefix(text, case) => (Kind::Prefix, text, case),
                PathMatcher::SeparatedPrefix(text, case) => (Kind::Separated, text, case),
                PathMatcher::Regex(regex) => {
                    regexes.push((ordinal, regex.0.as_str()));
                    continue;
                }
                PathMatcher::Connect => {
                    rest.push(ordinal);
                    continue;
                }
            };
            match case {
                Case::Sensitive => sensitive.push((ordinal, kind, &**text)),
                Case::Ignore => ignoring_case.push((ordinal, kind, &**text)),
            }
        }
        // A set that would be too big is searched for one by one, like a small one.
        let set = (regexes.len() >= MANY_REGEXES).then(|| RegexSet::new(regexes.iter().map(|(_, text)| text)).ok());
        let set = set.flatten();
        if set.is_none() {
            rest.extend(regexes.iter().map(|(n, _)| n));
        }
        rest.sort_unstable();
        let filed = Filed {
            sensitive: Paths::new(sensitive, routes.len()),
            ignoring_case: Paths::new(ignoring_case, routes.len()),
            regexes: set.map(|set| Regexes { set, routes: regexes.iter().map(|(n, _)| *n).collect() }),
            rest,
        };
        RouteIndex { filed: Some(Box::new(filed)) }
    }

    /// The first of `routes` (those that were filed) that matches.
    #[inline]
    pub(crate) fn find<'a>(&self, routes: &'a [Route], request: &Request<'_>) -> Option<&'a Route> {
        let path = request.head.path();
        match &self.filed {
            None => routes.iter().find(|route| route.matcher.matches(path, request)),
            Some(filed) => filed.find(routes, path, request).map(|ordinal| &routes[ordinal as usize]),
        }
    }
}

impl Filed {
    fn find(&self, routes: &[Route], path: &[u8], request: &Request<'_>) -> Option<u32> {
        let mut best = Best { routes, request, ordinal: NONE };
        // A CONNECT request has no path; only the conditions in the list can hold for it.
        if !path.is_empty() {
            if let Some(paths) = &self.sensitive {
                paths.collect(path, &mut best);
            }
            if let Some(paths) = &self.ignoring_case {
                paths.collect(&lower(path), &mut best);
            }
            if let Some(regexes) = &self.regexes {
                for i in &regexes.set.matches(path) {
                    best.offer(&[regexes.routes[i]]);
                }
            }
        }
        best.offer_unchecked(&self.rest, path);
        (best.ordinal != NONE).then_some(best.ordinal)
    }
}

impl Paths {
    /// `None` when there are none.
    fn new(mut entries: Vec<(u32, Kind, &[u8])>, routes: usize) -> Option<Paths> {
        if entries.is_empty() {
            return None;
        }
        let of_prefix = |kind: Kind| kind != Kind::Exact;
        let prefixes = entries.iter().filter(|(_, kind, _)| of_prefix(*kind));
        let lengths: BTreeSet<usize> = prefixes.clone().map(|(_, _, text)| text.len()).collect();
        let prefixes = (lengths.len() > MANY_LENGTHS).then(|| {
            let mut trie = Trie::<Prefixed>::default();
            for (ordinal, kind, text) in prefixes {
                let here = trie.entry(text);
                let list = if *kind == Kind::Separated { &mut here.separated } else { &mut here.plain };
                list.push(*ordinal);
            }
            trie
        });
        if prefixes.is_some() {
            entries.retain(|(_, kind, _)| !of_prefix(*kind));
        }
        Some(Paths { table: PathTable::new(&entries, routes), prefixes })
    }

    #[inline]
    fn collect(&self, path: &[u8], best: &mut Best<'_>) {
        self.table.collect(path, best.ordinal, |first| {
            best.offer_chain(first, |ordinal| self.table.next(ordinal));
            best.ordinal
        });
        let Some(prefixes) = &self.prefixes else { return };
        prefixes.prefixes(path, |length, here| {
            best.offer(&here.plain);
            if !here.separated.is_empty() && matches!(path.get(length), None | Some(b'/')) {
                best.offer(&here.separated);
            }
        });
    }
}

/// The earliest route so far that matches.
struct Best<'a> {
    routes: &'a [Route],
    request: &'a Request<'a>,
    ordinal: u32,
}

impl Best<'_> {
    /// Routes whose condition on the path holds, in order: `first`, then as `next` says.
    #[inline]
    fn offer_chain(&mut self, first: u32, next: impl Fn(u32) -> u32) {
        let mut ordinal = first;
        while ordinal < self.ordinal {
            if self.routes[ordinal as usize].matcher.matches_beside_path(self.request) {
                self.ordinal = ordinal;
                return;
            }
            ordinal = next(ordinal);
        }
    }

    /// Routes, in order, whose condition on the path holds.
    #[inline]
    fn offer(&mut self, ordinals: &[u32]) {
        let earlier = ordinals.iter().take_while(|n| **n < self.ordinal);
        let matches = |n: &&u32| self.routes[**n as usize].matcher.matches_beside_path(self.request);
        if let Some(n) = earlier.copied().find(|n| matches(&n)) {
            self.ordinal = n;
        }
    }

    /// Routes, in order, whose condition on the path has not been looked at.
    fn offer_unchecked(&mut self, ordinals: &[u32], path: &[u8]) {
        let mut earlier = ordinals.iter().take_while(|n| **n < self.ordinal);
        if let Some(n) = earlier.find(|n| self.routes[**n as usize].matcher.matches(path, self.request)) {
            self.ordinal = *n;
        }
    }
}

fn lower(path: &[u8]) -> Cow<'_, [u8]> {
    if path.iter().any(u8::is_ascii_uppercase) { path.to_ascii_lowercase().into() } else { path.into() }
}
