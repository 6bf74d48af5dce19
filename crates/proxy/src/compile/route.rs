//! Route tables: virtual hosts, what routes match, and header mutations.

use std::cell::RefCell;
use std::sync::Arc;

use ahash::AHashMap;
use maille_http::Name;
use maille_telemetry::format::Format;
use maille_xds::types::core::header_value_option::HeaderAppendAction;
use maille_xds::types::route::query_parameter_matcher::QueryParameterMatchSpecifier;
use maille_xds::types::route::route::Action as ActionProto;
use maille_xds::types::route::route_match::{PathSpecifier, TlsContextMatchOptions};
use maille_xds::types::route::virtual_host::TlsRequirementType;
use maille_xds::types::{BoolValue, core, route as proto};
use prost::Message;

use crate::compile::Refused;
use crate::compile::at::{At, Compiled, unset};
use crate::compile::filters::{PerFilter, per_filter};
use crate::compile::{matcher, rbac, route_action};
use crate::config::{
    Action, Case, Conditions, CookieMatcher, Forward, PathMatcher, QueryMatcher, QueryValue, RequireTls, Route,
    RouteMatcher, RouteTable, TlsMatcher, VirtualHost,
};
use crate::headers::{Addition, AppendAction, HeaderMutations, Level};
use crate::route::{HostIndex, RouteIndex};

/// What Envoy allows a direct response's body unless it is told otherwise.
const DIRECT_RESPONSE_BYTES: u32 = 4096;

/// Compiles a route table.
pub fn routes(proto: &proto::RouteConfiguration) -> Result<RouteTable, Refused> {
    route_table(&At::resource(&proto.name), proto)
}

/// The header mutations of one place, requests' and responses'.
#[derive(Clone, Default)]
pub(crate) struct Mutations {
    pub(crate) request: Arc<Level>,
    pub(crate) response: Arc<Level>,
}

/// What holds for every route below: of the table and of the virtual host.
pub(crate) struct Scope<'a> {
    pub(crate) table: Mutations,
    pub(crate) host: Mutations,
    pub(crate) most_specific_wins: bool,
    pub(crate) max_body: u32,
    pub(crate) retry: Option<&'a proto::RetryPolicy>,
    pub(crate) retry_buffer: Option<u64>,
    pub(crate) filters: PerFilter,
    pub(crate) mirrors: &'a [proto::route_action::RequestMirrorPolicy],
    /// What has been compiled for the routes so far, by its protobuf; routes that forward alike share it.
    pub(crate) forwards: RefCell<AHashMap<Vec<u8>, Arc<Forward>>>,
}

impl Scope<'_> {
    /// All mutations of a route, in the order in which they apply: Envoy's default lets the least specific have the last word.
    pub(crate) fn mutations(&self, first: Option<&Mutations>, route: &Mutations) -> (HeaderMutations, HeaderMutations) {
        let levels = match self.most_specific_wins {
            false => [route, &self.host, &self.table],
            true => [&self.table, &self.host, route],
        };
        let all = || first.into_iter().chain(levels);
        (HeaderMutations::new(all().map(|m| &m.request)), HeaderMutations::new(all().map(|m| &m.response)))
    }
}

