//! The way back: a response becomes what the client gets, and is carried there.

use std::borrow::Cow;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use maille_http::h1::{BodyLength, ResponseMeta, Version, response_framing, write_http10};
use maille_http::{HeaderId, Headers};
use maille_telemetry::flags::ResponseFlags;

use super::attempt::{Attempt, Outcome};
use super::outbound::Outbound;
use super::tunnel::{Tunnel, tunnel};
use crate::headers::Protocol;
use crate::worker::body::Sink;
use crate::worker::http::{After, Client, Downstream};
use crate::worker::io::poll_write;
use crate::worker::record::Record;
use crate::worker::relay::End;
use crate::worker::reply::Reply;
use crate::worker::retry::{self, Reset};
use crate::worker::scratch::Scratch;
use crate::worker::text::decimal;
use crate::worker::timers::Timers;
use crate::worker::transfer::{Failure, Trailing, Transfer};
use crate::worker::upstream_request::{Upstream, is_coming, is_received};
use crate::worker::{cors, response};

impl Attempt<'_, '_> {
    /// Sends the response on, if it is not to be tried for a better one.
    #[allow(clippy::too_many_arguments, reason = "the state of one exchange")]
    pub(super) async fn respond(
        &mut self,
        client: &mut Client,
        scratch: &mut Scratch,
        record: &mut Record<'_>,
        outbound: &mut Outbound,
        timers: &mut Timers,
        mut upstream: Upstream,
        mut meta: ResponseMeta,
        took: Option<Duration>,
    ) -> Result<Outcome, Reply> {
        *self.retrying = None;
        if let Some(policy) = self.retry.filter(|policy| retry::on_response(policy, &scratch.response))
            && !self.spoken
            && outbound.can_restart()
        {
            *self.retrying = self.job.retry(record, &self.cluster.metrics, self.breakers, policy);
            if self.retrying.is_some() {
                upstream.close(&client.worker);
                return Ok(Outcome::Refused);
            }
        }
        timers.try_answered();
        if let Upstream::Http1(connection) = &mut upstream {
            connection.input.consume(meta.len, &client.worker.blocks);
        }
        let open = outbound.tunnel.is_open(scratch.response.status, upstream.protocol());
        if scratch.response.status == 101 && !open {
            upstream.close(&client.worker);
            return Ok(Outcome::Failed(Reset::Protocol, Cow::Borrowed("")));
        }
        record.details = Cow::Borrowed("via_upstream");
        if open {
            outbound.tunnel.open(client.protocol(), &scratch.request, &mut scratch.response);
        } else if outbound.tunnel.is_over(&scratch.request, scratch.response.status, upstream.protocol()) {
            // Neither agreed nor refused: what else there is to it stays with the server.
            record.details = Cow::Borrowed("websocket_handshake_unsuccessful");
            scratch.response.headers.remove_id(HeaderId::ContentLength);
            scratch.response.headers.remove_id(HeaderId::ContentType);
            (meta.body, meta.keep_alive) = (BodyLength::Empty, false);
        }
        if !open {
            scratch.response.headers.remove_id(HeaderId::Connection);
            scratch.response.headers.remove_id(HeaderId::Upgrade);
        }
        record.status = scratch.response.status;
        self.headers(client, scratch, record, took);
        if open {
            self.tunnel_head(client, scratch, &outbound.tunnel);
            return Ok(Outcome::Over(tunnel(client, scratch, record, upstream).await));
        }
        if outbound.tunnel != Tunnel::None {
            // What was meant for the tunnel has come all the same.
            record.received += client.unread();
        }
        let coming = outbound.tunnel != Tunnel::None || is_coming(&outbound.body);
        let reply = self.reply_head(client, scratch, &meta, coming);
        let body = &mut outbound.body;
        let mut transfer = match (&upstream, meta.body) {
            (_, BodyLength::Empty) | (Upstream::Http1(_), _) => Transfer::new(meta.body, reply.chunked),
            (Upstream::Http2(_), _) => Transfer::new(BodyLength::UntilClose, reply.chunked),
        };
        transfer = transfer.trailing(Trailing {
            reads: self.entry.config.http.http1.enable_trailers,
            writes: self.job.manager.http1.enable_trailers,
        });
        let mut begun = Ok(());
        match (&mut client.side, upstream.source()) {
            (Downstream::Http1(..), Some(mut source)) => {
                begun = transfer.take_buffered(&mut source, &client.worker.blocks, &mut scratch.downstream);
            }
            (Downstream::Http1(..), None) => {}
            (Downstream::Http2(stream), _) => {
                begun = stream.send_head(&scratch.response, transfer.is_received()).map_err(|_| Failure::Sink);
            }
        }
        let mut written = 0;
        let mut late = None;
        let mut flushing = false;
        let mut sending = is_coming(body) || upstream.is_sending();
        let result = match begun {
            Err(failure) => Err(failure),
            Ok(()) => {
                poll_fn(|cx| {
                    if sending {
                        // What the upstream no longer wants to read is no reason not to hand on what it says.
                        sending = upstream.poll_send(cx, client, &scratch.upstream, body).is_pending();
                    }
                    let polled =
                        poll_respond(cx, client, &mut upstream, &mut transfer, &scratch.downstream, &mut written);
                    if polled.is_pending() {
                        if !flushing && transfer.is_received() {
                            flushing = true;
                            client.limit_flush(self.job.manager);
                        }
                        client.note_held(upstream.held() + transfer.held() + body.as_ref().map_or(0, Transfer::held));
                        late = timers.poll(cx, client, is_received(body));
                        if late.is_some() {
                            return Poll::Ready(Err(Failure::Source));
                        }
                        if !sending && client.poll_gone(cx) {
                            return Poll::Ready(Err(Failure::Sink));
                        }
                    }
                    polled
                })
                .await
            }
        };
        record.sent = transfer.total;
        Ok(Outcome::Over(match result {
            Ok(()) => {
                if meta.keep_alive && !is_coming(body) {
                    upstream.reuse(&client.worker, self.entry.config.http.max_requests_per_connection);
                } else {
                    upstream.close(&client.worker);
                }
                match reply.keep {
                    true => After::KeepAlive,
                    false if outbound.is_received() => After::Close,
                    false => After::Linger,
                }
            }
            Err(failure) => {
                let remote = upstream.was_reset();
                if let (Failure::Malformed | Failure::Trailers(_), Downstream::Http1(..), 0) =
                    (&failure, &client.side, written)
                {
                    // The head was in order, and goes out; in vain if nobody is there to take it.
                    let _ = client.write_all(&scratch.downstream).await;
                }
                // A server that closes in the middle of a body breaks the protocol: it said how much there would be.
                let cut = matches!(upstream, Upstream::Http1(_));
                upstream.close(&client.worker);
                let (flag, why) = match failure {
                    Failure::Sink => (ResponseFlags::default(), ""),
                    Failure::Malformed | Failure::Trailers(_) => {
                        (ResponseFlags::UPSTREAM_PROTOCOL_ERROR, "protocol_error")
                    }
                    Failure::Source if cut => (ResponseFlags::UPSTREAM_PROTOCOL_ERROR, "protocol_error"),
                    Failure::Source if remote => (ResponseFlags::UPSTREAM_REMOTE_RESET, "remote_reset"),
                    Failure::Source => (ResponseFlags::UPSTREAM_CONNECTION_TERMINATION, "connection_termination"),
                };
                match (failure, late) {
                    (_, Some(late)) => {
                        let said = self.job.late(&late, record, true);
                        record.flags.set(said.flags);
                        record.details = said.details;
                    }
                    (Failure::Sink, None) => client.note_gone(record),
                    _ => {
                        record.flags.set(flag);
                        record.details = Cow::Owned(format!("upstream_reset_after_response_started{{{why}}}"));
                    }
                }
                // The client cannot be told but by closing: the response would otherwise look whole.
                After::Close
            }
        }))
    }

