//! Kinds that stand in people's files but are not ours to serve, and how loudly that has to be said.

use super::diagnostic::Severity;

/// What there is to say about a kind of another API, if it is known.
pub(super) fn verdict(group: &str, kind: &str) -> Option<(Severity, String)> {
    let enforced =
        || (Severity::Error, format!("{kind} is not enforced by this version: what it forbids would happen"));
    let ignored = || (Severity::Warning, format!("{kind} is not handled yet: ignored"));
    let skipped = || (Severity::Note, format!("{kind} is for Kubernetes: skipped"));
    Some(match (group, kind) {
        ("networking.istio.io", "EnvoyFilter") | ("extensions.istio.io", "WasmPlugin") => enforced(),
        ("networking.k8s.io", "NetworkPolicy") => enforced(),
        ("networking.istio.io", "ProxyConfig") => ignored(),
        (_, _)
            if group == "istio.io"
                || group.ends_with(".istio.io") && group != "networking.istio.io" && group != "security.istio.io" =>
        {
            ignored()
        }
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

/// The `apiVersion` of a kind that was written without.
pub(super) fn api_version_of(kind: &str) -> Option<&'static str> {
    match kind {
        "EnvoyFilter" => Some("networking.istio.io/v1alpha3"),
        "ProxyConfig" => Some("networking.istio.io/v1beta1"),
        "Telemetry" => Some("telemetry.istio.io/v1"),
        "WasmPlugin" => Some("extensions.istio.io/v1alpha1"),
        kind if CORE.contains(&kind) => Some("v1"),
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" => Some("apps/v1"),
        "Job" | "CronJob" => Some("batch/v1"),
        "HTTPRoute" | "GRPCRoute" | "GatewayClass" => Some("gateway.networking.k8s.io/v1"),
        "Ingress" | "NetworkPolicy" => Some("networking.k8s.io/v1"),
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
