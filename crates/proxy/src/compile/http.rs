//! The HTTP connection manager.

use std::sync::Arc;
use std::time::Duration;

use maille_http::path::{EscapedSlashes, PathRules};
use maille_http::request::Scheme;
use maille_xds::types::core::config_source::ConfigSourceSpecifier;
use maille_xds::types::core::http_protocol_options::HeadersWithUnderscoresAction;
use maille_xds::types::core::http1_protocol_options::{self, header_key_format::HeaderFormat};
use maille_xds::types::core::scheme_header_transformation::Transformation;
use maille_xds::types::core::{self};
use maille_xds::types::hcm::http_connection_manager::{self as manager, RouteSpecifier};
use maille_xds::types::hcm::{self as proto, HttpConnectionManager};
use maille_xds::types::kind::Percent;
use maille_xds::types::uuid_request_id::UuidRequestIdConfig;
use maille_xds::types::{BoolValue, UInt32Value};

use crate::compile::at::{At, Compiled, is_true, number, unset};
use crate::compile::{access_log, filters, matcher, route};
use crate::config::{
    Cidr, ClientCertDetails, Codec, ForwardClientCert, HeaderCase, Http1Options, Http2Options, HttpManager,
    HttpTimeouts, RequestId, RouteSource, Sampling, ServerHeader, StripPort, Underscores, Upgrade,
};

/// Envoy's defaults.
const IDLE: Duration = Duration::from_secs(3600);
const STREAM_IDLE: Duration = Duration::from_secs(300);
const DRAIN: Duration = Duration::from_secs(5);
const DELAYED_CLOSE: Duration = Duration::from_secs(1);
const MAX_HEADER_KB: u32 = 60;
const MAX_RESPONSE_HEADER_KB: u32 = 80;
const MAX_HEADERS: u32 = 100;
const SERVER_NAME: &str = "envoy";

