//! `maille authz check` and `maille explain` on a small mesh: what applies, what is refused, and by which line of which file, for
//! requests, TCP and TLS.

use std::fs;
use std::process::{Command, Output};

use serde_json::{Value, json};

const CONFIG: &str = "\
apiVersion: v1
kind: Service
metadata: {name: finance, namespace: foo}
spec: {selector: {app: finance}, ports: [{name: http, port: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: finance-1, namespace: foo}
spec: {address: 10.0.0.1, serviceAccount: finance, labels: {app: finance, security.istio.io/tlsMode: istio}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: foo}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: allow-sleep, namespace: foo}
spec:
  rules:
  - from: [{source: {principals: [cluster.local/ns/foo/sa/sleep]}}]
    to: [{operation: {methods: [GET], paths: [/public/*]}}]
";

/// A database behind a gateway, in the way of which are TLS that nobody opens, mutual TLS, and a rule about connections.
const STREAMS: &str = "\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: foo}
spec:
  selector: {app: edge}
  servers:
  - {port: {number: 443, name: tls, protocol: TLS}, tls: {mode: PASSTHROUGH}, hosts: [db.example]}
  - {port: {number: 9000, name: tcp, protocol: TCP}, hosts: ['*']}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: db, namespace: foo}
spec:
  hosts: [db.example]
  gateways: [edge]
  tls: [{match: [{port: 443, sniHosts: [db.example]}], route: [{destination: {host: db.foo.svc.cluster.local}}]}]
  tcp: [{match: [{port: 9000}], route: [{destination: {host: db.foo.svc.cluster.local}}]}]
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: foo}
spec: {selector: {app: db}, ports: [{name: tcp-db, port: 5432}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: db-1, namespace: foo}
spec: {address: 10.0.0.5, serviceAccount: db, labels: {app: db, security.istio.io/tlsMode: istio}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: foo}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: app-only, namespace: foo}
spec:
  selector: {matchLabels: {app: db}}
  rules:
  - from: [{source: {principals: ['*/ns/foo/sa/app']}}]
    to: [{operation: {ports: ['5432']}}]
";

fn maille(args: &[&str]) -> Output {
    maille_of(CONFIG, args)
}

fn maille_of(config: &str, args: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mesh.yaml");
    fs::write(&file, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_maille"));
    command.args(args).arg("-f").arg(&file).args(["-o", "json"]).output().unwrap()
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[test]
fn what_applies_to_a_workload() {
    for name in ["foo/finance-1", "finance.foo"] {
        let output = maille(&["authz", "check", name]);
        assert!(output.status.success(), "{output:?}");
        let workload = &json_of(&output)[0];
        assert_eq!(workload["mutualTls"]["mode"], "STRICT");
        let allow = &workload["authorization"]["ALLOW"][0];
        assert_eq!(allow["name"], "allow-sleep");
        assert!(allow["source"].as_str().unwrap().contains("mesh.yaml"), "{allow}");
    }
    let output = maille(&["authz", "check", "foo/nobody"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("foo/finance-1"), "{output:?}");
}

#[test]
fn who_may_call_whom() {
    for (from, path, method, passes) in [
        ("foo/sleep", "/public/x", "GET", true),
        ("foo/sleep", "/public/../private", "GET", false),
        ("foo/sleep", "/public/x", "POST", false),
        ("bar/sleep", "/public/x", "GET", false),
        ("spiffe://elsewhere/ns/foo/sa/sleep", "/public/x", "GET", false),
    ] {
        let args = ["explain", "--from", from, "--to", "finance.foo:8080", "--path", path, "--method", method];
        let output = maille(&args);
        let answer = json_of(&output);
        assert_eq!(answer["allowed"], json!(passes), "{from} {method} {path}: {answer}");
        assert_eq!(output.status.code(), Some(if passes { 0 } else { 1 }));
        if from.contains("elsewhere") {
            let error = answer["hops"][1]["error"].as_str().unwrap();
            assert!(error.contains("no name that is taken here"), "mutual TLS refuses other trust domains: {answer}");
        } else if !passes {
            let policy = &answer["hops"][1]["policy"];
            assert_eq!(policy["name"], "allow-sleep", "{answer}");
            assert!(policy["source"].as_str().unwrap().contains("mesh.yaml"));
        }
    }
}

#[test]
fn what_becomes_of_streams() {
    // What is asked; whether it passes; and of the hop that is named, fields and what they say.
    type Case<'a> = (&'a [&'a str], bool, usize, &'a [(&'a str, &'a str)]);
    let cases: &[Case<'_>] = &[
        (
            &["--from", "foo/app", "--to", "db.foo:5432", "--protocol", "tcp"],
            true,
            1,
            &[
                ("/tls", "mutual TLS ends here"),
                ("/mutualTls", "STRICT"),
                ("/tlsBy/source", "mesh.yaml:29"),
                ("/allowedBy/name", "app-only"),
                ("/allowedBy/source", "mesh.yaml:34"),
                ("/cluster", "inbound|5432||"),
            ],
        ),
        (
            &["--from", "foo/other", "--to", "db.foo:5432", "--protocol", "tcp"],
            false,
            1,
            &[("/error", "denied by policy"), ("/policy/source", "mesh.yaml:34")],
        ),
        // Nobody takes plain text there, whatever rules say.
        (
            &["--at", "foo/db-1", "--to", "db:5432", "--protocol", "tcp"],
            false,
            0,
            &[("/error", "no filter chains matched"), ("/tlsBy/name", "strict")],
        ),
        (
            &["--to", "db.example:443", "--protocol", "tls"],
            false,
            0,
            &[
                ("/tls", "TLS that goes through unopened"),
                ("/tlsBy/kind", "Gateway"),
                ("/by/kind", "VirtualService"),
                ("/by/source", "mesh.yaml:10"),
                ("/cluster", "outbound|5432||db.foo.svc.cluster.local"),
            ],
        ),
        (&["--to", "db.example:443", "--protocol", "tls"], false, 1, &[("/policy/name", "app-only")]),
        (&["--to", "other.example:443", "--protocol", "tls"], false, 0, &[("/error", "no filter chains matched")]),
        (
            &["--to", "db.example:9000", "--protocol", "tcp"],
            false,
            0,
            &[("/by/source", "mesh.yaml:10"), ("/tls", "plain text")],
        ),
        // A rule would let it in, and the mesh's TLS does not.
        (
            &["--at", "foo/db-1", "--to", "db:5432", "--protocol", "tcp", "--from", "spiffe://elsewhere/ns/foo/sa/app"],
            false,
            0,
            &[("/error", "the client's certificate has no name that is taken here"), ("/policiesAlone", "true")],
        ),
    ];
    for (args, passes, hop, said) in cases {
        let output = maille_of(STREAMS, &[&["explain"], *args].concat());
        let answer = json_of(&output);
        assert_eq!(answer["allowed"], json!(passes), "{args:?}: {answer}");
        let hop = &answer["hops"][*hop];
        for (field, wanted) in *said {
            let found = hop.pointer(field).map(|value| value.as_str().map_or(value.to_string(), str::to_owned));
            let found = found.unwrap_or_default();
            assert!(
                found.ends_with(wanted) || found.starts_with(wanted),
                "{args:?} {field}: {found:?}, not {wanted:?}, in {hop}"
            );
        }
    }
}
