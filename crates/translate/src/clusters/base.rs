//! A cluster in the making: what every cluster has, before a policy is applied to it.

use std::collections::HashMap;

use maille_model::{Port, Protocol, Proxy, Service};
use maille_xds::types::cluster::Cluster;
use maille_xds::types::cluster::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, DnsLookupFamily, EdsClusterConfig,
};
use maille_xds::types::core::config_source::ConfigSourceSpecifier;
use maille_xds::types::core::{
    AggregatedConfigSource, ApiVersion, ConfigSource, Http1ProtocolOptions, Metadata, TypedExtensionConfig,
    http1_protocol_options,
};
use maille_xds::types::endpoint::{ClusterLoadAssignment, LocalityLbEndpoints};
use maille_xds::types::pb::envoy::extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig;
use maille_xds::types::upstream_http::HttpProtocolOptions;
use maille_xds::types::upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig;
use maille_xds::types::upstream_http::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};
use maille_xds::types::{ListValue, Struct, Value, ValueKind, any};

use crate::Context;
use crate::convert::{duration, no_time, ordered_map};

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// A cluster and the protocol options that become part of it in the end.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) cluster: Cluster,
    pub(super) http: Option<HttpProtocolOptions>,
    /// The `istio` metadata, in the order of its keys.
    metadata: Vec<(String, Value)>,
}

impl Draft {
    pub(super) fn new(name: String, discovery: DiscoveryType) -> Draft {
        let cluster = Cluster {
            // Statistics read the name up to this mark, since names have dots and bars of their own.
            alt_stat_name: format!("{name};"),
            name,
            cluster_discovery_type: Some(ClusterDiscoveryType::Type(discovery.into())),
            common_lb_config: Some(CommonLbConfig::default()),
            ..Cluster::default()
        };
        Draft { cluster, http: None, metadata: Vec::new() }
    }

    pub(super) fn discovery(&self) -> Option<DiscoveryType> {
        match self.cluster.cluster_discovery_type {
            Some(ClusterDiscoveryType::Type(value)) => DiscoveryType::try_from(value).ok(),
            _ => None,
        }
    }

