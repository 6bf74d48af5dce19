//! Kinds that stand in people's files but are not ours to serve, and how loudly that has to be said.

use super::diagnostic::Severity;

/// What there is to say about a kind of another API, if it is known.
pub(super) fn verdict(group: &str, kind: &str) -> Option<(Severity, String)> {
    let enforced =
        || (Severity::Error, format!("{kind} is not enforced by this version: what it forbids would happen"));
    let ignored = || (Severity::Warning, format!("{kind} is not handled yet: ignored"));
    let skipped = || (Severity::Note, format!("{kind} is for Kubernetes: skipped"));
    Some(match (group, kind) {
        ("security.istio.io", _) => enforced(),
        ("networking.istio.io", "EnvoyFilter") | ("extensions.istio.io", "WasmPlugin") => enforced(),
        ("networking.k8s.io", "NetworkPolicy") => enforced(),
        ("networking.istio.io", "ProxyConfig") => ignored(),
        (_, _) if group == "istio.io" || group.ends_with(".istio.io") && group != "networking.istio.io" => ignored(),
        ("gateway.networking.k8s.io" | "networking.k8s.io" | "discovery.k8s.io", _) => ignored(),
        ("", "Endpoints" | "Node") => ignored(),
        ("", kind) if CORE.contains(&kind) => skipped(),
        ("apps" | "batch" | "autoscaling" | "policy", _) => skipped(),
        (group, _) if group.ends_with(".k8s.io") => skipped(),
        // Somebody's custom resource: a domain with a dot that is nobody's we know.
        (group, _) if group.contains('.') && !group.ends_with("istio.io") => skipped(),
        _ => return None,
    })
}

/// Where a kind belongs that was written without its `apiVersion`.
pub(super) fn group_of(kind: &str) -> Option<&'static str> {
    match kind {
        "AuthorizationPolicy" | "PeerAuthentication" | "RequestAuthentication" => Some("security.istio.io"),
        "EnvoyFilter" | "ProxyConfig" => Some("networking.istio.io"),
        "Telemetry" => Some("telemetry.istio.io"),
        "WasmPlugin" => Some("extensions.istio.io"),
        kind if CORE.contains(&kind) => Some(""),
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" => Some("apps"),
        "Job" | "CronJob" => Some("batch"),
        "HTTPRoute" | "GRPCRoute" | "TLSRoute" | "TCPRoute" | "GatewayClass" | "ReferenceGrant" => {
            Some("gateway.networking.k8s.io")
        }
        "Ingress" | "NetworkPolicy" => Some("networking.k8s.io"),
        _ => None,
    }
}

const CORE: &[&str] = &[
    "Binding",
    "Event",
    "LimitRange",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Pod",
    "PodTemplate",
    "ReplicationController",
    "ResourceQuota",
    "ServiceAccount",
];
