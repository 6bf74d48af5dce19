//! Gateway: servers, hosts, ports and TLS.

use super::{check, check_with};

const HTTP: &str = "port: {number: 80, name: http, protocol: HTTP}";

#[test]
fn servers_have_hosts_and_a_port() {
    let server = |server: &str| format!("{{servers: [{{{server}}}]}}");
    check(
        "Gateway",
        &[
            ("{}", &["error spec.servers"]),
            (&server(&format!("hosts: ['*'], {HTTP}")), &[]),
            (&server(&format!("hosts: ['shop/*.example.com', './a.example.com', '*/b.example.com'], {HTTP}")), &[]),
            (&server(&format!("hosts: ['10.1.2.3'], {HTTP}")), &[]),
            (&server(HTTP), &["error spec.servers[0].hosts"]),
            (&server("hosts: ['*']"), &["error spec.servers[0].port"]),
            (&server(&format!("hosts: [short], {HTTP}")), &["error spec.servers[0].hosts[0]"]),
            (&server(&format!("hosts: ['*a.example.com'], {HTTP}")), &["error spec.servers[0].hosts[0]"]),
            (&server(&format!("hosts: ['/a.example.com'], {HTTP}")), &["error spec.servers[0].hosts[0]"; 2]),
            (&server(&format!("hosts: ['~/a.example.com'], {HTTP}")), &["error spec.servers[0].hosts[0]"]),
            (&server(&format!("hosts: ['no_ns/a.example.com'], {HTTP}")), &["error spec.servers[0].hosts[0]"]),
            (&server("hosts: ['*'], port: {number: 80, protocol: HTTP}"), &["error spec.servers[0].port.name"]),
            (
                &server("hosts: ['*'], port: {number: 0, name: p, protocol: ODD, targetPort: 8}"),
                &[
                    "error spec.servers[0].port.protocol",
                    "error spec.servers[0].port.number",
                    "error spec.servers[0].port.targetPort",
                ],
            ),
            (
                &server("hosts: ['*'], port: {number: 65536, name: p, protocol: tcp}"),
                &["error spec.servers[0].port.number"],
            ),
        ],
    );
}

#[test]
fn ports_are_told_apart_by_name() {
    let twice = format!("{{servers: [{{hosts: ['*'], {HTTP}}}, {{hosts: [a.com], {HTTP}}}]}}");
    check("Gateway", &[(&twice, &["error spec.servers[1].port.name"])]);
}

#[test]
fn servers_bind_to_addresses_or_sockets() {
    let bound = |bind: &str, number: u32| {
        format!("{{servers: [{{hosts: ['*'], bind: '{bind}', port: {{number: {number}, name: p, protocol: HTTP}}}}]}}")
    };
    check(
        "Gateway",
        &[
            (&bound("127.0.0.1", 80), &[]),
            (&bound("::1", 80), &[]),
            (&bound("unix:///run/in.sock", 0), &[]),
            (&bound("unix://@in", 0), &[]),
            (&bound("example.com", 80), &["error spec.servers[0].bind"]),
            (&bound("unix://relative", 0), &["error spec.servers[0].bind"]),
            (&bound("unix:///run/", 0), &["error spec.servers[0].bind"]),
            (&bound("unix://", 0), &["error spec.servers[0].bind"]),
            (&bound("unix:///run/in.sock", 80), &["error spec.servers[0].port.number"]),
        ],
    );
}

#[test]
fn what_comes_from_the_gateway_api_has_freer_names() {
    let spec = format!("{{servers: [{{hosts: ['~/a.example.com'], {HTTP}}}]}}");
    let plain = "metadata: {name: with.dots, namespace: shop}";
    check_with("Gateway", plain, &[(&spec, &["error metadata.name", "error spec.servers[0].hosts[0]"])]);
    let made =
        "metadata: {name: with.dots, namespace: shop, annotations: {internal.istio.io/gateway-semantics: gateway}}";
    check_with("Gateway", made, &[(&spec, &[])]);
}

