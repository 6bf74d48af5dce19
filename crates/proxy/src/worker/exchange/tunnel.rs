//! Requests that ask for a tunnel: another protocol on the connection, or CONNECT. Once the server has agreed, bytes go both ways as they come; before,
//! not one does.

use std::task::Context;

use maille_http::{HeaderId, RequestHead, ResponseHead};

use crate::headers::Protocol;
use crate::worker::SILENT_SECONDS;
use crate::worker::http::{After, Client, Downstream};
use crate::worker::record::Record;
use crate::worker::relay::Relay;
use crate::worker::scratch::Scratch;
use crate::worker::upstream_request::Upstream;

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
    let mut after = After::Close;
    let begun = match &mut client.side {
        Downstream::Http1(..) => client.write_all(&scratch.downstream).await,
        Downstream::Http2(stream) => stream.send_head(&scratch.response, false),
    };
    if begun.is_ok() {
        let Client { side, worker, info, registered, .. } = &mut *client;
        let slot = &registered.slot;
        // It stays for a while when what let it in is not in force any more.
        let ended = |cx: &mut Context<'_>| {
            if slot.is_outdated() {
                slot.ends_by(worker.clock.seconds().saturating_add(SILENT_SECONDS));
            }
            slot.poll_closing(cx)
        };
        // A connection that carries a tunnel has no half of it left when one side closes it (RFC 9110 §9.3.6); a stream has (RFC 9113 §8.5).
        let mut relay = match side {
            Downstream::Http1(..) => Relay::as_one(),
            Downstream::Http2(_) => Relay::of_bytes(),
        };
        relay.run(side, &mut upstream, worker, &info.share, idle, ended).await;
        let (received, sent) = relay.totals();
        record.received += received;
        record.sent += sent;
        if relay.was_left() {
            client.note_gone(record);
        } else {
            after = After::Linger;
        }
    }
    upstream.close(&client.worker);
    after
}
