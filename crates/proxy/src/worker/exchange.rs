//! One request from its head to the last byte of its response, both connections driven by one task.

use std::borrow::Cow;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use maille_http::h1::{BodyLength, Limits, RequestMeta, ResponseMeta, Version, request_framing, response_framing};
use maille_http::{HeaderId, RequestHead};
use maille_telemetry::flags::ResponseFlags;
use tokio::time::sleep;

use super::cors::{self, Cors};
use super::http::{After, Client};
use super::io::write_all;
use super::record::Record;
use super::reply::{Reply, answer, is_grpc};
use super::retry::{self, Reset};
use super::scratch::Scratch;
use super::transfer::{Failure, Replay, Transfer};
use super::upstream_request::{Lost, Timers, Unconnected, Upstream, client_is_gone, is_coming};
use super::{fault, hash, mirror, request, response, tcp};
use crate::config::{
    Action, Destination, Discovery, Fault, Forward, HostRewrite, HttpFilterKind, HttpManager, LbPolicy, RequireTls,
    RetryPolicy, Route, RouteSource, RouteTable, RouterOptions, VirtualHost,
};
use crate::headers::Protocol;
use crate::route::{ClientTls, Request, tls_redirect};
use crate::snapshot::Snapshot;
use crate::upstream::outlier::{self, grpc_to_http};
use crate::upstream::{Breakers, ClusterEntry, Permit, WorkerCluster, WorkerHost};

/// Serves one request whose head has been read.
pub(crate) async fn exchange(
    client: &mut Client,
    manager: &HttpManager,
    scratch: &mut Scratch,
    meta: RequestMeta,
) -> After {
    let protocol = if meta.version == Version::Http11 { Protocol::Http11 } else { Protocol::Http10 };
    let mut record = Record::new(&client.info, protocol);
    client.input.consume(meta.len, &client.worker.blocks);
    let after = serve(client, manager, scratch, &meta, &mut record).await;
    record.finish(client, manager, scratch);
    after
}

async fn serve(
    client: &mut Client,
    manager: &HttpManager,
    scratch: &mut Scratch,
    meta: &RequestMeta,
    record: &mut Record,
) -> After {
    if let Err(reply) = request::prepare(client, manager, scratch, meta, record) {
        return answer(client, manager, scratch, record, Some(meta), &reply, None).await;
    }
    let snapshot = client.worker.snapshot();
    let random = fastrand::u64(..);
    let (host, route) = match find_route(&snapshot, manager, &scratch.request, random) {
        Ok(found) => found,
        Err(reply) => return answer(client, manager, scratch, record, Some(meta), &reply, None).await,
    };
    record.route = Some(route.clone());
    let mut origin = None;
    for filter in &manager.filters {
        let reply = match &filter.kind {
            HttpFilterKind::Cors => match (&route.cors, &route.action) {
                (Some(policy), Action::Forward(_)) => match cors::check(policy, &scratch.request, random) {
                    Cors::Pass => None,
                    Cors::Allowed(allowed) => {
                        origin = Some(allowed);
                        None
                    }
                    Cors::Preflight(reply) => Some(reply),
                },
                _ => None,
            },
            HttpFilterKind::Fault(default) => match route.fault.as_ref().or(default.as_ref()) {
                Some(fault) => match inject(client, fault, scratch, record).await {
                    Ok(()) => None,
                    Err(Some(reply)) => Some(reply),
                    Err(None) => return After::Close,
                },
                None => None,
            },
            HttpFilterKind::Router(_) | HttpFilterKind::GrpcStats | HttpFilterKind::DynamicForwardProxy => None,
        };
        if let Some(reply) = reply {
            return answer(client, manager, scratch, record, Some(meta), &reply, None).await;
        }
    }
    let reply = match &route.action {
        Action::Forward(forward) => {
            let job = Job { snapshot: &snapshot, manager, meta, host: &host, route: &route, forward, random, origin };
            return job.run(client, scratch, record).await;
        }
        Action::Redirect(redirect) => {
            let location = redirect.location(&route, &scratch.request);
            Reply::new(redirect.status, "direct_response").header(HeaderId::Location, location).by_route()
        }
        Action::Respond(direct) => Reply::new(direct.status, "direct_response").body(direct.body.to_vec()).by_route(),
    };
    answer(client, manager, scratch, record, Some(meta), &reply, Some(&route)).await
}

