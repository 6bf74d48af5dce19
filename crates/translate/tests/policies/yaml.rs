//! As much of YAML as upstream's files have: mappings and lists by indentation, and scalars on one line.

use serde_json::{Map, Value};

pub(crate) fn read(text: &str) -> Value {
    let lines: Vec<(usize, &str)> = text
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
        .map(|line| (line.len() - line.trim_start().len(), line.trim()))
        .collect();
    block(&mut lines.into_iter().collect::<Vec<_>>().as_slice())
}

/// The value that begins here; what it is made of is taken off.
fn block(lines: &mut &[(usize, &str)]) -> Value {
    let Some(&(indent, first)) = lines.first() else { return Value::Null };
    if first.starts_with("- ") || first == "-" {
        let mut items = Vec::new();
        while let Some(&(at, line)) = lines.first() {
            let Some(rest) = line.strip_prefix('-').filter(|_| at == indent) else { break };
            let inner = rest.trim_start();
            // What stands behind the dash is the first line of a block that is as deep as it stands.
            let depth = indent + line.len() - inner.len();
            let taken = lines[1..].iter().take_while(|(at, _)| *at > indent).count();
            let mut own = vec![(depth, inner)];
            own.extend_from_slice(&lines[1..=taken]);
            items.push(block(&mut own.as_slice()));
            *lines = &lines[taken + 1..];
        }
        return Value::Array(items);
    }
    if key_of(first).is_none() {
        *lines = &lines[1..];
        return scalar(first);
    }
    let mut fields = Map::new();
    while let Some(&(at, line)) = lines.first() {
        let Some((key, rest)) = key_of(line).filter(|_| at == indent) else { break };
        *lines = &lines[1..];
        let nested = lines.first().is_some_and(|(at, line)| *at > indent || (*at == indent && line.starts_with('-')));
        let value = match rest {
            "" if nested => block(lines),
            "" => Value::Null,
            rest => scalar(rest),
        };
        fields.insert(key, value);
    }
    Value::Object(fields)
}

/// `KEY: REST`
fn key_of(line: &str) -> Option<(String, &str)> {
    let (key, rest) = match line.strip_prefix('\'') {
        Some(quoted) => {
            let (key, rest) = quoted.split_once('\'')?;
            (key, rest.strip_prefix(':')?)
        }
        None if line.starts_with('"') => return None,
        None => line.split_once(": ").or_else(|| Some((line.strip_suffix(':')?, "")))?,
    };
    Some((key.to_owned(), rest.trim()))
}

fn scalar(text: &str) -> Value {
    let quoted = |mark: char| text.strip_prefix(mark).and_then(|rest| rest.strip_suffix(mark));
    if let Some(inner) = quoted('\'') {
        return Value::String(inner.replace("''", "'"));
    }
    if text.starts_with('"') {
        return serde_json::from_str(text).expect("a quoted string");
    }
    match text {
        "{}" => Value::Object(Map::new()),
        "[]" => Value::Array(Vec::new()),
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => text.parse::<i64>().map_or_else(|_| Value::String(text.to_owned()), Value::from),
    }
}
