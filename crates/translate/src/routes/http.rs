//! One VirtualService on one port as a list of Envoy routes.

use std::sync::Arc;

use maille_api::mesh::MeshConfig;
use maille_api::networking::destination_rule::ConsistentHashLb;
use maille_api::networking::virtual_service::{
    Destination, HttpMatchRequest, HttpRedirect, HttpRoute, HttpRouteDestination, Percent, RedirectPort,
    RedirectPortSelection,
};
use maille_model::{Proxy, Service, VirtualService};
use maille_xds::types::route::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};
use maille_xds::types::route::route::Action;
use maille_xds::types::route::route_action::{ClusterSpecifier, HostRewriteSpecifier, RequestMirrorPolicy};
use maille_xds::types::route::weighted_cluster::{ClusterWeight, cluster_weight};
use maille_xds::types::route::{
    Decorator, DirectResponseAction, RedirectAction, Route, RouteAction, RouteMatch, WeightedCluster,
};
use maille_xds::types::{BoolValue, UInt32Value, core, matcher};

use super::filters::{hundredths, millionths, per_filter_config, share_of_requests};
use super::headers::HeaderChanges;
use super::matching::{any_request, is_catch_all, regex_matcher, route_match};
use super::{hash, retry};
use crate::convert::{config_metadata, duration, no_time, outbound_cluster};
use crate::proxy_headers::ProxyHeaders;

/// The name of a route that no VirtualService wrote.
pub(crate) const DEFAULT_ROUTE: &str = "default";

/// For whom, and on which port, routes are made.
pub(crate) struct RouteContext<'a> {
    pub(crate) mesh: &'a MeshConfig,
    pub(crate) proxy: &'a Proxy,
    /// The number of the listener's port, which `match.port` is compared with.
    pub(crate) port: u32,
    /// `mesh`, or the gateway's `namespace/name`.
    pub(crate) gateway: &'a str,
    /// The listener terminates TLS.
    pub(crate) tls: bool,
    /// The service that a destination's host names, if there is one.
    pub(crate) service: &'a dyn Fn(&str) -> Option<Arc<Service>>,
    /// What the DestinationRule of a destination says about hashing.
    pub(crate) hash: &'a dyn Fn(&Destination) -> Option<ConsistentHashLb>,
}

