//! WorkloadGroup: a template of WorkloadEntries. Reference: <https://istio.io/latest/docs/reference/config/networking/workload-group/>.

use std::collections::BTreeMap;

use super::workload_entry::WorkloadEntry;
use crate::message::message;

message! {
    /// What the WorkloadEntries of a group have in common.
    pub struct WorkloadGroup {
        pub metadata: Option<TemplateMeta>,
        pub template: Option<WorkloadEntry>,
        pub probe: Option<ReadinessProbe>,
    }
}

message! {
    /// Labels and annotations given to the entries of a group.
    pub struct TemplateMeta {
        pub labels: BTreeMap<String, String>,
        pub annotations: BTreeMap<String, String>,
    }
}

message! {
    /// How the readiness of a workload is found out.
    pub struct ReadinessProbe {
        pub initial_delay_seconds: i32,
        pub timeout_seconds: i32,
        pub period_seconds: i32,
        pub success_threshold: i32,
        pub failure_threshold: i32,
    }
    /// What a readiness probe does.
    oneof health_check_method: HealthCheckMethod {
        http_get => HttpGet(HttpHealthCheckConfig),
        tcp_socket => TcpSocket(TcpHealthCheckConfig),
        exec => Exec(ExecHealthCheckConfig),
        grpc => Grpc(GrpcHealthCheckConfig),
    }
}

message! {
    /// A probe by HTTP request.
    pub struct HttpHealthCheckConfig {
        pub path: String,
        pub port: u32,
        pub host: String,
        pub scheme: String,
        pub http_headers: Vec<HttpHeader>,
    }
}

message! {
    /// A probe by gRPC's health service.
    pub struct GrpcHealthCheckConfig {
        pub port: u32,
        pub service: String,
    }
}

message! {
    /// A header of a probe.
    pub struct HttpHeader {
        pub name: String,
        pub value: String,
    }
}

message! {
    /// A probe by opening a connection.
    pub struct TcpHealthCheckConfig {
        pub host: String,
        pub port: u32,
    }
}

message! {
    /// A probe by running a command.
    pub struct ExecHealthCheckConfig {
        pub command: Vec<String>,
    }
}
