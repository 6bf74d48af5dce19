//! What routes do: forward, redirect, answer.

use std::sync::Arc;
use std::time::Duration;

use maille_xds::types::core::data_source::Specifier;
use maille_xds::types::core::{self, RoutingPriority};
use maille_xds::types::route::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};
use maille_xds::types::route::route::Action as ActionProto;
use maille_xds::types::route::route_action::{
    self, ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier, hash_policy, upgrade_config,
};
use maille_xds::types::route::weighted_cluster::{ClusterWeight, cluster_weight};
use maille_xds::types::route::{self as proto, retry_policy};
use maille_xds::types::{pb, previous_hosts};

use crate::compile::at::{At, Compiled, is_true, number, unset};
use crate::compile::matcher;
use crate::compile::route::{Mutations, Scope, level};
use crate::config::{
    Action, ClusterChoice, Destination, DirectResponse, Forward, Fraction, GrpcTimeout, HashOn, HashPolicy,
    HostRewrite, Mirror, PathRewrite, Priority, RateLimited, Redirect, ResetFormat, RetryOn, RetryPolicy, Upgrade,
    WeightedClusters,
};

/// How long a response may take when a route does not say.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The first pause between tries; the longest is ten times that.
const RETRY_PAUSE: Duration = Duration::from_millis(25);

/// The longest pause that a response may ask for.
const RATE_LIMITED_PAUSE: Duration = Duration::from_secs(300);

/// A route that answers by itself.
pub(crate) fn answer(at: &At<'_>, proto: &ActionProto, scope: &Scope<'_>) -> Compiled<Action> {
    match proto {
        ActionProto::Redirect(proto) => {
            redirect(&at.field("redirect"), proto).map(|redirect| Action::Redirect(Box::new(redirect)))
        }
        ActionProto::DirectResponse(proto) => {
            direct_response(&at.field("direct_response"), proto, scope.max_body).map(|d| Action::Respond(Box::new(d)))
        }
        ActionProto::Route(_) => at.field("route").refuse("forwards"),
        ActionProto::FilterAction(_) => at.field("filter_action").refuse("is not supported"),
        ActionProto::NonForwardingAction(_) => at.field("non_forwarding_action").refuse("is not supported"),
    }
}

