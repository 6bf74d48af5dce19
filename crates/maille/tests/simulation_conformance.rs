//! Upstream's own simulations: resources in, translated, compiled, and every call answered by the proxy's tables as upstream answers it.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use maille_api::mesh::MeshConfig;
use maille_api::parse;
use maille_model::{Options, Proxy, ProxyKind, Snapshot};
use maille_proxy::simulate::{Call, CallProtocol, CallTls, Mode, Outcome, Tables};
use serde_json::Value;

/// Cases of a kind that is not among ours.
const LEFT_OUT: &str = "Ingress_";

#[test]
fn simulation_conformance() {
    let Some(folder) = conformance_folder() else { return };
    let (mut calls, mut wrong) = (0, Vec::new());
    for path in cases(&folder) {
        let case: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let name = case["name"].as_str().unwrap();
        let tables = tables(name, &case, &mut wrong);
        for call in case["calls"].as_array().unwrap() {
            calls += 1;
            let outcome = tables.run(&call_of(&call["call"]));
            compare(name, call, &outcome, &mut wrong);
        }
    }
    assert!(wrong.is_empty(), "{} of {calls} calls:\n{}", wrong.len(), wrong.join("\n"));
    assert!(calls > 150, "only {calls} calls found in {}", folder.display());
}

fn conformance_folder() -> Option<PathBuf> {
    let folder = std::env::var_os("CONFORMANCE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance"), PathBuf::from);
    let folder = folder.join("simulation");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: there is no {}", folder.display());
    None
}

fn cases(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.ends_with(".json") && !name.starts_with(LEFT_OUT)
    });
    paths.sort();
    paths
}

fn tables(name: &str, case: &Value, wrong: &mut Vec<String>) -> Tables {
    let mut objects = Vec::new();
    for (text, origin) in [(&case["config"], "config"), (&case["kubernetes"], "kubernetes")] {
        for document in documents(text.as_str().unwrap_or_default()) {
            match parse::documents(&document, origin).into_iter().collect::<Result<Vec<_>, _>>() {
                Ok(parsed) => objects.extend(parsed.into_iter().map(|parsed| Arc::new(parsed.object))),
                Err(problem) => wrong.push(format!("{name}: {problem}")),
            }
        }
    }
    // Upstream's fixtures have no cluster domain for short names to be completed with.
    let options = Options { short_name_domain: String::new(), ..Options::default() };
    let snapshot = Snapshot::build_with(&objects, &mesh(name), options);
    let world = maille_translate::translate(&snapshot, &proxy(&case["proxy"]));
    let (tables, refused) = Tables::compile(&world);
    wrong.extend(refused.iter().map(|refused| format!("{name}: refused: {refused}")));
    tables
}

/// The documents, each on its own: upstream's EndpointSlices are not among our kinds, so they become the workloads they stand for.
fn documents(text: &str) -> Vec<String> {
    let documents = text.split("\n---").map(|document| document.trim_start_matches("---").to_owned());
    let documents: Vec<String> = documents.filter(|document| !document.trim().is_empty()).collect();
    documents.iter().map(|document| slice_as_workload(document, &documents)).collect()
}

/// A WorkloadEntry with the address and ports of an EndpointSlice, and the labels that its Service selects.
fn slice_as_workload(document: &str, all: &[String]) -> String {
    if !document.contains("kind: EndpointSlice") {
        return document.to_owned();
    }
    let value = |key: &str, text: &str| {
        let line = text.lines().map(str::trim).find_map(|line| line.strip_prefix(key).map(str::trim));
        line.unwrap_or_default().to_owned()
    };
    let service = value("kubernetes.io/service-name:", document);
    let selecting = all.iter().find(|d| d.contains("kind: Service") && value("name:", d) == service);
    let app = value("app:", selecting.expect("the slice's service"));
    let addresses = document.lines().skip_while(|line| !line.contains("addresses:"));
    let address = addresses.skip(1).find_map(|line| line.trim().strip_prefix("- ")).expect("an address");
    let mut ports = String::new();
    for pair in document.split("- name: ").skip(1) {
        let mut lines = pair.lines();
        let name = lines.next().unwrap_or_default().trim();
        ports += &format!("    {name}: {}\n", value("port:", pair));
    }
    format!(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata:\n  name: {service}\n  namespace: {}\n\
         spec:\n  address: {address}\n  labels:\n    app: {app}\n  ports:\n{ports}",
        value("namespace:", document)
    )
}

