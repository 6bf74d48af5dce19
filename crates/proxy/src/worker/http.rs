//! A client's connection that carries HTTP, whatever its version, and what a request knows of it.

use std::borrow::Cow;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::Reason;
use maille_http::ResponseHead;
use maille_http::h1::BodyLength;
use maille_telemetry::flags::ResponseFlags;
use maille_telemetry::metrics::HttpMetrics;

use super::body::{Data, Sink, Source};
use super::buffers::BLOCK;
use super::connection::ConnectionInfo;
use super::http2::ClientStream;
use super::io::{Input, Stream, poll_write};
use super::record::Record;
use super::registry::Registered;
use super::relay::End;
use super::transfer::Transfer;
use super::{Worker, gate, http1, http2};
use crate::config::{Codec, HttpManager};
use crate::headers::Protocol;

/// The client's side of a request: a connection of HTTP/1, or one stream of a connection of HTTP/2.
pub(crate) struct Client {
    pub(crate) worker: Rc<Worker>,
    pub(crate) side: Downstream,
    pub(crate) info: Rc<ConnectionInfo>,
    /// Its count on this thread is not that which all threads share.
    #[allow(clippy::redundant_allocation, reason = "the outer count is this thread's own")]
    pub(crate) manager: Rc<Arc<HttpManager>>,
    /// The second of the worker's clock in which the connection began.
    pub(crate) born: u32,
    /// Requests so far on the connection.
    pub(crate) requests: u32,
    pub(crate) metrics: Rc<HttpMetrics>,
    /// How long a request may be without activity, in seconds; `u32::MAX` is for ever.
    pub(crate) stream_idle: u32,
    /// The body of the request at work, where it has been looked at before it is known where it goes.
    pub(crate) ahead: Option<Box<Transfer>>,
    pub(super) registered: Registered,
}

/// How the client is spoken with.
pub(crate) enum Downstream {
    Http1(Stream, Input),
    Http2(Box<ClientStream>),
}

/// What to do with the connection after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// Read the next request.
    KeepAlive,
    /// Close it: the client knows, or is gone.
    Close,
    /// Close it once the client has had time to read what was sent, since it may still be sending.
    Linger,
}

/// Serves a connection on a task of its own. Whoever had it `registered` so far need not any more.
pub(crate) fn start(
    worker: &Rc<Worker>,
    stream: Stream,
    input: Input,
    manager: &Arc<HttpManager>,
    info: ConnectionInfo,
    registered: Option<Registered>,
) {
    let client = Box::new(Client {
        born: worker.clock.seconds(),
        worker: worker.clone(),
        side: Downstream::Http1(stream, input),
        manager: Rc::new(manager.clone()),
        requests: 0,
        metrics: worker.http_metrics(&manager.stat_prefix),
        stream_idle: u32::MAX,
        ahead: None,
        registered: registered.unwrap_or_else(|| worker.register(&info.listener)),
        info: Rc::new(info),
    });
    tokio::task::spawn_local(serve(client));
}

/// Serves a connection to its end.
async fn serve(mut client: Box<Client>) {
    if let Err(refusal) = gate::admits(&client.info, &client.info.chain) {
        tracing::debug!(remote = %client.info.remote, details = refusal.details, "a policy refuses the connection");
        return client.release();
    }
    let active = Active::of(&client);
    let http1 = match client.manager.codec {
        Codec::Http1 => true,
        Codec::Http2 => false,
        Codec::Auto => !client.speaks_http2(),
    };
    if http1 {
        match http1::serve(client).await {
            Some(it_speaks_http2) => client = it_speaks_http2,
            None => return,
        }
    }
    active.0.downstream_cx_http2_total().inc();
    // What such a connection needs, others have no room for.
    Box::pin(http2::serve(client)).await;
}

/// Counts a connection for as long as it lives.
struct Active(Rc<HttpMetrics>);

impl Active {
    fn of(client: &Client) -> Active {
        let metrics = client.metrics.clone();
        metrics.downstream_cx_total().inc();
        if client.info.tls.is_some() {
            metrics.downstream_cx_ssl_total().inc();
        }
        metrics.downstream_cx_active().inc();
        Active(metrics)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.downstream_cx_active().dec();
        self.0.downstream_cx_destroy().inc();
    }
}

impl End for Downstream {
    fn source(&mut self) -> Option<Source<'_>> {
        Some(Downstream::source(self))
    }

    fn sink(&mut self) -> Option<Sink<'_>> {
        Downstream::sink(self)
    }
}

impl Downstream {
    /// Where the request's body comes from.
    pub(crate) fn source(&mut self) -> Source<'_> {
        match self {
            Downstream::Http1(stream, input) => Source::Http1(stream, input),
            Downstream::Http2(stream) => Source::Http2(&mut stream.incoming),
        }
    }

    /// The body of a request whose head says that it has one.
    pub(crate) fn body(&self, length: BodyLength) -> Transfer {
        match self {
            Downstream::Http1(..) => Transfer::new(length, false),
            Downstream::Http2(_) => Transfer::new(BodyLength::UntilClose, false),
        }
    }

    /// Where the response's body goes; on HTTP/2 once the head has been sent.
    pub(crate) fn sink(&mut self) -> Option<Sink<'_>> {
        match self {
            Downstream::Http1(stream, _) => Some(Sink::Http1(stream)),
            Downstream::Http2(stream) => stream.outgoing().map(Sink::Http2),
        }
    }
}

impl Client {
    /// Puts down how much the request at work holds, now that it waits.
    pub(crate) fn note_held(&mut self, others: usize) {
        let own = match &mut self.side {
            Downstream::Http1(_, input) => input.held(),
            Downstream::Http2(stream) => stream.incoming.held(),
        };
        self.registered.slot.hold(own + others);
    }

