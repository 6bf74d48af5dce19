use super::*;

fn node(id: &str, metadata: &[(&str, ValueKind)]) -> Node {
    let fields = metadata.iter().map(|(key, kind)| ((*key).to_owned(), Value { kind: Some(kind.clone()) })).collect();
    Node { id: id.to_owned(), metadata: Some(Struct { fields }), ..Node::default() }
}

fn text(text: &str) -> ValueKind {
    ValueKind::StringValue(text.to_owned())
}

fn map(entries: &[(&str, ValueKind)]) -> ValueKind {
    ValueKind::StructValue(node("", entries).metadata.unwrap_or_default())
}

#[test]
fn a_sidecar_introduces_itself() {
    let proxy = proxy_from_node(&node(
        "sidecar~127.1.2.3~reviews-1.shop~shop.svc.cluster.local",
        &[
            ("NAMESPACE", text("shop")),
            ("SERVICE_ACCOUNT", text("reviews")),
            ("INSTANCE_IPS", text("127.1.2.3,fe80::1")),
            ("LABELS", map(&[("app", text("reviews")), ("canary", ValueKind::BoolValue(true))])),
            ("INTERCEPTION_MODE", text("NONE")),
            ("HTTP_PROXY_PORT", text("15080")),
            ("APP_PORTS", map(&[("9080", ValueKind::NumberValue(41234.0))])),
            ("POD_PORTS", text(r#"[{"name": "http", "containerPort": 9080}, {"containerPort": 1}]"#)),
            ("REQUESTED_NETWORK_VIEW", text("n1, n2")),
            ("UNPRIVILEGED_POD", text("true")),
        ],
    ))
    .expect("a proxy");
    assert_eq!(proxy.kind, ProxyKind::Sidecar);
    assert_eq!((proxy.id.as_str(), proxy.namespace.as_str()), ("reviews-1.shop", "shop"));
    assert_eq!(proxy.ip_addresses, ["127.1.2.3", "fe80::1"]);
    assert_eq!(proxy.labels["canary"], "true");
    let metadata = &proxy.metadata;
    assert_eq!((metadata.interception_mode, metadata.http_proxy_port), (InterceptionMode::None, Some(15080)));
    assert_eq!(metadata.app_ports, Some(BTreeMap::from([(9080, 41234)])));
    assert_eq!(metadata.pod_ports, BTreeMap::from([("http".to_owned(), 9080)]));
    assert_eq!(metadata.requested_network_view, ["n1", "n2"]);
    assert!(metadata.unprivileged && !metadata.http10);
}

#[test]
fn without_metadata_the_domain_names_the_namespace() {
    let proxy = proxy_from_node(&node("router~10.0.0.1~gw.edge~edge.svc.cluster.local", &[])).expect("a proxy");
    assert_eq!((proxy.kind, proxy.namespace.as_str()), (ProxyKind::Router, "edge"));
    assert_eq!((proxy.metadata.namespace, proxy.metadata.app_ports), (None, None));
}

#[test]
fn a_bad_introduction_is_refused_by_name() {
    let good = "sidecar~10.0.0.1~a.b~b.svc.cluster.local";
    for (id, metadata, said) in [
        ("", &[][..], "is not TYPE~ADDRESS~NAME~DOMAIN"),
        ("sidecar~10.0.0.1~a", &[][..], "is not TYPE~ADDRESS~NAME~DOMAIN"),
        ("ztunnel~10.0.0.1~a.b~b.svc.cluster.local", &[][..], "begins with \"ztunnel\""),
        ("sidecar~10.0.0.1~a.b~", &[][..], "does not say its namespace"),
        (good, &[("HTTP_PROXY_PORT", text("many"))][..], "HTTP_PROXY_PORT"),
        (good, &[("HTTP_PROXY_PORT", text("70000"))][..], "a port number"),
        (good, &[("LABELS", text("app=x"))][..], "a map of texts"),
        (good, &[("APP_PORTS", map(&[("http", text("80"))]))][..], "a map of port numbers"),
    ] {
        let error = proxy_from_node(&node(id, metadata)).expect_err(id).to_string();
        assert!(error.contains(said), "{error}");
    }
}