impl RouteContext<'_> {
    /// The routes of a VirtualService that apply here, in its order; nothing after the first that matches everything.
    pub(crate) fn routes(&self, virtual_service: &VirtualService) -> Vec<Route> {
        let mut routes = Vec::new();
        for http in &virtual_service.spec.http {
            if http.r#match.is_empty() {
                routes.push(self.route(virtual_service, http, None));
                return routes;
            }
            for request in http.r#match.iter().filter(|request| self.applies(request)) {
                let route = self.route(virtual_service, http, Some(request));
                let last = is_catch_all(&route);
                routes.push(route);
                if last {
                    return routes;
                }
            }
        }
        routes
    }

    /// The part of a match that is known now: port, gateway, and the proxy's own labels and namespace.
    fn applies(&self, request: &HttpMatchRequest) -> bool {
        if request.port != 0 && request.port != self.port {
            return false;
        }
        if !request.gateways.is_empty() {
            return request.gateways.iter().any(|gateway| gateway == self.gateway);
        }
        source_matches(self.proxy, &request.source_labels, &request.source_namespace)
    }

    fn route(&self, virtual_service: &VirtualService, http: &HttpRoute, request: Option<&HttpMatchRequest>) -> Route {
        let changes = http.headers.as_ref().map(HeaderChanges::new).unwrap_or_default();
        let name = match request {
            Some(request) if !request.name.is_empty() => format!("{}.{}", http.name, request.name),
            _ => http.name.clone(),
        };
        let mut out = Route {
            name,
            r#match: Some(route_match(request)),
            metadata: Some(config_metadata("virtual-service", &virtual_service.meta)),
            stat_prefix: request.map(|request| request.stat_prefix.clone()).unwrap_or_default(),
            request_headers_to_add: changes.request_add,
            request_headers_to_remove: changes.request_remove,
            response_headers_to_add: changes.response_add,
            response_headers_to_remove: changes.response_remove,
            typed_per_filter_config: per_filter_config(http),
            ..Default::default()
        };
        out.action = if let Some(redirect) = &http.redirect {
            self.redirect(redirect).map(Action::Redirect)
        } else if let Some(response) = &http.direct_response {
            Some(Action::DirectResponse(DirectResponseAction {
                status: response.status,
                body: response.body.as_ref().and_then(direct_response_body),
                ..Default::default()
            }))
        } else {
            Some(Action::Route(self.forward(http, changes.authority, &mut out)))
        };
        let operation = operation(&out, &virtual_service.meta.name, self.port);
        out.decorator = Some(Decorator { operation, propagate: None });
        out
    }

    fn forward(&self, http: &HttpRoute, authority: Option<String>, out: &mut Route) -> RouteAction {
        let mut action = RouteAction::default();
        set_timeout(&mut action, http.timeout.map(duration));

        let mut authority = authority;
        if let Some(rewrite) = &http.rewrite {
            action.append_x_forwarded_host = ProxyHeaders::outbound(self.mesh).x_forwarded_host;
            if let Some(regex) = &rewrite.uri_regex_rewrite {
                action.regex_rewrite = Some(matcher::RegexMatchAndSubstitute {
                    pattern: Some(regex_matcher(&regex.r#match)),
                    substitution: regex.rewrite.clone(),
                });
            } else {
                action.prefix_rewrite = rewrite.uri.clone();
            }
            if !rewrite.authority.is_empty() {
                authority = Some(rewrite.authority.clone());
            }
        }
        action.host_rewrite_specifier = authority.map(HostRewriteSpecifier::HostRewriteLiteral);

        let mirror = http.mirror.as_ref().map(|destination| (destination, mirror_share(http)));
        let mirrors = http
            .mirrors
            .iter()
            .filter_map(|mirror| Some((mirror.destination.as_ref()?, positive_share(mirror.percentage.as_ref()))));
        action.request_mirror_policies = mirror
            .into_iter()
            .chain(mirrors)
            .filter_map(|(destination, share)| Some(self.mirror(destination, share?)))
            .collect();

        let mut hashed = false;
        if let [only] = http.route.as_slice() {
            hashed = self.single_destination(only, out, &mut action);
        } else {
            let clusters = http.route.iter().filter(|route| route.weight > 0);
            let clusters = clusters.map(|route| self.weighted_destination(route, &mut action)).collect();
            action.cluster_specifier =
                Some(ClusterSpecifier::WeightedClusters(WeightedCluster { clusters, ..Default::default() }));
        }
        let policy = http.retries.as_ref().or(self.mesh.default_http_retry_policy.as_ref());
        action.retry_policy = retry::outbound(policy, hashed);
        action
    }

    /// The only destination: its weight is without meaning and its header changes become the route's.
    fn single_destination(&self, route: &HttpRouteDestination, out: &mut Route, action: &mut RouteAction) -> bool {
        action.cluster_specifier = Some(ClusterSpecifier::Cluster(self.cluster(route.destination.as_ref())));
        if let Some(headers) = &route.headers {
            let changes = HeaderChanges::new(headers);
            out.request_headers_to_add.extend(changes.request_add);
            out.request_headers_to_remove.extend(changes.request_remove);
            out.response_headers_to_add.extend(changes.response_add);
            out.response_headers_to_remove.extend(changes.response_remove);
            // The route's own authority comes first, as it does when there are several destinations.
            if action.host_rewrite_specifier.is_none() {
                action.host_rewrite_specifier = changes.authority.map(HostRewriteSpecifier::HostRewriteLiteral);
            }
        }
        self.add_hash(route, action)
    }

    fn weighted_destination(&self, route: &HttpRouteDestination, action: &mut RouteAction) -> ClusterWeight {
        let changes = route.headers.as_ref().map(HeaderChanges::new).unwrap_or_default();
        self.add_hash(route, action);
        ClusterWeight {
            name: self.cluster(route.destination.as_ref()),
            weight: Some(UInt32Value { value: u32::try_from(route.weight).unwrap_or(0) }),
            request_headers_to_add: changes.request_add,
            request_headers_to_remove: changes.request_remove,
            response_headers_to_add: changes.response_add,
            response_headers_to_remove: changes.response_remove,
            host_rewrite_specifier: changes.authority.map(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral),
            ..Default::default()
        }
    }

    fn add_hash(&self, route: &HttpRouteDestination, action: &mut RouteAction) -> bool {
        let Some(hash) = route.destination.as_ref().and_then(|destination| (self.hash)(destination)) else {
            return false;
        };
        action.hash_policy.extend(hash::policy(&hash));
        true
    }

    fn cluster(&self, destination: Option<&Destination>) -> String {
        match destination {
            Some(destination) => {
                destination_cluster(destination, (self.service)(&destination.host).as_deref(), self.port)
            }
            None => "UnknownService".to_owned(),
        }
    }

    fn mirror(&self, destination: &Destination, share: core::RuntimeFractionalPercent) -> RequestMirrorPolicy {
        RequestMirrorPolicy {
            cluster: self.cluster(Some(destination)),
            runtime_fraction: Some(share),
            trace_sampled: Some(BoolValue { value: false }),
            disable_shadow_host_suffix_append: true,
            ..Default::default()
        }
    }

    /// `None` for a code that is no redirect's, which leaves the route without an action.
    fn redirect(&self, redirect: &HttpRedirect) -> Option<RedirectAction> {
        let scheme = match redirect.scheme.as_str() {
            "" if self.tls => "https",
            "" => "http",
            scheme => scheme,
        };
        let port = match redirect.redirect_port {
            Some(RedirectPort::Port(port)) => port,
            // Routes are made for one port, so the request's is known.
            Some(RedirectPort::DerivePort(RedirectPortSelection::FromRequestPort)) => self.port,
            Some(RedirectPort::DerivePort(RedirectPortSelection::FromProtocolDefault)) | None => 0,
        };
        let implied = matches!((port, scheme), (80, "http") | (443, "https"));
        let response_code = match redirect.redirect_code {
            0 | 301 => RedirectResponseCode::MovedPermanently,
            302 => RedirectResponseCode::Found,
            303 => RedirectResponseCode::SeeOther,
            307 => RedirectResponseCode::TemporaryRedirect,
            308 => RedirectResponseCode::PermanentRedirect,
            _ => return None,
        };
        Some(RedirectAction {
            host_redirect: redirect.authority.clone(),
            port_redirect: if implied { 0 } else { port },
            response_code: response_code.into(),
            scheme_rewrite_specifier: (!redirect.scheme.is_empty())
                .then(|| SchemeRewriteSpecifier::SchemeRedirect(redirect.scheme.clone())),
            path_rewrite_specifier: Some(match redirect.prefix_rewrite.as_str() {
                "" => PathRewriteSpecifier::PathRedirect(redirect.uri.clone()),
                prefix => PathRewriteSpecifier::PrefixRewrite(prefix.to_owned()),
            }),
            ..Default::default()
        })
    }
}

/// The route to a service that no VirtualService speaks of.
pub(crate) fn default_outbound_route(cluster: String, operation: String, mesh: &MeshConfig) -> Route {
    let mut action = RouteAction {
        retry_policy: retry::outbound(mesh.default_http_retry_policy.as_ref(), false),
        ..Default::default()
    };
    set_timeout(&mut action, None);
    default_route(cluster, operation, action)
}

/// The route from a sidecar to its own application. Retries do not go well with gRPC streams.
pub(crate) fn default_inbound_route(cluster: String, operation: String, grpc: bool) -> Route {
    let action = RouteAction {
        timeout: Some(no_time()),
        max_stream_duration: Some(maille_xds::types::route::route_action::MaxStreamDuration {
            max_stream_duration: Some(no_time()),
            grpc_timeout_header_max: Some(no_time()),
            grpc_timeout_header_offset: None,
        }),
        retry_policy: if grpc { None } else { retry::inbound(None) },
        ..Default::default()
    };
    default_route(cluster, operation, action)
}

/// A route that forwards everything to one cluster, without a limit in time.
pub(crate) fn forward_all(name: &str, cluster: String, append_x_forwarded_host: bool) -> Route {
    let mut action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster)),
        append_x_forwarded_host,
        ..Default::default()
    };
    set_timeout(&mut action, None);
    Route {
        name: name.to_owned(),
        r#match: Some(any_request()),
        action: Some(Action::Route(action)),
        ..Default::default()
    }
}

