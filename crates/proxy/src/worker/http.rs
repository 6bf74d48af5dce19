//! A client's HTTP/1 connection: one request after the other, each read, answered, forgotten.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use maille_http::h1::{self, Limits, RequestMeta, parse_request};
use maille_telemetry::metrics::HttpMetrics;

use super::connection::ConnectionInfo;
use super::exchange::exchange;
use super::io::{Input, Stream, poll_shutdown, poll_write};
use super::registry::Registered;
use super::scratch::Scratch;
use super::{Worker, reply};
use crate::config::HttpManager;

/// Receiving a head may not take longer than this when the configuration sets no limit: a client that sends a byte a minute would keep a connection for ever.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// The client's side of a connection.
pub(crate) struct Client {
    pub(crate) worker: Rc<Worker>,
    pub(crate) stream: Stream,
    pub(crate) input: Input,
    pub(crate) info: ConnectionInfo,
    /// Requests so far.
    pub(crate) requests: u32,
    pub(crate) metrics: Rc<HttpMetrics>,
    /// How long a request may be without activity, in seconds; `u32::MAX` is for ever.
    pub(crate) stream_idle: u32,
    registered: Registered,
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

/// What came next on a connection.
enum Next {
    Request(Box<Scratch>, RequestMeta),
    Bad(Box<Scratch>, h1::Error),
    End,
}

/// Serves a connection to its end.
pub(crate) async fn serve(worker: Rc<Worker>, stream: Stream, manager: Arc<HttpManager>, info: ConnectionInfo) {
    let registered = worker.connections.add(info.listener.direction);
    let metrics = worker.http_metrics(&manager.stat_prefix);
    metrics.connections().inspect(|c| c.inc());
    let _active = Active::of(&metrics);
    let mut client = Client {
        worker,
        stream,
        input: Input::default(),
        info,
        requests: 0,
        metrics: metrics.clone(),
        stream_idle: u32::MAX,
        registered,
    };
    let limits = Limits {
        head_bytes: manager.max_header_bytes as usize,
        fields: manager.max_header_count as usize,
        http10: manager.http1.accept_http10,
    };
    loop {
        let after = match client.next(&manager, &limits).await {
            Next::Request(mut scratch, meta) => {
                client.requests = client.requests.saturating_add(1);
                client.registered.slot.set(false, u32::MAX);
                client.limit_silence(manager.timeouts.stream_idle);
                let after = exchange(&mut client, &manager, &mut scratch, meta).await;
                client.worker.scratches.give(scratch);
                after
            }
            Next::Bad(mut scratch, error) => {
                client.limit_silence(manager.timeouts.stream_idle);
                reply::refuse(&mut client, &manager, &mut scratch, error).await;
                client.worker.scratches.give(scratch);
                After::Linger
            }
            Next::End => After::Close,
        };
        match after {
            After::KeepAlive => {}
            After::Close => break,
            After::Linger => {
                client.linger(manager.timeouts.delayed_close.unwrap_or(Duration::from_secs(1))).await;
                break;
            }
        }
    }
    client.input.release(&client.worker.blocks);
}

/// Counts a connection for as long as it lives.
struct Active<'a>(&'a HttpMetrics);

impl Active<'_> {
    fn of(metrics: &HttpMetrics) -> Active<'_> {
        metrics.active_connections().inspect(|gauge| gauge.inc());
        Active(metrics)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.active_connections().inspect(|gauge| gauge.dec());
    }
}

