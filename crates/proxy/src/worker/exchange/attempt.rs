//! One attempt at a request, and the way back of its response.

use std::borrow::Cow;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use maille_http::h1::{BodyLength, Limits, ResponseMeta, Version, response_framing};
use maille_http::{HeaderId, Headers};
use maille_telemetry::flags::ResponseFlags;

use super::job::{Job, malformed};
use super::outbound::Outbound;
use crate::config::{HttpManager, RetryPolicy, RouterOptions};
use crate::headers::Protocol;
use crate::upstream::outlier::{self, grpc_to_http};
use crate::upstream::{Breakers, ClusterEntry, ConnectError, Permit, WorkerCluster, WorkerHost};
use crate::worker::body::Sink;
use crate::worker::http::{After, Client, Downstream};
use crate::worker::io::poll_write;
use crate::worker::record::Record;
use crate::worker::reply::{Reply, is_grpc};
use crate::worker::retry::{self, Reset};
use crate::worker::scratch::Scratch;
use crate::worker::timers::Timers;
use crate::worker::transfer::{Failure, Transfer};
use crate::worker::upstream_request::{Lost, Unconnected, Upstream, is_coming, is_received};
use crate::worker::{cors, response, tcp};

/// How an attempt ended.
pub(super) enum Outcome {
    /// The connection goes on like this.
    Over(After),
    /// There is no response.
    Failed(Reset, Cow<'static, str>),
    /// A response that the policy wants thrown away.
    Refused,
}

/// Interim responses to one request: whoever sends more of them has no end in mind.
const MAX_INTERIMS: u32 = 100;

/// One attempt of a [`Job`].
pub(super) struct Attempt<'a, 'e> {
    pub(super) job: &'a Job<'a>,
    pub(super) host: &'a Rc<WorkerHost>,
    pub(super) cluster: &'a WorkerCluster,
    pub(super) entry: &'e Arc<ClusterEntry>,
    pub(super) breakers: Breakers<'e>,
    pub(super) retry: Option<&'a RetryPolicy>,
    pub(super) options: RouterOptions,
    pub(super) cookies: &'a [Vec<u8>],
    /// Whether the host is known to speak HTTP/2.
    pub(super) http2: bool,
    pub(super) fresh: bool,
    pub(super) was_reused: bool,
    /// What makes this one of the cluster's retries.
    pub(super) retrying: &'a mut Option<Permit<'e>>,
}

impl Attempt<'_, '_> {
    pub(super) async fn run(
        &mut self,
        client: &mut Client,
        scratch: &mut Scratch,
        record: &mut Record<'_>,
        outbound: &mut Outbound,
        timers: &mut Timers,
    ) -> Result<Outcome, Reply> {
        let _counted = Permit::count(&self.host.host.load.requests);
        let overflow = || Ok(Outcome::Failed(Reset::Overflow, Cow::Borrowed("")));
        let idle = if self.fresh { None } else { Upstream::idle(self.entry, self.host, self.http2) };
        let obtained = match idle {
            Some(upstream) => Ok(upstream),
            None => {
                let body = &outbound.body;
                Upstream::obtain(self.entry, self.host, self.breakers, self.http2, client, body, timers).await
            }
        };
        let mut upstream = match obtained {
            Ok(upstream) => upstream,
            Err(Unconnected::Overflow) => {
                record.host = None;
                return overflow();
            }
            Err(Unconnected::Failed(error)) => {
                self.cluster.metrics.connect_failures().inspect(|counter| counter.inc());
                let (reset, failure) = describe(error, self.host.host.address);
                return Ok(Outcome::Failed(reset, failure));
            }
            Err(Unconnected::Lost(lost)) => return self.lost(lost, client, record, timers),
        };
        let Some(_active) = self.breakers.request() else {
            upstream.reuse(&client.worker, None);
            return overflow();
        };
        timers.try_connected(self.entry.config.http.max_stream_duration);
        self.entry.report(&self.host.host, outlier::Outcome::Connected);
        self.was_reused = upstream.was_reused();
        record.upstream_protocol = Some(upstream.protocol());
        if !self.was_reused {
            self.cluster.metrics.connections().inspect(|counter| counter.inc());
        }
        let config = &self.entry.config;
        let limits = Limits {
            head_bytes: config.http.max_header_bytes as usize,
            fields: config.http.max_header_count as usize,
            http10: true,
        };
        let to_head = scratch.request.method() == b"HEAD";
        let http2 = upstream.protocol() == Protocol::Http2;
        if http2 != outbound.is_http2() {
            outbound.compose(http2, client, scratch, record)?;
        }
        let sent_at = Instant::now();
        if let Err(lost) =
            upstream.start(&scratch.request, outbound.body.is_none() && !outbound.upgrade, outbound.prefix(scratch))
        {
            upstream.close(&client.worker);
            return self.lost(lost, client, record, timers);
        }
        let body = &mut outbound.body;
        let Scratch { upstream: bytes, response, .. } = scratch;
        let mut got = upstream.send(client, bytes, body, &limits, to_head, response, timers).await;
        let mut interims = 0;
        // Interim responses go on to the client as they come.
        while let Ok(meta) = &got
            && (100..200).contains(&response.status)
            && response.status != 101
        {
            let len = meta.len;
            interims += 1;
            if interims > MAX_INTERIMS {
                got = Err(Lost::Protocol);
                break;
            }
            if interim(client, self.job.manager, response, &mut scratch.downstream).await.is_err() {
                got = Err(Lost::Client(Failure::Source));
                break;
            }
            got = match upstream.parse_again(&client.worker, len, &limits, to_head, response) {
                Ok(Some(meta)) => Ok(meta),
                Ok(None) => upstream.send(client, bytes, body, &limits, to_head, response, timers).await,
                Err(lost) => Err(lost),
            };
        }
        match got {
            Ok(meta) => {
                record.response_start = Some(Instant::now());
                self.report(scratch);
                self.respond(client, scratch, record, outbound, timers, upstream, meta, sent_at).await
            }
            Err(lost) => {
                upstream.close(&client.worker);
                self.lost(lost, client, record, timers)
            }
        }
    }

