//! What is counted and logged of requests: Istio's metrics, access logs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use maille_proxy::run::{Bind, Endpoints, Otherwise, Purpose};
use maille_xds::types::hcm::{HttpFilter, http_filter};
use maille_xds::types::istio::{STATS, StatsConfig};
use maille_xds::types::{self, Struct, ValueKind, accesslog, core, file_access_log};

use crate::admin::{ask, endpoint, exchange};
use crate::support::{Proxy, Server, Setup};

fn text(value: &str) -> types::Value {
    types::Value { kind: Some(ValueKind::StringValue(value.into())) }
}

fn object<const N: usize>(fields: [(&str, types::Value); N]) -> Struct {
    Struct { fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() }
}

fn endpoints(setup: &mut Setup) {
    let any = Some(Bind { address: ([127, 0, 0, 1], 0).into(), otherwise: Otherwise::Fail });
    setup.options.endpoints = Endpoints { admin: any, ..Endpoints::default() };
}

#[test]
fn requests_are_counted_by_istios_labels() {
    let server = Server::start();
    let proxy = Proxy::build(server.address, |setup| {
        endpoints(setup);
        let labels = object([("app", text("shop")), ("version", text("v3"))]);
        let labels = types::Value { kind: Some(ValueKind::StructValue(labels)) };
        let own = object([("WORKLOAD_NAME", text("shop-v3")), ("NAMESPACE", text("web")), ("LABELS", labels)]);
        setup.options.node.metadata = Some(own);
        let service = object([("host", text("a.b.svc")), ("name", text("a")), ("namespace", text("b"))]);
        let service = types::Value { kind: Some(ValueKind::StructValue(service)) };
        let services = types::Value { kind: Some(ValueKind::ListValue(types::ListValue { values: vec![service] })) };
        let metadata = |fields| core::Metadata {
            filter_metadata: [("istio".to_owned(), fields)].into(),
            ..core::Metadata::default()
        };
        setup.cluster.metadata = Some(metadata(object([("services", services)])));
        let hosts = setup.cluster.load_assignment.as_mut().unwrap();
        let workload = object([("workload", text("a-v1;b;a;v1;Kubernetes"))]);
        hosts.endpoints[0].lb_endpoints[0].metadata = Some(metadata(workload));
        let config = http_filter::ConfigType::TypedConfig(types::any(&StatsConfig::default()));
        let filter = HttpFilter { name: STATS.into(), config_type: Some(config), ..HttpFilter::default() };
        setup.manager.http_filters.insert(0, filter);
    });
    exchange(&proxy, &server);
    let mut client = proxy.connect();
    client.send("GET /a HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\n\r\n");
    let mut upstream = server.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ngrpc-status: 5\r\ncontent-length: 0\r\n\r\n");
    client.head();
    let labels = "reporter=\"source\",source_workload=\"shop-v3\",source_canonical_service=\"shop\",\
        source_canonical_revision=\"v3\",source_workload_namespace=\"web\",source_principal=\"unknown\",\
        source_app=\"shop\",source_version=\"v3\",source_cluster=\"unknown\",destination_workload=\"a-v1\",\
        destination_workload_namespace=\"b\",destination_principal=\"unknown\",destination_app=\"a\",\
        destination_version=\"v1\",destination_service=\"a.b.svc\",destination_canonical_service=\"a\",\
        destination_canonical_revision=\"v1\",destination_service_name=\"a\",destination_service_namespace=\"b\",\
        destination_cluster=\"Kubernetes\"";
    let end = "connection_security_policy=\"unknown\",response_code=\"200\"";
    for line in [
        format!(
            "istio_requests_total{{{labels},request_protocol=\"http\",{end},grpc_response_status=\"\",response_flags=\"-\"}} 1"
        ),
        format!(
            "istio_requests_total{{{labels},request_protocol=\"grpc\",{end},grpc_response_status=\"5\",response_flags=\"-\"}} 1"
        ),
        format!(
            "istio_response_bytes_sum{{{labels},request_protocol=\"http\",{end},grpc_response_status=\"\",response_flags=\"-\"}} 2"
        ),
    ] {
        wait_for(&proxy, &line);
    }
}

