//! `/stats` and `/stats/prometheus`: what is counted, and what can be seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use maille_telemetry::metrics::{Collection, Filter, Name, Scope};
use maille_xds::TypeUrl;
use maille_xds::types::ValueKind;
use maille_xds::types::core::Node;
use regex::Regex;

use super::answer::{Process, View};
use super::query::Query;
use super::{Answer, server};
use crate::config::Health;
use crate::upstream::{ClusterEntry, Load};
use crate::worker::Level;

/// Which statistics there are at all: Istio's `proxyStatsMatcher`, as the node's annotations have it.
#[derive(Debug, Default)]
pub(crate) struct Inclusion {
    prefixes: Vec<String>,
    suffixes: Vec<String>,
    patterns: Vec<Regex>,
}

/// What Istio shows whatever is asked for.
const ALWAYS: [&str; 6] = ["cluster_manager", "listener_manager", "server", "control_plane", "istio", "overload"];

impl Inclusion {
    /// Everything, unless the node's annotations restrict it.
    pub(crate) fn of(node: &Node) -> Inclusion {
        let annotation = |name: &str| {
            let fields = &node.metadata.as_ref()?.fields;
            let Some(ValueKind::StructValue(all)) = fields.get("ANNOTATIONS").and_then(|v| v.kind.as_ref()) else {
                return None;
            };
            match all.fields.get(name)?.kind.as_ref()? {
                ValueKind::StringValue(text) => Some(text.clone()),
                _ => None,
            }
        };
        let list = |name: &str| {
            let text = annotation(&format!("sidecar.istio.io/{name}")).unwrap_or_default();
            text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        };
        let pattern = |text: &String| {
            Regex::new(&format!("^(?:{text})$")).inspect_err(|e| tracing::warn!("statsInclusionRegexps: {e}")).ok()
        };
        Inclusion {
            prefixes: list("statsInclusionPrefixes"),
            suffixes: list("statsInclusionSuffixes"),
            patterns: list("statsInclusionRegexps").iter().filter_map(pattern).collect(),
        }
    }

    fn is_everything(&self) -> bool {
        self.prefixes.is_empty() && self.suffixes.is_empty() && self.patterns.is_empty()
    }

    fn has(&self, name: &str) -> bool {
        self.is_everything()
            || ALWAYS.iter().any(|prefix| name.starts_with(prefix))
            || self.prefixes.iter().any(|prefix| name.starts_with(prefix))
            || self.suffixes.iter().any(|suffix| name.ends_with(suffix))
            || self.patterns.iter().any(|pattern| pattern.is_match(name))
    }
}

pub(super) fn prometheus(view: &View<'_>, query: &Query) -> Answer {
    with_filter(view, query, |all, filter| Answer {
        status: 200,
        content_type: "text/plain; version=0.0.4; charset=UTF-8",
        body: all.prometheus(filter),
    })
}

pub(super) fn stats(view: &View<'_>, query: &Query) -> Answer {
    match query.get("format") {
        Some("prometheus") => prometheus(view, query),
        Some("json") => with_filter(view, query, |all, filter| Answer::json(&all.json(filter))),
        None | Some("text" | "html") => with_filter(view, query, |all, filter| Answer::text(200, all.lines(filter))),
        Some(_) => Answer::text(400, "usage: /stats?format=(text|json|prometheus)\n"),
    }
}

fn with_filter(view: &View<'_>, query: &Query, show: impl FnOnce(&Collection, Filter<'_>) -> Answer) -> Answer {
    let regex = match query.get("filter").map(Regex::new) {
        Some(Err(error)) => return Answer::text(400, format!("Invalid re2 regex: {error}\n")),
        Some(Ok(regex)) => Some(regex),
        None => None,
    };
    let inclusion = &view.process.stats;
    let likes = |name: &str| inclusion.has(name) && regex.as_ref().is_none_or(|regex| regex.is_match(name));
    let any = regex.is_none() && inclusion.is_everything();
    let filter = Filter { name: if any { None } else { Some(&likes) }, used_only: query.has("usedonly") };
    let mut all = collect(view);
    match query.get("type") {
        None | Some("All") => {}
        Some(kind) if all.only(kind) => {}
        Some(_) => return Answer::text(400, "usage: /stats?type=(All|Counters|Gauges|Histograms|TextReadouts)\n"),
    }
    show(&all, filter)
}

