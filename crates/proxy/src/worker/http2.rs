//! A client's HTTP/2 connection: one task for it, one for each of its streams, each of which is a request like any other.

pub(crate) mod frames;
pub(crate) mod head;
pub(crate) mod hpack;
mod keepalive;
pub(crate) mod streams;
pub(crate) mod wire;

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use maille_http::ResponseHead;
use maille_http::h1::Limits;
use maille_telemetry::metrics::HttpMetrics;

use super::Worker;
use super::body::{Incoming, Outgoing};
use super::connection::ConnectionInfo;
use super::desk::{Order, Served};
use super::exchange::abandoned;
use super::http::{Client, Downstream, seconds};
use super::registry::Slot;
use super::reply::Malformed;
use super::turns::{Allowance, BEGINNINGS};
use crate::config::HttpManager;
pub(crate) use keepalive::Keepalive;
use wire::{Watch, Wire};

/// How long a client may take to begin.
const HANDSHAKE: Duration = Duration::from_secs(60);
/// How long a client that was told to go away for good has to hear it.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long a client may leave what is left to write when the configuration sets no limit.
const FLUSH: Duration = Duration::from_secs(300);
/// How much of one stream may wait to be written to the client.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that a client resets at once and that nobody has looked at yet.
const MAX_UNSEEN_RESETS: usize = 250;
/// Streams that are reset for what the client did wrong.
const MAX_ERRORS: usize = 500;
/// From so many streams on, no more than half may be reset before they were answered (Envoy's).
const RESETS_COUNT_FROM: u64 = 500;
/// From so many on, clients that reset half of their streams or more wait between two of them.
const MANY_RESETS: u64 = 16;
/// A stream that was reset after this much time was not reset at once (Envoy's).
const AT_ONCE: Duration = Duration::from_secs(2);

/// One stream of a client's connection.
pub(crate) struct ClientStream {
    pub(crate) incoming: Incoming,
    respond: SendResponse<Bytes>,
    outgoing: Option<Outgoing>,
    /// The connection.
    watch: Rc<Watch>,
    /// The code of the client's reset, where that was not found out by reading.
    reset: Option<Reason>,
}

impl ClientStream {
    /// Whether the client has given up; if not, the task is woken when it does.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> bool {
        let polled = match &mut self.outgoing {
            Some(outgoing) => outgoing.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        };
        match polled {
            Poll::Pending => return false,
            Poll::Ready(reason) => self.reset = reason.ok(),
        }
        true
    }

    /// The code of the client's reset, if it has reset the stream.
    pub(crate) fn was_reset(&self) -> Option<Reason> {
        self.reset.or(self.incoming.reason)
    }

    /// Sends the head of the response; the last of it, if it has `ended` with that.
    pub(crate) fn send_head(&mut self, head: &ResponseHead, ended: bool) -> io::Result<()> {
        let sent = self.respond.send_response(head::response_to(head), ended);
        self.outgoing = Some(Outgoing::new(sent.map_err(|_| io::ErrorKind::BrokenPipe)?, ended).on(self.watch.clone()));
        Ok(())
    }

    /// Sends the head of an interim response.
    pub(crate) fn send_interim(&mut self, head: &ResponseHead) -> io::Result<()> {
        self.respond.send_informational(head::response_to(head)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Where the response's body goes, once its head has been sent.
    pub(crate) fn outgoing(&mut self) -> Option<&mut Outgoing> {
        self.outgoing.as_mut()
    }

    /// Ends the stream, if it has not come to its end.
    pub(crate) fn reset(&mut self, reason: Reason) {
        match &mut self.outgoing {
            Some(outgoing) if outgoing.is_ended() => {}
            Some(outgoing) => outgoing.reset(reason),
            None => self.respond.send_reset(reason),
        }
    }
}

/// What the streams of a connection share.
struct Shared {
    worker: Rc<Worker>,
    info: Rc<ConnectionInfo>,
    metrics: Rc<HttpMetrics>,
    #[allow(clippy::redundant_allocation, reason = "as with a client")]
    manager: Rc<Arc<HttpManager>>,
    slot: Rc<Slot>,
    watch: Rc<Watch>,
    /// Streams at work, ended, and ended by a reset before there was an answer.
    active: Cell<u32>,
    over: Cell<u64>,
    reset: Cell<u64>,
    /// Whether the client has been told to go.
    leaving: Cell<bool>,
    /// The second of the worker's clock in which it is told to at the latest.
    life: u32,
}

/// What came next on a connection.
#[allow(
    clippy::large_enum_variant,
    reason = "it is taken apart where it is made; a box would be one more allocation for each request"
)]
enum Next {
    Stream(http::Request<RecvStream>, SendResponse<Bytes>),
    /// It has been idle, or alive, for as long as it may; or the proxy is being drained.
    Leave,
    /// The client has done what ends it.
    Condemned(Reason),
    End,
}

