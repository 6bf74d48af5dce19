//! An explanation for people, and for programs.

use owo_colors::OwoColorize as _;
use serde_json::{Value, json};

use super::ask::Ask;
use super::walk::{Answer, Hop, Named};

pub(crate) fn text(ask: &Ask, answer: &Answer) -> String {
    let port = ask.port.map_or(String::new(), |port| format!(":{port}"));
    let mut lines = vec![format!("{} {}{port}{}", ask.method, ask.host, ask.path)];
    for hop in &answer.hops {
        lines.push(format!("  {}", hop.at.bold()));
        let outcome = &hop.outcome;
        for (what, value) in [
            ("listener", &outcome.listener),
            ("filter chain", &outcome.filter_chain),
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

fn why(hop: &Hop) -> String {
    let said = match (&hop.outcome.refusal, &hop.outcome.error) {
        (Some(refusal), _) => format!("{} {} ({})", refusal.status, refusal.body, refusal.details),
        (None, Some(error)) => error.to_string(),
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
            "routeConfig": outcome.route_config.as_deref(),
            "virtualHost": outcome.virtual_host.as_deref(),
            "route": outcome.route.as_deref(),
            "cluster": outcome.cluster.as_deref(),
            "by": hop.route.as_ref().map(named),
            "error": outcome.error.map(|error| error.to_string()),
            "status": outcome.refusal.as_ref().map(|refusal| refusal.status),
            "details": outcome.refusal.as_ref().map(|refusal| refusal.details.clone()),
            "policy": hop.policy.as_ref().map(named),
        })
    };
    let status = answer.hops.iter().find_map(|hop| {
        let refused = hop.outcome.refusal.as_ref().map(|refusal| refusal.status);
        refused.or(hop.outcome.error.map(|_| 404))
    });
    json!({
        "allowed": answer.passes(),
        "status": status,
        "hops": answer.hops.iter().map(hop).collect::<Vec<_>>(),
        "notes": answer.notes,
    })
}