/// Everything that is counted, and everything that can be seen.
fn collect(view: &View<'_>) -> Collection {
    let mut all = view.process.registry.collect();
    for entry in view.served.clusters.values() {
        cluster(&mut all, entry);
    }
    managers(&mut all, view);
    let process = view.process;
    let resident = server::resident();
    let connections = process.overload.connections() as u64;
    let most = process.overload.most() as u64;
    all.gauge(Name { scope: Scope::Overload, suffix: "global_downstream_max_connections.limit" }, "", most);
    let pressure = Name { scope: Scope::Overload, suffix: "global_downstream_max_connections.pressure" };
    all.gauge(pressure, "", connections * 100 / most.max(1));
    held(&mut all, process);
    let state = ["LIVE", "DRAINING", "PRE_INITIALIZING", "INITIALIZING"].iter().position(|s| *s == server::state(view));
    for (suffix, value) in [
        ("live", u64::from(server::state(view) == "LIVE")),
        ("state", state.unwrap_or(3) as u64),
        ("uptime", process.started.elapsed().as_secs()),
        ("concurrency", process.concurrency as u64),
        ("memory_allocated", resident),
        ("memory_heap_size", resident),
        ("memory_physical_size", resident),
        ("total_connections", connections),
        ("parent_connections", 0),
        ("hot_restart_epoch", 0),
    ] {
        all.gauge(Name { scope: Scope::Server, suffix }, "", value);
    }
    let (connections, workers) = process.overload.panics();
    all.counter(Name { scope: Scope::Server, suffix: "connection_panics" }, "", connections);
    all.counter(Name { scope: Scope::Server, suffix: "worker_panics" }, "", workers);
    let dropped = Name { scope: Scope::Server, suffix: "access_log_dropped_bytes" };
    all.counter(dropped, "", process.logs.dropped());
    all
}

/// What workers hold for others, and what is shed because of it.
fn held(all: &mut Collection, process: &Process) {
    let limits = process.overload.limits();
    let (held, most) = (process.overload.held(), limits.new / 95 * 100 * process.concurrency);
    let mut gauge = |suffix, value| all.gauge(Name { scope: Scope::Overload, suffix }, "", value);
    gauge("held_bytes.limit", most as u64);
    gauge("held_bytes.pressure", (held * 100 / most.max(1)) as u64);
    // Each worker sheds by itself; on the average it is this.
    let level = limits.level(held / process.concurrency.max(1));
    gauge("envoy.overload_actions.close_idle_http_connections.active", u64::from(level >= Level::Idle));
    gauge("envoy.overload_actions.disable_http_keepalive.active", u64::from(level >= Level::Idle));
    gauge("envoy.overload_actions.reset_high_memory_stream.active", u64::from(level >= Level::Largest));
    gauge("envoy.overload_actions.stop_accepting_requests.active", u64::from(level >= Level::New));
    gauge("envoy.overload_actions.reject_incoming_connections.active", u64::from(level >= Level::New));
    let reset = Name { scope: Scope::Overload, suffix: "envoy.overload_actions.reset_high_memory_stream.count" };
    all.counter(reset, "", process.overload.streams_reset());
}

fn cluster(all: &mut Collection, entry: &ClusterEntry) {
    let subject = &*entry.config.stat_name;
    let mut gauge = |suffix, value| all.gauge(Name { scope: Scope::Cluster, suffix }, subject, value);
    let hosts: Vec<_> = entry.hosts.hosts().collect();
    let with = |health: Health| hosts.iter().filter(|host| host.condition() == health).count() as u64;
    let ejected = hosts.iter().filter(|host| host.condition() != host.health).count() as u64;
    let sum = |of: fn(&Load) -> &AtomicU32| -> u64 {
        entry.loads.iter().map(|load| u64::from(of(load).load(Ordering::Relaxed))).sum()
    };
    gauge("upstream_cx_active", sum(|load| &load.connections));
    gauge("upstream_rq_pending_active", sum(|load| &load.pending));
    let at_work = hosts.iter().map(|host| u64::from(host.load.requests.load(Ordering::Relaxed))).sum();
    gauge("upstream_rq_active", at_work);
    gauge("membership_total", hosts.len() as u64);
    gauge("membership_healthy", with(Health::Healthy));
    gauge("membership_degraded", with(Health::Degraded));
    gauge("membership_excluded", 0);
    if entry.config.outlier.is_some() {
        gauge("outlier_detection.ejections_active", ejected);
    }
    let config = &entry.config;
    breakers(&mut gauge, &config.limits, &entry.loads[0], &DEFAULT);
    breakers(&mut gauge, &config.high_priority_limits, &entry.loads[1], &HIGH);
}

