//! The incremental protocol: requests change a subscription, responses carry what changed.

use std::sync::Arc;

use super::engine::{Engine, Sending};
use super::{Received, TooManyNames, TypeStatus};
use crate::types::core::ControlPlane;
use crate::types::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use crate::{TypeUrl, World};

/// The server's side of one delta stream.
pub struct DeltaSession {
    engine: Engine,
    control_plane: ControlPlane,
}

impl DeltaSession {
    /// A session for a stream that was just opened. The number tells its nonces from those of other streams.
    pub fn new(stream: u64, control_plane: &str) -> Self {
        Self { engine: Engine::new(true, stream), control_plane: ControlPlane { identifier: control_plane.into() } }
    }

    /// The client should have this world now.
    pub fn on_world(&mut self, world: World) {
        self.engine.set_world(world);
    }

    /// The client said nothing for so long that what waits for it should wait no longer.
    pub fn on_stall(&mut self) {
        self.engine.stall();
    }

    /// A request came.
    pub fn on_request(&mut self, request: DeltaDiscoveryRequest) -> Result<Received, TooManyNames> {
        let Some(type_url) = TypeUrl::parse(&request.type_url) else {
            return Ok(Received::UnknownType(request.type_url));
        };
        let first = self.engine.watch(type_url).start();
        let received = match request.response_nonce.as_str() {
            "" => Received::Subscription(type_url),
            nonce => {
                let refusal = request.error_detail.as_ref().map(|status| status.message.as_str());
                self.engine.answer(type_url, nonce, refusal)
            }
        };
        // A first request without names means all of them, for the types where that makes sense.
        if first && request.resource_names_subscribe.is_empty() && type_url.is_wildcard_by_default() {
            self.engine.subscribe(type_url, "*")?;
        }
        for name in &request.resource_names_subscribe {
            self.engine.subscribe(type_url, name)?;
        }
        for name in &request.resource_names_unsubscribe {
            self.engine.unsubscribe(type_url, name);
        }
        if first {
            self.engine.watch(type_url).hold(request.initial_resource_versions)?;
        }
        Ok(received)
    }

    /// Responses to send now, in this order.
    pub fn poll(&mut self) -> Vec<DeltaDiscoveryResponse> {
        self.engine.poll().into_iter().map(|sending| self.encode(sending)).collect()
    }

    /// Whether everything was sent and answered.
    pub fn is_settled(&self) -> bool {
        self.engine.is_settled()
    }

    /// Where each type that was asked for stands.
    pub fn status(&self) -> Vec<TypeStatus> {
        self.engine.status()
    }

    fn encode(&self, sending: Sending) -> DeltaDiscoveryResponse {
        let resource = |resource: &crate::Resource| Resource {
            name: resource.name.to_string(),
            version: resource.version.to_string(),
            resource: Some(resource.to_any(sending.type_url)),
            ..Default::default()
        };
        DeltaDiscoveryResponse {
            system_version_info: sending.version.to_string(),
            resources: sending.resources.iter().map(resource).collect(),
            type_url: sending.type_url.as_str().into(),
            removed_resources: sending.removed.iter().map(Arc::to_string).collect(),
            nonce: sending.nonce,
            control_plane: Some(self.control_plane.clone()),
            ..Default::default()
        }
    }
}
