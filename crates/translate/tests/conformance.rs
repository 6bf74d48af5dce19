//! The clusters that upstream's control plane made for its own simulation cases, and ours for the same resources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use maille_api::mesh::{MeshConfig, OutboundTrafficPolicy, OutboundTrafficPolicyMode};
use maille_api::parse;
use maille_model::{Options, Snapshot};
use maille_translate::{proxy_from_node, translate};
use maille_xds::TypeUrl;
use maille_xds::types::cluster::Cluster;
use maille_xds::types::cluster::cluster::{ClusterDiscoveryType, DiscoveryType, LbConfig};
use maille_xds::types::core::{Node, address};
use maille_xds::types::endpoint::lb_endpoint::HostIdentifier;
use maille_xds::types::upstream_http::HttpProtocolOptions;
use maille_xds::types::upstream_http::http_protocol_options::UpstreamProtocolOptions;
use maille_xds::types::upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig;
use maille_xds::types::{Struct, Value as ProtoValue, ValueKind, unpack};
use serde_json::Value;

/// Kinds that say nothing about clusters here: endpoints, which the cases have in Kubernetes' form, and policies on
/// who may connect.
const OTHER_KINDS: [&str; 8] = [
    "EndpointSlice",
    "Pod",
    "PeerAuthentication",
    "Ingress",
    "Secret",
    "AuthorizationPolicy",
    "RequestAuthentication",
    "EnvoyFilter",
];

#[test]
fn conformance_clusters_of_the_simulation() {
    let Some(folder) = conformance("simulation") else { return };
    let mut wrong = Vec::new();
    let mut cases = 0;
    for path in json_files(&folder) {
        let xds = folder.join("xds").join(path.file_name().expect("name"));
        let (case, theirs) = (read(&path), read(&xds));
        let ours = clusters(&case);
        let theirs: BTreeMap<String, String> = list(&theirs["clusters"]).iter().map(of_json).collect();
        let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        for name in names {
            if ours.get(name) != theirs.get(name) {
                wrong.push(format!(
                    "{}: {name}\n  theirs {:?}\n  ours   {:?}",
                    path.file_stem().expect("name").to_string_lossy(),
                    theirs.get(name),
                    ours.get(name)
                ));
            }
        }
        cases += 1;
    }
    assert!(cases > 20, "only {cases} cases in {}", folder.display());
    assert!(wrong.is_empty(), "{} of the clusters differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// The folder of conformance data, or `None` after saying that it is not there.
fn conformance(part: &str) -> Option<PathBuf> {
    let folder = match std::env::var_os("CONFORMANCE") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance"),
    };
    let folder = folder.join(part);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: no conformance data at {}; CONFORMANCE can name the folder", folder.display());
    None
}

fn json_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).expect("folder").map(|entry| entry.expect("entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    files
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).expect("file")).expect("JSON")
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn clusters(case: &Value) -> BTreeMap<String, String> {
    let yaml = format!("{}\n---\n{}", text(&case["config"]), text(&case["kubernetes"]));
    let documents = yaml.split("\n---");
    let ours = documents.filter(|document| {
        let kind = document.lines().find_map(|line| line.strip_prefix("kind:")).map(str::trim).unwrap_or_default();
        !OTHER_KINDS.contains(&kind)
    });
    let yaml: Vec<&str> = ours.collect();
    let objects: Vec<_> = parse::documents(&yaml.join("\n---"), "case")
        .into_iter()
        .filter_map(Result::ok)
        .map(|p| p.object.into())
        .collect();
    let mesh = mesh_of(&text(&case["name"]));
    // Upstream's simulation has no domain for names in routes.
    let options = Options { short_name_domain: String::new(), ..Options::default() };
    let snapshot = Snapshot::build_with(&objects, &mesh, options);
    let world = translate(&snapshot, &proxy_from_node(&node(&case["proxy"])).expect("node"));
    world.of(TypeUrl::Cluster).values().map(|resource| of_proto(&resource.decode().expect("cluster"))).collect()
}

/// A case's policy for hosts that nobody declared stands in its name.
fn mesh_of(name: &str) -> MeshConfig {
    let mode = match name {
        name if name.contains("ALLOW_ANY_DYNAMIC_DNS") => OutboundTrafficPolicyMode::AllowAnyDynamicDns,
        name if name.contains("REGISTRY_ONLY") => OutboundTrafficPolicyMode::RegistryOnly,
        _ => OutboundTrafficPolicyMode::AllowAny,
    };
    let policy = OutboundTrafficPolicy { mode, ..OutboundTrafficPolicy::default() };
    MeshConfig { outbound_traffic_policy: Some(policy), ..MeshConfig::default() }
}

fn node(proxy: &Value) -> Node {
    let texts = |value: &Value| {
        let fields = value
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.clone(), ProtoValue { kind: Some(ValueKind::StringValue(text(value))) }));
        Struct { fields: fields.collect() }
    };
    let mut metadata = texts(&proxy["metadata"]);
    let labels = ProtoValue { kind: Some(ValueKind::StructValue(texts(&proxy["labels"]))) };
    metadata.fields.insert("LABELS".to_owned(), labels);
    let ips: Vec<String> = list(&proxy["ip"]).iter().map(text).collect();
    Node {
        id: format!("{}~{}~{}~{}", text(&proxy["type"]), ips[0], text(&proxy["id"]), text(&proxy["domain"])),
        metadata: Some(metadata),
        ..Node::default()
    }
}

