//! What the process says of itself: state, listeners, memory, logs.

use std::fmt::Write as _;

use maille_xds::json::Schema;
use maille_xds::types::{Message, any};
use serde_json::{Value, json};

use super::answer::View;
use super::clusters::address;
use super::query::Query;
use super::{Answer, Purpose};

/// Where the proxy stands, in Envoy's words.
pub(super) fn state(view: &View<'_>) -> &'static str {
    match view.status.ready {
        _ if view.draining || view.failing => "DRAINING",
        true => "LIVE",
        false if view.served.clusters.is_empty() => "PRE_INITIALIZING",
        false => "INITIALIZING",
    }
}

pub(super) fn ready(view: &View<'_>) -> Answer {
    let state = state(view);
    Answer::text(if state == "LIVE" { 200 } else { 503 }, format!("{state}\n"))
}

/// The version in Envoy's form: revision, version, state of the sources, kind of build, TLS library.
pub(super) fn version() -> String {
    let build = if cfg!(debug_assertions) { "DEBUG" } else { "RELEASE" };
    format!("maille/{}/Clean/{build}/aws-lc", env!("CARGO_PKG_VERSION"))
}

pub(super) fn server_info(view: &View<'_>) -> Value {
    let process = view.process;
    let uptime = format!("{}s", process.started.elapsed().as_secs());
    let mut node =
        Schema::load().print(&any(&process.node).type_url, &process.node.encode_to_vec()).unwrap_or_default();
    if let Some(fields) = node.as_object_mut() {
        fields.remove("@type");
    }
    let mut options = json!({
        "concurrency": process.concurrency,
        "mode": "Serve",
        "service_cluster": process.node.cluster,
        "service_node": process.node.id,
        "drain_time": format!("{}s", process.drain.as_secs()),
    });
    if let Some(admin) = view.status.endpoint(Purpose::Admin) {
        options["admin_address_path"] = admin.to_string().into();
    }
    json!({
        "version": version(),
        "state": state(view),
        "hot_restart_version": "disabled",
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "command_line_options": options,
        "node": node,
    })
}

pub(super) fn listeners_text(view: &View<'_>) -> String {
    view.status.listening.iter().fold(String::new(), |mut out, (name, address)| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name}::{address}");
        out
    })
}

pub(super) fn listeners_json(view: &View<'_>) -> Value {
    let mut statuses: Vec<Value> = Vec::new();
    for (name, at) in &view.status.listening {
        match statuses.last_mut().filter(|last| last["name"] == **name) {
            Some(last) => match last["additional_local_addresses"].as_array_mut() {
                Some(more) => more.push(address(*at)),
                None => last["additional_local_addresses"] = json!([address(*at)]),
            },
            None => statuses.push(json!({"name": &**name, "local_address": address(*at)})),
        }
    }
    json!({"listener_statuses": statuses})
}

pub(super) fn init_dump(view: &View<'_>) -> Value {
    let waiting = |what: &str, names: Vec<String>| json!({"name": what, "target_names": names});
    let (clusters, listeners) = view.assembly.cold();
    let mut dumps = Vec::new();
    for (what, names) in [("init manager Clusters", clusters), ("init manager Listeners", listeners)] {
        if !names.is_empty() {
            dumps.push(waiting(what, names));
        }
    }
    json!({"unready_targets_dumps": dumps})
}

/// Bytes that the process has in memory.
pub(super) fn resident() -> u64 {
    // The second number is pages; they have 4 KiB wherever this runs.
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

pub(super) fn memory() -> Value {
    let resident = resident().to_string();
    // The allocator keeps no count of what is handed out: the whole process is what there is to see.
    json!({
        "allocated": resident,
        "heap_size": resident,
        "pageheap_unmapped": "0",
        "pageheap_free": "0",
        "total_thread_cache": "0",
        "total_physical_bytes": resident,
    })
}

pub(super) fn logging(view: &View<'_>, query: &Query) -> Answer {
    let Some(control) = &view.process.log_control else {
        return Answer::text(404, "the log of this process is not the proxy's to change\n");
    };
    let mut directives = Vec::new();
    for (name, value) in query.iter() {
        match name {
            "level" => directives.push(level(value).to_owned()),
            "paths" => directives.extend(value.split(',').map(|one| match one.rsplit_once(':') {
                Some((target, value)) => format!("{target}={}", level(value)),
                None => level(one).to_owned(),
            })),
            target => directives.push(format!("{target}={}", level(value))),
        }
    }
    let wanted = (!directives.is_empty()).then(|| directives.join(","));
    match control(wanted.as_deref()) {
        Ok(now) => {
            let lines = now.split(',').map(|one| match one.split_once('=') {
                Some((target, level)) => format!("  {target}: {level}\n"),
                None => format!("  maille: {one}\n"),
            });
            Answer::text(200, format!("active loggers:\n{}", lines.collect::<String>()))
        }
        Err(reason) => Answer::text(400, format!("{reason}\n")),
    }
}

/// Envoy's levels in ours.
fn level(name: &str) -> &str {
    match name {
        "warning" => "warn",
        "critical" => "error",
        other => other,
    }
}
