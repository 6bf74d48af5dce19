//! Keeps one ADS stream up and moves messages between it and the state machine.

use std::error::Error;
use std::io;
use std::pin::pin;
use std::time::Duration;

use futures_util::{StreamExt, TryFutureExt, TryStreamExt, stream};
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Response, Status};

use super::state::DeltaClient;
use super::{Command, Connection, Options, Update};
use crate::types::discovery::DeltaDiscoveryRequest;
use crate::types::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;

/// Requests handed to the transport and not yet written. More would only hide that the server is not reading.
const REQUESTS_IN_FLIGHT: usize = 4;

/// A server that is there lets us in within this time.
pub(super) const CONNECT: Duration = Duration::from_secs(5);

/// Why a stream is over.
enum End {
    /// The owner dropped the client.
    Dropped,
    /// The server, or the way to it, failed; `worked` when at least one response had come.
    Failed { reason: String, worked: bool },
}

pub(super) async fn run(
    endpoint: Endpoint,
    options: Options,
    updates: mpsc::Sender<Update>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    connection: watch::Sender<Connection>,
) {
    let mut state = DeltaClient::new(options.node.clone());
    let mut failures = 0;
    loop {
        let end = attempt(&endpoint, &options, &mut state, &updates, &mut commands, &connection).await;
        state.on_close();
        let End::Failed { reason, worked } = end else { return };
        failures = if worked { 1 } else { failures + 1 };
        if failures == 1 {
            tracing::warn!(server = %options.uri, %reason, "no xDS stream: keeping the configuration, reconnecting");
        } else {
            tracing::debug!(server = %options.uri, %reason, failures, "still no xDS stream");
        }
        connection.send_replace(Connection::Disconnected(reason.into()));
        let wait = tokio::time::sleep(options.backoff.delay(failures, fastrand::f64()));
        if while_applying(wait, &mut state, &mut commands).await.is_none() {
            return;
        }
    }
}

/// One connection and one stream on it, until either ends.
async fn attempt(
    endpoint: &Endpoint,
    options: &Options,
    state: &mut DeltaClient,
    updates: &mpsc::Sender<Update>,
    commands: &mut mpsc::UnboundedReceiver<Command>,
    connection: &watch::Sender<Connection>,
) -> End {
    let mut worked = false;
    let channel = match while_applying(connect(endpoint, options), state, commands).await {
        None => return End::Dropped,
        Some(Err(reason)) => return End::Failed { reason, worked },
        Some(Ok(channel)) => channel,
    };
    let (requests, outgoing) = mpsc::channel(REQUESTS_IN_FLIGHT);
    let call = match open(channel, options, outgoing) {
        Ok(call) => call,
        Err(reason) => return End::Failed { reason, worked },
    };
    // Opening and reading are one stream, because a server may send its headers only with its first response, and that
    // only after our first request.
    let mut responses = pin!(stream::once(call.map_ok(Response::into_inner)).try_flatten());
    let mut undelivered: Option<Update> = None;
    state.on_open();
    loop {
        tokio::select! {
            // No further response is read until the owner has taken the last update: the server feels the pressure.
            response = responses.next(), if undelivered.is_none() => match response {
                Some(Ok(response)) => {
                    if !std::mem::replace(&mut worked, true) {
                        tracing::info!(server = %options.uri, "xDS stream open");
                        connection.send_replace(Connection::Connected);
                    }
                    undelivered = state.on_response(response);
                }
                Some(Err(status)) => return End::Failed { reason: describe(&status), worked },
                None => return End::Failed { reason: "the server closed the stream".into(), worked },
            },
            permit = updates.reserve(), if undelivered.is_some() => match permit {
                Ok(permit) => if let Some(update) = undelivered.take() { permit.send(update) },
                Err(_) => return End::Dropped,
            },
            permit = requests.reserve(), if state.has_request() => match permit {
                Ok(permit) => if let Some(request) = state.next_request() { permit.send(request) },
                Err(_) => return End::Failed { reason: "the request stream was closed".into(), worked },
            },
            command = commands.recv() => match command {
                Some(command) => apply(state, command),
                None => return End::Dropped,
            },
        }
    }
}

async fn connect(endpoint: &Endpoint, options: &Options) -> Result<Channel, String> {
    let Some(dial) = &options.dial else { return endpoint.connect().await.map_err(|error| with_causes(&error)) };
    let mut once =
        Some(timeout(CONNECT, dial()).await.map_err(|_| "it does not answer")?.map_err(|error| with_causes(&error))?);
    let connector = tower::service_fn(move |_: Uri| {
        let stream = once.take().ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionReset));
        async move { stream.map(TokioIo::new) }
    });
    endpoint.connect_with_connector(connector).await.map_err(|error| with_causes(&error))
}

fn open(
    channel: Channel,
    options: &Options,
    outgoing: mpsc::Receiver<DeltaDiscoveryRequest>,
) -> Result<
    impl Future<Output = Result<Response<tonic::Streaming<crate::types::discovery::DeltaDiscoveryResponse>>, Status>>,
    String,
> {
    let mut request = Request::new(ReceiverStream::new(outgoing));
    if let Some(token) = options.token.as_ref().and_then(|source| source()) {
        let mut value = format!("Bearer {token}")
            .parse::<tonic::metadata::MetadataValue<_>>()
            .map_err(|_| "the bearer token holds characters that no header may hold".to_string())?;
        value.set_sensitive(true);
        request.metadata_mut().insert("authorization", value);
    }
    let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(options.max_response);
    Ok(async move { client.delta_aggregated_resources(request).await })
}

/// Waits for `future` while commands keep being applied; `None` when the owner has gone.
async fn while_applying<F: Future>(
    future: F,
    state: &mut DeltaClient,
    commands: &mut mpsc::UnboundedReceiver<Command>,
) -> Option<F::Output> {
    let mut future = pin!(future);
    loop {
        tokio::select! {
            output = &mut future => return Some(output),
            command = commands.recv() => apply(state, command?),
        }
    }
}

fn apply(state: &mut DeltaClient, command: Command) {
    match command {
        Command::SubscribeAll(type_url) => state.subscribe_all(type_url),
        Command::Subscribe(type_url, names) => state.subscribe(type_url, names),
        Command::Unsubscribe(type_url, names) => state.unsubscribe(type_url, names),
        Command::Ack(receipt) => state.ack(receipt),
        Command::Nack(receipt, reason, refused) => state.nack(receipt, reason, &refused),
    }
}

fn describe(status: &Status) -> String {
    match status.source() {
        Some(cause) => format!("{:?}: {}", status.code(), with_causes(cause)),
        None => format!("{:?}: {}", status.code(), status.message()),
    }
}

/// The whole chain: a transport error by itself says only that it is one.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
