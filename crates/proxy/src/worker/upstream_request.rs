//! One attempt at a request: it goes out on a connection, and the head of the response comes back.

mod http1;
mod http2;
pub(crate) mod own;

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use maille_http::h1::{Limits, ResponseMeta};
use maille_http::{RequestHead, ResponseHead};

use super::Worker;
use super::body::{Incoming, Sink, Source};
use super::http::Client;
use super::relay::End;
use super::sends;
use super::timers::Timers;
use super::transfer::{Failure, Transfer};
use crate::config::UpstreamProtocol;
use crate::headers::Protocol;
use crate::tls::Carries;
use crate::upstream::{Breakers, ClusterEntry, ConnectError, WorkerHost};

/// A connection to a host, or a stream of one, with a request on it.
pub(crate) enum Upstream {
    Http1(http1::Upstream),
    Http2(Box<http2::Upstream>),
}

/// Why there is no connection for a request.
pub(crate) enum Unconnected {
    Failed(ConnectError),
    /// As many requests wait for a connection as may.
    Overflow,
    /// Something else happened first.
    Lost(Lost),
}

/// Why the head of a response did not come.
#[derive(Debug)]
pub(crate) enum Lost {
    /// The connection ended, after this many bytes of a response.
    Reset,
    /// The server ended the stream.
    Remote,
    /// The server has not looked at the request, and says so.
    Refused,
    /// The same, since it was about to close the connection.
    Gone,
    /// What came was not HTTP.
    Protocol,
    /// The client is gone, or what it sends is no body.
    Client(Failure),
    /// The route's time is over.
    Timeout,
    /// The attempt's time is over.
    TryTimeout,
    /// Nothing has happened for too long in this attempt.
    TrySilence,
    /// It holds more than the worker can afford.
    Overload,
    /// The stream has lasted for as long as it may.
    StreamTimeout,
    /// So has the one to the host.
    UpstreamTimeout,
    /// The request has not come whole in the time it may take.
    RequestTimeout,
    /// Nothing has happened for too long.
    Silence,
}

/// What a cluster's hosts are spoken with.
pub(crate) fn carries(protocol: UpstreamProtocol, client: Protocol) -> Carries {
    match protocol {
        UpstreamProtocol::Downstream if client == Protocol::Http2 => Carries::Http2,
        other => other.into(),
    }
}

impl Upstream {
    /// A connection to a host that is idle, or a place on one that has one.
    #[inline]
    pub(crate) fn idle(entry: &ClusterEntry, host: &WorkerHost, carries: Carries) -> Option<Upstream> {
        if matches!(carries, Carries::Http2 | Carries::AnyHttp)
            && let Some(stream) = http2::Upstream::ride(entry, host)
        {
            return Some(Upstream::of_stream(stream));
        }
        match carries {
            Carries::Http1 | Carries::AnyHttp => {
                host.pool.take().map(|idle| Upstream::Http1(http1::Upstream::kept(host, idle)))
            }
            Carries::Http2 | Carries::Bytes => None,
        }
    }

    /// A connection to a host: a new one, or one that someone else is done with when there may be no more. In vain when
    /// the client goes away or the time is over.
    #[allow(clippy::too_many_arguments, reason = "one place waits for all that may happen meanwhile")]
    pub(crate) async fn obtain(
        entry: &Arc<ClusterEntry>,
        host: &Rc<WorkerHost>,
        breakers: Breakers<'_>,
        carries: Carries,
        client: &mut Client,
        body: &Option<Transfer>,
        timers: &mut Timers,
    ) -> Result<Upstream, Unconnected> {
        // Whoever has no connection yet counts as waiting for one, even if it is being made at once.
        let _pending = breakers.pending().filter(|_| host.pool.may_wait(breakers)).ok_or(Unconnected::Overflow)?;
        let (worker, share) = (client.worker.clone(), client.info.share.clone());
        let mut made = std::pin::pin!(async {
            // A connection is the dearest thing that a request can ask for.
            worker.turns.wait(&share).await;
            if let Some(meanwhile) = Upstream::idle(entry, host, carries) {
                return Ok(meanwhile);
            }
            match carries {
                Carries::Http2 => http2::obtain(&worker, entry, host, breakers).await,
                Carries::Http1 | Carries::AnyHttp => http1::obtain(&worker, entry, host, breakers).await,
                Carries::Bytes => http1::raw(entry, host, breakers).await,
            }
        });
        poll_fn(|cx| {
            if let Poll::Ready(made) = made.as_mut().poll(cx) {
                return Poll::Ready(made.map_err(Unconnected::Failed));
            }
            if !is_coming(body) && client.poll_gone(cx) {
                return Poll::Ready(Err(Unconnected::Lost(Lost::Client(Failure::Source))));
            }
            match timers.poll(cx, client, is_received(body)) {
                Some(lost) => Poll::Ready(Err(Unconnected::Lost(lost))),
                None => Poll::Pending,
            }
        })
        .await
    }

    fn of_stream(stream: http2::Upstream) -> Upstream {
        Upstream::Http2(Box::new(stream))
    }

    pub(crate) fn protocol(&self) -> Protocol {
        match self {
            Upstream::Http1(_) => Protocol::Http11,
            Upstream::Http2(_) => Protocol::Http2,
        }
    }

    /// Whether the connection carried requests before: then it may have been closed a moment ago without anyone's fault.
    pub(crate) fn was_reused(&self) -> bool {
        match self {
            Upstream::Http1(connection) => connection.reused,
            Upstream::Http2(stream) => stream.was_reused(),
        }
    }

