//! ServiceEntry: a service added to the registry by hand. Reference: <https://istio.io/latest/docs/reference/config/networking/service-entry/>.

use super::sidecar::WorkloadSelector;
use super::workload_entry::WorkloadEntry;
use crate::message::{message, proto_enum};

message! {
    /// A service that no registry knows.
    pub struct ServiceEntry {
        pub hosts: Vec<String>,
        pub addresses: Vec<String>,
        pub ports: Vec<ServicePort>,
        pub location: Location,
        pub resolution: Resolution,
        pub endpoints: Vec<WorkloadEntry>,
        pub workload_selector: Option<WorkloadSelector>,
        pub export_to: Vec<String>,
        pub subject_alt_names: Vec<String>,
    }
}

proto_enum! {
    /// Whether a service is part of the mesh.
    pub enum Location {
        MeshExternal = 0 "MESH_EXTERNAL",
        MeshInternal = 1 "MESH_INTERNAL",
    }
}

proto_enum! {
    /// How the addresses of a service are found.
    pub enum Resolution {
        None = 0 "NONE",
        Static = 1 "STATIC",
        Dns = 2 "DNS",
        DnsRoundRobin = 3 "DNS_ROUND_ROBIN",
        DynamicDns = 4 "DYNAMIC_DNS",
    }
}

message! {
    /// A port of a service.
    pub struct ServicePort {
        pub number: u32,
        pub protocol: String,
        pub name: String,
        pub target_port: u32,
    }
}
