//! WorkloadEntry and WorkloadGroup.

use super::check;

#[test]
fn entries() {
    check(
        "WorkloadEntry",
        &[
            ("{address: 10.0.0.1, ports: {http: 80}, labels: {app: a}}", &[]),
            ("{address: 'fe80::1%eth0'}", &[]),
            ("{address: a.com}", &[]),
            ("{address: 'unix://@a'}", &[]),
            ("{}", &["error spec.address"]),
            ("{network: other}", &["warn spec.address"]),
            ("{address: '*.a.com'}", &["error spec.address"]),
            ("{address: 1.2.3}", &["error spec.address"]),
            ("{address: 'unix:///a', ports: {http: 80}}", &["error spec.ports"]),
            ("{address: a.com, ports: {a.b: 80, c: 0}}", &[r#"error spec.ports["a.b"]"#, r#"error spec.ports["c"]"#]),
            ("{address: a.com, labels: {'a/': b}}", &[r#"error spec.labels["a/"]"#]),
        ],
    );
}

#[test]
fn groups() {
    let probe = |probe: &str| format!("{{template: {{}}, probe: {{{probe}}}}}");
    check(
        "WorkloadGroup",
        &[
            ("{template: {}}", &[]),
            ("{}", &["error spec.template"]),
            ("{template: {ports: {http: 70000}}}", &[r#"error spec.template.ports["http"]"#]),
            ("{template: {}, metadata: {labels: {a: '*'}}}", &[r#"error spec.metadata.labels["a"]"#]),
            (&probe("httpGet: {port: 80, scheme: HTTPS, httpHeaders: [{name: a-b}]}"), &[]),
            (
                &probe("httpGet: {port: 0, scheme: https, httpHeaders: [{name: a_b}, {}]}"),
                &[
                    "error spec.probe.httpGet.port",
                    "error spec.probe.httpGet.scheme",
                    "error spec.probe.httpGet.httpHeaders[0].name",
                    "error spec.probe.httpGet.httpHeaders[1].name",
                ],
            ),
            (&probe("tcpSocket: {}"), &["error spec.probe.tcpSocket.port"]),
            (&probe("exec: {}"), &["error spec.probe.exec.command"]),
            (&probe("grpc: {port: 80}"), &["error spec.probe.grpc"]),
            (&probe("periodSeconds: -1, exec: {command: [a]}"), &["error spec.probe.periodSeconds"]),
            (&probe(""), &["error spec.probe"]),
        ],
    );
}
