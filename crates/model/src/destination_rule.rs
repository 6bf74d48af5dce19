//! DestinationRules: which one a client follows for a service, and how several for one host become one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use maille_api::networking::destination_rule::{ClientTlsMode, DestinationRule, Subset};
use maille_api::{Key, Kind, ObjectMeta};

use crate::host::{HostMap, resolve_short_name};
use crate::service::Service;
use crate::warning::{Warning, key};

/// The DestinationRules of one host that apply together.
#[derive(Clone, Debug, PartialEq)]
pub struct MergedRule {
    /// Where the rules live; a rule is never merged across namespaces.
    pub namespace: String,
    /// The rules it came from, oldest first.
    pub from: Vec<Key>,
    /// Subsets of all of them, the traffic policy of the first that has one; the host is a full name.
    pub rule: DestinationRule,
    /// The client workloads it is for; `None` is all.
    pub selector: Option<BTreeMap<String, String>>,
    export_to: BTreeSet<String>,
}

impl MergedRule {
    /// The subset of this name.
    pub fn subset(&self, name: &str) -> Option<&Subset> {
        self.rule.subsets.iter().find(|subset| subset.name == name)
    }

    fn exported_to(&self, namespace: &str) -> bool {
        self.export_to.is_empty() || self.export_to.contains("*") || self.export_to.contains(namespace)
    }
}

type Rules = HostMap<Vec<Arc<MergedRule>>>;

/// Every rule, by who may ask for it.
#[derive(Debug, Default)]
pub(crate) struct RuleIndex {
    root_namespace: String,
    local: BTreeMap<String, Rules>,
    exported: BTreeMap<String, Rules>,
    root_private: Rules,
}

impl RuleIndex {
    pub(crate) fn new(
        sources: &[(&ObjectMeta, &DestinationRule)],
        domain: &str,
        root_namespace: &str,
        private_by_default: bool,
        warnings: &mut Vec<Warning>,
    ) -> RuleIndex {
        let mut index = RuleIndex { root_namespace: root_namespace.to_owned(), ..RuleIndex::default() };
        // Rules for some workloads first, so that a rule for all is merged into each of them when it comes.
        let (some, all): (Vec<_>, Vec<_>) = sources.iter().partition(|(_, rule)| rule.workload_selector.is_some());
        for (meta, rule) in some.into_iter().chain(all) {
            index.add(meta, rule, domain, private_by_default, warnings);
        }
        index
    }

    fn add(
        &mut self,
        meta: &ObjectMeta,
        rule: &DestinationRule,
        domain: &str,
        private_by_default: bool,
        warnings: &mut Vec<Warning>,
    ) {
        let namespace = meta.namespace.as_str();
        warn_of_tls(meta, rule, warnings);
        let selector = rule.workload_selector.as_ref().map(|selector| selector.match_labels.clone());
        let export_to: BTreeSet<String> = match selector {
            // A rule for some workloads of a namespace means nothing to other namespaces.
            Some(_) => BTreeSet::from([".".to_owned()]),
            None => rule.export_to.iter().cloned().collect(),
        };
        let mut resolved = rule.clone();
        resolved.host = resolve_short_name(&rule.host, namespace, domain);
        let merged = MergedRule {
            namespace: namespace.to_owned(),
            from: vec![key(Kind::DestinationRule, meta)],
            rule: resolved,
            selector,
            export_to: export_to.clone(),
        };

        let names_itself = |set: &BTreeSet<String>| set.contains(".") || set.contains(namespace);
        if export_to.is_empty() || export_to.contains("*") || names_itself(&export_to) {
            merge(self.local.entry(namespace.to_owned()).or_default(), &merged, warnings);
        }
        let private =
            if export_to.is_empty() { private_by_default } else { export_to.len() == 1 && names_itself(&export_to) };
        // The same remark once is enough: the second index holds the same rules.
        let quiet = &mut Vec::new();
        if !private {
            merge(self.exported.entry(namespace.to_owned()).or_default(), &merged, quiet);
        } else if namespace == self.root_namespace {
            merge(&mut self.root_private, &merged, quiet);
        }
    }

