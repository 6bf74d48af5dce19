//! What a YAML scalar without quotes means, as the YAML library under kubectl and Istio reads it (YAML 1.1 words included).

/// What a plain scalar is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Plain {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text,
}

pub(crate) fn resolve(text: &str) -> Plain {
    if is_null(text) {
        return Plain::Null;
    }
    match text {
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => return Plain::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => {
            return Plain::Bool(false);
        }
        _ => {}
    }
    if let Some(int) = int(text) {
        return Plain::Int(int);
    }
    match float(text) {
        Some(float) => Plain::Float(float),
        None => Plain::Text,
    }
}

pub(crate) fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// A decimal, hexadecimal, octal or binary integer.
pub(crate) fn int(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) || digits.ends_with('_') {
        return None;
    }
    let digits = digits.replace('_', "");
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, &digits[..]),
    };
    // A sign here would be a second one.
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let value = i128::from_str_radix(digits, radix).ok()?;
    Some(if negative { -value } else { value })
}

/// A finite decimal fraction; words such as `inf` or `nan` are text to us.
pub(crate) fn float(text: &str) -> Option<f64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') || !digits.contains(|c: char| c.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|float: &f64| float.is_finite())
}

#[cfg(test)]
mod tests {
    use super::{Plain, resolve};

    #[test]
    fn plain_scalars_have_the_types_that_kubectl_gives_them() {
        for (text, plain) in [
            ("", Plain::Null),
            ("~", Plain::Null),
            ("null", Plain::Null),
            ("true", Plain::Bool(true)),
            ("no", Plain::Bool(false)),
            ("80", Plain::Int(80)),
            ("-1", Plain::Int(-1)),
            ("0x1F", Plain::Int(31)),
            ("0o17", Plain::Int(15)),
            ("017", Plain::Int(15)),
            ("1_000", Plain::Int(1000)),
            ("1.0", Plain::Float(1.0)),
            ("1e3", Plain::Float(1000.0)),
            (".5", Plain::Float(0.5)),
            ("080", Plain::Float(80.0)),
            ("v1", Plain::Text),
            ("1.2.3", Plain::Text),
            ("10.0.0.0/8", Plain::Text),
            ("-", Plain::Text),
            (".", Plain::Text),
            ("0x", Plain::Text),
            ("--1", Plain::Text),
            ("0x-1", Plain::Text),
            ("inf", Plain::Text),
            ("1e999", Plain::Text),
            ("nan", Plain::Text),
        ] {
            assert_eq!(resolve(text), plain, "{text}");
        }
    }
}