/// Whether a circuit breaker is open, and how much is left, by what it counts: connections, pending, requests, retries.
struct BreakerNames {
    open: [&'static str; 4],
    remaining: [&'static str; 4],
}

const DEFAULT: BreakerNames = BreakerNames {
    open: [
        "circuit_breakers.default.cx_open",
        "circuit_breakers.default.rq_pending_open",
        "circuit_breakers.default.rq_open",
        "circuit_breakers.default.rq_retry_open",
    ],
    remaining: [
        "circuit_breakers.default.remaining_cx",
        "circuit_breakers.default.remaining_pending",
        "circuit_breakers.default.remaining_rq",
        "circuit_breakers.default.remaining_retries",
    ],
};

const HIGH: BreakerNames = BreakerNames {
    open: [
        "circuit_breakers.high.cx_open",
        "circuit_breakers.high.rq_pending_open",
        "circuit_breakers.high.rq_open",
        "circuit_breakers.high.rq_retry_open",
    ],
    remaining: [
        "circuit_breakers.high.remaining_cx",
        "circuit_breakers.high.remaining_pending",
        "circuit_breakers.high.remaining_rq",
        "circuit_breakers.high.remaining_retries",
    ],
};

fn breakers(
    gauge: &mut impl FnMut(&'static str, u64),
    limits: &crate::config::Limits,
    load: &Arc<Load>,
    names: &BreakerNames,
) {
    let pairs = [
        (limits.max_connections, &load.connections),
        (limits.max_pending_requests, &load.pending),
        (limits.max_requests, &load.requests),
        (limits.max_retries, &load.retries),
    ];
    for (at, (limit, used)) in pairs.into_iter().enumerate() {
        let left = limit.saturating_sub(used.load(Ordering::Relaxed));
        gauge(names.open[at], u64::from(left == 0));
        // Envoy shows these when `track_remaining` asks for it; a limit that nobody set has nothing left to tell.
        if limit != u32::MAX {
            gauge(names.remaining[at], left.into());
        }
    }
}

fn managers(all: &mut Collection, view: &View<'_>) {
    let (clusters, listeners) = (view.kept.tally(TypeUrl::Cluster), view.kept.tally(TypeUrl::Listener));
    let (cold_clusters, cold_listeners) = view.assembly.cold();
    let name = |scope, suffix| Name { scope, suffix };
    for (suffix, value) in [
        ("cluster_added", clusters.added),
        ("cluster_modified", clusters.modified),
        ("cluster_removed", clusters.removed),
        ("cds.update_attempt", clusters.updates),
        ("cds.update_success", clusters.updates - clusters.rejected),
        ("cds.update_rejected", clusters.rejected),
    ] {
        all.counter(name(Scope::ClusterManager, suffix), "", value);
    }
    all.gauge(name(Scope::ClusterManager, "active_clusters"), "", view.served.clusters.len() as u64);
    all.gauge(name(Scope::ClusterManager, "warming_clusters"), "", cold_clusters.len() as u64);
    for (suffix, value) in [
        ("listener_added", listeners.added),
        ("listener_modified", listeners.modified),
        ("listener_removed", listeners.removed),
        ("lds.update_attempt", listeners.updates),
        ("lds.update_success", listeners.updates - listeners.rejected),
        ("lds.update_rejected", listeners.rejected),
    ] {
        all.counter(name(Scope::ListenerManager, suffix), "", value);
    }
    all.gauge(name(Scope::ListenerManager, "total_listeners_active"), "", view.served.listeners.len() as u64);
    all.gauge(name(Scope::ListenerManager, "total_listeners_warming"), "", cold_listeners.len() as u64);
    all.gauge(name(Scope::ListenerManager, "total_listeners_draining"), "", 0);
    all.gauge(name(Scope::ListenerManager, "workers_started"), "", 1);
    all.gauge(name(Scope::ControlPlane, "connected_state"), "", view.status.connected.into());
}
