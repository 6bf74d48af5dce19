//! ADS over gRPC: puts sessions on streams and gives each the worlds meant for its client.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Extensions, Request, Response, Status, Streaming};

use crate::server::{DeltaSession, Received, SotwSession, TooManyNames, TypeStatus};
use crate::types::core::Node;
use crate::types::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use crate::types::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};
use crate::types::secret_discovery::secret_discovery_service_server::{
    SecretDiscoveryService, SecretDiscoveryServiceServer,
};
use crate::{TypeUrl, World};

/// How long an unanswered response, or a subscription that should follow from one, may hold up other types.
const STALL: Duration = Duration::from_secs(3);

/// How long a client may take to say who it is.
const FIRST_REQUEST: Duration = Duration::from_secs(30);

/// Responses handed to the transport and not yet written; with one per type outstanding there are never many.
const RESPONSES_IN_FLIGHT: usize = 4;

/// The largest request, in bytes: 100,000 names with versions fit.
const MAX_REQUEST: usize = 16 << 20;

/// Says which worlds a client gets.
pub trait WorldSource: Send + Sync + 'static {
    /// A client opened a stream and said who it is; an error closes the stream. `known` is what layers before this one have
    /// found out about it.
    fn connect(&self, node: Node, known: &Extensions) -> Result<Connection, Status>;
}

/// One client's worlds, and who wants to hear of what becomes of them.
pub struct Connection {
    /// The newest world meant for the client; nothing is answered while there is none. When the sender goes, the
    /// stream ends.
    pub worlds: watch::Receiver<Option<World>>,
    /// Hears of what happens on the stream, and is dropped when it ends.
    pub observer: Box<dyn Observer>,
}

/// Hears of what happens on a stream.
pub trait Observer: Send {
    /// These names are asked for by a request that is about to be taken.
    fn asked(&mut self, _names: &[String]) {}
    /// A request came.
    fn received(&mut self, received: &Received);
    /// A response was handed to the transport.
    fn sent(&mut self, type_url: TypeUrl, resources: usize, removed: usize);
    /// Something changed, and each type now stands like this.
    fn status(&mut self, status: Vec<TypeStatus>);
}

/// The ADS service, for a tonic router.
pub fn ads<S: WorldSource>(source: Arc<S>, control_plane: &str) -> AggregatedDiscoveryServiceServer<Ads<S>> {
    let service = Ads { source, control_plane: control_plane.into() };
    AggregatedDiscoveryServiceServer::new(service).max_decoding_message_size(MAX_REQUEST)
}

/// SDS alone, for a tonic router: for those who have their secrets from somebody else than the rest.
pub fn sds<S: WorldSource>(source: Arc<S>, control_plane: &str) -> SecretDiscoveryServiceServer<Ads<S>> {
    let service = Ads { source, control_plane: control_plane.into() };
    SecretDiscoveryServiceServer::new(service).max_decoding_message_size(MAX_REQUEST)
}

/// Serves both variants of ADS from one [`WorldSource`].
pub struct Ads<S> {
    source: Arc<S>,
    control_plane: Arc<str>,
}

#[tonic::async_trait]
impl<S: WorldSource> AggregatedDiscoveryService for Ads<S> {
    type StreamAggregatedResourcesStream = ReceiverStream<Result<DiscoveryResponse, Status>>;
    type DeltaAggregatedResourcesStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Ok(self.serve(SotwSession::new(fastrand::u32(..).into(), &self.control_plane), request))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Ok(self.serve(DeltaSession::new(fastrand::u32(..).into(), &self.control_plane), request))
    }
}

#[tonic::async_trait]
impl<S: WorldSource> SecretDiscoveryService for Ads<S> {
    type StreamSecretsStream = ReceiverStream<Result<DiscoveryResponse, Status>>;
    type DeltaSecretsStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        Ok(self.serve(SotwSession::new(fastrand::u32(..).into(), &self.control_plane), request))
    }

    async fn delta_secrets(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Ok(self.serve(DeltaSession::new(fastrand::u32(..).into(), &self.control_plane), request))
    }

    async fn fetch_secrets(&self, _: Request<DiscoveryRequest>) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("secrets are streamed: use StreamSecrets or DeltaSecrets"))
    }
}