fn find_route(
    snapshot: &Snapshot,
    manager: &HttpManager,
    head: &RequestHead,
    random: u64,
) -> Result<(Arc<VirtualHost>, Arc<Route>), Reply> {
    let table: &RouteTable = match &manager.routes {
        RouteSource::Inline(table) => table,
        RouteSource::Rds(name) => {
            snapshot.routes.get(name).ok_or_else(|| not_found("route_configuration_not_found"))?
        }
    };
    let host = table.virtual_host(head.authority()).ok_or_else(|| not_found("route_not_found"))?;
    if host.require_tls != RequireTls::None && head.headers.get(HeaderId::XForwardedProto) != Some(b"https") {
        let external = !head.headers.has(HeaderId::XEnvoyInternal);
        if host.require_tls == RequireTls::All || external {
            return Err(Reply::new(301, "direct_response").header(HeaderId::Location, tls_redirect(head)));
        }
    }
    let request = Request { head, random, tls: ClientTls::default() };
    let route = host.route(&request).ok_or_else(|| not_found("route_not_found"))?;
    Ok((host.clone(), route.clone()))
}

fn not_found(details: &'static str) -> Reply {
    Reply::new(404, details).flags(ResponseFlags::NO_ROUTE_FOUND)
}

/// Does what a fault says; an error is the answer, or that the client has gone.
async fn inject(
    client: &mut Client,
    injected: &Fault,
    scratch: &Scratch,
    record: &mut Record,
) -> Result<(), Option<Reply>> {
    if let Some(pause) = fault::delay(injected, &scratch.request) {
        record.flags.set(ResponseFlags::DELAY_INJECTED);
        if !pause_for(client, pause).await {
            record.flags.set(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
            return Err(None);
        }
    }
    match fault::abort(injected, &scratch.request) {
        Some(reply) => Err(Some(reply)),
        None => Ok(()),
    }
}

/// Waits; `false` when the client goes away meanwhile.
async fn pause_for(client: &mut Client, pause: Duration) -> bool {
    let mut timer = std::pin::pin!(sleep(pause));
    poll_fn(|cx| {
        if timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(true);
        }
        if client_is_gone(cx, client) { Poll::Ready(false) } else { Poll::Pending }
    })
    .await
}

/// A request that goes upstream.
struct Job<'a> {
    snapshot: &'a Snapshot,
    manager: &'a HttpManager,
    meta: &'a RequestMeta,
    host: &'a VirtualHost,
    route: &'a Route,
    forward: &'a Forward,
    random: u64,
    /// The origin that CORS allows to read the response.
    origin: Option<Vec<u8>>,
}

/// How an attempt ended.
enum Outcome {
    /// The connection goes on like this.
    Over(After),
    /// There is no response.
    Failed(Reset, Cow<'static, str>),
    /// A response that the policy wants thrown away.
    Refused,
}

impl Job<'_> {
    async fn run(mut self, client: &mut Client, scratch: &mut Scratch, record: &mut Record) -> After {
        match self.forward_it(client, scratch, record).await {
            Ok(after) => after,
            Err(reply) => answer(client, self.manager, scratch, record, Some(self.meta), &reply, None).await,
        }
    }

    async fn forward_it(
        &mut self,
        client: &mut Client,
        scratch: &mut Scratch,
        record: &mut Record,
    ) -> Result<After, Reply> {
        let destination = self.forward.destination(self.random);
        let cluster = self.cluster(client, destination, &scratch.request)?;
        let entry = cluster.entry();
        record.cluster = Some(entry.clone());
        let upgrade = self.upgrade(scratch)?;
        let options = self.router();
        let mut cookies = Vec::new();
        let hash = match entry.config.lb {
            LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. } => {
                hash::hash(&self.forward.hash, &scratch.request, record.remote.ip(), &mut cookies)
            }
            _ => None,
        };
        self.rewrite(client, scratch, record, destination, options);
        self.mirror(client, scratch, upgrade);

