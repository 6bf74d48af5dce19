//! One filter chain as it is decided: what it matches, and what becomes of what it matches.

use std::collections::BTreeSet;
use std::net::IpAddr;

use maille_xds::types::core::{CidrRange, Metadata, TransportSocket, transport_socket};
use maille_xds::types::listener::{Filter, FilterChain, FilterChainMatch};
use maille_xds::types::tls::DownstreamTlsContext;
use maille_xds::types::{any, core};

use super::hcm::Http;
use crate::Context;
use crate::convert::{cidr_range, seconds};

/// A client that takes longer for its TLS handshake is let go.
const TRANSPORT_CONNECT_SECONDS: i64 = 15;

/// One filter chain. What is empty matches everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Chain {
    pub(crate) sni_hosts: Vec<String>,
    /// Addresses and networks.
    pub(crate) destinations: Vec<String>,
    pub(crate) application_protocols: Vec<String>,
    pub(crate) transport_protocol: String,
    pub(crate) metadata: Option<Metadata>,
    pub(crate) tls: Option<DownstreamTlsContext>,
    pub(crate) content: Content,
}

/// What handles the connection.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    Http(Box<Http>),
    Stream(Vec<Filter>),
}

impl Default for Content {
    fn default() -> Self {
        Content::Stream(Vec::new())
    }
}

impl Chain {
    pub(crate) fn http(http: Http) -> Chain {
        Chain { content: Content::Http(Box::new(http)), ..Chain::default() }
    }

    pub(crate) fn stream(filters: Vec<Filter>) -> Chain {
        Chain { content: Content::Stream(filters), ..Chain::default() }
    }

    /// Nothing is asked of a connection.
    pub(crate) fn matches_all(&self) -> bool {
        (self.sni_hosts.is_empty() || self.any_sni())
            && self.application_protocols.is_empty()
            && self.transport_protocol.is_empty()
            && self.destinations.is_empty()
    }

    /// Both would match the same connections, which Envoy refuses.
    pub(crate) fn conflicts_with(&self, other: &Chain) -> bool {
        self.transport_protocol == other.transport_protocol
            && self.application_protocols == other.application_protocols
            && self.sni_set() == other.sni_set()
            && self.destination_set() == other.destination_set()
    }

    /// Whether the server name has to be known before this chain can be chosen.
    pub(crate) fn needs_tls_inspector(&self) -> bool {
        !self.sni_hosts.is_empty() || self.tls.is_some() || self.looks_up_server_name()
    }

    /// Whether it has to be known that the client speaks HTTP before this chain can be chosen.
    pub(crate) fn needs_http_inspector(&self) -> bool {
        !self.application_protocols.is_empty()
    }

    /// As Envoy's filter chain. The statistics of HTTP are kept under the listener's name unless they have one.
    pub(crate) fn build(&self, context: &Context<'_>, stat_prefix: &str) -> FilterChain {
        let filters = match &self.content {
            Content::Stream(filters) => filters.clone(),
            Content::Http(http) if http.stat_prefix.is_empty() => {
                vec![Http { stat_prefix: stat_prefix.to_owned(), ..(**http).clone() }.filter(context)]
            }
            Content::Http(http) => vec![http.filter(context)],
        };
        FilterChain {
            filter_chain_match: self.filter_chain_match(),
            filters,
            metadata: self.metadata.clone(),
            transport_socket: self.tls.as_ref().map(tls_transport),
            transport_socket_connect_timeout: Some(seconds(TRANSPORT_CONNECT_SECONDS)),
            ..Default::default()
        }
    }

    fn filter_chain_match(&self) -> Option<FilterChainMatch> {
        if self.matches_all() {
            return None;
        }
        let mut server_names = if self.any_sni() { Vec::new() } else { self.sni_hosts.clone() };
        server_names.sort();
        let mut destinations: Vec<&String> = self.destinations.iter().collect();
        destinations.sort();
        Some(FilterChainMatch {
            prefix_ranges: destinations.into_iter().filter_map(|text| specified(text)).collect(),
            server_names,
            transport_protocol: self.transport_protocol.clone(),
            application_protocols: self.application_protocols.clone(),
            ..Default::default()
        })
    }

    fn looks_up_server_name(&self) -> bool {
        matches!(&self.content, Content::Stream(filters)
            if filters.iter().any(|filter| filter.name == super::SNI_DYNAMIC_FORWARD_PROXY))
    }

    fn any_sni(&self) -> bool {
        self.sni_hosts.iter().any(|host| host == "*")
    }

    fn sni_set(&self) -> BTreeSet<&str> {
        self.sni_hosts.iter().map(String::as_str).filter(|host| *host != "*").collect()
    }

    /// Networks are compared by their bits: `1.2.3.4/8` is `1.5.6.7/8`.
    fn destination_set(&self) -> BTreeSet<(IpAddr, u32)> {
        self.destinations.iter().filter_map(|text| specified(text)).filter_map(|range| masked(&range)).collect()
    }
}

/// The transport socket that terminates TLS.
pub(crate) fn tls_transport(tls: &DownstreamTlsContext) -> TransportSocket {
    core::TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(any(tls))),
    }
}

/// A network, unless it is that of every address.
fn specified(text: &str) -> Option<CidrRange> {
    cidr_range(text).filter(|range| range.address_prefix != "0.0.0.0")
}

fn masked(range: &CidrRange) -> Option<(IpAddr, u32)> {
    let length = range.prefix_len.as_ref().map_or(0, |length| length.value);
    let ip = match range.address_prefix.parse().ok()? {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - length.min(32)).unwrap_or(0);
            IpAddr::V4((u32::from(ip) & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - length.min(128)).unwrap_or(0);
            IpAddr::V6((u128::from(ip) & mask).into())
        }
    };
    Some((ip, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(sni: &[&str], destinations: &[&str]) -> Chain {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Chain { sni_hosts: own(sni), destinations: own(destinations), ..Chain::default() }
    }

    #[test]
    fn chains_conflict_when_they_match_the_same() {
        for (a, b, conflict) in [
            (chain(&[], &[]), chain(&["*"], &["0.0.0.0/0"]), true),
            (chain(&["a", "b"], &[]), chain(&["b", "a"], &[]), true),
            (chain(&["a"], &[]), chain(&["b"], &[]), false),
            (chain(&[], &["1.2.3.4/8"]), chain(&[], &["1.5.6.7/8"]), true),
            (chain(&[], &["1.2.3.4"]), chain(&[], &["1.2.3.4/32"]), true),
            (chain(&[], &["1.2.3.4"]), chain(&[], &[]), false),
        ] {
            assert_eq!(a.conflicts_with(&b), conflict, "{a:?} {b:?}");
        }
    }
}
