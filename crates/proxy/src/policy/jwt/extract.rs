//! Where tokens are looked for in a request.

use maille_http::{Name, RequestHead};

use crate::headers::cookie;
use crate::route::query_parameter;

/// The places where some providers look, in the order in which they are looked at.
#[derive(Clone, Debug, Default)]
pub struct Places(Vec<Place>);

#[derive(Clone, Debug)]
struct Place {
    at: At,
    /// Issuers whose tokens may stand there; any when empty.
    issuers: Vec<Box<str>>,
}

/// Ordered as tokens are looked for: headers, parameters, cookies, each by name.
#[derive(Clone, Debug, PartialEq)]
enum At {
    /// A header, and what stands before the token.
    Header(Name, Box<str>),
    Parameter(Box<str>),
    Cookie(Box<str>),
}

/// Where one provider looks.
#[derive(Clone, Copy)]
pub struct Looks<'a> {
    /// Its issuer; empty is any.
    pub issuer: &'a str,
    /// Headers, each with what stands before the token.
    pub headers: &'a [(Name, Box<str>)],
    /// Query parameters.
    pub params: &'a [Box<str>],
    /// Cookies.
    pub cookies: &'a [Box<str>],
}

/// A token as it stands in a request.
pub(super) struct Found<'p> {
    pub(super) text: String,
    place: &'p Place,
}

impl Places {
    /// Of these providers together.
    pub fn of<'a>(providers: impl IntoIterator<Item = Looks<'a>>) -> Places {
        let mut places: Vec<Place> = Vec::new();
        for provider in providers {
            let headers = provider.headers.iter().map(|(name, prefix)| At::Header(name.clone(), prefix.clone()));
            let params = provider.params.iter().map(|name| At::Parameter(name.clone()));
            let cookies = provider.cookies.iter().map(|name| At::Cookie(name.clone()));
            for at in headers.chain(params).chain(cookies) {
                match places.iter_mut().find(|place| place.at == at) {
                    Some(place) => place.issuers.push(provider.issuer.into()),
                    None => places.push(Place { at, issuers: vec![provider.issuer.into()] }),
                }
            }
        }
        for place in &mut places {
            // Whoever names no issuer takes the tokens of all.
            if place.issuers.iter().any(|issuer| issuer.is_empty()) {
                place.issuers.clear();
            }
        }
        places.sort_by_key(|place| place.at.rank());
        Places(places)
    }

    /// The tokens of a request, which are taken out of it.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn take(&self, head: &mut RequestHead) -> Vec<String> {
        let found = self.extract(head);
        found.iter().for_each(|found| found.remove(head));
        found.into_iter().map(|found| found.text).collect()
    }

    pub(super) fn extract(&self, head: &RequestHead) -> Vec<Found<'_>> {
        let mut found = Vec::new();
        for place in &self.0 {
            // What is no text is no token either; it must be seen to be bad all the same.
            let mut add = |text: &[u8]| found.push(Found { text: String::from_utf8_lossy(text).into_owned(), place });
            match &place.at {
                At::Header(name, prefix) => {
                    head.headers.values(name).filter_map(|value| after_prefix(value, prefix.as_bytes())).for_each(add);
                }
                At::Parameter(name) => {
                    if let Some(value) = head.query().and_then(|query| query_parameter(query, name.as_bytes())) {
                        add(&value);
                    }
                }
                At::Cookie(name) => {
                    if let Some(value) = cookie(head, name.as_bytes()) {
                        add(value);
                    }
                }
            }
        }
        found
    }
}

impl At {
    fn rank(&self) -> (u8, String) {
        match self {
            At::Header(name, prefix) => (0, format!("{}{prefix}", name.as_str())),
            At::Parameter(name) => (1, name.to_string()),
            At::Cookie(name) => (2, name.to_string()),
        }
    }
}

/// The token behind a prefix that may stand anywhere; without a prefix, all of it.
fn after_prefix<'v>(value: &'v [u8], prefix: &[u8]) -> Option<&'v [u8]> {
    if prefix.is_empty() {
        return Some(value);
    }
    let at = value.windows(prefix.len()).position(|window| window == prefix)?;
    let rest = &value[at + prefix.len()..];
    let is_token = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    Some(rest.iter().position(is_token).map_or(value, |start| &rest[start..]))
}

impl Found<'_> {
    /// Whether an issuer's tokens may stand there.
    pub(super) fn is_for(&self, issuer: &str) -> bool {
        self.place.issuers.is_empty() || self.place.issuers.iter().any(|own| &**own == issuer)
    }

    /// Takes the token out of the request. One in a cookie stays, as in Envoy.
    pub(super) fn remove(&self, head: &mut RequestHead) {
        match &self.place.at {
            At::Header(name, _) => {
                head.headers.remove(name);
            }
            At::Parameter(name) => {
                let path = without_parameter(head.path_and_query(), name.as_bytes());
                head.set_path(&path);
            }
            At::Cookie(_) => {}
        }
    }
}

fn without_parameter(path: &[u8], name: &[u8]) -> Vec<u8> {
    let Some(mark) = path.iter().position(|&b| b == b'?') else { return path.to_vec() };
    let mut out = path[..mark].to_vec();
    let others = path[mark + 1..].split(|&b| b == b'&').filter(|pair| query_parameter(pair, name).is_none());
    for (i, pair) in others.filter(|pair| !pair.is_empty()).enumerate() {
        out.push(if i == 0 { b'?' } else { b'&' });
        out.extend_from_slice(pair);
    }
    out
}
