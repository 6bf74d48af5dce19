//! ProxyConfig: settings of a proxy, for the mesh or one workload.

use std::collections::BTreeMap;

use crate::duration::Duration;
use crate::message::{choice, message, proto_enum};
use crate::networking::destination_rule::{ClientTlsSettings, TcpKeepalive};
use crate::networking::workload_group::ReadinessProbe;

proto_enum! {
    /// How a proxy authenticates to the control plane.
    pub enum AuthenticationPolicy {
        None = 0 "NONE",
        MutualTls = 1 "MUTUAL_TLS",
        Inherit = 1000 "INHERIT",
    }
}

message! {
    /// How requests are traced.
    pub struct Tracing {
        pub custom_tags: BTreeMap<String, CustomTag>,
        pub max_path_tag_length: u32,
        pub sampling: f64,
        pub tls_settings: Option<ClientTlsSettings>,
        pub enable_istio_tags: Option<bool>,
    }
    /// Where traces go.
    oneof tracer: Tracer {
        zipkin => Zipkin(ZipkinTracer),
        lightstep => Lightstep(LightstepTracer),
        datadog => Datadog(DatadogTracer),
        stackdriver => Stackdriver(StackdriverTracer),
        open_census_agent => OpenCensusAgent(OpenCensusTracer),
    }
}

message! {
    /// Traces to Zipkin.
    pub struct ZipkinTracer {
        pub address: String,
    }
}

message! {
    /// Traces to Lightstep.
    pub struct LightstepTracer {
        pub address: String,
        pub access_token: String,
    }
}

message! {
    /// Traces to Datadog.
    pub struct DatadogTracer {
        pub address: String,
    }
}

message! {
    /// Traces to Google Cloud.
    pub struct StackdriverTracer {
        pub debug: bool,
        pub max_number_of_attributes: Option<i64>,
        pub max_number_of_annotations: Option<i64>,
        pub max_number_of_message_events: Option<i64>,
    }
}

message! {
    /// Traces to OpenCensus.
    pub struct OpenCensusTracer {
        pub address: String,
        pub context: Vec<OpenCensusTracerContext>,
    }
}

proto_enum! {
    /// Which trace headers are used.
    pub enum OpenCensusTracerContext {
        Unspecified = 0 "UNSPECIFIED",
        W3cTraceContext = 1 "W3C_TRACE_CONTEXT",
        GrpcBin = 2 "GRPC_BIN",
        CloudTraceContext = 3 "CLOUD_TRACE_CONTEXT",
        B3 = 4 "B3",
    }
}

choice! {
    /// Where the value of a tag comes from.
    pub enum CustomTag {
        literal => Literal(LiteralTag),
        environment => Environment(EnvironmentTag),
        header => Header(RequestHeaderTag),
    }
}

message! {
    /// A constant tag.
    pub struct LiteralTag {
        pub value: String,
    }
}

message! {
    /// A tag from an environment variable.
    pub struct EnvironmentTag {
        pub name: String,
        pub default_value: String,
    }
}

message! {
    /// A tag from a request header.
    pub struct RequestHeaderTag {
        pub name: String,
        pub default_value: String,
    }
}

message! {
    /// Settings of a secret discovery service.
    pub struct SdsSettings {
        pub enabled: bool,
        pub k8s_sa_jwt_path: String,
    }
}

message! {
    /// What stands in front of the gateways.
    pub struct Topology {
        pub num_trusted_proxies: u32,
        pub forward_client_cert_details: ForwardClientCertDetails,
        pub proxy_protocol: Option<ProxyProtocolConfiguration>,
    }
}

message! {
    /// The PROXY protocol is expected.
    pub struct ProxyProtocolConfiguration {
    }
}

proto_enum! {
    /// What becomes of the x-forwarded-client-cert header.
    pub enum ForwardClientCertDetails {
        Undefined = 0 "UNDEFINED",
        Sanitize = 1 "SANITIZE",
        ForwardOnly = 2 "FORWARD_ONLY",
        AppendForward = 3 "APPEND_FORWARD",
        SanitizeSet = 4 "SANITIZE_SET",
        AlwaysForwardOnly = 5 "ALWAYS_FORWARD_ONLY",
    }
}

