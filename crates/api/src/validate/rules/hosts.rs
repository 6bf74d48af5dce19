//! Names of hosts: with and without wildcards, with and without a namespace in front.

use super::addresses::ip_address;
use super::{LABEL_MAX, is_dns_label, is_dns_label_of_any_length};
use crate::validate::findings::{At, Problem, Verdict};

const DOMAIN_MAX: usize = 255;

/// A fully qualified domain name, without wildcards; one trailing dot is allowed.
pub(crate) fn fqdn(name: &str) -> Verdict {
    domain_length(name)?;
    domain_labels(name, name)
}

/// A domain name whose first label may be or begin with `*`.
pub(crate) fn wildcard_domain(name: &str) -> Verdict {
    domain_length(name)?;
    let (first, rest) = match name.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (name, None),
    };
    if !is_wildcard_dns_label(first) {
        return Err(bad_label(name, first));
    }
    rest.map_or(Ok(()), |rest| domain_labels(name, rest))
}

fn domain_length(name: &str) -> Verdict {
    if name.is_empty() {
        return Err("the host name is empty".into());
    }
    if name.len() > DOMAIN_MAX {
        return Err(format!("the host name has {} characters, at most {DOMAIN_MAX} are allowed", name.len()).into());
    }
    Ok(())
}

fn domain_labels(whole: &str, name: &str) -> Verdict {
    let labels: Vec<&str> = name.split('.').collect();
    let last = labels.len() - 1;
    if labels[last].parse::<i64>().is_ok() {
        let what = if ip_address(whole).is_ok() { "an address" } else { "not a host name: its last part is a number" };
        return Err(Problem::new(format!("`{whole}` is {what}")).hint("write the name of a host"));
    }
    for (i, label) in labels.iter().enumerate() {
        if label.is_empty() && i == last {
            return Ok(());
        }
        if !is_dns_label(label) {
            return Err(bad_label(whole, label));
        }
    }
    Ok(())
}

/// A DNS label, or one that begins with `*`: `*`, `*foo`, `*-foo`.
fn is_wildcard_dns_label(name: &str) -> bool {
    if name.len() > LABEL_MAX {
        return false;
    }
    match name.strip_prefix('*') {
        None => is_dns_label_of_any_length(name),
        Some("") => true,
        Some(rest) => is_dns_label_of_any_length(rest.strip_prefix('-').unwrap_or(rest)),
    }
}

fn bad_label(name: &str, label: &str) -> Problem {
    if name.contains("://") {
        return Problem::new(format!("`{name}` is a URL, but a host name is expected"))
            .hint("write the name alone, without scheme and path");
    }
    let problem = match label {
        "" => Problem::new(format!("`{name}` is not a host name: there is nothing between two dots")),
        label if label.len() > LABEL_MAX => {
            Problem::new(format!("`{name}` is not a host name: `{label}` is longer than {LABEL_MAX} characters"))
        }
        label => Problem::new(format!("`{name}` is not a host name: `{label}` is not a valid part of one")),
    };
    if label.contains('*') {
        return problem.hint("`*` can only stand for the whole first label, as in `*.example.com`");
    }
    problem.hint("host names are letters, digits and `-`, in parts separated by dots")
}

/// `*` stands for whole labels where the proxy has to tell hosts apart: `*.com`, not `*a.com`.
pub(crate) fn no_partial_wildcard(host: &str) -> Verdict {
    if host.contains('*') && host != "*" && !host.starts_with("*.") {
        let problem = Problem::new(format!("`*` in `{host}` stands for a part of a label"));
        return Err(problem.hint("write `*` or `*.` and a domain, as in `*.example.com`"));
    }
    Ok(())
}

