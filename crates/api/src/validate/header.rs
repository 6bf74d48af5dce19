//! Names and values of HTTP headers: what may be matched, set, and said to browsers.

use super::findings::{At, Problem, Verdict};
use crate::networking::virtual_service::{HeaderOperations, Headers};

/// What the name of a claim of a JWT begins with where headers are matched.
const CLAIM: &str = "@request.auth.claims";
const PSEUDO: [&str; 5] = [":method", ":scheme", ":authority", ":path", ":status"];

/// Whether a header match is about a claim: `@request.auth.claims.group` or `@request.auth.claims[group]`.
pub(super) fn is_claim(name: &str) -> bool {
    let Some(head) = name.get(..CLAIM.len()) else { return false };
    if !head.eq_ignore_ascii_case(CLAIM) {
        return false;
    }
    let path = &name[CLAIM.len()..];
    (path.starts_with('.') && path.len() > 1) || (path.starts_with('[') && path.ends_with(']') && path.len() > 2)
}

/// The name of a header to match: any token, a pseudo-header, or a claim.
pub(super) fn matched_name(name: &str) -> Verdict {
    if is_claim(name) || PSEUDO.contains(&name) {
        return Ok(());
    }
    token(name)
}

/// The name of a header in a CORS policy: a token, or `*`.
pub(super) fn cors_name(name: &str) -> Verdict {
    if name == "*" { Ok(()) } else { token(name) }
}

/// The name of a header of a probe, as Kubernetes has it.
pub(super) fn probe_name(name: &str) -> Verdict {
    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Ok(());
    }
    Err(bad_name(name, "letters, digits and `-`"))
}

/// RFC 9110 token.
fn token(name: &str) -> Verdict {
    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)) {
        return Ok(());
    }
    Err(bad_name(name, "letters, digits and any of !#$%&'*+-.^_`|~"))
}

fn bad_name(name: &str, expected: &str) -> Problem {
    match name {
        "" => Problem::new("the name of the header is empty"),
        name => Problem::new(format!("`{name}` is not the name of a header")).hint(format!("use {expected}")),
    }
}

/// Header changes of a route or of one of its destinations.
pub(super) fn manipulation(headers: Option<&Headers>, at: &mut At<'_>) {
    let Some(headers) = headers else { return };
    let mut at = at.field("headers");
    if let Some(request) = &headers.request {
        operations(request, request_name, &mut at.field("request"));
    }
    if let Some(response) = &headers.response {
        operations(response, other_name, &mut at.field("response"));
    }
}

fn operations(operations: &HeaderOperations, written: fn(&str) -> Verdict, at: &mut At<'_>) {
    for (field, headers) in [("add", &operations.add), ("set", &operations.set)] {
        for (name, header_value) in headers {
            at.field(field).key(name).check(written(name));
            at.field(field).key(name).check(value(header_value));
        }
    }
    for (i, name) in operations.remove.iter().enumerate() {
        at.field("remove").index(i).check(other_name(name));
    }
}

/// A header added to or set in a request: of what belongs to HTTP itself only the authority may be written.
fn request_name(name: &str) -> Verdict {
    if is_authority(name) { Ok(()) } else { other_name(name) }
}

fn other_name(name: &str) -> Verdict {
    if name.is_empty() {
        return Err("the name of the header is empty".into());
    }
    if name.starts_with(':') {
        return Err(Problem::new(format!("`{name}` is a pseudo-header, which belongs to HTTP itself"))
            .hint("use `rewrite` to change the path or the authority"));
    }
    if name.eq_ignore_ascii_case("host") {
        return Err(Problem::new("`host` can only be set in a request").hint("use `rewrite.authority`"));
    }
    Ok(())
}

/// The two names of the header that says which host is meant.
pub(super) fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case("host")
}

/// A header value with Envoy's `%COMMANDS%` in it: they have to be closed, and a percent sign is written `%%`.
pub(super) fn value(value: &str) -> Verdict {
    if value.bytes().any(|b| (b < b' ' && b != b'\t') || b == 0x7f) {
        return Err("the value holds a control character".into());
    }
    commands(value.as_bytes()).map_err(|problem| {
        Problem::new(format!("the value `{value}` cannot be read: {problem}"))
            .hint("write a percent sign as `%%`, and a command as `%NAME%` or `%NAME(ARGUMENT)%`")
    })
}

/// Where in a value the reader is; the states are those of Envoy's own parser.
enum State {
    Literal,
    Name,
    ArgumentsStart,
    StringStart,
    String,
    AfterString,
    ArgumentsEnd,
    CommandEnd,
}

fn commands(value: &[u8]) -> Result<(), &'static str> {
    let mut state = State::Literal;
    let mut bytes = value.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        state = match (state, byte) {
            (State::Literal, b'%') => match bytes.peek() {
                None => return Err("a single `%` stands at its end"),
                Some(b'%') => {
                    bytes.next();
                    State::Literal
                }
                Some(_) => State::Name,
            },
            (State::Literal, _) | (State::Name | State::CommandEnd, b'%') => State::Literal,
            (State::Name, b'(') => State::ArgumentsStart,
            (State::Name, _) => State::Name,
            (State::ArgumentsStart, b' ') => State::ArgumentsStart,
            (State::ArgumentsStart, b'[') | (State::StringStart, b' ') | (State::AfterString, b',') => {
                State::StringStart
            }
            (State::ArgumentsStart, _) | (State::StringStart, b'"') => State::String,
            (State::StringStart, _) => return Err("a `\"` is expected"),
            (State::String, b'\\') => match bytes.next() {
                None => return Err("nothing follows the last `\\`"),
                Some(_) => State::String,
            },
            (State::String, b')') | (State::ArgumentsEnd, b')') | (State::CommandEnd, b' ') => State::CommandEnd,
            (State::String, b'"') | (State::AfterString, b' ') => State::AfterString,
            (State::String, _) => State::String,
            (State::AfterString, b']') | (State::ArgumentsEnd, b' ') => State::ArgumentsEnd,
            (State::AfterString, _) => return Err("a `,` or `]` is expected"),
            (State::ArgumentsEnd, _) => return Err("a `)` is expected"),
            (State::CommandEnd, _) => return Err("a `%` is expected"),
        };
    }
    match state {
        State::Literal => Ok(()),
        _ => Err("a command is not closed"),
    }
}

/// The name of a header that a policy writes: letters, digits, `-` and `_`.
pub(super) fn strict_name(name: &str) -> Verdict {
    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
        return Ok(());
    }
    Err(bad_name(name, "letters, digits, `-` and `_`"))
}
