//! The HTTP connection manager: what every HTTP listener has in common, and where they differ.

use maille_api::mesh::PathNormalizationType;
use maille_api::mesh::proxy_config::{
    ConnectionProfile, ConnectionSettings, ForwardClientCertDetails as Forward,
    HeadersWithUnderscoresAction as Underscores, PathWithEscapedSlashesAction as EscapedSlashes,
};
use maille_model::{Protocol, Proxy};
use maille_xds::types::core::http_protocol_options::HeadersWithUnderscoresAction;
use maille_xds::types::core::{
    ConfigSource, Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions, TypedExtensionConfig,
    http1_protocol_options,
};
use maille_xds::types::hcm::http_connection_manager::{
    CodecType, ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier, SetCurrentClientCertDetails,
    UpgradeConfig,
};
use maille_xds::types::hcm::{HttpConnectionManager, HttpFilter, Rds, http_filter};
use maille_xds::types::listener::{Filter, filter};
use maille_xds::types::pb::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig;
use maille_xds::types::pb::envoy::extensions::filters::http::{dynamic_forward_proxy, grpc_web};
use maille_xds::types::pb::envoy::extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig;
use maille_xds::types::route::RouteConfiguration;
use maille_xds::types::{BoolValue, Message, Name, UInt32Value, any, cors, fault, grpc_stats, router};

use super::{access_log, istio_stats};
use crate::Context;
use crate::clusters::ads;
use crate::convert::{duration, no_time};
use crate::proxy_headers::{ProxyHeaders, forward_client_cert};
use crate::routes::{CORS, FAULT};

/// Whose connections a listener takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Anybody's, at the edge.
    Gateway,
    /// The sidecar's own application's.
    Outbound,
    /// Those of the application's clients.
    Inbound,
}

/// Where the routes are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Routes {
    /// Delivered separately under this name.
    Rds(String),
    /// In the listener itself.
    Inline(Box<RouteConfiguration>),
}

/// What one connection manager is to be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Http {
    pub(crate) class: Class,
    pub(crate) stat_prefix: String,
    pub(crate) routes: Routes,
    pub(crate) protocol: Protocol,
    /// Clients may send whole URLs, as they do to a forward proxy.
    pub(crate) forward_proxy: bool,
    /// Requests to hosts that are resolved when they come need their names resolved first.
    pub(crate) dns_cache: Option<DnsCacheConfig>,
}

impl Http {
    /// With routes delivered separately.
    pub(crate) fn rds(class: Class, name: &str, protocol: Protocol) -> Http {
        let routes = Routes::Rds(name.to_owned());
        Http { class, stat_prefix: String::new(), routes, protocol, forward_proxy: false, dns_cache: None }
    }

    /// The name of the route configuration that has to be delivered.
    pub(crate) fn route_name(&self) -> Option<&str> {
        match &self.routes {
            Routes::Rds(name) => Some(name),
            Routes::Inline(_) => None,
        }
    }

    /// The network filter.
    pub(crate) fn filter(&self, context: &Context<'_>) -> Filter {
        Filter {
            name: "envoy.filters.network.http_connection_manager".to_owned(),
            config_type: Some(filter::ConfigType::TypedConfig(any(&self.connection_manager(context)))),
        }
    }

