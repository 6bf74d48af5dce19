//! What a forwarded request becomes: header mutations, then its host, then its path, in Envoy's order.

use maille_http::{HeaderId, RequestHead};
use regex::bytes::Regex;

use crate::config::{Destination, Forward, HostRewrite, PathMatcher, PathRewrite, RegexRewrite, Route};
use crate::headers::{Scratch, StreamInfo};

impl Forward {
    /// Where the request goes. For [`crate::config::ClusterChoice::Header`], see [`Forward::cluster_name`].
    #[inline]
    pub fn destination(&self, random: u64) -> &Destination {
        match &self.cluster {
            crate::config::ClusterChoice::One(destination) => destination,
            crate::config::ClusterChoice::Weighted(clusters) => clusters.pick(random),
            crate::config::ClusterChoice::Header(_, destination) => destination,
        }
    }

    /// The name of the cluster, which a header may give; `None` when that header is missing or no text.
    pub fn cluster_name<'a>(&'a self, destination: &'a Destination, head: &'a RequestHead) -> Option<&'a str> {
        match &self.cluster {
            crate::config::ClusterChoice::Header(name, _) => {
                std::str::from_utf8(head.headers.values(name).next()?).ok().filter(|text| !text.is_empty())
            }
            _ => Some(&destination.cluster),
        }
    }

    /// Makes the request what goes upstream. With `originals`, what the path and host were is said in `x-envoy-original-path` and `x-envoy-original-host`.
    /// [`HostRewrite::Auto`] waits until a host is chosen: [`set_host`].
    pub fn rewrite(
        &self,
        route: &Route,
        destination: &Destination,
        head: &mut RequestHead,
        stream: &StreamInfo<'_>,
        scratch: &mut Scratch,
        originals: bool,
    ) {
        if !destination.request.is_empty() {
            destination.request.apply_to_request(head, stream, scratch);
        }
        if let Some(host) = &destination.host {
            head.set_authority(host.as_bytes());
        }
        self.rewrite_host(head, originals);
        rewrite_path(&self.path, &route.matcher.path, head, originals);
    }

    fn rewrite_host(&self, head: &mut RequestHead, originals: bool) {
        let host: Vec<u8> = match &self.host {
            HostRewrite::None | HostRewrite::Auto => return,
            HostRewrite::Literal(host) => return self.set_host(head, host.as_bytes(), originals),
            HostRewrite::Header(name) => match head.headers.values(name).next() {
                Some(value) => value.to_vec(),
                None => return,
            },
            HostRewrite::PathRegex(rewrite) => rewrite.apply(head.path()),
        };
        self.set_host(head, &host, originals);
    }

    /// Replaces the host, and says what it was where that is wanted.
    pub fn set_host(&self, head: &mut RequestHead, host: &[u8], originals: bool) {
        if host.is_empty() {
            return;
        }
        let old = head.authority().to_vec();
        if !old.is_empty() {
            if originals {
                head.headers.set_id(HeaderId::XEnvoyOriginalHost, &old);
            }
            if self.append_forwarded_host {
                append_forwarded_host(head, &old);
            }
        }
        head.set_authority(host);
    }
}

/// Adds a host to `x-forwarded-host`, unless it is the last one there.
fn append_forwarded_host(head: &mut RequestHead, host: &[u8]) {
    let mut value = head.headers.get(HeaderId::XForwardedHost).unwrap_or_default().to_vec();
    let last = value.rsplit(|&b| b == b',').find(|part| !part.trim_ascii().is_empty());
    if last == Some(host) {
        return;
    }
    if !value.is_empty() {
        value.push(b',');
    }
    value.extend_from_slice(host);
    head.headers.set_id(HeaderId::XForwardedHost, &value);
}

/// Rewrites the path, the query aside.
pub(crate) fn rewrite_path(rewrite: &PathRewrite, matched: &PathMatcher, head: &mut RequestHead, originals: bool) {
    let old = head.path_and_query();
    let path = head.path();
    let mut new = match rewrite {
        PathRewrite::None => return,
        PathRewrite::Matched(text) => {
            let length = match matched {
                PathMatcher::Exact(text, _) | PathMatcher::Prefix(text, _) | PathMatcher::SeparatedPrefix(text, _) => {
                    text.len()
                }
                PathMatcher::Regex(_) | PathMatcher::Connect => path.len(),
            };
            [text, path.get(length..).unwrap_or_default()].concat()
        }
        PathRewrite::Regex(rewrite) => rewrite.apply(path),
        PathRewrite::Full(text) => text.to_vec(),
    };
    new.extend_from_slice(&old[path.len()..]);
    if originals {
        let old = old.to_vec();
        head.headers.set_id(HeaderId::XEnvoyOriginalPath, &old);
    }
    head.set_path(&new);
}

impl RegexRewrite {
    /// From an expression and a replacement in RE2's manner (`\1`, `\\`); an error is about the replacement.
    pub fn new(pattern: Regex, substitution: &str) -> Result<RegexRewrite, String> {
        let mut out = String::new();
        let mut groups = 0;
        let mut chars = substitution.chars();
        while let Some(c) = chars.next() {
            match c {
                '$' => out.push_str("$$"),
                '\\' => match chars.next() {
                    Some('\\') => out.push('\\'),
                    Some(digit) if digit.is_ascii_digit() => {
                        groups = groups.max(digit as usize - '0' as usize);
                        out.push_str(&format!("${{{digit}}}"));
                    }
                    other => {
                        let what = other.map(String::from).unwrap_or_default();
                        return Err(format!("the substitution has `\\{what}`; expected a digit or another backslash"));
                    }
                },
                c => out.push(c),
            }
        }
        // RE2 replaces nothing at all when the replacement names a group that the expression does not have.
        let has_groups = groups < pattern.captures_len();
        Ok(RegexRewrite { pattern, substitution: has_groups.then(|| out.into_bytes().into()) })
    }

    /// The text with every match replaced.
    pub fn apply(&self, text: &[u8]) -> Vec<u8> {
        match &self.substitution {
            Some(substitution) => self.pattern.replace_all(text, &**substitution).into_owned(),
            None => text.to_vec(),
        }
    }
}