/// Upstream sets the outbound policy in its test's code; the case's name says which.
fn mesh(name: &str) -> MeshConfig {
    let mode = ["ALLOW_ANY_DYNAMIC_DNS", "REGISTRY_ONLY", "ALLOW_ANY"].into_iter().find(|mode| name.contains(mode));
    let text = mode.map(|mode| format!("outboundTrafficPolicy:\n  mode: {mode}\n")).unwrap_or_default();
    let (mesh, problems) = parse::mesh_config(&text, "mesh");
    mesh.unwrap_or_else(|| panic!("{problems:?}"))
}

fn proxy(json: &Value) -> Proxy {
    let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
    let labels = json["labels"].as_object().into_iter().flatten();
    let metadata = &json["metadata"];
    Proxy {
        kind: if json["type"] == "router" { ProxyKind::Router } else { ProxyKind::Sidecar },
        id: text("id"),
        ip_addresses: json["ip"].as_array().unwrap().iter().map(|ip| ip.as_str().unwrap().to_owned()).collect(),
        namespace: text("namespace"),
        service_account: String::new(),
        labels: labels.map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned())).collect::<BTreeMap<_, _>>(),
        dns_domain: text("domain"),
        locality: Default::default(),
        network: String::new(),
        cluster_id: metadata["CLUSTER_ID"].as_str().unwrap_or_default().to_owned(),
        metadata: maille_model::ProxyMetadata {
            istio_version: metadata["ISTIO_VERSION"].as_str().unwrap_or_default().to_owned(),
            ..Default::default()
        },
    }
}

fn call_of(json: &Value) -> Call {
    let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
    let address: IpAddr = text("address").parse().unwrap();
    let destination = SocketAddr::new(address, json["port"].as_u64().unwrap() as u16);
    let tls = match json["tls"].as_str() {
        Some("tls") => CallTls::Simple,
        Some("mtls") => CallTls::Mutual,
        _ => CallTls::None,
    };
    let headers = json["headers"].as_object().into_iter().flatten();
    let headers = headers.map(|(name, values)| (name.clone(), values[0].as_str().unwrap().to_owned())).collect();
    let alpn = text("alpn");
    Call {
        mode: match json["mode"].as_str() {
            Some("inbound") => Mode::Inbound,
            Some("outbound") => Mode::Outbound,
            _ => Mode::Direct,
        },
        protocol: match json["protocol"].as_str() {
            Some("http") => CallProtocol::Http,
            Some("http2") => CallProtocol::Http2,
            _ => CallProtocol::Tcp,
        },
        tls,
        alpn: if alpn.is_empty() { Vec::new() } else { vec![alpn] },
        server_name: text("sni"),
        mesh_secret: json["mtlsSecret"].as_str().unwrap_or("default").to_owned(),
        headers,
        ..Call::get(destination, "", &text("path"))
    }
}

fn compare(case: &str, call: &Value, outcome: &Outcome, wrong: &mut Vec<String>) {
    let error = outcome.error.map(|error| error.to_string());
    let got = [
        ("listener", outcome.listener.as_deref()),
        ("filterChain", outcome.filter_chain.as_deref()),
        ("routeConfig", outcome.route_config.as_deref()),
        ("virtualHost", outcome.virtual_host.as_deref()),
        ("route", outcome.route.as_deref()),
        ("cluster", outcome.cluster.as_deref()),
        ("error", error.as_deref()),
    ];
    let (expect, observed) = (&call["expect"], &call["observed"]);
    let differs = |(key, got): &(&str, Option<&str>)| {
        let got = got.filter(|got| !got.is_empty());
        // What upstream's test does not assert may be absent from the expectation, but never from what it saw.
        expect.get(key).is_some_and(|want| want.as_str() != got) || observed.get(key).and_then(Value::as_str) != got
    };
    for (key, got) in got.iter().filter(|field| differs(field)) {
        wrong.push(format!(
            "{case}: {}: {key} is {got:?}; upstream saw {} and asserts {}",
            call["name"].as_str().unwrap_or_default(),
            observed[key],
            expect[key]
        ));
    }
}
