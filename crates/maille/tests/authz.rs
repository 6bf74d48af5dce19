//! `maille authz check` and `maille explain` on a small mesh: what applies, what is refused, and by which line of which file.

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

fn maille(args: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mesh.yaml");
    fs::write(&file, CONFIG).unwrap();
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
        if !passes {
            let policy = &answer["hops"][1]["policy"];
            assert_eq!(policy["name"], "allow-sleep", "{answer}");
            assert!(policy["source"].as_str().unwrap().contains("mesh.yaml"));
        }
    }
}
