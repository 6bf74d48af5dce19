//! Whether a request meets a route's conditions.

use std::borrow::Cow;

use maille_http::{HeaderId, RequestHead};

use crate::config::{
    Case, Conditions, CookieMatcher, Metadata, PathMatcher, QueryMatcher, QueryValue, RouteMatcher, TlsMatcher,
};

/// A request, as routes see it.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Its head.
    pub head: &'a RequestHead,
    /// One random number for everything that is left to chance about it.
    pub random: u64,
    /// The client's TLS.
    pub tls: ClientTls,
    /// What filters wrote about it.
    pub metadata: Option<&'a Metadata>,
}

/// What a client's TLS says about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Whether it presented a certificate.
    pub presented: bool,
    /// Whether that was verified.
    pub validated: bool,
}

impl RouteMatcher {
    /// Whether all conditions hold. `path` is the request's, without the query.
    pub fn matches(&self, path: &[u8], request: &Request<'_>) -> bool {
        self.path.matches(path, request.head) && self.matches_beside_path(request)
    }

    /// Whether all conditions but the one on the path hold.
    #[inline]
    pub(crate) fn matches_beside_path(&self, request: &Request<'_>) -> bool {
        self.conditions.as_deref().is_none_or(|conditions| conditions.hold(request))
    }
}

impl Conditions {
    fn hold(&self, request: &Request<'_>) -> bool {
        self.fraction.is_none_or(|fraction| fraction.holds(request.random))
            && self.headers.iter().all(|matcher| matcher.matches(request.head))
            && (self.query.is_empty() || {
                let query = request.head.query().unwrap_or_default();
                self.query.iter().all(|matcher| matcher.matches(query))
            })
            && self.cookies.iter().all(|matcher| matcher.matches(request.head))
            && (!self.grpc || is_grpc(request.head))
            && self.tls.matches(request.tls)
            && self.metadata.iter().all(|matcher| matcher.matches(request.metadata))
    }
}

impl PathMatcher {
    /// Whether it holds for a path without its query.
    pub fn matches(&self, path: &[u8], head: &RequestHead) -> bool {
        if let PathMatcher::Connect = self {
            return head.method() == b"CONNECT";
        }
        // A CONNECT request has no path; no condition on paths holds for it.
        if path.is_empty() {
            return false;
        }
        match self {
            PathMatcher::Exact(text, Case::Sensitive) => path == &**text,
            PathMatcher::Exact(text, Case::Ignore) => path.eq_ignore_ascii_case(text),
            PathMatcher::Prefix(text, case) => starts_with(path, text, *case),
            PathMatcher::SeparatedPrefix(text, case) => {
                starts_with(path, text, *case) && matches!(path.get(text.len()), None | Some(b'/'))
            }
            PathMatcher::Regex(regex) => regex.matches(path),
            PathMatcher::Connect => false,
        }
    }
}

fn starts_with(path: &[u8], text: &[u8], case: Case) -> bool {
    match case {
        Case::Sensitive => path.starts_with(text),
        Case::Ignore => path.get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text)),
    }
}

impl QueryMatcher {
    fn matches(&self, query: &[u8]) -> bool {
        let value = query_parameter(query, &self.name);
        match &self.value {
            QueryValue::Present(wanted) => value.is_some() == *wanted,
            QueryValue::String(matcher) => value.is_some_and(|value| matcher.matches(&value)),
        }
    }
}

impl CookieMatcher {
    fn matches(&self, head: &RequestHead) -> bool {
        let cookies = head.headers.all(HeaderId::Cookie).flat_map(|line| line.split(|&b| b == b';'));
        let mut pairs = cookies.filter_map(|pair| {
            let at = pair.iter().position(|&b| b == b'=')?;
            Some((pair[..at].trim_ascii(), pair[at + 1..].trim_ascii()))
        });
        match pairs.find(|(name, _)| *name == &*self.name) {
            Some((_, value)) => self.value.matches(value) != self.invert,
            None => self.invert,
        }
    }
}

impl TlsMatcher {
    fn matches(self, tls: ClientTls) -> bool {
        self.presented.is_none_or(|wanted| wanted == tls.presented)
            && self.validated.is_none_or(|wanted| wanted == tls.validated)
    }
}

fn is_grpc(head: &RequestHead) -> bool {
    head.headers.get(HeaderId::ContentType).is_some_and(|value| {
        value.strip_prefix(b"application/grpc").is_some_and(|rest| matches!(rest.first(), None | Some(b'+')))
    })
}

/// The first value of a query parameter, percent-decoded.
pub fn query_parameter<'a>(query: &'a [u8], name: &[u8]) -> Option<Cow<'a, [u8]>> {
    query.split(|&b| b == b'&').find_map(|pair| {
        let at = pair.iter().position(|&b| b == b'=');
        let (key, value) = match at {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &b""[..]),
        };
        (*decode(key) == *name).then(|| decode(value))
    })
}

fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'%') {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&b, after)) = rest.split_first() {
        let hex = |i: usize| after.get(i).and_then(|&d| (d as char).to_digit(16));
        match (b, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                rest = &after[2..];
            }
            _ => {
                out.push(b);
                rest = after;
            }
        }
    }
    Cow::Owned(out)
}
