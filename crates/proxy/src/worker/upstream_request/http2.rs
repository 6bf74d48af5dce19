//! A request on a stream of an HTTP/2 connection to a host, and the task that drives the connection.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::Reason;
use h2::client::{Builder, Connection, ResponseFuture};
use maille_http::h1::{Limits, ResponseMeta};
use maille_http::{RequestHead, ResponseHead};

use super::{Lost, Upstream as Either};
use crate::config::Cluster;
use crate::tls::Carries;
use crate::upstream::{
    Breakers, Capacity, Carrier, ClusterEntry, ConnectError, Counted, Multiplexed, Purpose, Ride, WorkerHost, connect,
};
use crate::worker::Worker;
use crate::worker::body::{Data, Incoming, Outgoing, Sink};
use crate::worker::http::Client;
use crate::worker::http2::wire::{Watch, Wire};
use crate::worker::http2::{Keepalive, head};
use crate::worker::io::{Input, Stream};
use crate::worker::transfer::{Failure, Transfer};

/// How much of one stream may wait to be written to the server.
const SEND_BUFFER: usize = 64 * 1024;

/// A stream with a request on it.
pub(crate) struct Upstream {
    ride: Ride,
    /// What is there once the request has begun.
    response: Option<ResponseFuture>,
    outgoing: Option<Outgoing>,
    incoming: Option<Incoming>,
    /// How much of what goes with the head has been written.
    written: usize,
    sent: bool,
}

/// A place on a connection, or on a new one.
pub(super) async fn obtain(
    worker: &Rc<Worker>,
    entry: &Arc<ClusterEntry>,
    host: &Rc<WorkerHost>,
    breakers: Breakers<'_>,
) -> Result<Either, ConnectError> {
    let all = &host.pool.multiplexed;
    let wait = all.wait();
    poll_fn(|cx| {
        if let Some(upstream) = Upstream::ride(entry, host) {
            return Poll::Ready(Ok(Either::of_stream(upstream)));
        }
        if let Some(failure) = wait.failure() {
            return Poll::Ready(Err(failure));
        }
        wait.register(cx);
        if !all.is_connecting()
            && let Some(counted) = host.pool.open(&host.host, breakers)
        {
            tokio::task::spawn_local(make(worker.clone(), entry.clone(), host.clone(), counted));
        }
        Poll::Pending
    })
    .await
}

/// Makes a connection and drives it to its end.
async fn make(worker: Rc<Worker>, entry: Arc<ClusterEntry>, host: Rc<WorkerHost>, counted: Counted) {
    let connecting = host.pool.multiplexed.connecting();
    let purpose = Purpose { carries: Carries::Http2, ..host.purpose.clone() };
    let stream = match connect(&entry.config, &host, &purpose).await {
        Ok(stream) => stream,
        Err(error) => {
            host.pool.multiplexed.fail(error);
            return;
        }
    };
    match begin(&worker, &entry, &host, stream, counted).await {
        // Whoever waits finds the connection.
        Ok(_) => drop(connecting),
        Err(error) => host.pool.multiplexed.fail(error),
    }
}

/// Begins HTTP/2 on a connection and has a task drive it to its end.
pub(super) async fn begin(
    worker: &Rc<Worker>,
    entry: &ClusterEntry,
    host: &Rc<WorkerHost>,
    stream: Stream,
    counted: Counted,
) -> Result<Rc<Carrier>, ConnectError> {
    let watch = Rc::<Watch>::default();
    let wire = Wire::new(worker.clone(), Rc::default(), stream, Input::default(), true, watch.clone());
    let (send, mut connection) = builder(&entry.config).handshake::<_, Bytes>(wire).await.map_err(|error| {
        ConnectError::Remote(error.into_io().unwrap_or_else(|| std::io::ErrorKind::ConnectionReset.into()))
    })?;
    let carrier = Rc::new(Carrier::new(send, worker.clock.seconds(), watch.clone()));
    let all = &host.pool.multiplexed;
    all.add(carrier.clone());
    let keepalive = connection.ping_pong().and_then(|ping| Keepalive::new(ping, &entry.config.http.http2));
    tokio::task::spawn_local(drive(connection, watch, keepalive, all.clone(), counted));
    Ok(carrier)
}

fn builder(config: &Cluster) -> Builder {
    let options = &config.http.http2;
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(options.initial_stream_window)
        .initial_connection_window_size(options.initial_connection_window)
        .max_header_list_size(
            config.http.max_header_bytes.saturating_add(32 * config.http.max_header_count.min(1 << 16)),
        )
        .initial_max_send_streams(options.max_concurrent_streams as usize)
        .max_send_buffer_size(SEND_BUFFER);
    builder
}

