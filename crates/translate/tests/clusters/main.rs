//! Resources in, clusters and endpoints out: every file of `cases` beside what it must give.
//!
//! A case names its proxies in comments: `# proxy: KIND NAMESPACE ADDRESS LABEL=VALUE,… {METADATA}`. `UPDATE_EXPECT=1`
//! writes the expectations anew.

mod brief;
mod case;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use case::Case;
use maille_xds::TypeUrl;
use maille_xds::types::bootstrap::Bootstrap;
use maille_xds::types::bootstrap::bootstrap::{DynamicResources, StaticResources};
use maille_xds::types::cluster::Cluster;
use maille_xds::types::core::{ApiConfigSource, ApiVersion, GrpcService, Node, api_config_source, grpc_service};
use maille_xds::types::listener::Listener;
use maille_xds::types::{Message, core};

#[test]
fn clusters_are_as_expected() {
    let mut wrong = Vec::new();
    for path in cases() {
        let found = brief::worlds(&Case::read(&path));
        let golden = path.with_extension("golden");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&golden, &found).expect("golden file");
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if expected != found {
            wrong.push(format!("{}\n{}", path.display(), difference(&expected, &found)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn order_of_objects_makes_no_difference() {
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
    let Some(envoy) = envoy() else { return };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for path in cases() {
        for (proxy, world) in Case::read(&path).worlds() {
            let decode = |type_url| world.of(type_url).values();
            let mut clusters: Vec<Cluster> =
                decode(TypeUrl::Cluster).map(|resource| resource.decode().expect("cluster")).collect();
            clusters.push(ads_cluster());
            let listeners: Vec<Listener> =
                decode(TypeUrl::Listener).map(|resource| resource.decode().expect("listener")).collect();
            let bootstrap = Bootstrap {
                node: Some(Node { id: proxy.id.clone(), cluster: "test".into(), ..Node::default() }),
                static_resources: Some(StaticResources { clusters, listeners, ..StaticResources::default() }),
                dynamic_resources: Some(DynamicResources { ads_config: Some(ads()), ..DynamicResources::default() }),
                ..Bootstrap::default()
            };
            let name = path.file_stem().expect("name").to_string_lossy().into_owned();
            let file = folder.join(format!("{name}-{}.pb", proxy.id));
            fs::write(&file, bootstrap.encode_to_vec()).expect("bootstrap");
            let output = Command::new(&envoy).args(["--mode", "validate", "-l", "warn", "-c"]).arg(&file).output();
            let output = output.expect("envoy runs");
            assert!(
                output.status.success(),
                "Envoy refuses {name} for {}:\n{}",
                proxy.id,
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clusters/cases");
    let files = fs::read_dir(folder).expect("cases").map(|entry| entry.expect("entry").path());
    let mut cases: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|ext| ext == "yaml")).collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

/// The first lines that differ, which is what one wants to see of a long file.
fn difference(expected: &str, found: &str) -> String {
    let longest = expected.lines().count().max(found.lines().count());
    let line = |text: &str, n: usize| text.lines().nth(n).unwrap_or("(nothing)").to_owned();
    let differ = (0..longest).filter(|n| line(expected, *n) != line(found, *n)).take(6);
    differ.map(|n| format!("{}: - {}\n{}: + {}\n", n + 1, line(expected, n), n + 1, line(found, n))).collect()
}

/// The real Envoy: `$ENVOY`, else `envoy` on the PATH.
fn envoy() -> Option<String> {
    let name = std::env::var("ENVOY").unwrap_or_else(|_| "envoy".to_owned());
    if Command::new(&name).arg("--version").output().is_ok() {
        return Some(name);
    }
    assert!(std::env::var_os("CI").is_none(), "no Envoy: set ENVOY or put `envoy` on the PATH");
    eprintln!("skipped: no Envoy on the PATH, and ENVOY is not set");
    None
}

fn ads() -> ApiConfigSource {
    ApiConfigSource {
        api_type: api_config_source::ApiType::DeltaGrpc.into(),
        transport_api_version: ApiVersion::V3.into(),
        grpc_services: vec![GrpcService {
            target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(grpc_service::EnvoyGrpc {
                cluster_name: "ads".into(),
                ..Default::default()
            })),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn ads_cluster() -> Cluster {
    Cluster {
        name: "ads".into(),
        connect_timeout: Some(maille_xds::types::Duration { seconds: 1, nanos: 0 }),
        typed_extension_protocol_options: [(
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(),
            maille_xds::types::any(&maille_xds::types::upstream_http::HttpProtocolOptions {
                upstream_protocol_options: Some(brief::explicit_http2()),
                ..Default::default()
            }),
        )]
        .into(),
        metadata: Some(core::Metadata::default()),
        ..Cluster::default()
    }
}