        let breakers = entry.breakers(self.forward.priority);
        let metrics = &cluster.metrics;
        let retry = self.forward.retry.as_deref().filter(|policy| retry::applies(policy, &scratch.request));
        let mut timers = Timers { route: self.forward.timeout.map(|t| Box::pin(sleep(t))), attempt: None };
        let mut body = self.body(client, upgrade, retry);
        let mut tried: Vec<Rc<WorkerHost>> = Vec::new();
        let mut fresh = false;
        let mut retrying = None;
        loop {
            record.attempts += 1;
            metrics.requests().inspect(|counter| counter.inc());
            let host = self.pick(client, &cluster, scratch, hash, retry, &tried)?;
            if matches!(self.forward.host, HostRewrite::Auto) && record.attempts == 1 && !host.host.hostname.is_empty()
            {
                self.forward.set_host(
                    &mut scratch.request,
                    host.host.hostname.as_bytes(),
                    !options.suppress_envoy_headers,
                );
            }
            self.write_head(scratch, record, upgrade, &mut body, client)?;
            record.host = Some(host.clone());
            timers.attempt = retry.and_then(|policy| policy.per_try_timeout).map(|t| Box::pin(sleep(t)));
            let mut attempt = Attempt {
                job: self,
                host: &host,
                cluster: &cluster,
                entry: &entry,
                breakers,
                retry,
                options,
                cookies: &cookies,
                upgrade,
                fresh,
                was_reused: false,
                retrying: &mut retrying,
            };
            let began = Instant::now();
            let outcome = attempt.run(client, scratch, record, &mut body, &mut timers).await?;
            if let Outcome::Over(_) = outcome {
                metrics.request_time().inspect(|histogram| histogram.record(began.elapsed()));
                metrics.response(record.status);
            }
            let was_reused = attempt.was_reused;
            let (reset, failure) = match outcome {
                Outcome::Over(after) => return Ok(after),
                Outcome::Failed(reset, failure) => (Some(reset), failure),
                Outcome::Refused => (None, Cow::Borrowed("")),
            };
            let replayable = body.as_ref().is_none_or(Transfer::can_restart);
            // A connection that was kept open may have been closed by the other side just as we used it.
            if reset == Some(Reset::Terminated)
                && was_reused
                && !fresh
                && replayable
                && retry::is_idempotent(scratch.request.method())
            {
                record.attempts -= 1;
                fresh = true;
                continue;
            }
            if let Some(outcome) = reset.and_then(Reset::outcome) {
                entry.report(&host.host, outcome);
            }
            let retries = record.attempts - 1;
            if let (Some(policy), Some(reset)) = (retry, reset) {
                retrying = None;
                if replayable && retry::on_reset(policy, reset, reset != Reset::Connect) {
                    retrying = self.retry(record, breakers, policy);
                }
            }
            if let Some(policy) = retry.filter(|_| retrying.is_some()) {
                if !pause_for(client, retry::pause(policy, retries)).await {
                    record.flags.set(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
                    record.details = Cow::Borrowed("downstream_remote_disconnect");
                    return Ok(After::Close);
                }
                metrics.retries().inspect(|counter| counter.inc());
                tried.push(host);
                fresh = false;
                continue;
            }
            if reset == Some(Reset::Overflow) {
                metrics.overflows().inspect(|counter| counter.inc());
            }
            return Err(self.failed(record, reset.unwrap_or(Reset::Terminated), failure, retries > 0));
        }
    }

