//! DestinationRule: a host, its policy, and the subsets that may have policies of their own.

use std::collections::BTreeSet;

use super::findings::{At, Problem};
use super::rules::{self, Exported};
use super::traffic_policy;
use crate::meta::ObjectMeta;
use crate::networking::DestinationRule;
use crate::networking::destination_rule::Subset;
use crate::selector::WorkloadSelector;

pub(super) fn validate(meta: &ObjectMeta, rule: &DestinationRule, at: &mut At<'_>) {
    at.field("host").check(rules::wildcard_domain(&rule.host));
    if let Some(policy) = &rule.traffic_policy {
        traffic_policy::validate(&meta.namespace, policy, &mut at.field("trafficPolicy"));
    }
    let mut names = BTreeSet::new();
    for (i, subset) in rule.subsets.iter().enumerate() {
        let mut at = at.field("subsets");
        let at = &mut at.index(i);
        if !names.insert(&subset.name) {
            at.field("name").error(
                Problem::new(format!("another subset is called `{}` already", subset.name))
                    .hint("give each its own name"),
            );
        }
        self::subset(&meta.namespace, subset, at);
    }
    let exported = if rule.workload_selector.is_some() { Exported::PolicyForSomeWorkloads } else { Exported::Routes };
    rules::export_to(&meta.namespace, &rule.export_to, exported, &mut at.field("exportTo"));
    if let Some(selector) = &rule.workload_selector {
        workload_selector(selector, &mut at.field("workloadSelector"));
    }
}

fn subset(namespace: &str, subset: &Subset, at: &mut At<'_>) {
    at.field("name").check(rules::dns_label("subset name", &subset.name));
    rules::labels(&subset.labels, &mut at.field("labels"));
    if let Some(policy) = &subset.traffic_policy {
        traffic_policy::validate(namespace, policy, &mut at.field("trafficPolicy").errors_only());
    }
}

fn workload_selector(selector: &WorkloadSelector, at: &mut At<'_>) {
    rules::selector_labels(&selector.match_labels, &mut at.field("matchLabels"));
    if selector.match_labels.is_empty() {
        at.warn(
            Problem::new("the selector has no labels, so the rule is for every workload")
                .hint("add matchLabels, or remove the selector"),
        );
    }
}
