//! Judges resources as upstream's own test data says they are judged.
//!
//! The data is read in place, from `$CONFORMANCE` or `../shared/conformance` beside the repository, and is not part of
//! it: without it the suite says so and skips, except where CI promises that it is there.

use std::fs;
use std::path::{Path, PathBuf};

use maille_api::Kind;
use maille_api::parse::{Loaded, load};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    Accept,
    Warn,
    Reject,
}

#[test]
fn validation_conformance_files_to_accept() {
    files("accept", |verdict| verdict != Verdict::Reject);
}

#[test]
fn validation_conformance_files_to_reject() {
    files("reject", |verdict| verdict == Verdict::Reject);
}

#[test]
fn validation_conformance_table() {
    let Some(folder) = data() else { return };
    let mut tally = Tally::default();
    for (number, line) in read(&folder.join("table.jsonl")).lines().enumerate() {
        let row: serde_json::Value = serde_json::from_str(line).expect("a line of the table is JSON");
        let resource = &row["resource"];
        let expected = match row["verdict"].as_str() {
            Some("accept") => Verdict::Accept,
            Some("warn") => Verdict::Warn,
            Some("reject") => Verdict::Reject,
            other => panic!("line {}: unknown verdict {other:?}", number + 1),
        };
        let name = format!("{} ({})", row["id"], row["upstream_says"].as_str().unwrap_or("no complaint"));
        tally.case(&name, &resource.to_string(), |verdict| verdict == expected);
    }
    tally.finish("table.jsonl");
}

fn files(folder: &str, is_right: impl Fn(Verdict) -> bool) {
    let Some(data) = data() else { return };
    let mut tally = Tally::default();
    let mut paths: Vec<PathBuf> = fs::read_dir(data.join(folder))
        .expect("the folder can be listed")
        .map(|entry| entry.expect("the entry can be read").path())
        .collect();
    paths.sort();
    for path in paths {
        tally.case(&path.display().to_string(), &read(&path), &is_right);
    }
    tally.finish(folder);
}

#[derive(Default)]
struct Tally {
    judged: usize,
    not_ours: usize,
    wrong: Vec<String>,
}

impl Tally {
    fn case(&mut self, name: &str, text: &str, is_right: impl Fn(Verdict) -> bool) {
        if !is_ours(text) {
            self.not_ours += 1;
            return;
        }
        self.judged += 1;
        let loaded = load(text, name);
        let verdict = verdict(&loaded);
        if !is_right(verdict) {
            let said: Vec<String> = loaded.diagnostics.iter().map(ToString::to_string).collect();
            self.wrong.push(format!("{name}\n  {text}\n  judged {verdict:?}: {}", said.join("\n  ")));
        }
    }

    fn finish(self, what: &str) {
        println!("{what}: {} judged, {} skipped because their kind is not ours", self.judged, self.not_ours);
        assert!(self.judged > 0, "{what} holds no case of our kinds");
        assert!(self.wrong.is_empty(), "{} judged wrongly:\n{}", self.wrong.len(), self.wrong.join("\n"));
    }
}

fn verdict(loaded: &Loaded) -> Verdict {
    if loaded.has_errors() {
        Verdict::Reject
    } else if loaded.diagnostics.is_empty() {
        Verdict::Accept
    } else {
        Verdict::Warn
    }
}

fn is_ours(text: &str) -> bool {
    let of_yaml = text.lines().find_map(|line| line.strip_prefix("kind:")).map(|kind| kind.trim().to_owned());
    let of_json = || serde_json::from_str::<serde_json::Value>(text).ok()?["kind"].as_str().map(str::to_owned);
    let kind = of_yaml.or_else(of_json).expect("a case has a kind");
    kind.parse::<Kind>().is_ok()
}

fn data() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance");
    let folder = std::env::var_os("CONFORMANCE").map_or(beside, PathBuf::from).join("validation");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: there is no conformance data at {}", folder.display());
    None
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
