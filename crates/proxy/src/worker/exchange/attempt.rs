//! One attempt at a request, and the way back of its response.

use std::borrow::Cow;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Instant;

use maille_http::h1::{BodyLength, Limits, ResponseMeta, Version, response_framing};
use maille_http::{HeaderId, Headers};
use maille_telemetry::flags::ResponseFlags;

use super::job::{Job, malformed};
use crate::config::{HttpManager, RetryPolicy, RouterOptions};
use crate::upstream::outlier::{self, grpc_to_http};
use crate::upstream::{Breakers, ClusterEntry, ConnectError, Permit, WorkerCluster, WorkerHost};
use crate::worker::http::{After, Client};
use crate::worker::io::poll_write;
use crate::worker::record::Record;
use crate::worker::reply::{Reply, is_grpc};
use crate::worker::retry::{self, Reset};
use crate::worker::scratch::Scratch;
use crate::worker::transfer::{Failure, Transfer};
use crate::worker::upstream_request::{Lost, Timers, Unconnected, Upstream, client_is_gone, is_coming};
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

/// One attempt of a [`Job`].
pub(super) struct Attempt<'a, 'e> {
    pub(super) job: &'a Job<'a>,
    pub(super) host: &'a WorkerHost,
    pub(super) cluster: &'a WorkerCluster,
    pub(super) entry: &'e ClusterEntry,
    pub(super) breakers: Breakers<'e>,
    pub(super) retry: Option<&'a RetryPolicy>,
    pub(super) options: RouterOptions,
    pub(super) cookies: &'a [Vec<u8>],
    pub(super) upgrade: bool,
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
        body: &mut Option<Transfer>,
        timers: &mut Timers,
    ) -> Result<Outcome, Reply> {
        let _counted = Permit::count(&self.host.host.load.requests);
        let overflow = || Ok(Outcome::Failed(Reset::Overflow, Cow::Borrowed("")));
        let idle = if self.fresh { None } else { Upstream::idle(self.host) };
        let mut upstream = match idle {
            Some(upstream) => upstream,
            None => match Upstream::obtain(&self.entry.config, self.host, self.breakers, client, body, timers).await {
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
                Err(Unconnected::Lost(lost)) => return self.lost(lost, record),
            },
        };
        let Some(_active) = self.breakers.request() else {
            upstream.reuse(&client.worker, None);
            return overflow();
        };
        self.entry.report(&self.host.host, outlier::Outcome::Connected);
        self.was_reused = upstream.reused;
        if !upstream.reused {
            self.cluster.metrics.connections().inspect(|counter| counter.inc());
        }
        let config = &self.entry.config;
        let limits = Limits {
            head_bytes: config.http.max_header_bytes as usize,
            fields: config.http.max_header_count as usize,
            http10: true,
        };
        let to_head = scratch.request.method() == b"HEAD";
        let sent_at = Instant::now();
        let Scratch { upstream: bytes, response, .. } = scratch;
        let mut got = upstream.send(client, bytes, body, &limits, to_head, response, timers).await;
        // Interim responses go on to the client as they come.
        while let Ok(meta) = &got
            && (100..200).contains(&response.status)
            && response.status != 101
        {
            let len = meta.len;
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
                self.respond(client, scratch, record, body, timers, upstream, meta, sent_at).await
            }
            Err(lost) => {
                upstream.close(&client.worker);
                self.lost(lost, record)
            }
        }
    }

    fn lost(&self, lost: Lost, record: &mut Record<'_>) -> Result<Outcome, Reply> {
        match lost {
            Lost::Reset => Ok(Outcome::Failed(Reset::Terminated, Cow::Borrowed(""))),
            Lost::Protocol => Ok(Outcome::Failed(Reset::Protocol, Cow::Borrowed(""))),
            Lost::TryTimeout => Ok(Outcome::Failed(Reset::Timeout, Cow::Borrowed(""))),
            Lost::Timeout => {
                self.entry.report(&self.host.host, outlier::Outcome::TimedOut);
                Err(self.job.failed(record, Reset::Timeout, Cow::Borrowed(""), false))
            }
            Lost::Silence => {
                let reply = Reply::new(408, "stream_idle_timeout").body(&b"stream timeout"[..]).close();
                Err(reply.flags(ResponseFlags::STREAM_IDLE_TIMEOUT))
            }
            Lost::Client(Failure::Malformed) => Err(malformed()),
            Lost::Client(_) => {
                record.flags.set(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
                record.details = Cow::Borrowed("downstream_remote_disconnect");
                Ok(Outcome::Over(After::Close))
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
        let grpc = is_grpc(&scratch.request).then(|| response.headers.get(HeaderId::GrpcStatus)).flatten();
        let status = grpc.map_or(response.status, grpc_to_http);
        self.entry.report(&self.host.host, outlier::Outcome::Response(status));
    }

    /// Sends the response on, if it is not to be tried for a better one.
    #[allow(clippy::too_many_arguments, reason = "the state of one exchange")]
    async fn respond(
        &mut self,
        client: &mut Client,
        scratch: &mut Scratch,
        record: &mut Record<'_>,
        body: &mut Option<Transfer>,
        timers: &mut Timers,
        mut upstream: Upstream,
        meta: ResponseMeta,
        sent_at: Instant,
    ) -> Result<Outcome, Reply> {
        *self.retrying = None;
        if let Some(policy) = self.retry.filter(|policy| retry::on_response(policy, &scratch.response))
            && body.as_ref().is_none_or(Transfer::can_restart)
        {
            *self.retrying = self.job.retry(record, self.breakers, policy);
            if self.retrying.is_some() {
                upstream.close(&client.worker);
                return Ok(Outcome::Refused);
            }
        }
        timers.attempt = None;
        upstream.input.consume(meta.len, &client.worker.blocks);
        let status = scratch.response.status;
        let switching = status == 101;
        if switching && !self.upgrade {
            upstream.close(&client.worker);
            return Ok(Outcome::Failed(Reset::Protocol, Cow::Borrowed("")));
        }
        let to_head = scratch.request.method() == b"HEAD";
        record.status = status;
        record.details = Cow::Borrowed("via_upstream");
        self.headers(client, scratch, record, sent_at);
        let old_client = self.job.meta.version == Version::Http10;
        if matches!(meta.body, BodyLength::UntilClose | BodyLength::Chunked) {
            scratch.response.headers.remove_id(HeaderId::ContentLength);
        } else if meta.body == BodyLength::Empty && !to_head && status != 304 {
            keeps_length(&mut scratch.response.headers, BodyLength::Empty);
        }
        let (length, chunked) = match meta.body {
            BodyLength::UntilClose | BodyLength::Chunked if old_client => (BodyLength::UntilClose, false),
            BodyLength::UntilClose | BodyLength::Chunked => (BodyLength::Chunked, true),
            // A route may have taken the length away, or changed it: what is written is framed as it really is.
            BodyLength::Exact(_) if old_client && !keeps_length(&mut scratch.response.headers, meta.body) => {
                (BodyLength::UntilClose, false)
            }
            BodyLength::Exact(_) if !keeps_length(&mut scratch.response.headers, meta.body) => {
                (BodyLength::Chunked, true)
            }
            known => (known, false),
        };
        // Were the request still coming after its response, nobody could tell where the next one begins.
        let keep = self.job.meta.keep_alive
            && !is_coming(body)
            && length != BodyLength::UntilClose
            && !response::must_close(client, self.job.manager);
        response::finish_headers(client, self.job.manager, scratch);
        let has_length = scratch.response.headers.has(HeaderId::ContentLength);
        scratch.downstream.clear();
        scratch.response.write(&mut scratch.downstream);
        if switching {
            scratch.downstream.extend_from_slice(b"connection: upgrade\r\n\r\n");
        } else {
            if old_client && keep {
                scratch.downstream.extend_from_slice(b"connection: keep-alive\r\n");
            }
            response_framing(&mut scratch.downstream, status, to_head, length, has_length, !keep);
        }
        if switching {
            return Ok(Outcome::Over(self.tunnel(client, scratch, record, upstream).await));
        }
        let mut transfer = Transfer::new(meta.body, chunked);
        let buffered = transfer.take_buffered(&mut upstream.input, &client.worker.blocks, &mut scratch.downstream);
        let mut written = 0;
        let mut sending = is_coming(body) || upstream.is_sending();
        let result = if buffered.is_err() {
            Err(Failure::Malformed)
        } else {
            poll_fn(|cx| {
                if sending {
                    // What the upstream no longer wants to read is no reason not to hand on what it says.
                    sending = upstream.poll_send(cx, client, &scratch.upstream, body).is_pending();
                }
                let polled = match poll_write(cx, &mut client.stream, &scratch.downstream, &mut written) {
                    Poll::Ready(Ok(())) => transfer.poll(
                        cx,
                        &mut upstream.stream,
                        &mut upstream.input,
                        &mut client.stream,
                        &client.worker.blocks,
                    ),
                    Poll::Ready(Err(_)) => Poll::Ready(Err(Failure::Sink)),
                    Poll::Pending => Poll::Pending,
                };
                if polled.is_pending() {
                    if timers.poll(cx, client).is_some() {
                        return Poll::Ready(Err(Failure::Source));
                    }
                    if !sending && client_is_gone(cx, client) {
                        return Poll::Ready(Err(Failure::Sink));
                    }
                }
                polled
            })
            .await
        };
        record.sent = transfer.total;
        Ok(Outcome::Over(match result {
            Ok(()) => {
                if meta.keep_alive && !is_coming(body) {
                    upstream.reuse(&client.worker, self.entry.config.http.max_requests_per_connection);
                } else {
                    upstream.close(&client.worker);
                }
                match (keep, body.as_ref().is_none_or(Transfer::is_received)) {
                    (true, _) => After::KeepAlive,
                    (false, true) => After::Close,
                    (false, false) => After::Linger,
                }
            }
            Err(failure) => {
                upstream.close(&client.worker);
                let flag = match failure {
                    Failure::Sink => ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION,
                    Failure::Malformed => ResponseFlags::UPSTREAM_PROTOCOL_ERROR,
                    Failure::Source => ResponseFlags::UPSTREAM_CONNECTION_TERMINATION,
                };
                record.flags.set(flag);
                record.details = Cow::Borrowed(match failure {
                    Failure::Sink => "downstream_remote_disconnect",
                    _ => "upstream_reset_after_response_started{connection_termination}",
                });
                // The client cannot be told but by closing: the response would otherwise look whole.
                After::Close
            }
        }))
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
        if client.write_all(&scratch.downstream).await.is_ok() {
            let Client { stream, input, worker, .. } = client;
            let (received, sent) =
                tcp::copy_both(stream, input, &mut upstream.stream, &mut upstream.input, &worker.blocks, idle).await;
            record.received += received;
            record.sent += sent;
        }
        upstream.close(&client.worker);
        After::Close
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
    out.clear();
    response.write(out);
    out.extend_from_slice(b"\r\n");
    client.write_all(out).await
}

fn describe(error: ConnectError, address: SocketAddr) -> (Reset, Cow<'static, str>) {
    match error {
        ConnectError::Timeout => (Reset::ConnectTimeout, Cow::Borrowed("")),
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
