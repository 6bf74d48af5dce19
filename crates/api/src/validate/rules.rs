//! Every rule that more than one field obeys, each in one place.

mod addresses;
mod hosts;
mod labels;
mod visibility;

pub(crate) use addresses::{UNIX, host_port, ip_address, ip_or_cidr, split_host_port, unix_path};
pub(crate) use hosts::{
    Host, egress_host, fqdn, gateway_bound_host, no_partial_wildcard, server_host, wildcard_domain,
};
pub(crate) use labels::{label_key, labels, selector_labels};
pub(crate) use visibility::{Exported, export_to, gateway_names};

use super::findings::{Problem, Verdict};
use crate::duration::Duration;

const LABEL_MAX: usize = 63;

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
