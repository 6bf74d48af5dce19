//! What requests are hashed by, from the destination's DestinationRule: the route's half of a consistent hash.

use maille_api::networking::destination_rule::{ConsistentHashLb, DestinationRule, HashKey, LbPolicy, TrafficPolicy};
use maille_xds::types::route::route_action::HashPolicy;
use maille_xds::types::route::route_action::hash_policy::{
    ConnectionProperties, Cookie, CookieAttribute, Header, PolicySpecifier, QueryParameter,
};

use crate::convert::duration;

/// The hash of a route's destination: its subset's port, its subset, its port, the rule, whichever speaks first.
pub(crate) fn of_destination<'a>(
    rule: &'a DestinationRule,
    subset: &str,
    port: Option<u32>,
) -> Option<&'a ConsistentHashLb> {
    let of_subset = rule
        .subsets
        .iter()
        .find(|candidate| candidate.name == subset)
        .and_then(|subset| subset.traffic_policy.as_ref())
        .and_then(|policy| port_hash(policy, port).or_else(|| policy_hash(policy)));
    of_subset.or_else(|| {
        let policy = rule.traffic_policy.as_ref()?;
        port_hash(policy, port).or_else(|| policy_hash(policy))
    })
}

/// Envoy's policy for it; `None` when nothing says what to hash.
pub(crate) fn policy(hash: &ConsistentHashLb) -> Option<HashPolicy> {
    let specifier = match hash.hash_key.as_ref()? {
        HashKey::HttpHeaderName(name) => {
            PolicySpecifier::Header(Header { header_name: name.clone(), ..Default::default() })
        }
        HashKey::HttpCookie(cookie) => PolicySpecifier::Cookie(Cookie {
            name: cookie.name.clone(),
            ttl: cookie.ttl.map(duration),
            path: cookie.path.clone(),
            attributes: cookie
                .attributes
                .iter()
                .map(|attribute| CookieAttribute { name: attribute.name.clone(), value: attribute.value.clone() })
                .collect(),
        }),
        HashKey::UseSourceIp(source_ip) => {
            PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: *source_ip })
        }
        HashKey::HttpQueryParameterName(name) => PolicySpecifier::QueryParameter(QueryParameter { name: name.clone() }),
    };
    Some(HashPolicy { policy_specifier: Some(specifier), ..Default::default() })
}

fn policy_hash(policy: &TrafficPolicy) -> Option<&ConsistentHashLb> {
    hash_of(policy.load_balancer.as_ref()?.lb_policy.as_ref()?)
}

fn port_hash(policy: &TrafficPolicy, port: Option<u32>) -> Option<&ConsistentHashLb> {
    let number = port?;
    let settings = policy
        .port_level_settings
        .iter()
        .find(|settings| settings.port.as_ref().is_some_and(|port| port.number == number))?;
    hash_of(settings.load_balancer.as_ref()?.lb_policy.as_ref()?)
}

fn hash_of(policy: &LbPolicy) -> Option<&ConsistentHashLb> {
    match policy {
        LbPolicy::ConsistentHash(hash) => Some(hash),
        LbPolicy::Simple(_) => None,
    }
}
