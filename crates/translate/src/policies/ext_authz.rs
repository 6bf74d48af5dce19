//! CUSTOM policies: RBAC finds out which requests they are about, and an authorizer of the mesh's settings judges those.

use std::collections::BTreeMap;
use std::sync::Arc;

use maille_api::mesh::providers::{ExtAuthzGrpcProvider, ExtAuthzHttpProvider, ExtAuthzRequestBody, ProviderKind};
use maille_api::security::AuthorizationPolicy;
use maille_model::Policy;
use maille_model::policy::is_provider_name;
use maille_xds::types::any;
use maille_xds::types::core::grpc_service::{EnvoyGrpc, TargetSpecifier};
use maille_xds::types::core::http_uri::HttpUpstreamType;
use maille_xds::types::core::{ApiVersion, GrpcService, HeaderValue, HttpUri};
use maille_xds::types::hcm::{HttpFilter, http_filter};
use maille_xds::types::kind::{HttpStatus, StatusCode};
use maille_xds::types::listener::{Filter, filter};
use maille_xds::types::matcher::{ListStringMatcher, MetadataMatcher, StringMatcher};
use maille_xds::types::pb::envoy::extensions::filters::http::ext_authz::v3::ext_authz::Services;
use maille_xds::types::pb::envoy::extensions::filters::http::ext_authz::v3::{
    AuthorizationRequest, AuthorizationResponse, BufferSettings, ExtAuthz, HttpService,
};
use maille_xds::types::pb::envoy::extensions::filters::network::ext_authz::v3::ExtAuthz as NetworkExtAuthz;
use maille_xds::types::rbac::rbac::Action;

use super::rbac::{self, Rules};
use super::trust_domain::TrustDomains;
use super::{Filters, matchers};
use crate::Context;
use crate::convert::{duration, outbound_cluster, seconds};

/// What the names of rules begin with, which is how the authorizer's filter knows them.
const MATCH_PREFIX: &str = "istio-ext-authz";
/// Where RBAC leaves what it found.
const SHADOW_PREFIX: &str = "istio_ext_authz_";
const EFFECTIVE_POLICY: &str = "shadow_effective_policy_id";
const REFUSED_SUFFIX: &str = "-deny-due-to-bad-CUSTOM-action";
const TIMEOUT_SECONDS: i64 = 600;

/// An authorizer, as the filters for requests and for connections ask it.
struct Authorizer {
    http: ExtAuthz,
    /// Only gRPC can be asked about connections.
    network: Option<NetworkExtAuthz>,
}

/// The filters of CUSTOM policies. Without an authorizer to ask, and with more than one, what their rules match is refused.
pub(super) fn custom(
    context: &Context<'_>,
    policies: &[Arc<Policy<AuthorizationPolicy>>],
    domains: &TrustDomains<'_>,
    filters: &mut Filters,
) {
    let mut by_provider: BTreeMap<&str, Vec<&Arc<Policy<AuthorizationPolicy>>>> = BTreeMap::new();
    for policy in policies.iter().filter(|policy| !rbac::is_dry_run(policy)) {
        by_provider.entry(policy.spec.provider()).or_default().push(policy);
    }
    let single = by_provider.len() == 1;
    for (name, policies) in by_provider {
        let name_prefix = match name {
            "" => format!("{MATCH_PREFIX}-"),
            name => format!("{MATCH_PREFIX}-{name}-"),
        };
        let authorizer = authorizer(context, name).filter(|_| single);
        let rules =
            |of_connection| Rules::new(Action::Deny, policies.iter().copied(), domains, of_connection, &name_prefix);
        let (of_requests, of_connections) = (rules(false), rules(true));
        let Some(authorizer) = authorizer else {
            filters.http.push(rbac::http_filter(Some(&of_requests.refused(REFUSED_SUFFIX)), None));
            filters.network.push(rbac::network_filter(Some(&of_connections.refused(REFUSED_SUFFIX)), None));
            continue;
        };
        let asked = format!("{MATCH_PREFIX}-{name}");
        filters.http.push(rbac::http_filter(None, Some((&of_requests, SHADOW_PREFIX))));
        filters.http.push(HttpFilter {
            name: "envoy.filters.http.ext_authz".to_owned(),
            config_type: Some(http_filter::ConfigType::TypedConfig(any(&ExtAuthz {
                filter_enabled_metadata: Some(found(rbac::HTTP, &asked)),
                ..authorizer.http
            }))),
            ..HttpFilter::default()
        });
        if let Some(network) = authorizer.network.filter(|_| !of_connections.is_empty()) {
            filters.network.push(rbac::network_filter(None, Some((&of_connections, SHADOW_PREFIX))));
            filters.network.push(Filter {
                name: "envoy.filters.network.ext_authz".to_owned(),
                config_type: Some(filter::ConfigType::TypedConfig(any(&NetworkExtAuthz {
                    filter_enabled_metadata: Some(found(rbac::NETWORK, &asked)),
                    ..network
                }))),
            });
        }
    }
}

/// Whether RBAC found that a rule with such a name matches.
fn found(filter: &str, prefix: &str) -> MetadataMatcher {
    let name = matchers::string_value(matchers::prefix(prefix, false));
    matchers::metadata(filter, &[&format!("{SHADOW_PREFIX}{EFFECTIVE_POLICY}")], name)
}

