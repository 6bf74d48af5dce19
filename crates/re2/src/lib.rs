//! RE2's syntax, which is what Istio and Envoy speak, in the syntax of the `regex` crate.
//!
//! The crate has RE2's power but not quite its syntax: `{id}` and `[[]` are literals there and errors here,
//! `a**` and `[a&&b]` the other way round. [`translate`] writes one in terms of the other.

use std::iter::Peekable;
use std::str::Chars;

/// A longer run in braces is no number; Istio's own limit on a whole expression.
const MAX_LENGTH: usize = 1024;
const MAX_REPEAT: u32 = 1000;
const POSIX_CLASSES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

/// An RE2 pattern in the syntax of the `regex` crate.
///
/// The error says what RE2 would refuse; what remains is for the crate to judge.
pub fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern.chars().peekable();
    // Whether the last thing read was a repetition, which nothing may repeat again.
    let mut repeated = false;
    // How many copies the last thing read stands for; and the largest such number of each group that is open.
    let (mut copies, mut groups) = (1, vec![1]);
    while let Some(c) = rest.next() {
        let mut repeats = false;
        if !matches!(c, '*' | '+' | '?' | '{') {
            copies = 1;
        }
        match c {
            '\\' => escape(&mut rest, &mut out)?,
            '[' => class(&mut rest, &mut out)?,
            '(' => {
                out.push('(');
                group(&mut rest, &mut out)?;
                groups.push(1);
            }
            ')' => {
                out.push(')');
                copies = if groups.len() > 1 { groups.pop().unwrap_or(1) } else { 1 };
            }
            '*' | '+' | '?' => {
                repeats = true;
                out.push(c);
            }
            '{' => match repetition(rest.clone())? {
                Some((length, times)) => {
                    repeats = true;
                    copies *= times.max(1);
                    if copies > MAX_REPEAT {
                        return Err(format!("repetitions of repetitions are more than {MAX_REPEAT} together"));
                    }
                    out.push('{');
                    out.extend(rest.by_ref().take(length));
                }
                None => {
                    copies = 1;
                    out.push_str("\\{");
                }
            },
            c => out.push(c),
        }
        if repeats {
            if repeated {
                return Err(format!("`{c}` repeats what is a repetition already"));
            }
            if rest.next_if_eq(&'?').is_some() {
                out.push('?');
            }
        }
        repeated = repeats;
        if let Some(largest) = groups.last_mut() {
            *largest = copies.max(*largest);
        }
    }
    Ok(out)
}

/// How long `n}`, `n,}` or `n,m}` is at the start of `rest`, and how often it repeats; none if there is something else,
/// which is then a literal.
fn repetition(mut rest: Peekable<Chars<'_>>) -> Result<Option<(usize, u32)>, String> {
    let text: String = rest.by_ref().take_while(|c| *c != '}').take(MAX_LENGTH).collect();
    let (min, max) = match text.split_once(',') {
        Some((min, max)) => (min, Some(max).filter(|max| !max.is_empty())),
        None => (text.as_str(), None),
    };
    let is_number =
        |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) && (n.len() == 1 || !n.starts_with('0'));
    if !is_number(min) || !max.is_none_or(is_number) {
        return Ok(None);
    }
    let number = |n: &str| n.parse::<u32>().ok().filter(|n| *n <= MAX_REPEAT);
    let times = match (number(min), max.map(number)) {
        (Some(min), Some(Some(max))) if min <= max => max,
        (Some(min), None) => min,
        _ => return Err(format!("`{{{text}}}` is no range of repetitions up to {MAX_REPEAT}")),
    };
    Ok(Some((text.len() + 1, times)))
}

/// What follows `(?`: RE2 knows fewer flags.
fn group(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    if rest.next_if_eq(&'?').is_none() {
        return Ok(());
    }
    out.push('?');
    if matches!(rest.peek(), Some('P' | '<')) {
        return Ok(());
    }
    // No flags at all are fine there, and a missing repetition here.
    if rest.peek() == Some(&')') {
        out.push(':');
    }
    for c in rest.by_ref() {
        match c {
            'i' | 'm' | 's' | 'U' | '-' => out.push(c),
            ':' | ')' => {
                out.push(c);
                return Ok(());
            }
            c => return Err(format!("`(?{c}` is not known")),
        }
    }
    Err("a group is not closed".into())
}

/// What follows a backslash outside a class.
fn escape(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    if rest.next_if_eq(&'Q').is_some() {
        let mut literal = String::new();
        while let Some(c) = rest.next() {
            if c == '\\' && rest.next_if_eq(&'E').is_some() {
                break;
            }
            literal.push(c);
        }
        out.push_str(&regex::escape(&literal));
        return Ok(());
    }
    match rest.peek() {
        Some(c @ ('A' | 'b' | 'B' | 'z')) => {
            out.push('\\');
            out.push(*c);
            rest.next();
            Ok(())
        }
        _ => escaped_character(rest, out),
    }
}

