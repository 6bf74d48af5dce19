//! Metadata, and a v1 Service.

use super::{check, check_with};

#[test]
fn names() {
    for (metadata, said) in [
        ("name: a.b, namespace: c", &[][..]),
        ("name: A, namespace: c", &["error metadata.name"]),
        ("name: a_b, namespace: c", &["error metadata.name"]),
        ("name: a, namespace: b.c", &["error metadata.namespace"]),
        ("name: a, namespace: b, labels: {'c d': e}", &[r#"error metadata.labels["c d"]"#]),
        ("name: a, namespace: b, annotations: {'c d': any thing}", &[r#"error metadata.annotations["c d"]"#]),
    ] {
        check_with("ServiceEntry", &format!("metadata: {{{metadata}}}"), &[("{hosts: [a.com]}", said)]);
    }
}

#[test]
fn services() {
    let ports = |ports: &str| format!("{{ports: [{ports}]}}");
    check(
        "Service",
        &[
            (&ports("{port: 80, targetPort: http}"), &[]),
            (&ports("{port: 80, name: a}, {port: 80, name: b, protocol: UDP}"), &[]),
            ("{}", &["error spec.ports"]),
            ("{clusterIP: None}", &[]),
            ("{type: ExternalName, externalName: a.com}", &[]),
            ("{type: ExternalName}", &["error spec.externalName"]),
            ("{type: Odd, ports: [{port: 80}]}", &["error spec.type"]),
            (&ports("{port: 80}, {port: 81}"), &["error spec.ports[0].name", "error spec.ports[1].name"]),
            (
                &ports("{port: 80, name: a}, {port: 80, name: a}"),
                &["error spec.ports[1].name", "error spec.ports[1].port"],
            ),
            (
                &ports("{port: 0, name: A, protocol: HTTP, targetPort: too-long-a-name-for-it}"),
                &[
                    "error spec.ports[0].name",
                    "error spec.ports[0].port",
                    "error spec.ports[0].protocol",
                    "error spec.ports[0].targetPort",
                ],
            ),
            (&ports("{port: 80, targetPort: 70000}"), &["error spec.ports[0].targetPort"]),
            (
                "{clusterIP: a, ports: [{port: 80}], selector: {a: '*'}}",
                &[r#"error spec.selector["a"]"#, "error spec.clusterIP"],
            ),
        ],
    );
}
