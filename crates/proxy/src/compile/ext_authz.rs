//! The ext_authz filter.

use std::time::Duration;

use maille_xds::types::core::grpc_service::TargetSpecifier;
use maille_xds::types::core::{ApiVersion, GrpcService, http_uri};
use maille_xds::types::matcher::ListStringMatcher;
use maille_xds::types::pb::envoy::extensions::filters::http::ext_authz::v3::ext_authz::Services;
use maille_xds::types::pb::envoy::extensions::filters::http::ext_authz::v3::{self as proto, ExtAuthz as Proto};
use maille_xds::types::pb::envoy::extensions::filters::network::ext_authz::v3::ExtAuthz as NetworkProto;

use crate::compile::at::{At, Compiled, unset};
use crate::compile::{matcher, rbac};
use crate::config::{AuthzGrpc, AuthzHttp, AuthzService, BodyShown, ExtAuthz, StringMatcher};

/// How long an answer is waited for where nothing is said (Envoy: ext_authz.proto).
const TIMEOUT: Duration = Duration::from_millis(200);

/// The HTTP filter.
pub(crate) fn filter(at: &At<'_>, proto: &Proto) -> Compiled<ExtAuthz> {
    match at.required("services", &proto.services)? {
        Services::GrpcService(service) => {
            let (service, timeout) = grpc(&at.field("grpc_service"), service)?;
            asking(at, proto, AuthzService::Grpc(service), timeout, None)
        }
        Services::HttpService(service) => {
            let (service, timeout, own) = http(&at.field("http_service"), service)?;
            asking(at, proto, AuthzService::Http(Box::new(service)), timeout, Some(own))
        }
    }
}

/// `own` are headers that are shown in any case, by a service that shows only some.
fn asking<S>(
    at: &At<'_>,
    proto: &Proto,
    service: S,
    timeout: Option<Duration>,
    own: Option<Vec<StringMatcher>>,
) -> Compiled<ExtAuthz<S>> {
    let Proto {
        transport_api_version,
        failure_mode_allow,
        failure_mode_allow_header_add,
        with_request_body,
        clear_route_cache,
        status_on_error,
        // What an answer may not contain we never take.
        validate_mutations: _,
        metadata_context_namespaces,
        typed_metadata_context_namespaces,
        route_metadata_context_namespaces,
        route_typed_metadata_context_namespaces,
        filter_enabled,
        filter_enabled_metadata,
        deny_at_disable,
        include_peer_certificate,
        stat_prefix,
        bootstrap_metadata_labels_key,
        allowed_headers,
        disallowed_headers,
        include_tls_session,
        // Metrics, and the log.
        charge_cluster_response_stats: _,
        emit_filter_state_stats: _,
        emit_client_span: _,
        encode_raw_headers,
        decoder_header_mutation_rules,
        enable_dynamic_metadata_ingestion,
        filter_metadata: _,
        max_denied_response_body_bytes,
        enforce_response_header_limits: _,
        shadow_mode,
        services: _,
    } = proto;
    unset!(at; typed_metadata_context_namespaces, route_metadata_context_namespaces, filter_enabled, deny_at_disable);
    unset!(at; route_typed_metadata_context_namespaces, bootstrap_metadata_labels_key, encode_raw_headers, shadow_mode);
    unset!(at; decoder_header_mutation_rules, enable_dynamic_metadata_ingestion, max_denied_response_body_bytes);
    if *transport_api_version == ApiVersion::V2 as i32 {
        return at.field("transport_api_version").refuse("must be V3");
    }
    let enabled = filter_enabled_metadata.as_ref();
    let status = status_on_error.as_ref().map_or(403, |status| status.code);
    let Some(status_on_error) = u16::try_from(status).ok().filter(|status| (100..600).contains(status)) else {
        return at.field("status_on_error").refuse(format!("{status} is no status"));
    };
    let lists =
        |field, list: &Option<ListStringMatcher>| list.as_ref().map(|list| strings(&at.field(field), list)).transpose();
    let allowed = match (lists("allowed_headers", allowed_headers)?, own) {
        (Some(listed), Some(own)) => Some([listed, own].concat()),
        (listed, own) => listed.or(own),
    };
    Ok(ExtAuthz {
        service,
        timeout,
        failure_mode_allow: *failure_mode_allow,
        failure_mode_header: *failure_mode_allow_header_add,
        status_on_error,
        body: with_request_body.map(|settings| body(&at.field("with_request_body"), settings)).transpose()?,
        enabled: enabled.map(|proto| rbac::metadata(&at.field("filter_enabled_metadata"), proto)).transpose()?,
        clear_route: *clear_route_cache,
        include_certificate: *include_peer_certificate,
        include_server_name: *include_tls_session,
        allowed,
        disallowed: lists("disallowed_headers", disallowed_headers)?.unwrap_or_default(),
        metadata_namespaces: metadata_context_namespaces.iter().map(|name| name.as_str().into()).collect(),
        stat_prefix: stat_prefix.as_str().into(),
    })
}

