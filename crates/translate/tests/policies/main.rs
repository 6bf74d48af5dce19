//! Policies and TLS settings in, what enforces them out: every file of `cases` beside what it must give, as JSON.
//!
//! A case names its proxies in comments: `# proxy: KIND NAMESPACE ADDRESS LABEL=VALUE,… {METADATA}`. `UPDATE_EXPECT=1` writes the
//! expectations anew. Whether Envoy takes them all is asked in `envoy_accepts_every_case`.

#[path = "../clusters/brief.rs"]
#[allow(dead_code)]
mod brief;
#[path = "../clusters/case.rs"]
mod case;
mod conformance;
#[path = "../listeners/envoy.rs"]
mod envoy;
mod sets;
mod sidecar;
mod yaml;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use case::Case;
use maille_xds::json::Schema;
use maille_xds::{TypeUrl, World};
use serde_json::Value;

const POLICY_FILTERS: [&str; 3] = [".rbac", ".jwt_authn", ".ext_authz"];

#[test]
fn filters_are_as_expected() {
    let schema = Schema::load();
    let mut wrong = Vec::new();
    for path in cases() {
        let mut found = String::new();
        for (proxy, world) in Case::read(&path).worlds() {
            let _ = writeln!(found, "=== {}", proxy.id);
            write_listeners(&mut found, &schema, &world);
        }
        let golden = path.with_extension("golden");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&golden, &found).expect("golden file");
        }
        if fs::read_to_string(&golden).unwrap_or_default() != found {
            wrong.push(format!("{}: found\n{found}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_same_policies_are_the_same_bytes() {
    for path in cases() {
        let case = Case::read(&path);
        let straight = case.worlds();
        for seed in 1..6 {
            for ((_, one), (proxy, other)) in straight.iter().zip(case.shuffled(seed).worlds()) {
                for type_url in TypeUrl::ALL {
                    assert_eq!(one.of(type_url), other.of(type_url), "{} {}", path.display(), proxy.id);
                }
            }
        }
    }
}

#[test]
fn envoy_accepts_every_case() {
    let Some(envoy) = envoy::binary() else { return };
    for path in cases() {
        let name = format!("policies-{}", path.file_stem().expect("name").to_string_lossy());
        for (proxy, world) in Case::read(&path).worlds() {
            envoy::must_accept(&envoy, &name, &proxy.id, &world);
        }
    }
}

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policies/cases");
    let files = fs::read_dir(folder).expect("cases").map(|entry| entry.expect("entry").path());
    let mut cases: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|ext| ext == "yaml")).collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

/// Of each chain what it does about TLS and policies; chains that differ in nothing of it are one.
fn write_listeners(text: &mut String, schema: &Schema, world: &World) {
    let mut last = String::new();
    for resource in world.of(TypeUrl::Listener).values() {
        let url = "type.googleapis.com/envoy.config.listener.v3.Listener";
        let listener = schema.print(url, &resource.body).expect("JSON");
        for chain in listener["filter_chains"].as_array().into_iter().flatten() {
            let mut shown = String::new();
            if let Some(tls) = chain["transport_socket"].get("typed_config") {
                write_json(&mut shown, "tls", tls);
            }
            for filter in chain["filters"].as_array().into_iter().flatten() {
                let inside = filter["typed_config"]["http_filters"].as_array().into_iter().flatten();
                for filter in std::iter::once(filter).chain(inside) {
                    let name = filter["name"].as_str().unwrap_or_default();
                    if POLICY_FILTERS.iter().any(|kind| name.ends_with(kind)) {
                        write_json(&mut shown, name, &filter["typed_config"]);
                    }
                }
            }
            if shown.is_empty() {
                continue;
            }
            let matched = &chain["filter_chain_match"];
            let _ = writeln!(
                text,
                "--- {} chain {} {}",
                listener["name"].as_str().unwrap_or_default(),
                chain["name"].as_str().unwrap_or_default(),
                if matched.is_null() { String::new() } else { matched.to_string() }
            );
            if shown == last {
                text.push_str("the same\n");
            } else {
                text.push_str(&shown);
                last = shown;
            }
        }
    }
}

fn write_json(text: &mut String, name: &str, value: &Value) {
    let _ = writeln!(text, "{name} {}", serde_json::to_string_pretty(value).expect("JSON"));
}