    /// Makes the response's head what goes to the client; for HTTP/1 it is written to the scratch's buffer.
    fn reply_head(&self, client: &Client, scratch: &mut Scratch, meta: &ResponseMeta, coming: bool) -> ReplyHead {
        let status = scratch.response.status;
        let to_head = scratch.request.method() == b"HEAD";
        let unknown = matches!(meta.body, BodyLength::UntilClose | BodyLength::Chunked);
        if unknown {
            scratch.response.headers.remove_id(HeaderId::ContentLength);
        } else if meta.body == BodyLength::Empty && !to_head && status != 304 {
            keeps_length(&mut scratch.response.headers, BodyLength::Empty);
        }
        // A route may have taken the length away, or changed it: what is written is framed as it really is.
        let unknown = unknown
            || (matches!(meta.body, BodyLength::Exact(_)) && !keeps_length(&mut scratch.response.headers, meta.body));
        response::finish_headers(client, self.job.manager, scratch);
        scratch.downstream.clear();
        if let Downstream::Http2(_) = client.side {
            return ReplyHead { keep: false, chunked: false };
        }
        let old_client = self.job.meta.version == Version::Http10;
        let length = match unknown {
            true if old_client => BodyLength::UntilClose,
            true => BodyLength::Chunked,
            false => meta.body,
        };
        // Were the request still coming after its response, nobody could tell where the next one begins; nor after a
        // CONNECT without a tunnel.
        let keep = self.job.meta.keep_alive
            && !coming
            && scratch.request.method() != b"CONNECT"
            && length != BodyLength::UntilClose
            && !response::must_close(client, self.job.manager);
        let has_length = scratch.response.headers.has(HeaderId::ContentLength);
        scratch.response.write(&mut scratch.downstream);
        if old_client {
            write_http10(&mut scratch.downstream);
        }
        if old_client && keep {
            scratch.downstream.extend_from_slice(b"connection: keep-alive\r\n");
        }
        response_framing(&mut scratch.downstream, status, to_head, length, has_length, !keep);
        response::header_case(self.job.manager, &mut scratch.downstream, Some(&scratch.response.headers));
        ReplyHead { keep, chunked: length == BodyLength::Chunked }
    }

