//! The state-of-the-world protocol: requests and responses state everything, each time.
//!
//! As the protocol has it, only clusters and listeners are stated whole and removed by absence. Responses of the other
//! types hold what changed or was asked for anew. A client that reconnects does not say what it has, so a cluster that
//! went while it was away is gone before the routes that name it are replaced; only the incremental protocol can do
//! better, and that is what both Envoy and our proxy are configured with.

use super::engine::{Engine, Sending};
use super::{Received, TooManyNames, TypeStatus};
use crate::types::core::ControlPlane;
use crate::types::discovery::{DiscoveryRequest, DiscoveryResponse};
use crate::{TypeUrl, World};

/// The server's side of one state-of-the-world stream.
pub struct SotwSession {
    engine: Engine,
    control_plane: ControlPlane,
}

impl SotwSession {
    /// A session for a stream that was just opened. The number tells its nonces from those of other streams.
    pub fn new(stream: u64, control_plane: &str) -> Self {
        Self { engine: Engine::new(false, stream), control_plane: ControlPlane { identifier: control_plane.into() } }
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
    pub fn on_request(&mut self, request: DiscoveryRequest) -> Result<Received, TooManyNames> {
        let Some(type_url) = TypeUrl::parse(&request.type_url) else {
            return Ok(Received::UnknownType(request.type_url));
        };
        if self.engine.watch(type_url).start() {
            // A nonce in a first request is another stream's.
            if request.resource_names.is_empty() && type_url.is_wildcard_by_default() {
                self.engine.subscribe(type_url, "*")?;
            }
            self.engine.replace_names(type_url, &request.resource_names)?;
            self.engine.watch(type_url).owe_response();
            return Ok(Received::Subscription(type_url));
        }
        let nonce = request.response_nonce.as_str();
        let received = if self.engine.watch(type_url).is_current(nonce) {
            Received::Subscription(type_url)
        } else {
            let refusal = request.error_detail.as_ref().map(|status| status.message.as_str());
            self.engine.answer(type_url, nonce, refusal)
        };
        if !matches!(received, Received::Stale(_)) {
            self.engine.replace_names(type_url, &request.resource_names)?;
        }
        Ok(received)
    }

    /// Responses to send now, in this order.
    pub fn poll(&mut self) -> Vec<DiscoveryResponse> {
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

    fn encode(&self, sending: Sending) -> DiscoveryResponse {
        DiscoveryResponse {
            version_info: sending.version.to_string(),
            resources: sending.resources.iter().map(|resource| resource.to_any(sending.type_url)).collect(),
            type_url: sending.type_url.as_str().into(),
            nonce: sending.nonce,
            control_plane: Some(self.control_plane.clone()),
            ..Default::default()
        }
    }
}
