//! The values that rules compare with: what each kind of them looks like.

use crate::validate::findings::{Problem, Verdict};
use crate::validate::rules;

const ACCOUNTS_MAX: usize = 16;
const ACCOUNT_LENGTH_MAX: usize = 320;

/// Keys of conditions whose values are any text.
const TEXT: [&str; 6] = [
    "source.namespace",
    "source.principal",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "connection.sni",
];

/// How the values of a condition's key are judged, if there is such a key.
pub(super) fn of_condition(key: &str) -> Result<fn(&str) -> Verdict, Problem> {
    let is_map = |name: &str| key.starts_with(name);
    match key {
        "source.ip" | "remote.ip" | "destination.ip" => Ok(ip_block),
        "destination.port" => Ok(port),
        "source.serviceAccount" => Ok(service_account),
        "source.trustDomain" => Ok(wildcard),
        _ if TEXT.contains(&key) => Ok(filled),
        _ if is_map("request.headers") || is_map("request.auth.claims") || is_map("experimental.envoy.filters.") => {
            map_key(key)?;
            Ok(filled)
        }
        "destination.namespace" => {
            Err(Problem::new("`destination.namespace` is not an attribute").hint("a policy is for its own namespace"))
        }
        "destination.name" | "destination.user" => {
            Err(Problem::new(format!("`{key}` is not an attribute any more")).hint("use a selector"))
        }
        _ if is_map("destination.labels") => {
            Err(Problem::new("`destination.labels` is not an attribute").hint("use a selector"))
        }
        _ => Err(format!("`{key}` is not an attribute").into()),
    }
}

/// `a[b]`
fn map_key(key: &str) -> Verdict {
    let open = key.find('[').unwrap_or_default();
    if key.ends_with(']') && open > 0 && open + 2 < key.len() {
        return Ok(());
    }
    Err(Problem::new(format!("`{key}` does not say which one")).hint("the form is `request.headers[NAME]`"))
}

pub(super) fn filled(value: &str) -> Verdict {
    if value.is_empty() { Err("the value is empty".into()) } else { Ok(()) }
}

pub(super) fn ip_block(value: &str) -> Verdict {
    rules::ip_or_cidr(value)
}

pub(super) fn port(value: &str) -> Verdict {
    let plain = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    if plain && value.parse::<u32>().is_ok_and(|port| port <= 65535) {
        return Ok(());
    }
    Err(format!("`{value}` is not a port").into())
}

pub(super) fn few(accounts: &[String]) -> Verdict {
    if accounts.len() <= ACCOUNTS_MAX {
        return Ok(());
    }
    Err(format!("there are {} service accounts, at most {ACCOUNTS_MAX} are allowed", accounts.len()).into())
}

/// `NAME`, or `NAMESPACE/NAME`.
pub(super) fn service_account(value: &str) -> Verdict {
    filled(value)?;
    let hint = "write NAME or NAMESPACE/NAME";
    if value.contains('*') {
        return Err(Problem::new("service accounts know no wildcards").hint(hint));
    }
    if value.len() > ACCOUNT_LENGTH_MAX {
        return Err(
            format!("the value has {} characters, at most {ACCOUNT_LENGTH_MAX} are allowed", value.len()).into()
        );
    }
    let parts: Vec<&str> = value.split('/').collect();
    if parts.len() > 2 || parts.contains(&"") {
        return Err(Problem::new(format!("`{value}` is not a service account")).hint(hint));
    }
    Ok(())
}

pub(super) fn trust_domain(value: &str) -> Verdict {
    wildcard(value)?;
    if value.contains('/') {
        return Err(format!("`{value}` is not a trust domain: it has a `/`").into());
    }
    Ok(())
}

/// One `*` at most, at either end.
fn wildcard(value: &str) -> Verdict {
    filled(value)?;
    match value.matches('*').count() {
        0 => Ok(()),
        1 if value.starts_with('*') || value.ends_with('*') => Ok(()),
        _ => Err(Problem::new(format!("`{value}` has a `*` that stands for nothing"))
            .hint("one `*` can stand at the beginning or at the end")),
    }
}

/// A path, with `{*}` for a segment and `{**}` for all that are left.
pub(super) fn path(value: &str) -> Verdict {
    filled(value)?;
    let is_template = value.contains("{*}") || value.contains("{**}");
    let mut rest_matched = false;
    for segment in value.trim_matches('/').split('/') {
        match segment {
            "{*}" | "{**}" if rest_matched => {
                return Err(Problem::new(format!("`{{**}}` is not the last operator of `{value}`"))
                    .hint("nothing but plain segments can follow `{**}`"));
            }
            "{*}" => {}
            "{**}" => rest_matched = true,
            _ if segment.contains(['{', '}']) => {
                return Err(Problem::new(format!("`{segment}` is not an operator"))
                    .hint("use `{*}` for one segment and `{**}` for the rest"));
            }
            _ if is_template && !is_literal(segment) => {
                return Err(format!("`{segment}` cannot be part of a path with operators").into());
            }
            _ => {}
        }
    }
    Ok(())
}

/// What RFC 3986 allows in a segment of a path, without `*`.
fn is_literal(segment: &str) -> bool {
    !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&b))
}
