//! MeshConfig: settings of the whole mesh. Reference: <https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/>.

mod defaults;
pub mod providers;
pub mod proxy_config;

use std::collections::BTreeMap;

use self::providers::ExtensionProvider;
use self::proxy_config::ProxyConfig;
use crate::duration::Duration;
use crate::message::{choice, message, proto_enum};
use crate::networking::destination_rule::{
    ClientTlsSettings, ConnectionPoolSettings, LocalityLoadBalancerSetting, OutlierDetection, TcpKeepalive,
    ZoneAwareLoadBalancerSetting,
};
use crate::networking::virtual_service::HttpRetry;

message! {
    with defaults
    /// Settings of the whole mesh.
    pub struct MeshConfig {
        pub proxy_listen_port: i32,
        pub proxy_inbound_listen_port: i32,
        pub proxy_http_port: i32,
        pub connect_timeout: Option<Duration>,
        pub hbone_idle_timeout: Option<Duration>,
        pub protocol_detection_timeout: Option<Duration>,
        pub tcp_keepalive: Option<TcpKeepalive>,
        pub ingress_class: String,
        pub ingress_service: String,
        pub ingress_controller_mode: IngressControllerMode,
        pub ingress_selector: String,
        pub enable_tracing: bool,
        pub access_log_file: String,
        pub access_log_format: String,
        pub access_log_encoding: AccessLogEncoding,
        pub enable_envoy_access_log_service: bool,
        pub disable_envoy_listener_log: bool,
        pub default_config: Option<ProxyConfig>,
        pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
        pub inbound_traffic_policy: Option<InboundTrafficPolicy>,
        pub config_sources: Vec<ConfigSource>,
        pub enable_auto_mtls: Option<bool>,
        pub trust_domain: String,
        pub trust_domain_aliases: Vec<String>,
        pub ca_certificates: Vec<CertificateData>,
        pub default_service_export_to: Vec<String>,
        pub default_virtual_service_export_to: Vec<String>,
        pub default_destination_rule_export_to: Vec<String>,
        pub root_namespace: String,
        pub locality_lb_setting: Option<LocalityLoadBalancerSetting>,
        pub zone_aware_lb_setting: Option<ZoneAwareLoadBalancerSetting>,
        pub dns_refresh_rate: Option<Duration>,
        pub h2_upgrade_policy: H2UpgradePolicy,
        pub inbound_cluster_stat_name: String,
        pub outbound_cluster_stat_name: String,
        pub certificates: Vec<Certificate>,
        pub service_settings: Vec<ServiceSettings>,
        pub service_scope_configs: Vec<ServiceScopeConfig>,
        pub enable_prometheus_merge: Option<bool>,
        pub verify_certificate_at_client: Option<bool>,
        pub ca: Option<CertificateAuthority>,
        pub extension_providers: Vec<ExtensionProvider>,
        pub default_providers: Option<DefaultProviders>,
        pub discovery_selectors: Vec<LabelSelector>,
        pub path_normalization: Option<ProxyPathNormalization>,
        pub default_http_retry_policy: Option<HttpRetry>,
        #[serde(rename = "meshMTLS")]
        pub mesh_mtls: Option<TlsConfig>,
        pub tls_defaults: Option<TlsConfig>,
        pub default_traffic_policy: Option<DefaultTrafficPolicy>,
        pub service_entry_visibility: Option<ServiceEntryVisibility>,
    }
}

proto_enum! {
    /// Which Ingress resources are served.
    pub enum IngressControllerMode {
        Unspecified = 0 "UNSPECIFIED",
        Off = 1 "OFF",
        Default = 2 "DEFAULT",
        Strict = 3 "STRICT",
    }
}

proto_enum! {
    /// How an access log line is written.
    pub enum AccessLogEncoding {
        Text = 0 "TEXT",
        Json = 1 "JSON",
    }
}

message! {
    /// What becomes of connections to hosts nobody declared.
    pub struct OutboundTrafficPolicy {
        pub mode: OutboundTrafficPolicyMode,
        pub tls: Option<ClientTlsSettings>,
    }
}

proto_enum! {
    /// Whether undeclared hosts can be reached.
    pub enum OutboundTrafficPolicyMode {
        RegistryOnly = 0 "REGISTRY_ONLY",
        AllowAny = 1 "ALLOW_ANY",
        AllowAnyDynamicDns = 3 "ALLOW_ANY_DYNAMIC_DNS",
    }
}

message! {
    /// Where connections to undeclared ports of a workload go.
    pub struct InboundTrafficPolicy {
        pub mode: InboundTrafficPolicyMode,
    }
}

proto_enum! {
    /// Which address connections to undeclared ports are made to.
    pub enum InboundTrafficPolicyMode {
        Passthrough = 0 "PASSTHROUGH",
        Localhost = 1 "LOCALHOST",
    }
}

