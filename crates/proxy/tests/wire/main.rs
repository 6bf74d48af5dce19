//! What goes on the wire, byte for byte: cases with the answers of a real Envoy, asked of ours.
//!
//! A case says what a client sends and what the server behind the proxy answers; below `---` stands what came of it. That
//! part was written by Envoy (`ENVOY=… WIRE=record cargo test -p maille-proxy --test wire`), and every run with `ENVOY` set
//! asks it again. Where ours differs on purpose, the case says `ours: ID`, a section `maille:` says how (written by `WIRE=ours`), and
//! docs/differences.md says why under that id. `WIRE_ONLY` chooses files.

mod cases;
mod client;
mod envoy;
mod page;
mod peers;
mod rows;
mod server;
mod setups;
mod sides;

use std::path::{Path, PathBuf};

use cases::{Case, Seen};
use sides::Side;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/cases")
}

/// Every case file, read.
fn all() -> Vec<(PathBuf, Vec<Case>)> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let only = std::env::var("WIRE_ONLY").unwrap_or_default();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let cases = cases::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path, cases)
    };
    let wanted = |(path, _): &(PathBuf, Vec<Case>)| path.to_string_lossy().contains(&only);
    files.into_iter().map(read).filter(wanted).collect()
}

/// Ours answers as the files say.
#[test]
fn maille_answers_as_recorded() {
    let mut files = all();
    if std::env::var("WIRE").as_deref() == Ok("ours") {
        let cases: Vec<&Case> = files.iter().flat_map(|(_, cases)| cases).collect();
        let mut seen = Side::maille().ask_all(&cases, &vec![None; cases.len()]).into_iter();
        for (path, cases) in &mut files {
            for (case, seen) in cases.iter_mut().zip(&mut seen) {
                case.maille = case.ours.is_some().then_some(seen);
            }
            std::fs::write(path, cases::print(cases)).unwrap();
        }
        return;
    }
    let all = files.iter().flat_map(|(_, cases)| cases);
    let (cases, pending): (Vec<&Case>, Vec<&Case>) = all.partition(|case| case.pending.is_none());
    for case in pending {
        eprintln!("pending: {} ({})", case.name, case.pending.as_deref().unwrap_or_default());
    }
    let want: Vec<Option<&Seen>> = cases.iter().map(|case| case.ours()).collect();
    let seen = Side::maille().ask_all(&cases, &want);
    report(&cases, &want, &seen);
}

/// Envoy answers as the files say, or writes them.
#[test]
fn envoy_answers_as_recorded() {
    let Some(program) = envoy::program() else { return };
    let record = std::env::var("WIRE").as_deref() == Ok("record");
    let mut files = all();
    let cases: Vec<&Case> = files.iter().flat_map(|(_, cases)| cases).collect();
    let want = |case: &Case| if record { None } else { case.envoy.clone() };
    let known: Vec<Option<Seen>> = cases.iter().map(|case| want(case)).collect();
    let want: Vec<Option<&Seen>> = known.iter().map(Option::as_ref).collect();
    let seen = Side::envoy(&program).ask_all(&cases, &want);
    if !record {
        return report(&cases, &want, &seen);
    }
    let mut seen = seen.into_iter();
    for (path, mut cases) in files.drain(..) {
        cases.iter_mut().for_each(|case| case.envoy = seen.next());
        std::fs::write(&path, cases::print(&cases)).unwrap();
    }
}

fn report(cases: &[&Case], want: &[Option<&Seen>], seen: &[Seen]) {
    let mut wrong = Vec::new();
    for ((case, want), seen) in cases.iter().zip(want).zip(seen) {
        if let Some(difference) = want.cloned().unwrap_or_default().difference(seen) {
            wrong.push(format!("=== {} ({})\n{difference}", case.name, case.setup));
        }
    }
    assert!(wrong.is_empty(), "{} cases differ (- expected, + seen):\n{}", wrong.len(), wrong.join("\n"));
}

/// nginx and HAProxy answer as the files say, or write it; and what none of them takes, we do not take.
#[test]
fn nobody_is_stricter_than_all() {
    let record = std::env::var("WIRE").as_deref() == Ok("record");
    let mut files = all();
    files.retain(|(path, _)| path.ends_with("corpus.txt"));
    for name in ["nginx", "haproxy"] {
        let Some(side) = Side::peer(name) else {
            eprintln!("skipped: there is no {name} here");
            continue;
        };
        let cases: Vec<&Case> = files.iter().flat_map(|(_, cases)| cases).collect();
        let seen: Vec<String> = side.ask_all(&cases, &vec![None; cases.len()]).iter().map(Seen::gist).collect();
        let mut seen = seen.into_iter();
        for case in files.iter_mut().flat_map(|(_, cases)| cases) {
            let gist = seen.next().unwrap_or_default();
            match case.peers.iter_mut().find(|(peer, _)| peer == name) {
                Some((_, known)) if record => *known = gist,
                None if record => case.peers.push((name.into(), gist)),
                // Versions differ; the verdict that counts is the one written down.
                Some((_, known)) if *known != gist => {
                    eprintln!("{name} {}: {known} was recorded, {gist} seen", case.name)
                }
                _ => {}
            }
        }
    }
    for (path, cases) in &files {
        if record {
            std::fs::write(path, cases::print(cases)).unwrap();
        }
        for case in cases {
            let ours = case.ours().is_some_and(Seen::reached);
            let theirs = case.envoy.as_ref().is_some_and(Seen::reached);
            let peers = case.peers.iter().any(|(_, gist)| !gist.ends_with(" 0"));
            assert!(!ours || theirs || peers, "{}: we alone take this", case.name);
        }
    }
}

/// Every difference on purpose is written down where people look.
#[test]
fn differences_are_documented() {
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/differences.md")).unwrap();
    for case in all().iter().flat_map(|(_, cases)| cases) {
        if let Some(id) = &case.ours {
            assert!(text.contains(&format!("`{id}`")), "{}: docs/differences.md has no `{id}`", case.name);
            assert!(case.maille.is_some() && case.maille != case.envoy, "{}: where is the difference?", case.name);
        }
    }
}
