//! What every part of a translation asks about: the mesh, the proxy, and what is known about the two together.

use std::cell::OnceCell;
use std::sync::Arc;

use maille_api::mesh::MeshConfig;
use maille_model::snapshot::ServiceTarget;
use maille_model::{InterceptionMode, MergedGateway, Proxy, SidecarScope, Snapshot};

use crate::policies;

/// One proxy in one snapshot.
pub(crate) struct Context<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) proxy: &'a Proxy,
    /// What it may see.
    pub(crate) scope: Arc<SidecarScope>,
    /// What it serves itself.
    pub(crate) targets: Vec<ServiceTarget>,
    /// The Gateways meant for it; never for a sidecar.
    pub(crate) gateway: Option<MergedGateway>,
    policies: OnceCell<policies::Filters>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, proxy: &'a Proxy) -> Self {
        let gateway = if proxy.is_router() { snapshot.merged_gateway(proxy) } else { None };
        Context {
            snapshot,
            proxy,
            scope: snapshot.scope(proxy),
            targets: snapshot.service_targets(proxy),
            gateway,
            policies: OnceCell::new(),
        }
    }

    pub(crate) fn mesh(&self) -> &'a MeshConfig {
        self.snapshot.mesh()
    }

    /// What enforces the policies that its workload is under.
    pub(crate) fn policies(&self) -> &policies::Filters {
        self.policies.get_or_init(|| policies::filters(self))
    }

    /// Whether clients connect to listeners of the proxy's own, rather than being redirected into it.
    pub(crate) fn is_uncaptured(&self) -> bool {
        self.proxy.metadata.interception_mode == InterceptionMode::None
    }
}