pub(crate) fn http_manager(at: &At<'_>, proto: &HttpConnectionManager) -> Compiled<HttpManager> {
    let HttpConnectionManager {
        codec_type,
        stat_prefix,
        http_filters,
        add_user_agent,
        tracing,
        common_http_protocol_options,
        http1_safe_max_connection_duration,
        http_protocol_options,
        http2_protocol_options,
        http3_protocol_options,
        server_name,
        server_header_transformation,
        scheme_header_transformation,
        max_request_headers_kb,
        stream_idle_timeout,
        stream_flush_timeout,
        request_timeout,
        request_headers_timeout,
        drain_timeout,
        drain_timeout_jitter,
        delayed_close_timeout,
        access_log,
        access_log_flush_interval,
        flush_access_log_on_new_request,
        access_log_options,
        use_remote_address,
        xff_num_trusted_hops,
        original_ip_detection_extensions,
        early_header_mutation_extensions,
        internal_address_config,
        skip_xff_append,
        via,
        generate_request_id,
        preserve_external_request_id,
        always_set_request_id_in_response,
        forward_client_cert_details,
        set_current_client_cert_details,
        forward_client_cert_matcher,
        proxy_100_continue,
        represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
        upgrade_configs,
        normalize_path,
        merge_slashes,
        path_with_escaped_slashes_action,
        request_id_extension,
        local_reply_config,
        strip_matching_host_port,
        stream_error_on_invalid_http_message,
        path_normalization_options,
        strip_trailing_host_dot,
        proxy_status_config,
        typed_header_validation_config,
        append_x_forwarded_port,
        append_local_overload,
        // Only for filters that we do not have.
        add_proxy_protocol_connection_state: _,
        forward_proto_config,
        route_specifier,
        strip_port_mode,
    } = proto;
    unset!(at; add_user_agent, http1_safe_max_connection_duration, http3_protocol_options, drain_timeout_jitter);
    unset!(at; access_log_flush_interval, flush_access_log_on_new_request, access_log_options);
    unset!(at; original_ip_detection_extensions, early_header_mutation_extensions, forward_client_cert_matcher);
    unset!(at; represent_ipv4_remote_address_as_ipv4_mapped_ipv6, local_reply_config, path_normalization_options);
    unset!(at; proxy_status_config, typed_header_validation_config, append_local_overload);
    unset!(at; forward_proto_config);

    let common = common(&at.field("common_http_protocol_options"), common_http_protocol_options, Some(IDLE))?;
    let upgrades = upgrade_configs.iter().enumerate().map(|(i, proto)| upgrade(&at.item("upgrade_configs", i), proto));
    let drain = at.duration("drain_timeout", drain_timeout)?.unwrap_or(DRAIN);
    let (internal_addresses, unix_sockets_internal) = internal_addresses(at, internal_address_config)?;
    Ok(HttpManager {
        active_faults: Arc::default(),
        stat_prefix: stat_prefix.as_str().into(),
        routes: routes(at, at.required("route_specifier", route_specifier)?)?,
        codec: match at.one_of("codec_type", *codec_type)? {
            manager::CodecType::Auto => Codec::Auto,
            manager::CodecType::Http1 => Codec::Http1,
            manager::CodecType::Http2 => Codec::Http2,
            manager::CodecType::Http3 => return at.field("codec_type").refuse("HTTP/3 is not supported"),
        },
        server_header: match at.one_of("server_header_transformation", *server_header_transformation)? {
            manager::ServerHeaderTransformation::Overwrite => ServerHeader::Overwrite,
            manager::ServerHeaderTransformation::AppendIfAbsent => ServerHeader::AppendIfAbsent,
            manager::ServerHeaderTransformation::PassThrough => ServerHeader::PassThrough,
        },
        server_name: if server_name.is_empty() { SERVER_NAME.into() } else { server_name.as_str().into() },
        use_remote_address: is_true(use_remote_address),
        skip_xff_append: *skip_xff_append,
        append_forwarded_port: *append_x_forwarded_port,
        xff_trusted_hops: *xff_num_trusted_hops,
        internal_addresses,
        unix_sockets_internal,
        via: (!via.is_empty()).then(|| via.as_str().into()),
        request_id: RequestId {
            generate: !matches!(generate_request_id, Some(BoolValue { value: false })),
            preserve_external: *preserve_external_request_id,
            in_response: *always_set_request_id_in_response,
            ..request_id(at, request_id_extension)?
        },
        path: PathRules {
            normalize: is_true(normalize_path),
            merge_slashes: *merge_slashes,
            escaped_slashes: escaped_slashes(at, *path_with_escaped_slashes_action)?,
        },
        strip_port: match strip_port_mode {
            Some(manager::StripPortMode::StripAnyHostPort(true)) => StripPort::Any,
            _ if *strip_matching_host_port => StripPort::Matching,
            _ => StripPort::No,
        },
        strip_trailing_host_dot: *strip_trailing_host_dot,
        max_header_bytes: number(max_request_headers_kb).unwrap_or(MAX_HEADER_KB).saturating_mul(1024),
        max_header_count: common.max_headers,
        underscores: common.underscores,
        timeouts: HttpTimeouts {
            idle: common.idle,
            stream_idle: at.timeout("stream_idle_timeout", stream_idle_timeout, Some(STREAM_IDLE))?,
            stream_flush: at.timeout("stream_flush_timeout", stream_flush_timeout, None)?,
            request: at.timeout("request_timeout", request_timeout, None)?,
            request_headers: at.timeout("request_headers_timeout", request_headers_timeout, None)?,
            max_connection_duration: common.max_connection_duration,
            max_stream_duration: common.max_stream_duration,
            drain,
            delayed_close: at.timeout("delayed_close_timeout", delayed_close_timeout, Some(DELAYED_CLOSE))?,
        },
        max_requests_per_connection: common.max_requests,
        http1: http1(&at.field("http_protocol_options"), http_protocol_options)?,
        http2: http2(&at.field("http2_protocol_options"), http2_protocol_options)?,
        forward_client_cert: match at.one_of("forward_client_cert_details", *forward_client_cert_details)? {
            manager::ForwardClientCertDetails::Sanitize => ForwardClientCert::Sanitize,
            manager::ForwardClientCertDetails::ForwardOnly => ForwardClientCert::ForwardOnly,
            manager::ForwardClientCertDetails::AppendForward => ForwardClientCert::AppendForward,
            manager::ForwardClientCertDetails::SanitizeSet => ForwardClientCert::SanitizeSet,
            manager::ForwardClientCertDetails::AlwaysForwardOnly => ForwardClientCert::AlwaysForwardOnly,
        },
        client_cert_details: client_cert_details(at, set_current_client_cert_details)?,
        proxy_100_continue: *proxy_100_continue,
        upgrades: upgrades.collect::<Compiled<_>>()?,
        tracing: tracing.as_ref().map(|proto| sampling(&at.field("tracing"), proto)).transpose()?,
        stream_error_on_invalid_message: is_true(stream_error_on_invalid_http_message),
        filters: filters::http_filters(at, http_filters)?,
        access_logs: access_log::access_logs(at, access_log)?,
        scheme_overwrite: scheme(at, scheme_header_transformation)?,
    })
}