    /// The right to try again, if any is left to this request and to all of them together.
    fn retry<'e>(&self, record: &mut Record, breakers: Breakers<'e>, policy: &RetryPolicy) -> Option<Permit<'e>> {
        if record.attempts > policy.max {
            record.flags.set(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
            return None;
        }
        let permit = breakers.retry();
        if permit.is_none() {
            record.flags.set(ResponseFlags::UPSTREAM_OVERFLOW);
        }
        permit
    }

    /// What the client is told when there is no response.
    fn failed(&self, record: &mut Record, reset: Reset, failure: Cow<'static, str>, retried: bool) -> Reply {
        if reset == Reset::Timeout {
            let reply = Reply::new(504, "response_timeout").body(&b"upstream request timeout"[..]);
            return self.count(record, reply.flags(ResponseFlags::UPSTREAM_REQUEST_TIMEOUT));
        }
        let (status, reason, flag) = match reset {
            Reset::Connect if failure.is_empty() => {
                (503, "connection timeout", ResponseFlags::UPSTREAM_CONNECTION_FAILURE)
            }
            Reset::Connect => (503, "remote connection failure", ResponseFlags::UPSTREAM_CONNECTION_FAILURE),
            Reset::Protocol => (502, "protocol error", ResponseFlags::UPSTREAM_PROTOCOL_ERROR),
            Reset::Overflow => (503, "overflow", ResponseFlags::UPSTREAM_OVERFLOW),
            _ => (503, "connection termination", ResponseFlags::UPSTREAM_CONNECTION_TERMINATION),
        };
        let retried = if retried { "retried and the latest " } else { "" };
        let because = if failure.is_empty() { String::new() } else { format!(", transport failure reason: {failure}") };
        let body = format!(
            "upstream connect error or disconnect/reset before headers. {retried}reset reason: {reason}{because}"
        );
        let because = if failure.is_empty() { String::new() } else { format!("|{failure}") };
        let details = format!("upstream_reset_before_response_started{{{reason}{because}}}").replace(' ', "_");
        record.failure = failure;
        let mut reply = Reply::new(status, "").body(body.into_bytes()).flags(flag);
        reply.details = Cow::Owned(details);
        if reset == Reset::Overflow && !self.router().suppress_envoy_headers {
            reply = reply.header(HeaderId::XEnvoyOverloaded, *b"true");
        }
        self.count(record, reply)
    }

    fn count(&self, record: &Record, reply: Reply) -> Reply {
        match self.host.attempt_count_in_response {
            true => reply.header(HeaderId::XEnvoyAttemptCount, record.attempts.to_string()),
            false => reply,
        }
    }

    fn router(&self) -> RouterOptions {
        let router = self.manager.filters.iter().find_map(|f| match f.kind {
            HttpFilterKind::Router(options) => Some(options),
            _ => None,
        });
        router.unwrap_or_default()
    }

    fn cluster(
        &self,
        client: &Client,
        destination: &Destination,
        head: &RequestHead,
    ) -> Result<Rc<WorkerCluster>, Reply> {
        let name = self.forward.cluster_name(destination, head).unwrap_or_default();
        client.worker.cluster(name).ok_or_else(|| {
            Reply::new(self.forward.cluster_not_found, "cluster_not_found").flags(ResponseFlags::NO_CLUSTER_FOUND)
        })
    }

    /// Whether the connection is to change its protocol; an error when it may not.
    fn upgrade(&self, scratch: &mut Scratch) -> Result<bool, Reply> {
        if !self.meta.upgrade {
            return Ok(false);
        }
        let kind = scratch.request.headers.get(HeaderId::Upgrade).unwrap_or_default().to_ascii_lowercase();
        let rule =
            |rules: &[crate::config::Upgrade]| rules.iter().find(|u| u.kind.as_bytes() == kind).map(|u| u.enabled);
        let allowed = rule(&self.forward.upgrades).or_else(|| rule(&self.manager.upgrades)).unwrap_or(false);
        if !allowed {
            return Err(Reply::new(403, "upgrade_failed"));
        }
        Ok(true)
    }

    /// Makes the request what goes upstream.
    fn rewrite(
        &self,
        client: &Client,
        scratch: &mut Scratch,
        record: &Record,
        destination: &Destination,
        options: RouterOptions,
    ) {
        let head = &mut scratch.request;
        let policy = self.forward.retry.as_deref();
        let per_try =
            policy.and_then(|p| p.per_try_timeout).filter(|t| self.forward.timeout.is_none_or(|all| *t < all));
        if let Some(expected) = per_try.or(self.forward.timeout)
            && !options.suppress_envoy_headers
        {
            let millis = expected.as_millis().to_string();
            head.headers.set_id(HeaderId::XEnvoyExpectedRqTimeoutMs, millis.as_bytes());
        }
        if !self.manager.proxy_100_continue {
            head.headers.remove_id(HeaderId::Expect);
        }
        let originals = !options.suppress_envoy_headers;
        if destination.request.is_empty() {
            let nobody = crate::headers::StreamInfo::default();
            self.forward.rewrite(self.route, destination, head, &nobody, &mut scratch.mutations, originals);
        } else {
            let stream = record.stream(&client.info, &client.worker.hostname);
            self.forward.rewrite(self.route, destination, head, &stream, &mut scratch.mutations, originals);
        }
    }

    fn mirror(&self, client: &Client, scratch: &Scratch, upgrade: bool) {
        if self.forward.mirrors.is_empty() || upgrade {
            return;
        }
        for copy in &self.forward.mirrors {
            if copy.fraction.holds(fastrand::u64(..))
                && let Some(cluster) = client.worker.cluster(&copy.cluster)
            {
                mirror::send(&client.worker, cluster, copy, &scratch.request, self.meta.body, &client.input);
            }
        }
    }

    /// The body that is streamed after the head. One that is there already goes with the head ([`Job::write_head`]) and leaves nothing.
    fn body(&self, client: &Client, upgrade: bool, retry: Option<&RetryPolicy>) -> Option<Transfer> {
        if upgrade || self.meta.body == BodyLength::Empty {
            return None;
        }
        let mut transfer = Transfer::new(self.meta.body, self.meta.body == BodyLength::Chunked);
        let limit = self.route.retry_buffer_limit.unwrap_or(u64::from(client.info.listener.buffer_limit));
        if retry.is_some() {
            transfer.replay = Some(Replay { sent: Vec::new(), limit: limit.min(1 << 20) as usize });
        }
        Some(transfer)
    }

    /// Writes the head as it goes upstream, and behind it what is there of the body.
    fn write_head(
        &self,
        scratch: &mut Scratch,
        record: &mut Record,
        upgrade: bool,
        body: &mut Option<Transfer>,
        client: &mut Client,
    ) -> Result<(), Reply> {
        if self.host.attempt_count_in_request {
            let count = record.attempts.to_string();
            scratch.request.headers.set_id(HeaderId::XEnvoyAttemptCount, count.as_bytes());
        }
        // The body's beginning is read once; a retry finds it behind the old head.
        let out = &mut scratch.upstream;
        let head_end = record.head_len;
        let kept: Vec<u8> = if head_end > 0 { out.split_off(head_end.min(out.len())) } else { Vec::new() };
        out.clear();
        scratch.request.write(out);
        if upgrade {
            out.extend_from_slice(b"connection: upgrade\r\n");
        }
        let has_length = scratch.request.headers.has(HeaderId::ContentLength);
        request_framing(out, scratch.request.method(), self.meta.body, has_length);
        record.head_len = out.len();
        out.extend_from_slice(&kept);
        let Some(transfer) = body else { return Ok(()) };
        if record.attempts > 1 {
            transfer.restart(&mut client.input, &client.worker.blocks, out);
        }
        transfer.take_buffered(&mut client.input, &client.worker.blocks, out).map_err(|_| malformed())?;
        record.received = transfer.total;
        if transfer.is_received() {
            *body = None;
            record.request_end = Some(Instant::now());
        }
        Ok(())
    }

    fn pick(
        &self,
        client: &Client,
        cluster: &WorkerCluster,
        scratch: &Scratch,
        hash: Option<u64>,
        retry: Option<&RetryPolicy>,
        tried: &[Rc<WorkerHost>],
    ) -> Result<Rc<WorkerHost>, Reply> {
        let none = || {
            Reply::new(503, "no_healthy_upstream")
                .body(&b"no healthy upstream"[..])
                .flags(ResponseFlags::NO_HEALTHY_UPSTREAM)
        };
        if let Discovery::OriginalDst(options) = &cluster.entry().config.discovery {
            let named = options.header.as_ref().and_then(|name| scratch.request.header(name));
            let mut address = match named {
                Some(value) => std::str::from_utf8(&value).ok().and_then(|v| v.parse().ok()).ok_or_else(none)?,
                None => client.info.local,
            };
            if let Some(port) = options.port {
                address.set_port(port);
            }
            // Going to where the connection came in would only come back here, again and again.
            let own = |l: &crate::config::Listener| l.address == address || l.additional_addresses.contains(&address);
            if self.snapshot.listeners.values().any(|l| own(l)) {
                return Err(none());
            }
            return Ok(cluster.at(address));
        }
        let (attempts, avoid) = match retry {
            Some(policy) if policy.avoid_previous_hosts && !tried.is_empty() => (policy.host_selection_attempts, true),
            _ => (0, false),
        };
        let seen = |host: &WorkerHost| avoid && tried.iter().any(|old| old.host.address == host.host.address);
        cluster.pick(hash, attempts, seen).ok_or_else(none)
    }
}

