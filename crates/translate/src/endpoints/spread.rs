//! How traffic spreads over localities: near ones first, by weight, or as if there were none.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use maille_api::mesh::MeshConfig;
use maille_api::networking::destination_rule::{
    Distribute, Failover, LoadBalancerSettings, LocalityLoadBalancerSetting, ZoneAwareLoadBalancerSetting,
};
use maille_model::{Endpoint, Locality, Proxy, Service, TrafficDistribution};

const NETWORK: &str = "topology.istio.io/network";
const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
const SUBZONE: &str = "topology.istio.io/subzone";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Endpoints that share a locality and a priority.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Group<'a> {
    pub(crate) locality: Locality,
    pub(crate) weight: u32,
    pub(crate) priority: u32,
    pub(crate) endpoints: Vec<&'a Endpoint>,
}

impl<'a> Group<'a> {
    pub(crate) fn new(locality: Locality, endpoints: Vec<&'a Endpoint>) -> Group<'a> {
        let weight = endpoints.iter().fold(0u32, |sum, endpoint| sum.saturating_add(endpoint.weight.max(1)));
        Group { locality, weight, priority: 0, endpoints }
    }
}

/// The setting that holds: the rule's, else the service's own wish, else the mesh's.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Spread<'a> {
    /// Localities make no difference.
    None,
    /// Shares or priorities by locality.
    Locality {
        setting: Cow<'a, LocalityLoadBalancerSetting>,
        /// Even when nothing watches for failures.
        force: bool,
    },
    /// The proxy's own zone first, as Envoy balances zones itself.
    Zone(&'a ZoneAwareLoadBalancerSetting),
}

impl<'a> Spread<'a> {
    pub(crate) fn new(mesh: &'a MeshConfig, rule: Option<&'a LoadBalancerSettings>, service: &Service) -> Spread<'a> {
        if let Some(setting) = rule.and_then(|rule| rule.zone_aware_lb_setting.as_ref()) {
            return Spread::Zone(setting);
        }
        if let Some(setting) = rule.and_then(|rule| rule.locality_lb_setting.as_ref()) {
            return Spread::locality(setting);
        }
        let near: &[&str] = match service.traffic_distribution {
            TrafficDistribution::Any => &[],
            TrafficDistribution::PreferClose | TrafficDistribution::PreferSameZone => &[NETWORK, REGION, ZONE],
            TrafficDistribution::PreferSameNode => &[NETWORK, REGION, ZONE, SUBZONE, HOSTNAME],
        };
        if !near.is_empty() {
            let setting = LocalityLoadBalancerSetting {
                enabled: Some(true),
                failover_priority: near.iter().map(|label| (*label).to_owned()).collect(),
                ..LocalityLoadBalancerSetting::default()
            };
            return Spread::Locality { setting: Cow::Owned(setting), force: true };
        }
        match (&mesh.zone_aware_lb_setting, &mesh.locality_lb_setting) {
            (Some(setting), _) => Spread::Zone(setting),
            (None, Some(setting)) => Spread::locality(setting),
            (None, None) => Spread::None,
        }
    }

    fn locality(setting: &'a LocalityLoadBalancerSetting) -> Spread<'a> {
        match setting.enabled {
            Some(false) => Spread::None,
            _ => Spread::Locality { setting: Cow::Borrowed(setting), force: false },
        }
    }

    /// Gives groups their weights and priorities as seen from the proxy. Without detection of failures nothing would
    /// ever fail over, so priorities are left alone then.
    pub(crate) fn apply<'e>(&self, groups: Vec<Group<'e>>, proxy: &Proxy, detects_failures: bool) -> Vec<Group<'e>> {
        match self {
            Spread::None => groups,
            Spread::Locality { setting, force } => {
                if !setting.distribute.is_empty() {
                    return distribute(groups, &proxy.locality, &setting.distribute);
                }
                if !detects_failures && !force {
                    return groups;
                }
                if setting.failover_priority.is_empty() {
                    return by_distance(groups, &proxy.locality, &setting.failover);
                }
                let groups = by_labels(groups, proxy, &setting.failover_priority);
                match setting.failover.is_empty() {
                    true => groups,
                    false => by_distance(groups, &proxy.locality, &setting.failover),
                }
            }
            Spread::Zone(setting) if setting.enabled == Some(false) => groups,
            Spread::Zone(setting) => {
                let groups = match setting.failover_priority.is_empty() {
                    true => groups,
                    false => by_labels(groups, proxy, &setting.failover_priority),
                };
                by_region(groups, &proxy.locality, &setting.failover)
            }
        }
    }
}

/// Whether a locality is what a rule calls `region/zone/subzone`, with `*` for any.
fn matches(locality: &Locality, rule: &str) -> bool {
    let mut parts = rule.splitn(3, '/');
    let mut next = || parts.next().unwrap_or_default();
    let (region, zone, subzone) = (next(), next(), next());
    let part = |rule: &str, own: &str| rule == "*" || rule.is_empty() || rule == own;
    (region == "*" || region == locality.region) && part(zone, &locality.zone) && part(subzone, &locality.subzone)
}