message! {
    /// A certificate authority that workloads trust.
    pub struct CertificateData {
        pub cert_signers: Vec<String>,
        pub trust_domains: Vec<String>,
    }
    /// Where the authority's certificates are.
    oneof certificate_data: CertificateSource {
        pem => Pem(String),
        spiffe_bundle_url => SpiffeBundleUrl(String),
    }
}

proto_enum! {
    /// Whether HTTP/1.1 is forwarded as HTTP/2.
    pub enum H2UpgradePolicy {
        DoNotUpgrade = 0 "DO_NOT_UPGRADE",
        Upgrade = 1 "UPGRADE",
    }
}

message! {
    /// Settings of some hosts.
    pub struct ServiceSettings {
        pub settings: Option<ServiceSettingsValues>,
        pub hosts: Vec<String>,
    }
}

message! {
    /// What is set for them.
    pub struct ServiceSettingsValues {
        pub cluster_local: bool,
    }
}

message! {
    /// How far services are known across clusters.
    pub struct ServiceScopeConfig {
        pub namespace_selector: Option<LabelSelector>,
        pub services_selector: Option<LabelSelector>,
        pub scope: ServiceScope,
    }
}

proto_enum! {
    /// How far a service is known.
    pub enum ServiceScope {
        Local = 0 "LOCAL",
        Global = 1 "GLOBAL",
    }
}

message! {
    /// The certificate authority asked for workload certificates.
    pub struct CertificateAuthority {
        pub address: String,
        pub tls_settings: Option<ClientTlsSettings>,
        pub request_timeout: Option<Duration>,
        pub istiod_side: bool,
    }
}

message! {
    /// The providers used where nothing names one.
    pub struct DefaultProviders {
        pub tracing: Vec<String>,
        pub metrics: Vec<String>,
        pub access_logging: Vec<String>,
    }
}

message! {
    /// How paths are normalized.
    pub struct ProxyPathNormalization {
        pub normalization: PathNormalizationType,
    }
}

proto_enum! {
    /// How far paths are normalized before they are matched.
    pub enum PathNormalizationType {
        Default = 0 "DEFAULT",
        None = 1 "NONE",
        Base = 2 "BASE",
        MergeSlashes = 3 "MERGE_SLASHES",
        DecodeAndMergeSlashes = 4 "DECODE_AND_MERGE_SLASHES",
    }
}

message! {
    /// Limits on TLS.
    pub struct TlsConfig {
        pub min_protocol_version: MeshTlsProtocol,
        pub ecdh_curves: Vec<String>,
        pub cipher_suites: Vec<String>,
    }
}

proto_enum! {
    /// A version of TLS.
    pub enum MeshTlsProtocol {
        TlsAuto = 0 "TLS_AUTO",
        TlsV1_2 = 1 "TLSV1_2",
        TlsV1_3 = 2 "TLSV1_3",
    }
}

message! {
    /// The policy of destinations that have none.
    pub struct DefaultTrafficPolicy {
        pub connection_pool: Option<ConnectionPoolSettings>,
        pub outlier_detection: Option<OutlierDetection>,
    }
}

proto_enum! {
    /// What a configuration source is asked for.
    pub enum ConfigSourceResource {
        ServiceRegistry = 0 "SERVICE_REGISTRY",
    }
}

message! {
    /// A Kubernetes label selector.
    pub struct LabelSelector {
        pub match_labels: BTreeMap<String, String>,
        pub match_expressions: Vec<LabelSelectorRequirement>,
    }
}

message! {
    /// One condition of a label selector.
    pub struct LabelSelectorRequirement {
        pub key: String,
        pub operator: String,
        pub values: Vec<String>,
    }
}

message! {
    /// Who sees ServiceEntries.
    pub struct ServiceEntryVisibility {
        pub default_visibility: ServiceEntryVisibilityLevel,
        pub apply_to_sidecars: bool,
        pub policies: Vec<ServiceEntryVisibilityPolicy>,
    }
}

proto_enum! {
    /// How far a ServiceEntry is seen.
    pub enum ServiceEntryVisibilityLevel {
        VisibilityUnspecified = 0 "VISIBILITY_UNSPECIFIED",
        None = 1 "NONE",
        Namespace = 2 "NAMESPACE",
        Public = 3 "PUBLIC",
    }
}

message! {
    /// Visibility for some namespaces.
    pub struct ServiceEntryVisibilityPolicy {
        pub visibility: ServiceEntryVisibilityLevel,
        pub matching_rules: Vec<NamespaceMatchRule>,
    }
}

choice! {
    /// Which namespaces a policy is for.
    pub enum NamespaceMatchRule {
        namespace_selector => NamespaceSelector(LabelSelector),
    }
}

message! {
    /// Where configuration comes from.
    pub struct ConfigSource {
        pub address: String,
        pub tls_settings: Option<ClientTlsSettings>,
        pub subscribed_resources: Vec<ConfigSourceResource>,
    }
}

message! {
    /// A certificate for names in the control plane.
    pub struct Certificate {
        pub secret_name: String,
        pub dns_names: Vec<String>,
    }
}