/// More than this is not read ahead for one request.
const MOST_SHOWN: u32 = 16 << 20;

fn body(at: &At<'_>, settings: proto::BufferSettings) -> Compiled<BodyShown> {
    let proto::BufferSettings { max_request_bytes, allow_partial_message, pack_as_bytes } = settings;
    if !(1..=MOST_SHOWN).contains(&max_request_bytes) {
        return at.field("max_request_bytes").refuse(format!("must be from 1 to {MOST_SHOWN}"));
    }
    Ok(BodyShown { max: max_request_bytes, partial: allow_partial_message, as_bytes: pack_as_bytes })
}

/// The network filter: the same authorizer, asked about a connection.
pub(crate) fn network(at: &At<'_>, proto: &NetworkProto) -> Compiled<ExtAuthz<AuthzGrpc>> {
    let NetworkProto {
        stat_prefix,
        grpc_service,
        failure_mode_allow,
        include_peer_certificate,
        transport_api_version,
        filter_enabled_metadata,
        bootstrap_metadata_labels_key,
        include_tls_session,
        send_tls_alert_on_denial,
        metadata_context_namespaces,
        typed_metadata_context_namespaces,
        shadow_mode,
    } = proto;
    unset!(at; bootstrap_metadata_labels_key, send_tls_alert_on_denial, typed_metadata_context_namespaces, shadow_mode);
    let (service, timeout) = grpc(&at.field("grpc_service"), at.required("grpc_service", grpc_service)?)?;
    let http = Proto {
        stat_prefix: stat_prefix.clone(),
        failure_mode_allow: *failure_mode_allow,
        include_peer_certificate: *include_peer_certificate,
        transport_api_version: *transport_api_version,
        filter_enabled_metadata: filter_enabled_metadata.clone(),
        include_tls_session: *include_tls_session,
        metadata_context_namespaces: metadata_context_namespaces.clone(),
        ..Proto::default()
    };
    asking(at, &http, service, timeout, None)
}

fn grpc(at: &At<'_>, proto: &GrpcService) -> Compiled<(AuthzGrpc, Option<Duration>)> {
    let GrpcService { timeout, initial_metadata, retry_policy, target_specifier } = proto;
    unset!(at; initial_metadata, retry_policy);
    let Some(TargetSpecifier::EnvoyGrpc(grpc)) = target_specifier else {
        return at.refuse("must be an envoy_grpc service");
    };
    let authority = if grpc.authority.is_empty() { &grpc.cluster_name } else { &grpc.authority };
    let cluster = at.text("cluster_name", &grpc.cluster_name)?.into();
    Ok((AuthzGrpc { cluster, authority: authority.as_str().into() }, at.timeout("timeout", timeout, Some(TIMEOUT))?))
}

