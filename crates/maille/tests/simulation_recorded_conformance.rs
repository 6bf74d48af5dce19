//! What Istio and Envoy answered to random VirtualServices, compared with what our tables would do: translated, compiled, looked up and rewritten without a socket.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use maille_api::mesh::MeshConfig;
use maille_api::{Object, parse};
use maille_http::path::Outcome;
use maille_http::{Name, RequestHead, ResponseHead};
use maille_model::{Proxy, ProxyKind, Snapshot};
use maille_proxy::config::{Action, HttpManager, Network, Redirect, Route, RouteSource};
use maille_proxy::headers::{HeaderMutations, Protocol, Scratch, StreamInfo};
use maille_proxy::route::{ClientTls, Request};
use maille_proxy::simulate::Tables;
use serde_json::Value;

const GATEWAY: &str = "18080";
const PORTS: [(&str, &str); 5] =
    [("${gw}", GATEWAY), ("${a1}", "9001"), ("${a2}", "9002"), ("${b}", "9003"), ("${c}", "9004")];

/// Headers that the proxy sets on every request; the running proxy is compared on them.
const OF_THE_PROXY: [&str; 7] = [
    "host",
    "x-envoy-attempt-count",
    "x-envoy-external-address",
    "x-envoy-expected-rq-timeout-ms",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-request-id",
];

