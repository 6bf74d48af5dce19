//! Extension providers: what outside the proxy logs, traces, measures or decides.

use std::collections::BTreeMap;

use crate::Struct;
use crate::duration::Duration;
use crate::message::{choice, message, proto_enum};

message! {
    /// Something outside the proxy that logs, traces, measures or decides.
    pub struct ExtensionProvider {
        pub name: String,
    }
    /// What kind of provider it is.
    oneof provider: ProviderKind {
        envoy_ext_authz_http => EnvoyExtAuthzHttp(ExtAuthzHttpProvider),
        envoy_ext_authz_grpc => EnvoyExtAuthzGrpc(ExtAuthzGrpcProvider),
        zipkin => Zipkin(ZipkinTracingProvider),
        lightstep => Lightstep(LightstepTracingProvider),
        datadog => Datadog(DatadogTracingProvider),
        stackdriver => Stackdriver(StackdriverProvider),
        opencensus => Opencensus(OpenCensusAgentTracingProvider),
        skywalking => Skywalking(SkyWalkingTracingProvider),
        opentelemetry => Opentelemetry(OpenTelemetryTracingProvider),
        prometheus => Prometheus(PrometheusMetricsProvider),
        envoy_file_access_log => EnvoyFileAccessLog(EnvoyFileAccessLogProvider),
        envoy_http_als => EnvoyHttpAls(EnvoyHttpGrpcV3LogProvider),
        envoy_tcp_als => EnvoyTcpAls(EnvoyTcpGrpcV3LogProvider),
        envoy_otel_als => EnvoyOtelAls(EnvoyOpenTelemetryLogProvider),
        sds => Sds(SdsProvider),
    }
}

message! {
    /// How much of a request's body an authorizer sees.
    pub struct ExtAuthzRequestBody {
        pub max_request_bytes: u32,
        pub allow_partial_message: bool,
        pub pack_as_bytes: bool,
    }
}

message! {
    /// Authorization by an HTTP service.
    pub struct ExtAuthzHttpProvider {
        pub service: String,
        pub port: u32,
        pub timeout: Option<Duration>,
        pub path_prefix: String,
        pub fail_open: bool,
        pub clear_route_cache: bool,
        pub status_on_error: String,
        pub include_headers_in_check: Vec<String>,
        pub include_request_headers_in_check: Vec<String>,
        pub include_additional_headers_in_check: BTreeMap<String, String>,
        pub include_request_body_in_check: Option<ExtAuthzRequestBody>,
        pub headers_to_upstream_on_allow: Vec<String>,
        pub headers_to_downstream_on_deny: Vec<String>,
        pub headers_to_downstream_on_allow: Vec<String>,
    }
}

message! {
    /// Authorization by a gRPC service.
    pub struct ExtAuthzGrpcProvider {
        pub service: String,
        pub port: u32,
        pub timeout: Option<Duration>,
        pub fail_open: bool,
        pub clear_route_cache: bool,
        pub status_on_error: String,
        pub include_request_body_in_check: Option<ExtAuthzRequestBody>,
    }
}

message! {
    /// Traces to Zipkin.
    pub struct ZipkinTracingProvider {
        pub service: String,
        pub port: u32,
        pub max_tag_length: u32,
        pub enable_64bit_trace_id: bool,
        pub path: String,
        pub trace_context_option: TraceContextOption,
        pub timeout: Option<Duration>,
        pub headers: Vec<ProviderHeader>,
    }
}

proto_enum! {
    /// Which trace headers are used.
    pub enum TraceContextOption {
        UseB3 = 0 "USE_B3",
        UseB3WithW3cPropagation = 1 "USE_B3_WITH_W3C_PROPAGATION",
    }
}

message! {
    /// Traces to Lightstep.
    pub struct LightstepTracingProvider {
        pub service: String,
        pub port: u32,
        pub access_token: String,
        pub max_tag_length: u32,
    }
}

message! {
    /// Traces to Datadog.
    pub struct DatadogTracingProvider {
        pub service: String,
        pub port: u32,
        pub max_tag_length: u32,
    }
}

message! {
    /// Traces to SkyWalking.
    pub struct SkyWalkingTracingProvider {
        pub service: String,
        pub port: u32,
        pub access_token: String,
    }
}

message! {
    /// Telemetry to Google Cloud.
    pub struct StackdriverProvider {
        pub debug: bool,
        pub max_number_of_attributes: Option<i64>,
        pub max_number_of_annotations: Option<i64>,
        pub max_number_of_message_events: Option<i64>,
        pub max_tag_length: u32,
        pub logging: Option<StackdriverLogging>,
    }
}

message! {
    /// What is logged to Google Cloud.
    pub struct StackdriverLogging {
        pub labels: BTreeMap<String, String>,
    }
}