choice! {
    /// Hardware that works with private keys.
    pub enum PrivateKeyProvider {
        cryptomb => Cryptomb(CryptoMb),
        qat => Qat(Qat),
    }
}

message! {
    /// Multi-buffer instructions.
    pub struct CryptoMb {
        pub poll_delay: Option<Duration>,
        pub fallback: Option<bool>,
    }
}

message! {
    /// QuickAssist.
    pub struct Qat {
        pub poll_delay: Option<Duration>,
        pub fallback: Option<bool>,
    }
}

message! {
    with defaults
    /// Settings of a proxy; a workload's annotation `proxy.istio.io/config` has the same.
    pub struct ProxyConfig {
        pub config_path: String,
        pub binary_path: String,
        pub drain_duration: Option<Duration>,
        pub discovery_address: String,
        pub discovery_refresh_delay: Option<Duration>,
        pub zipkin_address: String,
        pub statsd_udp_address: String,
        pub envoy_metrics_service_address: String,
        pub proxy_admin_port: i32,
        pub availability_zone: String,
        pub control_plane_auth_policy: AuthenticationPolicy,
        pub custom_config_file: String,
        pub stat_name_length: i32,
        pub concurrency: Option<i32>,
        pub proxy_bootstrap_template_path: String,
        pub interception_mode: InboundInterceptionMode,
        pub tracing: Option<Tracing>,
        pub sds: Option<SdsSettings>,
        pub envoy_access_log_service: Option<RemoteService>,
        pub envoy_metrics_service: Option<RemoteService>,
        pub proxy_metadata: BTreeMap<String, String>,
        pub runtime_values: BTreeMap<String, String>,
        pub status_port: i32,
        pub extra_stat_tags: Vec<String>,
        pub gateway_topology: Option<Topology>,
        pub termination_drain_duration: Option<Duration>,
        pub mesh_id: String,
        pub readiness_probe: Option<ReadinessProbe>,
        pub proxy_stats_matcher: Option<ProxyStatsMatcher>,
        pub hold_application_until_proxy_starts: Option<bool>,
        pub ca_certificates_pem: Vec<String>,
        pub image: Option<ProxyImage>,
        pub private_key_provider: Option<PrivateKeyProvider>,
        pub proxy_headers: Option<ProxyHeaders>,
        pub file_flush_interval: Option<Duration>,
        pub file_flush_min_size_kb: u32,
        pub stats_compression: Option<bool>,
        pub connection_settings: Option<ConnectionSettings>,
    }
    /// The name of the proxy's service in its node.
    oneof cluster_name: ClusterName {
        service_cluster => ServiceCluster(String),
        tracing_service_name => TracingServiceName(TracingServiceName),
    }
}

proto_enum! {
    /// The service name in traces.
    pub enum TracingServiceName {
        AppLabelAndNamespace = 0 "APP_LABEL_AND_NAMESPACE",
        CanonicalNameOnly = 1 "CANONICAL_NAME_ONLY",
        CanonicalNameAndNamespace = 2 "CANONICAL_NAME_AND_NAMESPACE",
    }
}

proto_enum! {
    /// How connections get to the proxy.
    pub enum InboundInterceptionMode {
        Redirect = 0 "REDIRECT",
        Tproxy = 1 "TPROXY",
        None = 2 "NONE",
    }
}

message! {
    /// Which statistics exist besides the default ones.
    pub struct ProxyStatsMatcher {
        pub inclusion_prefixes: Vec<String>,
        pub inclusion_suffixes: Vec<String>,
        pub inclusion_regexps: Vec<String>,
    }
}

message! {
    /// Headers that the proxy adds.
    pub struct ProxyHeaders {
        pub forwarded_client_cert: ForwardClientCertDetails,
        pub set_current_client_cert_details: Option<SetCurrentClientCertDetails>,
        pub request_id: Option<RequestIdHeader>,
        pub server: Option<ServerHeader>,
        pub attempt_count: Option<AttemptCountHeader>,
        pub envoy_debug_headers: Option<EnvoyDebugHeaders>,
        pub metadata_exchange_headers: Option<MetadataExchangeHeaders>,
        pub preserve_http1_header_case: Option<bool>,
        pub x_forwarded_host: Option<XForwardedHostHeader>,
        pub x_forwarded_port: Option<XForwardedPortHeader>,
    }
}

