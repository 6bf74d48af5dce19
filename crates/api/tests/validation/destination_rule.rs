//! DestinationRule: hosts, subsets and traffic policies.

use super::{check, check_with};

#[test]
fn hosts_subsets_and_selectors() {
    check(
        "DestinationRule",
        &[
            ("{host: reviews}", &[]),
            ("{host: '*.example.com'}", &[]),
            ("{host: '*-a.example.com'}", &[]),
            ("{}", &["error spec.host"]),
            ("{host: a.*.com}", &["error spec.host"]),
            ("{host: 10.0.0.1}", &["error spec.host"]),
            ("{host: 'http://reviews'}", &["error spec.host"]),
            ("{host: a, subsets: [{name: v1}, {name: v1}]}", &["error spec.subsets[1].name"]),
            ("{host: a, subsets: [{name: v.1}, {}]}", &["error spec.subsets[0].name", "error spec.subsets[1].name"]),
            (
                "{host: a, subsets: [{name: v1, labels: {'a b': c, d: '-e', example.com/f: g, 'g/h/i': j}}]}",
                &[
                    r#"error spec.subsets[0].labels["a b"]"#,
                    r#"error spec.subsets[0].labels["d"]"#,
                    r#"error spec.subsets[0].labels["g/h/i"]"#,
                ],
            ),
            ("{host: a, workloadSelector: {matchLabels: {app: b}}}", &[]),
            ("{host: a, workloadSelector: {}}", &["warn spec.workloadSelector"]),
            (
                "{host: a, workloadSelector: {matchLabels: {'': b, c: '*'}}}",
                &[r#"error spec.workloadSelector.matchLabels[""]"#, r#"error spec.workloadSelector.matchLabels["c"]"#],
            ),
        ],
    );
}

#[test]
fn export_to() {
    let selected =
        |export: &str| format!("{{host: a, workloadSelector: {{matchLabels: {{a: b}}}}, exportTo: {export}}}");
    check(
        "DestinationRule",
        &[
            ("{host: a, exportTo: ['*']}", &[]),
            ("{host: a, exportTo: [., other]}", &[]),
            ("{host: a, exportTo: ['*', other]}", &["error spec.exportTo"]),
            ("{host: a, exportTo: [., shop]}", &["error spec.exportTo[1]"]),
            ("{host: a, exportTo: [other, other]}", &["error spec.exportTo[1]"]),
            ("{host: a, exportTo: ['~']}", &["error spec.exportTo[0]"]),
            ("{host: a, exportTo: [no_name]}", &["error spec.exportTo[0]"]),
            (&selected("[.]"), &[]),
            (&selected("[shop]"), &[]),
            (&selected("['*']"), &["error spec.exportTo"]),
            (&selected("[., other]"), &["error spec.exportTo"]),
        ],
    );
}

fn policy(policy: &str) -> String {
    format!("{{host: a, trafficPolicy: {policy}}}")
}

#[test]
fn policies_say_something() {
    check(
        "DestinationRule",
        &[
            (&policy("{}"), &["error spec.trafficPolicy"]),
            (&policy("{proxyProtocol: {version: V2}}"), &[]),
            (&policy("{retryBudget: {percent: 20}}"), &[]),
            (&policy("{retryBudget: {percent: 120}}"), &["error spec.trafficPolicy.retryBudget.percent"]),
            (&policy("{connectionPool: {}}"), &["error spec.trafficPolicy.connectionPool"]),
            (&policy("{proxyProtocol: {}, tunnel: {targetHost: a.com, targetPort: 1}}"), &["error spec.trafficPolicy"]),
            (&policy("{tunnel: {protocol: CONNECT, targetHost: 10.0.0.1, targetPort: 1}}"), &[]),
            (
                &policy("{tunnel: {protocol: GET, targetHost: '*.a.com'}}"),
                &[
                    "error spec.trafficPolicy.tunnel.protocol",
                    "error spec.trafficPolicy.tunnel.targetHost",
                    "error spec.trafficPolicy.tunnel.targetPort",
                ],
            ),
            (
                &policy("{portLevelSettings: [{port: {number: 80}}, {tls: {mode: SIMPLE}}]}"),
                &[
                    "error spec.trafficPolicy.portLevelSettings[0]",
                    "error spec.trafficPolicy.portLevelSettings[1].port",
                ],
            ),
        ],
    );
}

#[test]
fn connection_pools() {
    let tcp = |tcp: &str| policy(&format!("{{connectionPool: {{tcp: {tcp}}}}}"));
    let http = |http: &str| policy(&format!("{{connectionPool: {{http: {http}}}}}"));
    check(
        "DestinationRule",
        &[
            (&tcp("{maxConnections: 1, connectTimeout: 1ms, idleTimeout: 0s, tcpKeepalive: {time: 1s}}"), &[]),
            (&tcp("{maxConnections: -1}"), &["error spec.trafficPolicy.connectionPool.tcp.maxConnections"]),
            (&tcp("{connectTimeout: 0s}"), &["error spec.trafficPolicy.connectionPool.tcp.connectTimeout"]),
            (&tcp("{idleTimeout: 1.0005s}"), &["error spec.trafficPolicy.connectionPool.tcp.idleTimeout"]),
            (
                &tcp("{maxConnectionDuration: 10us, tcpKeepalive: {time: 0s, interval: -1s}}"),
                &[
                    "error spec.trafficPolicy.connectionPool.tcp.maxConnectionDuration",
                    "error spec.trafficPolicy.connectionPool.tcp.tcpKeepalive.time",
                    "error spec.trafficPolicy.connectionPool.tcp.tcpKeepalive.interval",
                ],
            ),
            (
                &http("{h2UpgradePolicy: UPGRADE, useClientProtocol: true}"),
                &["error spec.trafficPolicy.connectionPool.http.useClientProtocol"],
            ),
            (&http("{maxRetries: -1}"), &["error spec.trafficPolicy.connectionPool.http.maxRetries"]),
            (&http("{idleTimeout: 0s}"), &["error spec.trafficPolicy.connectionPool.http.idleTimeout"]),
            (
                &http("{http2KeepAlive: {interval: 1s}}"),
                &["error spec.trafficPolicy.connectionPool.http.http2KeepAlive.timeout"],
            ),
        ],
    );
}

#[test]
fn outlier_detection() {
    let outlier = |outlier: &str| policy(&format!("{{outlierDetection: {outlier}}}"));
    check(
        "DestinationRule",
        &[
            (&outlier("{consecutive5xxErrors: 3, interval: 1s, maxEjectionPercent: 100}"), &[]),
            (&outlier("{maxEjectionPercent: 101}"), &["error spec.trafficPolicy.outlierDetection.maxEjectionPercent"]),
            (&outlier("{baseEjectionTime: 0s}"), &["error spec.trafficPolicy.outlierDetection.baseEjectionTime"]),
            (
                &outlier("{consecutiveLocalOriginFailures: 2}"),
                &["error spec.trafficPolicy.outlierDetection.consecutiveLocalOriginFailures"],
            ),
            (&outlier("{consecutiveLocalOriginFailures: 2, splitExternalLocalOriginErrors: true}"), &[]),
            (&outlier("{consecutiveErrors: 2}"), &["warn spec.trafficPolicy.outlierDetection.consecutiveErrors"]),
            // Deprecation is only spoken of at the top, as Istio does.
            ("{host: a, subsets: [{name: b, trafficPolicy: {outlierDetection: {consecutiveErrors: 2}}}]}", &[]),
        ],
    );
}

#[test]
fn load_balancing() {
    let balancer = |balancer: &str| policy(&format!("{{loadBalancer: {balancer}}}"));
    let hash = |hash: &str| balancer(&format!("{{consistentHash: {hash}}}"));
    let at = "spec.trafficPolicy.loadBalancer";
    let table = format!("error {at}.consistentHash.maglev.tableSize");
    check(
        "DestinationRule",
        &[
            (&balancer("{simple: RANDOM}"), &[]),
            (&hash("{httpHeaderName: x, maglev: {tableSize: 65537}}"), &[]),
            (&hash("{httpHeaderName: x, maglev: {tableSize: 65536}}"), &[&table]),
            (&hash("{httpHeaderName: x, maglev: {}}"), &[&table]),
            (&hash("{httpHeaderName: x, maglev: {tableSize: 5000011}}"), &[&table]),
            (&hash("{httpHeaderName: x, maglev: {tableSize: 49}}"), &[&table]),
            (
                &hash("{useSourceIp: true, minimumRingSize: 8, ringHash: {}}"),
                &[
                    &format!("error {at}.consistentHash.minimumRingSize"),
                    &format!("warn {at}.consistentHash.minimumRingSize"),
                ],
            ),
            (&hash("{httpCookie: {ttl: 1s}}"), &[&format!("error {at}.consistentHash.httpCookie.name")]),
            (
                &hash("{httpCookie: {name: a, ttl: 1s, attributes: [{name: b}, {}, {name: b}]}}"),
                &[
                    &format!("error {at}.consistentHash.httpCookie.attributes[1].name"),
                    &format!("error {at}.consistentHash.httpCookie.attributes[2].name"),
                ],
            ),
            (&balancer("{warmup: {duration: 1s, aggression: 0}}"), &[&format!("error {at}.warmup.aggression")]),
            (&balancer("{warmup: {minimumPercent: 1}}"), &[&format!("error {at}.warmup.duration")]),
            (&balancer("{warmupDurationSecs: 1s, warmup: {duration: 1s}}"), &[&format!("error {at}")]),
        ],
    );
}

#[test]
fn localities() {
    let locality = |locality: &str| {
        policy(&format!("{{outlierDetection: {{}}, loadBalancer: {{localityLbSetting: {locality}}}}}"))
    };
    let distribute = |from: &str, to: &str| locality(&format!("{{distribute: [{{from: '{from}', to: {{{to}}}}}]}}"));
    let at = "error spec.trafficPolicy.loadBalancer.localityLbSetting";
    let shares = format!("{at}.distribute[0].to");
    check(
        "DestinationRule",
        &[
            (&distribute("a/b/*", "'a/b/*': 80, 'a/c/*': 20"), &[]),
            (&distribute("a", "a: 80, b: 30"), &[&shares]),
            (&distribute("a", "a: 100, b: 0"), &[&shares]),
            (&distribute("a", "a: 50, a/b: 50"), &[&shares]),
            (&distribute("a", "a//c: 100"), &[&shares]),
            (&distribute("a/*/c", "b: 100"), &[&format!("{at}.distribute")]),
            (
                &locality("{distribute: [{from: a, to: {a: 100}}, {from: a/b, to: {a: 100}}]}"),
                &[&format!("{at}.distribute")],
            ),
            (&locality("{distribute: [{from: a/b, to: {a: 100}}, {from: 'a/*', to: {a: 100}}]}"), &[]),
            (&locality("{distribute: [{from: a, to: {a: 100}}], failover: [{from: a, to: b}]}"), &[at]),
            (&locality("{failover: [{from: a, to: b}]}"), &[]),
            (&locality("{failover: [{from: a, to: a}]}"), &[&format!("{at}.failover[0]")]),
            (&locality("{failover: [{from: a/b, to: c}]}"), &[&format!("{at}.failover[0]")]),
            (&locality("{failover: [{from: a, to: 'b*'}]}"), &[&format!("{at}.failover[0]")]),
            (
                &locality("{failover: [{from: a, to: b}], failoverPriority: [x, topology.kubernetes.io/zone]}"),
                &[&format!("{at}.failoverPriority[1]")],
            ),
            (
                &policy("{loadBalancer: {localityLbSetting: {failoverPriority: [x]}}}"),
                &["warn spec.trafficPolicy.loadBalancer.localityLbSetting"],
            ),
            (
                &policy("{loadBalancer: {zoneAwareLbSetting: {failoverPriority: [topology.istio.io/subzone]}}}"),
                &[
                    "error spec.trafficPolicy.loadBalancer.zoneAwareLbSetting.failoverPriority[0]",
                    "warn spec.trafficPolicy.loadBalancer.zoneAwareLbSetting",
                ],
            ),
        ],
    );
}

#[test]
fn client_tls() {
    let tls = |tls: &str| policy(&format!("{{tls: {tls}}}"));
    let at = "error spec.trafficPolicy.tls";
    let credential = format!("{at}.credentialName");
    check(
        "DestinationRule",
        &[
            (&tls("{mode: ISTIO_MUTUAL}"), &[]),
            (&tls("{mode: MUTUAL}"), &[&format!("{at}.clientCertificate"), &format!("{at}.privateKey")]),
            (&tls("{mode: MUTUAL, credentialName: a}"), &[]),
            (&tls("{mode: SIMPLE, credentialName: a, caCrl: b}"), &[&credential]),
            (&tls("{mode: SIMPLE, credentialName: 'configmap://shop/a'}"), &[]),
            (&tls("{mode: SIMPLE, credentialName: 'configmap://other/a'}"), &[&credential]),
            (&tls("{mode: SIMPLE, credentialName: 'configmap://a'}"), &[&credential]),
            (
                &tls("{mode: SIMPLE, insecureSkipVerify: true, subjectAltNames: [a]}"),
                &[&format!("{at}.subjectAltNames")],
            ),
            (&tls("{mode: SIMPLE, insecureSkipVerify: true, credentialName: a}"), &[&credential]),
            (&tls("{mode: MUTUAL, insecureSkipVerify: true, credentialName: a}"), &[]),
            (&tls("{mode: ISTIO_MUTUAL, insecureSkipVerify: true, caCertificates: a}"), &[]),
        ],
    );
}

#[test]
fn annotations_that_are_not_for_people() {
    let annotated = |annotation: &str| format!("metadata: {{name: a, namespace: b, annotations: {{{annotation}}}}}");
    for annotation in [
        "istio.io/dry-run",
        "internal.istio.io/webhook-always-reject",
        "internal.istio.io/parents",
        "internal.istio.io/parent-namespace",
    ] {
        let said = format!("error metadata.annotations[\"{annotation}\"]");
        check_with("DestinationRule", &annotated(&format!("{annotation}: 'true'")), &[("{host: a}", &[&said])]);
    }
    check_with("DestinationRule", &annotated("example.com/a: b"), &[("{host: a}", &[])]);
}