/// What follows a backslash anywhere: a character, or a class of them.
fn escaped_character(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    match rest.next() {
        None => return Err("nothing follows the last `\\`".into()),
        Some(c @ ('a' | 'f' | 't' | 'n' | 'r' | 'v' | 'x' | 'd' | 'D' | 's' | 'S' | 'w' | 'W')) => {
            out.push('\\');
            out.push(c);
            if c == 'x' && rest.next_if_eq(&'{').is_some() {
                braced(rest, out);
            }
        }
        Some(c @ ('p' | 'P')) => {
            out.push('\\');
            let braces = rest.next_if_eq(&'{').is_some();
            // `\p{^Greek}` is `\P{Greek}`.
            let flip = braces && rest.next_if_eq(&'^').is_some();
            out.push(if (c == 'p') == flip { 'P' } else { 'p' });
            if braces {
                braced(rest, out);
            }
        }
        Some(c @ '0'..='7') => octal(c, rest, out)?,
        Some(c) if c.is_ascii() && !c.is_ascii_alphanumeric() => out.push_str(&regex::escape(&c.to_string())),
        Some(c) => return Err(format!("`\\{c}` is not known")),
    }
    Ok(())
}

/// What stands in the braces of `\x{7f}` and `\p{Greek}`; these braces are never literals.
fn braced(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    out.push('{');
    for c in rest.by_ref() {
        out.push(c);
        if c == '}' {
            break;
        }
    }
}

/// `\012`; a single digit would be a back-reference.
fn octal(first: char, rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    let mut digits = String::from(first);
    while digits.len() < 3
        && let Some(c) = rest.next_if(|c| ('0'..='7').contains(c))
    {
        digits.push(c);
    }
    if digits.len() == 1 && first != '0' {
        return Err(format!("`\\{first}` is a back-reference"));
    }
    let code = u32::from_str_radix(&digits, 8).map_err(|_| format!("`\\{digits}` is no character"))?;
    out.push_str(&format!("\\x{{{code:x}}}"));
    Ok(())
}

/// The inside of `[…]`, where `[`, `&` and `~` are plain characters.
fn class(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    out.push('[');
    if rest.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    let mut first = true;
    while let Some(c) = rest.next() {
        match c {
            ']' if !first => {
                out.push(']');
                return Ok(());
            }
            ']' => out.push_str("\\]"),
            '[' if rest.peek() == Some(&':') => posix_class(rest, out)?,
            '[' | '&' | '~' => {
                out.push('\\');
                out.push(c);
            }
            '\\' => escaped_character(rest, out)?,
            c => out.push(c),
        }
        first = false;
    }
    Err("a `[` is not closed".into())
}

/// `[:alpha:]`, or a bracket that just happens to stand before a colon.
fn posix_class(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    let ahead: String = rest.clone().skip(1).collect();
    let Some((name, _)) = ahead.split_once(":]") else {
        out.push_str("\\[");
        return Ok(());
    };
    if !POSIX_CLASSES.contains(&name.strip_prefix('^').unwrap_or(name)) {
        return Err(format!("`[:{name}:]` is not a class of characters"));
    }
    out.push('[');
    out.extend(rest.by_ref().take(name.len() + 3));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::translate;

    fn check(pattern: &str) -> Result<(), String> {
        translate(pattern).and_then(|p| regex::Regex::new(&p).map_err(|e| e.to_string())).map(|_| ())
    }

    #[test]
    fn what_re2_takes() {
        for pattern in [
            ".*",
            "/users/{id}",
            "a{,5}",
            "a{01}",
            "a{1000}",
            "a*?",
            "[[]",
            "[]a]",
            "[a&&b~~c]",
            "[[:alpha:][:^digit:]_]",
            "[[:x]",
            r"\Qa.b(\E+",
            r"\012\x41\x{1F600}",
            r"\pN\p{Greek}\P{^Greek}",
            r"\_\-\/\<",
            r"\b{start}",
            "(?i)a(?s-i:b)(?)",
            "(?P<n>a)(?<m>b)",
            "(a{10}){100}",
        ] {
            assert_eq!(check(pattern), Ok(()), "{pattern}: {:?}", translate(pattern));
        }
    }

    #[test]
    fn what_re2_refuses() {
        for pattern in [
            "(?=a)",
            "(?!a)",
            "(?x)a",
            "(?P<n>a)(?P<n>b)",
            "(a",
            "a)",
            "[z-a]",
            "[a",
            "[[:odd:]]",
            "*a",
            "a**",
            "a*+",
            "a{2}{3}",
            "a{1001}",
            "a{3,2}",
            "(a{100}){11}",
            r"\1",
            r"\C",
            r"\Z",
            r"\p{Nope}",
            "\\",
        ] {
            assert!(check(pattern).is_err(), "{pattern}: {:?}", translate(pattern));
        }
        assert!(check(&"a".repeat(1024)).is_ok());
    }

    #[test]
    fn what_a_translated_pattern_matches() {
        for (pattern, text) in
            [("^/{id}$", "/{id}"), ("^[[&~]+$", "[&~"), (r"^\Qa+\E+$", "a++"), (r"^\101$", "A"), (r"^\P{^Greek}$", "α")]
        {
            let translated = translate(pattern).unwrap();
            assert!(regex::Regex::new(&translated).unwrap().is_match(text), "{pattern} → {translated}");
        }
    }
}
