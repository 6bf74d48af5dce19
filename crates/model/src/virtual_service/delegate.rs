//! Delegation: the routes of another VirtualService in the place of one route, each narrowed by that route's matches.

use std::collections::{BTreeMap, BTreeSet};

use maille_api::Kind;
use maille_api::networking::virtual_service::{HttpMatchRequest, HttpRoute, StringMatch};

use super::VirtualService;
use crate::warning::{Warning, key};

/// Replaces every route of `root` that delegates.
pub(super) fn merge(
    root: &mut VirtualService,
    delegates: &BTreeMap<(&str, &str), VirtualService>,
    warnings: &mut Vec<Warning>,
) {
    if root.spec.http.iter().all(|route| route.delegate.is_none()) {
        return;
    }
    let mut merged = Vec::new();
    let mut warn = |message| warnings.push(Warning { key: key(Kind::VirtualService, &root.meta), message });
    for mut route in std::mem::take(&mut root.spec.http) {
        let Some(to) = route.delegate.take() else {
            merged.push(route);
            continue;
        };
        let namespace = if to.namespace.is_empty() { &root.meta.namespace } else { &to.namespace };
        let Some(delegate) = delegates.get(&(namespace.as_str(), to.name.as_str())) else {
            warn(format!(
                "the route delegates to VirtualService {namespace}/{}, which is not there (or has hosts of its own): \
                 the route is left out",
                to.name
            ));
            continue;
        };
        if !delegate.export_to.visible_to(&root.meta.namespace) {
            warn(format!(
                "the route delegates to VirtualService {namespace}/{}, which is not exported to namespace {}: \
                 the route is left out",
                to.name, root.meta.namespace
            ));
            continue;
        }
        for sub in &delegate.spec.http {
            if sub.delegate.is_some() {
                warn(format!("VirtualService {namespace}/{} delegates once more, which only the first may", to.name));
            }
            match merge_route(&route, sub) {
                Some(route) => merged.push(route),
                None => warn(format!(
                    "route \"{}\" of VirtualService {namespace}/{} asks for what the delegating route \"{}\" excludes: \
                     it is left out",
                    sub.name, to.name, route.name
                )),
            }
        }
    }
    root.spec.http = merged;
}

/// The delegate's route with what it leaves unsaid taken from the root's; `None` when their matches exclude each other.
fn merge_route(root: &HttpRoute, sub: &HttpRoute) -> Option<HttpRoute> {
    let mut out = sub.clone();
    out.delegate = None;
    out.r#match = merge_matches(&root.r#match, &sub.r#match)?;
    out.name = join_names(&root.name, &sub.name);
    or_clone(&mut out.rewrite, &root.rewrite);
    or_clone(&mut out.direct_response, &root.direct_response);
    or_clone(&mut out.timeout, &root.timeout);
    or_clone(&mut out.retries, &root.retries);
    or_clone(&mut out.fault, &root.fault);
    or_clone(&mut out.mirror, &root.mirror);
    or_clone(&mut out.mirror_percent, &root.mirror_percent);
    or_clone(&mut out.mirror_percentage, &root.mirror_percentage);
    or_clone(&mut out.cors_policy, &root.cors_policy);
    or_clone(&mut out.headers, &root.headers);
    if out.mirrors.is_empty() {
        out.mirrors = root.mirrors.clone();
    }
    Some(out)
}

fn or_clone<T: Clone>(own: &mut Option<T>, other: &Option<T>) {
    if own.is_none() {
        own.clone_from(other);
    }
}

fn join_names(root: &str, sub: &str) -> String {
    match (root, sub) {
        (root, "") => root.to_owned(),
        ("", sub) => sub.to_owned(),
        (root, sub) => format!("{root}-{sub}"),
    }
}