/// The cluster of a destination. Without a port it is the service's only one, else the listener's.
///
/// A host that nobody declared has a cluster name too: the proxy answers that there is no such cluster.
pub(crate) fn destination_cluster(destination: &Destination, service: Option<&Service>, listener_port: u32) -> String {
    let host = service.and_then(|service| service.external_name.as_deref()).unwrap_or(&destination.host);
    let port = match (&destination.port, service) {
        (Some(port), _) => port.number,
        (None, Some(service)) if service.ports.len() == 1 => service.ports[0].number,
        (None, _) => listener_port,
    };
    outbound_cluster(port, &destination.subset, host)
}

/// Whether a rule for these source labels and this namespace is for this proxy.
pub(crate) fn source_matches(
    proxy: &Proxy,
    labels: &std::collections::BTreeMap<String, String>,
    namespace: &str,
) -> bool {
    labels.iter().all(|(key, value)| proxy.labels.get(key) == Some(value))
        && (namespace.is_empty() || proxy.metadata.namespace.as_deref() == Some(namespace))
}

/// Routes that match everything go behind those of other VirtualServices for the same host; otherwise the order stays.
pub(crate) fn catch_all_last(routes: Vec<Route>) -> Vec<Route> {
    let (last, mut sorted): (Vec<_>, Vec<_>) = routes.into_iter().partition(is_catch_all);
    sorted.extend(last);
    sorted
}

