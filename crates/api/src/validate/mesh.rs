//! MeshConfig: what holds for everybody, so a mistake here is everybody's.

use std::collections::BTreeSet;

use super::findings::{At, Problem, Verdict};
use super::{rules, tls, traffic_policy, virtual_service};
use crate::duration::Duration;
use crate::mesh::MeshConfig;
use crate::mesh::proxy_config::{AuthenticationPolicy, ConnectionSettings, ProxyConfig, Tracer};

/// Key exchanges BoringSSL has.
const ECDH_CURVES: [&str; 7] =
    ["P-224", "P-256", "P-521", "P-384", "X25519", "X25519Kyber768Draft00", "X25519MLKEM768"];
const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(3600);
const MIN_WINDOW: i32 = 65_535;

pub(super) fn validate(mesh: &MeshConfig, at: &mut At<'_>) {
    at.field("proxyListenPort").check(rules::port(mesh.proxy_listen_port));
    timeouts(mesh, at);
    match &mesh.default_config {
        Some(config) => proxy_config(config, &mut at.field("defaultConfig")),
        None => at.field("defaultConfig").error("the settings of proxies are missing"),
    }
    // Where endpoints fail over, the mesh always watches them.
    if let Some(setting) = &mesh.locality_lb_setting {
        traffic_policy::locality(setting, true, &mut at.field("localityLbSetting"));
    }
    if let Some(setting) = &mesh.zone_aware_lb_setting {
        traffic_policy::zone_aware(setting, true, &mut at.field("zoneAwareLbSetting"));
    }
    for (i, settings) in mesh.service_settings.iter().enumerate() {
        for (j, host) in settings.hosts.iter().enumerate() {
            let mut at = at.field("serviceSettings");
            at.index(i).field("hosts").index(j).check(rules::wildcard_domain(host));
        }
    }
    at.field("trustDomain").check(trust_domain(&mesh.trust_domain));
    // Aliases are sorted when they are read, so their place in the list says nothing.
    for alias in &mesh.trust_domain_aliases {
        at.field("trustDomainAliases").check(trust_domain(alias));
    }
    mesh_tls(mesh, at);
    if let Some(policy) = &mesh.default_traffic_policy {
        let at = &mut at.field("defaultTrafficPolicy");
        if let Some(pool) = &policy.connection_pool {
            traffic_policy::connection_pool(pool, &mut at.field("connectionPool"));
        }
        if let Some(outlier) = &policy.outlier_detection {
            traffic_policy::outlier_detection(outlier, &mut at.field("outlierDetection").errors_only());
        }
    }
    if let Some(policy) = &mesh.default_http_retry_policy {
        virtual_service::retries(policy, &mut at.field("defaultHttpRetryPolicy"));
    }
    extension_providers(mesh, &mut at.field("extensionProviders"));
}

fn timeouts(mesh: &MeshConfig, at: &mut At<'_>) {
    let mut connect = at.field("connectTimeout");
    match mesh.connect_timeout {
        Some(timeout) => {
            connect.check(rules::duration(timeout));
            if timeout > MAX_CONNECT_TIMEOUT {
                connect.error(format!("{timeout} is longer than an hour"));
            }
        }
        None => connect.error("how long a connection may take to be made is missing"),
    }
    let detection = mesh.protocol_detection_timeout.unwrap_or_default();
    if detection.subsec_nanos() % 1_000_000 != 0 {
        at.field("protocolDetectionTimeout").error(format!("{detection} is not a whole number of milliseconds"));
    }
}

/// Like a host name, but the last part may be a number.
fn trust_domain(domain: &str) -> Verdict {
    let name = domain.strip_suffix('.').unwrap_or(domain);
    if !name.is_empty() && name.split('.').all(rules::is_dns_label) {
        return Ok(());
    }
    Err(Problem::new(format!("`{domain}` is not a trust domain")).hint("write it like a host name: `cluster.local`"))
}

fn mesh_tls(mesh: &MeshConfig, at: &mut At<'_>) {
    if mesh.mesh_mtls.as_ref().is_some_and(|tls| !tls.ecdh_curves.is_empty()) {
        at.field("meshMTLS").field("ecdhCurves").error(
            Problem::new("the curves of the mesh's own TLS are fixed").hint("use tlsDefaults for everything else"),
        );
    }
    let mut seen = BTreeSet::new();
    for (i, curve) in mesh.tls_defaults.iter().flat_map(|tls| &tls.ecdh_curves).enumerate() {
        let mut at = at.field("tlsDefaults");
        let mut at = at.field("ecdhCurves");
        if !curve.is_empty() && !ECDH_CURVES.contains(&curve.as_str()) {
            at.index(i).warn(
                Problem::new(format!("`{curve}` is not a curve this proxy knows"))
                    .hint(format!("use one of {}", ECDH_CURVES.join(", "))),
            );
        } else if !seen.insert(curve) {
            at.index(i).warn(format!("`{curve}` is there twice"));
        }
    }
}

/// A broken provider only matters to what uses it, so it is no reason to refuse the whole configuration.
fn extension_providers(mesh: &MeshConfig, at: &mut At<'_>) {
    let mut names = BTreeSet::new();
    for (i, provider) in mesh.extension_providers.iter().enumerate() {
        let mut at = at.index(i);
        if provider.name.is_empty() {
            at.field("name").warn("a provider without a name cannot be used");
        } else if !names.insert(&provider.name) {
            at.field("name").warn(format!("another provider is called `{}` already", provider.name));
        }
        if provider.provider.is_none() {
            at.warn("the provider does not say what it is");
        }
    }
}