    fn lost(&self, lost: Lost, client: &Client, record: &mut Record<'_>, timers: &Timers) -> Result<Outcome, Reply> {
        match lost {
            Lost::Reset => Ok(Outcome::Failed(Reset::Terminated, Cow::Borrowed(""))),
            Lost::Remote => Ok(Outcome::Failed(Reset::Remote, Cow::Borrowed(""))),
            Lost::Refused => Ok(Outcome::Failed(Reset::Refused, Cow::Borrowed(""))),
            Lost::Gone => Ok(Outcome::Failed(Reset::Gone, Cow::Borrowed(""))),
            Lost::Protocol => Ok(Outcome::Failed(Reset::Protocol, Cow::Borrowed(""))),
            Lost::TryTimeout => Ok(Outcome::Failed(Reset::TryTimeout, Cow::Borrowed(""))),
            Lost::TrySilence => Ok(Outcome::Failed(Reset::TrySilence, Cow::Borrowed(""))),
            Lost::Client(Failure::Malformed) => Err(malformed()),
            Lost::Client(_) => {
                client.note_gone(record);
                Ok(Outcome::Over(After::Close))
            }
            late => {
                if let Lost::Timeout = late {
                    self.entry.report(&self.host.host, outlier::Outcome::TimedOut);
                }
                Err(self.job.late(&late, record, timers.is_received()))
            }
        }
    }

    /// Puts the response on the host's record; gRPC has its errors elsewhere than in the status.
    #[inline]
    fn report(&self, scratch: &Scratch) {
        if self.host.host.monitor.is_none() {
            return;
        }
        let response = &scratch.response;
        let is_grpc = is_grpc(&scratch.request);
        let grpc = is_grpc.then(|| response.headers.get(HeaderId::GrpcStatus)).flatten();
        let status = match &self.entry.config.http.errors {
            Some(errors) if !is_grpc => match errors.matches(response) {
                true => response.status.max(500),
                false => 200,
            },
            _ => grpc.map_or(response.status, grpc_to_http),
        };
        self.entry.report(&self.host.host, outlier::Outcome::Response(status));
    }

