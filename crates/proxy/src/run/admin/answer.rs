//! Which path is answered how.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use maille_telemetry::metrics::Registry;
use maille_xds::types::core::Node;
use serde_json::json;

use super::{Answer, Question, certs, clusters, config_dump, server, statistics};
use crate::run::assembly::Assembly;
use crate::run::kept::Kept;
use crate::run::{LogControl, Status};
use crate::snapshot::Snapshot;
use crate::worker::{Overload, SharedLogs};

/// What stays the same for as long as the proxy runs.
pub(crate) struct Process {
    pub(crate) node: Node,
    pub(crate) started: Instant,
    pub(crate) concurrency: usize,
    /// How long requests get to finish at a drain.
    pub(crate) drain: Duration,
    pub(crate) registry: Registry,
    pub(crate) logs: SharedLogs,
    pub(crate) overload: Arc<Overload>,
    pub(crate) log_control: Option<LogControl>,
    pub(crate) stats: statistics::Inclusion,
}

/// What the main thread knows.
pub(crate) struct View<'a> {
    pub(crate) process: &'a Process,
    pub(crate) status: &'a Status,
    pub(crate) assembly: &'a Assembly,
    pub(crate) kept: &'a Kept,
    pub(crate) served: &'a Arc<Snapshot>,
    /// Whether the operator wants it to be taken for unwell.
    pub(crate) failing: bool,
    pub(crate) draining: bool,
}

/// What an answer wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// End, as with SIGTERM.
    Quit,
    /// Be taken for unwell, or well again.
    FailHealthChecks(bool),
    /// Stop accepting, only what comes in or everything; with grace, only tell clients to go.
    DrainListeners { inbound_only: bool, graceful: bool },
}

/// Path, whether it changes something, and what it does.
type Entry = (&'static str, bool, &'static str);

const PATHS: &[Entry] = &[
    ("/certs", false, "print certs on machine"),
    ("/clusters", false, "upstream cluster status; format=json"),
    ("/config_dump", false, "dump current configs; resource=, mask=, name_regex=, include_eds"),
    ("/drain_listeners", true, "drain listeners; graceful, inboundonly, skip_exit"),
    ("/healthcheck/fail", true, "cause the server to fail health checks"),
    ("/healthcheck/ok", true, "cause the server to pass health checks"),
    ("/help", false, "print out list of admin commands"),
    ("/hot_restart_version", false, "print the hot restart compatibility version"),
    ("/init_dump", false, "print what is not ready yet, and what for"),
    ("/listeners", false, "print listener info; format=json"),
    ("/logging", true, "query/change logging levels; level=, paths=TARGET:LEVEL,…"),
    ("/memory", false, "print current allocation/heap usage"),
    ("/quitquitquit", true, "exit the server"),
    ("/ready", false, "print server state, return 200 if LIVE, otherwise return 503"),
    ("/reopen_logs", true, "reopen access logs"),
    ("/reset_counters", true, "reset all counters to zero"),
    ("/runtime", false, "print runtime values"),
    ("/server_info", false, "print server version/status information"),
    ("/stats", false, "print server stats; filter=REGEX, usedonly, format=json|prometheus, type=Counters|Gauges|…"),
    ("/stats/prometheus", false, "print server stats in prometheus format; filter=REGEX, usedonly"),
];

/// The answer, and what is to be done now.
pub(crate) fn answer(question: &Question, view: &View<'_>) -> (Answer, Option<Command>) {
    let path = match question.path.trim_end_matches('/') {
        "" => "/help",
        path => path,
    };
    let Some((_, changes, _)) = PATHS.iter().find(|(known, ..)| *known == path) else {
        return (Answer::text(404, format!("invalid path. {}", help())), None);
    };
    if *changes && !question.post {
        return (Answer::text(405, "Method Not Allowed\n"), None);
    }
    let query = &question.query;
    let ok = |command| (Answer::text(200, "OK\n"), command);
    let only = |answer: Answer| (answer, None);
    match path {
        "/certs" => only(Answer::json(&certs::certs(view))),
        "/clusters" if query.get("format") == Some("json") => only(Answer::json(&clusters::json(view))),
        "/clusters" => only(Answer::text(200, clusters::text(view))),
        "/config_dump" => only(config_dump::answer(view, query)),
        "/drain_listeners" => ok(Some(Command::DrainListeners {
            inbound_only: query.has("inboundonly"),
            graceful: query.has("graceful"),
        })),
        "/healthcheck/fail" => ok(Some(Command::FailHealthChecks(true))),
        "/healthcheck/ok" => ok(Some(Command::FailHealthChecks(false))),
        "/hot_restart_version" => only(Answer::text(200, "disabled")),
        "/init_dump" => only(Answer::json(&server::init_dump(view))),
        "/listeners" if query.get("format") == Some("json") => only(Answer::json(&server::listeners_json(view))),
        "/listeners" => only(Answer::text(200, server::listeners_text(view))),
        "/logging" => only(server::logging(view, query)),
        "/memory" => only(Answer::json(&server::memory())),
        "/quitquitquit" => ok(Some(Command::Quit)),
        "/ready" => only(server::ready(view)),
        "/reopen_logs" => {
            view.process.logs.reopen();
            ok(None)
        }
        "/reset_counters" => {
            view.process.registry.reset_counters();
            ok(None)
        }
        "/runtime" => only(Answer::json(&json!({"layers": [], "entries": {}}))),
        "/server_info" => only(Answer::json(&server::server_info(view))),
        "/stats" => only(statistics::stats(view, query)),
        "/stats/prometheus" => only(statistics::prometheus(view, query)),
        _ => only(Answer::text(200, help())),
    }
}

fn help() -> String {
    let mut out = "admin commands are:\n".to_owned();
    for (path, changes, what) in PATHS {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  {path}{}: {what}", if *changes { " (POST)" } else { "" });
    }
    out
}
