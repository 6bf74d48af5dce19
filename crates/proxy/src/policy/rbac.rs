//! Whether RBAC rules let a request or a connection pass, and which policy said so.

mod index;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use maille_http::RequestHead;

pub use index::PolicyIndex;

use crate::config::{Condition, Metadata, Rbac, RbacAction, RbacPolicy, Rules, SourceAddress, StringMatcher};

/// What conditions are asked about.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The request; `None` for a connection, of which no condition on headers or paths holds.
    pub head: Option<&'a RequestHead>,
    /// The address at the connection's other end.
    pub direct: IpAddr,
    /// The client's address, as far as forwarding headers are believed.
    pub remote: IpAddr,
    /// Where the client wanted to go.
    pub destination: SocketAddr,
    /// The name in the TLS hello; empty is none.
    pub server_name: &'a str,
    /// The TLS client; `None` without TLS.
    pub peer: Option<Peer<'a>>,
    /// What filters wrote down about the request.
    pub metadata: Option<&'a Metadata>,
    /// The metadata of the request's route.
    pub route_metadata: Option<&'a Metadata>,
}

/// A TLS client: the names that its certificate proves, none when it presented none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peer<'a> {
    /// URI names.
    pub uris: &'a [Box<str>],
    /// DNS names.
    pub dns: &'a [Box<str>],
    /// The subject, as RFC 2253 writes it.
    pub subject: &'a str,
}

/// What rules say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it passes.
    pub allowed: bool,
    /// The policy that applied.
    pub policy: Option<Arc<str>>,
}

impl Verdict {
    /// Why, as Envoy's response code details say it.
    pub fn details(&self) -> String {
        let policy = self.policy.as_deref().unwrap_or("none");
        let policy: String = policy.chars().map(|c| if c.is_ascii_whitespace() { '_' } else { c }).collect();
        format!("rbac_access_denied_matched_policy[{policy}]")
    }
}

impl Rbac {
    /// What the enforced rules say; `None` when there are none.
    pub fn enforced(&self, facts: &Facts<'_>) -> Option<Verdict> {
        self.rules.as_ref().map(|rules| rules.judge(facts))
    }

    /// What the shadow rules say; `None` when there are none.
    pub fn shadowed(&self, facts: &Facts<'_>) -> Option<Verdict> {
        self.shadow.as_ref().map(|rules| rules.judge(facts))
    }
}

impl Rules {
    /// Rules of policies in the order of their names.
    pub fn new(action: RbacAction, policies: Vec<RbacPolicy>) -> Rules {
        Rules { action, index: PolicyIndex::new(&policies), policies }
    }

    /// What they say.
    pub fn judge(&self, facts: &Facts<'_>) -> Verdict {
        let policy = self.index.find(&self.policies, facts);
        let allowed = match self.action {
            RbacAction::Allow => policy.is_some(),
            RbacAction::Deny => policy.is_none(),
            RbacAction::Log => true,
        };
        Verdict { allowed, policy: policy.map(|policy| policy.name.clone()) }
    }
}

impl RbacPolicy {
    fn applies(&self, facts: &Facts<'_>) -> bool {
        self.permissions.iter().any(|condition| condition.holds(facts))
            && self.principals.iter().any(|condition| condition.holds(facts))
    }
}

impl Condition {
    /// Whether it holds (Envoy: common/rbac/matchers.cc).
    pub fn holds(&self, facts: &Facts<'_>) -> bool {
        match self {
            Condition::Always => true,
            Condition::All(all) => all.iter().all(|condition| condition.holds(facts)),
            Condition::Any(any) => any.iter().any(|condition| condition.holds(facts)),
            Condition::Not(condition) => !condition.holds(facts),
            Condition::Header(matcher) => match facts.head {
                Some(head) => matcher.matches(head),
                // A connection is a request without headers.
                None => matcher.matches_value(None),
            },
            Condition::Path(matcher) => path(facts).is_some_and(|path| matcher.matches(path)),
            Condition::Template(regex) => path(facts).is_some_and(|path| regex.matches(path)),
            Condition::DestinationIp(cidr) => cidr.contains(facts.destination.ip()),
            Condition::DestinationPort(ports) => ports.contains(&facts.destination.port().into()),
            Condition::ServerName(matcher) => matcher.matches(facts.server_name.as_bytes()),
            Condition::Metadata(matcher) => matcher.matches(facts.metadata),
            Condition::RouteMetadata(matcher) => matcher.matches(facts.route_metadata),
            Condition::Authenticated(name) => {
                facts.peer.is_some_and(|peer| name.as_ref().is_none_or(|name| peer.is(name)))
            }
            Condition::Source(SourceAddress::Direct, cidr) => cidr.contains(facts.direct),
            Condition::Source(SourceAddress::Remote, cidr) => cidr.contains(facts.remote),
        }
    }
}

/// The path without its query; `None` when there is none: a connection, or CONNECT.
fn path<'a>(facts: &Facts<'a>) -> Option<&'a [u8]> {
    facts.head.map(RequestHead::path).filter(|path| !path.is_empty())
}

impl<'a> Peer<'a> {
    /// What a condition on its name is asked about.
    fn names(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.uris.iter().chain(self.dns).map(|name| &**name).chain([self.subject])
    }

    fn is(&self, name: &StringMatcher) -> bool {
        self.names().any(|own| name.matches(own.as_bytes()))
    }
}

#[cfg(test)]
mod tests;
