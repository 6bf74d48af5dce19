//! Names that lead nowhere: what a route or a rule refers to and the mesh does not have.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use maille_api::Kind;
use maille_api::networking::virtual_service::Destination;

use crate::destination_rule::MergedRule;
use crate::host::{is_wildcard, matches};
use crate::snapshot::Snapshot;
use crate::virtual_service::{MESH_GATEWAY, VirtualService};
use crate::warning::{Warning, key};

/// What every VirtualService and DestinationRule refers to in vain.
pub(crate) fn check(snapshot: &Snapshot) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let rules = Rules::new(snapshot);
    for route in snapshot.virtual_services() {
        let mut messages = BTreeSet::new();
        gateways(snapshot, route, &mut messages);
        // Thousands of routes may lead to the same few places.
        let port = |destination: &Destination| destination.port.as_ref().map(|port| port.number);
        let places: BTreeMap<_, _> =
            route.all_destinations().map(|to| ((&to.host, &to.subset, port(to)), to)).collect();
        for destination in places.into_values() {
            messages.extend(lost(snapshot, &rules, route, destination));
        }
        let key = key(Kind::VirtualService, &route.meta);
        warnings.extend(messages.into_iter().map(|message| Warning { key: key.clone(), message }));
    }
    let wildcards: Vec<_> = snapshot.services().iter().filter(|service| is_wildcard(&service.hostname)).collect();
    for rule in snapshot.rules().iter() {
        let host = &rule.rule.host;
        let known = match is_wildcard(host) {
            true => snapshot.services().iter().any(|service| matches(&service.hostname, host)),
            false => snapshot.has_host(host) || wildcards.iter().any(|service| matches(&service.hostname, host)),
        };
        if !known {
            let message = format!("no service has the host {host}: the rule does nothing");
            warnings.extend(rule.from.iter().map(|key| Warning { key: key.clone(), message: message.clone() }));
        }
    }
    warnings
}

fn gateways(snapshot: &Snapshot, route: &VirtualService, messages: &mut BTreeSet<String>) {
    let known = |name: &str| {
        snapshot.gateways().iter().any(|(meta, _)| name.split_once('/') == Some((&meta.namespace, &meta.name)))
    };
    for name in route.spec.gateways.iter().filter(|name| *name != MESH_GATEWAY && !known(name)) {
        messages.insert(format!("there is no Gateway {name}: the routes do nothing there"));
    }
}

/// Why requests to a destination fail, if they do.
fn lost(snapshot: &Snapshot, rules: &Rules<'_>, route: &VirtualService, destination: &Destination) -> Option<String> {
    let Destination { host, subset, port } = destination;
    let Some(service) = snapshot.destination_service(host, &route.meta.namespace) else {
        return Some(format!(
            "no service has the host {host} (or none that namespace {} can see): nothing routed there arrives",
            route.meta.namespace
        ));
    };
    if let Some(port) = port
        && service.port(port.number).is_none()
    {
        return Some(format!("service {host} has no port {}: nothing routed there arrives", port.number));
    }
    if subset.is_empty() {
        return None;
    }
    let defined = rules.define(&service.hostname, subset);
    (!defined).then(|| format!("no DestinationRule defines subset {subset} of {host}: nothing routed there arrives"))
}

/// Subsets by the host they are defined for. Whoever calls may follow another rule, so any rule for the host will do.
struct Rules<'a> {
    exact: HashMap<&'a str, BTreeSet<&'a str>>,
    wildcard: Vec<&'a MergedRule>,
}

impl<'a> Rules<'a> {
    fn new(snapshot: &'a Snapshot) -> Rules<'a> {
        let mut rules = Rules { exact: HashMap::new(), wildcard: Vec::new() };
        for rule in snapshot.rules().iter() {
            if is_wildcard(&rule.rule.host) {
                rules.wildcard.push(rule);
            } else {
                let subsets = rule.rule.subsets.iter().map(|subset| subset.name.as_str());
                rules.exact.entry(&rule.rule.host).or_default().extend(subsets);
            }
        }
        rules
    }

    fn define(&self, host: &str, subset: &str) -> bool {
        let mut by_wildcard = self.wildcard.iter().filter(|rule| matches(host, &rule.rule.host));
        self.exact.get(host).is_some_and(|subsets| subsets.contains(subset))
            || by_wildcard.any(|rule| rule.subset(subset).is_some())
    }
}
