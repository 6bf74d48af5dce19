//! One attempt at a request, and the way back of its response.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use maille_http::HeaderId;
use maille_http::h1::{BodyLength, Limits, ResponseMeta, Version};

use super::job::Job;
use super::outbound::Outbound;
use super::tunnel::Tunnel;
use crate::config::{HeaderCase, HttpManager, RetryPolicy, RouterOptions};
use crate::headers::Protocol;
use crate::tls::Carries;
use crate::upstream::outlier::{self, grpc_to_http};
use crate::upstream::{Breakers, ClusterEntry, ConnectError, Permit, WorkerCluster, WorkerHost};
use crate::worker::http::{After, Client, Downstream};
use crate::worker::record::Record;
use crate::worker::reply::{Reply, is_grpc, malformed};
use crate::worker::retry::Reset;
use crate::worker::scratch::Scratch;
use crate::worker::timers::Timers;
use crate::worker::transfer::Failure;
use crate::worker::upstream_request::{Lost, Unconnected, Upstream};

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
    /// What is spoken with the host.
    pub(super) carries: Carries,
    /// When the request was here.
    pub(super) since: Instant,
    /// Whether the server has said anything yet: then it is not asked again.
    pub(super) spoken: bool,
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
        let obtained = match Upstream::idle(self.entry, self.host, self.carries) {
            Some(upstream) => Ok(upstream),
            None => {
                self.cluster.metrics.upstream_rq_pending_total().inc();
                let body = &outbound.body;
                Upstream::obtain(self.entry, self.host, self.breakers, self.carries, client, body, timers).await
            }
        };
        let mut upstream = match obtained {
            Ok(upstream) => upstream,
            Err(Unconnected::Overflow) => {
                record.host = None;
                return overflow();
            }
            Err(Unconnected::Failed(error)) => {
                self.cluster.metrics.upstream_cx_connect_fail().inc();
                self.cluster.metrics.upstream_rq_pending_failure_eject().inc();
                match &error {
                    ConnectError::Timeout => self.cluster.metrics.upstream_cx_connect_timeout().inc(),
                    ConnectError::Tls(_) => self.cluster.metrics.ssl_connection_error().inc(),
                    ConnectError::Remote(_) | ConnectError::Local(_) => {}
                }
                let (reset, failure) = describe(error);
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
        record.upstream_protocol = Some(upstream.protocol());
        if !upstream.was_reused() {
            let metrics = &self.cluster.metrics;
            metrics.upstream_cx_total().inc();
            match upstream.protocol() {
                Protocol::Http2 => metrics.upstream_cx_http2_total().inc(),
                Protocol::Http10 | Protocol::Http11 => metrics.upstream_cx_http1_total().inc(),
            }
        }
        if self.carries == Carries::Bytes {
            // There is a connection: that is the answer.
            scratch.response.clear();
            scratch.response.status = 200;
            let (len, version, body, keep_alive) = (0, Version::Http11, BodyLength::UntilClose, false);
            let meta = ResponseMeta { len, version, body, keep_alive };
            return self.respond(client, scratch, record, outbound, timers, upstream, meta, None).await;
        }
        let config = &self.entry.config;
        let limits = Limits {
            head_bytes: config.http.max_header_bytes as usize,
            fields: config.http.max_header_count as usize,
            http10: true,
            chunked_length: config.http.http1.allow_chunked_length,
            keep_case: config.http.http1.header_case == HeaderCase::Preserve,
            ..Limits::ENVOYS
        };
        let to_head = scratch.request.method() == b"HEAD";
        let http2 = upstream.protocol() == Protocol::Http2;
        if http2 != outbound.is_http2() {
            outbound.compose(http2, client, scratch, record)?;
        }
        if let Err(lost) = upstream.start(
            &scratch.request,
            outbound.body.is_none() && outbound.tunnel == Tunnel::None,
            outbound.prefix(scratch),
        ) {
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
            self.spoken = true;
            response.headers.remove_id(HeaderId::Connection);
            response.headers.remove_id(HeaderId::Upgrade);
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
                let answered = *record.response_start.insert(Instant::now());
                // Nobody measures a response that came before the request was whole.
                let since = timers.received_at.or(record.request_end).unwrap_or(self.since);
                let took = outbound.is_received().then(|| answered.saturating_duration_since(since));
                self.report(scratch);
                self.respond(client, scratch, record, outbound, timers, upstream, meta, took).await
            }
            Err(lost) => {
                upstream.close(&client.worker);
                self.lost(lost, client, record, timers)
            }
        }
    }

    fn lost(&self, lost: Lost, client: &Client, record: &mut Record<'_>, timers: &Timers) -> Result<Outcome, Reply> {
        if let Lost::UpstreamTimeout = lost {
            self.cluster.metrics.upstream_rq_max_duration_reached().inc();
        }
        match lost {
            Lost::Reset => Ok(Outcome::Failed(Reset::Terminated, Cow::Borrowed(""))),
            Lost::Remote => Ok(Outcome::Failed(Reset::Remote, Cow::Borrowed(""))),
            Lost::Refused => Ok(Outcome::Failed(Reset::Refused, Cow::Borrowed(""))),
            Lost::Gone => Ok(Outcome::Failed(Reset::Gone, Cow::Borrowed(""))),
            Lost::Protocol => Ok(Outcome::Failed(Reset::Protocol, Cow::Borrowed(""))),
            Lost::TryTimeout => Ok(Outcome::Failed(Reset::TryTimeout, Cow::Borrowed(""))),
            Lost::TrySilence => Ok(Outcome::Failed(Reset::TrySilence, Cow::Borrowed(""))),
            Lost::Client(failure @ (Failure::Malformed | Failure::Trailers(_))) => Err(malformed(&failure)),
            Lost::Client(_) => {
                self.cluster.metrics.upstream_rq_cancelled().inc();
                client.note_gone(record);
                Ok(Outcome::Over(After::Close))
            }
            late => {
                if let Lost::Timeout = late {
                    self.cluster.metrics.upstream_rq_timeout().inc();
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

fn describe(error: ConnectError) -> (Reset, Cow<'static, str>) {
    match error {
        ConnectError::Timeout => (Reset::ConnectTimeout, Cow::Borrowed("")),
        ConnectError::Tls(why) => (Reset::Connect, Cow::Owned(why.into())),
        ConnectError::Remote(e) | ConnectError::Local(e) => {
            // As the C library words it, without the number that Rust adds.
            let text = e.to_string();
            let text = text.split(" (os error").next().unwrap_or_default();
            (Reset::Connect, Cow::Owned(format!("delayed connect error: {text}")))
        }
    }
}