fn of_json(cluster: &Value) -> (String, String) {
    let discovery = match &cluster["type"] {
        Value::String(name) => name.clone(),
        _ if cluster["clusterType"].is_object() => text(&cluster["clusterType"]["name"]),
        _ => "STATIC".to_owned(),
    };
    let policy = cluster["lbPolicy"].as_str().unwrap_or("ROUND_ROBIN");
    let options = &cluster["typedExtensionProtocolOptions"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
    let http = match options {
        options if options["useDownstreamProtocolConfig"].is_object() => "as the client",
        options if options["explicitHttpConfig"]["http2ProtocolOptions"].is_object() => "2",
        options if options.is_object() => "1",
        _ => "none",
    };
    let idle = text(&options["commonHttpProtocolOptions"]["idleTimeout"]);
    let mut addresses = Vec::new();
    for group in list(&cluster["loadAssignment"]["endpoints"]) {
        for endpoint in list(&group["lbEndpoints"]) {
            let address = &endpoint["endpoint"]["address"];
            addresses.push(match &address["pipe"]["path"] {
                Value::String(path) => path.clone(),
                _ => {
                    format!("{}:{}", text(&address["socketAddress"]["address"]), address["socketAddress"]["portValue"])
                }
            });
        }
    }
    let bind = text(&cluster["upstreamBindConfig"]["sourceAddress"]["address"]);
    let over = cluster["originalDstLbConfig"]["upstreamPortOverride"].as_u64().unwrap_or_default();
    let timeout = text(&cluster["connectTimeout"]);
    let panic = cluster["commonLbConfig"]["healthyPanicThreshold"].is_object();
    let limits = list(&cluster["circuitBreakers"]["thresholds"]);
    let limits = limits.first().map(|limits| limits["maxConnections"].as_u64().unwrap_or_default()).unwrap_or_default();
    let name = text(&cluster["name"]);
    let stat = match name.as_str() {
        // Upstream has the statistics of both passthrough clusters under one name.
        "InboundPassthroughCluster" => format!("{name};"),
        _ => text(&cluster["altStatName"]),
    };
    let line = format!(
        "{discovery} {policy} http {http} idle {idle:?} {addresses:?} bind {bind:?} port {over} {timeout} panic {panic} limits {limits} stat {stat}"
    );
    (name, line)
}

fn of_proto(cluster: &Cluster) -> (String, String) {
    let discovery = match &cluster.cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(number)) => {
            DiscoveryType::try_from(*number).expect("type").as_str_name().to_owned()
        }
        Some(ClusterDiscoveryType::ClusterType(custom)) => custom.name.clone(),
        None => String::new(),
    };
    let policy = cluster.lb_policy().as_str_name();
    let options = cluster.typed_extension_protocol_options.values().next();
    let options = options.map(|any| unpack::<HttpProtocolOptions>(any).expect("options").expect("bytes"));
    let http = match options.as_ref().map(|options| &options.upstream_protocol_options) {
        Some(Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(_))) => "as the client",
        Some(Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit))) => match &explicit.protocol_config {
            Some(ProtocolConfig::Http2ProtocolOptions(_)) => "2",
            _ => "1",
        },
        Some(_) => "1",
        None => "none",
    };
    let common = options.as_ref().and_then(|options| options.common_http_protocol_options.as_ref());
    let idle = common.and_then(|common| common.idle_timeout.as_ref());
    let idle = idle.map(|idle| format!("{}s", idle.seconds)).unwrap_or_default();
    let groups = cluster.load_assignment.iter().flat_map(|assignment| &assignment.endpoints);
    let addresses: Vec<String> = groups
        .flat_map(|group| &group.lb_endpoints)
        .map(|endpoint| {
            let Some(HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else { return String::new() };
            match endpoint.address.as_ref().and_then(|address| address.address.as_ref()) {
                Some(address::Address::Pipe(pipe)) => pipe.path.clone(),
                Some(address::Address::SocketAddress(socket)) => {
                    let port = match &socket.port_specifier {
                        Some(maille_xds::types::core::socket_address::PortSpecifier::PortValue(port)) => *port,
                        _ => 0,
                    };
                    format!("{}:{port}", socket.address)
                }
                _ => String::new(),
            }
        })
        .collect();
    let bind = cluster.upstream_bind_config.as_ref().and_then(|bind| bind.source_address.as_ref());
    let bind = bind.map(|source| source.address.clone()).unwrap_or_default();
    let over = match &cluster.lb_config {
        Some(LbConfig::OriginalDstLbConfig(config)) => {
            config.upstream_port_override.as_ref().map_or(0, |port| u64::from(port.value))
        }
        _ => 0,
    };
    let timeout = cluster.connect_timeout.as_ref().map(|timeout| format!("{}s", timeout.seconds)).unwrap_or_default();
    let panic = cluster.common_lb_config.as_ref().is_some_and(|common| common.healthy_panic_threshold.is_some());
    let limits = cluster.circuit_breakers.as_ref().and_then(|breakers| breakers.thresholds.first());
    let limits = limits.and_then(|limits| limits.max_connections.as_ref()).map_or(0, |limit| limit.value);
    let line = format!(
        "{discovery} {policy} http {http} idle {idle:?} {addresses:?} bind {bind:?} port {over} {timeout} panic {panic} limits {limits} stat {}",
        cluster.alt_stat_name
    );
    (cluster.name.clone(), line)
}
