//! What compiles but the running proxy cannot serve yet: refused by name until it can. This table only ever shrinks.

use std::time::Duration;

use crate::compile::Refused;
use crate::compile::at::At;
use crate::config::{
    Action, Cluster, Codec, Discovery, DownstreamTransport, FilterChain, Forward, HashOn, HeaderCase, HttpFilterKind,
    HttpManager, LbPolicy, Limits, Listener, ListenerFilterKind, LocalityLb, Network, Priority, RetryOn, Route,
    RouteSource, RouteTable, TcpDestination, UpstreamProtocol, UpstreamTransport,
};

/// The conditions for trying again that can be met on HTTP/1 and are: no connection, or one that closed before the request was sent.
/// The others of these never come up there: they are answers of gRPC and HTTP/2.
const RETRIES: u32 = RetryOn::CONNECT_FAILURE
    | RetryOn::RESET_BEFORE_REQUEST
    | RetryOn::REFUSED_STREAM
    | RetryOn::UNAVAILABLE
    | RetryOn::CANCELLED
    | RetryOn::RETRIABLE_STATUS_CODES;

/// What of a listener cannot be served.
pub fn listener(listener: &Listener) -> Vec<Refused> {
    let mut out = Found(Vec::new());
    let at = At::resource(&listener.name);
    for filter in &listener.filters {
        out.when(
            matches!(filter.kind, ListenerFilterKind::ProxyProtocol { .. }),
            &at,
            "listener_filters",
            "the PROXY protocol",
        );
    }
    for (i, chain) in listener.chains.iter().enumerate() {
        filter_chain(&mut out, &at.item("filter_chains", i), chain);
    }
    if let Some(chain) = &listener.default_chain {
        filter_chain(&mut out, &at.field("default_filter_chain"), chain);
    }
    out.0
}

/// What of a route table cannot be served.
pub fn routes(table: &RouteTable) -> Vec<Refused> {
    let mut out = Found(Vec::new());
    route_table(&mut out, &At::resource(&table.name), table);
    out.0
}

/// What of a cluster cannot be served.
pub fn cluster(cluster: &Cluster) -> Vec<Refused> {
    let mut out = Found(Vec::new());
    let at = &At::resource(&cluster.name);
    let is_tls = |transport: &UpstreamTransport| matches!(transport, UpstreamTransport::Tls(_));
    out.when(is_tls(&cluster.transport), at, "transport_socket", "TLS to upstreams");
    let dynamic = matches!(cluster.discovery, Discovery::DynamicForwardProxy(_));
    out.when(dynamic, at, "cluster_type", "a dynamic forward proxy");
    let hashing = matches!(cluster.lb, LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. });
    out.when(hashing, at, "lb_policy", "a consistent-hash balancer");
    let slow_start = match cluster.lb {
        LbPolicy::RoundRobin(slow_start) | LbPolicy::LeastRequest { slow_start, .. } => slow_start.window.is_some(),
        _ => false,
    };
    out.when(slow_start, at, "slow_start_config", "slow start");
    out.when(cluster.locality_lb != LocalityLb::None, at, "common_lb_config", "sharing by locality");
    let limited = |limits: &Limits| Limits { track_remaining: false, ..*limits } != Limits::NONE;
    // Without a word about high priority its limits are Envoy's defaults, which no route here can reach.
    out.when(limited(&cluster.limits), at, "circuit_breakers", "limits below 4294967295 (with that, there are none)");
    out.when(cluster.outlier.is_some(), at, "outlier_detection", "outlier detection");
    let http2 = matches!(cluster.http.protocol, UpstreamProtocol::Http2);
    out.when(http2, at, "typed_extension_protocol_options", "HTTP/2 to upstreams");
    let alpn = matches!(cluster.http.protocol, UpstreamProtocol::Alpn);
    out.when(alpn, at, "typed_extension_protocol_options", "a protocol agreed on by ALPN");
    let cases = cluster.http.http1.header_case != HeaderCase::Lower;
    out.when(cases, at, "header_key_format", "header names in another case than lower");
    let stream = cluster.http.max_stream_duration.is_some();
    out.when(stream, at, "max_stream_duration", "a limit on how long streams last");
    out.0
}

struct Found(Vec<Refused>);

impl Found {
    fn when(&mut self, unsupported: bool, at: &At<'_>, field: &str, what: &str) {
        if unsupported
            && let Err(refused) = at.field(field).refuse::<()>(format!("{what} cannot be served by this proxy yet"))
        {
            self.0.push(refused);
        }
    }
}