    /// Makes the head that opens a tunnel what goes to the client.
    fn tunnel_head(&self, client: &Client, scratch: &mut Scratch, tunnel: &Tunnel) {
        scratch.response.headers.remove_id(HeaderId::ContentLength);
        response::finish_headers(client, self.job.manager, scratch);
        scratch.downstream.clear();
        if client.protocol() != Protocol::Http2 {
            scratch.response.write(&mut scratch.downstream);
            if *tunnel == Tunnel::Upgrade && !scratch.response.headers.has(HeaderId::Connection) {
                scratch.downstream.extend_from_slice(b"connection: upgrade\r\n");
            }
            scratch.downstream.extend_from_slice(b"\r\n");
        }
    }

    /// The router's own headers and the route's mutations, in Envoy's order.
    /// `took`: how long the response took; nobody measures one that came before the request was whole.
    fn headers(&self, client: &Client, scratch: &mut Scratch, record: &Record, took: Option<Duration>) {
        let head = &mut scratch.response;
        if let Some(took) = took.filter(|_| !self.options.suppress_envoy_headers) {
            let mut digits = [0; 20];
            let millis = decimal(took.as_millis() as u64, &mut digits);
            head.headers.set_id(HeaderId::XEnvoyUpstreamServiceTime, millis);
        }
        if self.job.host.attempt_count_in_response {
            head.headers.set_id(HeaderId::XEnvoyAttemptCount, decimal(record.attempts.into(), &mut [0; 20]));
        }
        for cookie in self.cookies {
            head.headers.append_id(HeaderId::SetCookie, cookie);
        }
        for (name, value) in &record.added {
            head.headers.append(name, value);
        }
        let mutations = &self.job.forward.destination(self.job.random).response;
        if !mutations.is_empty() {
            let stream = record.stream(&client.info, &client.worker.hostname);
            mutations.apply_to_response(head, &scratch.request, &stream, &mut scratch.mutations);
        }
        if let (Some(origin), Some(policy)) = (&self.job.origin, &self.job.route.cors) {
            cors::mark(policy, origin, head);
        }
    }
}

/// How a response is framed for the client.
struct ReplyHead {
    /// Whether the connection goes on afterwards.
    keep: bool,
    /// Whether the body goes in chunks.
    chunked: bool,
}

/// Carries a response on: the head, which an HTTP/2 stream has had already, then the body.
fn poll_respond(
    cx: &mut Context<'_>,
    client: &mut Client,
    upstream: &mut Upstream,
    transfer: &mut Transfer,
    head: &[u8],
    written: &mut usize,
) -> Poll<Result<(), Failure>> {
    let Client { side, worker, info, .. } = client;
    let mut sink = match side {
        Downstream::Http1(stream, _) => {
            ready!(poll_write(cx, stream, head, written)).map_err(|_| Failure::Sink)?;
            Sink::Http1(stream)
        }
        Downstream::Http2(stream) => match stream.outgoing() {
            Some(outgoing) => Sink::Http2(outgoing),
            None => return Poll::Ready(Err(Failure::Sink)),
        },
    };
    match upstream.source() {
        Some(mut source) => transfer.poll(cx, &mut source, &mut sink, worker, &info.share),
        None => Poll::Ready(Ok(())),
    }
}

/// Whether a message still says how long its body is. A length that is not the body's own is corrected: whoever reads
/// on would take the rest, or the next message, for something else.
pub(super) fn keeps_length(headers: &mut Headers, body: BodyLength) -> bool {
    let Some(said) = headers.get(HeaderId::ContentLength) else { return false };
    let own = match body {
        BodyLength::Exact(n) => n,
        _ => 0,
    };
    let mut digits = [0; 20];
    let own_text = decimal(own, &mut digits);
    if said != own_text && std::str::from_utf8(said).ok().and_then(|text| text.parse().ok()) != Some(own) {
        headers.set_id(HeaderId::ContentLength, own_text);
    }
    true
}
