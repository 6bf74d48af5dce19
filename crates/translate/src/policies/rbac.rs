//! AuthorizationPolicies as Envoy's RBAC filters.

use std::collections::BTreeMap;
use std::sync::Arc;

use maille_api::security::AuthorizationPolicy;
use maille_model::{Authorization, Policy};
use maille_xds::types::hcm::{HttpFilter, http_filter};
use maille_xds::types::listener::{Filter, filter};
use maille_xds::types::pb::envoy::extensions::filters::http::rbac::v3::Rbac as HttpRbac;
use maille_xds::types::pb::envoy::extensions::filters::network::rbac::v3::Rbac as NetworkRbac;
use maille_xds::types::rbac::rbac::Action;
use maille_xds::types::rbac::{Permission, Policy as Rule, Principal};
use maille_xds::types::{Any, Message, Name};

use super::Filters;
use super::attributes::Logic;
use super::rule::{self, Wanted};
use super::trust_domain::TrustDomains;
use crate::convert::encoded_field;

pub(super) const HTTP: &str = "envoy.filters.http.rbac";
pub(super) const NETWORK: &str = "envoy.filters.network.rbac";
const NETWORK_STAT_PREFIX: &str = "tcp.";

/// What a filter enforces or only notes. In the order of the rules' names, whatever a map would make of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    action: Action,
    rules: BTreeMap<String, Rule>,
}

/// Both filters for what an action asks for, in Istio's order: AUDIT, DENY, ALLOW.
pub(super) fn enforced(policies: &Authorization, domains: &TrustDomains<'_>, filters: &mut Filters) {
    for (action, policies) in
        [(Action::Log, &policies.audit), (Action::Deny, &policies.deny), (Action::Allow, &policies.allow)]
    {
        if policies.is_empty() {
            continue;
        }
        for of_connection in [false, true] {
            let make = |dry_run: bool| {
                let chosen: Vec<_> = policies.iter().filter(|policy| is_dry_run(policy) == dry_run).collect();
                (!chosen.is_empty()).then(|| Rules::new(action, chosen.into_iter(), domains, of_connection, ""))
            };
            let (rules, shadow) = (make(false), make(true));
            let shadow = shadow.as_ref().map(|shadow| (shadow, shadow_prefix(action)));
            match of_connection {
                false => filters.http.push(http_filter(rules.as_ref(), shadow)),
                true => filters.network.push(network_filter(rules.as_ref(), shadow)),
            }
        }
    }
}

pub(super) fn is_dry_run(policy: &Policy<AuthorizationPolicy>) -> bool {
    let value = policy.meta.annotations.get(AuthorizationPolicy::DRY_RUN);
    value.is_some_and(|value| matches!(value.as_str(), "1" | "t" | "T" | "TRUE" | "true" | "True"))
}

fn shadow_prefix(action: Action) -> &'static str {
    match action {
        Action::Allow => "istio_dry_run_allow_",
        Action::Deny => "istio_dry_run_deny_",
        Action::Log => "",
    }
}

impl Rules {
    /// The rules of policies, each named by its policy and its number: what logs and metrics call it.
    pub(super) fn new<'p>(
        action: Action,
        policies: impl Iterator<Item = &'p Arc<Policy<AuthorizationPolicy>>>,
        domains: &TrustDomains<'_>,
        of_connection: bool,
        name_prefix: &str,
    ) -> Rules {
        let mut rules = BTreeMap::new();
        for policy in policies {
            let meta = &policy.meta;
            let name = |i: usize| format!("{name_prefix}ns[{}]-policy[{}]-rule[{i}]", meta.namespace, meta.name);
            let allows = action == Action::Allow;
            let wanted = Wanted { namespace: &meta.namespace, domains, of_connection, allows };
            for (i, rule) in policy.spec.rules.iter().enumerate() {
                if let Some(made) = rule::policy(rule, &wanted) {
                    rules.insert(name(i), made);
                }
            }
            // Said outright, so that whoever reads the filter sees whose silence it is.
            if policy.spec.rules.is_empty() {
                rules.insert(name(0), never());
            }
        }
        Rules { action, rules }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What matches is refused, whatever was to be done with it.
    pub(super) fn refused(&self, name_suffix: &str) -> Rules {
        let renamed = self.rules.iter().map(|(name, rule)| (format!("{name}{name_suffix}"), rule.clone()));
        Rules { action: Action::Deny, rules: renamed.collect() }
    }

    /// `envoy.config.rbac.v3.RBAC`; its map would come in another order each time.
    fn encode(&self) -> Vec<u8> {
        let action = maille_xds::types::rbac::Rbac { action: self.action.into(), ..Default::default() };
        let mut bytes = action.encode_to_vec();
        for (name, rule) in &self.rules {
            let mut entry = encoded_field(1, name.as_bytes());
            entry.extend(encoded_field(2, &rule.encode_to_vec()));
            bytes.extend(encoded_field(2, &entry));
        }
        bytes
    }
}

/// Matches nothing.
fn never() -> Rule {
    Rule {
        permissions: vec![Permission::not(Permission::any())],
        principals: vec![Principal::not(Principal::any())],
        ..Rule::default()
    }
}

/// Numbers of the fields that both filters have.
const RULES: u32 = 1;
const SHADOW_RULES: u32 = 2;

pub(super) fn http_filter(rules: Option<&Rules>, shadow: Option<(&Rules, &str)>) -> HttpFilter {
    let prefix = shadow.map_or("", |(_, prefix)| prefix);
    let rest = HttpRbac { shadow_rules_stat_prefix: prefix.to_owned(), ..HttpRbac::default() };
    let config = with_rules(&rest, rules, shadow.map(|(shadow, _)| shadow));
    HttpFilter {
        name: HTTP.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..HttpFilter::default()
    }
}

pub(super) fn network_filter(rules: Option<&Rules>, shadow: Option<(&Rules, &str)>) -> Filter {
    let rest = NetworkRbac {
        stat_prefix: NETWORK_STAT_PREFIX.to_owned(),
        shadow_rules_stat_prefix: shadow.map_or("", |(_, prefix)| prefix).to_owned(),
        ..NetworkRbac::default()
    };
    let config = with_rules(&rest, rules, shadow.map(|(shadow, _)| shadow));
    Filter { name: NETWORK.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(config)) }
}

/// A filter's message with its rules, which are encoded already.
fn with_rules<M: Message + Name>(rest: &M, rules: Option<&Rules>, shadow: Option<&Rules>) -> Any {
    let mut value = rest.encode_to_vec();
    for (number, rules) in [(RULES, rules), (SHADOW_RULES, shadow)] {
        if let Some(rules) = rules {
            value.extend(encoded_field(number, &rules.encode()));
        }
    }
    Any { type_url: M::type_url(), value }
}