/// Drives a connection to its end: until the server ends it, or nobody needs it any more.
async fn drive(
    mut connection: Connection<Wire, Bytes>,
    watch: Rc<Watch>,
    mut keepalive: Option<Keepalive>,
    all: Rc<Multiplexed>,
    counted: Counted,
) {
    poll_fn(|cx| {
        let ended = Pin::new(&mut connection).poll(cx).is_ready();
        watch.has_written();
        watch.wake_with(cx);
        let dead = keepalive.as_mut().is_some_and(|keepalive| keepalive.is_dead(cx));
        if ended || dead || watch.verdict().is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    watch.going.set(true);
    drop((connection, counted));
    all.wake_one();
}

impl Upstream {
    /// A place on a connection that has one.
    pub(super) fn ride(entry: &ClusterEntry, host: &WorkerHost) -> Option<Upstream> {
        let http = &entry.config.http;
        let capacity =
            Capacity { streams: http.http2.max_concurrent_streams, requests: http.max_requests_per_connection };
        host.pool.multiplexed.take(capacity).map(Upstream::on)
    }

    /// A place on a connection that has just been made.
    pub(super) fn first(host: &WorkerHost, carrier: Rc<Carrier>) -> Upstream {
        Upstream::on(Ride::on(carrier, host.pool.multiplexed.clone()))
    }

    fn on(ride: Ride) -> Upstream {
        Upstream { ride, response: None, outgoing: None, incoming: None, written: 0, sent: true }
    }

    pub(super) fn was_reused(&self) -> bool {
        self.ride.reused
    }

    /// Sends the head. `whole`: nothing follows it but `prefix` bytes, which are at hand.
    pub(super) fn start(&mut self, request: &RequestHead, whole: bool, prefix: usize) -> Result<(), Lost> {
        let request = head::request_to(request).ok_or(Lost::Protocol)?;
        let ended = whole && prefix == 0;
        match self.ride.sender().send_request(request, ended) {
            Ok((response, stream)) => {
                self.response = Some(response);
                self.outgoing = Some(Outgoing::new(stream, ended).on(self.ride.watch()));
                self.sent = prefix == 0;
                Ok(())
            }
            Err(error) => {
                self.ride.give_up();
                Err(lost(&error, true))
            }
        }
    }

    /// Writes the body of a request of our own, as far as that is possible now.
    pub(super) fn poll_whole(&mut self, cx: &mut Context<'_>, body: &[u8]) -> Result<(), Failure> {
        let Some(outgoing) = &mut self.outgoing else { return Err(Failure::Sink) };
        if !self.sent {
            match outgoing.poll_write(cx, Data::Plain(body), &mut self.written, true) {
                Poll::Ready(Ok(())) => self.sent = true,
                Poll::Ready(Err(_)) => return Err(Failure::Sink),
                Poll::Pending => {}
            }
        }
        Ok(())
    }

    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        prefix: &[u8],
        body: &mut Option<Transfer>,
    ) -> Poll<Result<(), Failure>> {
        let Some(outgoing) = &mut self.outgoing else { return Poll::Ready(Err(Failure::Sink)) };
        if !self.sent {
            let written = outgoing.poll_write(cx, Data::Plain(prefix), &mut self.written, body.is_none());
            ready!(written).map_err(|_| Failure::Sink)?;
            self.sent = true;
        }
        let Some(transfer) = body.as_mut().filter(|transfer| !transfer.is_done()) else { return Poll::Ready(Ok(())) };
        let Client { side, worker, info, .. } = client;
        transfer.poll(cx, &mut side.source(), &mut Sink::Http2(outgoing), worker, &info.share)
    }

    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        limits: &Limits,
        to_head: bool,
        response: &mut ResponseHead,
    ) -> Poll<Result<ResponseMeta, Lost>> {
        let Some(future) = &mut self.response else { return Poll::Ready(Err(Lost::Reset)) };
        if let Poll::Ready(Some(Ok(interim))) = future.poll_informational(cx) {
            let (parts, ()) = interim.into_parts();
            let meta = head::response_from(&parts, false, to_head, limits, response);
            return Poll::Ready(meta.ok_or(Lost::Protocol));
        }
        let (parts, body) = match ready!(Pin::new(future).poll(cx)) {
            Ok(response) => response.into_parts(),
            Err(error) => return Poll::Ready(Err(lost(&error, self.ride.is_over()))),
        };
        let meta = head::response_from(&parts, body.is_end_stream(), to_head, limits, response);
        self.incoming = Some(Incoming::new(body).on(self.ride.watch()));
        Poll::Ready(meta.ok_or(Lost::Protocol))
    }

    pub(super) fn is_sending(&self) -> bool {
        !self.sent
    }

    pub(super) fn incoming(&mut self) -> Option<&mut Incoming> {
        self.incoming.as_mut()
    }

    pub(super) fn outgoing(&mut self) -> Option<&mut Outgoing> {
        self.outgoing.as_mut()
    }

    pub(super) fn was_reset(&self) -> bool {
        self.incoming.as_ref().is_some_and(|incoming| incoming.reason.is_some())
    }

    /// The request is over both ways.
    pub(super) fn end(self, worker: &Worker) {
        let Upstream { ride, response, outgoing, incoming, .. } = self;
        drop((response, outgoing, incoming));
        ride.end(worker.clock.seconds());
    }

    /// Nobody wants the response any more.
    pub(super) fn cancel(mut self, worker: &Worker) {
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.reset(Reason::CANCEL);
        }
        self.end(worker);
    }
}

/// What an error says about the request. `going`: the server has said that it takes no more.
fn lost(error: &h2::Error, going: bool) -> Lost {
    match error.reason() {
        Some(Reason::REFUSED_STREAM) => Lost::Refused,
        Some(Reason::PROTOCOL_ERROR) if error.is_reset() && error.is_remote() => Lost::Protocol,
        _ if error.is_go_away() && error.is_remote() && going => Lost::Gone,
        _ if error.is_reset() && error.is_remote() => Lost::Remote,
        _ if error.is_library() => Lost::Protocol,
        _ => Lost::Reset,
    }
}
