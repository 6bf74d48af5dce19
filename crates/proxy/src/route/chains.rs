//! Which filter chain a connection gets: Envoy's sieve, most specific first at each step and never going back.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ahash::AHashMap;

use crate::config::{Cidr, FilterChain};

/// What a connection must be to get a filter chain. Empty is: anything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChainMatch {
    /// The port it goes to.
    pub destination_port: Option<u16>,
    /// Where it goes.
    pub destinations: Vec<Cidr>,
    /// SNI: exact, or `*.suffix` for names with at least one label more.
    pub server_names: Vec<Box<str>>,
    /// `tls` or `raw_buffer`; empty is any.
    pub transport_protocol: Box<str>,
    /// Application protocols.
    pub application_protocols: Vec<Box<str>>,
    /// Where the connection itself comes from.
    pub direct_sources: Vec<Cidr>,
    /// Whether it comes from this machine.
    pub source_kind: SourceKind,
    /// Where the client is.
    pub sources: Vec<Cidr>,
    /// The client's port.
    pub source_ports: Vec<u16>,
}

/// Whether a client is on this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the variants say it")]
pub enum SourceKind {
    #[default]
    Any,
    SameIpOrLoopback,
    External,
}

/// A connection, as filter chains see it.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    /// Where it goes: the original destination, when that was restored.
    pub destination: SocketAddr,
    /// Where the client is (PROXY protocol believed).
    pub source: SocketAddr,
    /// Where the connection itself comes from.
    pub direct_source: SocketAddr,
    /// SNI; empty is none.
    pub server_name: &'a str,
    /// `tls`, or `raw_buffer`.
    pub transport_protocol: &'a str,
    /// What the client offers, best first.
    pub application_protocols: &'a [&'a str],
}

/// Two chains that match the same connections.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the filter chains {0:?} and {1:?} match the same connections: make their filter_chain_match differ")]
pub struct Ambiguous(pub String, pub String);

/// Filter chains by what they match.
#[derive(Clone, Debug, Default)]
pub struct FilterChains {
    chains: Vec<Arc<FilterChain>>,
    root: Option<Box<Node>>,
}

/// One step of the sieve, or its end.
#[derive(Clone, Debug)]
enum Node {
    Chain(u32),
    Step(Step, AHashMap<Key, Node>, Option<Box<Node>>),
}

/// The steps, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    DestinationPort,
    Destination,
    ServerName,
    TransportProtocol,
    ApplicationProtocol,
    DirectSource,
    SourceKind,
    Source,
    SourcePort,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Port(u16),
    Range(Cidr),
    Text(Box<str>),
    Kind(SourceKind),
}

const STEPS: [Step; 9] = [
    Step::DestinationPort,
    Step::Destination,
    Step::ServerName,
    Step::TransportProtocol,
    Step::ApplicationProtocol,
    Step::DirectSource,
    Step::SourceKind,
    Step::Source,
    Step::SourcePort,
];

impl FilterChains {
    /// From chains and what they match.
    pub fn new(chains: Vec<(ChainMatch, Arc<FilterChain>)>) -> Result<FilterChains, Ambiguous> {
        let (matches, chains): (Vec<_>, Vec<_>) = chains.into_iter().unzip();
        let all: Vec<u32> = (0..matches.len() as u32).collect();
        let root = match all.is_empty() {
            true => None,
            false => Some(Box::new(build(&all, &matches, &chains, &STEPS)?)),
        };
        Ok(FilterChains { chains, root })
    }

    /// Every chain, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<FilterChain>> {
        self.chains.iter()
    }

    /// Whether the choice depends on what the client sends first: its TLS hello or its protocol.
    pub fn look_inside(&self) -> bool {
        fn looks(node: &Node) -> bool {
            match node {
                Node::Chain(_) => false,
                Node::Step(step, keyed, other) => {
                    let inside = [Step::ServerName, Step::TransportProtocol, Step::ApplicationProtocol];
                    inside.contains(step) || keyed.values().any(looks) || other.as_deref().is_some_and(looks)
                }
            }
        }
        self.root.as_deref().is_some_and(looks)
    }

    /// The chain of a connection.
    pub fn find(&self, connection: &Connection<'_>) -> Option<&Arc<FilterChain>> {
        let mut node = self.root.as_deref()?;
        loop {
            node = match node {
                Node::Chain(n) => return self.chains.get(*n as usize),
                Node::Step(step, keyed, other) => step.choose(keyed, connection).or(other.as_deref())?,
            };
        }
    }
}