pub(crate) fn route_table(at: &At<'_>, proto: &proto::RouteConfiguration) -> Compiled<RouteTable> {
    let proto::RouteConfiguration {
        name,
        virtual_hosts,
        vhds,
        internal_only_headers,
        response_headers_to_add,
        response_headers_to_remove,
        request_headers_to_add,
        request_headers_to_remove,
        most_specific_header_mutations_wins,
        // Clusters come and go independently of routes here; a missing one is answered when it is asked for.
        validate_clusters: _,
        max_direct_response_body_size_bytes,
        cluster_specifier_plugins,
        request_mirror_policies,
        ignore_port_in_host_matching,
        vhost_header,
        ignore_path_parameters_in_path_matching,
        typed_per_filter_config,
        metadata: _,
        route_specifiers,
    } = proto;
    unset!(at; vhds, cluster_specifier_plugins, vhost_header, ignore_path_parameters_in_path_matching, route_specifiers);
    let table = Mutations {
        request: level(at, "request_headers_to", request_headers_to_add, request_headers_to_remove)?,
        response: level(at, "response_headers_to", response_headers_to_add, response_headers_to_remove)?,
    };
    let filters = per_filter(at, typed_per_filter_config)?;
    let mut hosts = Vec::with_capacity(virtual_hosts.len());
    for (i, proto) in virtual_hosts.iter().enumerate() {
        let scope = Scope {
            table: table.clone(),
            host: Mutations::default(),
            most_specific_wins: *most_specific_header_mutations_wins,
            max_body: max_direct_response_body_size_bytes.as_ref().map_or(DIRECT_RESPONSE_BYTES, |v| v.value),
            retry: None,
            retry_buffer: None,
            filters: filters.clone(),
            mirrors: request_mirror_policies,
            forwards: RefCell::default(),
        };
        hosts.push(Arc::new(virtual_host(&at.item("virtual_hosts", i), proto, scope)?));
    }
    let index = HostIndex::new(hosts.iter().map(|host| host.domains.as_slice()));
    let names = internal_only_headers.iter().map(|text| matcher::header_name(at, "internal_only_headers", text));
    Ok(RouteTable {
        name: name.as_str().into(),
        hosts: index.or_else(|error| at.field("virtual_hosts").refuse(error.to_string()))?,
        virtual_hosts: hosts,
        ignore_port: *ignore_port_in_host_matching,
        internal_only_headers: names.collect::<Compiled<_>>()?,
    })
}

fn virtual_host<'a>(at: &At<'_>, proto: &'a proto::VirtualHost, mut scope: Scope<'a>) -> Compiled<VirtualHost> {
    let proto::VirtualHost {
        name,
        domains,
        routes,
        matcher,
        require_tls,
        virtual_clusters,
        rate_limits,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        cors,
        typed_per_filter_config,
        include_request_attempt_count,
        include_attempt_count_in_response,
        retry_policy,
        retry_policy_typed_config,
        hedge_policy,
        include_is_timeout_retry_header,
        per_request_buffer_limit_bytes,
        request_body_buffer_limit,
        request_mirror_policies,
        metadata: _,
        route_specifiers,
    } = proto;
    unset!(at; matcher, rate_limits, cors, retry_policy_typed_config, hedge_policy, include_is_timeout_retry_header);
    unset!(at; virtual_clusters, route_specifiers);
    scope.host = Mutations {
        request: level(at, "request_headers_to", request_headers_to_add, request_headers_to_remove)?,
        response: level(at, "response_headers_to", response_headers_to_add, response_headers_to_remove)?,
    };
    scope.filters = per_filter(at, typed_per_filter_config)?.or(&scope.filters);
    scope.retry = retry_policy.as_ref();
    scope.retry_buffer = buffer_limit(per_request_buffer_limit_bytes, request_body_buffer_limit);
    if !request_mirror_policies.is_empty() {
        scope.mirrors = request_mirror_policies;
    }
    if domains.is_empty() {
        return at.field("domains").refuse("is empty");
    }
    let routes = routes.iter().enumerate().map(|(i, proto)| route(&at.item("routes", i), proto, &scope));
    let routes = routes.collect::<Compiled<Vec<_>>>()?;
    Ok(VirtualHost {
        name: at.text("name", name)?.into(),
        domains: domains.iter().map(|domain| domain.as_str().into()).collect(),
        require_tls: match at.one_of("require_tls", *require_tls)? {
            TlsRequirementType::None => RequireTls::None,
            TlsRequirementType::ExternalOnly => RequireTls::ExternalOnly,
            TlsRequirementType::All => RequireTls::All,
        },
        index: RouteIndex::new(&routes),
        routes,
        attempt_count_in_request: *include_request_attempt_count,
        attempt_count_in_response: *include_attempt_count_in_response,
    })
}