    fn connection_manager(&self, context: &Context<'_>) -> HttpConnectionManager {
        let mesh = context.mesh();
        let headers = match self.class {
            Class::Outbound => ProxyHeaders::outbound(mesh),
            Class::Gateway | Class::Inbound => ProxyHeaders::new(mesh),
        };
        let mut out = HttpConnectionManager {
            codec_type: CodecType::Auto.into(),
            stat_prefix: self.stat_prefix.clone(),
            http_filters: self.http_filters(context, &headers),
            http_protocol_options: self.http1_options(context),
            // Clients of an HTTP/2 port are served HTTP/2 by prior knowledge.
            http2_protocol_options: (self.class == Class::Inbound && self.protocol.is_http2())
                .then(Http2ProtocolOptions::default),
            common_http_protocol_options: idle_timeout(context.proxy)
                .map(|idle| HttpProtocolOptions { idle_timeout: Some(idle), ..Default::default() }),
            server_name: headers.server_name.clone(),
            server_header_transformation: headers.server_transformation.into(),
            generate_request_id: headers.generate_request_id.map(|value| BoolValue { value }),
            append_x_forwarded_port: headers.x_forwarded_port,
            use_remote_address: Some(BoolValue { value: self.class == Class::Gateway }),
            stream_idle_timeout: Some(no_time()),
            access_log: access_log::of_traffic(mesh),
            upgrade_configs: vec![UpgradeConfig { upgrade_type: "websocket".to_owned(), ..Default::default() }],
            proxy_100_continue: true,
            route_specifier: Some(self.route_specifier()),
            ..Default::default()
        };
        self.client_certificates(&mut out, context, &headers);
        normalize_paths(&mut out, context);
        if let Some(settings) = connection_settings(context) {
            apply_connection_settings(&mut out, &settings);
        }
        out
    }

    fn route_specifier(&self) -> RouteSpecifier {
        match &self.routes {
            Routes::Inline(routes) => RouteSpecifier::RouteConfig((**routes).clone()),
            Routes::Rds(name) => {
                // Routes are waited for as long as it takes: without them the listener would answer 404.
                let source = ConfigSource { initial_fetch_timeout: Some(no_time()), ..ads() };
                RouteSpecifier::Rds(Rds { config_source: Some(source), route_config_name: name.clone() })
            }
        }
    }

    fn http1_options(&self, context: &Context<'_>) -> Option<Http1ProtocolOptions> {
        let headers = context.mesh().default_config.as_ref().and_then(|config| config.proxy_headers.as_ref());
        let options = Http1ProtocolOptions {
            allow_absolute_url: self.forward_proxy.then_some(BoolValue { value: true }),
            accept_http_10: context.proxy.metadata.http10,
            header_key_format: headers
                .is_some_and(|headers| headers.preserve_http1_header_case == Some(true))
                .then(preserve_header_case),
            ..Default::default()
        };
        (self.class == Class::Gateway || options != Http1ProtocolOptions::default()).then_some(options)
    }

    fn http_filters(&self, context: &Context<'_>, headers: &ProxyHeaders) -> Vec<HttpFilter> {
        let mut filters = match self.class {
            Class::Gateway | Class::Inbound => context.policies().http.clone(),
            Class::Outbound => Vec::new(),
        };
        if self.protocol == Protocol::GrpcWeb {
            filters.push(http_filter("envoy.filters.http.grpc_web", &grpc_web::v3::GrpcWeb::default()));
        }
        let stats = grpc_stats::FilterConfig {
            emit_filter_state: true,
            per_method_stat_specifier: Some(grpc_stats::filter_config::PerMethodStatSpecifier::StatsForAllMethods(
                BoolValue { value: false },
            )),
            ..Default::default()
        };
        filters.push(http_filter("envoy.filters.http.grpc_stats", &stats));
        filters.push(http_filter(FAULT, &fault::HttpFault::default()));
        filters.push(http_filter(CORS, &cors::Cors::default()));
        if let Some(cache) = &self.dns_cache {
            use dynamic_forward_proxy::v3::{FilterConfig, filter_config::ImplementationSpecifier};
            let config = FilterConfig {
                implementation_specifier: Some(ImplementationSpecifier::DnsCacheConfig(cache.clone())),
                ..Default::default()
            };
            filters.push(http_filter("envoy.filters.http.dynamic_forward_proxy", &config));
        }
        if let Some(config) = istio_stats::config(context, self.class == Class::Outbound) {
            filters.push(http_filter(istio_stats::NAME, &config));
        }
        let router = router::Router { suppress_envoy_headers: headers.suppress_envoy_headers, ..Default::default() };
        filters.push(http_filter("envoy.filters.http.router", &router));
        filters
    }