fn filter_chain(out: &mut Found, at: &At<'_>, chain: &FilterChain) {
    out.when(matches!(chain.transport, DownstreamTransport::Tls(_)), at, "transport_socket", "TLS from clients");
    match &chain.network {
        Network::Http(manager) => http_manager(out, at, manager),
        Network::Tcp(proxy) => {
            out.when(matches!(proxy.cluster, TcpDestination::Sni), at, "sni_cluster", "choosing a cluster by SNI");
            out.when(
                proxy.max_duration.is_some(),
                at,
                "max_downstream_connection_duration",
                "a limit on connections' lives",
            );
            out.when(proxy.hash_source_ip, at, "hash_policy", "hashing");
        }
        Network::Close => {}
    }
}

fn http_manager(out: &mut Found, at: &At<'_>, manager: &HttpManager) {
    out.when(manager.codec == Codec::Http2, at, "codec_type", "HTTP/2 only");
    out.when(manager.timeouts.request.is_some(), at, "request_timeout", "a timeout for receiving requests");
    let headers = manager.timeouts.request_headers.is_some();
    out.when(headers, at, "request_headers_timeout", "a timeout for receiving heads");
    let life = manager.timeouts.max_connection_duration.is_some();
    out.when(life, at, "max_connection_duration", "a limit on connections' lives");
    let stream = manager.timeouts.max_stream_duration.is_some();
    out.when(stream, at, "max_stream_duration", "a limit on how long streams last");
    let cases = manager.http1.header_case != HeaderCase::Lower;
    out.when(cases, at, "header_key_format", "header names in another case than lower");
    out.when(manager.http1.enable_trailers, at, "enable_trailers", "forwarding trailers");
    for filter in &manager.filters {
        match &filter.kind {
            HttpFilterKind::Fault(fault) => out.when(fault.is_some(), at, "http_filters", "faults"),
            HttpFilterKind::DynamicForwardProxy => out.when(true, at, "http_filters", "a dynamic forward proxy"),
            HttpFilterKind::Router(_) | HttpFilterKind::Cors | HttpFilterKind::GrpcStats => {}
        }
    }
    if let RouteSource::Inline(table) = &manager.routes {
        route_table(out, &at.field("route_config"), table);
    }
}

fn route_table(out: &mut Found, at: &At<'_>, table: &RouteTable) {
    for (i, host) in table.virtual_hosts.iter().enumerate() {
        let at = at.item("virtual_hosts", i);
        for (i, route) in host.routes.iter().enumerate() {
            one_route(out, &at.item("routes", i), route);
        }
    }
}

fn one_route(out: &mut Found, at: &At<'_>, route: &Route) {
    let per_filter = &at.field("typed_per_filter_config");
    out.when(route.cors.is_some(), per_filter, "cors", "a cross-origin policy");
    out.when(route.fault.is_some(), per_filter, "fault", "faults");
    if let Action::Forward(forward) = &route.action {
        forwarded(out, &at.field("route"), forward);
    }
}

fn forwarded(out: &mut Found, at: &At<'_>, forward: &Forward) {
    out.when(forward.timeout.is_some(), at, "timeout", "a timeout (0s is none)");
    out.when(forward.idle_timeout.is_some(), at, "idle_timeout", "an idle timeout of the route");
    let stream = matches!(forward.max_stream_duration, Some(Some(_)));
    out.when(stream, at, "max_stream_duration", "a limit on how long streams last");
    let grpc = forward.grpc_timeout.is_some_and(|grpc| grpc.offset != Duration::ZERO);
    out.when(grpc, at, "grpc_timeout_offset", "an offset for grpc-timeout");
    out.when(!forward.mirrors.is_empty(), at, "request_mirror_policies", "mirroring");
    out.when(forward.priority == Priority::High, at, "priority", "high priority");
    for policy in &forward.hash {
        let what = match policy.on {
            HashOn::Header(..) => "hashing a header",
            HashOn::Cookie { .. } => "hashing a cookie",
            HashOn::SourceIp => "hashing the client's address",
            HashOn::Query(_) => "hashing a query parameter",
        };
        out.when(true, at, "hash_policy", what);
    }
    if let Some(retry) = &forward.retry {
        let at = at.field("retry_policy");
        out.when(retry.on.0 & !RETRIES != 0, &at, "retry_on", "trying again for reasons beside a failed connection");
        out.when(!retry.status_codes.is_empty(), &at, "retriable_status_codes", "trying again for a status");
        out.when(retry.per_try_timeout.is_some(), &at, "per_try_timeout", "a timeout for one try");
        out.when(retry.per_try_idle_timeout.is_some(), &at, "per_try_idle_timeout", "an idle timeout for one try");
        out.when(!retry.headers.is_empty(), &at, "retriable_headers", "trying again for a header");
        out.when(
            !retry.request_headers.is_empty(),
            &at,
            "retriable_request_headers",
            "trying only some requests again",
        );
        out.when(retry.avoid_previous_priorities.is_some(), &at, "retry_priority", "another priority for the next try");
    }
}
