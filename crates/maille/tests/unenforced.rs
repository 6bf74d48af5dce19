//! Policies that nobody enforces, or not as they are written: `validate`, `up` and the log each name every one of them, with its place.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const MAILLE: &str = env!("CARGO_BIN_EXE_maille");

const MESH: &str = "\
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: foo}
spec: {selector: {app: shop}, ports: [{name: http, port: 8080}, {name: tcp-db, port: 5432}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: shop-1, namespace: foo}
spec: {address: 10.0.0.1, serviceAccount: shop, labels: {app: shop, security.istio.io/tlsMode: istio}}
---
apiVersion: v1
kind: Service
metadata: {name: old, namespace: foo}
spec: {ports: [{name: http, port: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: old-1, namespace: foo}
spec: {address: 10.0.0.2, labels: {app: old}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: plain, namespace: foo}
spec: {selector: {matchLabels: {app: shop}}, mtls: {mode: DISABLE}}
";

/// A policy's kind, name and what it says; and what is said of it.
const POLICIES: [(&str, &str, &str, &str); 11] = [
    (
        "AuthorizationPolicy",
        "selects-nothing",
        "{selector: {matchLabels: {app: nobody}}, rules: [{}]}",
        "its selector matches no workload: it does nothing",
    ),
    (
        "RequestAuthentication",
        "tokens-for-nobody",
        "{selector: {matchLabels: {app: nobody}}, jwtRules: []}",
        "its selector matches no workload: it does nothing",
    ),
    (
        "PeerAuthentication",
        "strict-for-nobody",
        "{selector: {matchLabels: {app: nobody}}, mtls: {mode: STRICT}}",
        "its selector matches no workload: it does nothing",
    ),
    (
        "AuthorizationPolicy",
        "no-sidecar",
        "{selector: {matchLabels: {app: old}}, rules: [{}]}",
        "no workload that its selector matches has a sidecar: nobody enforces it",
    ),
    (
        "AuthorizationPolicy",
        "http-allow-on-tcp",
        "{selector: {matchLabels: {app: shop}}, rules: [{to: [{operation: {methods: [GET]}}]}]}",
        "rule 0 has methods, which port 5432 (TCP) does not show: the rule allows nothing there",
    ),
    (
        "AuthorizationPolicy",
        "http-deny-on-tcp",
        "{action: DENY, selector: {matchLabels: {app: shop}}, rules: [{to: [{operation: {paths: [/admin]}}]}]}",
        "rule 0 has paths, which port 5432 (TCP) does not show: the rule is applied there without it",
    ),
    (
        "AuthorizationPolicy",
        "principal-without-tls",
        "{selector: {matchLabels: {app: shop}}, rules: [{from: [{source: {principals: [cluster.local/ns/foo/sa/a]}}]}]}",
        "rule 0 has principals, and mutual TLS is off for workloads it is for: nobody is known there",
    ),
    (
        "AuthorizationPolicy",
        "no-provider",
        "{action: CUSTOM, provider: {name: missing}, selector: {matchLabels: {app: shop}}, rules: [{}]}",
        "the mesh has no provider `missing` for external authorization: what its rules match is refused",
    ),
    (
        "AuthorizationPolicy",
        "for-a-gateway",
        "{action: DENY, targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}], rules: [{}]}",
        "it is for the Gateway edge, and only waypoints and gateways of the Gateway API are told of such a policy: \
         nobody enforces it; use a selector",
    ),
    (
        "AuthorizationPolicy",
        "for-a-service-entry",
        "{action: DENY, targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: db}], rules: [{}]}",
        "it is for the ServiceEntry db, and only waypoints and gateways of the Gateway API are told of such a policy: \
         nobody enforces it; use a selector",
    ),
    (
        "RequestAuthentication",
        "for-a-service",
        "{targetRefs: [{group: '', kind: Service, name: shop}], jwtRules: [{issuer: 'https://id.example', jwks: '{\"keys\":[]}'}]}",
        "it is for the Service shop, and only waypoints and gateways of the Gateway API are told of such a policy: \
         nobody enforces it; use a selector",
    ),
];

type Policy = (&'static str, &'static str, &'static str, &'static str);

fn write(folder: &Path, policies: &[Policy]) {
    fs::write(folder.join("mesh.yaml"), MESH).unwrap();
    for (kind, name, spec, _) in policies {
        let head = "# the policy begins below\napiVersion: security.istio.io/v1";
        let text = format!("{head}\nkind: {kind}\nmetadata: {{name: {name}, namespace: foo}}\nspec: {spec}\n");
        fs::write(folder.join(format!("{name}.yaml")), text).unwrap();
    }
}

/// Those of which a text does not say what it should, and where it stands.
fn missing(text: &str, policies: &[Policy], names_files: bool) -> Vec<String> {
    let said = |kind: &str, name: &str, message: &str| {
        let resource = format!("{kind} foo/{name}");
        let file = format!("{name}.yaml:2");
        text.contains(message)
            && text.lines().any(|line| line.contains(&resource))
            && (!names_files || text.lines().any(|line| line.contains(&file)))
    };
    let missing = policies.iter().filter(|(kind, name, _, message)| !said(kind, name, message));
    missing.map(|(_, name, ..)| (*name).to_owned()).collect()
}

#[test]
fn validate_names_them() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &POLICIES);
    let output = Command::new(MAILLE).args(["validate", "-f"]).arg(folder.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "they are warnings: {text}");
    assert_eq!(missing(&text, &POLICIES, true), [""; 0], "{text}");
}

#[test]
fn up_and_the_log_name_them() {
    // The screen shows a few at a time.
    for policies in POLICIES.chunks(4) {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config");
        fs::create_dir(&config).unwrap();
        write(&config, policies);
        let file = |name: &str| fs::File::create(folder.path().join(name)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut up = Command::new(MAILLE)
            .args(["up", "--xds-port", &port.to_string(), "-f"])
            .arg(&config)
            .env("XDG_RUNTIME_DIR", folder.path())
            .env("MAILLE_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(file("screen"))
            .stderr(file("log"))
            .spawn()
            .unwrap();
        let still_missing = || {
            let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
            let on_screen = missing(&read("screen"), policies, true);
            (on_screen, missing(&read("log"), policies, false), read("screen") + &read("log"))
        };
        let end = Instant::now() + Duration::from_secs(30);
        let (on_screen, in_log, text) = loop {
            let found = still_missing();
            if Instant::now() > end || (found.0.is_empty() && found.1.is_empty()) {
                break found;
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        assert!(Command::new("kill").args(["-TERM", &up.id().to_string()]).status().unwrap().success());
        up.wait().unwrap();
        assert_eq!((on_screen, in_log), (vec![], vec![]), "{text}");
    }
}
