//! PeerAuthentication: of several that apply, the one for the fewest workloads, and the oldest of those.

use std::collections::BTreeMap;
use std::sync::Arc;

use maille_api::security::PeerAuthentication;
use maille_api::security::peer_authentication::{MutualTls as Settings, MutualTlsMode};

use super::{Policies, Policy, is_for, is_for_all};

/// Which connections are taken.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum MutualTls {
    /// Plaintext only.
    Disable,
    /// Plaintext and mutual TLS.
    #[default]
    Permissive,
    /// Mutual TLS only.
    Strict,
}

/// Which connections a workload takes, port by port.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PeerMode {
    /// On ports that are not named.
    pub mode: MutualTls,
    /// On the workload's own ports.
    pub ports: BTreeMap<u32, MutualTls>,
}

impl PeerMode {
    /// On one port of the workload.
    pub fn of_port(&self, port: u32) -> MutualTls {
        self.ports.get(&port).copied().unwrap_or(self.mode)
    }
}

pub(super) fn compose(policies: &Policies, namespace: &str, labels: &BTreeMap<String, String>) -> PeerMode {
    let mut mode = of_namespace(policies, namespace).unwrap_or_default();
    // Policies for some workloads count in their own namespace only; the root's are for all or for nothing.
    let own = policies.peer.get(namespace).filter(|_| namespace != policies.root);
    let selects = |policy: &&Arc<Policy<PeerAuthentication>>| !is_for_all(&policy.spec) && is_for(&policy.spec, labels);
    let Some(workload) = own.and_then(|own| own.iter().find(selects)) else {
        return PeerMode { mode, ports: BTreeMap::new() };
    };
    mode = set(workload.spec.mtls.as_ref()).unwrap_or(mode);
    let ports = &workload.spec.port_level_mtls;
    let ports = ports.iter().map(|(port, settings)| (port.0, set(Some(settings)).unwrap_or(mode))).collect();
    PeerMode { mode, ports }
}

/// The policy that settles what a port takes, and none when nobody does.
pub(super) fn decider<'a>(
    policies: &'a Policies,
    namespace: &str,
    labels: &BTreeMap<String, String>,
    port: u32,
) -> Option<&'a Arc<Policy<PeerAuthentication>>> {
    let of = |namespace: &str| policies.peer.get(namespace).map(Vec::as_slice).unwrap_or_default();
    let own = if namespace == policies.root { &[][..] } else { of(namespace) };
    let selects = |policy: &&Arc<Policy<PeerAuthentication>>| !is_for_all(&policy.spec) && is_for(&policy.spec, labels);
    let for_all = |policy: &&Arc<Policy<PeerAuthentication>>| is_for_all(&policy.spec);
    let workload = own.iter().find(selects).filter(|policy| {
        let ports = &policy.spec.port_level_mtls;
        let of_port = ports.iter().find(|(named, _)| named.0 == port).map(|(_, settings)| settings);
        set(of_port).or(set(policy.spec.mtls.as_ref())).is_some()
    });
    let namespace = own.iter().find(for_all).filter(|policy| set(policy.spec.mtls.as_ref()).is_some());
    workload.or(namespace).or_else(|| of(&policies.root).iter().find(for_all))
}

pub(super) fn of_namespace(policies: &Policies, namespace: &str) -> Option<MutualTls> {
    let for_all = |namespace: &str| policies.peer.get(namespace)?.iter().find(|policy| is_for_all(&policy.spec));
    let mesh = for_all(&policies.root).map(|policy| set(policy.spec.mtls.as_ref()).unwrap_or_default());
    if namespace == policies.root {
        return mesh;
    }
    match for_all(namespace) {
        Some(policy) => Some(set(policy.spec.mtls.as_ref()).or(mesh).unwrap_or_default()),
        None => mesh,
    }
}

/// `UNSET` is left to whoever is wider.
fn set(settings: Option<&Settings>) -> Option<MutualTls> {
    match settings?.mode {
        MutualTlsMode::Unset => None,
        MutualTlsMode::Disable => Some(MutualTls::Disable),
        MutualTlsMode::Permissive => Some(MutualTls::Permissive),
        MutualTlsMode::Strict => Some(MutualTls::Strict),
    }
}