/// A route that forwards.
pub(crate) fn forward(
    at: &At<'_>,
    proto: &proto::RouteAction,
    scope: &Scope<'_>,
    own: &Mutations,
) -> Compiled<Forward> {
    let proto::RouteAction {
        cluster_not_found_response_code,
        metadata_match,
        prefix_rewrite,
        regex_rewrite,
        path_rewrite_policy,
        path_rewrite,
        append_x_forwarded_host,
        timeout,
        idle_timeout,
        flush_timeout,
        early_data_policy,
        retry_policy,
        retry_policy_typed_config,
        request_mirror_policies,
        priority,
        rate_limits,
        include_vh_rate_limits,
        hash_policy,
        cors,
        max_grpc_timeout,
        grpc_timeout_offset,
        upgrade_configs,
        internal_redirect_policy,
        internal_redirect_action,
        max_internal_redirects,
        hedge_policy,
        max_stream_duration,
        cluster_specifier,
        host_rewrite_specifier,
    } = proto;
    unset!(at; metadata_match, path_rewrite_policy, path_rewrite, flush_timeout, early_data_policy);
    unset!(at; retry_policy_typed_config, rate_limits, include_vh_rate_limits, cors, internal_redirect_policy);
    unset!(at; internal_redirect_action, max_internal_redirects, hedge_policy);

    let path = match regex_rewrite {
        Some(_) if !prefix_rewrite.is_empty() => return at.refuse("prefix_rewrite and regex_rewrite are both set"),
        Some(rewrite) => PathRewrite::Regex(matcher::substitution(&at.field("regex_rewrite"), rewrite)?),
        None if prefix_rewrite.is_empty() => PathRewrite::None,
        None => PathRewrite::Matched(prefix_rewrite.as_bytes().into()),
    };
    let retry = match retry_policy.as_ref().or(scope.retry) {
        Some(proto) => retry(&at.field("retry_policy"), proto)?.map(Arc::new),
        None => None,
    };
    let mirrors = if request_mirror_policies.is_empty() { scope.mirrors } else { request_mirror_policies };
    let mirrors = mirrors.iter().enumerate().map(|(i, proto)| mirror(&at.item("request_mirror_policies", i), proto));
    let hash = hash_policy.iter().enumerate().map(|(i, proto)| hash(&at.item("hash_policy", i), proto));
    let upgrades = upgrade_configs.iter().enumerate().map(|(i, proto)| upgrade(&at.item("upgrade_configs", i), proto));

    let mut grpc_timeout =
        at.duration("max_grpc_timeout", max_grpc_timeout)?.map(|max| (max, grpc_timeout_offset, false));
    let mut max_duration = None;
    if let Some(proto) = max_stream_duration {
        let at = at.field("max_stream_duration");
        let route_action::MaxStreamDuration {
            max_stream_duration,
            grpc_timeout_header_max,
            grpc_timeout_header_offset,
        } = proto;
        max_duration = max_stream_duration.map(|_| at.timeout("max_stream_duration", max_stream_duration, None));
        if let Some(max) = at.duration("grpc_timeout_header_max", grpc_timeout_header_max)? {
            grpc_timeout = Some((max, grpc_timeout_header_offset, true));
        }
    }
    let grpc_timeout = grpc_timeout.map(|(max, offset, stream)| {
        let offset = at.duration("grpc_timeout_offset", offset)?.unwrap_or_default();
        Ok(GrpcTimeout { max, offset, stream })
    });
    Ok(Forward {
        cluster: cluster(at, at.required("cluster_specifier", cluster_specifier)?, scope, own)?,
        path,
        host: host(at, host_rewrite_specifier)?,
        append_forwarded_host: *append_x_forwarded_host,
        // Whoever limits streams limits nothing else, as Envoy has it.
        timeout: match max_stream_duration {
            Some(_) => None,
            None => at.timeout("timeout", timeout, Some(TIMEOUT))?,
        },
        idle_timeout: idle_timeout.map(|_| at.timeout("idle_timeout", idle_timeout, None)).transpose()?,
        max_stream_duration: max_duration.transpose()?,
        grpc_timeout: grpc_timeout.transpose()?,
        retry,
        hash: hash.collect::<Compiled<_>>()?,
        mirrors: mirrors.collect::<Compiled<_>>()?,
        priority: match at.one_of("priority", *priority)? {
            RoutingPriority::Default => Priority::Default,
            RoutingPriority::High => Priority::High,
        },
        upgrades: upgrades.collect::<Compiled<_>>()?,
        cluster_not_found: match at.one_of("cluster_not_found_response_code", *cluster_not_found_response_code)? {
            ClusterNotFoundResponseCode::ServiceUnavailable => 503,
            ClusterNotFoundResponseCode::NotFound => 404,
            ClusterNotFoundResponseCode::InternalServerError => 500,
        },
    })
}

fn cluster(at: &At<'_>, proto: &ClusterSpecifier, scope: &Scope<'_>, own: &Mutations) -> Compiled<ClusterChoice> {
    let destination = |name: &str| {
        let (request, response) = scope.mutations(None, own);
        Destination { cluster: name.into(), request, response, host: None }
    };
    match proto {
        ClusterSpecifier::Cluster(name) => Ok(ClusterChoice::One(destination(at.text("cluster", name)?))),
        ClusterSpecifier::ClusterHeader(header) => {
            Ok(ClusterChoice::Header(matcher::header_name(at, "cluster_header", header)?, destination("")))
        }
        ClusterSpecifier::WeightedClusters(proto) => {
            weighted(&at.field("weighted_clusters"), proto, scope, own).map(ClusterChoice::Weighted)
        }
        ClusterSpecifier::ClusterSpecifierPlugin(_) | ClusterSpecifier::InlineClusterSpecifierPlugin(_) => {
            at.field("cluster_specifier_plugin").refuse("is not supported")
        }
    }
}

