//! The head of a request, as routes see it and as it goes upstream.

use std::borrow::Cow;

use crate::headers::{Headers, Span};
use crate::name::{HeaderId, Name};

/// The head of a request. Method, path, authority and scheme stand beside the headers; `host` is the authority and is never among them.
///
/// It owns its text and can be cleared and used again without allocating.
#[derive(Clone, Default)]
pub struct RequestHead {
    /// The fields, `host` and the framing ones (`transfer-encoding`, and `connection` unless it asks for an upgrade) aside.
    pub headers: Headers,
    method: Span,
    path: Span,
    authority: Span,
    /// Whether an authority was given, be it an empty one.
    has_authority: bool,
    scheme: Scheme,
}

/// How the request reached the first proxy, as far as that is known or claimed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are the schemes")]
pub enum Scheme {
    #[default]
    Http,
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

impl RequestHead {
    /// A head without text.
    pub fn new() -> RequestHead {
        RequestHead::default()
    }

    /// A head from its parts, for tests and simulation. `path` includes the query. Pseudo-headers and `host` among `headers` are taken for what they name.
    pub fn build(method: &str, authority: &str, path: &str, headers: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead::new();
        head.set_method(method.as_bytes());
        head.set_authority(authority.as_bytes());
        head.set_path(path.as_bytes());
        for (name, value) in headers {
            head.append(&Name::new(name), value.as_bytes());
        }
        head
    }

    /// Forgets everything but the memory.
    pub fn clear(&mut self) {
        self.headers.clear();
        self.method = Span::default();
        self.path = Span::default();
        self.authority = Span::default();
        self.has_authority = false;
        self.scheme = Scheme::Http;
    }

    /// The method, case as sent.
    pub fn method(&self) -> &[u8] {
        self.headers.span(self.method)
    }

    /// The path with its query (`:path`).
    #[inline]
    pub fn path_and_query(&self) -> &[u8] {
        self.headers.span(self.path)
    }

    /// The path without query and fragment.
    #[inline]
    pub fn path(&self) -> &[u8] {
        let all = self.path_and_query();
        let end = all.iter().position(|b| matches!(b, b'?' | b'#')).unwrap_or(all.len());
        all.get(..end).unwrap_or_default()
    }

    /// What follows the first `?`, if there is one; without a fragment.
    pub fn query(&self) -> Option<&[u8]> {
        let all = self.path_and_query();
        let all = all.get(..all.iter().position(|&b| b == b'#').unwrap_or(all.len()))?;
        let mark = all.iter().position(|&b| b == b'?')?;
        all.get(mark + 1..)
    }

    /// Host and port as sent (`:authority`).
    #[inline]
    pub fn authority(&self) -> &[u8] {
        self.headers.span(self.authority)
    }

    /// Whether there is an authority, be it an empty one.
    pub fn has_authority(&self) -> bool {
        self.has_authority
    }

    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Replaces the method.
    pub fn set_method(&mut self, method: &[u8]) {
        self.method = self.headers.keep(method);
    }

    /// Replaces path and query.
    pub fn set_path(&mut self, path: &[u8]) {
        self.path = self.headers.keep(path);
    }

    /// Replaces the authority.
    pub fn set_authority(&mut self, authority: &[u8]) {
        self.authority = self.headers.keep(authority);
        self.has_authority = true;
    }

    pub(crate) fn set_authority_span(&mut self, authority: Span) {
        self.authority = authority;
        self.has_authority = true;
    }

    /// Replaces the scheme.
    pub fn set_scheme(&mut self, scheme: Scheme) {
        self.scheme = scheme;
    }

    /// The value a matcher sees under a name: pseudo-headers by theirs (`host` is `:authority`), several values joined by `,`.
    #[inline]
    pub fn header(&self, name: &Name) -> Option<Cow<'_, [u8]>> {
        match self.pseudo(name) {
            Some(value) => value.map(Cow::Borrowed),
            None => self.headers.joined(name),
        }
    }

    /// The value that a formatter writes for a name: of several, the first.
    pub fn first(&self, name: &Name) -> Option<Cow<'_, [u8]>> {
        match self.pseudo(name) {
            Some(value) => value.map(Cow::Borrowed),
            None => self.headers.first(name).map(Cow::Borrowed),
        }
    }

    /// Adds a field; a pseudo-header or `host` is replaced.
    pub fn append(&mut self, name: &Name, value: &[u8]) {
        if !self.set_pseudo(name, value) {
            self.headers.append(name, value);
        }
    }

    /// Leaves one field of this name, with this value; a pseudo-header or `host` is replaced.
    pub fn set(&mut self, name: &Name, value: &[u8]) {
        if !self.set_pseudo(name, value) {
            self.headers.set(name, value);
        }
    }

    /// Appends the head as HTTP/1.1, up to where the framing headers and the empty line follow.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.method());
        out.push(b' ');
        out.extend_from_slice(if self.method() == b"CONNECT" { self.authority() } else { self.path_and_query() });
        out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
        out.extend_from_slice(self.authority());
        out.extend_from_slice(b"\r\n");
        self.headers.write(out);
    }

    /// The value of a pseudo-header; `Some(None)` when this request has none of it.
    fn pseudo(&self, name: &Name) -> Option<Option<&[u8]>> {
        let value = match (name.id(), name.as_str()) {
            (HeaderId::Host, _) => self.has_authority.then(|| self.authority()),
            (HeaderId::Other, text) if text.starts_with(':') => match text {
                ":authority" => self.has_authority.then(|| self.authority()),
                ":path" => some(self.path_and_query()),
                ":method" => some(self.method()),
                ":scheme" => Some(self.scheme.as_str().as_bytes()),
                _ => return None,
            },
            _ => return None,
        };
        Some(value)
    }

    fn set_pseudo(&mut self, name: &Name, value: &[u8]) -> bool {
        match name.as_str() {
            "host" | ":authority" => self.set_authority(value),
            ":path" => self.set_path(value),
            ":method" => self.set_method(value),
            ":scheme" => self.scheme = if value == b"https" { Scheme::Https } else { Scheme::Http },
            _ => return false,
        }
        true
    }
}

fn some(text: &[u8]) -> Option<&[u8]> {
    (!text.is_empty()).then_some(text)
}

impl std::fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &String::from_utf8_lossy(self.method()))
            .field("authority", &String::from_utf8_lossy(self.authority()))
            .field("path", &String::from_utf8_lossy(self.path_and_query()))
            .field("headers", &self.headers)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_pseudo_headers() {
        let head = RequestHead::build(
            "GET",
            "a.example:80",
            "/p/q?x=1?y",
            &[("Accept", "a"), ("accept", "b"), ("host", "b.example")],
        );
        assert_eq!(head.path(), b"/p/q");
        assert_eq!(head.query(), Some(&b"x=1?y"[..]));
        for (name, value) in [
            (":authority", Some("b.example")),
            ("Host", Some("b.example")),
            (":path", Some("/p/q?x=1?y")),
            (":method", Some("GET")),
            (":scheme", Some("http")),
            ("accept", Some("a,b")),
            (":status", None),
            ("none", None),
        ] {
            assert_eq!(head.header(&Name::new(name)).as_deref(), value.map(str::as_bytes), "{name}");
        }
        let mut out = Vec::new();
        head.write(&mut out);
        assert_eq!(out, b"GET /p/q?x=1?y HTTP/1.1\r\nhost: b.example\r\naccept: a\r\naccept: b\r\n");
    }
}
