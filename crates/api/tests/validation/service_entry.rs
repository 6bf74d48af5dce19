//! ServiceEntry: hosts, addresses, ports, and what each resolution allows.

use super::{check, check_with};

#[test]
fn hosts_and_addresses() {
    check(
        "ServiceEntry",
        &[
            ("{hosts: [a.example.com]}", &[]),
            ("{hosts: ['*.example.com']}", &[]),
            ("{}", &["error spec.hosts"]),
            ("{hosts: ['*']}", &["error spec.hosts[0]"]),
            ("{hosts: [a_b.example.com]}", &["error spec.hosts[0]"]),
            ("{hosts: ['*a.example.com']}", &["warn spec.hosts[0]"]),
            ("{hosts: [a.com], addresses: [10.0.0.1, 10.0.0.0/8, 'fd00::/8', '2001:db8::1']}", &[]),
            (
                "{hosts: [a.com], addresses: [10.0.0, 10.0.0.0/33, a.com, 10.0.0.0/08]}",
                &[
                    "error spec.addresses[0]",
                    "error spec.addresses[1]",
                    "error spec.addresses[2]",
                    "error spec.addresses[3]",
                ],
            ),
            ("{hosts: [a.com], addresses: [10.0.0.0/8], resolution: STATIC}", &[]),
            ("{hosts: [a.com], addresses: [10.0.0.0/8], resolution: DNS}", &["error spec.addresses[0]"]),
        ],
    );
}

