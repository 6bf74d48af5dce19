//! What to say about a value that does not fit: what it is, and what was probably meant.

use crate::message::camel_case;
use crate::parse::scalar::{self, Plain};
use crate::parse::tree::{Node, Value};

/// A value, in the words of somebody who wrote it.
pub(super) fn describe(node: &Node) -> String {
    match &node.value {
        Value::Sequence(_) => "a list".to_owned(),
        Value::Mapping(_) => "a mapping".to_owned(),
        Value::Scalar { plain: false, .. } => "a string".to_owned(),
        Value::Scalar { text, plain: true } => match scalar::resolve(text) {
            Plain::Null => "nothing".to_owned(),
            Plain::Bool(_) => format!("`{text}`, which YAML reads as true or false"),
            Plain::Int(_) | Plain::Float(_) => format!("the number {text}"),
            Plain::Text => "a string".to_owned(),
        },
    }
}

/// How to write what was meant as a string.
pub(super) fn string_hint(node: &Node) -> Option<String> {
    match &node.value {
        Value::Scalar { text, plain: true } if !scalar::is_null(text) => Some(format!("quote it: \"{text}\"")),
        Value::Scalar { .. } => Some("an empty string is written \"\"".to_owned()),
        Value::Sequence(items) if items.len() == 1 => Some("one value is written by itself, not in a list".to_owned()),
        _ => None,
    }
}

/// What the mapping would have in it.
pub(super) fn mapping_hint(node: &Node, fields: &[&str]) -> Option<String> {
    match (&node.value, fields) {
        (_, []) => None,
        (Value::Scalar { text, .. }, ["exact", "prefix", "regex"]) if !node.is_null() => {
            Some(format!("the text itself is matched by {{exact: \"{text}\"}}"))
        }
        _ => {
            let names = fields.iter().take(4).copied().collect::<Vec<_>>().join(", ");
            let more = if fields.len() > 4 { ", …" } else { "" };
            Some(format!("its fields are {names}{more}"))
        }
    }
}

/// The number, if that is what the value is.
pub(super) fn number_without_unit(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Scalar { text, plain: true } => {
            (text != "0" && matches!(scalar::resolve(text), Plain::Int(_) | Plain::Float(_))).then_some(text)
        }
        _ => None,
    }
}

pub(super) fn unknown_field(key: &str, fields: &[&str], outer: &[&'static [&'static str]]) -> (String, Option<String>) {
    let message = format!("unknown field `{key}`");
    // The nearest message around that has the field is where wrong indentation put it from.
    let camel = camel_case(key);
    let misplaced = outer.iter().rev().find(|fields| fields.contains(&key) || fields.contains(&camel.as_str()));
    let hint = match (suggestion(key, fields), misplaced) {
        (Some(meant), _) => Some(format!("did you mean `{meant}`?")),
        (None, Some(_)) => Some(format!("`{key}` belongs further out: check the indentation")),
        (None, None) => match fields {
            [] => Some("there are no fields here".to_owned()),
            fields if fields.len() <= 12 => Some(format!("the fields here are {}", fields.join(", "))),
            _ => None,
        },
    };
    (message, hint)
}

pub(super) fn unknown_value(text: &str, names: &[&str]) -> (String, Option<String>) {
    let hint = match suggestion(text, names) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("possible are {}", names.join(", ")),
    };
    (format!("unknown value `{text}`"), Some(hint))
}

/// The name that was probably meant: the same but for case and separators, or a few typing errors away.
pub(crate) fn suggestion<'a>(written: &str, names: &[&'a str]) -> Option<&'a str> {
    let plain =
        |name: &str| name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
    let meant = plain(written);
    if meant.is_empty() || written.len() > 64 {
        return None;
    }
    if let Some(same) = names.iter().find(|name| plain(name) == meant) {
        return Some(same);
    }
    names
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&meant, &plain(name)), *name))
        .filter(|(distance, name)| *distance <= (name.len().min(meant.len()) / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