#[test]
fn tls_stands_where_the_protocol_says_so() {
    let with = |protocol: &str, tls: &str| {
        format!("{{servers: [{{hosts: ['*'], port: {{number: 443, name: p, protocol: {protocol}}}{tls}}}]}}")
    };
    check(
        "Gateway",
        &[
            (&with("HTTPS", ""), &["error spec.servers[0].tls"]),
            (&with("TLS", ", tls: {mode: PASSTHROUGH}"), &[]),
            (&with("HTTP", ", tls: {httpsRedirect: true}"), &[]),
            (&with("HTTP", ", tls: {mode: SIMPLE, credentialName: c}"), &["error spec.servers[0].tls"]),
            (&with("HTTP", ", tls: {privateKey: k}"), &["error spec.servers[0].tls", "warn spec.servers[0].tls"]),
            (&with("TCP", ", tls: {mode: SIMPLE, credentialName: c}"), &["error spec.servers[0].tls"]),
            (
                &with("HTTPS", ", tls: {mode: SIMPLE, credentialName: c, httpsRedirect: true}"),
                &["warn spec.servers[0].tls.httpsRedirect"],
            ),
        ],
    );
}

#[test]
fn tls_has_one_source_of_certificates() {
    let tls = |tls: &str| {
        format!("{{servers: [{{hosts: ['*'], port: {{number: 443, name: p, protocol: HTTPS}}, tls: {{{tls}}}}}]}}")
    };
    let at = |field: &str| format!("error spec.servers[0].tls{field}");
    let (own, certificate, key) = (at(""), at(".serverCertificate"), at(".privateKey"));
    let (authority, crl) = (at(".caCertificates"), at(".caCrl"));
    check(
        "Gateway",
        &[
            (&tls("mode: SIMPLE, serverCertificate: c, privateKey: k"), &[]),
            (&tls("mode: SIMPLE"), &[&certificate, &key]),
            (&tls("mode: MUTUAL, serverCertificate: c, privateKey: k"), &[&authority]),
            (&tls("mode: OPTIONAL_MUTUAL, caCertificates: a, serverCertificate: c"), &[&key]),
            (&tls("mode: MUTUAL, credentialNames: [a, b]"), &[]),
            (&tls("mode: SIMPLE, credentialName: a, credentialNames: [b]"), &[&own]),
            (&tls("mode: SIMPLE, credentialName: a, serverCertificate: c, privateKey: k"), &[&own]),
            (&tls("mode: SIMPLE, credentialName: a, serverCertificate: c"), &[]),
            (
                &tls("mode: SIMPLE, tlsCertificates: [{serverCertificate: c}, {privateKey: k}]"),
                &[&at(".tlsCertificates[0].privateKey"), &at(".tlsCertificates[1].serverCertificate")],
            ),
            (&tls("mode: SIMPLE, serverCertificate: c, privateKey: k, caCrl: l"), &[&crl]),
            (&tls("mode: MUTUAL, caCertificates: a, serverCertificate: c, privateKey: k, caCrl: l"), &[]),
            (&tls("mode: MUTUAL, credentialName: a, caCrl: l"), &[]),
            (&tls("mode: PASSTHROUGH, credentialName: a, caCrl: l"), &[&crl, "warn spec.servers[0].tls"]),
            (&tls("mode: ISTIO_MUTUAL"), &[]),
            (
                &tls("mode: ISTIO_MUTUAL, caCertificates: a, credentialName: c, credentialNames: [d]"),
                &[&authority, &at(".credentialName"), &at(".credentialNames")],
            ),
        ],
    );
}

#[test]
fn unknown_and_weak_ciphers_are_pointed_out() {
    let tls = |tls: &str| {
        let rest = "mode: SIMPLE, credentialName: c";
        format!(
            "{{servers: [{{hosts: ['*'], port: {{number: 443, name: p, protocol: HTTPS}}, tls: {{{rest}, {tls}}}}}]}}"
        )
    };
    check(
        "Gateway",
        &[
            (&tls("cipherSuites: [ALL, '-AES128-SHA', ECDHE-RSA-AES128-SHA, '']"), &[]),
            (
                &tls("cipherSuites: [AES128-SHA, ODD, AES128-SHA]"),
                &["warn spec.servers[0].tls.cipherSuites[1]", "warn spec.servers[0].tls.cipherSuites[2]"],
            ),
            (&tls("minProtocolVersion: TLSV1_1"), &["warn spec.servers[0].tls.minProtocolVersion"]),
            (&tls("minProtocolVersion: TLSV1_1, cipherSuites: [AES128-SHA]"), &[]),
        ],
    );
}
