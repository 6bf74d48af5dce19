//! PeerAuthentication.

use super::findings::{At, Problem};
use super::{policy_target, rules};
use crate::security::PeerAuthentication;

pub(super) fn validate(policy: &PeerAuthentication, at: &mut At<'_>) {
    policy_target::selector(policy.selector.as_ref(), at);
    let for_all = policy.selector.as_ref().is_none_or(|selector| selector.match_labels.is_empty());
    if for_all && !policy.port_level_mtls.is_empty() {
        at.field("portLevelMtls").error(
            Problem::new("ports can only be told apart in a policy for some workloads")
                .hint("add a selector with labels"),
        );
    }
    for port in policy.port_level_mtls.keys() {
        at.field("portLevelMtls").key(&port.to_string()).check(rules::port(port.0));
    }
}
