//! What holds where the mesh configuration says nothing: Istio's defaults.

use super::providers::{EnvoyFileAccessLogProvider, ExtensionProvider, ProviderKind};
use super::providers::{PrometheusMetricsProvider, StackdriverProvider};
use super::proxy_config::{AuthenticationPolicy, ProxyConfig};
use super::{
    DefaultProviders, InboundTrafficPolicy, IngressControllerMode, MeshConfig, OutboundTrafficPolicy,
    OutboundTrafficPolicyMode,
};
use crate::duration::Duration;
use crate::networking::destination_rule::LocalityLoadBalancerSetting;

impl Default for MeshConfig {
    fn default() -> Self {
        let everyone = || vec!["*".to_owned()];
        MeshConfig {
            access_log_encoding: Default::default(),
            access_log_file: String::new(),
            access_log_format: String::new(),
            ca: None,
            ca_certificates: Vec::new(),
            certificates: Vec::new(),
            config_sources: Vec::new(),
            connect_timeout: Some(Duration::from_secs(10)),
            default_config: Some(ProxyConfig::default()),
            default_destination_rule_export_to: everyone(),
            default_http_retry_policy: None,
            default_providers: Some(DefaultProviders::default()),
            default_service_export_to: everyone(),
            default_traffic_policy: None,
            default_virtual_service_export_to: everyone(),
            disable_envoy_listener_log: false,
            discovery_selectors: Vec::new(),
            dns_refresh_rate: Some(Duration::from_secs(60)),
            enable_auto_mtls: Some(true),
            enable_envoy_access_log_service: false,
            enable_prometheus_merge: Some(true),
            enable_tracing: true,
            extension_providers: default_providers(),
            h2_upgrade_policy: Default::default(),
            hbone_idle_timeout: None,
            inbound_cluster_stat_name: String::new(),
            inbound_traffic_policy: Some(InboundTrafficPolicy::default()),
            ingress_class: "istio".to_owned(),
            ingress_controller_mode: IngressControllerMode::Strict,
            ingress_selector: String::new(),
            ingress_service: "istio-ingressgateway".to_owned(),
            locality_lb_setting: Some(LocalityLoadBalancerSetting { enabled: Some(true), ..Default::default() }),
            mesh_mtls: None,
            outbound_cluster_stat_name: String::new(),
            outbound_traffic_policy: Some(OutboundTrafficPolicy {
                mode: OutboundTrafficPolicyMode::AllowAny,
                ..Default::default()
            }),
            path_normalization: None,
            protocol_detection_timeout: Some(Duration::ZERO),
            proxy_http_port: 0,
            proxy_inbound_listen_port: 15006,
            proxy_listen_port: 15001,
            root_namespace: "istio-system".to_owned(),
            service_entry_visibility: None,
            service_scope_configs: Vec::new(),
            service_settings: Vec::new(),
            tcp_keepalive: None,
            tls_defaults: None,
            trust_domain: "cluster.local".to_owned(),
            trust_domain_aliases: Vec::new(),
            verify_certificate_at_client: None,
            zone_aware_lb_setting: None,
        }
    }
}

impl MeshConfig {
    /// Adds the providers that always exist, unless others have taken their names, and sorts the trust domains.
    pub(crate) fn with_default_providers(mut self) -> Self {
        let mut providers = default_providers();
        for written in std::mem::take(&mut self.extension_providers) {
            match providers.iter_mut().find(|provider| provider.name == written.name) {
                Some(provider) => *provider = written,
                None => providers.push(written),
            }
        }
        self.extension_providers = providers;
        self.trust_domain_aliases.sort();
        self.trust_domain_aliases.dedup();
        self
    }
}

impl Default for ProxyConfig {
    fn default() -> Self {
        ProxyConfig {
            availability_zone: String::new(),
            binary_path: "/usr/local/bin/envoy".to_owned(),
            ca_certificates_pem: Vec::new(),
            // Upstream's default is the service cluster `istio-proxy`; whoever names the node falls back to it.
            cluster_name: None,
            concurrency: None,
            config_path: "./etc/istio/proxy".to_owned(),
            connection_settings: None,
            control_plane_auth_policy: AuthenticationPolicy::MutualTls,
            custom_config_file: String::new(),
            discovery_address: "istiod.istio-system.svc:15012".to_owned(),
            discovery_refresh_delay: None,
            drain_duration: Some(Duration::from_secs(45)),
            envoy_access_log_service: None,
            envoy_metrics_service: None,
            envoy_metrics_service_address: String::new(),
            extra_stat_tags: Vec::new(),
            file_flush_interval: None,
            file_flush_min_size_kb: 0,
            gateway_topology: None,
            hold_application_until_proxy_starts: None,
            image: None,
            interception_mode: Default::default(),
            mesh_id: String::new(),
            private_key_provider: None,
            proxy_admin_port: 15000,
            proxy_bootstrap_template_path: String::new(),
            proxy_headers: None,
            proxy_metadata: Default::default(),
            proxy_stats_matcher: None,
            readiness_probe: None,
            runtime_values: Default::default(),
            sds: None,
            stat_name_length: 189,
            stats_compression: None,
            statsd_udp_address: String::new(),
            status_port: 15020,
            termination_drain_duration: Some(Duration::from_secs(5)),
            tracing: None,
            zipkin_address: String::new(),
        }
    }
}

fn default_providers() -> Vec<ExtensionProvider> {
    let provider = |name: &str, kind| ExtensionProvider { name: name.to_owned(), provider: Some(kind) };
    vec![
        provider("prometheus", ProviderKind::Prometheus(PrometheusMetricsProvider::default())),
        provider("stackdriver", ProviderKind::Stackdriver(StackdriverProvider::default())),
        provider(
            "envoy",
            ProviderKind::EnvoyFileAccessLog(EnvoyFileAccessLogProvider {
                path: "/dev/stdout".to_owned(),
                ..Default::default()
            }),
        ),
    ]
}
