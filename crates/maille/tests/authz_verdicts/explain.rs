//! What `maille explain` says about each request of a variant.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::client::Client;
use crate::variants::Variant;
use crate::{helpers, planes};

/// A status, or `closed`.
pub(crate) fn verdicts(variant: &Variant, client: &Client) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let mut objects = planes::objects(variant, client);
    objects.extend(mesh(variant));
    for (i, object) in objects.iter().enumerate() {
        fs::write(folder.path().join(format!("{i}.yaml")), object.to_string()).unwrap();
    }
    let mut process = Command::new(env!("CARGO_BIN_EXE_maille"))
        .args(["explain", "-o", "json", "--requests", "-", "-f"])
        .arg(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = process.stdin.take().unwrap();
    let mut lines = String::new();
    for request in &variant.requests {
        let mut headers: serde_json::Map<String, Value> = request
            .all_headers(|claims| client.token(claims))
            .into_iter()
            .map(|(name, value)| (name, value.into()))
            .collect();
        headers.insert("host".into(), request.host.as_str().into());
        let asked = json!({
            "at": format!("foo/{}", request.to.ip()),
            "to": format!("httpbin:{}", request.to.port()),
            "from": request.uri.iter().chain(Some(&request.subject).filter(|name| !name.is_empty())).collect::<Vec<_>>(),
            "sni": request.sni,
            "source_ip": request.source,
            "method": request.method,
            "path": request.path,
            "headers": headers,
            "protocol": if variant.http { "http" } else { "tcp" },
        });
        lines += &format!("{asked}\n");
    }
    std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = process.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let answers = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let said: Vec<String> = answers
        .zip(&variant.requests)
        .map(|(answer, request)| {
            // What the authorizer says is all that an explanation cannot know; that it is asked, it has to.
            let asks = answer["notes"].to_string().contains("would ask the external authorizer");
            let refused = asks && !helpers::lets_pass(request);
            if refused { "403".into() } else { short(&answer, variant.http) }
        })
        .collect();
    assert_eq!(said.len(), variant.requests.len(), "{} {:?}", variant.name, String::from_utf8_lossy(&output.stderr));
    said
}

/// The names in these sets are of other trust domains than the mesh's, which its TLS refuses: then it is what policies alone say.
fn short(answer: &Value, http: bool) -> String {
    let allowed = answer["hops"][0]["policiesAlone"].as_bool().unwrap_or_else(|| answer["allowed"] == json!(true));
    let status = if answer["hops"][0]["policiesAlone"].is_null() { answer["status"].as_u64() } else { Some(403) };
    match (allowed, http) {
        (true, _) => "200".into(),
        (false, true) => status.map_or_else(|| answer.to_string(), |status| status.to_string()),
        (false, false) => "closed".into(),
    }
}

/// The workloads that the requests go to.
fn mesh(variant: &Variant) -> Vec<Value> {
    let ports: BTreeSet<u16> = variant.requests.iter().map(|request| request.to.port()).collect();
    let addresses: BTreeSet<_> = variant.requests.iter().map(|request| *request.to.ip()).collect();
    let kind = if variant.http { "http" } else { "tcp" };
    let labels = json!({"app": "httpbin", "version": "v1"});
    let ports: Vec<Value> = ports.iter().map(|port| json!({"name": format!("{kind}-{port}"), "port": port})).collect();
    let mut objects = vec![
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "httpbin", "namespace": "foo"},
            "spec": {"selector": labels, "ports": ports}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"},
            "data": {"mesh": variant.mesh}}),
    ];
    for address in addresses {
        let mut labels = labels.clone();
        labels["security.istio.io/tlsMode"] = "istio".into();
        let name = format!("httpbin-{}", address.to_string().replace('.', "-"));
        objects.push(json!({"apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
            "metadata": {"name": name, "namespace": "foo"}, "spec": {"address": address, "labels": labels}}));
    }
    objects
}