fn routes(at: &At<'_>, proto: &RouteSpecifier) -> Compiled<RouteSource> {
    match proto {
        RouteSpecifier::Rds(proto::Rds { config_source, route_config_name }) => {
            let at = at.field("rds");
            ads(&at, "config_source", config_source)?;
            Ok(RouteSource::Rds(at.text("route_config_name", route_config_name)?.into()))
        }
        RouteSpecifier::RouteConfig(proto) => {
            Ok(RouteSource::Inline(Arc::new(route::route_table(&at.field("route_config"), proto)?)))
        }
        RouteSpecifier::ScopedRoutes(_) => at.field("scoped_routes").refuse("is not supported"),
    }
}

/// Where a resource is discovered: the stream that everything comes by.
pub(crate) fn ads(at: &At<'_>, name: &str, proto: &Option<core::ConfigSource>) -> Compiled<()> {
    let core::ConfigSource { authorities, initial_fetch_timeout: _, resource_api_version: _, config_source_specifier } =
        at.required(name, proto)?;
    let at = at.field(name);
    unset!(at; authorities);
    match config_source_specifier {
        Some(ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::Self_(_)) => Ok(()),
        _ => at.refuse("must be ads: everything comes by one stream"),
    }
}

/// The options that HTTP versions share.
pub(crate) struct Common {
    pub(crate) idle: Option<Duration>,
    pub(crate) max_connection_duration: Option<Duration>,
    pub(crate) max_stream_duration: Option<Duration>,
    pub(crate) max_headers: u32,
    pub(crate) max_response_bytes: u32,
    pub(crate) max_requests: Option<u32>,
    pub(crate) underscores: Underscores,
}

pub(crate) fn common(
    at: &At<'_>,
    proto: &Option<core::HttpProtocolOptions>,
    idle: Option<Duration>,
) -> Compiled<Common> {
    let default = core::HttpProtocolOptions::default();
    let core::HttpProtocolOptions {
        idle_timeout,
        max_connection_duration,
        max_connection_duration_jitter,
        max_headers_count,
        max_response_headers_kb,
        max_stream_duration,
        headers_with_underscores_action,
        max_requests_per_connection,
    } = proto.as_ref().unwrap_or(&default);
    unset!(at; max_connection_duration_jitter);
    Ok(Common {
        idle: at.timeout("idle_timeout", idle_timeout, idle)?,
        max_connection_duration: at.timeout("max_connection_duration", max_connection_duration, None)?,
        max_stream_duration: at.timeout("max_stream_duration", max_stream_duration, None)?,
        max_headers: number(max_headers_count).unwrap_or(MAX_HEADERS),
        max_response_bytes: number(max_response_headers_kb).unwrap_or(MAX_RESPONSE_HEADER_KB).saturating_mul(1024),
        max_requests: number(max_requests_per_connection).filter(|n| *n > 0),
        underscores: match at.one_of("headers_with_underscores_action", *headers_with_underscores_action)? {
            HeadersWithUnderscoresAction::Allow => Underscores::Allow,
            HeadersWithUnderscoresAction::RejectRequest => Underscores::Reject,
            HeadersWithUnderscoresAction::DropHeader => Underscores::Drop,
        },
    })
}