    /// Begins a request. `whole`: its head, and what goes with that, is all of it.
    pub(crate) fn start(&mut self, request: &RequestHead, whole: bool, prefix: usize) -> Result<(), Lost> {
        match self {
            Upstream::Http1(connection) => {
                connection.start();
                Ok(())
            }
            Upstream::Http2(stream) => stream.start(request, whole, prefix),
        }
    }

    /// Sends a request and waits for the head of its response. `head` is what is written first, `body` what follows from the client.
    /// Goes on where it was when called again after an interim response.
    #[allow(clippy::too_many_arguments, reason = "one place polls all that one attempt is made of")]
    pub(crate) async fn send(
        &mut self,
        client: &mut Client,
        head: &[u8],
        body: &mut Option<Transfer>,
        limits: &Limits,
        to_head: bool,
        response: &mut ResponseHead,
        timers: &mut Timers,
    ) -> Result<ResponseMeta, Lost> {
        let worker = client.worker.clone();
        if let Upstream::Http1(_) = self {
            sends::others_first(&worker.turns).await;
        }
        // Once writing fails there may still be a response, sent before the server stopped reading.
        let mut writing = true;
        poll_fn(move |cx| {
            if writing {
                match self.poll_send(cx, client, head, body) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(Failure::Sink)) => writing = false,
                    Poll::Ready(Err(failure)) => return Poll::Ready(Err(Lost::Client(failure))),
                    Poll::Pending => {}
                }
            }
            let polled = self.poll_head(cx, &worker, limits, to_head, response);
            if polled.is_ready() {
                return polled;
            }
            if !is_coming(body) && client.poll_gone(cx) {
                return Poll::Ready(Err(Lost::Client(Failure::Source)));
            }
            client.note_held(self.held() + body.as_ref().map_or(0, Transfer::held));
            match timers.poll(cx, client, is_received(body)) {
                Some(lost) => Poll::Ready(Err(lost)),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// How much of what has come from the server is held here.
    pub(crate) fn held(&mut self) -> usize {
        match self {
            Upstream::Http1(connection) => connection.input.held(),
            Upstream::Http2(stream) => stream.incoming().map_or(0, Incoming::held),
        }
    }

    /// Writes what is left of a request as far as that is possible now; ready when all of it has been.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        head: &[u8],
        body: &mut Option<Transfer>,
    ) -> Poll<Result<(), Failure>> {
        match self {
            Upstream::Http1(connection) => connection.poll_send(cx, client, head, body),
            Upstream::Http2(stream) => stream.poll_send(cx, client, head, body),
        }
    }

    /// Whether some of the request's head, or of what goes with it, has not been written yet.
    pub(crate) fn is_sending(&self) -> bool {
        match self {
            Upstream::Http1(connection) => connection.is_sending(),
            Upstream::Http2(stream) => stream.is_sending(),
        }
    }

    /// Writes a request of our own, as far as that is possible now.
    fn poll_whole(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Upstream::Http1(connection) => connection.poll_whole(cx, bytes),
            Upstream::Http2(stream) => stream.poll_whole(cx, bytes),
        }
    }

    /// Waits for the head of a response.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        limits: &Limits,
        to_head: bool,
        response: &mut ResponseHead,
    ) -> Poll<Result<ResponseMeta, Lost>> {
        match self {
            Upstream::Http1(connection) => connection.poll_head(cx, worker, limits, to_head, response),
            Upstream::Http2(stream) => stream.poll_head(cx, limits, to_head, response),
        }
    }

    /// Reads on after an interim response.
    pub(crate) fn parse_again(
        &mut self,
        worker: &Worker,
        len: usize,
        limits: &Limits,
        to_head: bool,
        response: &mut ResponseHead,
    ) -> Result<Option<ResponseMeta>, Lost> {
        match self {
            Upstream::Http1(connection) => connection.parse_again(worker, len, limits, to_head, response),
            Upstream::Http2(_) => Ok(None),
        }
    }

    /// Whether the server ended the stream before its end.
    pub(crate) fn was_reset(&self) -> bool {
        match self {
            Upstream::Http1(_) => false,
            Upstream::Http2(stream) => stream.was_reset(),
        }
    }

    /// Gives the connection back for the next request, which is only right when this one is over both ways.
    pub(crate) fn reuse(self, worker: &Worker, max_requests: Option<u32>) {
        match self {
            Upstream::Http1(connection) => connection.reuse(worker, max_requests),
            Upstream::Http2(stream) => stream.end(worker),
        }
    }

    /// Ends the request, wherever it is.
    pub(crate) fn close(self, worker: &Worker) {
        match self {
            Upstream::Http1(connection) => connection.close(worker),
            Upstream::Http2(stream) => stream.cancel(worker),
        }
    }
}

impl End for Upstream {
    /// Where the response's body comes from, once its head has been read.
    fn source(&mut self) -> Option<Source<'_>> {
        match self {
            Upstream::Http1(connection) => Some(Source::Http1(&mut connection.stream, &mut connection.input)),
            Upstream::Http2(stream) => stream.incoming().map(Source::Http2),
        }
    }

    /// Where a tunnel's bytes go, once there is one.
    fn sink(&mut self) -> Option<Sink<'_>> {
        match self {
            Upstream::Http1(connection) => Some(Sink::Http1(&mut connection.stream)),
            Upstream::Http2(stream) => stream.outgoing().map(Sink::Http2),
        }
    }
}

/// Whether all of the request has come.
pub(crate) fn is_received(body: &Option<Transfer>) -> bool {
    body.as_ref().is_none_or(Transfer::is_received)
}

/// Whether some of the request's body is still to be sent.
pub(crate) fn is_coming(body: &Option<Transfer>) -> bool {
    body.as_ref().is_some_and(|transfer| !transfer.is_done())
}
