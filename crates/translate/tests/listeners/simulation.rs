//! Upstream's simulation cases: the listeners, chains, routes and virtual hosts that Istio made, by name and by what they match.
//!
//! The data is read where `$CONFORMANCE` says, else beside the repository.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use maille_api::mesh::{MeshConfig, OutboundTrafficPolicy, OutboundTrafficPolicyMode};
use maille_api::{Object, parse};
use maille_model::{Options, Proxy, Snapshot};
use maille_translate::{proxy_from_node, translate};
use maille_xds::types::core::Node;
use maille_xds::types::hcm::HttpConnectionManager;
use maille_xds::types::hcm::http_connection_manager::RouteSpecifier;
use maille_xds::types::listener::{FilterChain, Listener, filter};
use maille_xds::types::route::RouteConfiguration;
use maille_xds::types::route::route::Action;
use maille_xds::types::route::route_action::ClusterSpecifier;
use maille_xds::types::tcp_proxy::{TcpProxy, tcp_proxy};
use maille_xds::types::{Struct, Value, ValueKind, unpack};
use maille_xds::{TypeUrl, World};
use serde_json::Value as Json;

/// A kind that is not among ours.
const LEFT_OUT: &str = "Ingress_";

#[test]
fn simulation_conformance_tables() {
    let Some(folder) = folder() else { return };
    let mut wrong = Vec::new();
    let mut seen = 0;
    for entry in fs::read_dir(&folder).expect("cases") {
        let path = entry.expect("entry").path();
        let name = path.file_stem().expect("name").to_string_lossy().into_owned();
        if !path.is_file() || name.starts_with(LEFT_OUT) {
            continue;
        }
        seen += 1;
        let ours = facts_of_world(&world(&json(&path)));
        let theirs = facts_of_json(&json(&folder.join("xds").join(format!("{name}.json"))));
        let missing: Vec<_> = theirs.difference(&ours).cloned().collect();
        let extra: Vec<_> = ours.difference(&theirs).cloned().collect();
        if !missing.is_empty() || !extra.is_empty() {
            wrong.push(format!("{name}\n  missing {missing:#?}\n  extra {extra:#?}"));
        }
    }
    assert!(seen > 25, "no case in {}", folder.display());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn folder() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance");
    let folder = std::env::var_os("CONFORMANCE").map_or(beside, PathBuf::from).join("simulation");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: no conformance data at {}", folder.display());
    None
}

fn json(path: &Path) -> Json {
    serde_json::from_str(&fs::read_to_string(path).expect("file")).expect("JSON")
}

fn world(case: &Json) -> World {
    let text = |key: &str| case[key].as_str().unwrap_or_default().to_owned();
    let name = text("name");
    let yaml = format!("{}\n---\n{}\n---\n{}", text("config"), text("kubernetes"), endpoints(&text("kubernetes")));
    let mut objects: Vec<Arc<Object>> = Vec::new();
    for mut object in parse::documents(&yaml, &name).into_iter().filter_map(Result::ok).map(|parsed| parsed.object) {
        if object.meta.namespace.is_empty() {
            object.meta.namespace = "default".into();
        }
        objects.push(Arc::new(object));
    }
    let mode = [
        ("ALLOW_ANY_DYNAMIC_DNS", OutboundTrafficPolicyMode::AllowAnyDynamicDns),
        ("REGISTRY_ONLY", OutboundTrafficPolicyMode::RegistryOnly),
    ];
    let mode = mode.iter().find(|(word, _)| name.contains(word)).map(|(_, mode)| *mode);
    let mesh = MeshConfig {
        outbound_traffic_policy: Some(OutboundTrafficPolicy {
            mode: mode.unwrap_or(OutboundTrafficPolicyMode::AllowAny),
            tls: None,
        }),
        ..MeshConfig::default()
    };
    // Upstream's test completes short names of routes with the namespace alone.
    let options = Options { short_name_domain: String::new(), ..Options::default() };
    let snapshot = Snapshot::build_with(&objects, &mesh, options);
    translate(&snapshot, &proxy(&case["proxy"]))
}

/// Endpoints of a headless service, as workloads that its selector finds.
fn endpoints(kubernetes: &str) -> String {
    let mut workloads = String::new();
    for slice in kubernetes.split("---").filter(|document| document.contains("kind: EndpointSlice")) {
        let value = |key: &str| slice.lines().find_map(|line| line.trim().strip_prefix(key)).map(str::trim);
        let (Some(service), Some(address)) = (value("kubernetes.io/service-name:"), value("- ").map(|_| "1.2.3.4"))
        else {
            continue;
        };
        workloads += &format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {service}-1, namespace: default}}\n\
             spec: {{address: {address}, labels: {{app: {service}}}}}\n---\n"
        );
    }
    workloads
}

fn proxy(proxy: &Json) -> Proxy {
    let text = |key: &str| proxy[key].as_str().unwrap_or_default();
    let string = |text: &str| Value { kind: Some(ValueKind::StringValue(text.to_owned())) };
    let empty = serde_json::Map::new();
    let mut fields: std::collections::HashMap<String, Value> = proxy["metadata"]
        .as_object()
        .unwrap_or(&empty)
        .iter()
        .map(|(key, value)| (key.clone(), string(value.as_str().unwrap_or_default())))
        .collect();
    let labels = proxy["labels"].as_object().unwrap_or(&empty);
    let labels = labels.iter().map(|(key, value)| (key.clone(), string(value.as_str().unwrap_or_default())));
    let labels = Struct { fields: labels.collect() };
    fields.insert("LABELS".into(), Value { kind: Some(ValueKind::StructValue(labels)) });
    // Upstream's test leaves NAMESPACE out, which lets services of other namespaces be the proxy's own.
    let node = Node {
        id: format!(
            "{}~{}~{}~{}",
            text("type"),
            proxy["ip"][0].as_str().unwrap_or_default(),
            text("id"),
            text("domain")
        ),
        metadata: Some(Struct { fields }),
        ..Node::default()
    };
    proxy_from_node(&node).expect("a proxy")
}

