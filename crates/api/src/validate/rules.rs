//! Every rule that more than one field obeys, each in one place: names, hosts, labels, ports, addresses, durations,
//! percentages, visibility and selectors.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use super::findings::{At, Problem, Verdict};
use crate::duration::Duration;

const LABEL_MAX: usize = 63;
const DOMAIN_MAX: usize = 255;
const LABEL_PREFIX_MAX: usize = 253;

// === names ===

/// Letters, digits and inner hyphens. Capitals are let through: DNS does not tell them apart.
pub(crate) fn is_dns_label(name: &str) -> bool {
    name.len() <= LABEL_MAX && is_dns_label_of_any_length(name)
}

fn is_dns_label_of_any_length(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
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

/// `what` (a port name, a subset name…) is one DNS label.
pub(crate) fn dns_label(what: &str, name: &str) -> Verdict {
    if is_dns_label(name) {
        return Ok(());
    }
    let problem = if name.is_empty() {
        Problem::new(format!("{what} is missing"))
    } else if name.len() > LABEL_MAX {
        Problem::new(format!("{what} `{name}` has {} characters, at most {LABEL_MAX} are allowed", name.len()))
    } else {
        Problem::new(format!("`{name}` is not a valid {what}"))
    };
    Err(problem.hint("use letters, digits and `-`, beginning and ending with a letter or digit"))
}

// === hosts ===

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
    if is_integer(labels[last]) {
        let what = if parse_ip(whole).is_some() { "an address" } else { "not a host name: its last part is a number" };
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

/// What Go's `strconv.Atoi` takes for a number.
fn is_integer(text: &str) -> bool {
    text.strip_prefix(['+', '-']).unwrap_or(text).parse::<u64>().is_ok_and(|n| n <= i64::MAX as u64)
        && !text.starts_with("+-")
        && !text.starts_with("-+")
        && !text.starts_with("++")
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
        at.error(
            Problem::new(format!("`{host}` is a short name"))
                .hint("write the full name, as in `reviews.default.svc.cluster.local`"),
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

// === labels ===

/// Kubernetes' rules for label keys and values; keys' prefixes and values may be written in capitals.
pub(crate) fn labels(labels: &BTreeMap<String, String>, at: &mut At<'_>) {
    for (key, value) in labels {
        at.key(key).check(label_key(key));
        at.key(key).check(label_value(value));
    }
}

pub(crate) fn label_key(key: &str) -> Verdict {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let prefix_fits = prefix
        .is_none_or(|prefix| prefix.len() <= LABEL_PREFIX_MAX && prefix.split('.').all(is_dns_label_of_any_length));
    if prefix_fits && is_qualified_name(name) && name.len() <= LABEL_MAX {
        return Ok(());
    }
    Err(Problem::new(format!("`{key}` is not a valid label key"))
        .hint("a key is an optional DNS name and `/`, then up to 63 letters, digits, `-`, `_` and `.`"))
}

fn label_value(value: &str) -> Verdict {
    if value.is_empty() || is_qualified_name(value) {
        return Ok(());
    }
    Err(Problem::new(format!("`{value}` is not a valid label value"))
        .hint("use letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit"))
}

fn is_qualified_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
}

/// Labels that pick workloads: exact, so `*` would silently pick nothing.
pub(crate) fn selector_labels(labels: &BTreeMap<String, String>, at: &mut At<'_>) {
    for (key, value) in labels {
        if key.is_empty() {
            at.key(key).error(format!("a selector cannot have an empty key (its value is `{value}`)"));
        }
        if key.contains('*') || value.contains('*') {
            at.key(key).error(
                Problem::new("a selector knows no wildcards").hint("name the exact label, or leave the selector out"),
            );
        }
    }
}

// === numbers ===

/// A port that something listens on.
pub(crate) fn port(number: impl Into<i64>) -> Verdict {
    let number = number.into();
    if (1..=65535).contains(&number) {
        return Ok(());
    }
    Err(format!("port {number} is not between 1 and 65535").into())
}

/// A whole percentage.
pub(crate) fn percent(value: i32) -> Verdict {
    if (0..=100).contains(&value) {
        return Ok(());
    }
    Err(format!("{value} is not a percentage between 0 and 100").into())
}

/// A percentage Envoy can count: it knows parts per million, nothing finer.
pub(crate) fn fine_percent(value: f64) -> Verdict {
    if value == 0.0 || (0.0001..=100.0).contains(&value) {
        return Ok(());
    }
    Err(format!("{value} is neither 0 nor a percentage between 0.0001 and 100").into())
}

pub(crate) fn not_negative(value: i32) -> Verdict {
    if value >= 0 { Ok(()) } else { Err(format!("{value} is negative").into()) }
}

/// A duration of at least a millisecond, in whole milliseconds.
pub(crate) fn duration(duration: Duration) -> Verdict {
    if duration.as_millis() < 1 {
        return Err(Problem::new(format!("{duration} is shorter than a millisecond")).hint("write at least `1ms`"));
    }
    if duration.subsec_nanos() % 1_000_000 != 0 {
        return Err(format!("{duration} is not a whole number of milliseconds").into());
    }
    Ok(())
}

// === addresses ===

pub(crate) fn ip_address(address: &str) -> Verdict {
    if parse_ip(address).is_some() {
        return Ok(());
    }
    Err(format!("`{address}` is not an IP address").into())
}

/// An IPv6 address may name a zone: `fe80::1%eth0`.
fn parse_ip(address: &str) -> Option<IpAddr> {
    match address.split_once('%') {
        None => address.parse().ok(),
        Some((_, "")) => None,
        Some((address, _)) => address.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
    }
}

/// An address or a CIDR block; the address of a block may have bits set beyond the prefix.
pub(crate) fn ip_or_cidr(text: &str) -> Verdict {
    if text.matches('/').count() != 1 {
        return ip_address(text);
    }
    let (address, bits) = text.split_once('/').unwrap_or((text, ""));
    let max = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => Some(32),
        Ok(IpAddr::V6(_)) => Some(128),
        Err(_) => None,
    };
    let plain = bits.len() <= 3 && bits.bytes().all(|b| b.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
    if let (Some(max), true, Ok(bits)) = (max, plain, bits.parse::<u8>())
        && bits <= max
    {
        return Ok(());
    }
    Err(Problem::new(format!("`{text}` is not a CIDR block")).hint("the form is ADDRESS/BITS, as in 10.0.0.0/8"))
}

/// `host:port` or `[address]:port`, as Go's `net.SplitHostPort` takes them apart.
pub(crate) fn split_host_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    (!host.contains(['[', ']']) && !port.contains(['[', ']'])).then_some((host, port))
}

/// `host:port` of something to connect to.
pub(crate) fn host_port(text: &str) -> Verdict {
    let Some((host, number)) = split_host_port(text) else {
        return Err(Problem::new(format!("`{text}` is not a host and a port")).hint("write `HOST:PORT`"));
    };
    match number.parse::<i64>() {
        Ok(number) => port(number)?,
        Err(_) => return Err(format!("`{number}` is not the number of a port").into()),
    }
    if ip_address(host).is_ok() { Ok(()) } else { fqdn(host) }
}

/// What an address of a Unix socket begins with.
pub(crate) const UNIX: &str = "unix://";

/// The path of a Unix socket, without `unix://`; `@` begins a name that is not in the file system.
pub(crate) fn unix_path(path: &str) -> Verdict {
    if path.is_empty() {
        return Err(Problem::new("the path of the Unix socket is missing").hint("write `unix:///path/to/socket`"));
    }
    if path.starts_with('@') || (path.starts_with('/') && !path.ends_with('/')) {
        return Ok(());
    }
    Err(Problem::new(format!("`{path}` is not an absolute path to a file"))
        .hint("write `unix:///path/to/socket`, or `unix://@name` for an abstract socket"))
}

// === visibility ===

/// Who `exportTo` belongs to: each has its own limits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exported {
    Routes,
    Service,
    PolicyForSomeWorkloads,
}

/// `exportTo`: `.`, `*`, `~` (services only) or namespaces, none of them twice.
pub(crate) fn export_to(namespace: &str, export_to: &[String], exported: Exported, at: &mut At<'_>) {
    let mut seen = BTreeSet::new();
    for (i, entry) in export_to.iter().enumerate() {
        let key = if entry == "." { namespace } else { entry };
        if seen.contains(key) {
            at.index(i).error(if key == entry {
                format!("`{entry}` is there twice")
            } else {
                format!("`.` and `{namespace}` are the same namespace")
            });
            continue;
        }
        let known = match key {
            "*" => true,
            "~" => exported == Exported::Service,
            // A resource without a namespace of its own may still say `.`.
            key => is_dns_label(key) || entry == ".",
        };
        if known {
            seen.insert(key);
        } else if key == "~" {
            at.index(i).error(
                Problem::new("`~` (nobody) is only for service entries").hint("use `.` to keep it in its namespace"),
            );
        } else {
            at.index(i).error(
                Problem::new(format!("`{entry}` is not a namespace")).hint("write `.`, `*` or the name of a namespace"),
            );
        }
    }
    if exported == Exported::PolicyForSomeWorkloads && !seen.is_empty() {
        if !seen.contains(namespace) {
            at.error(
                Problem::new("a destination rule with a workload selector only acts in its own namespace")
                    .hint("write `.` or leave exportTo out"),
            );
        } else if seen.len() > 1 {
            at.error("a destination rule with a workload selector can be exported to its own namespace only");
        }
    }
    if seen.contains("*") && export_to.len() > 1 {
        at.error(Problem::new("`*` already means every namespace").hint("remove the other entries, or `*`"));
    }
    if seen.contains("~") && export_to.len() > 1 {
        at.error(Problem::new("`~` means nobody, and cannot stand beside others").hint("remove one of them"));
    }
}

/// The namespace and gateways a route is bound to: `mesh`, `gateway`, `namespace/gateway`. `semantics` is set on
/// routes made from the Gateway API.
pub(crate) fn gateway_names(names: &[String], semantics: bool, at: &mut At<'_>) {
    for (i, name) in names.iter().enumerate() {
        let mut at = at.index(i);
        let Some((namespace, gateway)) = name.split_once('/') else {
            if let Some((gateway, rest)) = name.split_once('.') {
                let namespace = rest.split('.').next().unwrap_or_default();
                at.warn(
                    Problem::new(format!("`{name}` names a gateway in the old way"))
                        .hint(format!("write `{namespace}/{gateway}`")),
                );
            }
            at.check(fqdn(name));
            // Istio looks no further once a name has no namespace.
            return;
        };
        if namespace.is_empty() || gateway.is_empty() {
            at.error("the namespace or the name of the gateway beside `/` is empty");
            continue;
        }
        at.check(dns_label("namespace", namespace));
        if !semantics {
            at.check(dns_label("gateway name", gateway));
        }
    }
}
