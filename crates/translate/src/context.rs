//! What every part of a translation asks about: the mesh, the proxy, and what is known about the two together.

use std::sync::Arc;

use maille_api::mesh::MeshConfig;
use maille_model::snapshot::ServiceTarget;
use maille_model::{InterceptionMode, MergedGateway, Proxy, SidecarScope, Snapshot};

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
}

impl<'a> Context<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, proxy: &'a Proxy) -> Self {
        let gateway = if proxy.is_router() { snapshot.merged_gateway(proxy) } else { None };
        Context { snapshot, proxy, scope: snapshot.scope(proxy), targets: snapshot.service_targets(proxy), gateway }
    }

    pub(crate) fn mesh(&self) -> &'a MeshConfig {
        self.snapshot.mesh()
    }

    /// Whether clients connect to listeners of the proxy's own, rather than being redirected into it.
    pub(crate) fn is_uncaptured(&self) -> bool {
        self.proxy.metadata.interception_mode == InterceptionMode::None
    }
}
