//! HTTP filters, and what routes say about them: one table of what is built in.

use std::collections::HashMap;
use std::sync::Arc;

use maille_xds::types::cors::{Cors, CorsPolicy as CorsProto};
use maille_xds::types::fault::{FaultAbort as AbortProto, HttpFault, fault_abort};
use maille_xds::types::grpc_stats;
use maille_xds::types::hcm::{self, http_filter};
use maille_xds::types::istio::StatsConfig;
use maille_xds::types::pb::envoy::extensions::filters::common::fault::v3::{FaultDelay, fault_delay};
use maille_xds::types::pb::envoy::extensions::filters::http::dynamic_forward_proxy::v3 as dynamic_forward_proxy;
use maille_xds::types::pb::envoy::extensions::filters::http::ext_authz::v3 as ext_authz_filter;
use maille_xds::types::pb::envoy::extensions::filters::http::jwt_authn::v3 as jwt_authn;
use maille_xds::types::pb::envoy::extensions::filters::http::rbac::v3 as rbac_filter;
use maille_xds::types::router::Router;
use maille_xds::types::{Any, BoolValue};

use crate::compile::at::{At, Compiled, is_true, number, unset};
use crate::compile::{ext_authz, jwt, matcher, rbac};
use crate::config::{
    CorsPolicy, Fault, FaultAbort, FaultDelay as FaultWait, Fraction, HttpFilter, HttpFilterKind, IstioStats,
    RouterOptions,
};

/// The filter configuration of a route, a virtual host or a table.
#[derive(Clone, Default)]
pub(crate) struct PerFilter {
    pub(crate) cors: Option<Arc<CorsPolicy>>,
    pub(crate) fault: Option<Arc<Fault>>,
}

impl PerFilter {
    /// What is not said here is said by the wider place.
    pub(crate) fn or(self, wider: &PerFilter) -> PerFilter {
        PerFilter { cors: self.cors.or_else(|| wider.cors.clone()), fault: self.fault.or_else(|| wider.fault.clone()) }
    }
}

pub(crate) fn per_filter(at: &At<'_>, protos: &HashMap<String, Any>) -> Compiled<PerFilter> {
    let mut out = PerFilter::default();
    for (name, any) in protos {
        let at = at.field("typed_per_filter_config");
        let at = at.field(name);
        if let Some(proto) = at.unpack::<CorsProto>(any)? {
            out.cors = Some(Arc::new(cors(&at, &proto)?));
        } else if let Some(proto) = at.unpack::<HttpFault>(any)? {
            out.fault = Some(Arc::new(fault(&at, &proto)?));
        } else {
            return at.refuse(format!("{} is no filter configuration we have", any.type_url));
        }
    }
    Ok(out)
}

pub(crate) fn http_filters(at: &At<'_>, protos: &[hcm::HttpFilter]) -> Compiled<Vec<HttpFilter>> {
    let mut filters = Vec::new();
    for (i, proto) in protos.iter().enumerate() {
        let at = at.item("http_filters", i);
        let is_last = i + 1 == protos.len();
        filters.extend(http_filter(&at, proto, is_last)?);
    }
    match filters.last() {
        Some(HttpFilter { kind: HttpFilterKind::Router(_), .. }) => Ok(filters),
        _ => at.field("http_filters").refuse("must end with the router"),
    }
}

fn http_filter(at: &At<'_>, proto: &hcm::HttpFilter, is_last: bool) -> Compiled<Option<HttpFilter>> {
    let hcm::HttpFilter { name, is_optional, disabled, config_type } = proto;
    unset!(at; disabled);
    let any = match config_type {
        Some(http_filter::ConfigType::TypedConfig(any)) => any,
        Some(http_filter::ConfigType::ConfigDiscovery(_)) => {
            return at.field("config_discovery").refuse("is not supported");
        }
        None => return at.field("typed_config").refuse("is missing"),
    };
    let typed = at.field("typed_config");
    let kind = if let Some(proto) = typed.unpack::<Router>(any)? {
        if !is_last {
            return at.refuse("the router must be the last filter");
        }
        HttpFilterKind::Router(router(&typed, &proto)?)
    } else if let Some(Cors {}) = typed.unpack(any)? {
        HttpFilterKind::Cors
    } else if let Some(proto) = typed.unpack::<HttpFault>(any)? {
        let is_empty = proto.delay.is_none() && proto.abort.is_none();
        let fault = fault(&typed, &proto)?;
        HttpFilterKind::Fault((!is_empty).then(|| Arc::new(fault)))
    } else if let Some(proto) = typed.unpack::<grpc_stats::FilterConfig>(any)? {
        // What it emits are metrics and filter state for metrics: nothing that a request could notice.
        let grpc_stats::FilterConfig {
            emit_filter_state: _,
            enable_upstream_stats: _,
            replace_dots_in_grpc_service_name: _,
            per_method_stat_specifier: _,
        } = proto;
        HttpFilterKind::GrpcStats
    } else if let Some(proto) = typed.unpack::<StatsConfig>(any)? {
        HttpFilterKind::IstioStats(istio_stats(&typed, &proto)?)
    } else if typed.unpack::<dynamic_forward_proxy::FilterConfig>(any)?.is_some() {
        HttpFilterKind::DynamicForwardProxy
    } else if let Some(proto) = typed.unpack::<rbac_filter::Rbac>(any)? {
        HttpFilterKind::Rbac(Arc::new(rbac::http(&typed, &proto)?))
    } else if let Some(proto) = typed.unpack::<jwt_authn::JwtAuthentication>(any)? {
        HttpFilterKind::Jwt(Arc::new(jwt::filter(&typed, &proto)?))
    } else if let Some(proto) = typed.unpack::<ext_authz_filter::ExtAuthz>(any)? {
        HttpFilterKind::ExtAuthz(Arc::new(ext_authz::filter(&typed, &proto)?))
    } else if *is_optional {
        return Ok(None);
    } else {
        return typed.refuse(format!("{} is no HTTP filter we have", any.type_url));
    };
    Ok(Some(HttpFilter { name: at.text("name", name)?.into(), kind }))
}