    pub(super) fn set_discovery(&mut self, discovery: DiscoveryType) {
        self.cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(discovery.into()));
    }

    pub(super) fn http(&mut self) -> &mut HttpProtocolOptions {
        self.http.get_or_insert_default()
    }

    /// Statistics under a name of the mesh's own making.
    pub(super) fn set_stat_name(&mut self, pattern: &str, service: &Service, subset: &str, port: &Port, target: u32) {
        if pattern.is_empty() {
            return;
        }
        let (short, name) = match service.is_kubernetes() {
            true => (format!("{}.{}", service.name, service.namespace), service.name.as_str()),
            false => (service.hostname.clone(), service.hostname.as_str()),
        };
        let stat_name = pattern
            .replace("%SERVICE%", &short)
            .replace("%SERVICE_NAME%", name)
            .replace("%SERVICE_FQDN%", &service.hostname)
            .replace("%SUBSET_NAME%", subset)
            .replace("%TARGET_PORT%", &target.to_string())
            .replace("%SERVICE_PORT%", &port.number.to_string())
            .replace("%SERVICE_PORT_NAME%", &port.name);
        self.cluster.alt_stat_name = format!("{stat_name};");
    }

    /// Names are resolved by the proxy, as long as each answer says.
    // The fields' successor is a cluster type of its own, which older proxies do not know.
    #[allow(deprecated)]
    pub(super) fn resolve_names(&mut self, context: &Context<'_>) {
        self.cluster.dns_lookup_family = lookup_family(context.proxy).into();
        self.cluster.dns_refresh_rate = context.mesh().dns_refresh_rate.map(duration);
        self.cluster.respect_dns_ttl = true;
    }

    pub(super) fn set_endpoints(&mut self, endpoints: Vec<LocalityLbEndpoints>) {
        let cluster_name = self.cluster.name.clone();
        self.cluster.load_assignment =
            Some(ClusterLoadAssignment { cluster_name, endpoints, ..ClusterLoadAssignment::default() });
    }

    /// HTTP/2 to the upstream, whatever the client speaks.
    pub(super) fn set_http2(&mut self) {
        let options = &mut self.http().upstream_protocol_options;
        if options.is_none() {
            let protocol = ProtocolConfig::Http2ProtocolOptions(Default::default());
            *options = Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
                protocol_config: Some(protocol),
            }));
        }
    }

    /// To the upstream what the client speaks.
    pub(super) fn set_client_protocol(&mut self) {
        let known = self.http().upstream_protocol_options.take();
        let http1 = match known {
            Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) => match explicit.protocol_config {
                Some(ProtocolConfig::HttpProtocolOptions(http1)) => http1,
                _ => Http1ProtocolOptions::default(),
            },
            _ => Http1ProtocolOptions::default(),
        };
        self.http().upstream_protocol_options = Some(client_protocol(http1));
    }

    pub(super) fn http2(&mut self) -> Option<&mut maille_xds::types::core::Http2ProtocolOptions> {
        match &mut self.http.as_mut()?.upstream_protocol_options {
            Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) => match &mut explicit.protocol_config {
                Some(ProtocolConfig::Http2ProtocolOptions(options)) => Some(options),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether the upstream is spoken to as the client speaks to us.
    pub(super) fn follows_client(&self) -> bool {
        let protocol = self.http.as_ref().and_then(|http| http.upstream_protocol_options.as_ref());
        matches!(protocol, Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(_)))
    }

    pub(super) fn is_http2(&mut self) -> bool {
        self.http2().is_some()
    }

    /// By the port's protocol. On gateways a port of unknown protocol stays HTTP/1.1: clients of a gateway often
    /// speak HTTP/2 because the gateway offers it, which says nothing about the upstream.
    pub(super) fn set_upstream_protocol(&mut self, protocol: Protocol, context: &Context<'_>) {
        if protocol.is_http2() {
            self.set_http2();
            return;
        }
        if protocol.is_http_or_sniffed() && keeps_header_case(context) {
            let protocol = ProtocolConfig::HttpProtocolOptions(http1_options(context));
            self.http().upstream_protocol_options =
                Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
                    protocol_config: Some(protocol),
                }));
        }
        if protocol.is_unsupported() && !context.proxy.is_router() {
            self.set_client_protocol();
        }
    }

    pub(super) fn metadata(&mut self, key: &str, kind: ValueKind) {
        self.metadata.retain(|(known, _)| known != key);
        self.metadata.push((key.to_owned(), Value { kind: Some(kind) }));
    }

    /// Which services the cluster stands for, for whoever names metrics.
    pub(super) fn services<'a>(&mut self, services: impl Iterator<Item = &'a Service>) {
        let values = services.map(|service| {
            let field = |name: &str, text: &str| {
                (name.to_owned(), Value { kind: Some(ValueKind::StringValue(text.to_owned())) })
            };
            let fields = ordered_map(vec![
                field("host", &service.hostname),
                field("name", &service.name),
                field("namespace", &service.namespace),
            ]);
            Value { kind: Some(ValueKind::StructValue(Struct { fields })) }
        });
        let values: Vec<Value> = values.collect();
        if !values.is_empty() {
            self.metadata("services", ValueKind::ListValue(ListValue { values }));
        }
    }

    pub(super) fn finish(mut self) -> Cluster {
        if self.discovery() == Some(DiscoveryType::Eds) {
            self.cluster.eds_cluster_config =
                Some(EdsClusterConfig { eds_config: Some(ads()), service_name: self.cluster.name.clone() });
        }
        if let Some(mut http) = self.http {
            // Envoy asks for one of them; this is what it does without any.
            http.upstream_protocol_options.get_or_insert_with(|| {
                let protocol = ProtocolConfig::HttpProtocolOptions(Default::default());
                UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(protocol) })
            });
            self.cluster.typed_extension_protocol_options = HashMap::from([(HTTP_OPTIONS.to_owned(), any(&http))]);
        }
        if !self.metadata.is_empty() {
            let istio = Struct { fields: ordered_map(self.metadata) };
            self.cluster.metadata =
                Some(Metadata { filter_metadata: HashMap::from([("istio".to_owned(), istio)]), ..Metadata::default() });
        }
        self.cluster
    }
}

pub(super) fn client_protocol(http1: Http1ProtocolOptions) -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
        http_protocol_options: Some(http1),
        http2_protocol_options: Some(Default::default()),
        ..UseDownstreamHttpConfig::default()
    })
}

/// HTTP/1 as the mesh wants it written.
pub(super) fn http1_options(context: &Context<'_>) -> Http1ProtocolOptions {
    if !keeps_header_case(context) {
        return Http1ProtocolOptions::default();
    }
    let formatter = TypedExtensionConfig {
        name: "preserve_case".to_owned(),
        typed_config: Some(any(&PreserveCaseFormatterConfig::default())),
    };
    let header_format = http1_protocol_options::header_key_format::HeaderFormat::StatefulFormatter(formatter);
    Http1ProtocolOptions {
        header_key_format: Some(http1_protocol_options::HeaderKeyFormat { header_format: Some(header_format) }),
        ..Http1ProtocolOptions::default()
    }
}

fn keeps_header_case(context: &Context<'_>) -> bool {
    let headers = context.mesh().default_config.as_ref().and_then(|config| config.proxy_headers.as_ref());
    headers.is_some_and(|headers| headers.preserve_http1_header_case == Some(true))
}

/// From the same stream as everything else, waited for as long as it takes.
pub(crate) fn ads() -> ConfigSource {
    ConfigSource {
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        initial_fetch_timeout: Some(no_time()),
        resource_api_version: ApiVersion::V3.into(),
        ..ConfigSource::default()
    }
}

pub(super) fn lookup_family(proxy: &Proxy) -> DnsLookupFamily {
    match (proxy.supports_ipv4(), proxy.supports_ipv6()) {
        (false, true) => DnsLookupFamily::V6Only,
        _ => DnsLookupFamily::V4Only,
    }
}
