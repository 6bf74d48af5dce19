//! Clusters and endpoints in few lines: what is set, and nothing of what is not.

use std::fmt::{Debug, Write};

use maille_xds::types::cluster::Cluster;
use maille_xds::types::cluster::cluster::{ClusterDiscoveryType, DiscoveryType};
use maille_xds::types::core::{TransportSocket, address, transport_socket};
use maille_xds::types::endpoint::lb_endpoint::HostIdentifier;
use maille_xds::types::endpoint::{ClusterLoadAssignment, LocalityLbEndpoints};
use maille_xds::types::proxy_protocol_upstream::ProxyProtocolUpstreamTransport;
use maille_xds::types::tls::UpstreamTlsContext;
use maille_xds::types::upstream_http::HttpProtocolOptions;
use maille_xds::types::upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig;
use maille_xds::types::upstream_http::http_protocol_options::{ExplicitHttpConfig, UpstreamProtocolOptions};
use maille_xds::types::{Any, Struct, Value, ValueKind, unpack};
use maille_xds::{TypeUrl, World};

use crate::case::Case;

/// Warnings first, then the world of each proxy.
pub(crate) fn worlds(case: &Case) -> String {
    let mut text = String::new();
    for warning in case.snapshot().warnings() {
        let _ = writeln!(text, "warning {warning}");
    }
    for (proxy, world) in case.worlds() {
        let _ = writeln!(text, "\n=== {}", proxy.id);
        write_world(&mut text, &world);
    }
    text
}

fn write_world(text: &mut String, world: &World) {
    for resource in world.of(TypeUrl::Cluster).values() {
        let cluster: Cluster = resource.decode().expect("cluster");
        write_cluster(text, &cluster);
        if let Some(resource) = world.get(TypeUrl::Endpoint, &cluster.name) {
            let assignment: ClusterLoadAssignment = resource.decode().expect("endpoints");
            write_endpoints(text, &assignment.endpoints);
        }
    }
    if let Some(resource) = world.get(TypeUrl::Endpoint, "local_cluster") {
        let assignment: ClusterLoadAssignment = resource.decode().expect("endpoints");
        let _ = writeln!(text, "local_cluster");
        write_endpoints(text, &assignment.endpoints);
    }
}

fn write_cluster(text: &mut String, cluster: &Cluster) {
    let discovery = match &cluster.cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(number)) => DiscoveryType::try_from(*number).expect("type").as_str_name(),
        Some(ClusterDiscoveryType::ClusterType(custom)) => custom.name.as_str(),
        None => "?",
    };
    let _ = writeln!(text, "{} {discovery} {}", cluster.name, cluster.lb_policy().as_str_name());
    let mut line = |name: &str, value: String| {
        if !value.is_empty() && value != "None" {
            let _ = writeln!(text, "  {name}: {value}");
        }
    };
    if cluster.alt_stat_name != format!("{};", cluster.name) {
        line("stats", cluster.alt_stat_name.clone());
    }
    line("lb", brief(&cluster.lb_config));
    line("common lb", brief(&cluster.common_lb_config).replace("CommonLbConfig { healthy_panic_threshold: 0 }", ""));
    line("limits", limits(cluster));
    line("outliers", brief(&cluster.outlier_detection));
    line("connection", brief(&cluster.upstream_connection_options));
    line("bind", brief(&cluster.upstream_bind_config));
    if cluster.connect_timeout.as_ref().is_none_or(|timeout| timeout.seconds != 10) {
        line("connect timeout", brief(&cluster.connect_timeout));
    }
    for options in cluster.typed_extension_protocol_options.values() {
        line("http", brief(&unpack::<HttpProtocolOptions>(options).expect("options").expect("bytes")));
    }
    if let Some(socket) = &cluster.transport_socket {
        line("socket", transport(socket));
    }
    let metadata = cluster.metadata.iter().flat_map(|metadata| metadata.filter_metadata.get("istio"));
    line("istio", metadata.map(fields).collect());
    if let Some(assignment) = &cluster.load_assignment {
        write_endpoints(text, &assignment.endpoints);
    }
}

fn limits(cluster: &Cluster) -> String {
    let text = brief(&cluster.circuit_breakers);
    let unlimited = "CircuitBreakers { thresholds: [ Thresholds { max_connections: 4294967295, \
        max_pending_requests: 4294967295, max_requests: 4294967295, max_retries: 4294967295, track_remaining: true } ] }";
    if text == unlimited { String::new() } else { text }
}

fn transport(socket: &TransportSocket) -> String {
    let Some(transport_socket::ConfigType::TypedConfig(config)) = &socket.config_type else { return String::new() };
    let known = |config: &Any| {
        if let Some(Ok(tls)) = unpack::<UpstreamTlsContext>(config) {
            return brief(&tls);
        }
        if let Some(Ok(outer)) = unpack::<ProxyProtocolUpstreamTransport>(config) {
            let inner = outer.transport_socket.as_ref().map(transport).unwrap_or_default();
            return format!("{} {inner}", brief(&outer.config));
        }
        String::new()
    };
    format!("{} {}", socket.name, known(config))
}

