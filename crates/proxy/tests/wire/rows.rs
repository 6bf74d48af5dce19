//! The table of attacks, row by row: what reaches a server behind the whole proxy.

use crate::cases::{Case, Seen};
use crate::sides::Side;

/// What ours makes of the cases whose names begin so.
fn answers(files: &[&str], begins: &[&str]) -> Vec<(Case, Seen)> {
    let folder = crate::folder();
    let read = |file: &&str| std::fs::read_to_string(folder.join(format!("{file}.txt"))).unwrap();
    let cases: Vec<Case> = files.iter().flat_map(|file| crate::cases::parse(&read(file)).unwrap()).collect();
    let wanted = |case: &Case| begins.iter().any(|begin| case.name.starts_with(begin)) && case.pending.is_none();
    let cases: Vec<Case> = cases.into_iter().filter(wanted).collect();
    assert!(!cases.is_empty());
    let want: Vec<Option<&Seen>> = cases.iter().map(Case::ours).collect();
    let seen = Side::maille().ask_all(&cases.iter().collect::<Vec<_>>(), &want);
    cases.into_iter().zip(seen).collect()
}

/// None of them may reach the server, but those that are named.
fn nothing_reaches(begins: &[&str], but: &[&str]) {
    for (case, seen) in answers(&["corpus"], begins) {
        let first = seen.lines.iter().find(|line| line.starts_with("client| HTTP/1."));
        let refused = first.is_some_and(|line| line[17..].starts_with(['4', '5']));
        assert_eq!(
            (seen.reached(), refused && seen.end() == "closed"),
            (but.contains(&&*case.name), !but.contains(&&*case.name)),
            "{}: {:#?}",
            case.name,
            seen.lines
        );
    }
}

#[test]
fn row_01_nothing_with_a_length_and_chunks_reaches_a_server() {
    nothing_reaches(&["both-"], &["both-te-underscore", "both-chunked-length"]);
}

#[test]
fn row_02_no_length_that_readers_differ_on_reaches_a_server() {
    let plain = ["leading-zeros", "octal", "tab", "on-get", "on-head", "missing", "zero-then-request"];
    let plain: Vec<String> = plain.iter().map(|name| format!("length-{name}")).collect();
    let plain: Vec<&str> = plain.iter().map(String::as_str).collect();
    for (case, seen) in answers(&["corpus"], &["length-"]) {
        // A body that is not there yet is waited for.
        if case.name == "length-short" {
            continue;
        }
        assert_eq!(seen.reached(), plain.contains(&&*case.name), "{}: {:#?}", case.name, seen.lines);
    }
}

#[test]
fn row_03_no_coding_but_chunked_reaches_a_server() {
    let spelled =
        ["coding-upper", "coding-mixed", "coding-leading-tab", "coding-trailing-space", "coding-trailing-tab"];
    nothing_reaches(&["coding-"], &[&spelled[..], &["coding-hyphenless"]].concat());
}

#[test]
fn row_23_whoever_is_outside_says_nothing_about_inside() {
    let names = ["forwarded-for-at-the-edge", "proto-from-outside", "envoy-headers-at-the-sidecar", "request-id-from"];
    for (case, seen) in answers(&["headers"], &names) {
        let forged =
            ["x-forwarded-proto: https", "x-envoy-retry-on", "x-envoy-ip-tags", "x-envoy-force-trace", "a29ab5e1"];
        let said = seen.lines.iter().find(|line| line.starts_with("server") && forged.iter().any(|f| line.contains(f)));
        assert!(seen.reached() && said.is_none(), "{}: {said:?}", case.name);
        let edge = case.setup == "edge";
        let external = "server|   x-envoy-external-address: 127.0.0.1".to_owned();
        assert!(!edge || seen.lines.contains(&external), "{}: {:#?}", case.name, seen.lines);
    }
}

#[test]
fn row_24_nobody_is_anybody_in_plain_text() {
    for (case, seen) in answers(&["headers"], &["xfcc-"]) {
        let said = seen.lines.iter().any(|line| line.starts_with("server|   x-forwarded-client-cert"));
        assert!(seen.reached() && said == (case.setup == "xfcc-always"), "{}: {:#?}", case.name, seen.lines);
    }
}

#[test]
fn row_31_no_header_writes_a_log_line() {
    for (case, seen) in answers(&["paths"], &["path-none-06", "path-none-32"]) {
        let log = seen.lines.iter().find(|line| line.starts_with("log: ")).unwrap();
        assert!(log.contains("\\\\") || log.contains("\\\""), "{}: {log}", case.name);
    }
    for (case, seen) in answers(&["corpus"], &["field-esc", "field-ctl", "field-nul", "field-vt", "line-target-cr"]) {
        assert!(!seen.reached(), "{}", case.name);
        assert!(seen.lines.iter().filter(|line| line.starts_with("log: ")).count() == 1, "{}", case.name);
    }
}
