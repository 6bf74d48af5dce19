//! Policies that were accepted and do nothing, or cannot do what they say where they apply.

use std::collections::{BTreeMap, BTreeSet};

use maille_api::security::authorization_policy::{Action, Rule, Source};
use maille_api::security::{AuthorizationPolicy, PeerAuthentication};
use maille_api::{Kind, ObjectMeta};

use super::{ByNamespace, MutualTls, Policies, Policy, Selects, is_for, is_for_all};
use crate::Protocol;
use crate::snapshot::Snapshot;
use crate::warning::{Warning, key};

/// A workload as policies see it: anything with an address, or a gateway.
struct Seen<'a> {
    namespace: &'a str,
    labels: &'a BTreeMap<String, String>,
    /// The workload's ports, and what is spoken there.
    ports: BTreeMap<u32, Protocol>,
    /// Whether a proxy of the mesh enforces anything there.
    has_proxy: bool,
}

/// What there is to say about every policy.
pub(crate) fn check(snapshot: &Snapshot, policies: &Policies) -> Vec<Warning> {
    let workloads = seen(snapshot);
    let mut warnings = Vec::new();
    targets(Kind::RequestAuthentication, &policies.request, &mut warnings);
    targets(Kind::AuthorizationPolicy, &policies.authorization, &mut warnings);
    selection(Kind::PeerAuthentication, policies, &policies.peer, &workloads, &mut warnings);
    selection(Kind::RequestAuthentication, policies, &policies.request, &workloads, &mut warnings);
    selection(Kind::AuthorizationPolicy, policies, &policies.authorization, &workloads, &mut warnings);
    peers(policies, &mut warnings);
    ingress_tls(snapshot, policies, &mut warnings);
    for policy in policies.authorization.values().flatten() {
        let mut say = |message: String| warnings.push(warning(Kind::AuthorizationPolicy, &policy.meta, message));
        provider(snapshot, &policy.spec, &mut say);
        let mut messages = BTreeSet::new();
        for workload in workloads.iter().filter(|workload| applies(policies, policy, workload)) {
            enforceable(policies, &policy.spec, workload, &mut messages);
        }
        messages.into_iter().for_each(&mut say);
    }
    warnings
}

fn warning(kind: Kind, meta: &ObjectMeta, message: String) -> Warning {
    Warning { key: key(kind, meta), message }
}

fn seen(snapshot: &Snapshot) -> Vec<Seen<'_>> {
    let mut workloads: BTreeMap<(&str, &str), Seen<'_>> = BTreeMap::new();
    for (namespace, address, labels) in snapshot.workloads() {
        workloads.insert(
            (namespace, address),
            Seen { namespace, labels, ports: BTreeMap::new(), has_proxy: is_meshed(labels) },
        );
    }
    for service in snapshot.services() {
        for port in &service.ports {
            for endpoint in snapshot.endpoints(service, port.number) {
                let labels = &endpoint.labels;
                let fresh = || Seen {
                    namespace: &endpoint.namespace,
                    labels,
                    ports: BTreeMap::new(),
                    has_proxy: is_meshed(labels),
                };
                let workload = workloads.entry((&endpoint.namespace, endpoint.address.host())).or_insert_with(fresh);
                workload.ports.entry(endpoint.address.port()).or_insert(port.protocol);
            }
        }
    }
    let mut workloads: Vec<Seen<'_>> = workloads.into_values().collect();
    // Those that join later, by what services look for.
    for service in snapshot.services().iter().filter(|service| !service.selector.is_empty()) {
        let ports = BTreeMap::new();
        workloads.push(Seen { namespace: &service.namespace, labels: &service.selector, ports, has_proxy: true });
    }
    // A gateway is known by the labels that a Gateway asks for; where it runs is its own affair.
    for (_, gateway) in snapshot.gateways() {
        let ports = gateway.servers.iter().filter_map(|server| server.port.as_ref());
        let ports = ports.map(|port| (port.number, Protocol::parse(&port.protocol))).collect();
        workloads.push(Seen { namespace: "", labels: &gateway.selector, ports, has_proxy: true });
    }
    workloads
}

fn is_meshed(labels: &BTreeMap<String, String>) -> bool {
    labels.get(crate::endpoint::TLS_MODE_LABEL).is_some_and(|mode| mode == crate::endpoint::TLS_MODE_ISTIO)
}

fn applies<T: Selects>(policies: &Policies, policy: &Policy<T>, workload: &Seen<'_>) -> bool {
    let namespace = policy.meta.namespace == policies.root
        || workload.namespace.is_empty()
        || policy.meta.namespace == workload.namespace;
    namespace && is_for(&policy.spec, workload.labels)
}