    /// Gives back what the client has sent and nobody has read.
    pub(super) fn release(&mut self) {
        if let Downstream::Http1(_, input) = &mut self.side {
            input.release(&self.worker.blocks);
        }
    }

    /// Whether ALPN has settled on HTTP/2.
    fn speaks_http2(&self) -> bool {
        matches!(&self.side, Downstream::Http1(stream, _) if stream.alpn() == Some(b"h2"))
    }

    /// Whether the client has closed. What it sends before is its next request and is kept for later.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> bool {
        let (stream, input) = match &mut self.side {
            Downstream::Http1(stream, input) => (stream, input),
            Downstream::Http2(stream) => return stream.poll_gone(cx),
        };
        while !input.is_full(BLOCK) {
            match input.poll_fill(cx, stream, &self.worker.blocks, BLOCK) {
                Poll::Ready(Ok(n)) if n > 0 => {}
                Poll::Ready(_) => return true,
                Poll::Pending => return false,
            }
        }
        false
    }

    /// How many bytes have come on a connection of HTTP/1 that nobody has taken.
    pub(crate) fn unread(&self) -> u64 {
        match &self.side {
            Downstream::Http1(_, input) => input.len() as u64,
            Downstream::Http2(_) => 0,
        }
    }

    /// The version of HTTP that the client speaks.
    pub(crate) fn protocol(&self) -> Protocol {
        match self.side {
            Downstream::Http1(..) => Protocol::Http11,
            Downstream::Http2(_) => Protocol::Http2,
        }
    }

    /// Writes a whole buffer to a connection of HTTP/1; in vain when the client takes nothing of it for as long as a request may be without activity.
    pub(crate) async fn write_all(&mut self, buffer: &[u8]) -> io::Result<()> {
        let mut written = 0;
        poll_fn(|cx| {
            let Downstream::Http1(stream, _) = &mut self.side else { return Poll::Ready(Ok(())) };
            match poll_write(cx, stream, buffer, &mut written) {
                Poll::Pending if self.is_silent(cx) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                polled => polled,
            }
        })
        .await
    }

    /// Writes a whole response to a stream of HTTP/2; in vain likewise.
    pub(crate) async fn send_whole(&mut self, head: &ResponseHead, body: &[u8]) -> io::Result<()> {
        if let Downstream::Http2(stream) = &mut self.side {
            stream.send_head(head, body.is_empty())?;
        }
        let mut written = 0;
        poll_fn(|cx| {
            let Downstream::Http2(stream) = &mut self.side else { return Poll::Ready(Ok(())) };
            let Some(outgoing) = stream.outgoing() else { return Poll::Ready(Ok(())) };
            match outgoing.poll_write(cx, Data::Plain(body), &mut written, true) {
                Poll::Pending if self.is_silent(cx) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                polled => polled,
            }
        })
        .await
    }

    /// Has the client send the body that it holds back.
    pub(crate) async fn send_continue(&mut self) -> io::Result<()> {
        match &mut self.side {
            Downstream::Http1(..) => self.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await,
            Downstream::Http2(stream) => stream.send_interim(&ResponseHead::new(100)),
        }
    }

    /// Puts on record that the client has gone.
    pub(crate) fn note_gone(&self, record: &mut Record<'_>) {
        let (flag, details) = match &self.side {
            Downstream::Http2(stream) if stream.was_reset() == Some(Reason::REFUSED_STREAM) => {
                (ResponseFlags::DOWNSTREAM_REMOTE_RESET, "http2.remote_refuse")
            }
            Downstream::Http2(stream) if stream.was_reset().is_some() => {
                (ResponseFlags::DOWNSTREAM_REMOTE_RESET, "http2.remote_reset")
            }
            _ => (ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION, "downstream_remote_disconnect"),
        };
        record.flags.set(flag);
        record.details = Cow::Borrowed(details);
    }

    /// Says how long the request at work may be without activity.
    pub(crate) fn limit_silence(&mut self, limit: Option<Duration>) {
        self.stream_idle = seconds(limit);
    }

    /// What is left of a response is only to be taken by the client, which may take its own time for that where streams have one.
    pub(crate) fn limit_flush(&mut self, manager: &HttpManager) {
        if let (Downstream::Http2(_), Some(limit)) = (&self.side, manager.timeouts.stream_flush) {
            self.limit_silence(Some(limit));
        }
    }

    /// How long the request at work may be without activity.
    pub(crate) fn silence_limit(&self) -> Option<Duration> {
        (self.stream_idle != u32::MAX).then(|| Duration::from_secs(self.stream_idle.into()))
    }

    /// Whether the request at work has been without activity for too long. Being asked is activity: nobody asks who was not woken.
    #[inline]
    pub(crate) fn is_silent(&self, cx: &mut Context<'_>) -> bool {
        let closing = self.registered.slot.poll_closing(cx);
        if self.stream_idle == u32::MAX {
            return false;
        }
        if closing {
            return true;
        }
        self.registered.slot.set(false, self.worker.clock.seconds().saturating_add(self.stream_idle));
        false
    }
}

/// In ticks of the clock, none of them too few; `None` is for ever.
pub(super) fn seconds(limit: Option<Duration>) -> u32 {
    limit.map_or(u32::MAX, |d| u32::try_from(d.as_secs().saturating_add(1)).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::super::registry::Slot;
    use super::*;

    fn future<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    /// Ten thousand of them are most of a gateway's memory.
    #[test]
    fn a_connection_that_waits_holds_no_more_than_waiting_needs() {
        let parts = [future(serve), size_of::<Client>(), size_of::<ConnectionInfo>(), size_of::<Slot>()];
        assert!(parts.iter().sum::<usize>() <= 768, "{parts:?} bytes");
    }
}
