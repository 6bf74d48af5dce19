//! Labels, and the selectors that are made of them.

use std::collections::BTreeMap;

use super::{LABEL_MAX, is_dns_label_of_any_length};
use crate::validate::findings::{At, Problem, Verdict};

const LABEL_PREFIX_MAX: usize = 253;

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