#[test]
fn selectors() {
    check(
        "ServiceEntry",
        &[
            ("{hosts: [a.com], resolution: STATIC, workloadSelector: {labels: {app: b}}}", &[]),
            ("{hosts: [a.com], workloadSelector: {labels: {app: b}}}", &["warn spec.workloadSelector"]),
            ("{hosts: [a.com], resolution: STATIC, workloadSelector: {}}", &["warn spec.workloadSelector"]),
            (
                "{hosts: [a.com], resolution: STATIC, workloadSelector: {labels: {app: '*'}}}",
                &[r#"error spec.workloadSelector.labels["app"]"#],
            ),
            (
                "{hosts: [a.com], resolution: STATIC, workloadSelector: {labels: {a: b}}, endpoints: [{address: 1.1.1.1}]}",
                &["error spec.workloadSelector"],
            ),
        ],
    );
}

#[test]
fn ports() {
    let ports = |ports: &str| format!("{{hosts: [a.com], resolution: DNS, ports: [{ports}]}}");
    check(
        "ServiceEntry",
        &[
            (&ports("{number: 80, name: http, protocol: HTTP, targetPort: 8080}, {number: 81, name: tcp}"), &[]),
            (
                &ports("{number: 80, name: a}, {number: 80, name: a}"),
                &["error spec.ports[1].name", "error spec.ports[1].number"],
            ),
            (&ports("{}"), &["error spec.ports[0].name", "error spec.ports[0].number"]),
            (
                &ports("{number: 70000, name: a.b, protocol: ODD, targetPort: 70000}"),
                &[
                    "error spec.ports[0].targetPort",
                    "error spec.ports[0].name",
                    "error spec.ports[0].protocol",
                    "error spec.ports[0].number",
                ],
            ),
            // Without an address there is nothing to tell TCP apart by.
            ("{hosts: [a.com], ports: [{number: 80, name: a}]}", &["warn spec.ports[0]"]),
            ("{hosts: [a.com], addresses: [10.0.0.1], ports: [{number: 80, name: a}]}", &[]),
            ("{hosts: [a.com], ports: [{number: 80, name: a, protocol: TLS}]}", &[]),
        ],
    );
    let without = "metadata: {name: a, namespace: b, labels: {networking.istio.io/enable-autoallocate-ip: 'False'}}";
    check_with("ServiceEntry", without, &[(&ports("{number: 80, name: a}"), &["warn spec.ports[0]"])]);
}

#[test]
fn endpoints_fit_the_resolution() {
    let with = |resolution: &str, endpoints: &str| {
        let ports = "ports: [{number: 80, name: http, protocol: HTTP}]";
        format!("{{hosts: [a.com], resolution: {resolution}, {ports}, endpoints: [{endpoints}]}}")
    };
    check(
        "ServiceEntry",
        &[
            (&with("NONE", "{address: 10.0.0.1}"), &["error spec.endpoints"]),
            (&with("STATIC", "{address: 10.0.0.1, ports: {http: 8080}}, {address: 'unix:///run/a'}"), &[]),
            (&with("STATIC", "{address: a.com}"), &["error spec.endpoints[0].address"]),
            (&with("STATIC", "{}"), &["error spec.endpoints[0].address"]),
            (&with("STATIC", "{network: other}"), &["warn spec.endpoints[0].address"]),
            (&with("STATIC", "{address: 'unix:///run/a', ports: {http: 1}}"), &["error spec.endpoints[0].ports"]),
            (&with("STATIC", "{address: 10.0.0.1, ports: {other: 1}}"), &[r#"error spec.endpoints[0].ports["other"]"#]),
            (&with("DNS", "{address: a.com, ports: {http: 1}}, {address: 10.0.0.1, labels: {a: b}}"), &[]),
            (
                &with("DNS", "{address: '*.a.com', labels: {a: '-'}}"),
                &["error spec.endpoints[0].address", r#"error spec.endpoints[0].labels["a"]"#],
            ),
            (&with("DNS_ROUND_ROBIN", "{address: a.com}"), &[]),
            (&with("DNS_ROUND_ROBIN", "{address: a.com}, {address: b.com}"), &["error spec.endpoints"]),
            ("{hosts: ['*.a.com'], resolution: DNS}", &["error spec.hosts[0]"]),
            ("{hosts: ['*.a.com'], resolution: DNS, endpoints: [{address: b.com}]}", &[]),
            (
                "{hosts: [a.com], resolution: STATIC, endpoints: [{address: 'unix:///run/a'}]}",
                &["error spec.endpoints[0].address"],
            ),
        ],
    );
}

#[test]
fn several_hosts_need_a_protocol_that_names_them() {
    let with = |rest: &str| format!("{{hosts: [a.com, b.com], endpoints: [], {rest}}}");
    check(
        "ServiceEntry",
        &[
            (&with("resolution: DNS, ports: [{number: 1, name: a, protocol: TLS}]"), &[]),
            (&with("resolution: DNS, ports: [{number: 1, name: a, protocol: TCP}]"), &["error spec.ports[0].protocol"]),
            (&with("resolution: NONE, addresses: [10.0.0.1], ports: [{number: 1, name: a}]"), &[]),
            (
                &with("resolution: DNS, addresses: [10.0.0.1], ports: [{number: 1, name: a, protocol: HTTPS}]"),
                &["warn spec.hosts"],
            ),
        ],
    );
}

#[test]
fn hosts_looked_up_for_each_request() {
    let spec = |rest: &str| format!("{{hosts: ['*.a.com'], resolution: DYNAMIC_DNS, {rest}}}");
    let inside = spec("location: MESH_INTERNAL, ports: [{number: 80, name: a, protocol: HTTP}]");
    check(
        "ServiceEntry",
        &[
            (&inside, &[]),
            (&spec("ports: [{number: 80, name: a, protocol: MONGO}]"), &["error spec.ports[0].protocol"]),
            (&spec("addresses: [10.0.0.1]"), &["error spec.addresses"]),
            (&spec("endpoints: [{address: 10.0.0.1}]"), &["error spec.endpoints"]),
            ("{hosts: [a.com], resolution: DYNAMIC_DNS}", &["error spec.hosts[0]"]),
            ("{hosts: ['*a.com'], resolution: DYNAMIC_DNS}", &[]),
        ],
    );
    let waypoint = "metadata: {name: a, namespace: b, labels: {istio.io/use-waypoint: w}}";
    check_with("ServiceEntry", waypoint, &[(&inside, &["error spec.location"])]);
}

#[test]
fn a_service_entry_can_be_exported_to_nobody() {
    check(
        "ServiceEntry",
        &[
            ("{hosts: [a.com], exportTo: ['~']}", &[]),
            ("{hosts: [a.com], exportTo: ['~', other]}", &["error spec.exportTo"]),
        ],
    );
}
