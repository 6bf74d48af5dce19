//! Requests that ask for a tunnel: another protocol on the connection, or CONNECT. Once the server has agreed, bytes go both ways as they come; before,
//! not one does.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use maille_http::h1::BodyLength;
use maille_http::{HeaderId, RequestHead, ResponseHead};

use crate::headers::Protocol;
use crate::worker::body::{Sink, Source};
use crate::worker::http::{After, Client, Downstream};
use crate::worker::io::poll_shutdown;
use crate::worker::record::Record;
use crate::worker::scratch::Scratch;
use crate::worker::transfer::Transfer;
use crate::worker::turns::Share;
use crate::worker::upstream_request::Upstream;
use crate::worker::{SILENT_SECONDS, Worker};

/// Which tunnel a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tunnel {
    None,
    /// Another protocol: `Upgrade` in HTTP/1, extended CONNECT in HTTP/2.
    Upgrade,
    Connect,
}

impl Tunnel {
    /// Whether a response opens it.
    pub(super) fn is_open(self, status: u16, upstream: Protocol) -> bool {
        match self {
            Tunnel::None => false,
            Tunnel::Upgrade if upstream == Protocol::Http2 => (200..300).contains(&status),
            Tunnel::Upgrade => status == 101,
            Tunnel::Connect => (200..300).contains(&status),
        }
    }

    /// Whether a response ends a websocket's handshake without saying either yes or no (RFC 6455 knows 101 and errors).
    pub(super) fn is_over(self, request: &RequestHead, status: u16, upstream: Protocol) -> bool {
        let websocket = || {
            let kind = request.headers.get(HeaderId::Upgrade);
            kind.is_some_and(|kind| kind.eq_ignore_ascii_case(b"websocket"))
        };
        self == Tunnel::Upgrade && upstream != Protocol::Http2 && status < 400 && websocket()
    }

    /// Makes the response that opens it what the client's version of HTTP has for that.
    pub(super) fn open(self, client: Protocol, request: &RequestHead, response: &mut ResponseHead) {
        if self != Tunnel::Upgrade {
            return;
        }
        if client == Protocol::Http2 {
            response.status = 200;
            return;
        }
        response.status = 101;
        if let Some(kind) = request.headers.get(HeaderId::Upgrade)
            && !response.headers.has(HeaderId::Upgrade)
        {
            response.headers.set_id(HeaderId::Upgrade, kind);
        }
    }
}

/// Opens a tunnel and carries bytes both ways until one side ends it.
pub(super) async fn tunnel(
    client: &mut Client,
    scratch: &mut Scratch,
    record: &mut Record<'_>,
    mut upstream: Upstream,
) -> After {
    let idle = client.silence_limit();
    let begun = match &mut client.side {
        Downstream::Http1(..) => client.write_all(&scratch.downstream).await,
        Downstream::Http2(stream) => stream.send_head(&scratch.response, false),
    };
    if begun.is_ok() {
        let (received, sent, gone) = carry(client, &mut upstream, idle).await;
        if gone {
            client.note_gone(record);
        }
        record.received += received;
        record.sent += sent;
    }
    upstream.close(&client.worker);
    After::Close
}

/// Carries bytes both ways until both directions have ended, one has failed, nothing has come for too long, or what let it in has not
/// been in force for long enough; how many went each way, and whether it was the client who left.
async fn carry(client: &mut Client, upstream: &mut Upstream, idle: Option<Duration>) -> (u64, u64, bool) {
    let mut there = Direction::new();
    let mut back = Direction::new();
    let mut moved = 0;
    let mut gone = false;
    let mut timer = idle.map(|limit| (limit, Box::pin(tokio::time::sleep(limit))));
    poll_fn(|cx| {
        let Client { side, worker, info, registered, .. } = &mut *client;
        if registered.slot.poll_closing(cx) {
            return Poll::Ready(());
        }
        if registered.slot.is_outdated() {
            registered.slot.ends_by(worker.clock.seconds().saturating_add(SILENT_SECONDS));
        }
        let a = match upstream.sink() {
            Some(mut sink) => there.poll(cx, &mut side.source(), &mut sink, worker, &info.share),
            None => Poll::Ready(Err(())),
        };
        let b = match (upstream.source(), side.sink()) {
            (Some(mut source), Some(mut sink)) => back.poll(cx, &mut source, &mut sink, worker, &info.share),
            _ => Poll::Ready(Err(())),
        };
        if let Some((limit, timer)) = &mut timer {
            let total = there.transfer.total + back.transfer.total;
            if std::mem::replace(&mut moved, total) != total {
                timer.as_mut().reset(tokio::time::Instant::now() + *limit);
            }
            if timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
        }
        gone |= a.is_ready() && b.is_pending();
        match (a, b) {
            (Poll::Ready(Err(())), _) | (_, Poll::Ready(Err(()))) => Poll::Ready(()),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    })
    .await;
    (there.transfer.total, back.transfer.total, gone)
}

struct Direction {
    transfer: Transfer,
    ended: bool,
}

impl Direction {
    fn new() -> Direction {
        Direction { transfer: Transfer::new(BodyLength::UntilClose, false), ended: false }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Source<'_>,
        sink: &mut Sink<'_>,
        worker: &Worker,
        share: &Rc<Share>,
    ) -> Poll<Result<(), ()>> {
        if !self.ended {
            ready!(self.transfer.poll(cx, source, sink, worker, share)).map_err(|_| ())?;
            if let Sink::Http1(stream) = sink {
                ready!(poll_shutdown(cx, stream)).map_err(|_| ())?;
            }
            self.ended = true;
        }
        Poll::Ready(Ok(()))
    }
}
