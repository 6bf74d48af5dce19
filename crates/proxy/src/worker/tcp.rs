//! Forwarding of whole connections, byte for byte, each direction ending on its own.

mod standing;
mod tunnel;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use maille_telemetry::flags::ResponseFlags;
use tokio::time::timeout;
use xxhash_rust::xxh64::xxh64;

use standing::Standing;
use tunnel::{End, Open};

use super::Worker;
use super::connection::ConnectionInfo;
use super::gate;
use super::io::{Input, Stream};
use super::relay::Relay;
use crate::balance::Wish;
use crate::config::{Discovery, Metadata, Priority, TcpDestination, TcpProxy};
use crate::headers::{LogValues, StreamInfo};
use crate::tls::Carries;
use crate::upstream::outlier::Outcome;
use crate::upstream::{ConnectError, Counted, Entry, Purpose, WorkerHost, connect};

/// A proxy that is asked for a way has this long to answer when the configuration sets no limit.
const TUNNEL: Duration = Duration::from_secs(3600);

/// Serves a connection to its end.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    stream: Stream,
    input: Input,
    proxy: Arc<TcpProxy>,
    info: ConnectionInfo,
) {
    let registered = worker.register(&info.listener);
    let mut facts = Facts::default();
    let start = Instant::now();
    if let Err(refused) = Box::pin(gate::lets_in(&worker, &info)).await {
        tracing::debug!(remote = %info.remote, details = refused.details, "a policy refuses the connection");
        facts.termination = refused.details;
        facts.flags.set(refused.flags);
        if !proxy.access_logs.is_empty() {
            log(&worker, &proxy, &info, &facts, start);
        }
        return;
    }
    let mut client = End::Http1(stream, input);
    let mut relay = None;
    let work = async {
        // Only a connection that is being made needs what making one takes.
        let reached = Box::pin(reach(&worker, &proxy, &info, &mut facts)).await;
        let Some((Open { mut end, relay: reached }, host, _counted)) = reached else { return };
        if let Some(stats) = proxy.istio_stats {
            worker.istio.opened(&info, facts.cluster.as_deref(), facts.metadata.as_deref(), stats);
        }
        let standing = Standing { worker: &worker, info: &info, slot: &registered.slot };
        let mut severed = std::pin::pin!(host.as_deref().map(|host| host.pool.severed()));
        let mut ended = |cx: &mut Context<'_>| match standing.poll_end(cx) {
            Poll::Ready(why) => {
                facts.termination = why;
                true
            }
            Poll::Pending => severed.as_mut().as_pin_mut().is_some_and(|severed| severed.poll(cx).is_ready()),
        };
        let relay = relay.insert(reached);
        relay.run(&mut client, &mut end, &worker, &info.share, proxy.idle_timeout, &mut ended).await;
        end.release(&worker.blocks);
    };
    match proxy.max_duration {
        Some(limit) => {
            let _ = tokio::time::timeout(limit, work).await;
        }
        None => work.await,
    }
    client.release(&worker.blocks);
    (facts.received, facts.sent) = relay.as_ref().map(Relay::totals).unwrap_or_default();
    if let Some(stats) = proxy.istio_stats {
        let moved = (facts.received, facts.sent);
        worker.istio.closed(&info, facts.cluster.as_deref(), facts.metadata.as_deref(), stats, moved);
    }
    if !proxy.access_logs.is_empty() {
        log(&worker, &proxy, &info, &facts, start);
    }
}

/// What a log says of a connection.
#[derive(Default)]
struct Facts {
    flags: ResponseFlags,
    cluster: Option<Entry>,
    host: Option<SocketAddr>,
    /// The host's metadata.
    metadata: Option<Arc<Metadata>>,
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

/// A connection to where this one goes; with the host, where one that fails loses its connections.
async fn reach(
    worker: &Rc<Worker>,
    proxy: &TcpProxy,
    info: &ConnectionInfo,
    facts: &mut Facts,
) -> Option<(Open, Option<Rc<WorkerHost>>, Counted)> {
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
        facts.metadata = host.host.metadata.clone();
        let breakers = entry.breakers(Priority::Default);
        let (Some(_pending), Some(counted)) = (breakers.pending(), Counted::new(&host.host, breakers)) else {
            facts.flags.set(ResponseFlags::UPSTREAM_OVERFLOW);
            return None;
        };
        let client = host.transport.proxy_protocol.map(|_| (info.remote, info.local));
        let carries = match &proxy.tunnel {
            None => Carries::Bytes,
            Some(_) => entry.config.http.protocol.into(),
        };
        let purpose = Purpose { carries, server_name: None, client };
        let error = match connect(&entry.config, &host, &purpose).await {
            Ok(stream) => {
                entry.report(&host.host, Outcome::Established);
                facts.upstream_local = stream.local_addr().ok();
                let host = entry.config.close_on_host_failure.then(|| host.clone());
                let Some(tunnel) = &proxy.tunnel else { return Some((Open::bytes(stream), host, counted)) };
                let opening = tunnel::open(stream, tunnel, &entry.config.http, carries, &worker.blocks);
                match timeout(proxy.idle_timeout.unwrap_or(TUNNEL), opening).await {
                    Ok(Ok(open)) => return Some((open, host, counted)),
                    Ok(Err(why)) => tracing::debug!(cluster = %entry.config.name, %why, "no tunnel"),
                    Err(_) => tracing::debug!(cluster = %entry.config.name, "no tunnel in time"),
                }
                continue;
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