/// What names resources is for proxies that there are none of.
fn targets<T: Selects>(kind: Kind, policies: &ByNamespace<T>, warnings: &mut Vec<Warning>) {
    for policy in policies.values().flatten() {
        if let Some(target) = policy.spec.targets().next() {
            let message = format!(
                "it is for the {} {}, and only waypoints and gateways of the Gateway API are told of such a policy: \
                 nobody enforces it; use a selector",
                target.kind, target.name
            );
            warnings.push(warning(kind, &policy.meta, message));
        }
    }
}

fn selection<T: Selects>(
    kind: Kind,
    policies: &Policies,
    of_kind: &ByNamespace<T>,
    workloads: &[Seen<'_>],
    warnings: &mut Vec<Warning>,
) {
    for policy in of_kind.values().flatten().filter(|policy| policy.spec.targets().next().is_none()) {
        if is_for_all(&policy.spec) {
            continue;
        }
        let selected = || workloads.iter().filter(|workload| applies(policies, policy, workload));
        let message = match selected().next() {
            None => "its selector matches no workload: it does nothing",
            Some(_) if selected().any(|workload| workload.has_proxy) => continue,
            Some(_) => "no workload that its selector matches has a sidecar: nobody enforces it",
        };
        warnings.push(warning(kind, &policy.meta, message.to_owned()));
    }
}

/// Of several policies for the same workloads only the oldest counts.
fn peers(policies: &Policies, warnings: &mut Vec<Warning>) {
    for (namespace, of_namespace) in &policies.peer {
        let mut first: BTreeMap<Option<&BTreeMap<String, String>>, &Policy<PeerAuthentication>> = BTreeMap::new();
        for policy in of_namespace {
            let selector = policy.spec.selector.as_ref().map(|s| &s.match_labels).filter(|labels| !labels.is_empty());
            if selector.is_some() && *namespace == policies.root {
                let message = "a policy of the root namespace with a selector is not followed: it does nothing";
                warnings.push(warning(Kind::PeerAuthentication, &policy.meta, message.to_owned()));
                continue;
            }
            match first.get(&selector) {
                None => {
                    first.insert(selector, policy);
                }
                Some(older) => {
                    let message = format!(
                        "the older PeerAuthentication {} is for the same workloads: this one is not followed",
                        older.meta.name
                    );
                    warnings.push(warning(Kind::PeerAuthentication, &policy.meta, message));
                }
            }
        }
    }
}

/// TLS of a Sidecar's own takes the place of the mesh's only where the mesh's is off.
fn ingress_tls(snapshot: &Snapshot, policies: &Policies, warnings: &mut Vec<Warning>) {
    let none = BTreeMap::new();
    for (meta, sidecar) in snapshot.sidecars() {
        let labels = sidecar.workload_selector.as_ref().map_or(&none, |selector| &selector.labels);
        let mode = policies.peer_mode(&meta.namespace, labels);
        let ports = sidecar.ingress.iter().filter(|listener| listener.tls.is_some()).filter_map(|l| l.port.as_ref());
        for port in ports.filter(|port| mode.of_port(port.number) != MutualTls::Disable) {
            let message = format!(
                "the TLS settings of ingress port {} are not used, since the port takes the mesh's mutual TLS: turn that \
                 off with a PeerAuthentication (`portLevelMtls: {{{}: {{mode: DISABLE}}}}`)",
                port.number, port.number
            );
            warnings.push(warning(Kind::Sidecar, meta, message));
        }
    }
}

fn provider(snapshot: &Snapshot, policy: &AuthorizationPolicy, say: &mut impl FnMut(String)) {
    use maille_api::mesh::providers::ProviderKind;
    if policy.action != Action::Custom {
        return;
    }
    let name = policy.provider();
    let found = snapshot.mesh().extension_providers.iter().find(|provider| provider.name == name);
    let problem = match found.and_then(|found| found.provider.as_ref()) {
        Some(ProviderKind::EnvoyExtAuthzHttp(http)) => not_there(snapshot, name, &http.service, http.port),
        Some(ProviderKind::EnvoyExtAuthzGrpc(grpc)) => not_there(snapshot, name, &grpc.service, grpc.port),
        _ => format!("the mesh has no provider `{name}` for external authorization"),
    };
    if !problem.is_empty() {
        say(format!("{problem}: what its rules match is refused"));
    }
}

/// Why an authorizer cannot be asked, if anything.
fn not_there(snapshot: &Snapshot, name: &str, service: &str, port: u32) -> String {
    if !is_provider_name(name) {
        return format!(
            "provider `{name}` cannot be asked under that name, which has to be a DNS label ([a-z0-9-], 63 at most)"
        );
    }
    match snapshot.provider_service(service) {
        None => format!("provider `{name}` is at {service}, which is not exactly one service"),
        Some(found) if found.port(port).is_none() => {
            format!("provider `{name}` is at port {port} of {service}, which has no such port")
        }
        Some(_) => String::new(),
    }
}

/// Whether an authorizer can have this name, which ends up in the names of rules and in metrics.
pub fn is_provider_name(name: &str) -> bool {
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    plain && !name.is_empty() && name.len() <= 63 && !name.starts_with('-') && !name.ends_with('-')
}

/// What a policy says that the workload's sidecar cannot know.
fn enforceable(
    policies: &Policies,
    policy: &AuthorizationPolicy,
    workload: &Seen<'_>,
    messages: &mut BTreeSet<String>,
) {
    for (port, protocol) in workload.ports.iter().filter(|(_, protocol)| protocol.is_tcp()) {
        for (i, rule) in policy.rules.iter().enumerate().filter(|(_, rule)| speaks_of_port(rule, *port)) {
            let Some(field) = http_field(rule) else { continue };
            let outcome = match policy.action {
                Action::Allow => "the rule allows nothing there",
                Action::Custom => "nobody is asked there",
                Action::Deny | Action::Audit => "the rule is applied there without it",
            };
            messages.insert(format!("rule {i} has {field}, which port {port} ({protocol}) does not show: {outcome}"));
        }
    }
    let mode = policies.peer_mode(workload.namespace, workload.labels);
    let plain = workload.ports.keys().any(|port| mode.of_port(*port) == MutualTls::Disable);
    if workload.has_proxy && !workload.namespace.is_empty() && (plain || mode.mode == MutualTls::Disable) {
        for (i, rule) in policy.rules.iter().enumerate() {
            if let Some(field) = identity_field(rule) {
                messages.insert(format!(
                    "rule {i} has {field}, and mutual TLS is off for workloads it is for: nobody is known there"
                ));
            }
        }
    }
}

fn speaks_of_port(rule: &Rule, port: u32) -> bool {
    let named = |ports: &[String], port: u32| ports.iter().any(|named| named.parse() == Ok(port));
    let operations = || rule.to.iter().filter_map(|to| to.operation.as_ref());
    rule.to.is_empty()
        || operations().any(|operation| {
            (operation.ports.is_empty() || named(&operation.ports, port)) && !named(&operation.not_ports, port)
        })
}

/// Something that only an HTTP request has.
fn http_field(rule: &Rule) -> Option<&str> {
    let of_source = |source: &Source| {
        (!source.request_principals.is_empty() || !source.not_request_principals.is_empty())
            .then_some("requestPrincipals")
    };
    let from = rule.from.iter().filter_map(|from| of_source(from.source.as_ref()?)).next();
    let mut to = rule.to.iter().filter_map(|to| to.operation.as_ref()).filter_map(|operation| {
        [
            ("hosts", &operation.hosts, &operation.not_hosts),
            ("methods", &operation.methods, &operation.not_methods),
            ("paths", &operation.paths, &operation.not_paths),
        ]
        .into_iter()
        .find(|(_, values, others)| !values.is_empty() || !others.is_empty())
        .map(|(name, ..)| name)
    });
    let is_http = |key: &&str| key.starts_with("request.");
    from.or_else(|| to.next()).or_else(|| rule.when.iter().map(|when| when.key.as_str()).find(is_http))
}

/// Something that only a client certificate tells.
fn identity_field(rule: &Rule) -> Option<&str> {
    let of_source = |source: &Source| {
        [
            ("principals", &source.principals, &source.not_principals),
            ("namespaces", &source.namespaces, &source.not_namespaces),
            ("serviceAccounts", &source.service_accounts, &source.not_service_accounts),
            ("trustDomains", &source.trust_domains, &source.not_trust_domains),
        ]
        .into_iter()
        .find(|(_, values, others)| !values.is_empty() || !others.is_empty())
        .map(|(name, ..)| name)
    };
    let from = rule.from.iter().filter_map(|from| of_source(from.source.as_ref()?)).next();
    let is_identity = |key: &&str| {
        matches!(*key, "source.principal" | "source.namespace" | "source.serviceAccount" | "source.trustDomain")
    };
    from.or_else(|| rule.when.iter().map(|when| when.key.as_str()).find(is_identity))
}
