//! The listeners that cases go to, each with a connection manager of its own.

use std::net::SocketAddr;
use std::path::Path;

use maille_xds::types::core::{self, Address, SocketAddress, address, http1_protocol_options, socket_address};
use maille_xds::types::file_access_log::{FileAccessLog, file_access_log};
use maille_xds::types::hcm::http_connection_manager as manager;
use maille_xds::types::hcm::{self, HttpConnectionManager};
use maille_xds::types::kind::Percent;
use maille_xds::types::pb::envoy::extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig;
use maille_xds::types::route::{self, route_action::ClusterSpecifier};
use maille_xds::types::upstream_http::{HttpProtocolOptions, http_protocol_options};
use maille_xds::types::{self, BoolValue, UInt32Value, accesslog, any, cluster, endpoint, listener, router};

/// Their names.
pub(crate) const NAMES: &[&str] = &[
    "edge",
    "sidecar",
    "path-none",
    "path-merge",
    "path-decode",
    "escaped-reject",
    "escaped-redirect",
    "hops1",
    "hops2",
    "sidecar-hops1",
    "skip-xff",
    "internal",
    "internal-sidecar",
    "via",
    "id-preserve",
    "id-response",
    "id-none",
    "id-trace",
    "id-trace-all",
    "strip-any",
    "strip-matching",
    "strip-dot",
    "underscores-reject",
    "underscores-drop",
    "http10",
    "http10-default-host",
    "trailers",
    "proper-case",
    "preserve-case",
    "no-absolute",
    "stream-error",
    "x-forwarded-port",
    "scheme-https",
    "xfcc-forward-only",
    "xfcc-append",
    "xfcc-set",
    "xfcc-always",
    "server-keep",
    "server-if-absent",
    "few-headers",
    "small-headers",
    "one-request",
    "internal-only",
    "refused",
    "no-cluster",
    "nothing",
    "own-continue",
    "chunked-length",
    "mutations",
    "suppress",
];

/// One of them.
pub(crate) fn listener(name: &str, at: SocketAddr, log: &Path) -> listener::Listener {
    let mut manager = base(log);
    let mut cluster = "server";
    let mut table = route::RouteConfiguration {
        name: name.into(),
        validate_clusters: Some(BoolValue { value: false }),
        ..Default::default()
    };
    let mut host = route::VirtualHost { name: "all".into(), domains: vec!["*".into()], ..Default::default() };
    let mut suppress = false;
    change(name, &mut manager, &mut table, &mut host, &mut cluster, &mut suppress);
    if name != "nothing" {
        host.routes = vec![forward(cluster)];
    }
    table.virtual_hosts = vec![host];
    manager.route_specifier = Some(manager::RouteSpecifier::RouteConfig(table));
    let options = router::Router { suppress_envoy_headers: suppress, ..Default::default() };
    manager.http_filters = vec![hcm::HttpFilter {
        name: "envoy.filters.http.router".into(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(any(&options))),
        ..Default::default()
    }];
    let filter = listener::Filter {
        name: "envoy.filters.network.http_connection_manager".into(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(any(&manager))),
    };
    listener::Listener {
        name: name.into(),
        address: address(at),
        filter_chains: vec![listener::FilterChain { filters: vec![filter], ..Default::default() }],
        ..Default::default()
    }
}

/// What Istio gives a gateway.
fn base(log: &Path) -> HttpConnectionManager {
    HttpConnectionManager {
        stat_prefix: "test".into(),
        server_name: "istio-envoy".into(),
        use_remote_address: yes(),
        normalize_path: yes(),
        proxy_100_continue: true,
        stream_idle_timeout: Some(types::Duration::default()),
        delayed_close_timeout: Some(types::Duration { seconds: 0, nanos: 20_000_000 }),
        http_protocol_options: Some(Default::default()),
        forward_client_cert_details: manager::ForwardClientCertDetails::SanitizeSet.into(),
        upgrade_configs: vec![manager::UpgradeConfig { upgrade_type: "websocket".into(), ..Default::default() }],
        access_log: vec![accesslog::AccessLog {
            name: "file".into(),
            filter: None,
            config_type: Some(accesslog::access_log::ConfigType::TypedConfig(any(&FileAccessLog {
                path: log.to_string_lossy().into(),
                access_log_format: Some(file_access_log::AccessLogFormat::LogFormat(core::SubstitutionFormatString {
                    format: Some(core::substitution_format_string::Format::TextFormatSource(core::DataSource {
                        specifier: Some(core::data_source::Specifier::InlineString(FORMAT.into())),
                        ..Default::default()
                    })),
                    ..Default::default()
                })),
            }))),
        }],
        ..Default::default()
    }
}

const FORMAT: &str = "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %PROTOCOL% %REQ(:METHOD)% %REQ(:PATH)% %REQ(:AUTHORITY)% in=%BYTES_RECEIVED% out=%BYTES_SENT% from=%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%\n";