fn malformed() -> Reply {
    Reply::new(400, "http1.codec_error")
        .body(&b"Bad Request"[..])
        .flags(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR)
        .close()
}

/// One attempt of a [`Job`].
struct Attempt<'a, 'e> {
    job: &'a Job<'a>,
    host: &'a WorkerHost,
    cluster: &'a WorkerCluster,
    entry: &'e ClusterEntry,
    breakers: Breakers<'e>,
    retry: Option<&'a RetryPolicy>,
    options: RouterOptions,
    cookies: &'a [Vec<u8>],
    upgrade: bool,
    fresh: bool,
    was_reused: bool,
    /// What makes this one of the cluster's retries.
    retrying: &'a mut Option<Permit<'e>>,
}

impl Attempt<'_, '_> {
    async fn run(
        &mut self,
        client: &mut Client,
        scratch: &mut Scratch,
        record: &mut Record,
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
                    return Ok(Outcome::Failed(Reset::Connect, describe(error)));
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
                Ok(None) => upstream.send(client, b"", body, &limits, to_head, response, timers).await,
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

    fn lost(&self, lost: Lost, record: &mut Record) -> Result<Outcome, Reply> {
        match lost {
            Lost::Reset => Ok(Outcome::Failed(Reset::Terminated, Cow::Borrowed(""))),
            Lost::Protocol => Ok(Outcome::Failed(Reset::Protocol, Cow::Borrowed(""))),
            Lost::TryTimeout => Ok(Outcome::Failed(Reset::Timeout, Cow::Borrowed(""))),
            Lost::Timeout => {
                self.entry.report(&self.host.host, outlier::Outcome::TimedOut);
                Err(self.job.failed(record, Reset::Timeout, Cow::Borrowed(""), false))
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
        record: &mut Record,
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
        self.headers(client, scratch, record, sent_at);
        let old_client = self.job.meta.version == Version::Http10;
        let (length, chunked) = match meta.body {
            BodyLength::UntilClose | BodyLength::Chunked if old_client => (BodyLength::UntilClose, false),
            BodyLength::UntilClose | BodyLength::Chunked => (BodyLength::Chunked, true),
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
        record.status = status;
        record.details = Cow::Borrowed("via_upstream");
        if switching {
            return Ok(Outcome::Over(self.tunnel(client, scratch, record, upstream).await));
        }
        let mut transfer = Transfer::new(meta.body, chunked);
        let buffered = transfer.take_buffered(&mut upstream.input, &client.worker.blocks, &mut scratch.downstream);
        let mut written = 0;
        let mut sending = is_coming(body);
        let result = if buffered.is_err() {
            Err(Failure::Malformed)
        } else {
            poll_fn(|cx| {
                if sending && let Some(request) = body {
                    // What the upstream no longer wants to read is no reason not to hand on what it says.
                    let Client { stream, input, worker, .. } = &mut *client;
                    sending = request.poll(cx, stream, input, &mut upstream.stream, &worker.blocks).is_pending();
                }
                match super::io::poll_write(cx, &mut client.stream, &scratch.downstream, &mut written) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Failure::Sink)),
                    Poll::Pending => return Poll::Pending,
                }
                let polled = transfer.poll(
                    cx,
                    &mut upstream.stream,
                    &mut upstream.input,
                    &mut client.stream,
                    &client.worker.blocks,
                );
                if polled.is_pending() {
                    if timers.poll(cx).is_some() {
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
        record: &mut Record,
        mut upstream: Upstream,
    ) -> After {
        if write_all(&mut client.stream, &scratch.downstream).await.is_ok() {
            let Client { stream, input, worker, .. } = client;
            let (received, sent) =
                tcp::copy_both(stream, input, &mut upstream.stream, &mut upstream.input, &worker.blocks, None).await;
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
    write_all(&mut client.stream, out).await
}

fn describe(error: crate::upstream::ConnectError) -> Cow<'static, str> {
    use crate::upstream::ConnectError;
    match error {
        ConnectError::Timeout => Cow::Borrowed(""),
        ConnectError::Remote(e) | ConnectError::Local(e) => {
            // As the C library words it, without the number that Rust adds.
            let text = e.to_string();
            let text = text.split(" (os error").next().unwrap_or_default().to_owned();
            Cow::Owned(format!("delayed connect error: {text}"))
        }
    }
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
