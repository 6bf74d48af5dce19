//! Who may connect and ask: the policies of `security.istio.io`, by the workloads they are for.

mod peer;
mod warnings;

use std::collections::BTreeMap;
use std::sync::Arc;

use maille_api::security::authorization_policy::Action;
use maille_api::security::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};
use maille_api::selector::{PolicyTargetReference, WorkloadSelector};
use maille_api::{Object, ObjectMeta, Source, Spec};

use crate::destination_rule::is_subset;
pub use peer::{MutualTls, PeerMode};
pub(crate) use warnings::check;
pub use warnings::is_provider_name;

/// A policy, and where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy<T> {
    /// Name, namespace, annotations.
    pub meta: ObjectMeta,
    /// Where it was written, if in a file.
    pub source: Option<Source>,
    /// What it says.
    pub spec: T,
}

/// The AuthorizationPolicies that a workload is under, in the order they are listed in: the root namespace's, then its
/// own namespace's, each oldest first.
#[derive(Clone, Debug, Default)]
pub struct Authorization {
    /// Left to a provider's judgement.
    pub custom: Vec<Arc<Policy<AuthorizationPolicy>>>,
    /// Refused.
    pub deny: Vec<Arc<Policy<AuthorizationPolicy>>>,
    /// Let through; with any of these, nothing else is.
    pub allow: Vec<Arc<Policy<AuthorizationPolicy>>>,
    /// Noted.
    pub audit: Vec<Arc<Policy<AuthorizationPolicy>>>,
}

/// Policies by namespace, oldest first.
type ByNamespace<T> = BTreeMap<String, Vec<Arc<Policy<T>>>>;

/// Every policy there is.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    root: String,
    peer: ByNamespace<PeerAuthentication>,
    request: ByNamespace<RequestAuthentication>,
    authorization: ByNamespace<AuthorizationPolicy>,
}

impl Policies {
    /// `objects` come oldest first.
    pub(crate) fn new(objects: &[&Object], root_namespace: &str) -> Policies {
        let mut policies = Policies { root: root_namespace.to_owned(), ..Policies::default() };
        for object in objects {
            match &object.spec {
                Spec::PeerAuthentication(spec) => add(&mut policies.peer, object, spec),
                Spec::RequestAuthentication(spec) => add(&mut policies.request, object, spec),
                Spec::AuthorizationPolicy(spec) => add(&mut policies.authorization, object, spec),
                _ => {}
            }
        }
        policies
    }

    /// What connections a workload takes.
    pub(crate) fn peer_mode(&self, namespace: &str, labels: &BTreeMap<String, String>) -> PeerMode {
        peer::compose(self, namespace, labels)
    }

    /// The policy that settles it for one port.
    pub(crate) fn peer_decider(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
        port: u32,
    ) -> Option<&Arc<Policy<PeerAuthentication>>> {
        peer::decider(self, namespace, labels, port)
    }

    /// What the namespace, or the mesh, says about connections to its workloads; `None` when neither does.
    pub(crate) fn namespace_mode(&self, namespace: &str) -> Option<MutualTls> {
        peer::of_namespace(self, namespace)
    }

    /// The issuers a workload believes: its namespace's policies, then the root namespace's.
    pub(crate) fn request_authentications(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> Vec<Arc<Policy<RequestAuthentication>>> {
        let policies = self.of_workload(&self.request, namespace, false);
        policies.filter(|policy| is_for(&policy.spec, labels)).cloned().collect()
    }

    pub(crate) fn authorization(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Authorization {
        let mut found = Authorization::default();
        let policies = self.of_workload(&self.authorization, namespace, true);
        for policy in policies.filter(|policy| is_for(&policy.spec, labels)) {
            let of_action = match policy.spec.action {
                Action::Custom => &mut found.custom,
                Action::Deny => &mut found.deny,
                Action::Allow => &mut found.allow,
                Action::Audit => &mut found.audit,
            };
            of_action.push(policy.clone());
        }
        found
    }

    pub(crate) fn all_request_authentications(&self) -> impl Iterator<Item = &Arc<Policy<RequestAuthentication>>> {
        self.request.values().flatten()
    }

    fn of_workload<'a, T>(
        &'a self,
        policies: &'a ByNamespace<T>,
        namespace: &str,
        root_first: bool,
    ) -> impl Iterator<Item = &'a Arc<Policy<T>>> {
        let own = policies.get(namespace);
        let root = policies.get(&self.root).filter(|_| namespace != self.root);
        let order = if root_first { [root, own] } else { [own, root] };
        order.into_iter().flatten().flatten()
    }
}

fn add<T: Clone>(policies: &mut ByNamespace<T>, object: &Object, spec: &T) {
    let policy = Policy { meta: object.meta.clone(), source: object.source.clone(), spec: spec.clone() };
    policies.entry(object.meta.namespace.clone()).or_default().push(Arc::new(policy));
}

/// A kind of policy that says by labels, or by naming resources, whom it is for.
pub(crate) trait Selects {
    fn selector(&self) -> Option<&WorkloadSelector>;
    fn targets(&self) -> impl Iterator<Item = &PolicyTargetReference>;
}

impl Selects for PeerAuthentication {
    fn selector(&self) -> Option<&WorkloadSelector> {
        self.selector.as_ref()
    }

    fn targets(&self) -> impl Iterator<Item = &PolicyTargetReference> {
        std::iter::empty()
    }
}

impl Selects for RequestAuthentication {
    fn selector(&self) -> Option<&WorkloadSelector> {
        self.selector.as_ref()
    }

    fn targets(&self) -> impl Iterator<Item = &PolicyTargetReference> {
        self.target_ref.iter().chain(&self.target_refs)
    }
}

impl Selects for AuthorizationPolicy {
    fn selector(&self) -> Option<&WorkloadSelector> {
        self.selector.as_ref()
    }

    fn targets(&self) -> impl Iterator<Item = &PolicyTargetReference> {
        self.target_ref.iter().chain(&self.target_refs)
    }
}

/// Whether a workload with these labels is meant, if it is of a namespace that the policy is for. What names resources
/// is for waypoints and for gateways of the Gateway API, which no proxy here is.
fn is_for(policy: &impl Selects, labels: &BTreeMap<String, String>) -> bool {
    let selected = policy.selector().is_none_or(|selector| is_subset(&selector.match_labels, labels));
    selected && policy.targets().next().is_none()
}

/// Whether a policy is for every workload of its namespace.
fn is_for_all(policy: &impl Selects) -> bool {
    policy.selector().is_none_or(|selector| selector.match_labels.is_empty())
}