fn proxy_config(config: &ProxyConfig, at: &mut At<'_>) {
    for (field, path) in [("configPath", &config.config_path), ("binaryPath", &config.binary_path)] {
        if path.is_empty() {
            at.field(field).error("this path is missing");
        }
    }
    let mut drain = at.field("drainDuration");
    match config.drain_duration {
        Some(duration) => {
            drain.check(rules::duration(duration));
            if duration.subsec_nanos() != 0 {
                drain.error(format!("{duration} is not a whole number of seconds"));
            }
        }
        None => drain.error("how long connections may take to end is missing"),
    }
    at.field("discoveryAddress").check(rules::host_port(&config.discovery_address));
    tracing(config, &mut at.field("tracing"));
    remote_addresses(config, at);
    at.field("proxyAdminPort").check(rules::port(config.proxy_admin_port));
    at.field("statusPort").check(rules::port(config.status_port));
    if config.control_plane_auth_policy == AuthenticationPolicy::Inherit {
        at.field("controlPlaneAuthPolicy")
            .error(Problem::new("there is nobody to inherit this from").hint("write NONE or MUTUAL_TLS"));
    }
    if config.proxy_metadata.contains_key("ISTIO_META_DNS_AUTO_ALLOCATE") {
        at.field("proxyMetadata").key("ISTIO_META_DNS_AUTO_ALLOCATE").warn(
            Problem::new("addresses are no longer made up by proxies").hint(
                "remove it; the label networking.istio.io/enable-autoallocate-ip turns it off for a ServiceEntry",
            ),
        );
    }
    if let Some(settings) = &config.connection_settings {
        connection_settings(settings, &mut at.field("connectionSettings"));
    }
}

fn tracing(config: &ProxyConfig, at: &mut At<'_>) {
    let Some(tracing) = &config.tracing else { return };
    // On Kubernetes an agent may run on the workload's own machine.
    let address = |address: &str| rules::host_port(&address.replacen("$(HOST_IP)", "127.0.0.1", 1));
    match &tracing.tracer {
        Some(Tracer::Zipkin(zipkin)) => at.field("zipkin").field("address").check(address(&zipkin.address)),
        Some(Tracer::Datadog(datadog)) => at.field("datadog").field("address").check(address(&datadog.address)),
        Some(Tracer::Lightstep(lightstep)) => {
            let at = &mut at.field("lightstep");
            at.field("address").check(rules::host_port(&lightstep.address));
            if lightstep.access_token.is_empty() {
                at.field("accessToken").error("the access token is missing");
            }
        }
        Some(Tracer::Stackdriver(_) | Tracer::OpenCensusAgent(_)) | None => {}
    }
    if let Some(settings) = &tracing.tls_settings {
        tls::client("", settings, &mut at.field("tlsSettings"));
    }
}

fn remote_addresses(config: &ProxyConfig, at: &mut At<'_>) {
    let metrics = config.envoy_metrics_service.as_ref().map_or("", |service| &service.address);
    let logs = config.envoy_access_log_service.as_ref().map_or("", |service| &service.address);
    for (path, address) in [
        ("statsdUdpAddress", config.statsd_udp_address.as_str()),
        ("envoyMetricsServiceAddress", &config.envoy_metrics_service_address),
        ("envoyMetricsService.address", metrics),
        ("envoyAccessLogService.address", logs),
    ] {
        if !address.is_empty() {
            at.field(path).check(rules::host_port(address));
        }
    }
}

fn connection_settings(settings: &ConnectionSettings, at: &mut At<'_>) {
    let below = |value: Option<i32>, least: i32| value.filter(|value| *value < least).map(|value| (value, least));
    for (field, wrong) in [
        ("listenerPerConnectionBufferLimitBytes", below(settings.listener_per_connection_buffer_limit_bytes, 0)),
        ("clusterPerConnectionBufferLimitBytes", below(settings.cluster_per_connection_buffer_limit_bytes, 0)),
        ("httpMaxConcurrentStreams", below(settings.http_max_concurrent_streams, 1)),
        ("http2InitialStreamWindowSize", below(settings.http2_initial_stream_window_size, MIN_WINDOW)),
        ("http2InitialConnectionWindowSize", below(settings.http2_initial_connection_window_size, MIN_WINDOW)),
        ("listenerConnectionLimit", below(settings.listener_connection_limit, 1)),
        ("globalDownstreamConnectionLimit", below(settings.global_downstream_connection_limit, 1)),
    ] {
        if let Some((value, least)) = wrong {
            at.field(field).error(format!("{value} is less than {least}"));
        }
    }
    for (field, duration) in [
        ("httpIdleTimeout", settings.http_idle_timeout),
        ("httpMaxConnectionDuration", settings.http_max_connection_duration),
        ("httpDrainTimeout", settings.http_drain_timeout),
        ("httpRequestTimeout", settings.http_request_timeout),
        ("httpRequestHeadersTimeout", settings.http_request_headers_timeout),
        ("httpStreamIdleTimeout", settings.http_stream_idle_timeout),
        ("httpMaxStreamDuration", settings.http_max_stream_duration),
    ] {
        if duration.is_some_and(Duration::is_negative) {
            at.field(field).error("a timeout cannot be negative");
        }
    }
}
