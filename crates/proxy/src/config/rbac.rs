//! Who may do what: Envoy's RBAC rules, compiled. The HTTP filter and the network filter share them.

use std::ops::Range;
use std::sync::Arc;

use crate::config::{Cidr, FullRegex, HeaderMatcher, MetadataMatcher, StringMatcher};
use crate::policy::rbac::PolicyIndex;

/// One RBAC filter: rules that are enforced, and rules that are only tried.
#[derive(Clone, Debug, Default)]
pub struct Rbac {
    /// What is enforced; everything passes when absent.
    pub rules: Option<Rules>,
    /// What is tried and only counted and written down: Istio's dry run.
    pub shadow: Option<Rules>,
    /// The prefix of the rules' metrics and metadata keys.
    pub prefix: Arc<str>,
    /// The prefix of the shadow rules'.
    pub shadow_prefix: Arc<str>,
}

/// Policies, and what it means that one of them applies.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What it means.
    pub action: RbacAction,
    /// In the order of their names; the first that applies counts.
    pub policies: Vec<RbacPolicy>,
    /// Where they are filed.
    pub index: PolicyIndex,
}

/// What it means that a policy applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RbacAction {
    /// What no policy applies to is refused.
    Allow,
    /// What a policy applies to is refused.
    Deny,
    /// Nothing is refused: what a policy applies to is marked for the log.
    Log,
}

/// One policy: it applies when one of its permissions and one of its principals hold.
#[derive(Clone, Debug)]
pub struct RbacPolicy {
    /// Its name, which every refusal says.
    pub name: Arc<str>,
    /// What is done.
    pub permissions: Vec<Condition>,
    /// Who does it.
    pub principals: Vec<Condition>,
}

/// A condition on a request or a connection.
#[derive(Clone, Debug)]
pub enum Condition {
    /// Holds always.
    Always,
    /// All hold.
    All(Vec<Condition>),
    /// At least one holds.
    Any(Vec<Condition>),
    /// It does not hold.
    Not(Box<Condition>),
    /// A header.
    Header(HeaderMatcher),
    /// The path without its query.
    Path(StringMatcher),
    /// The path without its query, against a template.
    Template(FullRegex),
    /// Where the connection goes.
    DestinationIp(Cidr),
    /// The port it goes to, as a range.
    DestinationPort(Range<u32>),
    /// The name the client asked for in its TLS hello.
    ServerName(StringMatcher),
    /// Metadata that filters before this one wrote.
    Metadata(MetadataMatcher),
    /// The route's metadata.
    RouteMetadata(MetadataMatcher),
    /// A TLS client; with a matcher, one of its URI or DNS names, or its subject.
    Authenticated(Option<StringMatcher>),
    /// An address of the client.
    Source(SourceAddress, Cidr),
}

/// Which of the client's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceAddress {
    /// At the other end of the connection.
    Direct,
    /// As far as forwarding headers and the PROXY protocol are believed.
    Remote,
}
