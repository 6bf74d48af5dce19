//! An explanation for people, and for programs.

use maille_model::MutualTls;
use maille_proxy::simulate::Failure;
use owo_colors::OwoColorize as _;
use serde_json::{Value, json};

use super::ask::{Ask, Protocol};
use super::named::Named;
use super::walk::{Answer, Hop};

pub(crate) fn text(ask: &Ask, answer: &Answer) -> String {
    let port = ask.port.map_or(String::new(), |port| format!(":{port}"));
    let asked = match ask.protocol {
        Protocol::Http => format!("{} {}{port}{}", ask.method, ask.host, ask.path),
        Protocol::Tcp => format!("a TCP connection to {}{port}", ask.host),
        Protocol::Tls => format!("a TLS connection to {}{port}", ask.host),
    };
    let mut lines = vec![asked];
    for hop in &answer.hops {
        lines.push(format!("  {}", hop.at.bold()));
        let outcome = &hop.outcome;
        for (what, value) in [("listener", &outcome.listener), ("filter chain", &outcome.filter_chain)] {
            if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
                lines.push(format!("    {what:<13}{value}"));
            }
        }
        if let Some(tls) = tls(hop) {
            lines.push(format!("    {:<13}{tls}", "TLS"));
        }
        for (what, value) in [
            ("route table", &outcome.route_config),
            ("virtual host", &outcome.virtual_host),
            ("route", &outcome.route),
            ("cluster", &outcome.cluster),
        ] {
            if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
                lines.push(format!("    {what:<13}{value}"));
            }
        }
        if let Some(route) = &hop.route {
            lines.push(format!("    {:<13}{}", "by", named(route)));
        }
        if let Some(policy) = hop.allowed_by.as_ref().filter(|_| outcome.error.is_none()) {
            lines.push(format!("    {:<13}{}", "allowed by", named(policy)));
        }
        lines.push(match &outcome.error {
            None => format!("    {}", "passes".green()),
            Some(_) => format!("    {}: {}", "refused".red(), why(hop)),
        });
    }
    lines.extend(answer.notes.iter().map(|note| format!("  {}: {note}", "note".yellow())));
    let verdict = if answer.passes() { "allowed".green().to_string() } else { "denied".red().to_string() };
    lines.push(verdict);
    lines.join("\n")
}

/// What lies between TCP and the protocol, and what settles it.
fn tls(hop: &Hop) -> Option<String> {
    let transport = hop.outcome.transport?;
    let mode = hop.mutual_tls.map(mode).map(|mode| format!("; the port is {mode}")).unwrap_or_default();
    let by = match (&hop.tls, hop.mutual_tls) {
        (Some(by), _) => format!(" by {}", named(by)),
        (None, Some(_)) => " by default".to_owned(),
        (None, None) => String::new(),
    };
    Some(format!("{transport}{mode}{by}"))
}

fn mode(mode: MutualTls) -> String {
    format!("{mode:?}").to_uppercase()
}

fn why(hop: &Hop) -> String {
    let said = match (&hop.outcome.refusal, &hop.outcome.error) {
        (Some(refusal), _) => format!("{} {} ({})", refusal.status, refusal.body, refusal.details),
        (None, Some(error)) => match hop.alone {
            None => error.to_string(),
            Some(true) => format!("{error}; policies alone would let it pass"),
            Some(false) => format!("{error}; policies would refuse it as well"),
        },
        (None, None) => String::new(),
    };
    match (&hop.policy, &hop.outcome.refusal) {
        (Some(policy), Some(refusal)) if refusal.policy.is_none() && policy.kind == "AuthorizationPolicy" => {
            format!(
                "{said}\n    no rule of the ALLOW policies that apply here allows it; the first is {}",
                named(policy)
            )
        }
        (Some(policy), _) => format!("{said}\n    by {}", named(policy)),
        (None, _) => said,
    }
}

fn named(named: &Named) -> String {
    let rule = named.rule.map_or(String::new(), |rule| format!(" rule {rule}"));
    let source = named.source.as_ref().map_or(String::new(), |source| format!("  {source}"));
    format!("{} {}/{}{rule}{source}", named.kind, named.namespace, named.name)
}

pub(crate) fn json(answer: &Answer) -> Value {
    let named = |named: &Named| {
        json!({
            "kind": named.kind, "namespace": named.namespace, "name": named.name,
            "rule": named.rule, "source": named.source,
        })
    };
    let hop = |hop: &Hop| {
        let outcome = &hop.outcome;
        json!({
            "at": hop.at,
            "listener": outcome.listener.as_deref(),
            "filterChain": outcome.filter_chain.as_deref(),
            "tls": outcome.transport.map(|transport| transport.to_string()),
            "tlsBy": hop.tls.as_ref().map(named),
            "mutualTls": hop.mutual_tls.map(mode),
            "routeConfig": outcome.route_config.as_deref(),
            "virtualHost": outcome.virtual_host.as_deref(),
            "route": outcome.route.as_deref(),
            "cluster": outcome.cluster.as_deref(),
            "by": hop.route.as_ref().map(named),
            "error": outcome.error.map(|error| error.to_string()),
            "status": outcome.refusal.as_ref().map(|refusal| refusal.status),
            "details": outcome.refusal.as_ref().map(|refusal| refusal.details.clone()),
            "policy": hop.policy.as_ref().map(named),
            "allowedBy": hop.allowed_by.as_ref().map(named),
            "policiesAlone": hop.alone,
        })
    };
    let status = answer.hops.iter().find_map(|hop| {
        let refused = hop.outcome.refusal.as_ref().map(|refusal| refusal.status);
        refused.or(hop.outcome.error.and_then(Failure::status))
    });
    json!({
        "allowed": answer.passes(),
        "status": status,
        "hops": answer.hops.iter().map(hop).collect::<Vec<_>>(),
        "notes": answer.notes,
    })
}
