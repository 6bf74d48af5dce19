//! Resources in, what the mesh makes of them out: every file of `cases` beside what it must give.
//!
//! A case asks in comments, each `# QUESTION: WORDS`: `scope`, `gateway` and `targets` about a proxy (`KIND NAMESPACE
//! ADDRESS LABEL=VALUE,…`), as `policies` is, `routes` about a gateway and a namespace, `rule` about a proxy and a host, `endpoints`
//! and `accounts` about a host. `UPDATE_EXPECT=1` writes the expectations anew.

mod answer;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use maille_api::mesh::MeshConfig;
use maille_api::{Object, parse};
use maille_model::Snapshot;

#[test]
fn answers_are_as_expected() {
    let mut wrong = Vec::new();
    for path in cases() {
        let text = fs::read_to_string(&path).expect("case");
        let (objects, mesh) = load(&text, &path);
        let found = answers(&text, &Snapshot::build(&objects, &mesh));
        let golden = path.with_extension("golden");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&golden, &found).expect("golden file");
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if expected != found {
            wrong.push(format!("{}\nexpected:\n{expected}\nfound:\n{found}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn order_of_objects_makes_no_difference() {
    for path in cases() {
        let text = fs::read_to_string(&path).expect("case");
        let (mut objects, mesh) = load(&text, &path);
        let straight = answers(&text, &Snapshot::build(&objects, &mesh));
        for step in 1..objects.len() {
            objects.rotate_left(step);
            objects.reverse();
            assert_eq!(straight, answers(&text, &Snapshot::build(&objects, &mesh)), "{}", path.display());
        }
    }
}

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshot/cases");
    let files = fs::read_dir(folder).expect("cases").map(|entry| entry.expect("entry").path());
    let mut cases: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|ext| ext == "yaml")).collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

fn load(text: &str, path: &Path) -> (Vec<Arc<Object>>, MeshConfig) {
    let loaded = parse::load(text, &path.display().to_string());
    assert!(!loaded.has_errors(), "{:#?}", loaded.diagnostics);
    let mut mesh = MeshConfig::default();
    for object in &loaded.objects {
        if let Some((config, problems)) = parse::mesh_config_of(object) {
            mesh = config.unwrap_or_else(|| panic!("{problems:#?}"));
        }
    }
    (loaded.objects, mesh)
}

fn answers(text: &str, snapshot: &Snapshot) -> String {
    let warnings = snapshot.warnings().iter().map(|warning| format!("warning {warning}\n"));
    let questions = text.lines().filter_map(|line| line.strip_prefix("# ")?.split_once(": "));
    let answers = questions.filter_map(|(question, words)| {
        let answer = answer::to(snapshot, question, words)?;
        Some(format!("\n=== {question}: {words}\n{answer}"))
    });
    warnings.chain(answers).collect()
}
