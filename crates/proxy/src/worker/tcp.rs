//! Forwarding of whole connections, byte for byte, each direction ending on its own.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use maille_http::h1::BodyLength;
use maille_telemetry::flags::ResponseFlags;
use xxhash_rust::xxh64::xxh64;

use super::Worker;
use super::body::{Sink, Source};
use super::buffers::Blocks;
use super::connection::ConnectionInfo;
use super::gate;
use super::io::{Input, Stream, poll_shutdown};
use super::transfer::Transfer;
use crate::balance::Wish;
use crate::config::{Discovery, Priority, TcpDestination, TcpProxy};
use crate::headers::{LogValues, StreamInfo};
use crate::tls::Carries;
use crate::upstream::outlier::Outcome;
use crate::upstream::{ClusterEntry, ConnectError, Counted, Purpose, connect};

/// Serves a connection to its end.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    mut stream: Stream,
    mut input: Input,
    proxy: Arc<TcpProxy>,
    info: ConnectionInfo,
) {
    let _registered = worker.connections.add(info.listener.direction);
    let mut facts = Facts::default();
    let start = Instant::now();
    if let Err(refusal) = gate::admits(&info) {
        tracing::debug!(remote = %info.remote, details = refusal.details, "a policy refuses the connection");
        facts.termination = refusal.details;
        if !proxy.access_logs.is_empty() {
            log(&worker, &proxy, &info, &facts, start);
        }
        return;
    }
    let work = async {
        let Some((mut upstream, _counted)) = reach(&worker, &proxy, &info, &mut facts).await else { return };
        let mut upstream_input = Input::default();
        let idle = proxy.idle_timeout;
        facts.upstream_local = upstream.local_addr().ok();
        (facts.received, facts.sent) =
            copy_both(&mut stream, &mut input, &mut upstream, &mut upstream_input, &worker.blocks, idle).await;
        upstream_input.release(&worker.blocks);
    };
    match proxy.max_duration {
        Some(limit) => {
            let _ = tokio::time::timeout(limit, work).await;
        }
        None => work.await,
    }
    input.release(&worker.blocks);
    if !proxy.access_logs.is_empty() {
        log(&worker, &proxy, &info, &facts, start);
    }
}

/// What a log says of a connection.
#[derive(Default)]
struct Facts {
    flags: ResponseFlags,
    cluster: Option<Arc<ClusterEntry>>,
    host: Option<SocketAddr>,
    upstream_local: Option<SocketAddr>,
    received: u64,
    sent: u64,
    /// Why it was closed, in Envoy's words.
    termination: String,
    /// Why there is no TLS with the host.
    failure: Box<str>,
}

fn log(worker: &Worker, proxy: &TcpProxy, info: &ConnectionInfo, facts: &Facts, start: Instant) {
    let duration = start.elapsed();
    let cluster = facts.cluster.as_ref().map(|entry| &entry.config);
    let stream = StreamInfo {
        start: SystemTime::now().checked_sub(duration).unwrap_or(SystemTime::UNIX_EPOCH),
        duration,
        bytes_received: facts.received,
        bytes_sent: facts.sent,
        response_flags: facts.flags,
        connection_termination_details: &facts.termination,
        downstream_remote: Some(info.remote),
        downstream_direct_remote: Some(info.direct),
        downstream_local: Some(info.local),
        upstream_host: facts.host,
        upstream_local: facts.upstream_local,
        upstream_cluster: cluster.map_or("", |c| &c.stat_name),
        upstream_cluster_raw: cluster.map_or("", |c| &c.name),
        connection_id: info.id,
        server_name: &info.server_name,
        tls: info.tls.as_deref(),
        upstream_failure: &facts.failure,
        filter_chain_name: &info.chain.name,
        hostname: &worker.hostname,
        ..StreamInfo::default()
    };
    worker.logs.write(&proxy.access_logs, &LogValues { request: None, response: None, stream: &stream });
}

