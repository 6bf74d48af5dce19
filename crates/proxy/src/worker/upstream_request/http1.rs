//! A request on an HTTP/1 connection to a host.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use maille_http::ResponseHead;
use maille_http::h1::{Limits, ResponseMeta, parse_response};

use super::{Lost, Upstream as Either, http2};
use crate::tls::Carries;
use crate::upstream::{Breakers, ClusterEntry, ConnectError, Counted, Idle, Pool, Purpose, Turn, WorkerHost, connect};
use crate::worker::Worker;
use crate::worker::body::Sink;
use crate::worker::http::Client;
use crate::worker::io::{Input, Stream, poll_write};
use crate::worker::transfer::{Failure, Transfer};

/// A connection with a request on it.
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
    pub(super) reused: bool,
}

/// An idle connection, or a new one.
pub(super) async fn obtain(
    worker: &Rc<Worker>,
    entry: &Arc<ClusterEntry>,
    host: &Rc<WorkerHost>,
    breakers: Breakers<'_>,
) -> Result<Either, ConnectError> {
    let counted = match host.pool.wait(&host.host, breakers).await {
        Turn::Given(idle) => return Ok(Either::Http1(Upstream::kept(host, idle))),
        Turn::Failed(error) => return Err(error),
        Turn::Open(counted) => counted,
    };
    let stream = connect(&entry.config, host, &host.purpose).await.inspect_err(|error| host.pool.fail(error))?;
    if stream.alpn() == Some(b"h2") {
        let carrier = http2::begin(worker, entry, host, stream, counted).await?;
        return Ok(Either::of_stream(http2::Upstream::first(host, carrier)));
    }
    Ok(Either::Http1(Upstream::new(host, stream, counted)))
}

/// A connection that carries whatever comes.
pub(super) async fn raw(
    entry: &Arc<ClusterEntry>,
    host: &Rc<WorkerHost>,
    breakers: Breakers<'_>,
) -> Result<Either, ConnectError> {
    let Some(counted) = host.pool.open(&host.host, breakers) else {
        return Err(ConnectError::Local(std::io::ErrorKind::QuotaExceeded.into()));
    };
    let purpose = Purpose { carries: Carries::Bytes, ..host.purpose.clone() };
    let stream = connect(&entry.config, host, &purpose).await?;
    Ok(Either::Http1(Upstream::new(host, stream, counted)))
}

impl Upstream {
    fn new(host: &WorkerHost, stream: Stream, counted: Counted) -> Upstream {
        Upstream {
            stream,
            input: Input::default(),
            pool: host.pool.clone(),
            counted,
            requests: 0,
            written: 0,
            sent: true,
            reused: false,
        }
    }

    pub(super) fn kept(host: &WorkerHost, idle: Idle) -> Upstream {
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

    pub(super) fn start(&mut self) {
        self.requests = self.requests.saturating_add(1);
    }

    /// Writes a request of our own, as far as that is possible now.
    pub(super) fn poll_whole(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Result<(), Failure> {
        self.sent = false;
        match poll_write(cx, &mut self.stream, bytes, &mut self.written) {
            Poll::Ready(Ok(())) => self.sent = true,
            Poll::Ready(Err(_)) => return Err(Failure::Sink),
            Poll::Pending => {}
        }
        Ok(())
    }

    pub(super) fn poll_send(
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
        let Client { side, worker, info, .. } = client;
        transfer.poll(cx, &mut side.source(), &mut Sink::Http1(&mut self.stream), worker, &info.share)
    }

    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        limits: &Limits,
        to_head: bool,
        response: &mut ResponseHead,
    ) -> Poll<Result<ResponseMeta, Lost>> {
        loop {
            let before = self.input.len();
            match ready!(self.input.poll_fill(cx, &mut self.stream, &worker.blocks, limits.head_bytes + 1)) {
                Ok(n) if n > 0 => {}
                // Half a head is no HTTP; none at all may be anybody's fault.
                _ if before > 0 => return Poll::Ready(Err(Lost::Protocol)),
                _ => return Poll::Ready(Err(Lost::Reset)),
            }
            // A head ends with a line; without a new one there is nothing new to find, except that it is too long.
            let all = self.input.data();
            if before > 0 && all.len() <= limits.head_bytes && !all[before..].contains(&b'\n') {
                continue;
            }
            match parse_response(all, limits, to_head, response) {
                Ok(Some(meta)) => return Poll::Ready(Ok(meta)),
                Ok(None) => {}
                Err(_) => return Poll::Ready(Err(Lost::Protocol)),
            }
        }
    }

    pub(super) fn is_sending(&self) -> bool {
        !self.sent
    }

    pub(super) fn parse_again(
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

    pub(super) fn reuse(mut self, worker: &Worker, max_requests: Option<u32>) {
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

    pub(super) fn close(mut self, worker: &Worker) {
        self.input.release(&worker.blocks);
        worker.closing.close((self.stream, self.counted));
    }
}
