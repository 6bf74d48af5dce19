//! `/clusters`: every cluster, its limits, its hosts and what goes on there.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::answer::View;
use crate::config::{Discovery, Health, Limits};
use crate::upstream::{ClusterEntry, Host};

fn sorted<'a>(view: &'a View<'_>) -> Vec<&'a Arc<ClusterEntry>> {
    let mut all: Vec<_> = view.served.clusters.values().collect();
    all.sort_by(|a, b| a.config.name.cmp(&b.config.name));
    all
}

/// Every host and its priority.
fn hosts(entry: &ClusterEntry) -> impl Iterator<Item = (usize, &Arc<Host>)> {
    let priorities = entry.hosts.priorities.iter().enumerate();
    priorities.flat_map(|(priority, hosts)| hosts.all.iter().map(move |host| (priority, host)))
}

pub(super) fn text(view: &View<'_>) -> String {
    let mut out = String::new();
    for entry in sorted(view) {
        write_cluster(&mut out, entry);
    }
    out
}

fn write_cluster(out: &mut String, entry: &ClusterEntry) {
    let config = &entry.config;
    let name = &config.name;
    // Writing to a String cannot fail.
    let mut line = |rest: String| {
        let _ = writeln!(out, "{name}::{rest}");
    };
    line(format!("observability_name::{}", config.stat_name));
    for (priority, limits) in [("default", &config.limits), ("high", &config.high_priority_limits)] {
        line(format!("{priority}_priority::max_connections::{}", limits.max_connections));
        line(format!("{priority}_priority::max_pending_requests::{}", limits.max_pending_requests));
        line(format!("{priority}_priority::max_requests::{}", limits.max_requests));
        line(format!("{priority}_priority::max_retries::{}", limits.max_retries));
    }
    line("added_via_api::true".into());
    if let Discovery::Eds(eds) = &config.discovery {
        line(format!("eds_service_name::{eds}"));
    }
    for (priority, host) in hosts(entry) {
        let at = host.address;
        line(format!("{at}::cx_active::{}", host.load.connections.load(Ordering::Relaxed)));
        line(format!("{at}::rq_active::{}", host.load.requests.load(Ordering::Relaxed)));
        line(format!("{at}::hostname::{}", host.hostname));
        line(format!("{at}::health_flags::{}", flags(host)));
        line(format!("{at}::weight::{}", host.weight));
        line(format!("{at}::priority::{priority}"));
        line(format!("{at}::canary::false"));
        line(format!("{at}::success_rate::-1"));
        line(format!("{at}::local_origin_success_rate::-1"));
    }
}

fn is_ejected(host: &Host) -> bool {
    host.condition() == Health::Unhealthy && host.health != Health::Unhealthy
}

fn flags(host: &Host) -> &'static str {
    match host.health {
        _ if is_ejected(host) => "/failed_outlier_check",
        Health::Unhealthy => "/failed_eds_health",
        Health::Degraded => "/degraded_eds_health",
        _ => "healthy",
    }
}

pub(super) fn json(view: &View<'_>) -> Value {
    let statuses: Vec<Value> = sorted(view)
        .into_iter()
        .map(|entry| {
            let config = &entry.config;
            let mut out = json!({
                "name": &*config.name,
                "added_via_api": true,
                "observability_name": &*config.stat_name,
                "circuit_breakers": {"thresholds": [limits("DEFAULT", &config.limits), limits("HIGH", &config.high_priority_limits)]},
            });
            let hosts: Vec<Value> = hosts(entry).map(|(priority, host)| status(priority, host)).collect();
            if !hosts.is_empty() {
                out["host_statuses"] = hosts.into();
            }
            if let Discovery::Eds(name) = &config.discovery {
                out["eds_service_name"] = (**name).into();
            }
            out
        })
        .collect();
    json!({"cluster_statuses": statuses})
}

fn limits(priority: &str, limits: &Limits) -> Value {
    json!({
        "priority": priority,
        "max_connections": limits.max_connections,
        "max_pending_requests": limits.max_pending_requests,
        "max_requests": limits.max_requests,
        "max_retries": limits.max_retries,
    })
}

fn status(priority: usize, host: &Host) -> Value {
    let mut health = json!({"eds_health_status": match host.health {
        Health::Unhealthy => "UNHEALTHY",
        Health::Degraded => "DEGRADED",
        Health::Draining => "DRAINING",
        _ => "HEALTHY",
    }});
    if is_ejected(host) {
        health["failed_outlier_check"] = true.into();
    }
    let gauge = |name: &str, value: u32| json!({"type": "GAUGE", "name": name, "value": value.to_string()});
    let mut out = json!({
        "address": address(host.address),
        "stats": [
            gauge("cx_active", host.load.connections.load(Ordering::Relaxed)),
            gauge("rq_active", host.load.requests.load(Ordering::Relaxed)),
        ],
        "health_status": health,
        "weight": host.weight,
        "locality": {},
    });
    if !host.hostname.is_empty() {
        out["hostname"] = (*host.hostname).into();
    }
    if priority > 0 {
        out["priority"] = priority.into();
    }
    out
}

/// An address as Envoy's JSON has it.
pub(super) fn address(at: SocketAddr) -> Value {
    json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}})
}
