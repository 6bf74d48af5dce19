//! Reading the head of a request.

use super::{BodyLength, Error, Limits, Version, fields};
use crate::host::{authority_is_valid, is_host_and_port};
use crate::name::{HeaderId, Name};
use crate::request::{RequestHead, Scheme};
use crate::words;

/// What a request's head said beyond its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestMeta {
    /// Bytes of the head, the empty line included.
    pub len: usize,
    /// The version.
    pub version: Version,
    /// How the body is framed.
    pub body: BodyLength,
    /// Whether the client will send another request on this connection.
    pub keep_alive: bool,
    /// `Connection: upgrade` with an Upgrade header.
    pub upgrade: bool,
    /// `Expect: 100-continue`.
    pub expects_continue: bool,
    /// The target was an absolute URL; its scheme is the head's.
    pub absolute: bool,
    /// Why it must be refused, although it is clear where it ends: [`Error::MissingHost`] or [`Error::Fragment`].
    pub objection: Option<Error>,
}

/// Methods that Envoy's codec knows; others are refused unless the configuration allows all ([`Limits::custom_methods`]).
const METHODS: [&[u8]; 34] = [
    b"ACL",
    b"BIND",
    b"CHECKOUT",
    b"CONNECT",
    b"COPY",
    b"DELETE",
    b"GET",
    b"HEAD",
    b"LINK",
    b"LOCK",
    b"MERGE",
    b"MKACTIVITY",
    b"MKCALENDAR",
    b"MKCOL",
    b"MOVE",
    b"MSEARCH",
    b"NOTIFY",
    b"OPTIONS",
    b"PATCH",
    b"POST",
    b"PROPFIND",
    b"PROPPATCH",
    b"PURGE",
    b"PUT",
    b"REBIND",
    b"REPORT",
    b"SEARCH",
    b"SOURCE",
    b"SUBSCRIBE",
    b"TRACE",
    b"UNBIND",
    b"UNLINK",
    b"UNLOCK",
    b"UNSUBSCRIBE",
];

/// Reads the head of a request from the start of `buf` into `head`, which is cleared first. `None` when its end has not come yet.
pub fn parse_request(buf: &[u8], limits: &Limits, head: &mut RequestHead) -> Result<Option<RequestMeta>, Error> {
    let start = leading_empty_lines(buf)?;
    let Some(rest) = buf.get(start..).filter(|rest| !rest.is_empty()) else { return Ok(None) };
    // What is no HTTP at all shows with its first byte.
    let begins = |byte: &u8| byte.is_ascii_alphabetic() || limits.custom_methods && byte.is_ascii_digit();
    if !rest.first().is_some_and(begins) {
        return Err(Error::InvalidMethod);
    }
    if rest.len() > limits.head_bytes && !rest.iter().take(limits.head_bytes).rev().any(|&b| b == b'\n') {
        return Err(Error::HeadTooLarge);
    }
    let done = complete(rest, limits, head).map_err(|error| super::error::blame(error, rest))?;
    match done {
        Some(meta) if meta.len > limits.head_bytes => Err(Error::HeadTooLarge),
        Some(meta) => Ok(Some(RequestMeta { len: start + meta.len, ..meta })),
        None if rest.len() >= limits.head_bytes => Err(Error::HeadTooLarge),
        None => Ok(None),
    }
}

fn complete(buf: &[u8], limits: &Limits, head: &mut RequestHead) -> Result<Option<RequestMeta>, Error> {
    let Some(line_end) = words::position(buf, b'\n') else { return Ok(None) };
    let line = buf.get(..line_end).and_then(|l| l.strip_suffix(b"\r")).ok_or(Error::Syntax)?;
    let RequestLine { method, target, version } = request_line(line)?;

    head.clear();
    let mut hosts = 0u8;
    let mut authority = crate::headers::Span::default();
    let parsed = fields::parse(
        buf.get(line_end + 1..).unwrap_or_default(),
        limits,
        &mut head.headers,
        true,
        |headers, value| {
            hosts = hosts.saturating_add(1);
            authority = headers.keep(value);
            Ok(())
        },
    )?;
    let Some((len, mut framing)) = parsed else { return Ok(None) };
    if framing.upgrade && head.headers.get(HeaderId::Upgrade).is_some_and(|kind| kind.eq_ignore_ascii_case(b"h2c")) {
        // An offer that whoever makes it can do without, as Envoy does: many clients make it with every first request.
        framing.upgrade = false;
        head.headers.remove_id(HeaderId::Upgrade);
        head.headers.remove_id(HeaderId::Connection);
        head.headers.remove(&Name::new("http2-settings"));
    }
    // Only a whole head is judged, so that an error never depends on how the bytes were cut.
    if !limits.custom_methods && !METHODS.contains(&method) {
        return Err(Error::InvalidMethod);
    }
    let version = match version {
        b"1.1" => Version::Http11,
        b"1.0" if limits.http10 => Version::Http10,
        _ => return Err(Error::Version),
    };
    if hosts > 1 {
        return Err(Error::DuplicateHost);
    }
    if version == Version::Http10 && framing.chunked {
        return Err(Error::TransferEncodingInHttp10);
    }
    if hosts > 0 {
        head.set_authority_span(authority);
    }
    head.set_method(method);
    let connect = method == b"CONNECT";
    let absolute = set_target(head, target, method)?;
    let objection = match head.has_authority() {
        _ if target.contains(&b'#') => Some(Error::Fragment),
        false if version == Version::Http11 => Some(Error::MissingHost),
        _ => None,
    };
    if !authority_is_valid(head.authority()) {
        return Err(Error::InvalidHost);
    }
    let body = match (framing.chunked, framing.content_length) {
        (true, _) => BodyLength::Chunked,
        (false, Some(0) | None) => BodyLength::Empty,
        (false, Some(n)) => BodyLength::Exact(n),
    };
    if connect && body != BodyLength::Empty {
        return Err(Error::ConnectWithBody);
    }
    Ok(Some(RequestMeta {
        len: line_end + 1 + len,
        version,
        body,
        keep_alive: !framing.close && (version == Version::Http11 || framing.keep_alive),
        upgrade: framing.upgrade,
        expects_continue: head
            .headers
            .get(crate::HeaderId::Expect)
            .is_some_and(|v| v.eq_ignore_ascii_case(b"100-continue")),
        absolute,
        objection,
    }))
}

