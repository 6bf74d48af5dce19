//! Sidecar: ingress, egress, and what becomes of the rest.

use super::check;

#[test]
fn a_sidecar_says_something() {
    check(
        "Sidecar",
        &[
            ("{}", &["error spec"]),
            ("{workloadSelector: {labels: {a: b}}, egress: [{hosts: ['./*']}]}", &[]),
            ("{workloadSelector: {}, egress: [{hosts: ['./*']}]}", &["warn spec.workloadSelector"]),
            (
                "{workloadSelector: {labels: {a: 'b*'}}, egress: [{hosts: ['./*']}]}",
                &[r#"error spec.workloadSelector.labels["a"]"#],
            ),
            ("{inboundConnectionPool: {}}", &["error spec.inboundConnectionPool"]),
            ("{outboundTrafficPolicy: {}}", &[]),
        ],
    );
}

#[test]
fn ingress_listeners() {
    let ingress = |rest: &str| format!("{{ingress: [{{port: {{number: 80, name: a, protocol: HTTP}}, {rest}}}]}}");
    let endpoint = |endpoint: &str| ingress(&format!("defaultEndpoint: '{endpoint}'"));
    check(
        "Sidecar",
        &[
            (&ingress("bind: 10.0.0.1"), &[]),
            (&ingress("bind: a.com"), &["error spec.ingress[0].bind"]),
            (&endpoint("127.0.0.1:8080"), &[]),
            (&endpoint(":8080"), &[]),
            (&endpoint("[::]:8080"), &[]),
            (&endpoint("unix:///run/a"), &[]),
            (&endpoint("unix://a"), &["error spec.ingress[0].defaultEndpoint"]),
            (&endpoint("10.0.0.1:8080"), &["error spec.ingress[0].defaultEndpoint"]),
            (&endpoint("127.0.0.1"), &["error spec.ingress[0].defaultEndpoint"]),
            (&endpoint("::1:80"), &["error spec.ingress[0].defaultEndpoint"]),
            (&endpoint("127.0.0.1:http"), &["error spec.ingress[0].defaultEndpoint"]),
            (&endpoint("127.0.0.1:70000"), &["error spec.ingress[0].defaultEndpoint"]),
            ("{ingress: [{}]}", &["error spec.ingress[0].port"]),
            (
                "{ingress: [{port: {number: 0, name: a.b, protocol: ODD, targetPort: 1}}]}",
                &[
                    "error spec.ingress[0].port.targetPort",
                    "error spec.ingress[0].port.name",
                    "error spec.ingress[0].port.protocol",
                    "error spec.ingress[0].port.number",
                ],
            ),
            ("{ingress: [{port: {number: 1}}, {port: {number: 1}}]}", &["error spec.ingress[1].port.number"]),
            (
                "{ingress: [{port: {number: 1, protocol: TCP}, connectionPool: {http: {maxRetries: 1}}}]}",
                &["warn spec.ingress[0].connectionPool.http"],
            ),
        ],
    );
}

#[test]
fn ingress_tls_is_by_file() {
    let tls = |protocol: &str, tls: &str| {
        format!("{{ingress: [{{port: {{number: 443, protocol: {protocol}}}, tls: {{{tls}}}}}]}}")
    };
    let at = "error spec.ingress[0].tls";
    check(
        "Sidecar",
        &[
            (&tls("HTTPS", "mode: SIMPLE, serverCertificate: a, privateKey: b"), &[]),
            (&tls("HTTP", "mode: SIMPLE, serverCertificate: a, privateKey: b"), &[at]),
            (&tls("HTTPS", "mode: ISTIO_MUTUAL"), &[&format!("{at}.mode")]),
            (&tls("HTTPS", "mode: SIMPLE, credentialName: a"), &[&format!("{at}.credentialName")]),
            (
                &tls("HTTPS", "mode: SIMPLE, serverCertificate: a, privateKey: b, httpsRedirect: true"),
                &[&format!("{at}.httpsRedirect")],
            ),
        ],
    );
}

#[test]
fn egress_listeners() {
    let egress = |rest: &str| format!("{{egress: [{{hosts: ['*/*'], {rest}}}]}}");
    check(
        "Sidecar",
        &[
            (&egress("port: {number: 80, protocol: HTTP}, bind: 127.0.0.1"), &[]),
            (&egress("port: {number: 80}, bind: 'unix:///a'"), &["error spec.egress[0].bind"]),
            (&egress("port: {protocol: HTTP}, bind: 'unix:///a', captureMode: NONE"), &[]),
            (&egress("port: {}, bind: 'unix:///a', captureMode: IPTABLES"), &["error spec.egress[0].captureMode"]),
            (&egress("port: {}, bind: 'unix:///a/'"), &["error spec.egress[0].bind"]),
            (&egress("port: {}"), &["error spec.egress[0].port.number"]),
            ("{egress: [{}]}", &["error spec.egress[0].hosts"]),
            ("{egress: [{hosts: ['*/*']}, {hosts: ['*/*']}]}", &["error spec.egress[0].port"]),
            (
                "{egress: [{port: {number: 1}, hosts: ['*/*']}, {port: {number: 1}, hosts: ['*/*']}]}",
                &["error spec.egress[1].port"],
            ),
        ],
    );
}

#[test]
fn egress_hosts() {
    let hosts = |hosts: &str| format!("{{egress: [{{hosts: [{hosts}]}}]}}");
    check(
        "Sidecar",
        &[
            (&hosts("./a.com, other/*, '*/*.b.com'"), &[]),
            (&hosts("'*/*', '~other/*'"), &[]),
            (&hosts("a.com"), &["error spec.egress[0].hosts[0]"]),
            (&hosts("./short"), &["error spec.egress[0].hosts[0]"]),
            (&hosts("./a*.com"), &["error spec.egress[0].hosts[0]"; 2]),
            (&hosts("'./*a.com'"), &["error spec.egress[0].hosts[0]"]),
            (&hosts("no_ns/a.com"), &["error spec.egress[0].hosts[0]"]),
            (&hosts("./10.0.0.1"), &["error spec.egress[0].hosts[0]"]),
            (&hosts("./a.com, shop/a.com"), &["warn spec.egress[0].hosts[1]"]),
            (&hosts("./*, ./a.com"), &["warn spec.egress[0].hosts[1]"]),
            (&hosts("./a.com, ./*"), &["warn spec.egress[0].hosts[1]"]),
            (&hosts("'*/*', other/a.com"), &["warn spec.egress[0].hosts"]),
        ],
    );
}

#[test]
fn the_egress_proxy() {
    let policy = |policy: &str| format!("{{outboundTrafficPolicy: {{{policy}}}}}");
    let at = "error spec.outboundTrafficPolicy.egressProxy";
    check(
        "Sidecar",
        &[
            (&policy("mode: ALLOW_ANY, egressProxy: {host: a.com, port: {number: 1}}"), &[]),
            (&policy("egressProxy: {host: a.com, port: {number: 1}}"), &[at]),
            (&policy("mode: ALLOW_ANY, egressProxy: {host: '*.a.com', port: {number: 1}}"), &[&format!("{at}.host")]),
            (&policy("mode: ALLOW_ANY, egressProxy: {host: a.com}"), &[&format!("{at}.port")]),
            (&policy("mode: ALLOW_ANY, egressProxy: {host: a.com, port: {}}"), &[&format!("{at}.port.number")]),
        ],
    );
}
