//! Which virtual host serves a host: exact, then the longest suffix, then the longest prefix, then `*`.

use std::sync::Arc;

use ahash::AHashMap;

use crate::config::{Route, RouteTable, VirtualHost};
use crate::route::Request;

/// Virtual hosts by their domains.
#[derive(Clone, Debug, Default)]
pub struct HostIndex {
    exact: AHashMap<Box<[u8]>, u32>,
    suffixes: ByLength,
    prefixes: ByLength,
    any: Option<u32>,
}

/// What is left of wildcard domains without the `*`, longest first.
type ByLength = Vec<(usize, AHashMap<Box<[u8]>, u32>)>;

/// A domain that two virtual hosts claim, or one of them twice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the domain {0:?} stands twice in the route table: one host can have one virtual host only")]
pub struct DuplicateDomain(pub String);

impl HostIndex {
    /// From the domains of each virtual host, in order.
    pub fn new<'a, D: AsRef<str> + 'a>(hosts: impl IntoIterator<Item = &'a [D]>) -> Result<HostIndex, DuplicateDomain> {
        let mut index = HostIndex::default();
        for (n, domains) in hosts.into_iter().enumerate() {
            for domain in domains {
                index.add(domain.as_ref(), n as u32)?;
            }
        }
        Ok(index)
    }

    fn add(&mut self, domain: &str, n: u32) -> Result<(), DuplicateDomain> {
        let lower = domain.to_ascii_lowercase();
        let old = match lower.as_bytes() {
            b"*" => self.any.replace(n),
            [b'*', suffix @ ..] => of_length(&mut self.suffixes, suffix.len()).insert(suffix.into(), n),
            [prefix @ .., b'*'] => of_length(&mut self.prefixes, prefix.len()).insert(prefix.into(), n),
            exact => self.exact.insert(exact.into(), n),
        };
        match old {
            Some(_) => Err(DuplicateDomain(domain.to_owned())),
            None => Ok(()),
        }
    }

    /// The number of the virtual host of a host.
    pub fn find(&self, host: &[u8]) -> Option<usize> {
        // Most clients write it as it is here, in lower case.
        if let Some(n) = self.exact.get(host) {
            return Some(*n as usize);
        }
        if host.iter().any(u8::is_ascii_uppercase) {
            return self.find(&host.to_ascii_lowercase());
        }
        // A wildcard stands for at least one byte.
        let longest = |lengths: &ByLength, part: fn(&[u8], usize) -> &[u8]| {
            let fitting = lengths.iter().filter(|(length, _)| *length < host.len());
            fitting.into_iter().find_map(|(length, hosts)| hosts.get(part(host, *length)).copied())
        };
        longest(&self.suffixes, |host, length| &host[host.len() - length..])
            .or_else(|| longest(&self.prefixes, |host, length| &host[..length]))
            .or(self.any)
            .map(|n| n as usize)
    }
}

fn of_length(lengths: &mut ByLength, length: usize) -> &mut AHashMap<Box<[u8]>, u32> {
    let place = match lengths.binary_search_by_key(&std::cmp::Reverse(length), |(l, _)| std::cmp::Reverse(*l)) {
        Ok(place) => place,
        Err(place) => {
            lengths.insert(place, (length, AHashMap::new()));
            place
        }
    };
    &mut lengths[place].1
}

impl RouteTable {
    /// The virtual host of an authority.
    #[inline]
    pub fn virtual_host(&self, authority: &[u8]) -> Option<&Arc<VirtualHost>> {
        let host = if self.ignore_port { without_port(authority) } else { authority };
        self.hosts.find(host).map(|n| &self.virtual_hosts[n])
    }
}

impl VirtualHost {
    /// The first route that matches.
    #[inline]
    pub fn route(&self, request: &Request<'_>) -> Option<&Route> {
        self.index.find(&self.routes, request)
    }
}

/// An authority's host. Whatever follows the last colon outside brackets is taken for a port, as Envoy does.
pub(crate) fn without_port(authority: &[u8]) -> &[u8] {
    port_start(authority).map_or(authority, |at| &authority[..at])
}

/// Where an authority's `:PORT` begins.
pub(crate) fn port_start(authority: &[u8]) -> Option<usize> {
    let at = authority.iter().rposition(|&b| b == b':')?;
    (!authority[at..].contains(&b']')).then_some(at)
}