/// Serves a connection to its end.
pub(crate) async fn serve(client: Box<Client>) {
    let Client { worker, side: Downstream::Http1(stream, input), info, manager, metrics, registered, .. } = *client
    else {
        return;
    };
    let slot = registered.slot.clone();
    let watch = Rc::<Watch>::default();
    let wire = Wire::new(worker.clone(), info.share.clone(), stream, input, false, watch.clone());
    slot.set(true, worker.clock.seconds().saturating_add(seconds(Some(HANDSHAKE))));
    let mut handshake = Box::pin(builder(&manager).handshake::<_, Bytes>(wire));
    let begun = poll_fn(|cx| match slot.poll_closing(cx) {
        true => Poll::Ready(None),
        false => std::pin::Pin::new(&mut handshake).poll(cx).map(Result::ok),
    });
    let Some(mut connection) = begun.await else { return };
    drop(handshake);
    let (active, over, reset, leaving) = Default::default();
    let life = worker.clock.seconds().saturating_add(seconds(manager.timeouts.max_connection_duration));
    let shared = Rc::new(Shared { life, worker, info, metrics, manager, slot, watch, active, over, reset, leaving });
    shared.idle();
    drive(&mut connection, &shared).await;
}

fn builder(manager: &HttpManager) -> Builder {
    let options = &manager.http2;
    let mut builder = Builder::new();
    builder
        .initial_window_size(options.initial_stream_window)
        .initial_connection_window_size(options.initial_connection_window)
        .max_concurrent_streams(options.max_concurrent_streams)
        // HTTP/2 counts 32 bytes for each field beside its text; Envoy's limits are on either alone.
        .max_header_list_size(manager.max_header_bytes.saturating_add(32 * manager.max_header_count.min(1 << 16)))
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_UNSEEN_RESETS)
        .max_local_error_reset_streams(Some(MAX_ERRORS));
    if options.allow_connect {
        builder.enable_connect_protocol();
    }
    builder
}

/// Takes streams as they come, until the client or we have had enough.
async fn drive(connection: &mut Connection<Wire, Bytes>, shared: &Rc<Shared>) {
    let direction = shared.info.listener.direction;
    let limit = shared.manager.max_requests_per_connection;
    let mut requests = 0u32;
    let mut condemned = false;
    let mut stalled = false;
    let mut allowance = Allowance::default();
    let mut keepalive = connection.ping_pong().and_then(|ping| Keepalive::new(ping, &shared.manager.http2));
    loop {
        if !shared.leaving.get() && (shared.worker.is_draining(direction) || limit.is_some_and(|most| requests >= most))
        {
            shared.leaving.set(true);
            connection.graceful_shutdown();
        }
        let next = poll_fn(|cx| {
            ready!(allowance.poll(cx, &shared.worker.turns, &shared.info.share, shared.beginnings()));
            let polled = connection.poll_accept(cx);
            allowance.count(&polled);
            match polled {
                Poll::Ready(Some(Ok((request, respond)))) => return Poll::Ready(Next::Stream(request, respond)),
                Poll::Ready(_) => return Poll::Ready(Next::End),
                Poll::Pending => {}
            }
            shared.watch.has_written();
            if shared.watch.is_stalled() != std::mem::replace(&mut stalled, shared.watch.is_stalled())
                && shared.active.get() == 0
            {
                shared.idle();
            }
            shared.watch.wake_with(cx);
            match shared.watch.verdict() {
                Some(reason) if !condemned => return Poll::Ready(Next::Condemned(reason)),
                _ => {}
            }
            if keepalive.as_mut().is_some_and(|keepalive| keepalive.is_dead(cx)) {
                return Poll::Ready(Next::End);
            }
            let outdated = shared.slot.is_outdated() && !shared.leaving.get();
            if shared.slot.poll_closing(cx) || outdated { Poll::Ready(Next::Leave) } else { Poll::Pending }
        });
        match next.await {
            Next::Stream(request, respond) => {
                requests = requests.saturating_add(1);
                tokio::task::spawn_local(serve_stream(shared.clone(), shared.order(requests, request, respond)));
            }
            Next::Leave if shared.leaving.get() && shared.active.get() == 0 => break,
            Next::Leave => {
                shared.leaving.set(true);
                shared.slot.reopen();
                connection.graceful_shutdown();
                // Whoever does not answer is not waited for longer than this.
                shared.deadline(Some(shared.manager.timeouts.drain));
            }
            Next::Condemned(reason) => {
                condemned = true;
                shared.leaving.set(true);
                shared.metrics.downstream_cx_protocol_error().inc();
                connection.abrupt_shutdown(reason);
                shared.slot.reopen();
                shared.deadline(Some(FAREWELL));
            }
            Next::End => break,
        }
    }
}

