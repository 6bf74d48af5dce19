//! The admin endpoint, in Envoy's shapes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use base64::Engine as _;
use maille_proxy::run::{Bind, Endpoints, Otherwise, Purpose};
use maille_xds::types::cluster::Cluster;
use maille_xds::types::{Duration, core};
use maille_xds::{Resource, TypeUrl};
use serde_json::{Value, json};

use crate::support::{Proxy, Server};

/// A proxy with all endpoints, and a cluster that it refuses.
fn start(server: &Server) -> Proxy {
    Proxy::build(server.address, |setup| {
        let any = Some(Bind { address: (Ipv4Addr::LOCALHOST, 0).into(), otherwise: Otherwise::Fail });
        setup.options.endpoints = Endpoints { admin: any, ready: any, metrics: any };
        setup.options.node.id = "sidecar~1.2.3.4~a.b~b.svc.cluster.local".into();
        let refused = Cluster {
            name: "refused".into(),
            connect_timeout: Some(Duration { seconds: -1, nanos: 0 }),
            ..setup.cluster.clone()
        };
        setup.more.push((TypeUrl::Cluster, vec![Resource::encode("refused", &refused)]));
    })
}

pub(crate) fn ask(at: SocketAddr, method: &str, path: &str) -> (u16, String) {
    raw(at, &format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"))
}

fn raw(at: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

pub(crate) fn endpoint(proxy: &Proxy, purpose: Purpose) -> SocketAddr {
    proxy.handle.status().borrow().endpoint(purpose).unwrap()
}

fn get(proxy: &Proxy, path: &str) -> String {
    let (status, body) = ask(endpoint(proxy, Purpose::Admin), "GET", path);
    assert_eq!(status, 200, "{path}: {body}");
    body
}

/// Asks until the answer has something in it: a worker counts what is over a moment after the client has it.
fn until(proxy: &Proxy, path: &str, wanted: &str) -> String {
    let mut body = String::new();
    for _ in 0..2000 {
        body = get(proxy, path);
        if body.contains(wanted) {
            return body;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("{wanted} never in {path}: {body}")
}

fn get_json(proxy: &Proxy, path: &str) -> Value {
    serde_json::from_str(&get(proxy, path)).unwrap()
}

/// One request through the proxy.
pub(crate) fn exchange(proxy: &Proxy, server: &Server) {
    let mut client = proxy.connect();
    client.send("GET /a HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut upstream = server.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi");
    client.head();
    assert_eq!(client.exactly(2), b"hi");
}

#[test]
fn configuration_is_dumped_as_envoy_dumps_it() {
    let server = Server::start();
    let proxy = start(&server);
    let dump = get_json(&proxy, "/config_dump");
    let configs = dump["configs"].as_array().unwrap();
    let types: Vec<&str> = configs.iter().map(|c| c["@type"].as_str().unwrap().rsplit('.').next().unwrap()).collect();
    let expected =
        ["BootstrapConfigDump", "ClustersConfigDump", "ListenersConfigDump", "RoutesConfigDump", "SecretsConfigDump"];
    assert_eq!(types, expected);
    assert_eq!(configs[0]["bootstrap"]["node"]["id"], "sidecar~1.2.3.4~a.b~b.svc.cluster.local");
    let clusters = configs[1]["dynamic_active_clusters"].as_array().unwrap();
    let refused = clusters.iter().find(|c| c["error_state"].is_object()).unwrap();
    assert_eq!(refused["error_state"]["failed_configuration"]["connect_timeout"], "-1s", "{refused}");
    assert!(refused["error_state"]["details"].as_str().unwrap().contains("connect_timeout"), "{refused}");
    let taken = clusters.iter().find(|c| c["cluster"].is_object()).unwrap();
    assert_eq!(taken["cluster"]["name"], "server");
    assert_eq!(taken["cluster"]["@type"], "type.googleapis.com/envoy.config.cluster.v3.Cluster");
    let at = &taken["cluster"]["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"];
    assert_eq!(at["socket_address"]["port_value"], server.address.port());
    let filter = &configs[2]["dynamic_listeners"][0]["active_state"]["listener"]["filter_chains"][0]["filters"][0];
    assert_eq!(filter["typed_config"]["stat_prefix"], "test");
    assert_eq!(filter["typed_config"]["http_filters"][0]["name"], "envoy.filters.http.router");

    let only =
        get_json(&proxy, "/config_dump?resource=dynamic_listeners&mask=active_state.listener.name&name_regex=ht.*");
    let kind = "type.googleapis.com/envoy.admin.v3.ListenersConfigDump.DynamicListener";
    let listener = json!({"@type": "type.googleapis.com/envoy.config.listener.v3.Listener", "name": "http"});
    assert_eq!(only, json!({"configs": [{"@type": kind, "active_state": {"listener": listener}}]}));
    let admin = endpoint(&proxy, Purpose::Admin);
    assert_eq!(ask(admin, "GET", "/config_dump?resource=nothing").0, 404);
    assert_eq!(ask(admin, "GET", "/config_dump?name_regex=(").0, 400);
}

#[test]
fn clusters_listeners_and_the_process() {
    let server = Server::start();
    let proxy = start(&server);
    exchange(&proxy, &server);
    let at = server.address;
    let text = until(&proxy, "/clusters", &format!("server::{at}::rq_active::0\n"));
    for line in [
        "server::observability_name::server".to_owned(),
        "server::added_via_api::true".to_owned(),
        format!("server::{at}::cx_active::1"),
        format!("server::{at}::rq_active::0"),
        format!("server::{at}::health_flags::healthy"),
        format!("server::{at}::weight::1"),
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in {text}");
    }
    let clusters = get_json(&proxy, "/clusters?format=json");
    let host = &clusters["cluster_statuses"][0]["host_statuses"][0];
    let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": at.port()}});
    assert_eq!((&host["address"], &host["health_status"]), (&address, &json!({"eds_health_status": "HEALTHY"})));

    assert!(get(&proxy, "/listeners").contains(&format!("http::{}\n", proxy.http)));
    let listeners = get_json(&proxy, "/listeners?format=json");
    assert_eq!(listeners["listener_statuses"][0]["local_address"]["socket_address"]["port_value"], proxy.http.port());

    let info = get_json(&proxy, "/server_info");
    assert_eq!(
        (&info["state"], &info["node"]["id"]),
        (&json!("LIVE"), &json!("sidecar~1.2.3.4~a.b~b.svc.cluster.local"))
    );
    assert_eq!(info["version"].as_str().unwrap().split('/').count(), 5);
    assert!(get_json(&proxy, "/memory")["total_physical_bytes"].as_str().unwrap().parse::<u64>().unwrap() > 1 << 20);
    assert_eq!(get(&proxy, "/hot_restart_version"), "disabled");
    assert_eq!(get_json(&proxy, "/runtime"), json!({"layers": [], "entries": {}}));
    assert_eq!(get_json(&proxy, "/init_dump"), json!({"unready_targets_dumps": []}));
    assert!(get_json(&proxy, "/certs")["certificates"].is_array());
    assert!(get(&proxy, "/help").contains("/config_dump"));
}

#[test]
fn statistics_have_envoys_names() {
    let server = Server::start();
    let proxy = start(&server);
    exchange(&proxy, &server);
    exchange(&proxy, &server);
    let lines = until(&proxy, "/stats", "http.test.downstream_rq_2xx: 2\n");
    for line in [
        "cluster.server.upstream_rq_total: 2",
        "cluster.server.upstream_rq_200: 2",
        "cluster.server.upstream_rq_2xx: 2",
        "cluster.server.membership_total: 1",
        "cluster.server.membership_healthy: 1",
        "http.test.downstream_rq_total: 2",
        "http.test.downstream_rq_2xx: 2",
        "cluster_manager.cluster_added: 1",
        "cluster_manager.cds.update_rejected: 1",
        "listener_manager.total_listeners_active: 2",
        "server.live: 1",
        "server.concurrency: 1",
    ] {
        assert!(lines.lines().any(|l| l == line), "{line} in {lines}");
    }
    let listener = format!("listener.{}", proxy.http.to_string().replace(':', "_"));
    assert!(lines.contains(&format!("{listener}.downstream_cx_total: 2\n")), "{lines}");
    let filtered = get(&proxy, "/stats?filter=%5Ecluster%5C.server%5C.upstream_rq_(total|200)$&usedonly");
    assert_eq!(filtered, "cluster.server.upstream_rq_200: 2\ncluster.server.upstream_rq_total: 2\n");
    let json = get_json(&proxy, "/stats?format=json&filter=upstream_rq_total");
    assert_eq!(json, json!({"stats": [{"name": "cluster.server.upstream_rq_total", "value": 2}]}));

    let prometheus = get(&proxy, "/stats/prometheus");
    for line in [
        "envoy_cluster_upstream_rq_total{envoy_cluster_name=\"server\"} 2",
        "envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"2\",envoy_cluster_name=\"server\"} 2",
        "envoy_http_downstream_rq_xx{envoy_response_code_class=\"2\",envoy_http_conn_manager_prefix=\"test\"} 2",
        "envoy_server_live{} 1",
    ] {
        assert!(prometheus.lines().any(|l| l == line), "{line} in {prometheus}");
    }
    let scraped = ask(endpoint(&proxy, Purpose::Metrics), "GET", "/stats/prometheus");
    assert!(scraped.0 == 200 && scraped.1.contains("envoy_cluster_upstream_rq_total"));

    let admin = endpoint(&proxy, Purpose::Admin);
    assert_eq!(ask(admin, "GET", "/reset_counters").0, 405);
    assert_eq!(ask(admin, "POST", "/reset_counters"), (200, "OK\n".to_owned()));
    assert_eq!(get(&proxy, "/stats?filter=server.upstream_rq_total"), "cluster.server.upstream_rq_total: 0\n");
}

#[test]
fn readiness_follows_what_the_operator_says() {
    let server = Server::start();
    let proxy = start(&server);
    let (admin, ready) = (endpoint(&proxy, Purpose::Admin), endpoint(&proxy, Purpose::Ready));
    assert_eq!(ask(admin, "GET", "/ready"), (200, "LIVE\n".to_owned()));
    assert_eq!(ask(ready, "GET", "/healthz/ready").0, 200);
    assert_eq!(ask(ready, "GET", "/config_dump").0, 404);
    ask(admin, "POST", "/healthcheck/fail");
    assert_eq!(ask(admin, "GET", "/ready"), (503, "DRAINING\n".to_owned()));
    assert_eq!(ask(ready, "GET", "/healthz/ready").0, 503);
    ask(admin, "POST", "/healthcheck/ok");
    assert_eq!(ask(admin, "GET", "/ready").0, 200);
}

#[test]
fn only_whoever_is_on_this_machine_and_means_it_is_answered() {
    let server = Server::start();
    let proxy = start(&server);
    let admin = endpoint(&proxy, Purpose::Admin);
    for (request, status) in [
        ("GET /ready HTTP/1.1\r\nhost: 127.0.0.1:15000\r\n\r\n", 200),
        ("GET /ready HTTP/1.0\r\n\r\n", 200),
        ("GET /ready HTTP/1.1\r\nhost: [::1]:15000\r\n\r\n", 200),
        ("GET /ready HTTP/1.1\r\nhost: rebound.example\r\n\r\n", 403),
        ("POST /healthcheck/ok HTTP/1.1\r\nhost: localhost\r\norigin: https://page.example\r\n\r\n", 403),
        ("PUT /ready HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n", 405),
        ("GET /nothing HTTP/1.1\r\nhost: localhost\r\n\r\n", 404),
    ] {
        assert_eq!(raw(admin, request).0, status, "{request:?}");
    }
    let mut options = maille_proxy::Options::new(core::Node::default(), "");
    let everywhere = (Ipv4Addr::UNSPECIFIED, 0).into();
    options.endpoints.admin = Some(Bind { address: everywhere, otherwise: Otherwise::AnyPort });
    assert!(maille_proxy::run_fixed(options, Vec::new()).is_err());
}

#[test]
fn certificates_are_shown_and_keys_are_not() {
    let ca = rcgen::generate_simple_self_signed(vec!["spiffe.example".into()]).unwrap();
    let key = ca.signing_key.serialize_der();
    let server = Server::start();
    let workload = maille_identity::Workload {
        chain: vec![ca.cert.der().clone()],
        key: rustls::pki_types::PrivatePkcs8KeyDer::from(key.clone()).into(),
        roots: vec![ca.cert.der().clone()],
    };
    let (_renewals, own) = tokio::sync::watch::channel(Some(std::sync::Arc::new(workload)));
    let proxy = Proxy::build(server.address, |setup| {
        let any = Some(Bind { address: (Ipv4Addr::LOCALHOST, 0).into(), otherwise: Otherwise::Fail });
        setup.options.endpoints = Endpoints { admin: any, ..Endpoints::default() };
        setup.options.workload = Some(own);
    });
    let certs = get_json(&proxy, "/certs");
    let shown = &certs["certificates"][0]["cert_chain"][0];
    assert_eq!(shown["subject_alt_names"], json!([{"dns": "spiffe.example"}]), "{certs}");
    assert!(shown["days_until_expiration"].as_str().unwrap().parse::<u64>().unwrap() > 365, "{certs}");
    let dump = get(&proxy, "/config_dump");
    let parsed: Value = serde_json::from_str(&dump).unwrap();
    let secrets = &parsed["configs"][4]["dynamic_active_secrets"];
    assert_eq!((&secrets[0]["name"], &secrets[1]["name"]), (&json!("default"), &json!("ROOTCA")));
    let own = &secrets[0]["secret"]["tls_certificate"];
    assert_eq!(own["private_key"], json!({"inline_bytes": "W3JlZGFjdGVkXQ=="}));
    let chain =
        base64::engine::general_purpose::STANDARD.decode(own["certificate_chain"]["inline_bytes"].as_str().unwrap());
    assert!(String::from_utf8(chain.unwrap()).unwrap().starts_with("-----BEGIN CERTIFICATE-----\n"));
    let encoded = base64::engine::general_purpose::STANDARD.encode(&key);
    assert!(!dump.contains(&encoded[20..60]) && !certs.to_string().contains(&encoded[20..60]));
}