fn change(
    name: &str,
    m: &mut HttpConnectionManager,
    table: &mut route::RouteConfiguration,
    host: &mut route::VirtualHost,
    cluster: &mut &'static str,
    suppress: &mut bool,
) {
    use manager::ForwardClientCertDetails as Xfcc;
    use manager::PathWithEscapedSlashesAction as Escaped;
    let http1 = m.http_protocol_options.get_or_insert_default();
    let mut common = core::HttpProtocolOptions::default();
    let no = Some(BoolValue { value: false });
    match name {
        "edge" => {}
        "sidecar" => m.use_remote_address = no,
        "path-none" => m.normalize_path = no,
        "path-merge" => m.merge_slashes = true,
        "path-decode" => {
            m.merge_slashes = true;
            m.path_with_escaped_slashes_action = Escaped::UnescapeAndForward.into();
        }
        "escaped-reject" => m.path_with_escaped_slashes_action = Escaped::RejectRequest.into(),
        "escaped-redirect" => m.path_with_escaped_slashes_action = Escaped::UnescapeAndRedirect.into(),
        "hops1" => m.xff_num_trusted_hops = 1,
        "hops2" => m.xff_num_trusted_hops = 2,
        "sidecar-hops1" => (m.use_remote_address, m.xff_num_trusted_hops) = (no, 1),
        "skip-xff" => m.skip_xff_append = true,
        "internal" => m.internal_address_config = loopback(),
        "internal-sidecar" => (m.internal_address_config, m.use_remote_address) = (loopback(), no),
        "via" => m.via = "maille".into(),
        "id-preserve" => m.preserve_external_request_id = true,
        "id-response" => m.always_set_request_id_in_response = true,
        "id-none" => m.generate_request_id = no,
        "id-trace" => (m.tracing, m.use_remote_address) = (tracing(0.0), no),
        "id-trace-all" => (m.tracing, m.use_remote_address) = (tracing(100.0), no),
        "strip-any" => m.strip_port_mode = Some(manager::StripPortMode::StripAnyHostPort(true)),
        "strip-matching" => m.strip_matching_host_port = true,
        "strip-dot" => m.strip_trailing_host_dot = true,
        "underscores-reject" => common.headers_with_underscores_action = 1,
        "underscores-drop" => common.headers_with_underscores_action = 2,
        "http10" => http1.accept_http_10 = true,
        "http10-default-host" => {
            http1.accept_http_10 = true;
            http1.default_host_for_http_10 = "default.example".into();
        }
        "trailers" => {
            http1.enable_trailers = true;
            *cluster = "server-trailers";
        }
        "proper-case" => {
            http1.header_key_format = Some(proper_case());
            *cluster = "server-proper-case";
        }
        "preserve-case" => {
            http1.header_key_format = Some(preserve_case());
            *cluster = "server-preserve-case";
        }
        "no-absolute" => http1.allow_absolute_url = no,
        "stream-error" => m.stream_error_on_invalid_http_message = yes(),
        "x-forwarded-port" => m.append_x_forwarded_port = true,
        "scheme-https" => {
            m.scheme_header_transformation = Some(core::SchemeHeaderTransformation {
                transformation: Some(core::scheme_header_transformation::Transformation::SchemeToOverwrite(
                    "https".into(),
                )),
                ..Default::default()
            });
        }
        "xfcc-forward-only" => m.forward_client_cert_details = Xfcc::ForwardOnly.into(),
        "xfcc-append" => m.forward_client_cert_details = Xfcc::AppendForward.into(),
        "xfcc-set" => m.forward_client_cert_details = Xfcc::SanitizeSet.into(),
        "xfcc-always" => m.forward_client_cert_details = Xfcc::AlwaysForwardOnly.into(),
        "server-keep" => m.server_header_transformation = manager::ServerHeaderTransformation::PassThrough.into(),
        "server-if-absent" => {
            m.server_header_transformation = manager::ServerHeaderTransformation::AppendIfAbsent.into();
        }
        "few-headers" => common.max_headers_count = Some(UInt32Value { value: 5 }),
        "small-headers" => m.max_request_headers_kb = Some(UInt32Value { value: 1 }),
        "one-request" => common.max_requests_per_connection = Some(UInt32Value { value: 1 }),
        "internal-only" => table.internal_only_headers = vec!["x-internal".into(), "x-secret".into()],
        "refused" => *cluster = "refused",
        "no-cluster" => *cluster = "none",
        "nothing" => {}
        "own-continue" => m.proxy_100_continue = false,
        "chunked-length" => http1.allow_chunked_length = true,
        "mutations" => mutations(host),
        "suppress" => *suppress = true,
        other => panic!("{other} is no setup"),
    }
    if common != core::HttpProtocolOptions::default() {
        m.common_http_protocol_options = Some(common);
    }
}

