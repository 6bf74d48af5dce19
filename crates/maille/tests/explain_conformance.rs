//! Explanations against what a real Istio and Envoy answered: the same verdict for every recorded request, and the policy that gave it.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

#[test]
fn explain_conformance() {
    let Some(folder) = folder() else { return };
    let base = fs::read_to_string(folder.join("base.yaml")).unwrap();
    let cases = fs::read_to_string(folder.join("cases.jsonl")).unwrap();
    let (mut asked, mut wrong) = (0, Vec::new());
    for (number, line) in cases.lines().enumerate() {
        let case: Value = serde_json::from_str(line).unwrap();
        let port = (8100 + number).to_string();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("base.yaml"), base.replace("${a}", "9999")).unwrap();
        let config = case["config"].as_str().unwrap().replace(&gateway_port(&case), &port);
        fs::write(folder.path().join("case.yaml"), config).unwrap();
        let requests = case["requests"].as_array().unwrap();
        let answers = explain(folder.path(), &port, requests);
        assert_eq!(answers.len(), requests.len(), "{}", case["name"]);
        for (request, answer) in requests.iter().zip(&answers) {
            asked += 1;
            let recorded = request["got"]["status"].as_u64();
            let explained = if answer["allowed"] == json!(true) { Some(200) } else { answer["status"].as_u64() };
            if recorded != explained {
                wrong.push(format!("{} {}: {recorded:?}, explained {answer}", case["name"], request["send"]));
            }
            if recorded == Some(403) && answer["hops"][0]["policy"]["source"].as_str().is_none() {
                wrong.push(format!("{} {}: no policy is named: {answer}", case["name"], request["send"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {asked}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(asked > 600, "only {asked} requests found");
}

fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("CONFORMANCE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance"), PathBuf::from);
    let folder = folder.join("recorded/policy");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: there is no {}", folder.display());
    None
}

/// As the case writes it: `${g3}`.
fn gateway_port(case: &Value) -> String {
    case["requests"][0]["send"]["port"].as_str().unwrap().to_owned()
}

fn explain(folder: &Path, port: &str, requests: &[Value]) -> Vec<Value> {
    let mut process = Command::new(env!("CARGO_BIN_EXE_maille"))
        .args(["explain", "-o", "json", "--requests", "-", "-f"])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = process.stdin.take().unwrap();
    for request in requests {
        let send = &request["send"];
        let asked = json!({
            "to": format!("{}:{port}", send["host"].as_str().unwrap()),
            "method": send["method"].as_str().unwrap_or("GET"),
            "path": send["path"].as_str().unwrap_or("/"),
            "headers": send["headers"],
        });
        writeln!(input, "{asked}").unwrap();
    }
    drop(input);
    let output = process.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