message! {
    /// The server header.
    pub struct ServerHeader {
        pub disabled: Option<bool>,
        pub value: String,
    }
}

message! {
    /// The x-request-id header.
    pub struct RequestIdHeader {
        pub disabled: Option<bool>,
    }
}

message! {
    /// The x-envoy-attempt-count header.
    pub struct AttemptCountHeader {
        pub disabled: Option<bool>,
    }
}

message! {
    /// The x-forwarded-host header.
    pub struct XForwardedHostHeader {
        pub enabled: Option<bool>,
    }
}

message! {
    /// The x-forwarded-port header.
    pub struct XForwardedPortHeader {
        pub enabled: Option<bool>,
    }
}

message! {
    /// Headers that tell about retries and upstreams.
    pub struct EnvoyDebugHeaders {
        pub disabled: Option<bool>,
    }
}

proto_enum! {
    /// Between whom metadata headers are exchanged.
    pub enum MetadataExchangeMode {
        Undefined = 0 "UNDEFINED",
        InMesh = 1 "IN_MESH",
    }
}

message! {
    /// The headers by which proxies tell each other who they are.
    pub struct MetadataExchangeHeaders {
        pub mode: MetadataExchangeMode,
    }
}

message! {
    /// What of the client's certificate is forwarded.
    pub struct SetCurrentClientCertDetails {
        pub subject: Option<bool>,
        pub cert: Option<bool>,
        pub chain: Option<bool>,
        pub dns: Option<bool>,
        pub uri: Option<bool>,
    }
}

message! {
    /// Limits on connections.
    pub struct ConnectionSettings {
        pub profile: ConnectionProfile,
        pub listener_per_connection_buffer_limit_bytes: Option<i32>,
        pub cluster_per_connection_buffer_limit_bytes: Option<i32>,
        pub http_idle_timeout: Option<Duration>,
        pub http_max_connection_duration: Option<Duration>,
        pub http_drain_timeout: Option<Duration>,
        pub http_request_timeout: Option<Duration>,
        pub http_request_headers_timeout: Option<Duration>,
        pub http_stream_idle_timeout: Option<Duration>,
        pub http_max_stream_duration: Option<Duration>,
        pub http_max_concurrent_streams: Option<i32>,
        pub http2_initial_stream_window_size: Option<i32>,
        pub http2_initial_connection_window_size: Option<i32>,
        pub http_headers_with_underscores_action: HeadersWithUnderscoresAction,
        pub http_merge_slashes: Option<bool>,
        pub http_path_with_escaped_slashes_action: PathWithEscapedSlashesAction,
        pub listener_connection_limit: Option<i32>,
        pub global_downstream_connection_limit: Option<i32>,
    }
}

proto_enum! {
    /// A set of limits.
    pub enum ConnectionProfile {
        Sidecar = 0 "SIDECAR",
        Edge = 1 "EDGE",
    }
}

proto_enum! {
    /// What becomes of headers with underscores.
    pub enum HeadersWithUnderscoresAction {
        Unspecified = 0 "HEADERS_WITH_UNDERSCORES_UNSPECIFIED",
        Allow = 1 "HEADERS_WITH_UNDERSCORES_ALLOW",
        RejectRequest = 2 "HEADERS_WITH_UNDERSCORES_REJECT_REQUEST",
        DropHeader = 3 "HEADERS_WITH_UNDERSCORES_DROP_HEADER",
    }
}

proto_enum! {
    /// What becomes of paths with escaped slashes.
    pub enum PathWithEscapedSlashesAction {
        Unspecified = 0 "PATH_WITH_ESCAPED_SLASHES_UNSPECIFIED",
        KeepUnchanged = 1 "KEEP_UNCHANGED",
        RejectRequest = 2 "REJECT_REQUEST",
        UnescapeAndRedirect = 3 "UNESCAPE_AND_REDIRECT",
        UnescapeAndForward = 4 "UNESCAPE_AND_FORWARD",
    }
}

message! {
    /// A service outside the mesh that proxies report to.
    pub struct RemoteService {
        pub address: String,
        pub tls_settings: Option<ClientTlsSettings>,
        pub tcp_keepalive: Option<TcpKeepalive>,
    }
}

message! {
    /// Which build of the proxy image is injected.
    pub struct ProxyImage {
        pub image_type: String,
    }
}