/// One line for everything that has a name or a match.
fn facts_of_world(world: &World) -> BTreeSet<String> {
    let mut facts = BTreeSet::new();
    for resource in world.of(TypeUrl::Listener).values() {
        let listener: Listener = resource.decode().expect("listener");
        let bound = listener.bind_to_port.as_ref().is_none_or(|bind| bind.value);
        facts.insert(format!("listener {} bound={bound}", listener.name));
        for (word, chain) in listener
            .filter_chains
            .iter()
            .map(|chain| ("chain", chain))
            .chain(listener.default_filter_chain.iter().map(|chain| ("default", chain)))
        {
            let matched = chain.filter_chain_match.clone().unwrap_or_default();
            let port = matched.destination_port.map_or(0, |port| port.value);
            facts.insert(format!(
                "{} {word} {:?} port={port} sni={:?} alpn={:?} transport={:?} tls={} to {}",
                listener.name,
                chain.name,
                matched.server_names,
                matched.application_protocols,
                matched.transport_protocol,
                chain.transport_socket.is_some(),
                target(chain)
            ));
        }
    }
    for resource in world.of(TypeUrl::Route).values() {
        let routes: RouteConfiguration = resource.decode().expect("routes");
        for host in &routes.virtual_hosts {
            let domains: BTreeSet<&String> = host.domains.iter().collect();
            facts.insert(format!("{} host {} {domains:?} tls={}", routes.name, host.name, host.require_tls));
            for route in &host.routes {
                let cluster = match &route.action {
                    Some(Action::Route(action)) => match &action.cluster_specifier {
                        Some(ClusterSpecifier::Cluster(cluster)) => cluster.clone(),
                        other => format!("{other:?}"),
                    },
                    Some(Action::DirectResponse(response)) => response.status.to_string(),
                    other => format!("{other:?}"),
                };
                facts.insert(format!("{} host {} route {:?} to {cluster}", routes.name, host.name, route.name));
            }
        }
    }
    facts
}

fn target(chain: &FilterChain) -> String {
    chain
        .filters
        .iter()
        .find_map(|filter| {
            let Some(filter::ConfigType::TypedConfig(config)) = &filter.config_type else { return None };
            if let Some(Ok(proxy)) = unpack::<TcpProxy>(config) {
                let Some(tcp_proxy::ClusterSpecifier::Cluster(cluster)) = proxy.cluster_specifier else { return None };
                return Some(format!("cluster {cluster}"));
            }
            match unpack::<HttpConnectionManager>(config)?.ok()?.route_specifier? {
                RouteSpecifier::Rds(rds) => Some(format!("routes {}", rds.route_config_name)),
                RouteSpecifier::RouteConfig(routes) => Some(format!("routes {}", routes.name)),
                RouteSpecifier::ScopedRoutes(_) => None,
            }
        })
        .unwrap_or_default()
}

/// The same of what upstream recorded.
fn facts_of_json(xds: &Json) -> BTreeSet<String> {
    let list = |value: &Json| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    let texts = |value: &Json| list(value).iter().map(text).collect::<Vec<_>>();
    let mut facts = BTreeSet::new();
    for listener in list(&xds["listeners"]) {
        let name = text(&listener["name"]);
        let bound = listener["bindToPort"].as_bool().unwrap_or(true);
        facts.insert(format!("listener {name} bound={bound}"));
        let default = listener.get("defaultFilterChain").cloned();
        let chains = list(&listener["filterChains"]).into_iter().map(|chain| ("chain", chain));
        for (word, chain) in chains.chain(default.map(|chain| ("default", chain))) {
            let matched = &chain["filterChainMatch"];
            let alpn = texts(&matched["applicationProtocols"]);
            let target = list(&chain["filters"]).iter().find_map(|filter| {
                let config = &filter["typedConfig"];
                let found = |word: &str, value: &Json| value.as_str().map(|value| format!("{word} {value}"));
                found("cluster", &config["cluster"])
                    .or_else(|| found("routes", &config["rds"]["routeConfigName"]))
                    .or_else(|| found("routes", &config["routeConfig"]["name"]))
            });
            facts.insert(format!(
                "{name} {word} {:?} port={} sni={:?} alpn={alpn:?} transport={:?} tls={} to {}",
                text(&chain["name"]),
                matched["destinationPort"].as_u64().unwrap_or(0),
                texts(&matched["serverNames"]),
                text(&matched["transportProtocol"]),
                chain["transportSocket"].is_object(),
                target.unwrap_or_default()
            ));
        }
    }
    for routes in list(&xds["routes"]) {
        let name = text(&routes["name"]);
        for host in list(&routes["virtualHosts"]) {
            let host_name = text(&host["name"]);
            let domains: BTreeSet<String> = texts(&host["domains"]).into_iter().collect();
            let tls = if host["requireTls"].as_str() == Some("ALL") { 2 } else { 0 };
            facts.insert(format!("{name} host {host_name} {domains:?} tls={tls}"));
            for route in list(&host["routes"]) {
                let cluster = match route["route"]["cluster"].as_str() {
                    Some(cluster) => cluster.to_owned(),
                    None => route["directResponse"]["status"].to_string(),
                };
                facts.insert(format!("{name} host {host_name} route {:?} to {cluster}", text(&route["name"])));
            }
        }
    }
    facts
}
