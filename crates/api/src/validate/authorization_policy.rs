//! AuthorizationPolicy: the policy as a whole, its rules one by one; attributes are judged in [`attributes`].

mod attributes;

use super::findings::{At, Problem, Verdict};
use super::policy_target;
use crate::meta::ObjectMeta;
use crate::security::AuthorizationPolicy;
use crate::security::authorization_policy::{Action, Condition, Operation, Rule, Source};

pub(super) fn validate(policy: &AuthorizationPolicy, at: &mut At<'_>) {
    policy_target::validate(policy.selector.as_ref(), policy.target_ref.as_ref(), &policy.target_refs, at);
    let never = |action: &str| {
        Problem::new(format!("{action} without rules never applies"))
            .hint("write `rules: [{}]` if it is to apply to every request")
    };
    match policy.action {
        Action::Deny if policy.rules.is_empty() => at.field("rules").error(never("DENY")),
        Action::Custom if policy.rules.is_empty() => at.field("rules").error(never("CUSTOM")),
        Action::Custom if policy.provider().is_empty() => {
            at.field("provider").field("name").error("CUSTOM needs the name of a provider");
        }
        _ => {}
    }
    if policy.action_detail.is_some() && policy.action != Action::Custom {
        at.field("provider").error(format!("only CUSTOM has a provider, and the action is {}", policy.action));
    }
    for (i, rule) in policy.rules.iter().enumerate() {
        self::rule(rule, policy.action, &mut at.field("rules").index(i));
    }
}

/// The annotation that has a policy tried without effect.
pub(super) fn dry_run(meta: &ObjectMeta, policy: &AuthorizationPolicy) -> Verdict {
    let Some(value) = meta.annotations.get(AuthorizationPolicy::DRY_RUN) else { return Ok(()) };
    if !matches!(
        value.as_str(),
        "1" | "t" | "T" | "TRUE" | "true" | "True" | "0" | "f" | "F" | "FALSE" | "false" | "False"
    ) {
        return Err(Problem::new(format!("`{value}` is neither true nor false")).hint("write \"true\" or \"false\""));
    }
    if !matches!(policy.action, Action::Allow | Action::Deny) {
        return Err(
            format!("only ALLOW and DENY can be tried without effect, and the action is {}", policy.action).into()
        );
    }
    Ok(())
}

fn rule(rule: &Rule, action: Action, at: &mut At<'_>) {
    let mut from_tells_tcp = false;
    for (i, from) in rule.from.iter().enumerate() {
        let mut at = at.field("from");
        let mut at = at.index(i);
        let mut at = at.field("source");
        let Some(source) = &from.source else {
            at.error("the source is missing");
            continue;
        };
        self::source(source, action, &mut at);
        from_tells_tcp |= tells_tcp(source);
    }
    let mut to_tells_tcp = false;
    for (i, to) in rule.to.iter().enumerate() {
        let mut at = at.field("to");
        let mut at = at.index(i);
        let mut at = at.field("operation");
        let Some(operation) = &to.operation else {
            at.error("the operation is missing");
            continue;
        };
        self::operation(operation, &mut at);
        to_tells_tcp |= !operation.ports.is_empty() || !operation.not_ports.is_empty();
    }
    for (i, condition) in rule.when.iter().enumerate() {
        self::condition(condition, action, &mut at.field("when").index(i));
    }
    let (from, to) = (rule.from.iter().any(|f| f.source.is_some()), rule.to.iter().any(|t| t.operation.is_some()));
    if action == Action::Deny && (from && !to && !from_tells_tcp || to && !to_tells_tcp) {
        at.warn(
            Problem::new("the rule says nothing that a TCP connection has, so it denies all traffic to TCP ports")
                .hint("name the ports that are meant in `to.operation.ports`"),
        );
    }
}

/// Whether anything in a source is known of a TCP connection.
fn tells_tcp(source: &Source) -> bool {
    [
        &source.principals,
        &source.not_principals,
        &source.ip_blocks,
        &source.not_ip_blocks,
        &source.namespaces,
        &source.not_namespaces,
        &source.remote_ip_blocks,
        &source.not_remote_ip_blocks,
        &source.service_accounts,
        &source.not_service_accounts,
    ]
    .iter()
    .any(|values| !values.is_empty())
}

