//! Resources in, listeners and routes out: every file of `cases` beside what it must give, and upstream's own cases.
//!
//! A case names its proxies in comments: `# proxy: KIND NAMESPACE ADDRESS LABEL=VALUE,… {METADATA}`. `UPDATE_EXPECT=1`
//! writes the expectations anew.

#[allow(dead_code)]
#[path = "../clusters/brief.rs"]
mod brief;
#[allow(dead_code)]
#[path = "../clusters/case.rs"]
mod case;
mod envoy;
mod simulation;
mod summary;

use std::fs;
use std::path::{Path, PathBuf};

use case::Case;
use maille_xds::TypeUrl;

#[test]
fn listeners_and_routes_are_as_expected() {
    let mut wrong = Vec::new();
    for path in cases() {
        let found = summary::worlds(&Case::read(&path));
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
        for seed in 0..5 {
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
    let Some(binary) = envoy::binary() else { return };
    for path in cases() {
        let name = path.file_stem().expect("name").to_string_lossy().into_owned();
        for (proxy, world) in Case::read(&path).worlds() {
            envoy::must_accept(&binary, &name, &proxy.id, &world);
        }
    }
}

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/listeners/cases");
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