#[test]
fn simulation_recorded_conformance() {
    let Some(folder) = folder() else { return };
    let base = fill(&fs::read_to_string(folder.join("base.yaml")).unwrap());
    let upstream_headers = upstream_headers(&folder);
    let (mut requests, mut wrong) = (0, Vec::new());
    for line in fs::read_to_string(folder.join("cases.jsonl")).unwrap().lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let name = case["name"].as_str().unwrap();
        let tables = tables(&format!("{base}\n---\n{}", fill(case["config"].as_str().unwrap())), name, &mut wrong);
        let Some(manager) = manager(&tables) else {
            wrong.push(format!("{name}: there is no HTTP listener"));
            continue;
        };
        for request in case["requests"].as_array().unwrap() {
            let Some(got) = answer(&tables, &manager, &request["send"], &request["got"], &upstream_headers) else {
                continue;
            };
            requests += 1;
            for (what, ours, theirs) in got.into_iter().filter(|(_, ours, theirs)| ours != theirs) {
                wrong.push(format!("{name} {}: {what} is {ours}, recorded {theirs}", request["send"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {requests} requests:\n{}", wrong.len(), wrong.join("\n"));
    assert!(requests > 2000, "only {requests} requests were compared");
}

fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("CONFORMANCE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance"), PathBuf::from);
    let folder = folder.join("recorded/routing");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: there is no {}", folder.display());
    None
}

fn fill(text: &str) -> String {
    PORTS.iter().fold(text.to_owned(), |text, (name, port)| text.replace(name, port))
}

/// What each server adds to its answers.
fn upstream_headers(folder: &Path) -> BTreeMap<String, Vec<(String, String)>> {
    let spec: Value = serde_json::from_str(&fs::read_to_string(folder.join("spec.json")).unwrap()).unwrap();
    let workloads = spec["workloads"].as_array().unwrap().iter();
    let headers = |w: &Value| {
        let headers = w["headers"].as_object().into_iter().flatten();
        headers.map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned())).collect()
    };
    workloads.map(|w| (w["name"].as_str().unwrap().to_owned(), headers(w))).collect()
}

fn tables(text: &str, name: &str, wrong: &mut Vec<String>) -> Tables {
    let loaded = parse::load(text, name);
    wrong.extend(loaded.diagnostics.iter().filter(|d| d.is_error()).map(|d| format!("{name}: {d}")));
    let objects: Vec<Arc<Object>> = loaded.objects;
    let proxy = Proxy {
        kind: ProxyKind::Router,
        id: "gateway.shop".into(),
        ip_addresses: vec!["127.0.0.1".into()],
        namespace: "shop".into(),
        service_account: String::new(),
        labels: BTreeMap::from([("istio".into(), "ingressgateway".into())]),
        dns_domain: "shop.svc.cluster.local".into(),
        locality: Default::default(),
        network: String::new(),
        cluster_id: String::new(),
        metadata: Default::default(),
    };
    let (mesh, _) = parse::mesh_config("", "mesh");
    let snapshot = Snapshot::build(&objects, &mesh.unwrap_or_else(MeshConfig::default));
    let (tables, refused) = Tables::compile(&maille_translate::translate(&snapshot, &proxy));
    wrong.extend(refused.iter().map(|refused| format!("{name}: refused: {refused}")));
    tables
}

fn manager(tables: &Tables) -> Option<Arc<HttpManager>> {
    tables.listeners.iter().flat_map(|listener| listener.chains.iter().chain(&listener.default_chain)).find_map(
        |chain| match &chain.network {
            Network::Http(manager) => Some(manager.clone()),
            _ => None,
        },
    )
}

type Compared = Vec<(&'static str, String, String)>;

/// What we would answer beside what was recorded; `None` where a filter answers, which is not ours to simulate.
fn answer(
    tables: &Tables,
    manager: &HttpManager,
    send: &Value,
    got: &Value,
    upstream_headers: &BTreeMap<String, Vec<(String, String)>>,
) -> Option<Compared> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let status = |ours: u16| ("status", ours.to_string(), got["status"].to_string());
    let headers = send["headers"].as_object().into_iter().flatten();
    let headers: Vec<(String, String)> = headers.map(|(k, v)| (k.clone(), fill(&text(v)))).collect();
    let fields: Vec<(&str, &str)> = headers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let method = send["method"].as_str().unwrap_or("GET");
    let mut head = RequestHead::build(method, &fill(&text(&send["host"])), &fill(&text(&send["path"])), &fields);
    head.append(&Name::new("x-forwarded-proto"), b"http");

    match manager.path.apply(head.path_and_query()) {
        Outcome::Reject => return Some(vec![status(400)]),
        Outcome::Redirect(_) => return Some(vec![status(307)]),
        Outcome::Continue(path) => {
            let path = path.into_owned();
            head.set_path(&path);
        }
    }
    let table = match &manager.routes {
        RouteSource::Inline(table) => table,
        RouteSource::Rds(name) => tables.routes.get(name)?,
    };
    let request = Request { head: &head, random: 0, tls: ClientTls::default(), metadata: None };
    let route = table.virtual_host(head.authority()).and_then(|host| host.route(&request));
    let Some(route) = route else { return Some(vec![status(404)]) };
    if route.fault.is_some() || route.cors.is_some() {
        return None;
    }
    let route = route.clone();
    match &route.action {
        Action::Redirect(redirect) => Some(redirected(&route, redirect, &head, got)),
        Action::Respond(response) => {
            let body = String::from_utf8_lossy(&response.body).into_owned();
            let body = if method == "HEAD" { String::new() } else { body };
            let mut out = vec![status(response.status), ("body", body, fill(&text(&got["body"])))];
            out.push(own_headers(&route.response, response.status, &head, got));
            Some(out)
        }
        // Nobody served it: a timeout, or a destination without endpoints.
        Action::Forward(_) if got["served_by"].is_null() => None,
        Action::Forward(forward) => {
            let mut stream = StreamInfo::default();
            stream.protocol = Some(Protocol::Http11);
            let destination = forward.destination(0).clone();
            forward.rewrite(&route, &destination, &mut head, &stream, &mut Scratch::default(), true);
            let served_by = text(&got["served_by"]);
            // Which of the shares it was is left to chance.
            let may_serve = |cluster: &str| match cluster.split('|').collect::<Vec<_>>()[..] {
                [_, _, "", host] => host.starts_with(&served_by[..1]),
                [_, _, subset, host] => {
                    host.starts_with(&served_by[..1]) && served_by[1..] == *subset.trim_start_matches('v')
                }
                _ => false,
            };
            if !may_serve(&destination.cluster) {
                return Some(vec![("cluster", destination.cluster.to_string(), served_by)]);
            }
            let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            // The recording server reads slashes at the start as one.
            let path = shown(head.path_and_query());
            let path = if path.starts_with("//") { format!("/{}", path.trim_start_matches('/')) } else { path };
            let mut out = vec![
                ("path", path, fill(&text(&got["upstream_path"]))),
                ("host", shown(head.authority()), fill(&text(&got["upstream_host"]))),
            ];
            let ours = head.headers.iter().map(|(n, v)| (shown(n), shown(v)));
            out.push(("request headers", sorted(ours), recorded(&got["request_headers"])));
            let added = &upstream_headers[&served_by];
            out.push(response_headers(&destination.response, added, &head, got));
            Some(out)
        }
    }
}

fn redirected(route: &Route, redirect: &Redirect, head: &RequestHead, got: &Value) -> Compared {
    let location = String::from_utf8_lossy(&redirect.location(route, head)).into_owned();
    let theirs = fill(got["response_headers"]["location"].as_str().unwrap_or_default());
    vec![
        ("status", redirect.status.to_string(), got["status"].to_string()),
        ("location", location, theirs),
        own_headers(&route.response, redirect.status, head, got),
    ]
}

/// Of an answer of our own: its status is not known yet when its headers are changed.
fn own_headers(
    mutations: &HeaderMutations,
    status: u16,
    head: &RequestHead,
    got: &Value,
) -> (&'static str, String, String) {
    let mut stream = StreamInfo::default();
    stream.protocol = Some(Protocol::Http11);
    mutated(mutations, ResponseHead::new(status), head, &stream, got)
}

fn response_headers(
    mutations: &HeaderMutations,
    added: &[(String, String)],
    head: &RequestHead,
    got: &Value,
) -> (&'static str, String, String) {
    let mut response = ResponseHead::new(got["status"].as_u64().unwrap_or(200) as u16);
    for (name, value) in added {
        response.headers.append(&Name::new(name), value.as_bytes());
    }
    let response_code = response.status;
    let mut stream = StreamInfo::default();
    (stream.protocol, stream.response_code) = (Some(Protocol::Http11), response_code);
    mutated(mutations, response, head, &stream, got)
}

/// The headers that routes change, as we would leave them and as they were recorded.
fn mutated(
    mutations: &HeaderMutations,
    mut response: ResponseHead,
    head: &RequestHead,
    stream: &StreamInfo<'_>,
    got: &Value,
) -> (&'static str, String, String) {
    mutations.apply_to_response(&mut response, head, stream, &mut Scratch::default());
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let ours = response.headers.iter().map(|(n, v)| (shown(n), shown(v)));
    let theirs = got["response_headers"].as_object().into_iter().flatten();
    let theirs = theirs.filter(|(name, _)| name.starts_with("x-") && !name.starts_with("x-envoy-"));
    let theirs = theirs.map(|(name, value)| (name.clone(), fill(value.as_str().unwrap_or_default())));
    ("response headers", sorted(ours), sorted(theirs))
}

fn recorded(headers: &Value) -> String {
    let headers = headers.as_object().into_iter().flatten();
    sorted(headers.map(|(name, value)| (name.clone(), fill(value.as_str().unwrap_or_default()))))
}

/// Headers in order of name, those of the proxy left out. The recording server kept the last of several values.
fn sorted(headers: impl Iterator<Item = (String, String)>) -> String {
    let last: BTreeMap<String, String> = headers.filter(|(name, _)| !OF_THE_PROXY.contains(&name.as_str())).collect();
    last.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
}