fn default_route(cluster: String, operation: String, action: RouteAction) -> Route {
    Route {
        name: DEFAULT_ROUTE.to_owned(),
        r#match: Some(any_request()),
        decorator: Some(Decorator { operation, propagate: None }),
        action: Some(Action::Route(RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(cluster)),
            ..action
        })),
        ..Default::default()
    }
}

/// Zero is no limit; without it a gRPC client's own timeout would be ignored.
fn set_timeout(action: &mut RouteAction, timeout: Option<maille_xds::types::Duration>) {
    let timeout = timeout.unwrap_or_else(no_time);
    action.timeout = Some(timeout);
    // Deprecated, but its replacement treats streams differently.
    #[allow(deprecated)]
    {
        action.max_grpc_timeout = Some(timeout);
    }
}

fn mirror_share(http: &HttpRoute) -> Option<core::RuntimeFractionalPercent> {
    match (&http.mirror_percentage, http.mirror_percent) {
        (None, Some(0)) => None,
        (None, Some(percent)) => Some(share_of_requests(hundredths(percent))),
        (share, _) => positive_share(share.as_ref()),
    }
}

/// Everything when nothing is said; nothing when zero is.
fn positive_share(share: Option<&Percent>) -> Option<core::RuntimeFractionalPercent> {
    match share {
        Some(share) if share.value > 0.0 => Some(share_of_requests(millionths(share))),
        Some(_) => None,
        None => Some(share_of_requests(hundredths(100))),
    }
}

fn direct_response_body(body: &maille_api::networking::virtual_service::HttpBody) -> Option<core::DataSource> {
    use maille_api::networking::virtual_service::HttpBody;
    let specifier = match body {
        HttpBody::String(text) => core::data_source::Specifier::InlineString(text.clone()),
        HttpBody::Bytes(bytes) => core::data_source::Specifier::InlineBytes(bytes.0.clone()),
        HttpBody::Unset => return None,
    };
    Some(core::DataSource { specifier: Some(specifier), ..Default::default() })
}

/// What a route is called in traces: its destination, or its VirtualService when there are several, and the path.
fn operation(route: &Route, virtual_service: &str, port: u32) -> String {
    use maille_xds::types::route::route_match::PathSpecifier;
    let path = match route.r#match.as_ref().and_then(|RouteMatch { path_specifier, .. }| path_specifier.as_ref()) {
        Some(PathSpecifier::Prefix(prefix)) => format!("{prefix}*"),
        Some(PathSpecifier::Path(path)) => path.clone(),
        Some(PathSpecifier::SafeRegex(regex)) => regex.regex.clone(),
        _ => "/*".to_owned(),
    };
    if let Some(Action::Route(RouteAction { cluster_specifier: Some(ClusterSpecifier::Cluster(cluster)), .. })) =
        &route.action
        && let [_, port, _, host] = cluster.splitn(4, '|').collect::<Vec<_>>()[..]
    {
        return format!("{host}:{port}{path}");
    }
    format!("{virtual_service}:{port}{path}")
}
