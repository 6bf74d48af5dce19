//! Finds the first route that matches without trying them all.
//!
//! The condition on the path decides where a route is filed: exact paths in a table, prefixes in a trie, everything else
//! in a list. A lookup collects the few routes whose condition on the path holds and takes the earliest one of which the
//! other conditions hold too, which is what trying all routes in order would have found.

use std::borrow::Cow;
use std::sync::Arc;

use ahash::AHashMap;
use regex::bytes::RegexSet;

use crate::config::{Case, PathMatcher, Route};
use crate::route::Request;
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

#[derive(Clone, Debug, Default)]
struct Filed {
    sensitive: Paths,
    ignoring_case: Option<Paths>,
    regexes: Option<Regexes>,
    /// Everything else, in order.
    rest: Vec<u32>,
}

#[derive(Clone, Debug, Default)]
struct Paths {
    exact: AHashMap<Box<[u8]>, Vec<u32>>,
    prefixes: Trie<Prefixed>,
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
    pub fn new(routes: &[Arc<Route>]) -> RouteIndex {
        if routes.len() <= LINEAR {
            return RouteIndex { filed: None };
        }
        let mut filed = Filed::default();
        let mut regexes = Vec::new();
        for (ordinal, route) in routes.iter().enumerate() {
            let ordinal = ordinal as u32;
            match &route.matcher.path {
                PathMatcher::Exact(text, case) => {
                    filed.paths(*case).exact.entry(text.clone()).or_default().push(ordinal);
                }
                PathMatcher::Prefix(text, case) => filed.paths(*case).prefixes.entry(text).plain.push(ordinal),
                PathMatcher::SeparatedPrefix(text, case) => {
                    filed.paths(*case).prefixes.entry(text).separated.push(ordinal);
                }
                PathMatcher::Regex(regex) => {
                    regexes.push((ordinal, regex.0.as_str()));
                }
                PathMatcher::Connect => filed.rest.push(ordinal),
            }
        }
        // A set that would be too big is searched for one by one, like a small one.
        let set = (regexes.len() >= MANY_REGEXES).then(|| RegexSet::new(regexes.iter().map(|(_, text)| text)).ok());
        match set.flatten() {
            Some(set) => filed.regexes = Some(Regexes { set, routes: regexes.iter().map(|(n, _)| *n).collect() }),
            None => filed.rest.extend(regexes.iter().map(|(n, _)| n)),
        }
        filed.rest.sort_unstable();
        RouteIndex { filed: Some(Box::new(filed)) }
    }

    /// The first of `routes` (those that were filed) that matches.
    #[inline]
    pub(crate) fn find<'a>(&self, routes: &'a [Arc<Route>], request: &Request<'_>) -> Option<&'a Arc<Route>> {
        let path = request.head.path();
        match &self.filed {
            None => routes.iter().find(|route| route.matcher.matches(path, request)),
            Some(filed) => filed.find(routes, path, request).map(|ordinal| &routes[ordinal as usize]),
        }
    }
}

impl Filed {
    fn paths(&mut self, case: Case) -> &mut Paths {
        match case {
            Case::Sensitive => &mut self.sensitive,
            Case::Ignore => self.ignoring_case.get_or_insert_default(),
        }
    }

    fn find(&self, routes: &[Arc<Route>], path: &[u8], request: &Request<'_>) -> Option<u32> {
        let mut best = Best { routes, request, ordinal: u32::MAX };
        // A CONNECT request has no path; only the conditions in the list can hold for it.
        if !path.is_empty() {
            self.sensitive.collect(path, &mut best);
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
        (best.ordinal != u32::MAX).then_some(best.ordinal)
    }
}

impl Paths {
    #[inline]
    fn collect(&self, path: &[u8], best: &mut Best<'_>) {
        if let Some(ordinals) = self.exact.get(path) {
            best.offer(ordinals);
        }
        self.prefixes.prefixes(path, |length, here| {
            best.offer(&here.plain);
            if !here.separated.is_empty() && matches!(path.get(length), None | Some(b'/')) {
                best.offer(&here.separated);
            }
        });
    }
}

/// The earliest route so far that matches.
struct Best<'a> {
    routes: &'a [Arc<Route>],
    request: &'a Request<'a>,
    ordinal: u32,
}

impl Best<'_> {
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