/// The shares that the first matching rule gives; localities it does not name get nothing.
fn distribute<'e>(mut groups: Vec<Group<'e>>, from: &Locality, rules: &[Distribute]) -> Vec<Group<'e>> {
    let Some(rule) = rules.iter().find(|rule| matches(from, &rule.from)) else { return groups };
    let mut unnamed: BTreeSet<usize> = (0..groups.len()).collect();
    for (to, share) in &rule.to {
        let named: Vec<usize> = unnamed.iter().copied().filter(|i| matches(&groups[*i].locality, to)).collect();
        let total: u64 = named.iter().map(|i| u64::from(groups[*i].weight)).sum();
        for i in named {
            unnamed.remove(&i);
            // A wildcard's share is divided by the weights of what it covers.
            let part = (u64::from(groups[i].weight) * u64::from(*share)).div_ceil(total.max(1));
            if part > 0 {
                groups[i].weight = u32::try_from(part).unwrap_or(u32::MAX);
            }
        }
    }
    for i in unnamed {
        groups[i].endpoints.clear();
    }
    groups
}

/// Same subzone, zone, region, then the rest; of regions a rule names one as the next best.
fn by_distance<'e>(mut groups: Vec<Group<'e>>, from: &Locality, failover: &[Failover]) -> Vec<Group<'e>> {
    let next_best = failover.iter().find(|rule| rule.from == from.region).map(|rule| rule.to.as_str());
    for group in &mut groups {
        let to = &group.locality;
        let distance = match (to.region == from.region, to.zone == from.zone, to.subzone == from.subzone) {
            (true, true, true) => 0,
            (true, true, false) => 1,
            (true, false, _) => 2,
            (false, ..) => match next_best {
                Some(region) if region != to.region => 4,
                _ => 3,
            },
        };
        group.priority = group.priority * 5 + distance;
    }
    close_gaps(&mut groups);
    groups
}

/// The own region, the one a rule names next, the rest.
fn by_region<'e>(mut groups: Vec<Group<'e>>, from: &Locality, failover: &[Failover]) -> Vec<Group<'e>> {
    let next_best = failover.iter().find(|rule| rule.from == from.region).map(|rule| rule.to.as_str());
    for group in &mut groups {
        let region = group.locality.region.as_str();
        let distance = match region == from.region {
            true => 0,
            false if next_best == Some(region) => 1,
            false => 2,
        };
        group.priority = group.priority * 3 + distance;
    }
    close_gaps(&mut groups);
    groups
}

/// By how many of the labels, in order, an endpoint shares with the proxy: the first that differs decides.
fn by_labels<'e>(groups: Vec<Group<'e>>, proxy: &Proxy, labels: &[String]) -> Vec<Group<'e>> {
    let wanted: Vec<(&str, Cow<'_, str>)> = labels
        .iter()
        .map(|label| match label.split_once('=') {
            Some((name, value)) => (name, Cow::Borrowed(value)),
            None => (label.as_str(), proxy_label(proxy, label)),
        })
        .collect();
    let network_first = wanted.first().is_some_and(|(name, _)| *name == NETWORK);
    let priority = |endpoint: &Endpoint| {
        let mut shift = 0;
        for (index, (name, value)) in wanted.iter().enumerate() {
            if endpoint.labels.get(*name).map(String::as_str).unwrap_or_default() == value {
                continue;
            }
            if index == 0 && network_first {
                // Another network is worse than anything on the own one, yet distance still counts there.
                shift = wanted.len();
                continue;
            }
            return wanted.len() - index + shift;
        }
        shift
    };
    let mut out = Vec::new();
    for group in groups {
        let mut parts: BTreeMap<usize, Vec<&Endpoint>> = BTreeMap::new();
        for endpoint in group.endpoints {
            parts.entry(priority(endpoint)).or_default().push(endpoint);
        }
        out.extend(parts.into_iter().map(|(priority, endpoints)| Group {
            priority: u32::try_from(priority).unwrap_or(u32::MAX),
            ..Group::new(group.locality.clone(), endpoints)
        }));
    }
    close_gaps(&mut out);
    out
}

/// A proxy knows where it is even when its labels do not say.
fn proxy_label<'p>(proxy: &'p Proxy, name: &str) -> Cow<'p, str> {
    if let Some(value) = proxy.labels.get(name) {
        return Cow::Borrowed(value);
    }
    Cow::Borrowed(match name {
        NETWORK => &proxy.network,
        REGION => &proxy.locality.region,
        ZONE => &proxy.locality.zone,
        SUBZONE => &proxy.locality.subzone,
        _ => "",
    })
}

/// Envoy wants priorities without gaps, from zero.
fn close_gaps(groups: &mut [Group<'_>]) {
    let used: BTreeSet<u32> = groups.iter().map(|group| group.priority).collect();
    let ranks: BTreeMap<u32, u32> = used.into_iter().zip(0..).collect();
    for group in groups {
        group.priority = ranks[&group.priority];
    }
}
