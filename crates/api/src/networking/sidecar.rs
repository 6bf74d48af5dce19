//! Sidecar: what a workload's proxy listens for and can see. Reference: <https://istio.io/latest/docs/reference/config/networking/sidecar/>.

use std::collections::BTreeMap;

use super::destination_rule::ConnectionPoolSettings;
use super::gateway::ServerTlsSettings;
use super::virtual_service::Destination;
use crate::message::{message, proto_enum};

message! {
    /// What the sidecars of a namespace, or of some workloads, listen for and can see.
    pub struct Sidecar {
        pub workload_selector: Option<WorkloadSelector>,
        pub ingress: Vec<IstioIngressListener>,
        pub egress: Vec<IstioEgressListener>,
        pub inbound_connection_pool: Option<ConnectionPoolSettings>,
        pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    }
}

message! {
    /// Where a sidecar takes connections for its workload.
    pub struct IstioIngressListener {
        pub port: Option<SidecarPort>,
        pub bind: String,
        pub capture_mode: CaptureMode,
        pub default_endpoint: String,
        pub tls: Option<ServerTlsSettings>,
        pub connection_pool: Option<ConnectionPoolSettings>,
    }
}

message! {
    /// Where a sidecar takes connections of its workload, and which hosts it can reach there.
    pub struct IstioEgressListener {
        pub port: Option<SidecarPort>,
        pub bind: String,
        pub capture_mode: CaptureMode,
        pub hosts: Vec<String>,
    }
}

message! {
    /// Workloads by their labels.
    pub struct WorkloadSelector {
        pub labels: BTreeMap<String, String>,
    }
}

message! {
    /// What becomes of connections to hosts nobody declared.
    pub struct OutboundTrafficPolicy {
        pub mode: OutboundTrafficPolicyMode,
        pub egress_proxy: Option<Destination>,
    }
}

proto_enum! {
    /// Whether undeclared hosts can be reached.
    pub enum OutboundTrafficPolicyMode {
        RegistryOnly = 0 "REGISTRY_ONLY",
        AllowAny = 1 "ALLOW_ANY",
    }
}

proto_enum! {
    /// How connections get to a listener.
    pub enum CaptureMode {
        Default = 0 "DEFAULT",
        Iptables = 1 "IPTABLES",
        None = 2 "NONE",
    }
}

message! {
    /// A port and what is spoken on it.
    pub struct SidecarPort {
        pub number: u32,
        pub protocol: String,
        pub name: String,
        pub target_port: u32,
    }
}