    /// The rule a client with these labels in this namespace follows for a service. The client's namespace comes first,
    /// then the service's, then the root namespace; the first with any rule for the host decides.
    pub(crate) fn find(
        &self,
        client: &str,
        labels: Option<&BTreeMap<String, String>>,
        service: &Service,
    ) -> Option<Arc<MergedRule>> {
        let own = if client == self.root_namespace { Some(&self.root_private) } else { self.local.get(client) };
        let candidates: Vec<Arc<MergedRule>> = own
            .and_then(|rules| rules.most_specific(&service.hostname))
            .map(|(_, rules)| rules.clone())
            .or_else(|| self.exported_by(&service.namespace, &service.hostname, client))
            .or_else(|| self.exported_by(&self.root_namespace, &service.hostname, client))?;
        let for_these = |rule: &&Arc<MergedRule>| match (&rule.selector, labels) {
            (Some(selector), Some(labels)) => rule.namespace == client && is_subset(selector, labels),
            _ => false,
        };
        // Of several rules for all workloads (of different exportTo) the last one counts, as upstream has it.
        let for_all = || candidates.iter().rev().find(|rule| rule.selector.is_none());
        candidates.iter().find(for_these).or_else(for_all).cloned()
    }

    /// Every rule once, as its own namespace sees it or as others do.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<MergedRule>> {
        let lists = self.local.values().chain(self.exported.values()).flat_map(HostMap::iter).map(|(_, rules)| rules);
        lists.flatten()
    }

    fn exported_by(&self, owner: &str, hostname: &str, client: &str) -> Option<Vec<Arc<MergedRule>>> {
        let (_, rules) = self.exported.get(owner)?.most_specific(hostname)?;
        let visible: Vec<_> = rules.iter().filter(|rule| rule.exported_to(client)).cloned().collect();
        (!visible.is_empty()).then_some(visible)
    }
}

/// What a rule says about TLS that will not come to pass as its author may think.
fn warn_of_tls(meta: &ObjectMeta, rule: &DestinationRule, warnings: &mut Vec<Warning>) {
    let subsets = rule.subsets.iter().filter_map(|subset| subset.traffic_policy.as_ref());
    let policies = rule.traffic_policy.iter().chain(subsets);
    let settings = policies.flat_map(|policy| {
        policy.tls.iter().chain(policy.port_level_settings.iter().filter_map(|of_port| of_port.tls.as_ref()))
    });
    for tls in settings {
        let by_credential = !tls.credential_name.is_empty() && rule.workload_selector.is_none();
        let message = match tls.mode {
            ClientTlsMode::IstioMutual => format!(
                "ISTIO_MUTUAL needs identities of workloads, which this version does not issue: connections to {} fail",
                rule.host
            ),
            ClientTlsMode::Simple | ClientTlsMode::Mutual if by_credential => format!(
                "credentialName counts on gateways, and on sidecars that a workloadSelector names: other sidecars \
                 speak to {} without TLS",
                rule.host
            ),
            _ => continue,
        };
        warnings.push(Warning { key: key(Kind::DestinationRule, meta), message });
    }
}

/// Whether every label selected is there.
pub(crate) fn is_subset(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(name, value)| labels.get(name) == Some(value))
}

/// Puts a rule among those of its host: into the ones it belongs with, and beside those it does not.
fn merge(rules: &mut Rules, new: &MergedRule, warnings: &mut Vec<Warning>) {
    let list = rules.entry(&new.rule.host).or_default();
    let mut append = true;
    for existing in list.iter_mut() {
        let same_export = new.export_to == existing.export_to;
        let wider = !existing.export_to.is_empty() && new.export_to.is_superset(&existing.export_to);
        append = !same_export;
        if !same_export && !wider {
            continue;
        }
        match (&new.selector, &existing.selector) {
            (Some(new), Some(existing)) if new != existing => {
                append = true;
                continue;
            }
            (None, None) | (Some(_), Some(_)) => append = false,
            _ => {}
        }
        merge_into(Arc::make_mut(existing), new, warnings);
    }
    if append {
        list.push(Arc::new(new.clone()));
    }
}

fn merge_into(existing: &mut MergedRule, new: &MergedRule, warnings: &mut Vec<Warning>) {
    existing.from.extend(new.from.iter().cloned());
    for subset in &new.rule.subsets {
        if existing.subset(&subset.name).is_none() {
            existing.rule.subsets.push(subset.clone());
            continue;
        }
        let message = format!(
            "subset {} of host {} is already defined by {}: that one counts",
            subset.name, new.rule.host, existing.from[0]
        );
        warnings.extend(new.from.first().map(|key| Warning { key: key.clone(), message }));
    }
    if existing.rule.traffic_policy.is_none() {
        existing.rule.traffic_policy.clone_from(&new.rule.traffic_policy);
    } else if let (true, Some(key)) = (new.rule.traffic_policy.is_some(), new.from.first()) {
        warnings.push(Warning {
            key: key.clone(),
            message: format!(
                "host {} already has a traffic policy from {}: this one is not used",
                new.rule.host, existing.from[0]
            ),
        });
    }
}