fn build(
    members: &[u32],
    matches: &[ChainMatch],
    chains: &[Arc<FilterChain>],
    steps: &[Step],
) -> Result<Node, Ambiguous> {
    let Some((step, later)) = steps.split_first() else {
        return match members {
            [one] => Ok(Node::Chain(*one)),
            several => {
                let name = |i: usize| chains[several[i] as usize].name.to_string();
                Err(Ambiguous(name(0), name(1)))
            }
        };
    };
    let mut keyed: AHashMap<Key, Vec<u32>> = AHashMap::new();
    let mut other = Vec::new();
    for &n in members {
        let keys = step.keys(&matches[n as usize]);
        if keys.is_empty() {
            other.push(n);
        }
        for key in keys {
            let group = keyed.entry(key).or_default();
            if group.last() != Some(&n) {
                group.push(n);
            }
        }
    }
    if keyed.is_empty() {
        return build(members, matches, chains, later);
    }
    let keyed = keyed
        .into_iter()
        .map(|(key, members)| Ok((key, build(&members, matches, chains, later)?)))
        .collect::<Result<_, Ambiguous>>()?;
    let other = match other.is_empty() {
        true => None,
        false => Some(Box::new(build(&other, matches, chains, later)?)),
    };
    Ok(Node::Step(*step, keyed, other))
}

impl Step {
    fn keys(self, wanted: &ChainMatch) -> Vec<Key> {
        let ranges = |all: &[Cidr]| all.iter().copied().map(Key::Range).collect();
        match self {
            Step::DestinationPort => wanted.destination_port.map(Key::Port).into_iter().collect(),
            Step::Destination => ranges(&wanted.destinations),
            // `*.example.com` is filed as `.example.com`, so that it cannot be taken for an exact name.
            Step::ServerName => wanted
                .server_names
                .iter()
                .map(|name| Key::Text(name.strip_prefix('*').unwrap_or(name).to_ascii_lowercase().into()))
                .collect(),
            Step::TransportProtocol if wanted.transport_protocol.is_empty() => Vec::new(),
            Step::TransportProtocol => vec![Key::Text(wanted.transport_protocol.clone())],
            Step::ApplicationProtocol => wanted.application_protocols.iter().cloned().map(Key::Text).collect(),
            Step::DirectSource => ranges(&wanted.direct_sources),
            Step::SourceKind if wanted.source_kind == SourceKind::Any => Vec::new(),
            Step::SourceKind => vec![Key::Kind(wanted.source_kind)],
            Step::Source => ranges(&wanted.sources),
            Step::SourcePort => wanted.source_ports.iter().copied().map(Key::Port).collect(),
        }
    }

    fn choose<'a>(self, keyed: &'a AHashMap<Key, Node>, connection: &Connection<'_>) -> Option<&'a Node> {
        let text = |text: &str| keyed.get(&Key::Text(text.into()));
        match self {
            Step::DestinationPort => keyed.get(&Key::Port(connection.destination.port())),
            Step::Destination => narrowest(keyed, connection.destination.ip()),
            Step::ServerName => {
                let name = connection.server_name.to_ascii_lowercase();
                if name.is_empty() {
                    return None;
                }
                let suffixes = name.match_indices('.').map(|(at, _)| &name[at..]);
                text(&name).or_else(|| suffixes.filter(|s| s.len() < name.len()).find_map(text))
            }
            Step::TransportProtocol => text(connection.transport_protocol),
            Step::ApplicationProtocol => connection.application_protocols.iter().find_map(|p| text(p)),
            Step::DirectSource => narrowest(keyed, connection.direct_source.ip()),
            Step::SourceKind => {
                let source = connection.source.ip();
                let local = source.is_loopback() || source == connection.destination.ip();
                let kind = if local { SourceKind::SameIpOrLoopback } else { SourceKind::External };
                keyed.get(&Key::Kind(kind))
            }
            Step::Source => narrowest(keyed, connection.source.ip()),
            Step::SourcePort => keyed.get(&Key::Port(connection.source.port())),
        }
    }
}

/// What is filed under the narrowest range that holds an address.
fn narrowest(keyed: &AHashMap<Key, Node>, address: IpAddr) -> Option<&Node> {
    let bits = if address.to_canonical().is_ipv4() { 32 } else { 128 };
    (0..=bits).rev().find_map(|length| keyed.get(&Key::Range(Cidr::new(address.to_canonical(), length)?)))
}