impl Client {
    /// Waits for the next request. While nothing comes, the connection holds no memory but its own.
    async fn next(&mut self, manager: &HttpManager, limits: &Limits) -> Next {
        let mut scratch: Option<Box<Scratch>> = None;
        let mut parse = !self.input.is_empty();
        self.set_deadline(manager, self.input.is_empty());
        loop {
            if parse {
                let memory = scratch.get_or_insert_with(|| self.worker.scratches.take());
                match parse_request(self.input.data(), limits, &mut memory.request) {
                    Ok(Some(meta)) => match scratch.take() {
                        Some(scratch) => return Next::Request(scratch, meta),
                        None => return Next::End,
                    },
                    Ok(None) => {}
                    Err(error) => return Next::Bad(scratch.take().unwrap_or_default(), error),
                }
            }
            let before = self.input.len();
            let got = poll_fn(|cx| {
                if self.registered.slot.poll_closing(cx) {
                    return Poll::Ready(None);
                }
                // One byte more than a head may have, so that a head that is too large is seen to be.
                let limit = limits.head_bytes + 1;
                Poll::Ready(ready!(self.input.poll_fill(cx, &mut self.stream, &self.worker.blocks, limit)).ok())
            });
            match got.await {
                None | Some(0) => {
                    if let Some(scratch) = scratch {
                        self.worker.scratches.give(scratch);
                    }
                    return Next::End;
                }
                Some(_) => {
                    if before == 0 {
                        self.set_deadline(manager, false);
                    }
                    // A head ends with a line; without a new one there is nothing new to find, except that it is too long.
                    parse = before == 0
                        || self.input.len() > limits.head_bytes
                        || self.input.data()[before..].contains(&b'\n');
                }
            }
        }
    }

    fn set_deadline(&self, manager: &HttpManager, idle: bool) {
        let limit = match idle {
            true => manager.timeouts.idle,
            false => manager.timeouts.request_headers.or(Some(HEAD_TIMEOUT)),
        };
        let deadline = self.worker.clock.seconds().saturating_add(seconds(limit));
        self.registered.slot.set(idle, deadline);
    }

    /// Says how long the request at work may be without activity.
    pub(crate) fn limit_silence(&mut self, limit: Option<Duration>) {
        self.stream_idle = seconds(limit);
    }

    /// How long the request at work may be without activity.
    pub(crate) fn silence_limit(&self) -> Option<Duration> {
        (self.stream_idle != u32::MAX).then(|| Duration::from_secs(self.stream_idle.into()))
    }

    /// Whether the request at work has been without activity for too long. Being asked is activity: nobody asks who was not woken.
    #[inline]
    pub(crate) fn is_silent(&self, cx: &mut Context<'_>) -> bool {
        if self.stream_idle == u32::MAX {
            return false;
        }
        if self.registered.slot.poll_closing(cx) {
            return true;
        }
        self.registered.slot.set(false, self.worker.clock.seconds().saturating_add(self.stream_idle));
        false
    }

    /// Writes a whole buffer; in vain when the client takes nothing of it for as long as a request may be without activity.
    pub(crate) async fn write_all(&mut self, buffer: &[u8]) -> io::Result<()> {
        let mut written = 0;
        poll_fn(|cx| match poll_write(cx, &mut self.stream, buffer, &mut written) {
            Poll::Pending if self.is_silent(cx) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            polled => polled,
        })
        .await
    }

    /// Ends our side and reads on for a while: closing with bytes unread would reset the connection, and the client might never see our answer.
    async fn linger(&mut self, limit: Duration) {
        self.input.release(&self.worker.blocks);
        let until_gone = poll_fn(|cx| {
            let _ = poll_shutdown(cx, &mut self.stream);
            loop {
                match ready!(self.input.poll_fill(cx, &mut self.stream, &self.worker.blocks, 0)) {
                    Ok(0) | Err(_) => return Poll::Ready(()),
                    Ok(_) => self.input.release(&self.worker.blocks),
                }
            }
        });
        let _ = tokio::time::timeout(limit, until_gone).await;
    }
}

/// In ticks of the clock, none of them too few; `None` is for ever.
fn seconds(limit: Option<Duration>) -> u32 {
    limit.map_or(u32::MAX, |d| u32::try_from(d.as_secs().saturating_add(1)).unwrap_or(u32::MAX))
}