fn yes() -> Option<BoolValue> {
    Some(BoolValue { value: true })
}

fn loopback() -> Option<manager::InternalAddressConfig> {
    let range = |prefix: &str, len| core::CidrRange {
        address_prefix: prefix.into(),
        prefix_len: Some(UInt32Value { value: len }),
    };
    let cidr_ranges = vec![range("127.0.0.0", 8), range("10.0.0.0", 8)];
    Some(manager::InternalAddressConfig { cidr_ranges, ..Default::default() })
}

fn tracing(percent: f64) -> Option<manager::Tracing> {
    Some(manager::Tracing { random_sampling: Some(Percent { value: percent }), ..Default::default() })
}

fn proper_case() -> http1_protocol_options::HeaderKeyFormat {
    use http1_protocol_options::header_key_format::{HeaderFormat, ProperCaseWords};
    http1_protocol_options::HeaderKeyFormat { header_format: Some(HeaderFormat::ProperCaseWords(ProperCaseWords {})) }
}

fn preserve_case() -> http1_protocol_options::HeaderKeyFormat {
    use http1_protocol_options::header_key_format::HeaderFormat;
    let formatter = core::TypedExtensionConfig {
        name: "preserve_case".into(),
        typed_config: Some(any(&PreserveCaseFormatterConfig::default())),
    };
    http1_protocol_options::HeaderKeyFormat { header_format: Some(HeaderFormat::StatefulFormatter(formatter)) }
}

fn mutations(host: &mut route::VirtualHost) {
    let option = |key: &str, value: &str| core::HeaderValueOption {
        header: Some(core::HeaderValue { key: key.into(), value: value.into(), ..Default::default() }),
        ..Default::default()
    };
    host.request_headers_to_add =
        vec![option("x-added", "%REQ(x-given)%"), option("x-client", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%")];
    host.request_headers_to_remove = vec!["x-gone".into()];
    host.response_headers_to_add = vec![option("x-answer", "%RESP(x-given)%")];
    host.response_headers_to_remove = vec!["x-gone".into()];
    host.include_request_attempt_count = true;
}

fn forward(cluster: &str) -> route::Route {
    let action = route::RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.into())),
        timeout: Some(types::Duration::default()),
        ..Default::default()
    };
    route::Route {
        r#match: Some(route::RouteMatch {
            path_specifier: Some(route::route_match::PathSpecifier::Prefix("/".into())),
            ..Default::default()
        }),
        action: Some(route::route::Action::Route(action)),
        ..Default::default()
    }
}

/// Where requests go.
pub(crate) fn clusters(server: SocketAddr, nobody: SocketAddr) -> Vec<cluster::Cluster> {
    let options = |change: fn(&mut core::Http1ProtocolOptions)| {
        let mut http1 = core::Http1ProtocolOptions::default();
        change(&mut http1);
        http1
    };
    vec![
        cluster("server", server, None),
        cluster("server-trailers", server, Some(options(|o| o.enable_trailers = true))),
        cluster("server-proper-case", server, Some(options(|o| o.header_key_format = Some(proper_case())))),
        cluster("server-preserve-case", server, Some(options(|o| o.header_key_format = Some(preserve_case())))),
        cluster("refused", nobody, None),
    ]
}

fn cluster(name: &str, to: SocketAddr, http1: Option<core::Http1ProtocolOptions>) -> cluster::Cluster {
    let host = endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint::Endpoint {
            address: address(to),
            ..Default::default()
        })),
        ..Default::default()
    };
    let locality = endpoint::LocalityLbEndpoints { lb_endpoints: vec![host], ..Default::default() };
    let protocols = http1.map(|http1| {
        use http_protocol_options::explicit_http_config::ProtocolConfig;
        use http_protocol_options::{ExplicitHttpConfig, UpstreamProtocolOptions};
        let config = ExplicitHttpConfig { protocol_config: Some(ProtocolConfig::HttpProtocolOptions(http1)) };
        let options = HttpProtocolOptions {
            upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(config)),
            ..Default::default()
        };
        ("envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(), any(&options))
    });
    cluster::Cluster {
        name: name.into(),
        cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::Type(0)),
        load_assignment: Some(endpoint::ClusterLoadAssignment {
            cluster_name: name.into(),
            endpoints: vec![locality],
            ..Default::default()
        }),
        typed_extension_protocol_options: protocols.into_iter().collect(),
        ..Default::default()
    }
}

fn address(of: SocketAddr) -> Option<Address> {
    let port = socket_address::PortSpecifier::PortValue(of.port().into());
    let socket = SocketAddress { address: of.ip().to_string(), port_specifier: Some(port), ..Default::default() };
    Some(Address { address: Some(address::Address::SocketAddress(socket)) })
}