/// `name=value` in the order of names.
fn fields(values: &Struct) -> String {
    let mut fields: Vec<String> =
        values.fields.iter().map(|(name, value)| format!("{name}={}", plain(value))).collect();
    fields.sort();
    fields.join(" ")
}

fn plain(value: &Value) -> String {
    match &value.kind {
        Some(ValueKind::StringValue(text)) => text.clone(),
        Some(ValueKind::BoolValue(value)) => value.to_string(),
        Some(ValueKind::StructValue(values)) => format!("{{{}}}", fields(values)),
        Some(ValueKind::ListValue(list)) => {
            format!("[{}]", list.values.iter().map(plain).collect::<Vec<_>>().join(", "))
        }
        other => format!("{other:?}"),
    }
}

fn write_endpoints(text: &mut String, groups: &[LocalityLbEndpoints]) {
    for group in groups {
        let locality = group.locality.as_ref().map(|l| format!("{}/{}/{}", l.region, l.zone, l.sub_zone));
        let weight = group.load_balancing_weight.as_ref().map_or(0, |weight| weight.value);
        let _ = write!(text, "  @{} priority {} weight {weight}:", locality.unwrap_or_default(), group.priority);
        for endpoint in &group.lb_endpoints {
            let Some(HostIdentifier::Endpoint(inner)) = &endpoint.host_identifier else { continue };
            let address = match inner.address.as_ref().and_then(|address| address.address.as_ref()) {
                Some(address::Address::SocketAddress(socket)) => {
                    let port = match &socket.port_specifier {
                        Some(maille_xds::types::core::socket_address::PortSpecifier::PortValue(port)) => *port,
                        _ => 0,
                    };
                    format!("{}:{port}", socket.address)
                }
                Some(address::Address::Pipe(pipe)) => pipe.path.clone(),
                other => format!("{other:?}"),
            };
            let weight = endpoint.load_balancing_weight.as_ref().map_or(0, |weight| weight.value);
            let _ = write!(text, " {address}*{weight}");
        }
        text.push('\n');
    }
}

/// Rust's own form of a message on one line, without the fields that are not set.
pub(crate) fn brief(value: &impl Debug) -> String {
    let unset = ["None,", "[],", "\"\",", "0,", "false,", "{},", "0.0,"];
    let debug = format!("{value:#?}");
    let defaults = ["priority: Default,", "headers_with_underscores_action: Allow,", "hash_function: XxHash,"];
    let kept = debug.lines().map(str::trim).filter(|line| {
        let value = line.split_once(": ").map_or("", |(_, value)| value);
        !unset.contains(&value) && !defaults.contains(line)
    });
    let mut text = kept.collect::<Vec<_>>().join(" ");
    for (from, to) in [(", }", " }"), (", ]", " ]"), (", )", " )")] {
        text = text.replace(from, to);
    }
    for wrapper in ["Some", "UInt32Value", "UInt64Value", "Percent"] {
        text = unwrap(&text, wrapper);
    }
    let formatter = "header_key_format: HeaderKeyFormat { header_format: StatefulFormatter( TypedExtensionConfig { name: \
        \"preserve_case\", typed_config: Any { type_url: \
        \"type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig\" } } ) }";
    text.replace("UInt32Value { }", "0").replace("Percent { }", "0").replace(formatter, "preserve_case")
}

/// `Some( X )` and `Wrapper { value: X }` say no more than `X`.
fn unwrap(text: &str, wrapper: &str) -> String {
    let (open, close) = match wrapper {
        "Some" => ("Some( ".to_owned(), ')'),
        other => (format!("{other} {{ value: "), '}'),
    };
    let mut out = String::new();
    let mut rest = text;
    let mut depths = Vec::new();
    let mut depth = 0;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(&open) {
            depths.push(depth);
            depth += 1;
            rest = after;
            continue;
        }
        let Some(c) = rest.chars().next() else { break };
        rest = &rest[c.len_utf8()..];
        let (opens, closes) = if close == ')' { ('(', ')') } else { ('{', '}') };
        if c == opens {
            depth += 1;
        } else if c == closes {
            depth -= 1;
            if depths.last() == Some(&depth) {
                depths.pop();
                out.truncate(out.trim_end().len());
                continue;
            }
        }
        out.push(c);
    }
    out
}

/// HTTP/2 and nothing else.
pub(crate) fn explicit_http2() -> UpstreamProtocolOptions {
    let protocol = ProtocolConfig::Http2ProtocolOptions(Default::default());
    UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(protocol) })
}
