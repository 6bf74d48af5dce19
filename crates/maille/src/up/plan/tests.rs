//! Gateways in, proxies and ports out.

use super::*;

fn gateways(yaml: &str) -> Vec<Arc<Object>> {
    let loaded = maille_api::parse::load(yaml, "test.yaml");
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    loaded.objects
}

/// `namespace/name selector selector`, the created year as a month of 2026, and ports.
fn gateway(name: &str, month: u32, selector: &str, ports: &[u16]) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    let servers: Vec<_> = ports
        .iter()
        .map(|port| {
            format!("{{port: {{number: {port}, name: http-{port}, protocol: HTTP}}, hosts: ['{name}.example']}}")
        })
        .collect();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: {namespace}, creationTimestamp: '2026-{month:02}-01T00:00:00Z'}}\nspec: {{selector: {{{selector}}}, servers: [{}]}}\n---\n",
        servers.join(", ")
    )
}

/// `NAMESPACE/NAME port>moved port …`, one line a proxy.
fn check(yaml: &[String], privileged: &[u16], expected: &[&str]) {
    let planned = plan(&gateways(&yaml.concat()), |port| !privileged.contains(&port));
    let lines: Vec<_> = planned
        .iter()
        .map(|p| {
            let ports = p.ports.iter().map(|(port, at)| match at.moved {
                Some((moved, Why::Privileged)) => format!(" {port}>{moved}"),
                Some((moved, Why::Taken)) => format!(" {port}!{moved}"),
                None => format!(" {port}"),
            });
            format!("{}/{}{}", p.namespace, p.name, ports.collect::<String>())
        })
        .collect();
    assert_eq!(lines, expected);
}

#[test]
fn one_proxy_for_each_selector_where_istio_would_run_it() {
    check(&[], &[], &[]);
    check(
        &[
            gateway("shop/a", 2, "istio: ingressgateway", &[8080]),
            gateway("apps/b", 3, "istio: egressgateway", &[8081]),
            gateway("apps/c", 4, "app: vm-gateway-controller", &[8082]),
            gateway("aaa/d", 5, "app: vm-gateway-controller", &[8083]),
            gateway("aaa/e", 6, "istio: ingressgateway", &[8080, 8443]),
        ],
        &[],
        &[
            "istio-system/istio-ingressgateway 8080 8443",
            "istio-system/istio-egressgateway 8081",
            "apps/vm-gateway-controller 8082 8083",
        ],
    );
}

#[test]
fn the_oldest_gateway_decides_the_namespace_whatever_the_order_of_files() {
    check(
        &[gateway("young/a", 9, "app: edge", &[8080]), gateway("old/z", 1, "app: edge", &[8081])],
        &[],
        &["old/edge 8080 8081"],
    );
}

#[test]
fn names_are_unique_in_their_namespace() {
    check(
        &[gateway("shop/a", 1, "app: edge", &[1080]), gateway("shop/b", 2, "role: edge", &[1081])],
        &[],
        &["shop/edge 1080", "shop/edge-2 1081"],
    );
}

#[test]
fn a_selector_that_says_less_is_served_by_every_proxy_that_says_more() {
    check(
        &[gateway("shop/a", 1, "app: edge", &[1080]), gateway("shop/b", 2, "app: edge, zone: a", &[1081])],
        &[],
        &["shop/edge 1080", "shop/edge-a 1080!9080 1081"],
    );
}

#[test]
fn a_gateway_without_a_selector_goes_with_the_others_or_gets_a_proxy() {
    check(&[gateway("shop/a", 1, "", &[8080])], &[], &["shop/gateway 8080"]);
    check(
        &[gateway("shop/a", 1, "", &[8080]), gateway("shop/b", 2, "app: edge", &[8081])],
        &[],
        &["shop/edge 8080 8081"],
    );
}

#[test]
fn ports_that_cannot_be_had_move_and_never_onto_another() {
    check(&[gateway("shop/a", 1, "app: edge", &[80, 443])], &[80, 443], &["shop/edge 80>8080 443>8443"]);
    // 8080 is somebody's own: 80 moves past it.
    check(
        &[gateway("shop/a", 1, "app: edge", &[80]), gateway("shop/b", 2, "app: other", &[8080])],
        &[80],
        &["shop/edge 80>8081", "shop/other 8080"],
    );
    check(
        &[gateway("shop/a", 1, "app: edge", &[8080]), gateway("shop/b", 2, "app: other", &[8080])],
        &[],
        &["shop/edge 8080", "shop/other 8080!16080"],
    );
    check(
        &[gateway("shop/a", 1, "app: edge", &[65000]), gateway("shop/b", 2, "app: other", &[65000])],
        &[],
        &["shop/edge 65000", "shop/other 65000!65001"],
    );
}
