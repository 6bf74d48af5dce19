//! What a control plane says about itself: who is connected, how far they are, what is wrong.

use std::time::{Duration, SystemTime};

use maille_api::Severity;
use maille_model::ProxyKind;
use maille_xds::server::{Refusal, Sync, TypeStatus};
use serde::Serialize;

use crate::{IDENTIFIER, Shared};

/// The whole status, as `GET /v1/status` has it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The control plane's name and version.
    pub control_plane: &'static str,
    /// Whether the first snapshot has been built, without which no proxy is answered.
    pub ready: bool,
    /// Every proxy that is connected.
    pub proxies: Vec<ProxyStatus>,
    /// Every workload that holds a lease.
    pub workloads: Vec<Workload>,
    /// What proxies refused of late, oldest first.
    pub refusals: Vec<RecentRefusal>,
    /// What is wrong with the configuration.
    pub problems: Vec<Problem>,
}

/// One proxy.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyStatus {
    /// Its node id.
    pub node: String,
    /// `router` or `sidecar`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// The namespace whose configuration it follows.
    pub namespace: String,
    /// The version it says it has.
    pub version: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// For how many seconds it has been connected.
    pub connected_seconds: u64,
    /// How far each type of resource is, by its abbreviation (`cds`, `eds`, `lds`, `rds`…).
    pub types: Vec<TypeReport>,
}

/// Where one type stands with one proxy.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TypeReport {
    /// `cds`, `eds`, `lds`, `rds`…
    #[serde(rename = "type")]
    pub type_name: &'static str,
    /// `SYNCED`, `SENT` (not answered yet) or `PENDING` (waiting for its turn).
    pub state: &'static str,
    /// How many resources it holds.
    pub resources: usize,
    /// The version of the last response it accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acked: Option<String>,
    /// What it refuses at this moment; it keeps the version before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusalReport>,
}

/// One refused resource.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusalReport {
    /// What it is: `listener`, `cluster`…
    pub kind: &'static str,
    /// Its name, if the proxy said which it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The version that was refused.
    pub version: String,
    /// What the proxy said.
    pub reason: String,
}

/// One refusal and when it came.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecentRefusal {
    /// Who refused.
    pub node: String,
    /// How many seconds ago.
    pub seconds_ago: u64,
    /// What, and why.
    #[serde(flatten)]
    pub refusal: RefusalReport,
}

/// One workload that holds a lease.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its address.
    pub address: String,
    /// Whether it is known from an earlier run only, and has not come back yet.
    pub awaited: bool,
}

/// Something wrong with the configuration.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// `error`, `warning` or `note`.
    pub severity: &'static str,
    /// What is wrong.
    pub message: String,
    /// The resource, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// `FILE:LINE:COLUMN`, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

pub(crate) fn collect(shared: &Shared) -> Status {
    let now = SystemTime::now();
    let seconds = |since: SystemTime| now.duration_since(since).unwrap_or(Duration::ZERO).as_secs();
    let mut proxies = Vec::new();
    let refusals = shared.proxies.inspect(|connected| {
        let proxy = &connected.proxy;
        proxies.push(ProxyStatus {
            node: connected.node.to_string(),
            kind: match proxy.kind {
                ProxyKind::Router => "router",
                ProxyKind::Sidecar => "sidecar",
            },
            name: proxy.id.clone(),
            namespace: proxy.namespace.clone(),
            version: proxy.metadata.istio_version.clone(),
            addresses: proxy.ip_addresses.clone(),
            connected_seconds: seconds(connected.since),
            types: connected.types.iter().map(type_report).collect(),
        });
    });
    let refusals = refusals
        .into_iter()
        .map(|(when, node, refusal)| RecentRefusal {
            node: node.to_string(),
            seconds_ago: seconds(when),
            refusal: refusal_report(&refusal),
        })
        .collect();
    let snapshot = shared.snapshots.borrow().clone();
    Status {
        control_plane: IDENTIFIER,
        ready: snapshot.is_some(),
        proxies,
        workloads: shared.leases.workloads(),
        refusals,
        problems: problems(shared, snapshot.as_deref()),
    }
}

fn type_report(status: &TypeStatus) -> TypeReport {
    TypeReport {
        type_name: status.type_url.short(),
        state: match status.sync {
            Sync::Synced => "SYNCED",
            Sync::Sent => "SENT",
            Sync::Pending => "PENDING",
        },
        resources: status.resources,
        acked: status.acked.as_deref().map(Into::into),
        refused: status.refused.iter().map(refusal_report).collect(),
    }
}

fn refusal_report(refusal: &Refusal) -> RefusalReport {
    RefusalReport {
        kind: refusal.type_url.noun(),
        name: refusal.name.as_deref().map(Into::into),
        version: refusal.version.to_string(),
        reason: refusal.reason.to_string(),
    }
}

fn problems(shared: &Shared, snapshot: Option<&maille_model::Snapshot>) -> Vec<Problem> {
    let found = shared.problems.as_ref().map(|problems| problems()).unwrap_or_default();
    let written = found.into_iter().map(|diagnostic| Problem {
        severity: match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        },
        place: Some(match diagnostic.line {
            0 => diagnostic.file.to_string(),
            line => format!("{}:{line}:{}", diagnostic.file, diagnostic.column),
        }),
        message: diagnostic.message,
        resource: diagnostic.resource,
    });
    let warnings = snapshot.into_iter().flat_map(|snapshot| snapshot.warnings()).map(|warning| Problem {
        severity: "warning",
        message: warning.message.clone(),
        resource: Some(warning.key.to_string()),
        place: None,
    });
    written.chain(warnings).collect()
}
