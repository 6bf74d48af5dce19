//! What of a request decides the host of a consistent-hash cluster.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use maille_http::RequestHead;
use xxhash_rust::xxh64::xxh64;

use crate::config::{HashOn, HashPolicy};
use crate::headers::cookie;
use crate::route::query_parameter;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking {
    /// The client, as far as we trust what we were told about it.
    pub(crate) client: IpAddr,
    /// Both ends of the connection.
    pub(crate) connection: (SocketAddr, SocketAddr),
}

/// The hash of a request, if it has anything to hash; a cookie that the client is to get is put into `set_cookie`.
pub(crate) fn hash(
    policies: &[HashPolicy],
    request: &RequestHead,
    asking: Asking,
    set_cookie: &mut Vec<Vec<u8>>,
) -> Option<u64> {
    let mut hash: Option<u64> = None;
    for policy in policies {
        if let Some(new) = one(&policy.on, request, asking, set_cookie) {
            // Rotating keeps two policies with the same value from cancelling each other out.
            hash = Some(hash.map_or(0, |old| old.rotate_left(1)) ^ new);
        }
        if policy.terminal && hash.is_some() {
            break;
        }
    }
    hash
}

fn one(on: &HashOn, request: &RequestHead, asking: Asking, set_cookie: &mut Vec<Vec<u8>>) -> Option<u64> {
    match on {
        HashOn::Header(name, rewrite) => {
            let mut values: Vec<Cow<'_, [u8]>> = request.headers.values(name).map(Cow::Borrowed).collect();
            if values.is_empty() {
                // The host, the path and the like.
                values.push(request.header(name)?);
            }
            if let Some(rewrite) = rewrite {
                values = values.into_iter().map(|value| Cow::Owned(rewrite.apply(&value))).collect();
            }
            // In whatever order they come.
            values.sort();
            Some(values.iter().fold(0, |seed, value| xxh64(value, seed)))
        }
        HashOn::Cookie { name, ttl, path, attributes } => {
            if let Some(value) = cookie(request, name.as_bytes()).filter(|value| !value.is_empty()) {
                return Some(xxh64(value, 0));
            }
            let ttl = (*ttl)?;
            let (remote, local) = asking.connection;
            let value = format!("{:016x}", xxh64(format!("{remote}{local}").as_bytes(), 0));
            let mut line = format!("{name}=\"{value}\"");
            if !ttl.is_zero() {
                line.push_str(&format!("; Max-Age={}", ttl.as_secs()));
            }
            if !path.is_empty() {
                line.push_str(&format!("; Path={path}"));
            }
            for (attribute, value) in attributes {
                line.push_str(&format!("; {attribute}"));
                if !value.is_empty() {
                    line.push_str(&format!("={value}"));
                }
            }
            line.push_str("; HttpOnly");
            set_cookie.push(line.into_bytes());
            Some(xxh64(value.as_bytes(), 0))
        }
        HashOn::SourceIp => Some(xxh64(asking.client.to_string().as_bytes(), 0)),
        HashOn::Query(name) => Some(xxh64(&query_parameter(request.query()?, name.as_bytes())?, 0)),
    }
}

#[cfg(test)]
mod tests;