impl Shared {
    /// Nothing is at work: the connection is let go when that stays so.
    fn idle(&self) {
        match self.leaving.get() {
            true => self.deadline(Some(self.manager.timeouts.drain)),
            // Whoever does not take what is left to write is not waited for as long as who asks nothing.
            false if self.watch.is_stalled() => self.deadline(Some(self.flush_limit())),
            false => self.deadline(self.manager.timeouts.idle),
        }
    }

    /// How long a client may leave what is left to write.
    fn flush_limit(&self) -> Duration {
        let timeouts = &self.manager.timeouts;
        timeouts.stream_flush.or(timeouts.stream_idle).unwrap_or(FLUSH)
    }

    fn deadline(&self, limit: Option<Duration>) {
        let deadline = self.worker.clock.seconds().saturating_add(seconds(limit));
        let life = if self.leaving.get() { u32::MAX } else { self.life };
        self.slot.set(true, deadline.min(life));
    }

    /// A stream begins: the request that is on it.
    fn order(&self, number: u32, request: http::Request<RecvStream>, respond: SendResponse<Bytes>) -> Order {
        self.active.set(self.active.get() + 1);
        self.deadline(None);
        let (parts, body) = request.into_parts();
        let ended = body.is_end_stream();
        let stream = ClientStream {
            incoming: Incoming::new(body).on(self.watch.clone()),
            respond,
            outgoing: None,
            watch: self.watch.clone(),
            reset: None,
        };
        let mut client = Box::new(Client {
            born: self.worker.clock.seconds(),
            worker: self.worker.clone(),
            side: Downstream::Http2(Box::new(stream)),
            info: self.info.clone(),
            manager: self.manager.clone(),
            requests: number,
            metrics: self.metrics.clone(),
            stream_idle: u32::MAX,
            ahead: None,
            registered: self.worker.register(&self.info.listener),
        });
        client.limit_silence(self.manager.timeouts.stream_idle);
        let limits = Limits {
            head_bytes: self.manager.max_header_bytes as usize,
            fields: self.manager.max_header_count as usize,
            ..Limits::ENVOYS
        };
        let mut scratch = self.worker.scratches.take();
        let request = head::request_from(&parts, ended, &limits, &mut scratch.request);
        let bad = |bad: head::Bad| Malformed { status: bad.status(), details: bad.details(), body: "" };
        Order { client, scratch, request: request.map_err(bad) }
    }

    /// How many streams may be begun in one turn: one, by clients that reset a lot of them.
    fn beginnings(&self) -> u32 {
        let resets = self.reset.get() >= MANY_RESETS && self.reset.get() * 2 >= self.over.get();
        if resets { 1 } else { BEGINNINGS }
    }

    /// A stream is over; clients that only begin streams to reset them are sent away, as Envoy does.
    fn end(&self, reset_at_once: bool) {
        self.active.set(self.active.get() - 1);
        if self.active.get() == 0 {
            self.watch.forget_received();
            self.idle();
        }
        self.over.set(self.over.get() + 1);
        self.reset.set(self.reset.get() + u64::from(reset_at_once));
        if self.reset.get() * 2 >= self.over.get().max(RESETS_COUNT_FROM) {
            if self.watch.verdict().is_none() {
                self.metrics.downstream_rq_too_many_premature_resets().inc();
            }
            self.watch.condemn(Reason::ENHANCE_YOUR_CALM);
        }
    }
}

/// Serves one stream.
async fn serve_stream(shared: Rc<Shared>, mut order: Order) {
    let start = Instant::now();
    // Whoever has given up before anybody looked at the request costs no server anything.
    let gone = order.request.is_ok() && poll_fn(|cx| Poll::Ready(order.client.poll_gone(cx))).await;
    let (mut client, scratch) = if gone {
        abandoned(&order.client, &order.client.manager, &order.scratch);
        (order.client, order.scratch)
    } else {
        let Served { client, scratch, .. } = shared.worker.desks.serve(order).await;
        (client, scratch)
    };
    let unanswered = scratch.response.status == 0;
    shared.worker.scratches.give(scratch);
    let mut reset = false;
    if let Downstream::Http2(stream) = &mut client.side {
        reset = stream.was_reset().is_some();
        stream.reset(Reason::INTERNAL_ERROR);
    }
    drop(client);
    shared.end(reset && unanswered && start.elapsed() < AT_ONCE);
}