fn merge_matches(root: &[HttpMatchRequest], sub: &[HttpMatchRequest]) -> Option<Vec<HttpMatchRequest>> {
    if root.is_empty() || sub.is_empty() {
        return Some(if root.is_empty() { sub } else { root }.to_vec());
    }
    let mut out = Vec::new();
    for leaf in sub {
        let before = out.len();
        out.extend(root.iter().filter(|root| !conflict(root, leaf)).map(|root| merge_match(root, leaf)));
        // One alternative of the delegate that no alternative of the root covers spoils the whole route.
        if out.len() == before {
            return None;
        }
    }
    Some(out)
}

fn merge_match(root: &HttpMatchRequest, leaf: &HttpMatchRequest) -> HttpMatchRequest {
    let mut out = leaf.clone();
    out.name = join_names(&root.name, &leaf.name);
    or_clone(&mut out.uri, &root.uri);
    or_clone(&mut out.scheme, &root.scheme);
    or_clone(&mut out.method, &root.method);
    or_clone(&mut out.authority, &root.authority);
    under(&mut out.headers, &root.headers);
    under(&mut out.without_headers, &root.without_headers);
    under(&mut out.query_params, &root.query_params);
    under(&mut out.source_labels, &root.source_labels);
    if out.port == 0 {
        out.port = root.port;
    }
    if out.source_namespace.is_empty() {
        out.source_namespace.clone_from(&root.source_namespace);
    }
    if out.gateways.is_empty() {
        out.gateways.clone_from(&root.gateways);
    }
    if out.stat_prefix.is_empty() {
        out.stat_prefix.clone_from(&root.stat_prefix);
    }
    out
}

/// Adds what the other map has and this one has not.
fn under<V: Clone>(own: &mut BTreeMap<String, V>, other: &BTreeMap<String, V>) {
    for (name, value) in other {
        own.entry(name.clone()).or_insert_with(|| value.clone());
    }
}

fn conflict(root: &HttpMatchRequest, leaf: &HttpMatchRequest) -> bool {
    let pairs = [
        (&root.uri, &leaf.uri),
        (&root.scheme, &leaf.scheme),
        (&root.method, &leaf.method),
        (&root.authority, &leaf.authority),
    ];
    let maps = [
        (&root.headers, &leaf.headers),
        (&root.without_headers, &leaf.without_headers),
        (&root.query_params, &leaf.query_params),
    ];
    pairs.iter().any(|(root, leaf)| string_conflict(root.as_ref(), leaf.as_ref()))
        || maps.iter().any(|(root, leaf)| leaf.iter().any(|(name, m)| string_conflict(root.get(name), Some(m))))
        || root.ignore_uri_case != leaf.ignore_uri_case
        || (root.port > 0 && leaf.port > 0 && root.port != leaf.port)
        || (!root.source_namespace.is_empty() && leaf.source_namespace != root.source_namespace)
        || leaf.source_labels.iter().any(|(name, value)| root.source_labels.get(name).is_some_and(|own| own != value))
        || gateways_conflict(&root.gateways, &leaf.gateways)
}

fn gateways_conflict(root: &[String], leaf: &[String]) -> bool {
    if root.is_empty() || leaf.is_empty() {
        return false;
    }
    let known: BTreeSet<&String> = root.iter().collect();
    root.len() < leaf.len() || leaf.iter().any(|gateway| !known.contains(gateway))
}

/// Whether the delegate's match reaches beyond the root's. Regular expressions cannot be compared, so beside one
/// nothing else may stand. A match that says nothing (presence) fits only one that says nothing either way.
fn string_conflict(root: Option<&StringMatch>, leaf: Option<&StringMatch>) -> bool {
    use StringMatch::{Exact, Prefix, Regex};
    match (root, leaf) {
        (None, _) | (_, None) => false,
        (Some(Exact(root)), Some(Exact(leaf))) => leaf != root,
        (Some(Prefix(root)), Some(Prefix(leaf) | Exact(leaf))) => !leaf.starts_with(root.as_str()),
        (Some(Exact(_) | Prefix(_) | Regex(_) | StringMatch::Unset), Some(_)) => true,
    }
}
