//! What is known of a cluster's names: the last good answer for each, and when to ask again. Does no I/O and reads no clock.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Discovery, DnsFamily, DnsOptions, Endpoint, EndpointAddress, Endpoints};

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) addresses: Vec<IpAddr>,
    /// For how long it holds.
    pub(crate) ttl: Duration,
}

/// The names of one cluster.
pub(crate) struct Names {
    endpoints: Arc<Endpoints>,
    options: DnsOptions,
    /// One name is one host, wherever it is right now.
    logical: bool,
    names: Vec<Known>,
    places: HashMap<Arc<str>, usize>,
}

struct Known {
    name: Arc<str>,
    addresses: Vec<IpAddr>,
    failures: u32,
}

/// Nothing is asked for more often than this.
const LEAST: Duration = Duration::from_millis(100);

impl Names {
    pub(crate) fn of(discovery: &Discovery) -> Option<Names> {
        let (endpoints, options, logical) = match discovery {
            Discovery::StrictDns(endpoints, options) => (endpoints.clone(), *options, false),
            Discovery::LogicalDns(endpoints, options) => (endpoints.clone(), *options, true),
            _ => return None,
        };
        let mut out = Names { endpoints, options, logical, names: Vec::new(), places: HashMap::new() };
        let endpoints = out.endpoints.clone();
        for endpoint in endpoints.localities.iter().flat_map(|locality| &locality.endpoints) {
            if let EndpointAddress::Host(name, _) = &endpoint.address {
                out.places.entry(name.clone()).or_insert_with(|| {
                    out.names.push(Known { name: name.clone(), addresses: Vec::new(), failures: 0 });
                    out.names.len() - 1
                });
            }
        }
        Some(out)
    }

    pub(crate) fn family(&self) -> DnsFamily {
        self.options.family
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (usize, Arc<str>)> {
        self.names.iter().map(|known| known.name.clone()).enumerate()
    }

    /// Takes an answer; `random` is from 0 to 1. Gives the name and how long to wait before asking for it again.
    pub(crate) fn take(&mut self, at: usize, found: Option<Found>, random: f64) -> (Arc<str>, Duration) {
        let options = self.options;
        let known = &mut self.names[at];
        let pause = match found.map(|found| (wanted(found.addresses, options.family), found.ttl)) {
            Some((addresses, ttl)) if !addresses.is_empty() => {
                known.addresses = addresses;
                known.failures = 0;
                let refresh = if options.respect_ttl && !ttl.is_zero() { ttl } else { options.refresh };
                refresh + options.jitter.mul_f64(random)
            }
            // What was found before is all there is to go by: a failure says nothing about it.
            _ => {
                known.failures = known.failures.saturating_add(1);
                match options.failure_refresh {
                    Some((base, max)) => {
                        let bound = base.saturating_mul(1 << (known.failures - 1).min(16)).min(max);
                        bound.mul_f64(random)
                    }
                    None => options.refresh,
                }
            }
        };
        (known.name.clone(), pause.max(LEAST))
    }

    /// The endpoints with names replaced by what is known of them.
    pub(crate) fn endpoints(&self) -> Endpoints {
        let mut out = (*self.endpoints).clone();
        for locality in &mut out.localities {
            locality.endpoints = locality.endpoints.iter().flat_map(|endpoint| self.hosts(endpoint)).collect();
        }
        out
    }

    fn hosts(&self, endpoint: &Endpoint) -> Vec<Endpoint> {
        let EndpointAddress::Host(name, port) = &endpoint.address else { return vec![endpoint.clone()] };
        let known = self.places.get(name).and_then(|at| self.names.get(*at));
        let mut addresses = known.into_iter().flat_map(|known| &known.addresses).map(|ip| SocketAddr::new(*ip, *port));
        let hostname = if endpoint.hostname.is_empty() { name.clone() } else { endpoint.hostname.clone() };
        let host = |address, others| Endpoint {
            address: EndpointAddress::Socket(address),
            hostname: hostname.clone(),
            others,
            ..endpoint.clone()
        };
        if self.logical {
            let first = addresses.next();
            return first.map(|first| host(first, alternating(first, addresses.collect()))).into_iter().collect();
        }
        addresses.map(|address| host(address, Arc::default())).collect()
    }
}

fn wanted(addresses: Vec<IpAddr>, family: DnsFamily) -> Vec<IpAddr> {
    let (mut v4, mut v6): (Vec<IpAddr>, Vec<IpAddr>) = addresses.into_iter().partition(IpAddr::is_ipv4);
    match family {
        DnsFamily::V4Only => v4,
        DnsFamily::V6Only => v6,
        DnsFamily::V4Preferred if v4.is_empty() => v6,
        DnsFamily::V4Preferred => v4,
        DnsFamily::Auto if v6.is_empty() => v4,
        DnsFamily::Auto => v6,
        DnsFamily::All => {
            v6.append(&mut v4);
            v6
        }
    }
}

/// The other addresses in the order in which they are tried: one of the other family, one of the first's, and so on.
fn alternating(first: SocketAddr, others: Vec<SocketAddr>) -> Arc<[SocketAddr]> {
    let (same, other): (Vec<_>, Vec<_>) = others.into_iter().partition(|a| a.is_ipv4() == first.is_ipv4());
    let (mut same, mut other) = (same.into_iter(), other.into_iter());
    let mut out = Vec::new();
    loop {
        let pair = (other.next(), same.next());
        if pair == (None, None) {
            return out.into();
        }
        out.extend(pair.0.into_iter().chain(pair.1));
    }
}

#[cfg(test)]
mod tests;