/// Who is asked, for how long, and the headers that are shown in any case.
type Http = (AuthzHttp, Option<Duration>, Vec<StringMatcher>);

fn http(at: &At<'_>, proto: &proto::HttpService) -> Compiled<Http> {
    let proto::HttpService {
        server_uri,
        path_prefix,
        path_override,
        authorization_request,
        authorization_response,
        retry_policy,
    } = proto;
    unset!(at; path_override, retry_policy);
    let uri = at.required("server_uri", server_uri)?;
    let Some(http_uri::HttpUpstreamType::Cluster(cluster)) = &uri.http_upstream_type else {
        return at.field("server_uri").refuse("needs a cluster");
    };
    if !path_prefix.is_empty() && !path_prefix.starts_with('/') {
        return at.field("path_prefix").refuse("must begin with /");
    }
    let request = authorization_request.clone().unwrap_or_default();
    let response = authorization_response.clone().unwrap_or_default();
    let header = |proto: &maille_xds::types::core::HeaderValue| {
        let at = at.field("headers_to_add");
        if proto.value.contains('%') {
            return at.refuse("operators are not supported");
        }
        Ok((matcher::header_name(&at, "key", &proto.key)?, proto.value.as_bytes().into()))
    };
    let list = |field: &str, list: &Option<ListStringMatcher>| match list {
        Some(list) => strings(&at.field(field), list),
        None => Ok(Vec::new()),
    };
    let service = AuthzHttp {
        cluster: at.text("cluster", cluster)?.into(),
        path_prefix: path_prefix.as_str().into(),
        headers: request.headers_to_add.iter().map(header).collect::<Compiled<_>>()?,
        to_upstream: list("allowed_upstream_headers", &response.allowed_upstream_headers)?,
        append_to_upstream: list("allowed_upstream_headers_to_append", &response.allowed_upstream_headers_to_append)?,
        to_client: list("allowed_client_headers", &response.allowed_client_headers)?,
        to_client_on_success: list("allowed_client_headers_on_success", &response.allowed_client_headers_on_success)?,
        to_metadata: list("dynamic_metadata_from_headers", &response.dynamic_metadata_from_headers)?,
    };
    // Who is asked by HTTP sees these whatever is allowed beside.
    let own =
        ["authorization", ":method", ":path", ":authority"].map(|name| StringMatcher::Exact(name.as_bytes().into()));
    let legacy = match &request.allowed_headers {
        Some(list) => strings(&at.field("allowed_headers"), list)?,
        None => Vec::new(),
    };
    let timeout = at.timeout("timeout", &uri.timeout, Some(TIMEOUT))?;
    Ok((service, timeout, [&own[..], &legacy].concat()))
}

fn strings(at: &At<'_>, list: &ListStringMatcher) -> Compiled<Vec<StringMatcher>> {
    list.patterns.iter().enumerate().map(|(i, proto)| matcher::string(&at.item("patterns", i), proto)).collect()
}

#[cfg(test)]
mod tests {
    use maille_xds::types;
    use maille_xds::types::core::grpc_service::EnvoyGrpc;

    use super::*;

    #[test]
    fn an_authorizer_that_says_nothing_is_not_waited_for_for_ever() {
        let ms = Duration::from_millis;
        for (written, meant) in [(None, Some(ms(200))), (Some(0), None), (Some(700), Some(ms(700)))] {
            let timeout = written.map(|ms| types::Duration { seconds: 0, nanos: ms * 1_000_000 });
            let target = EnvoyGrpc { cluster_name: "authz".into(), ..Default::default() };
            let target_specifier = Some(TargetSpecifier::EnvoyGrpc(target));
            let service = GrpcService { timeout, target_specifier, ..Default::default() };
            let (_, timeout) = grpc(&At::resource("x"), &service).unwrap();
            assert_eq!(timeout, meant, "{written:?}");
        }
    }
}