/// The provider of this name, if it is an authorizer that can be asked.
fn authorizer(context: &Context<'_>, name: &str) -> Option<Authorizer> {
    if !is_provider_name(name) {
        return None;
    }
    let mut of_name = context.mesh().extension_providers.iter().filter(|provider| provider.name == name);
    let (provider, None) = (of_name.next()?, of_name.next()) else { return None };
    match provider.provider.as_ref()? {
        ProviderKind::EnvoyExtAuthzHttp(settings) => over_http(context, settings),
        ProviderKind::EnvoyExtAuthzGrpc(settings) => over_grpc(context, settings),
        _ => None,
    }
}

/// Host and cluster of the provider, as far as this proxy can reach it.
fn service(context: &Context<'_>, service: &str, port: u32) -> Option<(String, String)> {
    let hostname = &context.snapshot.provider_service(service)?.hostname;
    // A cluster that the proxy does not have would cost it the whole listener.
    context.scope.service(hostname)?.port(port)?;
    Some((hostname.clone(), outbound_cluster(port, "", hostname)))
}

fn over_http(context: &Context<'_>, settings: &ExtAuthzHttpProvider) -> Option<Authorizer> {
    let (hostname, cluster) = service(context, &settings.service, settings.port)?;
    let written = [&settings.include_request_headers_in_check, &settings.include_headers_in_check];
    let on_answer = [
        &settings.headers_to_upstream_on_allow,
        &settings.headers_to_downstream_on_deny,
        &settings.headers_to_downstream_on_allow,
    ];
    if written.iter().chain(&on_answer).any(|names| names.iter().any(|name| name == "*")) {
        return None;
    }
    if !settings.path_prefix.is_empty() && !settings.path_prefix.starts_with('/') {
        return None;
    }
    let added = &settings.include_additional_headers_in_check;
    let request = AuthorizationRequest {
        headers_to_add: added
            .iter()
            .map(|(key, value)| HeaderValue { key: key.clone(), value: value.clone(), ..HeaderValue::default() })
            .collect(),
        ..AuthorizationRequest::default()
    };
    let [upstream, on_deny, on_allow] = on_answer.map(|names| headers(names));
    let answered = upstream.is_some() || on_deny.is_some() || on_allow.is_some();
    let response = AuthorizationResponse {
        allowed_upstream_headers: upstream,
        allowed_client_headers: on_deny,
        allowed_client_headers_on_success: on_allow,
        ..AuthorizationResponse::default()
    };
    let http = HttpService {
        path_prefix: settings.path_prefix.clone(),
        server_uri: Some(HttpUri {
            uri: format!("http://{hostname}"),
            timeout: Some(settings.timeout.map_or_else(|| seconds(TIMEOUT_SECONDS), duration)),
            http_upstream_type: Some(HttpUpstreamType::Cluster(cluster)),
        }),
        authorization_request: (!added.is_empty()).then_some(request),
        authorization_response: answered.then_some(response),
        ..HttpService::default()
    };
    let [wanted, older] = written.map(|names| headers(names));
    let http = ExtAuthz {
        allowed_headers: wanted.or(older),
        services: Some(Services::HttpService(http)),
        status_on_error: status(&settings.status_on_error)?,
        failure_mode_allow: settings.fail_open,
        clear_route_cache: settings.clear_route_cache,
        with_request_body: settings.include_request_body_in_check.as_ref().map(body),
        transport_api_version: ApiVersion::V3.into(),
        ..ExtAuthz::default()
    };
    Some(Authorizer { http, network: None })
}

fn over_grpc(context: &Context<'_>, settings: &ExtAuthzGrpcProvider) -> Option<Authorizer> {
    let (authority, cluster_name) = service(context, &settings.service, settings.port)?;
    let grpc = GrpcService {
        timeout: Some(settings.timeout.map_or_else(|| seconds(TIMEOUT_SECONDS), duration)),
        target_specifier: Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
            cluster_name,
            authority,
            ..EnvoyGrpc::default()
        })),
        ..GrpcService::default()
    };
    let http = ExtAuthz {
        services: Some(Services::GrpcService(grpc.clone())),
        status_on_error: status(&settings.status_on_error)?,
        failure_mode_allow: settings.fail_open,
        clear_route_cache: settings.clear_route_cache,
        with_request_body: settings.include_request_body_in_check.as_ref().map(body),
        transport_api_version: ApiVersion::V3.into(),
        ..ExtAuthz::default()
    };
    let network = NetworkExtAuthz {
        stat_prefix: "tcp.".to_owned(),
        grpc_service: Some(grpc),
        failure_mode_allow: settings.fail_open,
        transport_api_version: ApiVersion::V3.into(),
        ..NetworkExtAuthz::default()
    };
    Some(Authorizer { http, network: Some(network) })
}

/// The status of a request whose authorizer could not be asked; `None` when there is no such status.
fn status(written: &str) -> Option<Option<HttpStatus>> {
    if written.is_empty() {
        return Some(None);
    }
    let code = written.parse::<i32>().ok().and_then(|code| StatusCode::try_from(code).ok())?;
    Some(Some(HttpStatus { code: code.into() }))
}

fn headers(names: &[String]) -> Option<ListStringMatcher> {
    let matcher = |name: &String| -> StringMatcher {
        match (name.strip_prefix('*'), name.strip_suffix('*')) {
            (Some(end), _) => matchers::suffix(end, true),
            (_, Some(start)) => matchers::prefix(start, true),
            _ => matchers::exact(name, true),
        }
    };
    (!names.is_empty()).then(|| ListStringMatcher { patterns: names.iter().map(matcher).collect() })
}

fn body(settings: &ExtAuthzRequestBody) -> BufferSettings {
    BufferSettings {
        max_request_bytes: settings.max_request_bytes,
        allow_partial_message: settings.allow_partial_message,
        pack_as_bytes: settings.pack_as_bytes,
    }
}
