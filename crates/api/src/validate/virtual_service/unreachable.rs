//! Rules that no request can reach because the ones before them take everything.
//!
//! Says what Istio says, and no more: among HTTP matches only those by prefix are compared beyond being equal.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::networking::VirtualService;
use crate::networking::virtual_service::{HttpMatchRequest, HttpRoute, StringMatch};
use crate::validate::findings::{At, Problem};

pub(super) fn warn(service: &VirtualService, at: &mut At<'_>) {
    let nameless: Vec<Vec<HttpMatchRequest>> = service.http.iter().map(without_names).collect();
    let http: Vec<&[HttpMatchRequest]> = nameless.iter().map(Vec::as_slice).collect();
    repeated(&http, "http", at);
    overlapping(&service.http, &mut at.field("http"));
    let tcp: Vec<_> = service.tcp.iter().map(|route| route.r#match.as_slice()).collect();
    repeated(&tcp, "tcp", at);
    let tls: Vec<_> = service.tls.iter().map(|route| route.r#match.as_slice()).collect();
    repeated(&tls, "tls", at);
}

/// The names of matches do not decide anything.
fn without_names(route: &HttpRoute) -> Vec<HttpMatchRequest> {
    route.r#match.iter().map(|found| HttpMatchRequest { name: String::new(), ..found.clone() }).collect()
}

/// Matches that an earlier rule has already, and rules after one that takes everything.
fn repeated<M: PartialEq + Serialize>(rules: &[&[M]], field: &str, at: &mut At<'_>) {
    // By what they look like written down: there may be tens of thousands.
    let mut seen: HashMap<String, Vec<(usize, &M)>> = HashMap::new();
    let mut takes_all: Option<usize> = None;
    for (i, matches) in rules.iter().enumerate() {
        let mut at = at.field(field);
        let mut at = at.index(i);
        if let Some(earlier) = takes_all {
            at.warn(
                Problem::new(format!(
                    "this rule is never used: spec.{field}[{earlier}] has no match and takes everything"
                ))
                .hint("put it before that one"),
            );
            continue;
        }
        if matches.is_empty() {
            takes_all = Some(i);
            continue;
        }
        let mut taken = 0;
        for (j, found) in matches.iter().enumerate() {
            let alike = seen.entry(serde_json::to_string(found).unwrap_or_default()).or_default();
            match alike.iter().find(|(_, earlier)| *earlier == found) {
                Some((earlier, _)) => {
                    at.field("match").index(j).warn(
                        Problem::new(format!("this match is never used: spec.{field}[{earlier}] has the same"))
                            .hint("remove it"),
                    );
                    taken += 1;
                }
                None => alike.push((i, found)),
            }
        }
        if taken == matches.len() {
            at.warn(Problem::new("this rule is never used: earlier rules have all its matches").hint("remove it"));
        }
    }
}

/// A match by prefix, with everything that Istio compares between two of them.
struct ByPrefix<'a> {
    rule: usize,
    index: usize,
    prefix: &'a str,
    port: u32,
    method: String,
    authority: String,
    maps: [BTreeMap<&'a str, String>; 3],
}

impl<'a> ByPrefix<'a> {
    fn new(rule: usize, index: usize, found: &'a HttpMatchRequest) -> Option<Self> {
        let prefix = match &found.uri {
            Some(StringMatch::Prefix(prefix)) if !prefix.is_empty() => prefix,
            _ => return None,
        };
        let method = found.method.as_ref().map(form).filter(|method| !method.is_empty());
        let maps = [&found.headers, &found.query_params, &found.without_headers];
        Some(ByPrefix {
            rule,
            index,
            prefix,
            port: found.port,
            method: method.unwrap_or_else(|| "exact:GET".to_owned()),
            authority: found.authority.as_ref().map(form).unwrap_or_default(),
            maps: maps.map(|map| map.iter().map(|(name, value)| (name.as_str(), form(value))).collect()),
        })
    }

    /// Whether Istio holds that `later` is reached by nothing because of `self`.
    fn covers(&self, later: &Self) -> bool {
        later.prefix != self.prefix
            && later.prefix.starts_with(self.prefix)
            && later.port == self.port
            && self.method.starts_with(&later.method)
            && self.authority.starts_with(&later.authority)
            && self.maps.iter().zip(&later.maps).all(|(earlier, later)| {
                earlier.len() == later.len()
                    && earlier.iter().all(|(name, value)| later.get(name).is_some_and(|other| value.starts_with(other)))
            })
    }
}

/// How a value is matched, in a form whose beginnings can be compared. Regular expressions cannot.
fn form(value: &StringMatch) -> String {
    match value {
        StringMatch::Exact(text) if !text.is_empty() => format!("exact:{text}"),
        StringMatch::Prefix(text) if !text.is_empty() => format!("prefix:{text}"),
        _ => String::new(),
    }
}

/// Prefixes that an earlier, shorter prefix covers.
fn overlapping(routes: &[HttpRoute], at: &mut At<'_>) {
    let mut by_prefix: Vec<ByPrefix<'_>> = Vec::new();
    let mut places: HashMap<&[u8], Vec<usize>> = HashMap::new();
    for (i, route) in routes.iter().enumerate() {
        if route.r#match.is_empty() {
            // What follows has been reported as a whole.
            break;
        }
        for (j, found) in route.r#match.iter().enumerate() {
            let Some(found) = ByPrefix::new(i, j, found) else { continue };
            let text = found.prefix.as_bytes();
            let shorter = (1..text.len()).filter_map(|end| places.get(&text[..end])).flatten();
            let covering = shorter.copied().filter(|place| by_prefix[*place].covers(&found)).min();
            if let Some(earlier) = covering.map(|place| &by_prefix[place]) {
                let mut at = at.index(i);
                let ByPrefix { rule, index, prefix, .. } = earlier;
                at.field("match").index(found.index).warn(
                    Problem::new(format!("spec.http[{rule}].match[{index}] has the prefix `{prefix}` already"))
                        .hint("put the longer prefix before the shorter one"),
                );
            }
            places.entry(text).or_default().push(by_prefix.len());
            by_prefix.push(found);
        }
    }
}
