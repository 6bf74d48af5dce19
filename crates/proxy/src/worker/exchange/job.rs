//! A request that goes upstream: where to, as what, how often.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use maille_http::h1::{BodyLength, RequestMeta};
use maille_http::{HeaderId, RequestHead};
use maille_telemetry::flags::ResponseFlags;
use maille_telemetry::metrics::ClusterMetrics;

use super::attempt::{Attempt, Outcome};
use super::outbound::Outbound;
use super::pause_for;
use super::tunnel::Tunnel;
use crate::balance::Wish;
use crate::config::{
    Destination, Discovery, Forward, HeaderCase, HostRewrite, HttpFilterKind, HttpManager, LbPolicy, RetryPolicy,
    Route, RouterOptions, Upgrade, VirtualHost,
};
use crate::snapshot::Snapshot;
use crate::tls::Carries;
use crate::upstream::{Breakers, Loads, Permit, Purpose, WorkerCluster, WorkerHost};
use crate::worker::hash::{self, Asking};
use crate::worker::http::{After, Client};
use crate::worker::mirror::Copies;
use crate::worker::record::Record;
use crate::worker::reply::{OnRoute, Reply, answer, late_stream, malformed};
use crate::worker::retry::{self, Priorities, Reset, Terms};
use crate::worker::scratch::Scratch;
use crate::worker::text::decimal;
use crate::worker::timers::{Limits, Timers, to_grpc_timeout};
use crate::worker::transfer::{Failure, Trailing};
use crate::worker::upstream_request::{Lost, carries};

/// A request that goes upstream.
pub(super) struct Job<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) manager: &'a HttpManager,
    pub(super) meta: &'a RequestMeta,
    pub(super) host: &'a VirtualHost,
    pub(super) route: &'a Route,
    pub(super) forward: &'a Forward,
    pub(super) random: u64,
    /// The origin that CORS allows to read the response.
    pub(super) origin: Option<Vec<u8>>,
    /// What the client gets when the request has taken too long.
    pub(super) timeout_status: u16,
}

