//! The command line itself: help that teaches, exit codes that can be relied on, errors that say whose fault it is.

use std::io::Write;
use std::process::{Command, Output, Stdio};

fn maille(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_maille")).args(args).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_command_has_help_with_examples() {
    for command in ["up", "run", "demo", "proxy", "validate", "version", "completion"] {
        let output = maille(&[command, "--help"]);
        let help = text(&output.stdout);
        assert!(output.status.success(), "{command}: {}", text(&output.stderr));
        assert!(help.contains("Examples:") && help.contains(&format!("maille {command}")), "{command}: {help}");
        assert!(text(&maille(&["--help"]).stdout).contains(&format!("  {command} ")), "{command} is not listed");
    }
}

#[test]
fn a_wrong_call_is_exit_code_2_and_says_what_was_expected() {
    let rows: &[(&[&str], &str)] = &[
        (&[], "Usage: maille"),
        (&["nonsense"], "unrecognized subcommand"),
        (&["up", "-f", "/nonexistent/mesh"], "cannot read /nonexistent/mesh: No such file"),
        (&["up", "-f", "/dev/null"], "neither a file nor a directory"),
        (&["up", "--xds-port", "0x1"], "--xds-port"),
        (&["up", "--proxy", "nginx"], "expected maille, envoy, envoy=PATH, or none"),
        (&["up", "--proxy", "envoy=/nonexistent/envoy"], "no Envoy at /nonexistent/envoy"),
        (&["up", "--mesh-config", "/nonexistent/mesh.yaml"], "/nonexistent/mesh.yaml"),
        (&["up", "--address", "localhost"], "--address"),
        (&["run", "--name", "a", "--service", "a"], "required"),
        (&["run", "--name", "A_b", "--service", "a", "--", "true"], "lower case letters"),
        (&["run", "--name", "a", "--service", "a", "--version", "v 1", "--", "true"], "letters and digits"),
        (&["run", "--name", "a", "--service", "a", "--port", "0", "--", "true"], "--port"),
        (&["run", "--name", "a", "--service", "a", "--port", "65536", "--", "true"], "--port"),
        (&["run", "--name", "a", "--service", "a", "--control", "nowhere", "--", "true"], "expected HOST:PORT"),
        (&["run", "--name", "a", "--service", "a", "--capture", "magic", "--", "true"], "--capture"),
        (&["run", "--name", "a", "--service", "a", "--control", "127.0.0.1:0", "--", "true"], "port 0"),
        (&["run", "--name", "a", "--service", "a", "--proxy", "envoy=/nonexistent/envoy", "--", "true"], "no Envoy at"),
        (&["demo", "--proxy", "envoy=/nonexistent/envoy"], "no Envoy at"),
        (&["up", "--concurrency", "1025"], "1..=1024"),
        (&["up", "--mesh-config", "/dev/zero"], "/dev/zero"),
        (&["demo", "--for", "soon"], "expected a time such as 10s"),
        (&["proxy", "--role", "router", "--labels", "a"], "expected KEY=VALUE"),
        (&["validate"], "--file"),
        (&["validate", "-f", "/nonexistent.yaml"], "cannot read /nonexistent.yaml"),
        (&["completion", "tcsh"], "tcsh"),
    ];
    for (args, expected) in rows {
        let output = maille(args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(expected), "{args:?}: {said}");
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let output = maille(&["up", "--xds-port", &port]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(&port) && said.contains("--xds-port"), "{said}");
}

#[test]
fn versions_and_completions_are_printed() {
    assert!(text(&maille(&["version"]).stdout).starts_with(concat!("maille ", env!("CARGO_PKG_VERSION"))));
    let json: serde_json::Value = serde_json::from_slice(&maille(&["version", "-o", "json"]).stdout).unwrap();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&maille(&["completion", shell]).stdout);
        assert!(script.contains("validate") && script.contains("maille"), "{shell}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_maille"))
        .args(["completion", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
}

#[test]
fn colours_are_for_terminals_unless_asked_for() {
    let check = |when: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_maille"));
        let mut child = command
            .args(["validate", "-f", "-"])
            .args(when)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(b"kind: Service\napiVersion: v1\nmetadata: {name: a}\nspec: {prots: []}\n")
            .unwrap();
        text(&child.wait_with_output().unwrap().stdout)
    };
    assert!(!check(&[]).contains('\x1b'));
    assert!(check(&["--color", "always"]).contains('\x1b'));
}