/// A connection to where this one goes.
async fn reach(
    worker: &Rc<Worker>,
    proxy: &TcpProxy,
    info: &ConnectionInfo,
    facts: &mut Facts,
) -> Option<(Stream, Counted)> {
    let name = match &proxy.cluster {
        TcpDestination::Cluster(name) => &**name,
        TcpDestination::Weighted(clusters) => &*clusters.pick(fastrand::u64(..)).cluster,
        TcpDestination::Sni if info.server_name.is_empty() => {
            facts.flags.set(ResponseFlags::NO_CLUSTER_FOUND);
            return None;
        }
        TcpDestination::Sni => &*info.server_name,
    };
    let Some(cluster) = worker.cluster(name) else {
        facts.flags.set(ResponseFlags::NO_CLUSTER_FOUND);
        return None;
    };
    let hash = proxy.hash_source_ip.then(|| xxh64(info.remote.ip().to_string().as_bytes(), 0));
    for _ in 0..proxy.max_connect_attempts.max(1) {
        let entry = cluster.entry();
        facts.cluster = Some(entry.clone());
        let host = match &entry.config.discovery {
            Discovery::OriginalDst(_) => {
                let snapshot = worker.snapshot();
                if info.comes_back(info.local, |address| snapshot.bound.contains_key(&address)) {
                    return None;
                }
                cluster.at(info.local)
            }
            _ => match cluster.pick(&Wish::of(hash)) {
                Some(host) => host,
                None => {
                    facts.flags.set(ResponseFlags::NO_HEALTHY_UPSTREAM);
                    return None;
                }
            },
        };
        facts.host = Some(host.host.address);
        let breakers = entry.breakers(Priority::Default);
        let (Some(_pending), Some(counted)) = (breakers.pending(), Counted::new(&host.host, breakers)) else {
            facts.flags.set(ResponseFlags::UPSTREAM_OVERFLOW);
            return None;
        };
        let client = host.transport.proxy_protocol.map(|_| (info.remote, info.local));
        let purpose = Purpose { carries: Carries::Bytes, server_name: None, client };
        let error = match connect(&entry.config, &host, &purpose).await {
            Ok(stream) => {
                entry.report(&host.host, Outcome::Established);
                return Some((stream, counted));
            }
            Err(error) => error,
        };
        let timed_out = matches!(error, ConnectError::Timeout);
        entry.report(&host.host, if timed_out { Outcome::TimedOut } else { Outcome::Failed });
        tracing::debug!(cluster = %entry.config.name, address = %host.host.address, ?error, "cannot connect");
        if let ConnectError::Tls(why) = error {
            facts.failure = why;
        }
    }
    facts.flags.set(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
    None
}

/// Copies both ways until both directions have ended or one has failed; how many bytes went each way.
pub(crate) async fn copy_both(
    client: &mut Stream,
    client_input: &mut Input,
    upstream: &mut Stream,
    upstream_input: &mut Input,
    blocks: &Blocks,
    idle: Option<Duration>,
) -> (u64, u64) {
    let mut there = Direction::new();
    let mut back = Direction::new();
    let mut moved = 0;
    let mut timer = idle.map(|limit| (limit, Box::pin(tokio::time::sleep(limit))));
    poll_fn(|cx| {
        let a = there.poll(cx, client, client_input, upstream, blocks);
        let b = back.poll(cx, upstream, upstream_input, client, blocks);
        if let Some((limit, timer)) = &mut timer {
            let total = there.transfer.total + back.transfer.total;
            if std::mem::replace(&mut moved, total) != total {
                timer.as_mut().reset(tokio::time::Instant::now() + *limit);
            }
            if timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
        }
        match (a, b) {
            (Poll::Ready(Err(())), _) | (_, Poll::Ready(Err(()))) => Poll::Ready(()),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    })
    .await;
    (there.transfer.total, back.transfer.total)
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
        cx: &mut std::task::Context<'_>,
        source: &mut Stream,
        input: &mut Input,
        sink: &mut Stream,
        blocks: &Blocks,
    ) -> Poll<Result<(), ()>> {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        match self.transfer.poll(cx, &mut Source::Http1(source, input), &mut Sink::Http1(sink), blocks) {
            Poll::Ready(Ok(())) => match poll_shutdown(cx, sink) {
                Poll::Ready(Ok(())) => {
                    self.ended = true;
                    Poll::Ready(Ok(()))
                }
                Poll::Ready(Err(_)) => Poll::Ready(Err(())),
                Poll::Pending => Poll::Pending,
            },
            Poll::Ready(Err(_)) => Poll::Ready(Err(())),
            Poll::Pending => Poll::Pending,
        }
    }
}