impl<S: WorldSource> Ads<S> {
    fn serve<P: Protocol>(
        &self,
        session: P,
        request: Request<Streaming<P::Request>>,
    ) -> Response<ReceiverStream<Result<P::Response, Status>>> {
        let (responses, outgoing) = mpsc::channel(RESPONSES_IN_FLIGHT);
        let source = self.source.clone();
        tokio::spawn(async move {
            let (_, known, requests) = request.into_parts();
            if let Err(status) = run(session, &*source, &known, requests, &responses).await {
                // Nobody may be left to be told.
                let _ = responses.send(Err(status)).await;
            }
        });
        Response::new(ReceiverStream::new(outgoing))
    }
}

/// One stream from its first request to its end.
async fn run<P: Protocol>(
    mut session: P,
    source: &impl WorldSource,
    known: &Extensions,
    mut requests: Streaming<P::Request>,
    responses: &mpsc::Sender<Result<P::Response, Status>>,
) -> Result<(), Status> {
    let first = timeout(FIRST_REQUEST, requests.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no request came"))??;
    let Some(mut first) = first else { return Ok(()) };
    let node = P::take_node(&mut first)
        .ok_or_else(|| Status::invalid_argument("the first request of a stream must say which node it is from"))?;
    let Connection { mut worlds, mut observer } = source.connect(node, known)?;
    if let Some(world) = worlds.borrow_and_update().clone() {
        session.on_world(world);
    }
    let mut next = Some(first);
    let mut heard = Instant::now();
    loop {
        if let Some(request) = next.take() {
            heard = Instant::now();
            observer.asked(P::names(&request));
            if let Some(world) = fresh(&mut worlds) {
                session.on_world(world);
            }
            let received =
                session.on_request(request).map_err(|error| Status::resource_exhausted(error.to_string()))?;
            observer.received(&received);
        }
        for response in session.poll() {
            let (type_url, resources, removed) = P::describe(&response);
            if responses.send(Ok(response)).await.is_err() {
                return Ok(());
            }
            if let Some(type_url) = type_url {
                observer.sent(type_url, resources, removed);
            }
        }
        observer.status(session.status());
        let settled = session.is_settled();
        tokio::select! {
            request = requests.message() => match request? {
                Some(request) => next = Some(request),
                None => return Ok(()),
            },
            changed = worlds.changed() => {
                changed.map_err(|_| Status::unavailable("the control plane is shutting down"))?;
                if let Some(world) = worlds.borrow_and_update().clone() {
                    session.on_world(world);
                }
            }
            () = sleep_until(heard + STALL), if !settled => {
                session.on_stall();
                heard = Instant::now();
            }
        }
    }
}

/// The world, if it is another one than before: what was asked for may have changed it.
fn fresh(worlds: &mut watch::Receiver<Option<World>>) -> Option<World> {
    match worlds.has_changed() {
        Ok(true) => worlds.borrow_and_update().clone(),
        _ => None,
    }
}

/// What the two variants of the protocol have in common.
trait Protocol: Send + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;

    fn on_request(&mut self, request: Self::Request) -> Result<Received, TooManyNames>;
    fn on_world(&mut self, world: World);
    fn on_stall(&mut self);
    fn poll(&mut self) -> Vec<Self::Response>;
    fn is_settled(&self) -> bool;
    fn status(&self) -> Vec<TypeStatus>;
    fn take_node(request: &mut Self::Request) -> Option<Node>;
    fn names(request: &Self::Request) -> &[String];
    fn describe(response: &Self::Response) -> (Option<TypeUrl>, usize, usize);
}

macro_rules! protocol {
    ($session:ty, $request:ty, $response:ty, $names:ident, $removed:expr) => {
        impl Protocol for $session {
            type Request = $request;
            type Response = $response;

            fn on_request(&mut self, request: $request) -> Result<Received, TooManyNames> {
                self.on_request(request)
            }
            fn on_world(&mut self, world: World) {
                self.on_world(world);
            }
            fn on_stall(&mut self) {
                self.on_stall();
            }
            fn poll(&mut self) -> Vec<$response> {
                self.poll()
            }
            fn is_settled(&self) -> bool {
                self.is_settled()
            }
            fn status(&self) -> Vec<TypeStatus> {
                self.status()
            }
            fn take_node(request: &mut $request) -> Option<Node> {
                request.node.take()
            }
            fn names(request: &$request) -> &[String] {
                &request.$names
            }
            fn describe(response: &$response) -> (Option<TypeUrl>, usize, usize) {
                (TypeUrl::parse(&response.type_url), response.resources.len(), $removed(response))
            }
        }
    };
}

protocol!(
    DeltaSession,
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    resource_names_subscribe,
    |response: &DeltaDiscoveryResponse| response.removed_resources.len()
);
protocol!(SotwSession, DiscoveryRequest, DiscoveryResponse, resource_names, |_: &DiscoveryResponse| 0);