    /// What becomes of `x-forwarded-client-cert`. Gateways trust nobody's unless told to.
    fn client_certificates(&self, out: &mut HttpConnectionManager, context: &Context<'_>, headers: &ProxyHeaders) {
        let yes = Some(BoolValue { value: true });
        match self.class {
            Class::Outbound => {}
            Class::Gateway => {
                let config = context.mesh().default_config.as_ref();
                let topology = config.and_then(|config| config.gateway_topology.as_ref());
                out.xff_num_trusted_hops = topology.map_or(0, |topology| topology.num_trusted_proxies);
                let details = match topology.map(|topology| topology.forward_client_cert_details) {
                    None | Some(Forward::Undefined) => ForwardClientCertDetails::SanitizeSet,
                    Some(details) => forward_client_cert(details),
                };
                out.forward_client_cert_details = details.into();
                if matches!(details, ForwardClientCertDetails::AppendForward | ForwardClientCertDetails::SanitizeSet) {
                    out.set_current_client_cert_details = Some(SetCurrentClientCertDetails {
                        subject: yes,
                        cert: true,
                        dns: true,
                        uri: true,
                        ..Default::default()
                    });
                }
            }
            Class::Inbound => {
                let wanted = headers.current_client_cert.clone().unwrap_or_default();
                out.forward_client_cert_details = headers.forward_client_cert.into();
                out.set_current_client_cert_details = Some(SetCurrentClientCertDetails {
                    subject: Some(BoolValue { value: wanted.subject.unwrap_or(true) }),
                    uri: wanted.uri.unwrap_or(true),
                    dns: wanted.dns.unwrap_or(true),
                    cert: wanted.cert.unwrap_or(false),
                    chain: wanted.chain.unwrap_or(false),
                    ..Default::default()
                });
            }
        }
    }
}

/// `IDLE_TIMEOUT` of the node's metadata, in Go's notation; nonsense is passed over.
pub(crate) fn idle_timeout(proxy: &Proxy) -> Option<maille_xds::types::Duration> {
    let text = proxy.metadata.idle_timeout.as_deref()?;
    text.parse::<maille_api::Duration>().ok().map(duration)
}

/// Limits of `defaultConfig.connectionSettings`, with those of Envoy's best practice at the edge where it asks for them.
pub(crate) fn connection_settings(context: &Context<'_>) -> Option<ConnectionSettings> {
    let mut settings = context.mesh().default_config.as_ref()?.connection_settings.clone()?;
    if settings.profile == ConnectionProfile::Edge && context.proxy.is_router() {
        let minutes = |minutes: i64| Some(maille_api::Duration::from_secs(minutes * 60));
        settings.listener_per_connection_buffer_limit_bytes.get_or_insert(32 * 1024);
        settings.http_idle_timeout = settings.http_idle_timeout.or(minutes(60));
        settings.http_stream_idle_timeout = settings.http_stream_idle_timeout.or(minutes(5));
        settings.http_request_timeout = settings.http_request_timeout.or(minutes(5));
        settings.http_request_headers_timeout = settings.http_request_headers_timeout.or(minutes(1));
        settings.http_max_concurrent_streams.get_or_insert(100);
        settings.http2_initial_stream_window_size.get_or_insert(64 * 1024);
        settings.http2_initial_connection_window_size.get_or_insert(1024 * 1024);
        settings.http_merge_slashes.get_or_insert(true);
        if settings.http_headers_with_underscores_action == Underscores::Unspecified {
            settings.http_headers_with_underscores_action = Underscores::RejectRequest;
        }
        if settings.http_path_with_escaped_slashes_action == EscapedSlashes::Unspecified {
            settings.http_path_with_escaped_slashes_action = EscapedSlashes::UnescapeAndRedirect;
        }
    }
    Some(settings)
}

