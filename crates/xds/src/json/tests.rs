use prost::Message;
use serde_json::{Value, json};

use super::Schema;
use super::known::timestamp;
use crate::types::core::{DataSource, data_source::Specifier};
use crate::types::{self, Any, Duration, UInt32Value, cluster, core, listener, tls};

fn print<M: Message + types::Name>(message: &M) -> Value {
    let Any { type_url, value } = types::any(message);
    Schema::load().print(&type_url, &value).expect("a message")
}

#[test]
fn every_kind_of_field() {
    let transport = core::TransportSocket {
        name: "tls".into(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(types::any(&tls::UpstreamTlsContext {
            sni: "a.b".into(),
            max_session_keys: Some(UInt32Value { value: 7 }),
            ..Default::default()
        }))),
    };
    let number = |n| types::Value { kind: Some(types::ValueKind::NumberValue(n)) };
    let struct_ = types::Struct { fields: [("n".to_owned(), number(1.0)), ("f".to_owned(), number(1.5))].into() };
    let cluster = cluster::Cluster {
        name: "outbound|80||a".into(),
        connect_timeout: Some(Duration { seconds: 1, nanos: 500_000_000 }),
        cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::Type(3)),
        lb_policy: 2,
        metadata: Some(core::Metadata {
            filter_metadata: [("istio".to_owned(), struct_)].into(),
            ..Default::default()
        }),
        transport_socket: Some(transport),
        wait_for_warm_on_init: Some(types::BoolValue { value: false }),
        ..Default::default()
    };
    assert_eq!(
        print(&cluster),
        json!({
            "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            "name": "outbound|80||a",
            "type": "EDS",
            "connect_timeout": "1.500s",
            "lb_policy": "RING_HASH",
            "metadata": {"filter_metadata": {"istio": {"n": 1, "f": 1.5}}},
            "wait_for_warm_on_init": false,
            "transport_socket": {"name": "tls", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": "a.b",
                "max_session_keys": 7,
            }},
        })
    );
    let matches = listener::FilterChainMatch {
        destination_port: Some(UInt32Value { value: 80 }),
        source_ports: vec![1, 2, 300],
        server_names: vec!["a".into()],
        ..Default::default()
    };
    let chain = listener::FilterChain { filter_chain_match: Some(matches), ..Default::default() };
    let printed = print(&listener::Listener { filter_chains: vec![chain], ..Default::default() });
    assert_eq!(
        printed["filter_chains"],
        json!([{"filter_chain_match": {"destination_port": 80, "source_ports": [1, 2, 300], "server_names": ["a"]}}])
    );
}

#[test]
fn secrets_are_blacked_out_and_nothing_else() {
    let inline =
        |text: &str| Some(DataSource { specifier: Some(Specifier::InlineBytes(text.into())), ..Default::default() });
    let certificate = tls::TlsCertificate {
        certificate_chain: inline("public"),
        private_key: inline("KEY MATERIAL"),
        password: Some(DataSource {
            specifier: Some(Specifier::InlineString("PASSWORD".into())),
            ..Default::default()
        }),
        ..Default::default()
    };
    let secret = tls::Secret { name: "x".into(), r#type: Some(tls::secret::Type::TlsCertificate(certificate)) };
    assert_eq!(
        print(&secret)["tls_certificate"],
        json!({
            "certificate_chain": {"inline_bytes": "cHVibGlj"},
            "private_key": {"inline_bytes": "W3JlZGFjdGVkXQ=="},
            "password": {"inline_string": "[redacted]"},
        })
    );
}

#[test]
fn times() {
    for (seconds, nanos, text) in [
        (0, 0, "1970-01-01T00:00:00Z"),
        (951_782_400, 0, "2000-02-29T00:00:00Z"),
        (1_709_251_199, 120_000_000, "2024-02-29T23:59:59.120Z"),
        (4_107_542_400, 1, "2100-03-01T00:00:00.000000001Z"),
    ] {
        assert_eq!(timestamp(seconds, nanos), text);
    }
}

#[test]
fn what_is_no_message_is_none() {
    let schema = Schema::load();
    let cluster = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    for bytes in [&b"\x0a\xff"[..], b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x0b", b"\x08\x01"] {
        assert!(schema.print(cluster, bytes).is_none(), "{bytes:?}");
    }
    assert!(schema.print("type.googleapis.com/nobody.knows.This", b"").is_none());
    // An `Any` inside an `Any`, without end.
    let mut nested = Any { type_url: cluster.into(), value: Vec::new() };
    for _ in 0..200 {
        nested = types::any(&nested);
    }
    let text = schema.print("type.googleapis.com/google.protobuf.Any", &nested.encode_to_vec()).map(|v| v.to_string());
    assert!(text.is_none_or(|text| text.len() < 20_000));
}