fn route(at: &At<'_>, proto: &proto::Route, scope: &Scope<'_>) -> Compiled<Route> {
    let proto::Route {
        name,
        r#match,
        metadata,
        decorator,
        typed_per_filter_config,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        tracing,
        per_request_buffer_limit_bytes,
        stat_prefix,
        request_body_buffer_limit,
        route_specifiers,
        action,
    } = proto;
    unset!(at; tracing, route_specifiers);
    let own = Mutations {
        request: level(at, "request_headers_to", request_headers_to_add, request_headers_to_remove)?,
        response: level(at, "response_headers_to", response_headers_to_add, response_headers_to_remove)?,
    };
    let filters = per_filter(at, typed_per_filter_config)?.or(&scope.filters);
    let action = match action {
        Some(ActionProto::Route(forward)) => {
            // All that it is compiled from, besides the scope.
            let part = proto::Route {
                action: action.clone(),
                request_headers_to_add: request_headers_to_add.clone(),
                request_headers_to_remove: request_headers_to_remove.clone(),
                response_headers_to_add: response_headers_to_add.clone(),
                response_headers_to_remove: response_headers_to_remove.clone(),
                ..Default::default()
            };
            let key = part.encode_to_vec();
            let known = scope.forwards.borrow().get(&key).cloned();
            let forward = match known {
                Some(forward) => forward,
                None => Arc::new(route_action::forward(&at.field("route"), forward, scope, &own)?),
            };
            scope.forwards.borrow_mut().insert(key, forward.clone());
            Action::Forward(forward)
        }
        Some(action) => route_action::answer(at, action, scope)?,
        None => return at.field("action").refuse("is missing: a route forwards, redirects or answers"),
    };
    Ok(Route {
        name: name.as_str().into(),
        matcher: route_match(&at.field("match"), at.required("match", r#match)?)?,
        action,
        response: scope.mutations(None, &own).1,
        cors: filters.cors,
        fault: filters.fault,
        metadata: matcher::metadata(metadata),
        operation: decorator.as_ref().map(|d| d.operation.as_str().into()),
        stat_prefix: (!stat_prefix.is_empty()).then(|| stat_prefix.as_str().into()),
        retry_buffer_limit: buffer_limit(per_request_buffer_limit_bytes, request_body_buffer_limit)
            .or(scope.retry_buffer),
    })
}

fn buffer_limit(
    old: &Option<maille_xds::types::UInt32Value>,
    new: &Option<maille_xds::types::UInt64Value>,
) -> Option<u64> {
    new.as_ref().map(|v| v.value).or(old.as_ref().map(|v| u64::from(v.value)))
}

pub(crate) fn route_match(at: &At<'_>, proto: &proto::RouteMatch) -> Compiled<RouteMatcher> {
    let proto::RouteMatch {
        case_sensitive,
        runtime_fraction,
        headers,
        query_parameters,
        cookies,
        grpc,
        tls_context,
        dynamic_metadata,
        filter_state,
        path_specifier,
    } = proto;
    unset!(at; filter_state);
    let case = match case_sensitive {
        Some(BoolValue { value: false }) => Case::Ignore,
        _ => Case::Sensitive,
    };
    let fraction = runtime_fraction.as_ref().map(|f| matcher::runtime_fraction(&at.field("runtime_fraction"), f));
    let query = query_parameters.iter().enumerate().map(|(i, q)| query(&at.item("query_parameters", i), q));
    let cookies = cookies.iter().enumerate().map(|(i, c)| cookie(&at.item("cookies", i), c));
    let metadata = dynamic_metadata.iter().enumerate();
    let metadata = metadata.map(|(i, proto)| rbac::metadata(&at.item("dynamic_metadata", i), proto));
    let path = path(at, at.required("path_specifier", path_specifier)?, case)?;
    let conditions = Conditions {
        headers: matcher::headers(at, "headers", headers)?,
        query: query.collect::<Compiled<_>>()?,
        cookies: cookies.collect::<Compiled<_>>()?,
        grpc: grpc.is_some(),
        fraction: fraction.transpose()?,
        tls: tls_context.as_ref().map_or_else(
            TlsMatcher::default,
            |TlsContextMatchOptions { presented, validated }| TlsMatcher {
                presented: presented.map(|v| v.value),
                validated: validated.map(|v| v.value),
            },
        ),
        metadata: metadata.collect::<Compiled<_>>()?,
    };
    Ok(RouteMatcher::new(path, conditions))
}

fn path(at: &At<'_>, proto: &PathSpecifier, case: Case) -> Compiled<PathMatcher> {
    let text = |text: &str| -> Box<[u8]> {
        match case {
            Case::Sensitive => text.as_bytes().into(),
            Case::Ignore => text.to_ascii_lowercase().into_bytes().into(),
        }
    };
    Ok(match proto {
        PathSpecifier::Path(path) => PathMatcher::Exact(text(path), case),
        PathSpecifier::Prefix(prefix) => PathMatcher::Prefix(text(prefix), case),
        PathSpecifier::PathSeparatedPrefix(prefix) if prefix.is_empty() || prefix.ends_with('/') => {
            return at
                .field("path_separated_prefix")
                .refuse(format!("{prefix:?} must not be empty or end with a slash"));
        }
        PathSpecifier::PathSeparatedPrefix(prefix) => PathMatcher::SeparatedPrefix(text(prefix), case),
        PathSpecifier::SafeRegex(regex) => PathMatcher::Regex(matcher::full_regex(&at.field("safe_regex"), regex)?),
        PathSpecifier::ConnectMatcher(_) => PathMatcher::Connect,
        PathSpecifier::PathMatchPolicy(_) => return at.field("path_match_policy").refuse("is not supported"),
    })
}

fn query(at: &At<'_>, proto: &proto::QueryParameterMatcher) -> Compiled<QueryMatcher> {
    let proto::QueryParameterMatcher { name, query_parameter_match_specifier } = proto;
    let value = match query_parameter_match_specifier {
        None => QueryValue::Present(true),
        Some(QueryParameterMatchSpecifier::PresentMatch(wanted)) => QueryValue::Present(*wanted),
        Some(QueryParameterMatchSpecifier::StringMatch(proto)) => {
            QueryValue::String(matcher::string(&at.field("string_match"), proto)?)
        }
    };
    Ok(QueryMatcher { name: at.text("name", name)?.as_bytes().into(), value })
}

fn cookie(at: &At<'_>, proto: &proto::CookieMatcher) -> Compiled<CookieMatcher> {
    let proto::CookieMatcher { name, string_match, invert_match } = proto;
    Ok(CookieMatcher {
        name: at.text("name", name)?.as_bytes().into(),
        value: matcher::string(&at.field("string_match"), at.required("string_match", string_match)?)?,
        invert: *invert_match,
    })
}

/// What one place does to headers; `prefix` is the fields' name up to `_add` and `_remove`.
pub(crate) fn level(
    at: &At<'_>,
    prefix: &str,
    add: &[core::HeaderValueOption],
    remove: &[String],
) -> Compiled<Arc<Level>> {
    let add_field = format!("{prefix}_add");
    let remove_field = format!("{prefix}_remove");
    let add = add.iter().enumerate().map(|(i, option)| addition(&at.item(&add_field, i), option));
    let remove = remove.iter().enumerate().map(|(i, name)| changeable(&at.item(&remove_field, i), "", name));
    Ok(Arc::new(Level { add: add.collect::<Compiled<_>>()?, remove: remove.collect::<Compiled<_>>()? }))
}

fn addition(at: &At<'_>, proto: &core::HeaderValueOption) -> Compiled<Addition> {
    let core::HeaderValueOption { header, append, append_action, keep_empty_value } = proto;
    let core::HeaderValue { key, value, raw_value } = at.required("header", header)?;
    let action = at.one_of("append_action", *append_action)?;
    let action = match (append, action) {
        (None, HeaderAppendAction::AppendIfExistsOrAdd) => AppendAction::Append,
        (None, HeaderAppendAction::AddIfAbsent) => AppendAction::AddIfAbsent,
        (None, HeaderAppendAction::OverwriteIfExistsOrAdd) => AppendAction::Overwrite,
        (None, HeaderAppendAction::OverwriteIfExists) => AppendAction::OverwriteIfExists,
        (Some(BoolValue { value: true }), HeaderAppendAction::AppendIfExistsOrAdd) => AppendAction::Append,
        (Some(BoolValue { value: false }), HeaderAppendAction::AppendIfExistsOrAdd) => AppendAction::Overwrite,
        (Some(_), _) => return at.field("append").refuse("and append_action are both set"),
    };
    let at = at.field("header");
    unset!(at; raw_value);
    let name = changeable(&at, "key", key)?;
    let value = Format::parse(value, Name::new).or_else(|error| at.field("value").refuse(error.to_string()))?;
    Ok(Addition { name, value, action, keep_empty: *keep_empty_value })
}

/// A header that routes may change.
fn changeable(at: &At<'_>, field: &str, text: &str) -> Compiled<Name> {
    let place = if field.is_empty() { *at } else { at.field(field) };
    if text.starts_with(':') || text.eq_ignore_ascii_case("host") {
        return place.refuse(format!("{text:?} cannot be changed: pseudo-headers and host have fields of their own"));
    }
    let name = Name::new(text);
    if name.is_valid() { Ok(name) } else { place.refuse(format!("{text:?} is no header name")) }
}
