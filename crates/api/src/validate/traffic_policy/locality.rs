//! How traffic spreads over regions and zones, and where it fails over to.

use crate::networking::destination_rule::{
    Distribute, Failover, LocalityLoadBalancerSetting, ZoneAwareLoadBalancerSetting,
};
use crate::validate::findings::{At, Problem, Verdict};

const TOPOLOGY_LABELS: [&str; 3] =
    ["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"];

pub(crate) fn validate(setting: &LocalityLoadBalancerSetting, has_outlier_detection: bool, at: &mut At<'_>) {
    if !setting.distribute.is_empty() && !setting.failover.is_empty() {
        return at.error(Problem::new("distribute and failover exclude each other").hint("remove one of them"));
    }
    if !setting.failover.is_empty()
        && let Some(i) = setting.failover_priority.iter().position(|label| is_topology(label))
    {
        return at.field("failoverPriority").index(i).error(
            Problem::new(format!("`{}` cannot order endpoints while failover does", setting.failover_priority[i]))
                .hint("remove the label, or failover"),
        );
    }
    for (i, entry) in setting.distribute.iter().enumerate() {
        if let Err(problem) = shares(entry) {
            // Istio looks no further: nothing else about the setting can be trusted.
            return at.field("distribute").index(i).field("to").error(problem);
        }
        at.field("distribute").index(i).field("to").check(disjoint(entry.to.keys()));
    }
    at.field("distribute").check(disjoint(setting.distribute.iter().map(|entry| &entry.from)));
    let fails_over = !setting.failover.is_empty() || !setting.failover_priority.is_empty();
    failover(&setting.failover, fails_over && !has_outlier_detection, at);
}

pub(crate) fn validate_zone_aware(
    setting: &ZoneAwareLoadBalancerSetting,
    has_outlier_detection: bool,
    at: &mut At<'_>,
) {
    for (i, label) in setting.failover_priority.iter().enumerate() {
        if is_topology(label) {
            at.field("failoverPriority").index(i).error(
                Problem::new(format!("endpoints are ordered by `{label}` already"))
                    .hint("remove it; regions are ordered by failover"),
            );
        }
    }
    if setting.min_cluster_size == Some(0) {
        at.field("minClusterSize").error("the smallest cluster has at least one endpoint");
    }
    let fails_over = !setting.failover.is_empty() || !setting.failover_priority.is_empty();
    failover(&setting.failover, fails_over && !has_outlier_detection, at);
}

fn is_topology(label: &str) -> bool {
    TOPOLOGY_LABELS.contains(&label)
}

fn failover(failover: &[Failover], is_blind: bool, at: &mut At<'_>) {
    if is_blind {
        at.warn(
            Problem::new("without outlier detection nothing notices that endpoints fail")
                .hint("add outlierDetection to the policy"),
        );
    }
    for (i, entry) in failover.iter().enumerate() {
        let mut at = at.field("failover");
        let at = &mut at.index(i);
        if entry.from == entry.to {
            at.error("traffic cannot fail over to the region it comes from");
        }
        if entry.from.contains('/') || entry.to.contains('/') {
            at.error(Problem::new("failover is between regions").hint("leave out the zone"));
        }
        if entry.from.contains('*') || entry.to.contains('*') {
            at.error(Problem::new("failover knows no wildcards").hint("name the regions"));
        }
    }
}

/// The shares of one locality: 1 to 100 each, 100 together.
fn shares(entry: &Distribute) -> Verdict {
    if let Some((to, weight)) = entry.to.iter().find(|(_, weight)| !(1..=100).contains(*weight)) {
        return Err(format!("the share of `{to}` is {weight}, and not between 1 and 100").into());
    }
    let total: u64 = entry.to.values().map(|weight| u64::from(*weight)).sum();
    if total != 100 {
        return Err(format!("the shares are {total} together, and not 100").into());
    }
    Ok(())
}

/// Localities (`region`, `region/zone` or `region/zone/subzone`) none of which an earlier one covers. One that ends in
/// `*` is for what the earlier ones leave over.
fn disjoint<'a>(localities: impl Iterator<Item = &'a String>) -> Verdict {
    let mut seen: Vec<Vec<&str>> = Vec::new();
    for locality in localities {
        if locality.matches('*').count() > 1 || (locality.contains('*') && !locality.ends_with('*')) {
            return Err(Problem::new(format!("`*` does not stand at the end of `{locality}`"))
                .hint("it can only be the last part, as in `us-east/*`"));
        }
        let mut parts: Vec<&str> = locality.splitn(3, '/').collect();
        if parts.contains(&"") {
            return Err(format!("a part of the locality `{locality}` is empty").into());
        }
        let takes_the_rest = parts.pop_if(|part| *part == "*").is_some();
        if seen.iter().any(|other| parts.starts_with(other) || (!takes_the_rest && other.starts_with(&parts))) {
            return Err(format!("`{locality}` overlaps with another locality").into());
        }
        seen.push(parts);
    }
    Ok(())
}