pub(crate) fn http1(at: &At<'_>, proto: &Option<core::Http1ProtocolOptions>) -> Compiled<Http1Options> {
    let default = core::Http1ProtocolOptions::default();
    let core::Http1ProtocolOptions {
        allow_absolute_url,
        accept_http_10,
        default_host_for_http_10,
        header_key_format,
        enable_trailers,
        allow_chunked_length,
        override_stream_error_on_invalid_http_message,
        send_fully_qualified_url,
        // Which parser Envoy uses.
        use_balsa_parser: _,
        allow_custom_methods,
        ignore_http_11_upgrade,
    } = proto.as_ref().unwrap_or(&default);
    unset!(at; override_stream_error_on_invalid_http_message, send_fully_qualified_url, ignore_http_11_upgrade);
    let header_case = match header_key_format.as_ref().and_then(|format| format.header_format.as_ref()) {
        None => HeaderCase::Lower,
        Some(HeaderFormat::ProperCaseWords(http1_protocol_options::header_key_format::ProperCaseWords {})) => {
            HeaderCase::Proper
        }
        Some(HeaderFormat::StatefulFormatter(formatter))
            if formatter.name == "preserve_case"
                || formatter.name == "envoy.http.stateful_header_formatters.preserve_case" =>
        {
            HeaderCase::Preserve
        }
        Some(HeaderFormat::StatefulFormatter(formatter)) => {
            return at.field("header_key_format").refuse(format!("{:?} is not supported", formatter.name));
        }
    };
    Ok(Http1Options {
        accept_http10: *accept_http_10,
        custom_methods: *allow_custom_methods,
        default_host_for_http10: (!default_host_for_http_10.is_empty())
            .then(|| default_host_for_http_10.as_str().into()),
        allow_absolute_url: !matches!(allow_absolute_url, Some(BoolValue { value: false })),
        allow_chunked_length: *allow_chunked_length,
        enable_trailers: *enable_trailers,
        header_case,
    })
}

pub(crate) fn http2(at: &At<'_>, proto: &Option<core::Http2ProtocolOptions>) -> Compiled<Http2Options> {
    let default = core::Http2ProtocolOptions::default();
    let core::Http2ProtocolOptions {
        // How much is compressed and which codec does it: not visible in messages.
        hpack_table_size: _,
        use_oghttp2_codec: _,
        enable_huffman_encoding: _,
        max_concurrent_streams,
        initial_stream_window_size,
        initial_connection_window_size,
        allow_connect,
        allow_metadata,
        // Limits against abuse: ours are fixed and stricter or equal.
        max_outbound_frames: _,
        max_outbound_control_frames: _,
        max_consecutive_inbound_frames_with_empty_payload: _,
        max_inbound_priority_frames_per_stream: _,
        max_inbound_window_update_frames_per_data_frame_sent: _,
        stream_reset_burst: _,
        stream_reset_rate: _,
        max_metadata_size: _,
        max_header_field_size_kb: _,
        stream_error_on_invalid_http_messaging,
        override_stream_error_on_invalid_http_message,
        custom_settings_parameters,
        connection_keepalive,
        disallow_obs_text,
    } = proto.as_ref().unwrap_or(&default);
    unset!(at; allow_metadata, custom_settings_parameters, disallow_obs_text);
    let mut options = Http2Options {
        allow_connect: *allow_connect,
        stream_error_on_invalid_message: is_true(override_stream_error_on_invalid_http_message)
            || *stream_error_on_invalid_http_messaging,
        ..Http2Options::default()
    };
    let set = |target: &mut u32, value: &Option<UInt32Value>| *target = number(value).unwrap_or(*target);
    set(&mut options.max_concurrent_streams, max_concurrent_streams);
    set(&mut options.initial_stream_window, initial_stream_window_size);
    set(&mut options.initial_connection_window, initial_connection_window_size);
    if let Some(proto) = connection_keepalive {
        let at = at.field("connection_keepalive");
        let core::KeepaliveSettings { interval, timeout, interval_jitter: _, connection_idle_interval } = proto;
        unset!(at; connection_idle_interval);
        options.keepalive_interval = at.timeout("interval", interval, None)?;
        options.keepalive_timeout = at.timeout("timeout", timeout, None)?;
    }
    Ok(options)
}

/// Without a list no address is internal.
fn internal_addresses(at: &At<'_>, proto: &Option<manager::InternalAddressConfig>) -> Compiled<(Vec<Cidr>, bool)> {
    let Some(manager::InternalAddressConfig { unix_sockets, cidr_ranges }) = proto else {
        return Ok((Vec::new(), false));
    };
    let at = at.field("internal_address_config");
    Ok((matcher::cidrs(&at, "cidr_ranges", cidr_ranges)?, *unix_sockets))
}