fn weighted(
    at: &At<'_>,
    proto: &proto::WeightedCluster,
    scope: &Scope<'_>,
    own: &Mutations,
) -> Compiled<WeightedClusters> {
    // The total is what the weights add up to; Envoy ignores the field as well.
    let proto::WeightedCluster { clusters, total_weight: _, runtime_key_prefix: _, random_value_specifier } = proto;
    unset!(at; random_value_specifier);
    let mut shares = Vec::with_capacity(clusters.len());
    for (i, proto) in clusters.iter().enumerate() {
        let at = at.item("clusters", i);
        let ClusterWeight {
            name,
            cluster_header,
            weight,
            metadata_match,
            request_headers_to_add,
            request_headers_to_remove,
            response_headers_to_add,
            response_headers_to_remove,
            typed_per_filter_config,
            host_rewrite_specifier,
        } = proto;
        unset!(at; cluster_header, metadata_match, typed_per_filter_config);
        let first = Mutations {
            request: level(&at, "request_headers_to", request_headers_to_add, request_headers_to_remove)?,
            response: level(&at, "response_headers_to", response_headers_to_add, response_headers_to_remove)?,
        };
        let (request, response) = scope.mutations(Some(&first), own);
        let host = host_rewrite_specifier
            .as_ref()
            .map(|cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host)| host.as_str().into());
        let destination = Destination { cluster: at.text("name", name)?.into(), request, response, host };
        shares.push((number(weight).unwrap_or(0), destination));
    }
    match WeightedClusters::new(shares) {
        Some(clusters) => Ok(clusters),
        None => at.field("clusters").refuse("the weights add up to nothing"),
    }
}

fn host(at: &At<'_>, proto: &Option<HostRewriteSpecifier>) -> Compiled<HostRewrite> {
    Ok(match proto {
        None => HostRewrite::None,
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) if host.is_empty() => HostRewrite::None,
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => HostRewrite::Literal(host.as_str().into()),
        Some(HostRewriteSpecifier::AutoHostRewrite(auto)) if !auto.value => HostRewrite::None,
        Some(HostRewriteSpecifier::AutoHostRewrite(_)) => HostRewrite::Auto,
        Some(HostRewriteSpecifier::HostRewriteHeader(name)) => {
            HostRewrite::Header(matcher::header_name(at, "host_rewrite_header", name)?)
        }
        Some(HostRewriteSpecifier::HostRewritePathRegex(rewrite)) => {
            HostRewrite::PathRegex(matcher::substitution(&at.field("host_rewrite_path_regex"), rewrite)?)
        }
        Some(HostRewriteSpecifier::HostRewrite(_)) => return at.field("host_rewrite").refuse("is not supported"),
    })
}

fn retry(at: &At<'_>, proto: &proto::RetryPolicy) -> Compiled<Option<RetryPolicy>> {
    let proto::RetryPolicy {
        retry_on,
        num_retries,
        per_try_timeout,
        per_try_idle_timeout,
        retry_priority,
        retry_host_predicate,
        retry_options_predicates,
        host_selection_retry_max_attempts,
        retriable_status_codes,
        retry_back_off,
        rate_limited_retry_back_off,
        retriable_headers,
        retriable_request_headers,
        refresh_cluster_on_retry,
    } = proto;
    unset!(at; retry_options_predicates, refresh_cluster_on_retry);
    let mut on = RetryOn::default();
    // Envoy, too, disregards words it does not know: they may be another version's.
    for word in retry_on.split(',') {
        on.0 |= RetryOn::named(word.trim());
    }
    let previous_hosts = previous_hosts_predicate(at, retry_host_predicate)?;
    let (base, max) = match retry_back_off {
        None => (RETRY_PAUSE, None),
        Some(retry_policy::RetryBackOff { base_interval, max_interval }) => {
            let at = at.field("retry_back_off");
            let base = at.duration("base_interval", base_interval)?.unwrap_or(RETRY_PAUSE);
            // Envoy's clock has no finer steps.
            (base.max(Duration::from_millis(1)), at.duration("max_interval", max_interval)?)
        }
    };
    if max.is_some_and(|max| max < base) {
        return at.field("retry_back_off").refuse("max_interval is less than base_interval");
    }
    let policy = RetryPolicy {
        on,
        max: number(num_retries).unwrap_or(1),
        per_try_timeout: at.timeout("per_try_timeout", per_try_timeout, None)?,
        per_try_idle_timeout: at.timeout("per_try_idle_timeout", per_try_idle_timeout, None)?,
        avoid_previous_hosts: previous_hosts,
        avoid_previous_priorities: previous_priorities(at, retry_priority)?,
        host_selection_attempts: u32::try_from(*host_selection_retry_max_attempts).unwrap_or(0).max(1),
        status_codes: retriable_status_codes.clone(),
        headers: matcher::headers(at, "retriable_headers", retriable_headers)?,
        request_headers: matcher::headers(at, "retriable_request_headers", retriable_request_headers)?,
        backoff_base: base,
        backoff_max: max.unwrap_or(base.saturating_mul(10)),
        rate_limited: rate_limited(at, rate_limited_retry_back_off)?,
    };
    Ok(Some(policy))
}