fn wait_for(proxy: &Proxy, line: &str) {
    let mut body = String::new();
    for _ in 0..2000 {
        body = ask(endpoint(proxy, Purpose::Admin), "GET", "/stats/prometheus").1;
        if body.lines().any(|l| l == line) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{line} is not in\n{}", body.lines().filter(|l| l.starts_with("istio_")).collect::<Vec<_>>().join("\n"));
}

/// A file that is nobody else's.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("maille-ops-{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

pub(crate) fn log_to(setup: &mut Setup, path: &Path, format: &str) {
    let format = core::SubstitutionFormatString {
        format: Some(core::substitution_format_string::Format::TextFormatSource(core::DataSource {
            specifier: Some(core::data_source::Specifier::InlineString(format.into())),
            ..Default::default()
        })),
        ..Default::default()
    };
    let config = file_access_log::FileAccessLog {
        path: path.to_string_lossy().into_owned(),
        access_log_format: Some(file_access_log::file_access_log::AccessLogFormat::LogFormat(format)),
    };
    setup.manager.access_log.push(accesslog::AccessLog {
        name: "log".into(),
        config_type: Some(accesslog::access_log::ConfigType::TypedConfig(types::any(&config))),
        ..Default::default()
    });
}

/// What a file says, once it has so many lines.
pub(crate) fn lines(path: &Path, count: usize) -> String {
    for _ in 0..2000 {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if text.lines().count() >= count {
            return text;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{count} lines never came to {path:?}")
}

#[test]
fn rotated_files_are_left_alone_once_logs_are_reopened() {
    let (path, old) = (scratch("rotated"), scratch("rotated.1"));
    let server = Server::start();
    let proxy = Proxy::build(server.address, |setup| {
        endpoints(setup);
        log_to(setup, &path, "%RESPONSE_CODE% %DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_PEER_URI_SAN%\n");
    });
    exchange(&proxy, &server);
    assert_eq!(lines(&path, 1), "200 - -\n");
    std::fs::rename(&path, &old).unwrap();
    assert_eq!(ask(endpoint(&proxy, Purpose::Admin), "POST", "/reopen_logs").0, 200);
    exchange(&proxy, &server);
    assert_eq!((lines(&path, 1).lines().count(), lines(&old, 1).lines().count()), (1, 1));
    let _ = (std::fs::remove_file(&path), std::fs::remove_file(&old));
}

#[test]
fn row_31_what_clients_say_does_not_break_out_of_a_log_line() {
    let path = scratch("row31");
    let server = Server::start();
    let proxy = Proxy::build(server.address, |setup| {
        log_to(setup, &path, "\"%REQ(USER-AGENT)%\" \"%REQ(:PATH)%\" %RESPONSE_CODE%\n");
    });
    let mut client = proxy.connect();
    client.send(&b"GET /a HTTP/1.1\r\nhost: a\r\nuser-agent: x\" 200 \\ \t.\r\n\r\n"[..]);
    let mut upstream = server.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    client.head();
    let mut bare = proxy.connect();
    bare.send("GET /b HTTP/1.1\r\nhost: a\r\nuser-agent: one\x1b[2Jtwo\r\n\r\n");
    let refused = bare.head();
    let text = lines(&path, 2);
    for line in text.lines() {
        let columns = line.split("\" \"").count();
        assert!(columns == 2 && line.starts_with('"'), "{line:?}");
        assert!(line.bytes().all(|b| (0x20..0x7f).contains(&b)), "{line:?}");
    }
    assert_eq!(text.lines().count(), 2, "{text} {refused}");
    let _ = std::fs::remove_file(&path);
}