/// Whole empty lines before a request are skipped, as RFC 9112 §2.2 asks; anything else that is not a request is an error.
fn leading_empty_lines(buf: &[u8]) -> Result<usize, Error> {
    let mut at = 0;
    while let Some(b'\r') = buf.get(at) {
        match buf.get(at + 1) {
            Some(b'\n') => at += 2,
            Some(_) => return Err(Error::Syntax),
            None => break,
        }
        if at > 16 {
            return Err(Error::Syntax);
        }
    }
    // A lone CR at the end may become an empty line: there is nothing to read yet.
    Ok(if at + 1 == buf.len() && buf.get(at) == Some(&b'\r') { buf.len() } else { at })
}

struct RequestLine<'a> {
    method: &'a [u8],
    target: &'a [u8],
    /// `1.1`
    version: &'a [u8],
}

/// Method, target and the version's number. Envoy takes spaces after the version for nothing, and so do we.
fn request_line(line: &[u8]) -> Result<RequestLine<'_>, Error> {
    let mut parts = line.splitn(3, |&b| b == b' ');
    let (Some(method), Some(target), Some(version)) = (parts.next(), parts.next(), parts.next()) else {
        // A method and a target alone were HTTP/0.9.
        let is_old = line.splitn(2, |&b| b == b' ').nth(1).is_some_and(|target| target.starts_with(b"/"));
        return Err(if is_old { Error::Version } else { Error::Syntax });
    };
    // Blanks alone: a CR in front of one is no white space to others.
    let end = version.iter().rposition(|b| !matches!(b, b' ' | b'\t')).map_or(0, |last| last + 1);
    let version = version.get(..end).and_then(|version| version.strip_prefix(b"HTTP/")).ok_or(Error::Syntax)?;
    if !matches!(version, [b'0'..=b'9', b'.', b'0'..=b'9']) {
        return Err(Error::Syntax);
    }
    Ok(RequestLine { method, target, version })
}

/// Puts the target's parts where they belong; says whether it was an absolute URL.
fn set_target(head: &mut RequestHead, target: &[u8], method: &[u8]) -> Result<bool, Error> {
    if method == b"CONNECT" {
        let host_and_port = target.iter().rposition(|&b| b == b':').is_some() && !target.contains(&b'/');
        if !host_and_port || !authority_is_valid(target) {
            return Err(Error::InvalidUrl);
        }
        head.set_authority(target);
        head.set_path(b"");
        return Ok(false);
    }
    if !target.iter().all(|b| matches!(b, b'!'..=b'~')) {
        return Err(Error::InvalidTarget);
    }
    if target.first() == Some(&b'/') || (target == b"*" && method == b"OPTIONS") {
        head.set_path(target);
        return Ok(false);
    }
    if target.first() == Some(&b'*') {
        return Err(Error::InvalidUrl);
    }
    let colon = target.windows(3).position(|w| w == b"://").ok_or(Error::InvalidTarget)?;
    let (scheme, rest) = (target.get(..colon).unwrap_or_default(), target.get(colon + 3..).unwrap_or_default());
    match scheme {
        s if s.eq_ignore_ascii_case(b"http") => head.set_scheme(Scheme::Http),
        s if s.eq_ignore_ascii_case(b"https") => head.set_scheme(Scheme::Https),
        _ => return Err(Error::InvalidScheme),
    }
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, path) = (rest.get(..end).unwrap_or_default(), rest.get(end..).unwrap_or_default());
    if !authority_is_valid(authority) {
        return Err(Error::InvalidTarget);
    }
    // The user part is the client's own; it is never sent on.
    let mut parts = authority.rsplitn(2, |&b| b == b'@');
    let (host, user) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if user.contains(&b'@') || !is_host_and_port(host) {
        return Err(Error::InvalidUrl);
    }
    let authority = host;
    head.set_authority(authority);
    head.set_path(if path.is_empty() { b"/" } else { path });
    Ok(true)
}
