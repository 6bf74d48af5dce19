//! A request as it goes upstream: its head, what is there of its body, and what is still to come; made anew for each try.

use std::time::Instant;

use maille_http::HeaderId;
use maille_http::h1::{self, BodyLength, LAST_CHUNK, request_framing};

use super::respond::keeps_length;
use super::tunnel::Tunnel;
use crate::config::HeaderCase;
use crate::worker::http::Client;
use crate::worker::mirror::Copies;
use crate::worker::record::Record;
use crate::worker::reply::Reply;
use crate::worker::reply::malformed;
use crate::worker::scratch::Scratch;
use crate::worker::transfer::{Replay, Trailing, Transfer, frame, unframe};
use crate::worker::upstream_request::is_received;

/// A request as it goes upstream. Its bytes are in [`Scratch::upstream`].
pub(super) struct Outbound {
    /// The tunnel that it asks for.
    pub(super) tunnel: Tunnel,
    /// How HTTP/1 frames its body.
    framing: BodyLength,
    /// For which version of HTTP it has been made; `None` is not yet.
    http2: Option<bool>,
    /// How HTTP/1 spells its fields' names.
    case: HeaderCase,
    /// Bytes of the head; what follows them is body.
    head: usize,
    /// The body that is streamed after the head. One that is there already goes with the head and leaves nothing.
    pub(super) body: Option<Transfer>,
}

impl Outbound {
    /// `replay`: how much of the body is kept for another try.
    pub(super) fn new(
        client: &mut Client,
        scratch: &mut Scratch,
        length: BodyLength,
        tunnel: Tunnel,
        case: HeaderCase,
        trailing: Trailing,
        replay: Option<usize>,
    ) -> Outbound {
        let framing = framing(scratch, length);
        let mut body = None;
        if tunnel == Tunnel::None && length != BodyLength::Empty {
            let ahead = client.ahead.take().map(|transfer| *transfer);
            let mut transfer = ahead.unwrap_or_else(|| client.side.body(length));
            transfer = transfer.trailing(trailing);
            transfer.replay = replay.map(|limit| Replay { sent: Vec::new(), limit });
            body = Some(transfer);
        }
        Outbound { tunnel, framing, case, http2: None, head: 0, body }
    }

    /// Has its body copied as it comes; a request without one is copied at once.
    pub(super) fn copy_to(&mut self, mut copies: Option<Box<Copies>>) {
        copies.iter_mut().for_each(|copies| copies.framing = self.framing);
        match &mut self.body {
            Some(body) => body.copy_to(copies),
            None => copies.into_iter().for_each(Copies::send),
        }
    }

    /// Makes it for a version of HTTP. What was sent of the body before is there again.
    pub(super) fn compose(
        &mut self,
        http2: bool,
        client: &mut Client,
        scratch: &mut Scratch,
        record: &mut Record<'_>,
    ) -> Result<(), Reply> {
        let out = &mut scratch.upstream;
        let chunked = !http2 && self.framing == BodyLength::Chunked;
        let Client { side, worker, .. } = client;
        let ahead = self.body.as_mut().and_then(Transfer::take_ahead);
        // Data that has lost its framing.
        let mut bare = ahead.is_some();
        let mut kept = ahead.unwrap_or_default();
        let again = self.http2.replace(http2);
        if let Some(was_http2) = again {
            bare = true;
            kept = out.split_off(self.head.min(out.len()));
            if !was_http2 && self.framing == BodyLength::Chunked {
                unframe(&mut kept);
            }
            if let Some(transfer) = &mut self.body {
                transfer.restart(&mut side.source(), chunked, &worker.blocks, &mut kept);
            }
        } else if let Some(transfer) = &mut self.body {
            transfer.set_chunked(chunked);
        }
        out.clear();
        if !http2 {
            scratch.request.write(out);
            if self.tunnel == Tunnel::Upgrade && !scratch.request.headers.has(HeaderId::Connection) {
                out.extend_from_slice(b"connection: upgrade\r\n");
            }
            let has_length = scratch.request.headers.has(HeaderId::ContentLength);
            request_framing(out, scratch.request.method(), self.framing, has_length);
            match self.case {
                HeaderCase::Lower => {}
                HeaderCase::Proper => h1::proper_case(out),
                HeaderCase::Preserve => h1::original_case(out, &scratch.request.headers),
            }
        }
        self.head = out.len();
        // Nothing says that a body is over which was whole already but that it is said here.
        let whole = self.body.as_ref().is_none_or(Transfer::is_received);
        match chunked && bare {
            true => {
                frame(out, &kept);
                match &self.body {
                    Some(transfer) if whole => transfer.last_chunk(out),
                    None => out.extend_from_slice(LAST_CHUNK),
                    Some(_) => {}
                }
            }
            false => out.extend_from_slice(&kept),
        }
        let Some(transfer) = &mut self.body else { return Ok(()) };
        let taken = transfer.take_buffered(&mut side.source(), &worker.blocks, out);
        record.received = transfer.total;
        taken.map_err(|failure| malformed(&failure))?;
        if transfer.is_received() {
            record.request_end = Some(Instant::now());
        }
        if transfer.is_framed() {
            self.body = None;
        }
        Ok(())
    }

    /// For which version of HTTP it has been made.
    pub(super) fn is_http2(&self) -> bool {
        self.http2 == Some(true)
    }

    /// How much of the body goes with the head.
    pub(super) fn prefix(&self, scratch: &Scratch) -> usize {
        scratch.upstream.len() - self.head
    }

    /// Whether nothing more of the request comes.
    pub(super) fn is_received(&self) -> bool {
        self.tunnel == Tunnel::None && is_received(&self.body)
    }

    /// Whether all that was sent can be sent again.
    pub(super) fn can_restart(&self) -> bool {
        self.body.as_ref().is_none_or(Transfer::can_restart)
    }
}

/// How HTTP/1 frames the body on its way upstream: as it came, unless the route has taken its length away.
fn framing(scratch: &mut Scratch, length: BodyLength) -> BodyLength {
    let headers = &mut scratch.request.headers;
    match length {
        BodyLength::Exact(_) if !keeps_length(headers, length) => BodyLength::Chunked,
        BodyLength::Chunked => {
            headers.remove_id(HeaderId::ContentLength);
            BodyLength::Chunked
        }
        BodyLength::Empty if headers.has(HeaderId::ContentLength) => {
            keeps_length(headers, BodyLength::Empty);
            BodyLength::Empty
        }
        as_it_came => as_it_came,
    }
}