    /// Sends the response on, if it is not to be tried for a better one.
    #[allow(clippy::too_many_arguments, reason = "the state of one exchange")]
    async fn respond(
        &mut self,
        client: &mut Client,
        scratch: &mut Scratch,
        record: &mut Record<'_>,
        outbound: &mut Outbound,
        timers: &mut Timers,
        mut upstream: Upstream,
        meta: ResponseMeta,
        sent_at: Instant,
    ) -> Result<Outcome, Reply> {
        *self.retrying = None;
        if let Some(policy) = self.retry.filter(|policy| retry::on_response(policy, &scratch.response))
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
        let status = scratch.response.status;
        let switching = status == 101;
        if switching && !outbound.upgrade {
            upstream.close(&client.worker);
            return Ok(Outcome::Failed(Reset::Protocol, Cow::Borrowed("")));
        }
        record.status = status;
        record.details = Cow::Borrowed("via_upstream");
        self.headers(client, scratch, record, sent_at);
        let reply = self.reply_head(client, scratch, &meta, is_coming(&outbound.body));
        if switching {
            return Ok(Outcome::Over(self.tunnel(client, scratch, record, upstream).await));
        }
        let body = &mut outbound.body;
        let mut transfer = match (&upstream, meta.body) {
            (_, BodyLength::Empty) | (Upstream::Http1(_), _) => Transfer::new(meta.body, reply.chunked),
            (Upstream::Http2(_), _) => Transfer::new(BodyLength::UntilClose, reply.chunked),
        };
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
                match (reply.keep, body.as_ref().is_none_or(Transfer::is_received)) {
                    (true, _) => After::KeepAlive,
                    (false, true) => After::Close,
                    (false, false) => After::Linger,
                }
            }
            Err(failure) => {
                let remote = upstream.was_reset();
                upstream.close(&client.worker);
                let (flag, why) = match failure {
                    Failure::Sink => (ResponseFlags::default(), ""),
                    Failure::Malformed => (ResponseFlags::UPSTREAM_PROTOCOL_ERROR, "protocol_error"),
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
        // Were the request still coming after its response, nobody could tell where the next one begins.
        let keep = self.job.meta.keep_alive
            && !coming
            && length != BodyLength::UntilClose
            && !response::must_close(client, self.job.manager);
        let has_length = scratch.response.headers.has(HeaderId::ContentLength);
        scratch.response.write(&mut scratch.downstream);
        if status == 101 {
            scratch.downstream.extend_from_slice(b"connection: upgrade\r\n\r\n");
        } else {
            if old_client && keep {
                scratch.downstream.extend_from_slice(b"connection: keep-alive\r\n");
            }
            response_framing(&mut scratch.downstream, status, to_head, length, has_length, !keep);
        }
        ReplyHead { keep, chunked: length == BodyLength::Chunked }
    }

    /// The router's own headers and the route's mutations, in Envoy's order.
    fn headers(&self, client: &Client, scratch: &mut Scratch, record: &Record, sent_at: Instant) {
        let head = &mut scratch.response;
        if !self.options.suppress_envoy_headers {
            let mut digits = [0; 20];
            let millis = decimal(sent_at.elapsed().as_millis() as u64, &mut digits);
            head.headers.set_id(HeaderId::XEnvoyUpstreamServiceTime, millis);
        }
        if self.job.host.attempt_count_in_response {
            head.headers.set_id(HeaderId::XEnvoyAttemptCount, record.attempts.to_string().as_bytes());
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

    /// From here on the connections carry something else, both ways, until one side ends.
    async fn tunnel(
        &self,
        client: &mut Client,
        scratch: &mut Scratch,
        record: &mut Record<'_>,
        mut upstream: Upstream,
    ) -> After {
        let idle = client.silence_limit();
        if client.write_all(&scratch.downstream).await.is_ok()
            && let Client { side: Downstream::Http1(stream, input), worker, .. } = client
            && let Upstream::Http1(connection) = &mut upstream
        {
            let other = (&mut connection.stream, &mut connection.input);
            let (received, sent) = tcp::copy_both(stream, input, other.0, other.1, &worker.blocks, idle).await;
            record.received += received;
            record.sent += sent;
        }
        upstream.close(&client.worker);
        After::Close
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
    let Client { side, worker, .. } = client;
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
        Some(mut source) => transfer.poll(cx, &mut source, &mut sink, &worker.blocks),
        None => Poll::Ready(Ok(())),
    }
}

/// Sends an interim response on.
async fn interim(
    client: &mut Client,
    manager: &HttpManager,
    response: &maille_http::ResponseHead,
    out: &mut Vec<u8>,
) -> std::io::Result<()> {
    if response.status == 100 && !manager.proxy_100_continue {
        return Ok(());
    }
    if let Downstream::Http2(stream) = &mut client.side {
        return stream.send_interim(response);
    }
    out.clear();
    response.write(out);
    out.extend_from_slice(b"\r\n");
    client.write_all(out).await
}

fn describe(error: ConnectError, address: SocketAddr) -> (Reset, Cow<'static, str>) {
    match error {
        ConnectError::Timeout => (Reset::ConnectTimeout, Cow::Borrowed("")),
        ConnectError::Tls(why) => (Reset::Connect, Cow::Owned(why.into())),
        // On this machine a refusal is the answer to the very call, and then Envoy says no more about it.
        ConnectError::Remote(e) if e.kind() == ErrorKind::ConnectionRefused && address.ip().is_loopback() => {
            (Reset::Connect, Cow::Borrowed(""))
        }
        ConnectError::Remote(e) | ConnectError::Local(e) => {
            // As the C library words it, without the number that Rust adds.
            let text = e.to_string();
            let text = text.split(" (os error").next().unwrap_or_default();
            (Reset::Connect, Cow::Owned(format!("delayed connect error: {text}")))
        }
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
    if std::str::from_utf8(said).ok().and_then(|text| text.parse().ok()) != Some(own) {
        headers.set_id(HeaderId::ContentLength, own.to_string().as_bytes());
    }
    true
}

/// A number in decimal digits.
fn decimal(mut n: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            return &digits[at..];
        }
    }
}
