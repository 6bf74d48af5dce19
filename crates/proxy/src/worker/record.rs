//! What is written down about a request while it is served, for headers, logs and metrics.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use maille_http::Name;
use maille_telemetry::flags::ResponseFlags;

use super::connection::ConnectionInfo;
use super::http::Client;
use super::scratch::Scratch;
use crate::config::{HttpFilter, HttpManager, Route};
use crate::headers::{LogValues, Protocol, StreamInfo};
use crate::upstream::{Entry, WorkerHost};

/// What is known of one request so far.
pub(crate) struct Record<'s> {
    pub(crate) start: Instant,
    pub(crate) protocol: Protocol,
    /// What the host is spoken with, once there is a connection to it.
    pub(crate) upstream_protocol: Option<Protocol>,
    pub(crate) flags: ResponseFlags,
    pub(crate) details: Cow<'static, str>,
    pub(crate) failure: Cow<'static, str>,
    pub(crate) status: u16,
    pub(crate) attempts: u32,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) route: Option<&'s Route>,
    pub(crate) cluster: Option<Entry>,
    pub(crate) host: Option<Rc<WorkerHost>>,
    pub(crate) upstream_local: Option<SocketAddr>,
    /// The client, as far as forwarding headers are believed.
    pub(crate) remote: SocketAddr,
    /// What filters add to the response's headers.
    pub(crate) added: Vec<(Name, Vec<u8>)>,
    /// Whether nothing more of the request comes.
    pub(crate) whole: bool,
    pub(crate) request_end: Option<Instant>,
    pub(crate) request_sent: Option<Instant>,
    pub(crate) response_start: Option<Instant>,
    /// When it was over, if somebody has looked.
    pub(crate) end: Option<Instant>,
}

impl<'s> Record<'s> {
    pub(crate) fn new(info: &ConnectionInfo, protocol: Protocol) -> Record<'s> {
        Record {
            start: Instant::now(),
            protocol,
            upstream_protocol: None,
            flags: ResponseFlags::default(),
            details: Cow::Borrowed(""),
            failure: Cow::Borrowed(""),
            status: 0,
            attempts: 0,
            received: 0,
            sent: 0,
            route: None,
            cluster: None,
            host: None,
            upstream_local: None,
            remote: info.remote,
            added: Vec::new(),
            whole: false,
            request_end: None,
            request_sent: None,
            response_start: None,
            end: None,
        }
    }

    /// The request is over: it is counted and logged.
    pub(crate) fn finish(&mut self, client: &Client, manager: &HttpManager, scratch: &Scratch) {
        let took = self.duration();
        let metrics = &client.metrics;
        metrics.downstream_rq_total().inc();
        match self.protocol {
            Protocol::Http2 => metrics.downstream_rq_http2_total().inc(),
            Protocol::Http10 | Protocol::Http11 => metrics.downstream_rq_http1_total().inc(),
        }
        metrics.downstream_rq_time().record(took);
        metrics.response(self.status);
        if self.flags.has(ResponseFlags::NO_ROUTE_FOUND) {
            metrics.no_route().inc();
        }
        if self.flags.has(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR) {
            metrics.downstream_cx_protocol_error().inc();
        }
        if self.flags.has(ResponseFlags::NO_CLUSTER_FOUND) {
            metrics.no_cluster().inc();
        }
        if self.flags.has(ResponseFlags::STREAM_IDLE_TIMEOUT) {
            metrics.downstream_rq_idle_timeout().inc();
        }
        if self.flags.has(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION | ResponseFlags::DOWNSTREAM_REMOTE_RESET) {
            metrics.downstream_rq_rx_reset().inc();
        }
        if let Some(stats) = manager.filters.iter().find_map(HttpFilter::istio_stats) {
            client.worker.istio.request(&client.info, self, stats, scratch, took);
        }
        if !manager.access_logs.is_empty() {
            let stream = self.stream(&client.info, &client.worker.hostname);
            let response = (self.status != 0).then_some(&scratch.response);
            let values = LogValues { request: Some(&scratch.request), response, stream: &stream };
            client.worker.logs.write(&manager.access_logs, &values);
        }
    }

    fn end(&self) -> Instant {
        self.end.unwrap_or_else(Instant::now)
    }

    /// How long it took, or has taken so far.
    fn duration(&self) -> Duration {
        self.end().saturating_duration_since(self.start)
    }

    /// As operators in headers and logs see it.
    pub(crate) fn stream<'a>(&'a self, info: &'a ConnectionInfo, hostname: &'a str) -> StreamInfo<'a> {
        let duration = self.duration();
        let since = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(self.start));
        let host = self.host.as_deref().map(|h| &h.host);
        let cluster = self.cluster.as_ref().map(|c| &c.config);
        StreamInfo {
            protocol: Some(self.protocol),
            upstream_protocol: self.upstream_protocol,
            start: SystemTime::now().checked_sub(duration).unwrap_or(SystemTime::UNIX_EPOCH),
            duration,
            request_duration: since(self.request_end),
            request_tx_duration: since(self.request_sent),
            response_duration: since(self.response_start),
            response_tx_duration: self.response_start.map(|at| self.end().saturating_duration_since(at)),
            bytes_received: self.received,
            bytes_sent: self.sent,
            response_code: self.status,
            response_code_details: &self.details,
            connection_termination_details: "",
            response_flags: self.flags,
            downstream_remote: Some(self.remote),
            downstream_direct_remote: Some(info.direct),
            downstream_local: Some(info.local),
            upstream_host: host.map(|h| h.address),
            upstream_host_name: host.map_or("", |h| &h.hostname),
            upstream_metadata: host.and_then(|h| h.metadata.as_deref()),
            upstream_local: self.upstream_local,
            upstream_cluster: cluster.map_or("", |c| &c.stat_name),
            upstream_cluster_raw: cluster.map_or("", |c| &c.name),
            cluster_metadata: cluster.and_then(|c| c.metadata.as_deref()),
            attempts: self.attempts,
            upstream_failure: &self.failure,
            downstream_failure: "",
            connection_id: info.id,
            server_name: &info.server_name,
            tls: info.tls.as_deref(),
            route_name: self.route.map_or("", |r| &r.name),
            filter_chain_name: &info.chain.name,
            hostname,
        }
    }
}