message! {
    /// Traces to OpenCensus.
    pub struct OpenCensusAgentTracingProvider {
        pub service: String,
        pub port: u32,
        pub context: Vec<OpenCensusTraceContext>,
        pub max_tag_length: u32,
    }
}

proto_enum! {
    /// Which trace headers are used.
    pub enum OpenCensusTraceContext {
        Unspecified = 0 "UNSPECIFIED",
        W3cTraceContext = 1 "W3C_TRACE_CONTEXT",
        GrpcBin = 2 "GRPC_BIN",
        CloudTraceContext = 3 "CLOUD_TRACE_CONTEXT",
        B3 = 4 "B3",
    }
}

message! {
    /// Metrics for Prometheus.
    pub struct PrometheusMetricsProvider {
    }
}

message! {
    /// Access logs to a file.
    pub struct EnvoyFileAccessLogProvider {
        pub path: String,
        pub log_format: Option<FileLogFormat>,
        pub omit_empty_values: bool,
    }
}

choice! {
    /// The format of a file log.
    pub enum FileLogFormat {
        text => Text(String),
        labels => Labels(Struct),
    }
}

message! {
    /// HTTP access logs by gRPC.
    pub struct EnvoyHttpGrpcV3LogProvider {
        pub service: String,
        pub port: u32,
        pub log_name: String,
        pub filter_state_objects_to_log: Vec<String>,
        pub additional_request_headers_to_log: Vec<String>,
        pub additional_response_headers_to_log: Vec<String>,
        pub additional_response_trailers_to_log: Vec<String>,
    }
}

message! {
    /// TCP access logs by gRPC.
    pub struct EnvoyTcpGrpcV3LogProvider {
        pub service: String,
        pub port: u32,
        pub log_name: String,
        pub filter_state_objects_to_log: Vec<String>,
    }
}

message! {
    /// Access logs by OpenTelemetry.
    pub struct EnvoyOpenTelemetryLogProvider {
        pub service: String,
        pub port: u32,
        pub log_name: String,
        pub log_format: Option<OpenTelemetryLogFormat>,
    }
}

message! {
    /// The format of an OpenTelemetry log.
    pub struct OpenTelemetryLogFormat {
        pub text: String,
        pub labels: Option<Struct>,
    }
}

proto_enum! {
    /// Which attributes name a service in a trace.
    pub enum ServiceAttributeEnrichment {
        IstioCanonical = 0 "ISTIO_CANONICAL",
        OtelSemanticConventions = 1 "OTEL_SEMANTIC_CONVENTIONS",
    }
}

message! {
    /// Traces by OpenTelemetry.
    pub struct OpenTelemetryTracingProvider {
        pub service: String,
        pub port: u32,
        pub max_tag_length: u32,
        pub http: Option<ProviderHttpService>,
        pub grpc: Option<ProviderGrpcService>,
        pub resource_detectors: Option<ResourceDetectors>,
        pub service_attribute_enrichment: ServiceAttributeEnrichment,
    }
    /// Who decides which requests are traced.
    oneof sampling: TraceSampling {
        dynatrace_sampler => DynatraceSampler(DynatraceSampler),
    }
}

message! {
    /// Sampling decided by Dynatrace.
    pub struct DynatraceSampler {
        pub tenant: String,
        pub cluster_id: i32,
        pub root_spans_per_minute: u32,
        pub http_service: Option<DynatraceApi>,
    }
}

message! {
    /// Where Dynatrace is asked.
    pub struct DynatraceApi {
        pub service: String,
        pub port: u32,
        pub http: Option<ProviderHttpService>,
    }
}

message! {
    /// Secrets from an SDS server.
    pub struct SdsProvider {
        pub name: String,
        pub service: String,
        pub port: u32,
    }
}

message! {
    /// How a collector is called by HTTP.
    pub struct ProviderHttpService {
        pub path: String,
        pub timeout: Option<Duration>,
        pub headers: Vec<ProviderHeader>,
    }
}

message! {
    /// A header sent to a collector.
    pub struct ProviderHeader {
        pub name: String,
    }
    /// Where a header's value comes from.
    oneof header_value: ProviderHeaderValue {
        value => Value(String),
        env_name => EnvName(String),
    }
}

message! {
    /// What finds out attributes of the resource that is traced.
    pub struct ResourceDetectors {
        pub environment: Option<EnvironmentResourceDetector>,
        pub dynatrace: Option<DynatraceResourceDetector>,
    }
}

message! {
    /// Attributes from the environment.
    pub struct EnvironmentResourceDetector {
    }
}

message! {
    /// Attributes from Dynatrace's agent.
    pub struct DynatraceResourceDetector {
    }
}

message! {
    /// How a collector is called by gRPC.
    pub struct ProviderGrpcService {
        pub timeout: Option<Duration>,
        pub initial_metadata: Vec<ProviderHeader>,
    }
}