fn rate_limited(at: &At<'_>, proto: &Option<retry_policy::RateLimitedRetryBackOff>) -> Compiled<Option<RateLimited>> {
    use retry_policy::ResetHeaderFormat;
    let Some(retry_policy::RateLimitedRetryBackOff { reset_headers, max_interval }) = proto else { return Ok(None) };
    let at = at.field("rate_limited_retry_back_off");
    let mut headers = Vec::with_capacity(reset_headers.len());
    for (i, retry_policy::ResetHeader { name, format }) in reset_headers.iter().enumerate() {
        let at = at.item("reset_headers", i);
        let format = match at.one_of("format", *format)? {
            ResetHeaderFormat::Seconds => ResetFormat::Seconds,
            ResetHeaderFormat::UnixTimestamp => ResetFormat::UnixTimestamp,
        };
        headers.push((matcher::header_name(&at, "name", name)?, format));
    }
    let max = at.duration("max_interval", max_interval)?.unwrap_or(RATE_LIMITED_PAUSE);
    Ok(Some(RateLimited { headers, max }))
}

fn previous_hosts_predicate(at: &At<'_>, protos: &[retry_policy::RetryHostPredicate]) -> Compiled<bool> {
    for (i, proto) in protos.iter().enumerate() {
        let at = at.item("retry_host_predicate", i);
        let retry_policy::RetryHostPredicate { name, config_type } = proto;
        let known = match config_type {
            Some(retry_policy::retry_host_predicate::ConfigType::TypedConfig(any)) => {
                at.unpack::<previous_hosts::PreviousHostsPredicate>(any)?.is_some()
            }
            None => name == "envoy.retry_host_predicates.previous_hosts",
        };
        if !known {
            return at.refuse(format!("{name:?} is not supported: only previous_hosts is"));
        }
    }
    Ok(!protos.is_empty())
}

fn previous_priorities(at: &At<'_>, proto: &Option<retry_policy::RetryPriority>) -> Compiled<Option<u32>> {
    use pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
    let Some(retry_policy::RetryPriority { name, config_type }) = proto else { return Ok(None) };
    let at = at.field("retry_priority");
    let Some(retry_policy::retry_priority::ConfigType::TypedConfig(any)) = config_type else {
        return at.field("typed_config").refuse("is missing");
    };
    match at.unpack::<PreviousPrioritiesConfig>(any)? {
        Some(PreviousPrioritiesConfig { update_frequency }) => Ok(Some(u32::try_from(update_frequency).unwrap_or(0))),
        None => at.refuse(format!("{name:?} is not supported: only previous_priorities is")),
    }
}

fn mirror(at: &At<'_>, proto: &route_action::RequestMirrorPolicy) -> Compiled<Mirror> {
    let route_action::RequestMirrorPolicy {
        cluster,
        cluster_header,
        runtime_fraction,
        trace_sampled: _,
        disable_shadow_host_suffix_append,
        request_headers_mutations,
        host_rewrite_literal,
    } = proto;
    unset!(at; cluster_header, request_headers_mutations, host_rewrite_literal);
    let fraction = match runtime_fraction {
        Some(proto) => matcher::runtime_fraction(&at.field("runtime_fraction"), proto)?,
        None => Fraction { numerator: 100, denominator: 100 },
    };
    Ok(Mirror {
        cluster: at.text("cluster", cluster)?.into(),
        fraction,
        host_suffix: !disable_shadow_host_suffix_append,
    })
}

fn hash(at: &At<'_>, proto: &route_action::HashPolicy) -> Compiled<HashPolicy> {
    use hash_policy::PolicySpecifier;
    let route_action::HashPolicy { terminal, policy_specifier } = proto;
    let on = match at.required("policy_specifier", policy_specifier)? {
        PolicySpecifier::Header(hash_policy::Header { header_name, regex_rewrite }) => {
            let rewrite = regex_rewrite.as_ref().map(|r| matcher::substitution(&at.field("regex_rewrite"), r));
            HashOn::Header(matcher::header_name(at, "header_name", header_name)?, rewrite.transpose()?)
        }
        PolicySpecifier::Cookie(hash_policy::Cookie { name, ttl, path, attributes }) => HashOn::Cookie {
            name: at.text("name", name)?.into(),
            ttl: at.duration("ttl", ttl)?,
            path: path.as_str().into(),
            attributes: attributes.iter().map(|a| (a.name.as_str().into(), a.value.as_str().into())).collect(),
        },
        PolicySpecifier::ConnectionProperties(hash_policy::ConnectionProperties { source_ip: true }) => {
            HashOn::SourceIp
        }
        PolicySpecifier::ConnectionProperties(_) => return at.refuse("connection_properties hashes nothing"),
        PolicySpecifier::QueryParameter(hash_policy::QueryParameter { name }) => {
            HashOn::Query(at.text("name", name)?.into())
        }
        PolicySpecifier::FilterState(_) => return at.field("filter_state").refuse("is not supported"),
    };
    Ok(HashPolicy { on, terminal: *terminal })
}