/// Istio's standard metrics as they are; changes of them are another matter.
pub(crate) fn istio_stats(at: &At<'_>, proto: &StatsConfig) -> Compiled<IstioStats> {
    let StatsConfig {
        disable_host_header_fallback,
        // The bytes of a connection are counted as they pass.
        tcp_reporting_duration: _,
        metrics,
        definitions,
        reporter,
    } = proto;
    unset!(at; metrics, definitions);
    Ok(IstioStats { host_fallback: !disable_host_header_fallback, as_server: *reporter == 1 })
}

fn router(at: &At<'_>, proto: &Router) -> Compiled<RouterOptions> {
    let Router {
        // Metrics.
        dynamic_stats: _,
        suppress_grpc_request_failure_code_stats: _,
        // Spans: there is no tracer to send them to.
        start_child_span: _,
        upstream_log,
        upstream_log_options: _,
        suppress_envoy_headers,
        strict_check_headers,
        respect_expected_rq_timeout,
        upstream_http_filters,
        reject_connect_request_early_data,
    } = proto;
    unset!(at; upstream_log, strict_check_headers, upstream_http_filters, reject_connect_request_early_data);
    Ok(RouterOptions {
        suppress_envoy_headers: *suppress_envoy_headers,
        respect_expected_rq_timeout: *respect_expected_rq_timeout,
    })
}

fn cors(at: &At<'_>, proto: &CorsProto) -> Compiled<CorsPolicy> {
    let CorsProto {
        allow_origin_string_match,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        filter_enabled,
        shadow_enabled,
        allow_private_network_access,
        forward_not_matching_preflights,
    } = proto;
    unset!(at; shadow_enabled);
    let origins = allow_origin_string_match.iter().enumerate();
    let origins = origins.map(|(i, proto)| matcher::string(&at.item("allow_origin_string_match", i), proto));
    let enabled = match filter_enabled {
        Some(proto) => matcher::runtime_fraction(&at.field("filter_enabled"), proto)?,
        None => Fraction { numerator: 100, denominator: 100 },
    };
    Ok(CorsPolicy {
        origins: origins.collect::<Compiled<_>>()?,
        methods: allow_methods.as_str().into(),
        headers: allow_headers.as_str().into(),
        expose: expose_headers.as_str().into(),
        max_age: max_age.as_str().into(),
        credentials: is_true(allow_credentials),
        forward_not_matching_preflights: !matches!(forward_not_matching_preflights, Some(BoolValue { value: false })),
        private_network: is_true(allow_private_network_access),
        enabled,
    })
}

fn fault(at: &At<'_>, proto: &HttpFault) -> Compiled<Fault> {
    let HttpFault {
        delay,
        abort,
        upstream_cluster,
        headers,
        downstream_nodes,
        max_active_faults,
        response_rate_limit,
        // Runtime overrides do not exist here.
        delay_percent_runtime: _,
        abort_percent_runtime: _,
        delay_duration_runtime: _,
        abort_http_status_runtime: _,
        max_active_faults_runtime: _,
        response_rate_limit_percent_runtime: _,
        abort_grpc_status_runtime: _,
        // Metrics and logs.
        disable_downstream_cluster_stats: _,
        filter_metadata: _,
    } = proto;
    unset!(at; upstream_cluster, downstream_nodes, response_rate_limit);
    let delay = delay.as_ref().map(|proto| {
        let at = at.field("delay");
        let FaultDelay { percentage, fault_delay_secifier } = proto;
        let pause = match at.required("fault_delay_secifier", fault_delay_secifier)? {
            fault_delay::FaultDelaySecifier::FixedDelay(fixed) => {
                FaultWait::Fixed(at.duration("fixed_delay", &Some(*fixed))?.unwrap_or_default())
            }
            fault_delay::FaultDelaySecifier::HeaderDelay(_) => FaultWait::Header,
        };
        Ok((pause, percentage_of(&at, percentage)?))
    });
    let abort = abort.as_ref().map(|proto| {
        let at = at.field("abort");
        let AbortProto { percentage, response_body, error_type } = proto;
        unset!(at; response_body);
        let answer = match at.required("error_type", error_type)? {
            fault_abort::ErrorType::HttpStatus(status @ 200..600) => FaultAbort::Http(*status as u16),
            fault_abort::ErrorType::HttpStatus(status) => {
                return at.field("http_status").refuse(format!("{status} is no status of a response"));
            }
            fault_abort::ErrorType::GrpcStatus(status) => FaultAbort::Grpc(*status),
            fault_abort::ErrorType::HeaderAbort(_) => FaultAbort::Header,
        };
        Ok((answer, percentage_of(&at, percentage)?))
    });
    Ok(Fault {
        delay: delay.transpose()?,
        abort: abort.transpose()?,
        headers: matcher::headers(at, "headers", headers)?,
        max_active: number(max_active_faults),
    })
}

/// No percentage is no fault.
fn percentage_of(at: &At<'_>, proto: &Option<maille_xds::types::kind::FractionalPercent>) -> Compiled<Fraction> {
    match proto {
        Some(proto) => matcher::fraction(&at.field("percentage"), proto),
        None => Ok(Fraction { numerator: 0, denominator: 100 }),
    }
}