impl Job<'_> {
    pub(super) async fn run(mut self, client: &mut Client, scratch: &mut Scratch, record: &mut Record<'_>) -> After {
        match self.forward_it(client, scratch, record).await {
            Ok(after) => after,
            Err(reply) => {
                let mutations = &self.forward.destination(self.random).response;
                let origin = self.route.cors.as_deref().zip(self.origin.as_deref());
                let on_route = Some(OnRoute { mutations, origin });
                answer(client, self.manager, scratch, record, Some(self.meta), &reply, on_route).await
            }
        }
    }

    async fn forward_it(
        &mut self,
        client: &mut Client,
        scratch: &mut Scratch,
        record: &mut Record<'_>,
    ) -> Result<After, Reply> {
        let destination = self.forward.destination(self.random);
        let cluster = self.cluster(client, destination, &scratch.request)?;
        let entry = cluster.entry();
        record.cluster = Some(entry.clone());
        let (tunnel, ends) = self.tunnel(scratch)?;
        let options = self.router();
        let mut cookies = Vec::new();
        let hash = match entry.config.lb {
            LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. } => {
                let connection = (client.info.remote, client.info.local);
                let asking = Asking { client: record.remote.ip(), connection };
                hash::hash(&self.forward.hash, &scratch.request, asking, &mut cookies)
            }
            _ => None,
        };
        let limits = Limits::of(self.manager, self.forward, &scratch.request);
        let terms = Terms::new(self.forward.retry.as_deref(), &limits, &mut scratch.request);
        self.timeout_status = terms.timeout_status;
        self.rewrite(client, scratch, record, destination, options, &terms);
        if self.host.attempt_count_in_request {
            scratch.request.headers.set_id(HeaderId::XEnvoyAttemptCount, b"1");
        }
        let copies = match self.forward.mirrors.as_slice() {
            mirrors if !mirrors.is_empty() && tunnel == Tunnel::None => {
                Copies::of(&client.worker, mirrors, &scratch.request)
            }
            _ => None,
        };

        let breakers = entry.breakers(self.forward.priority);
        let metrics = &cluster.metrics;
        let retry = terms.retry();
        client.limit_silence(self.forward.idle_timeout.unwrap_or(self.manager.timeouts.stream_idle));
        let mut timers = Timers::new(self.manager, terms.timeout, limits.stream, record.start);
        timers.limit_upstream(terms.stream);
        let limit = self.route.retry_buffer_limit.unwrap_or(u64::from(client.info.listener.buffer_limit));
        let replay = retry.map(|_| limit.min(1 << 20) as usize);
        // The client's spelling comes before the cluster's.
        let case = match self.manager.http1.header_case {
            HeaderCase::Preserve => HeaderCase::Preserve,
            _ if entry.config.http.http1.header_case == HeaderCase::Proper => HeaderCase::Proper,
            _ => HeaderCase::Lower,
        };
        let trailing =
            Trailing { reads: self.manager.http1.enable_trailers, writes: entry.config.http.http1.enable_trailers };
        let mut outbound = Outbound::new(client, scratch, self.meta.body, tunnel, case, trailing, replay);
        outbound.copy_to(copies);
        let carries = if ends { Carries::Bytes } else { carries(entry.config.http.protocol, record.protocol) };
        let mut tried: Vec<Rc<WorkerHost>> = Vec::new();
        let mut priorities = retry.and_then(|policy| policy.avoid_previous_priorities).map(Priorities::new);
        let mut since = None;
        let mut retrying = None;
        loop {
            record.attempts += 1;
            metrics.upstream_rq_total().inc();
            let loads = priorities.as_mut().and_then(|priorities| priorities.loads(&entry.hosts));
            let host = self.pick(client, &cluster, scratch, hash, retry, &tried, loads);
            let host = host.inspect_err(|_| metrics.upstream_cx_none_healthy().inc())?;
            let host = self.for_purpose(client, &cluster, host, scratch);
            if matches!(self.forward.host, HostRewrite::Auto) && record.attempts == 1 && !host.host.hostname.is_empty()
            {
                self.forward.set_host(
                    &mut scratch.request,
                    host.host.hostname.as_bytes(),
                    !options.suppress_envoy_headers,
                );
            }
            if self.host.attempt_count_in_request && record.attempts > 1 {
                let mut digits = [0; 20];
                let count = decimal(record.attempts.into(), &mut digits);
                scratch.request.headers.set_id(HeaderId::XEnvoyAttemptCount, count);
            }
            outbound.compose(carries == Carries::Http2, client, scratch, record)?;
            if outbound.body.is_none() {
                timers.receive();
            }
            record.host = Some(host.clone());
            timers.try_begins(terms.per_try, terms.per_try_idle);
            let began = Instant::now();
            let mut attempt = Attempt {
                job: self,
                host: &host,
                cluster: &cluster,
                entry: &entry,
                breakers,
                retry,
                options,
                cookies: &cookies,
                carries,
                since: *since.get_or_insert(began),
                spoken: false,
                retrying: &mut retrying,
            };
            let outcome = attempt.run(client, scratch, record, &mut outbound, &mut timers).await;
            record.whole = outbound.is_received();
            let outcome = outcome?;
            if let Outcome::Over(_) = outcome {
                let end = *record.end.insert(Instant::now());
                metrics.upstream_rq_time().record(end.saturating_duration_since(began));
                if record.attempts > 1 && (100..500).contains(&record.status) {
                    metrics.upstream_rq_retry_success().inc();
                }
                metrics.response(record.status);
            }
            let spoken = attempt.spoken;
            record.request_end = record.request_end.or(timers.received_at);
            let (reset, failure) = match outcome {
                Outcome::Over(after) => return Ok(after),
                Outcome::Failed(reset, failure) => (Some(reset), failure),
                Outcome::Refused => (None, Cow::Borrowed("")),
            };
            if let Some(reset) = reset {
                count(metrics, reset);
            }
            let asked = retry.filter(|_| reset.is_none()).and_then(|policy| asked_pause(policy, scratch));
            let replayable = !spoken && outbound.can_restart();
            if let Some(outcome) = reset.and_then(Reset::outcome) {
                entry.report(&host.host, outcome);
            }
            let retries = record.attempts - 1;
            if let (Some(policy), Some(reset)) = (retry, reset) {
                retrying = None;
                if replayable && retry::on_reset(policy, reset) {
                    retrying = self.retry(record, metrics, breakers, policy);
                }
            }
            if let Some(policy) = retry.filter(|_| retrying.is_some()) {
                metrics.upstream_rq_retry().inc();
                match asked {
                    Some(_) => metrics.upstream_rq_retry_backoff_ratelimited().inc(),
                    None => metrics.upstream_rq_retry_backoff_exponential().inc(),
                }
                let pause = asked.unwrap_or_else(|| retry::pause(policy, retries));
                // The try is over, and so is its time.
                timers.try_begins(None, None);
                match pause_for(client, pause, Some(&mut timers)).await {
                    Ok(()) => {}
                    Err(Lost::Client(_)) => {
                        client.note_gone(record);
                        return Ok(After::Close);
                    }
                    Err(late) => return Err(self.late(&late, record, true)),
                }
                if let Some(priorities) = &mut priorities {
                    priorities.tried(host.host.priority);
                }
                tried.push(host);
                continue;
            }
            return Err(self.failed(record, reset.unwrap_or(Reset::Terminated), failure, retries > 0));
        }
    }

    /// The right to try again, if any is left to this request and to all of them together.
    pub(super) fn retry<'e>(
        &self,
        record: &mut Record<'_>,
        metrics: &ClusterMetrics,
        breakers: Breakers<'e>,
        policy: &RetryPolicy,
    ) -> Option<Permit<'e>> {
        if record.attempts > policy.max {
            metrics.upstream_rq_retry_limit_exceeded().inc();
            record.flags.set(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
            return None;
        }
        let permit = breakers.retry();
        if permit.is_none() {
            metrics.upstream_rq_retry_overflow().inc();
            record.flags.set(ResponseFlags::UPSTREAM_OVERFLOW);
        }
        permit
    }

    /// What the client is told when there is no response.
    pub(super) fn failed(
        &self,
        record: &mut Record<'_>,
        reset: Reset,
        failure: Cow<'static, str>,
        retried: bool,
    ) -> Reply {
        match reset {
            Reset::TryTimeout => return self.late(&Lost::TryTimeout, record, true),
            Reset::TrySilence => return self.late(&Lost::TrySilence, record, true),
            _ => {}
        }
        let (status, reason, flag) = match reset {
            Reset::ConnectTimeout => (503, "connection timeout", ResponseFlags::UPSTREAM_CONNECTION_FAILURE),
            Reset::Connect => (503, "remote connection failure", ResponseFlags::UPSTREAM_CONNECTION_FAILURE),
            Reset::Protocol => (502, "protocol error", ResponseFlags::UPSTREAM_PROTOCOL_ERROR),
            Reset::Overflow => (503, "overflow", ResponseFlags::UPSTREAM_OVERFLOW),
            Reset::Remote => (503, "remote reset", ResponseFlags::UPSTREAM_REMOTE_RESET),
            Reset::Refused | Reset::Gone => (503, "remote refused stream reset", ResponseFlags::UPSTREAM_REMOTE_RESET),
            _ => (503, "connection termination", ResponseFlags::UPSTREAM_CONNECTION_TERMINATION),
        };
        let retried = if retried { "retried and the latest " } else { "" };
        // Why the transport failed is for the log: whoever is outside learns nothing of what is inside.
        let body =
            format!("upstream connect error or disconnect/reset before headers. {retried}reset reason: {reason}");
        let because = if failure.is_empty() { String::new() } else { format!("|{failure}") };
        let details = format!("upstream_reset_before_response_started{{{reason}{because}}}").replace(' ', "_");
        record.failure = Cow::Owned(failure.replace(' ', "_"));
        let mut reply = Reply::new(status, "").body(body.into_bytes()).flags(flag);
        reply.details = Cow::Owned(details);
        if reset == Reset::Overflow && !self.router().suppress_envoy_headers {
            reply = reply.header(HeaderId::XEnvoyOverloaded, *b"true");
        }
        self.count(record, reply)
    }

    /// What the client is told when something took too long.
    pub(super) fn late(&self, late: &Lost, record: &Record<'_>, received: bool) -> Reply {
        match late {
            Lost::Timeout => self.timed_out(record, "response_timeout"),
            Lost::TryTimeout => self.timed_out(record, "upstream_per_try_timeout"),
            Lost::TrySilence => self.timed_out(record, "upstream_per_try_idle_timeout"),
            stream => late_stream(stream, received),
        }
    }

    /// What the client is told when the response took too long.
    pub(super) fn timed_out(&self, record: &Record<'_>, details: &'static str) -> Reply {
        let mut reply = Reply::new(self.timeout_status, details);
        // Without content there is nothing to say.
        if self.timeout_status == 504 {
            reply = reply.body(&b"upstream request timeout"[..]);
        }
        self.count(record, reply.flags(ResponseFlags::UPSTREAM_REQUEST_TIMEOUT))
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

    /// The tunnel that is asked for, and whether CONNECT ends here; an error when there may be none.
    fn tunnel(&self, scratch: &mut Scratch) -> Result<(Tunnel, bool), Reply> {
        let head = &scratch.request;
        let (tunnel, kind) = match head.method() {
            b"CONNECT" => (Tunnel::Connect, Vec::from(b"connect")),
            _ if !self.meta.upgrade => return Ok((Tunnel::None, false)),
            _ => {
                let kind = head.headers.get(HeaderId::Upgrade).unwrap_or_default();
                (Tunnel::Upgrade, kind.to_ascii_lowercase())
            }
        };
        let rule = |rules: &'_ [Upgrade]| rules.iter().find(|u| u.kind.as_bytes() == kind).map(|u| (u.enabled, u.ends));
        let (allowed, ends) =
            rule(&self.forward.upgrades).or_else(|| rule(&self.manager.upgrades)).unwrap_or((false, false));
        if !allowed {
            return Err(Reply::new(403, "upgrade_failed").close());
        }
        if self.meta.body != BodyLength::Empty {
            // Were the upgrade declined, both sides would have to agree on whether the body still counts.
            return Err(malformed(&Failure::Malformed));
        }
        Ok((tunnel, ends))
    }

    /// Makes the request what goes upstream.
    #[allow(clippy::too_many_arguments, reason = "all that a request's own head depends on")]
    fn rewrite(
        &self,
        client: &Client,
        scratch: &mut Scratch,
        record: &Record,
        destination: &Destination,
        options: RouterOptions,
        terms: &Terms<'_>,
    ) {
        let head = &mut scratch.request;
        if let Some(expected) = terms.expected() {
            if !options.suppress_envoy_headers {
                let mut digits = [0; 20];
                let millis = decimal(expected.as_millis() as u64, &mut digits);
                head.headers.set_id(HeaderId::XEnvoyExpectedRqTimeoutMs, millis);
            }
            if terms.tell_grpc {
                head.headers.set_id(HeaderId::GrpcTimeout, to_grpc_timeout(expected).as_bytes());
            }
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

    #[allow(clippy::too_many_arguments, reason = "all that a choice depends on")]
    fn pick(
        &self,
        client: &Client,
        cluster: &WorkerCluster,
        scratch: &Scratch,
        hash: Option<u64>,
        retry: Option<&RetryPolicy>,
        tried: &[Rc<WorkerHost>],
        loads: Option<&Loads>,
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
            if client.info.comes_back(address, |address| self.snapshot.bound.contains_key(&address)) {
                return Err(none());
            }
            return Ok(cluster.at(address));
        }
        let (attempts, avoid) = match retry {
            Some(policy) if policy.avoid_previous_hosts && !tried.is_empty() => (policy.host_selection_attempts, true),
            _ => (0, false),
        };
        let seen = |host: &WorkerHost| avoid && tried.iter().any(|old| old.host.address == host.host.address);
        cluster.pick(&Wish { hash, attempts, avoid: seen, loads }).ok_or_else(none)
    }
}

/// The pause that the last response asked for.
fn asked_pause(policy: &RetryPolicy, scratch: &Scratch) -> Option<Duration> {
    policy.rate_limited.as_ref()?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    retry::asked_pause(policy, &scratch.response, now.as_secs())
}

impl Job<'_> {
    /// The host with connections that are for this request, where not every connection is for every request.
    #[inline]
    fn for_purpose(
        &self,
        client: &Client,
        cluster: &WorkerCluster,
        host: Rc<WorkerHost>,
        scratch: &Scratch,
    ) -> Rc<WorkerHost> {
        let by_name = host.transport.asks_by_request;
        let told = host.transport.proxy_protocol.is_some();
        if !by_name && !told {
            return host;
        }
        let authority = by_name.then(|| maille_http::host::split_port(scratch.request.authority()).0);
        let name = authority.and_then(|name| std::str::from_utf8(name).ok());
        let purpose = Purpose {
            server_name: name.map(|name| name.trim_matches(['[', ']']).to_ascii_lowercase().into()),
            client: told.then_some((client.info.remote, client.info.local)),
            ..host.purpose.clone()
        };
        cluster.for_purpose(&host, purpose)
    }
}

/// Counts what became of a try that brought no response.
fn count(metrics: &ClusterMetrics, reset: Reset) {
    match reset {
        Reset::Overflow => metrics.upstream_rq_pending_overflow().inc(),
        Reset::Terminated | Reset::Remote | Reset::Refused => metrics.upstream_rq_rx_reset().inc(),
        Reset::Protocol => metrics.upstream_cx_protocol_error().inc(),
        Reset::TryTimeout => metrics.upstream_rq_per_try_timeout().inc(),
        Reset::TrySilence => metrics.upstream_rq_per_try_idle_timeout().inc(),
        _ => {}
    }
}