fn upgrade(at: &At<'_>, proto: &route_action::UpgradeConfig) -> Compiled<Upgrade> {
    let route_action::UpgradeConfig { upgrade_type, enabled, connect_config } = proto;
    if let Some(upgrade_config::ConnectConfig { proxy_protocol_config, allow_post }) = connect_config {
        let at = at.field("connect_config");
        unset!(at; proxy_protocol_config, allow_post);
        if !upgrade_type.eq_ignore_ascii_case("connect") {
            return at.refuse(format!("only CONNECT can end here, not {upgrade_type}"));
        }
    }
    Ok(Upgrade {
        kind: upgrade_type.to_ascii_lowercase().into(),
        enabled: enabled.is_none() || is_true(enabled),
        ends: connect_config.is_some(),
    })
}

fn redirect(at: &At<'_>, proto: &proto::RedirectAction) -> Compiled<Redirect> {
    let proto::RedirectAction {
        host_redirect,
        port_redirect,
        response_code,
        strip_query,
        scheme_rewrite_specifier,
        path_rewrite_specifier,
    } = proto;
    let path = match path_rewrite_specifier {
        None => PathRewrite::None,
        Some(PathRewriteSpecifier::PathRedirect(path) | PathRewriteSpecifier::PrefixRewrite(path))
            if path.is_empty() =>
        {
            PathRewrite::None
        }
        Some(PathRewriteSpecifier::PathRedirect(path)) => PathRewrite::Full(path.as_bytes().into()),
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => PathRewrite::Matched(prefix.as_bytes().into()),
        Some(PathRewriteSpecifier::RegexRewrite(rewrite)) => {
            PathRewrite::Regex(matcher::substitution(&at.field("regex_rewrite"), rewrite)?)
        }
        Some(PathRewriteSpecifier::PathRewrite(_)) => return at.field("path_rewrite").refuse("is not supported"),
    };
    Ok(Redirect {
        status: match at.one_of("response_code", *response_code)? {
            RedirectResponseCode::MovedPermanently => 301,
            RedirectResponseCode::Found => 302,
            RedirectResponseCode::SeeOther => 303,
            RedirectResponseCode::TemporaryRedirect => 307,
            RedirectResponseCode::PermanentRedirect => 308,
        },
        scheme: match scheme_rewrite_specifier {
            None | Some(SchemeRewriteSpecifier::HttpsRedirect(false)) => None,
            Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".into()),
            Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => {
                (!scheme.is_empty()).then(|| scheme.as_str().into())
            }
        },
        host: (!host_redirect.is_empty()).then(|| host_redirect.as_str().into()),
        port: match u16::try_from(*port_redirect) {
            Ok(0) => None,
            Ok(port) => Some(port),
            Err(_) => return at.field("port_redirect").refuse(format!("{port_redirect} is no port")),
        },
        path,
        strip_query: *strip_query,
    })
}

fn direct_response(at: &At<'_>, proto: &proto::DirectResponseAction, max_body: u32) -> Compiled<DirectResponse> {
    let proto::DirectResponseAction { status, body, body_format } = proto;
    unset!(at; body_format);
    if !(200..600).contains(status) {
        return at.field("status").refuse(format!("{status} is no status of a response"));
    }
    let body: Arc<[u8]> = match body {
        None => Arc::default(),
        Some(core::DataSource { watched_directory: None, specifier: Some(Specifier::InlineString(text)) }) => {
            text.as_bytes().into()
        }
        Some(core::DataSource { watched_directory: None, specifier: Some(Specifier::InlineBytes(bytes)) }) => {
            bytes.as_slice().into()
        }
        Some(_) => return at.field("body").refuse("must be inline"),
    };
    if body.len() > max_body as usize {
        return at.field("body").refuse(format!(
            "has {} bytes, more than the {max_body} that max_direct_response_body_size_bytes allows",
            body.len()
        ));
    }
    Ok(DirectResponse { status: *status as u16, body })
}
