//! One attempt at a request: it goes out on a connection, and the head of the response comes back.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use maille_http::ResponseHead;
use maille_http::h1::{Limits, ResponseMeta, parse_response};
use tokio::time::Sleep;

use super::Worker;
use super::buffers::BLOCK;
use super::http::Client;
use super::io::{Input, Stream, poll_write};
use super::transfer::{Failure, Transfer};
use crate::config::Cluster;
use crate::upstream::{Breakers, ConnectError, Counted, Idle, Pool, Turn, WorkerHost, connect};

/// A connection to a host, with a request on it.
pub(crate) struct Upstream {
    pub(crate) stream: Stream,
    pub(crate) input: Input,
    pool: Rc<Pool>,
    counted: Counted,
    requests: u32,
    /// How much of the request's head, and of what goes with it, has been written.
    written: usize,
    /// Whether all of that has been.
    sent: bool,
    /// Whether it carried requests before: then it may have been closed a moment ago without anyone's fault.
    pub(crate) reused: bool,
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
    /// What came was not HTTP.
    Protocol,
    /// The client is gone, or what it sends is no body.
    Client(Failure),
    /// The route's time is over.
    Timeout,
    /// The attempt's time is over.
    TryTimeout,
    /// Nothing has happened for too long.
    Silence,
}

/// What limits the time of an attempt.
#[derive(Default)]
pub(crate) struct Timers {
    pub(crate) route: Option<Pin<Box<Sleep>>>,
    pub(crate) attempt: Option<Pin<Box<Sleep>>>,
}

impl Timers {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, client: &Client) -> Option<Lost> {
        if client.is_silent(cx) {
            return Some(Lost::Silence);
        }
        let over = |timer: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>| {
            timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready())
        };
        if over(&mut self.route, cx) {
            return Some(Lost::Timeout);
        }
        over(&mut self.attempt, cx).then_some(Lost::TryTimeout)
    }
}

impl Upstream {
    /// A connection to a host that is idle.
    #[inline]
    pub(crate) fn idle(host: &WorkerHost) -> Option<Upstream> {
        host.pool.take().map(|idle| Upstream::kept(host, idle))
    }

    /// A connection to a host: a new one, or one that someone else is done with when there may be no more. In vain when
    /// the client goes away or the time is over.
    pub(crate) async fn obtain(
        cluster: &Cluster,
        host: &WorkerHost,
        breakers: Breakers<'_>,
        client: &mut Client,
        body: &Option<Transfer>,
        timers: &mut Timers,
    ) -> Result<Upstream, Unconnected> {
        // Whoever has no connection yet counts as waiting for one, even if it is being made at once.
        let _pending = breakers.pending().ok_or(Unconnected::Overflow)?;
        let mut made = std::pin::pin!(async {
            let counted = match host.pool.wait(&host.host, breakers).await {
                Turn::Given(idle) => return Ok(Upstream::kept(host, idle)),
                Turn::Failed(error) => return Err(error),
                Turn::Open(counted) => counted,
            };
            let stream = connect(cluster, host.host.address).await.inspect_err(|error| host.pool.fail(error))?;
            let pool = host.pool.clone();
            Ok(Upstream {
                stream,
                input: Input::default(),
                pool,
                counted,
                requests: 0,
                written: 0,
                sent: true,
                reused: false,
            })
        });
        poll_fn(|cx| {
            if let Poll::Ready(made) = made.as_mut().poll(cx) {
                return Poll::Ready(made.map_err(Unconnected::Failed));
            }
            if !is_coming(body) && client_is_gone(cx, client) {
                return Poll::Ready(Err(Unconnected::Lost(Lost::Client(Failure::Source))));
            }
            match timers.poll(cx, client) {
                Some(lost) => Poll::Ready(Err(Unconnected::Lost(lost))),
                None => Poll::Pending,
            }
        })
        .await
    }

    fn kept(host: &WorkerHost, idle: Idle) -> Upstream {
        Upstream {
            stream: idle.stream,
            input: Input::default(),
            pool: host.pool.clone(),
            counted: idle.counted,
            requests: idle.requests,
            written: 0,
            sent: true,
            reused: true,
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
        if self.written == 0 {
            self.requests = self.requests.saturating_add(1);
        }
        let worker = client.worker.clone();
        let blocks = &worker.blocks;
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
            loop {
                match self.input.poll_fill(cx, &mut self.stream, blocks, limits.head_bytes + 1) {
                    Poll::Ready(Ok(n)) if n > 0 => match parse_response(self.input.data(), limits, to_head, response) {
                        Ok(Some(meta)) => return Poll::Ready(Ok(meta)),
                        Ok(None) => {}
                        Err(_) => return Poll::Ready(Err(Lost::Protocol)),
                    },
                    Poll::Ready(_) => return Poll::Ready(Err(Lost::Reset)),
                    Poll::Pending => break,
                }
            }
            if !is_coming(body) && client_is_gone(cx, client) {
                return Poll::Ready(Err(Lost::Client(Failure::Source)));
            }
            match timers.poll(cx, client) {
                Some(lost) => Poll::Ready(Err(lost)),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Writes what is left of a request as far as that is possible now; ready when all of it has been.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        head: &[u8],
        body: &mut Option<Transfer>,
    ) -> Poll<Result<(), Failure>> {
        self.sent = false;
        ready!(poll_write(cx, &mut self.stream, head, &mut self.written)).map_err(|_| Failure::Sink)?;
        self.sent = true;
        let Some(transfer) = body.as_mut().filter(|transfer| !transfer.is_done()) else { return Poll::Ready(Ok(())) };
        let Client { stream, input, worker, .. } = client;
        transfer.poll(cx, stream, input, &mut self.stream, &worker.blocks)
    }

    /// Whether some of the request's head, or of what goes with it, has not been written yet.
    pub(crate) fn is_sending(&self) -> bool {
        !self.sent
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
        self.input.consume(len, &worker.blocks);
        if self.input.is_empty() {
            return Ok(None);
        }
        parse_response(self.input.data(), limits, to_head, response).map_err(|_| Lost::Protocol)
    }

    /// Gives the connection back for the next request, which is only right when this one is over both ways.
    pub(crate) fn reuse(mut self, worker: &Worker, max_requests: Option<u32>) {
        let clean = self.input.is_empty() && self.sent;
        self.input.release(&worker.blocks);
        if clean && max_requests.is_none_or(|most| self.requests < most) {
            self.pool.put(Idle {
                stream: self.stream,
                requests: self.requests,
                since: worker.clock.seconds(),
                counted: self.counted,
            });
        }
    }

    /// Closes it.
    pub(crate) fn close(mut self, worker: &Worker) {
        self.input.release(&worker.blocks);
    }
}

/// Whether some of the request's body is still to be sent.
pub(crate) fn is_coming(body: &Option<Transfer>) -> bool {
    body.as_ref().is_some_and(|transfer| !transfer.is_done())
}

/// Whether the client has closed. What it sends before is its next request and is kept for later.
pub(crate) fn client_is_gone(cx: &mut Context<'_>, client: &mut Client) -> bool {
    while !client.input.is_full(BLOCK) {
        match client.input.poll_fill(cx, &mut client.stream, &client.worker.blocks, BLOCK) {
            Poll::Ready(Ok(n)) if n > 0 => {}
            Poll::Ready(_) => return true,
            Poll::Pending => return false,
        }
    }
    false
}