fn apply_connection_settings(out: &mut HttpConnectionManager, settings: &ConnectionSettings) {
    let mut common = out.common_http_protocol_options.take().unwrap_or_default();
    if let Some(idle) = settings.http_idle_timeout {
        common.idle_timeout = Some(duration(idle));
    }
    common.max_connection_duration = settings.http_max_connection_duration.map(duration);
    common.max_stream_duration = settings.http_max_stream_duration.map(duration);
    common.headers_with_underscores_action = match settings.http_headers_with_underscores_action {
        Underscores::Unspecified | Underscores::Allow => HeadersWithUnderscoresAction::Allow,
        Underscores::RejectRequest => HeadersWithUnderscoresAction::RejectRequest,
        Underscores::DropHeader => HeadersWithUnderscoresAction::DropHeader,
    }
    .into();
    out.common_http_protocol_options = (common != HttpProtocolOptions::default()).then_some(common);

    if let Some(timeout) = settings.http_stream_idle_timeout {
        out.stream_idle_timeout = Some(duration(timeout));
    }
    out.request_timeout = settings.http_request_timeout.map(duration);
    out.request_headers_timeout = settings.http_request_headers_timeout.map(duration);
    out.drain_timeout = settings.http_drain_timeout.map(duration);

    let mut http2 = out.http2_protocol_options.take().unwrap_or_default();
    http2.max_concurrent_streams = limit(settings.http_max_concurrent_streams);
    http2.initial_stream_window_size = limit(settings.http2_initial_stream_window_size);
    http2.initial_connection_window_size = limit(settings.http2_initial_connection_window_size);
    out.http2_protocol_options = (http2 != Http2ProtocolOptions::default()).then_some(http2);

    if let Some(merge) = settings.http_merge_slashes {
        out.merge_slashes = merge;
    }
    let action = match settings.http_path_with_escaped_slashes_action {
        EscapedSlashes::Unspecified => return,
        EscapedSlashes::KeepUnchanged => PathWithEscapedSlashesAction::KeepUnchanged,
        EscapedSlashes::RejectRequest => PathWithEscapedSlashesAction::RejectRequest,
        EscapedSlashes::UnescapeAndRedirect => PathWithEscapedSlashesAction::UnescapeAndRedirect,
        EscapedSlashes::UnescapeAndForward => PathWithEscapedSlashesAction::UnescapeAndForward,
    };
    out.path_with_escaped_slashes_action = action.into();
}

/// A limit from a signed number; a negative one is none.
pub(crate) fn limit(value: Option<i32>) -> Option<UInt32Value> {
    value.and_then(|value| u32::try_from(value).ok()).map(|value| UInt32Value { value })
}

fn normalize_paths(out: &mut HttpConnectionManager, context: &Context<'_>) {
    use PathNormalizationType::{Base, DecodeAndMergeSlashes, Default, MergeSlashes, None};
    let wanted = context.mesh().path_normalization.as_ref().map_or(Default, |wanted| wanted.normalization);
    let (normalize, merge, escaped) = match wanted {
        None => (false, false, PathWithEscapedSlashesAction::KeepUnchanged),
        Default | Base => (true, false, PathWithEscapedSlashesAction::KeepUnchanged),
        MergeSlashes => (true, true, PathWithEscapedSlashesAction::KeepUnchanged),
        DecodeAndMergeSlashes => (true, true, PathWithEscapedSlashesAction::UnescapeAndForward),
    };
    out.normalize_path = Some(BoolValue { value: normalize });
    out.merge_slashes = merge;
    out.path_with_escaped_slashes_action = escaped.into();
}

fn preserve_header_case() -> http1_protocol_options::HeaderKeyFormat {
    use http1_protocol_options::header_key_format::HeaderFormat;
    let formatter = TypedExtensionConfig {
        name: "preserve_case".to_owned(),
        typed_config: Some(any(&PreserveCaseFormatterConfig::default())),
    };
    http1_protocol_options::HeaderKeyFormat { header_format: Some(HeaderFormat::StatefulFormatter(formatter)) }
}

fn http_filter<M: Message + Name>(name: &str, config: &M) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(config))),
        ..Default::default()
    }
}