fn request_id(at: &At<'_>, proto: &Option<proto::RequestIdExtension>) -> Compiled<RequestId> {
    let mut out = RequestId {
        generate: true,
        preserve_external: false,
        in_response: false,
        pack_trace_reason: true,
        use_for_sampling: true,
    };
    if let Some(any) = proto.as_ref().and_then(|extension| extension.typed_config.as_ref()) {
        let at = at.field("request_id_extension");
        let Some(UuidRequestIdConfig { pack_trace_reason, use_request_id_for_trace_sampling }) = at.unpack(any)? else {
            return at.refuse(format!("{} is no request id extension we have", any.type_url));
        };
        out.pack_trace_reason = pack_trace_reason.is_none_or(|v| v.value);
        out.use_for_sampling = use_request_id_for_trace_sampling.is_none_or(|v| v.value);
    }
    Ok(out)
}

/// The default is Envoy's own default, which is to leave them.
fn escaped_slashes(at: &At<'_>, action: i32) -> Compiled<EscapedSlashes> {
    use manager::PathWithEscapedSlashesAction as Proto;
    Ok(match at.one_of("path_with_escaped_slashes_action", action)? {
        Proto::ImplementationSpecificDefault | Proto::KeepUnchanged => EscapedSlashes::Keep,
        Proto::RejectRequest => EscapedSlashes::Reject,
        Proto::UnescapeAndRedirect => EscapedSlashes::UnescapeAndRedirect,
        Proto::UnescapeAndForward => EscapedSlashes::UnescapeAndForward,
    })
}

fn client_cert_details(
    at: &At<'_>,
    proto: &Option<manager::SetCurrentClientCertDetails>,
) -> Compiled<ClientCertDetails> {
    let Some(manager::SetCurrentClientCertDetails { subject, cert, chain, dns, uri, issuer, format }) = proto else {
        return Ok(ClientCertDetails::default());
    };
    let at = at.field("set_current_client_cert_details");
    unset!(at; issuer, format);
    Ok(ClientCertDetails { subject: is_true(subject), cert: *cert, chain: *chain, dns: *dns, uri: *uri })
}

fn upgrade(at: &At<'_>, proto: &manager::UpgradeConfig) -> Compiled<Upgrade> {
    let manager::UpgradeConfig { upgrade_type, filters, enabled } = proto;
    unset!(at; filters);
    Ok(Upgrade {
        kind: upgrade_type.to_ascii_lowercase().into(),
        enabled: !matches!(enabled, Some(BoolValue { value: false })),
        ends: false,
    })
}

/// What is sampled decides what stands in request ids; spans have no tracer to go to, and a provider would be one.
fn sampling(at: &At<'_>, proto: &manager::Tracing) -> Compiled<Sampling> {
    let manager::Tracing {
        client_sampling,
        random_sampling,
        overall_sampling,
        verbose: _,
        max_path_tag_length: _,
        custom_tags: _,
        provider,
        spawn_upstream_span: _,
        operation: _,
        upstream_operation: _,
        no_context_propagation: _,
    } = proto;
    unset!(at; provider);
    let percent = |value: &Option<Percent>| value.as_ref().map_or(100.0, |percent| percent.value);
    Ok(Sampling {
        client: percent(client_sampling),
        random: percent(random_sampling),
        overall: percent(overall_sampling),
    })
}

fn scheme(at: &At<'_>, proto: &Option<core::SchemeHeaderTransformation>) -> Compiled<Option<Scheme>> {
    let Some(core::SchemeHeaderTransformation { match_upstream, transformation }) = proto else { return Ok(None) };
    let at = at.field("scheme_header_transformation");
    unset!(at; match_upstream);
    match transformation {
        None => Ok(None),
        Some(Transformation::SchemeToOverwrite(scheme)) => match scheme.as_str() {
            "http" => Ok(Some(Scheme::Http)),
            "https" => Ok(Some(Scheme::Https)),
            other => at.field("scheme_to_overwrite").refuse(format!("{other:?} is neither http nor https")),
        },
    }
}
