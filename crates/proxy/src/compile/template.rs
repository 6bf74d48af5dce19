//! Path templates (`/users/{id}`, `/a/*`, `/b/**`), compiled to expressions.
//!
//! The rules are Envoy's (source/extensions/path/uri_template_lib): `*` is one segment that is not empty, `**` anything,
//! also nothing, and only literals may follow it.

use regex::bytes::RegexBuilder;

use crate::compile::at::{At, Compiled};
use crate::config::FullRegex;

/// What one segment may consist of.
const SEGMENT: &str = r"[a-zA-Z0-9\-._~%!$&'()+,;:@=*]+";
/// What several may.
const SEGMENTS: &str = r"[a-zA-Z0-9\-._~%!$&'()+,;:@=*/]*";
/// The most variables of a template, and how long their names may be.
const VARIABLES: usize = 5;
const NAME_LENGTH: std::ops::RangeInclusive<usize> = 1..=16;

pub(crate) fn compile(at: &At<'_>, template: &str) -> Compiled<FullRegex> {
    match pattern(template) {
        Ok(pattern) => match RegexBuilder::new(&pattern).unicode(false).build() {
            Ok(regex) => Ok(FullRegex(regex)),
            Err(error) => at.refuse(format!("{template:?} is no template we can run: {error}")),
        },
        Err(reason) => at.refuse(format!("{template:?} is no path template: {reason}")),
    }
}

fn pattern(template: &str) -> Result<String, String> {
    let Some(mut rest) = template.strip_prefix('/').filter(|rest| rest.bytes().all(|b| b.is_ascii_graphic())) else {
        return Err("it must begin with / and be printable".into());
    };
    let mut parser = Parser { out: String::from(r"\A/"), names: Vec::new(), after_globs: false };
    while !rest.is_empty() {
        rest = match rest.as_bytes().first() {
            Some(b'*') => parser.operator(rest)?,
            Some(b'{') => parser.variable(rest)?,
            _ => parser.literal(rest)?,
        };
        match rest.strip_prefix('/') {
            Some(next) => {
                parser.out.push('/');
                rest = next;
            }
            None if rest.is_empty() => {}
            None => {
                // What follows an operator in the same segment ends the template.
                if !parser.literal(rest)?.is_empty() {
                    return Err("nothing may follow a suffix".into());
                }
                break;
            }
        }
    }
    parser.out.push_str(r"\z");
    Ok(parser.out)
}

struct Parser<'a> {
    out: String,
    names: Vec<&'a str>,
    after_globs: bool,
}

impl<'a> Parser<'a> {
    fn operator(&mut self, text: &'a str) -> Result<&'a str, String> {
        if self.after_globs {
            return Err("only literals may follow **".into());
        }
        let (operator, rest) = match text.strip_prefix("**") {
            Some(rest) => (SEGMENTS, rest),
            None => (SEGMENT, &text[1..]),
        };
        self.after_globs = operator == SEGMENTS;
        self.out.push_str(operator);
        Ok(rest)
    }

    fn literal(&mut self, text: &'a str) -> Result<&'a str, String> {
        let (literal, rest) = text.split_at(text.find('/').unwrap_or(text.len()));
        let valid = |b: u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=*".contains(&b);
        if literal.is_empty() || !literal.bytes().all(valid) {
            return Err(format!("{literal:?} is no literal"));
        }
        self.out.push_str(&regex::escape(literal));
        Ok(rest)
    }

    fn variable(&mut self, text: &'a str) -> Result<&'a str, String> {
        let Some((inside, rest)) = text[1..].split_once('}') else { return Err("a { is never closed".into()) };
        let (name, pattern) = inside.split_once('=').map_or((inside, None), |(name, pattern)| (name, Some(pattern)));
        let valid = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && name.as_bytes().first().is_some_and(u8::is_ascii_alphabetic)
            && NAME_LENGTH.contains(&name.len());
        if !valid {
            return Err(format!("{name:?} is no name of a variable"));
        }
        if self.names.contains(&name) || self.names.len() == VARIABLES {
            return Err(format!("{name:?} stands twice, or is one variable too many"));
        }
        self.names.push(name);
        let Some(mut pattern) = pattern else { return self.operator("*").map(|_| rest) };
        loop {
            pattern = match pattern.as_bytes().first() {
                Some(b'*') => self.operator(pattern)?,
                _ => self.literal(pattern)?,
            };
            match pattern.strip_prefix('/') {
                Some(next) if !next.is_empty() => {
                    self.out.push('/');
                    pattern = next;
                }
                None if pattern.is_empty() => return Ok(rest),
                _ => return Err(format!("{pattern:?} is no end of a variable")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_templates_match() {
        for (template, path, matches) in [
            ("/a/*/c", "/a/b/c", true),
            ("/a/*/c", "/a/b/d/c", false),
            ("/a/*/c", "/a//c", false),
            ("/a/**", "/a/", true),
            ("/a/**", "/a/b/c", true),
            ("/a/**", "/a", false),
            ("/a/**/d", "/a/b/c/d", true),
            ("/a/**/d", "/a/d", false),
            ("/a/**.mpd", "/a/b/x.mpd", true),
            ("/{x}/y", "/any/y", true),
            ("/{x=a/*}/y", "/a/b/y", true),
            ("/{x=a/*}/y", "/b/b/y", false),
            ("/a.c", "/abc", false),
            ("/a/", "/a/", true),
            ("/*", "/a%2fb", true),
            ("/*", "/a\"b", false),
            ("/", "/", true),
        ] {
            let regex = compile(&At::resource("t"), template).unwrap();
            assert_eq!(regex.matches(path.as_bytes()), matches, "{template} against {path}");
        }
    }

    #[test]
    fn what_is_no_template() {
        for template in
            ["a", "/**/*", "/**/{x}", "/{x}/{x}", "/{1}", "/{x", "/{x=}", "/a//b", "/*x/y", "/{x=a/}", "/a b"]
        {
            assert!(compile(&At::resource("t"), template).is_err(), "{template}");
        }
    }
}