type Check = fn(&str) -> Verdict;

fn source(source: &Source, action: Action, at: &mut At<'_>) {
    let fields: [(&str, &Vec<String>, Check, bool); 14] = [
        ("principals", &source.principals, attributes::filled, true),
        ("notPrincipals", &source.not_principals, attributes::filled, true),
        ("requestPrincipals", &source.request_principals, attributes::filled, true),
        ("notRequestPrincipals", &source.not_request_principals, attributes::filled, true),
        ("namespaces", &source.namespaces, attributes::filled, true),
        ("notNamespaces", &source.not_namespaces, attributes::filled, true),
        ("serviceAccounts", &source.service_accounts, attributes::service_account, true),
        ("notServiceAccounts", &source.not_service_accounts, attributes::service_account, true),
        ("ipBlocks", &source.ip_blocks, attributes::ip_block, false),
        ("notIpBlocks", &source.not_ip_blocks, attributes::ip_block, false),
        ("remoteIpBlocks", &source.remote_ip_blocks, attributes::ip_block, false),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks, attributes::ip_block, false),
        ("trustDomains", &source.trust_domains, attributes::trust_domain, true),
        ("notTrustDomains", &source.not_trust_domains, attributes::trust_domain, true),
    ];
    if fields.iter().all(|(_, values, ..)| values.is_empty()) {
        at.error(Problem::new("the source is empty").hint("leave `from` out to mean any source"));
    }
    let by_account = !source.service_accounts.is_empty() || !source.not_service_accounts.is_empty();
    if by_account && fields.iter().any(|(name, values, ..)| is_within_account(name) && !values.is_empty()) {
        at.field("serviceAccounts").error("service accounts cannot be combined with principals or namespaces");
    }
    for (name, values, check, is_identity) in fields {
        let mut at = at.field(name);
        if action == Action::Custom && is_identity && !values.is_empty() {
            at.error("CUSTOM cannot tell who is calling: it comes before that is known");
        }
        if name.ends_with("erviceAccounts") {
            at.check(attributes::few(values));
        }
        each(values, check, &mut at);
    }
}

fn is_within_account(field: &str) -> bool {
    matches!(field, "principals" | "notPrincipals" | "namespaces" | "notNamespaces")
}

fn operation(operation: &Operation, at: &mut At<'_>) {
    let fields: [(&str, &Vec<String>, Check); 8] = [
        ("hosts", &operation.hosts, attributes::filled),
        ("notHosts", &operation.not_hosts, attributes::filled),
        ("ports", &operation.ports, attributes::port),
        ("notPorts", &operation.not_ports, attributes::port),
        ("methods", &operation.methods, attributes::filled),
        ("notMethods", &operation.not_methods, attributes::filled),
        ("paths", &operation.paths, attributes::path),
        ("notPaths", &operation.not_paths, attributes::path),
    ];
    if fields.iter().all(|(_, values, _)| values.is_empty()) {
        at.error(Problem::new("the operation is empty").hint("leave `to` out to mean any operation"));
    }
    for (name, values, check) in fields {
        each(values, check, &mut at.field(name));
    }
}

fn condition(condition: &Condition, action: Action, at: &mut At<'_>) {
    let key = condition.key.as_str();
    if key.is_empty() {
        return at.field("key").error("the key is missing");
    }
    let is_identity = ["source.namespace", "source.serviceAccount", "source.trustDomain", "source.principal"];
    if action == Action::Custom && (is_identity.contains(&key) || key.starts_with("request.auth.")) {
        at.field("key").error("CUSTOM cannot tell who is calling: it comes before that is known");
    }
    if condition.values.is_empty() && condition.not_values.is_empty() {
        return at.error("a condition needs `values` or `notValues`");
    }
    match attributes::of_condition(key) {
        Err(problem) => at.field("key").error(problem),
        Ok(check) => {
            for (name, values) in [("values", &condition.values), ("notValues", &condition.not_values)] {
                let mut at = at.field(name);
                if key == "source.serviceAccount" {
                    at.check(attributes::few(values));
                }
                each(values, check, &mut at);
            }
        }
    }
}

fn each(values: &[String], check: Check, at: &mut At<'_>) {
    for (i, value) in values.iter().enumerate() {
        at.index(i).check(check(value));
    }
}