/// A host of a virtual service at a gateway: a wildcard domain, or, where SNI is matched, the name the mesh's own
/// gateways give to a service (`outbound_.80_._.reviews.default.svc.cluster.local`).
pub(crate) fn gateway_bound_host(sni: bool, host: &str) -> Verdict {
    domain_length(host)?;
    if !(sni && host.starts_with("outbound_")) {
        return wildcard_domain(host);
    }
    let parts: Vec<&str> = host.split('_').collect();
    let valid = parts.len() >= 4
        && parts[1].trim_matches('.').contains(|c: char| c.is_ascii_digit())
        && parts[3].trim_matches('.').contains(|c: char| c.is_ascii_alphabetic());
    if valid {
        return Ok(());
    }
    Err(Problem::new(format!("`{host}` looks like a name for mesh-internal SNI but is none"))
        .hint("the form is outbound_.PORT_._.HOST"))
}

/// The host name after the slash in `namespace/host`.
fn qualified_host(host: &str, at_gateway: bool, at: &mut At<'_>) {
    if host != "*" && !host.contains('.') {
        let domain = if at_gateway { "example.com" } else { "default.svc.cluster.local" };
        at.error(
            Problem::new(format!("`{host}` is a short name"))
                .hint(format!("write the full name, as in `{host}.{domain}`")),
        );
    }
    if let Err(problem) = wildcard_domain(host)
        && !(at_gateway && ip_address(host).is_ok())
    {
        at.error(problem);
    }
    at.check(no_partial_wildcard(host));
}

/// A host of a gateway's server: `host` or `namespace/host`. `semantics` is set on gateways made from the Gateway
/// API, which may name `~`, the namespace that nothing is in.
pub(crate) fn server_host(host: &str, semantics: bool, at: &mut At<'_>) {
    let Some((namespace, name)) = host.split_once('/') else {
        return qualified_host(host, true, at);
    };
    both_parts(namespace, name, at);
    if namespace != "*" && namespace != "." && !(namespace == "~" && semantics) && !is_dns_label(namespace) {
        at.error(bad_namespace(namespace, "`*`, `.` or the name of a namespace"));
    }
    qualified_host(name, true, at);
}

/// A host of a sidecar's egress listener: `namespace/host`; `~namespace/host` takes it away again.
pub(crate) fn egress_host(host: &str, at: &mut At<'_>) {
    let Some((prefixed, name)) = host.split_once('/') else {
        at.error(
            Problem::new(format!("`{host}` does not say which namespace it is in"))
                .hint(format!("write `*/{host}` for any namespace, `./{host}` for the sidecar's own")),
        );
        return;
    };
    both_parts(prefixed, name, at);
    let namespace = prefixed.strip_prefix('~').unwrap_or(prefixed);
    if !namespace.is_empty() && namespace != "*" && namespace != "." && !is_dns_label(namespace) {
        at.error(bad_namespace(prefixed, "`*`, `.`, `~` or the name of a namespace"));
    }
    qualified_host(name, false, at);
}

fn both_parts(namespace: &str, name: &str, at: &mut At<'_>) {
    if namespace.is_empty() || name.is_empty() {
        at.error("the namespace or the host name beside `/` is empty");
    }
}

fn bad_namespace(namespace: &str, expected: &str) -> Problem {
    Problem::new(format!("`{namespace}` is not a namespace here")).hint(format!("write {expected}"))
}

/// A host name that may hold `*` in front: how two of them relate.
#[derive(Clone, Copy)]
pub(crate) struct Host<'a>(pub(crate) &'a str);

impl Host<'_> {
    pub(crate) fn is_wildcard(self) -> bool {
        self.0.starts_with('*')
    }

    /// Whether some name belongs to both.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        match (self.0.strip_prefix('*'), other.0.strip_prefix('*')) {
            (Some(a), Some(b)) if a.len() < b.len() => b.ends_with(a),
            (Some(a), Some(b)) => a.ends_with(b),
            (Some(a), None) => other.0.ends_with(a),
            (None, Some(b)) => self.0.ends_with(b),
            (None, None) => self.0 == other.0,
        }
    }

    /// Whether every name of `self` belongs to `other`.
    pub(crate) fn is_within(self, other: Self) -> bool {
        match (self.0.strip_prefix('*'), other.0.strip_prefix('*')) {
            (Some(a), Some(b)) => a.len() >= b.len() && a.ends_with(b),
            (Some(_), None) => false,
            (None, Some(b)) => self.0.ends_with(b),
            (None, None) => self.0 == other.0,
        }
    }
}
