//! `maille ca` and `maille token`: the certificates of a running mesh.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Subcommand, ValueEnum};
use maille_control::ca::status::{CaStatus, Certificate, Holder};
use serde_json::{Value, json};

use crate::duration::duration;
use crate::failure::{Failure, Outcome};
use crate::{control, terminal};

/// How often a rotation is looked at.
const LOOK: Duration = Duration::from_millis(300);

/// A workload renews at half a certificate's life; when less than this part is left, something is wrong.
const LEAF_CLOSE: u64 = 4;

/// The CA of a running mesh: what is believed, who holds what, and moving to a new root
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Status(Status),
    Rotate(Rotate),
}

/// Show the roots, the intermediates and the certificates that end first
///
/// A root or an intermediate is close to its end when less than --within is left, a workload's certificate when less than a
/// quarter of its life is: it is renewed at half of it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 nothing is close to its end, 1 something is, 2 there is no control plane to ask."
)]
struct Status {
    #[command(flatten)]
    control: control::Address,

    /// How close the end of a root or an intermediate may come
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = duration)]
    within: Duration,

    /// How to print it
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Move to a new root while everything runs
///
/// In three phases: everybody learns to believe the new root, then everybody gets a certificate under it, then the old one
/// is believed no more. Each phase waits for every workload. The control plane does it: interrupt this command, or restart
/// the control plane, and the rotation goes on where it was; run it again to go on watching.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 done, 1 it cannot be done, 2 there is no control plane to ask.")]
struct Rotate {
    #[command(flatten)]
    control: control::Address,

    /// Do not wait for workloads that have not been heard of for a minute: they will have to enrol anew
    #[arg(long)]
    forget_absent: bool,

    /// Begin, and do not wait for the end
    #[arg(long)]
    no_wait: bool,
}

pub(crate) fn run(args: Args) -> Outcome {
    match args.command {
        Command::Status(status) => show(&status),
        Command::Rotate(rotate) => follow(&rotate),
    }
}

fn show(args: &Status) -> Outcome {
    let status = read(args.control.resolve()?)?;
    let close = close(&status, args.within, now());
    match args.output {
        Output::Json => terminal::out(&to_json(&status, &close).to_string())?,
        Output::Text => terminal::out(render(&status, now()).trim_end())?,
    };
    close.iter().for_each(|what| terminal::err(&format!("close to its end: {what}")));
    Ok(if close.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn follow(args: &Rotate) -> Outcome {
    let control = args.control.resolve()?;
    let begun = control::ask(control, "POST", "/v1/ca/rotate", None)?;
    match begun.status {
        200 => {}
        // Whoever was interrupted wants to know how it goes.
        409 if phase_of(control)? != "steady" => terminal::err("a rotation is under way already; watching it"),
        _ => return Err(Failure::running(begun.text.trim())),
    }
    let mut shown = String::new();
    loop {
        if args.forget_absent {
            control::ask(control, "POST", "/v1/ca/forget-absent", None)?.success()?;
        }
        let status = read(control)?;
        let line = progress(&status);
        if line != shown {
            terminal::out(&line)?;
            shown = line;
        }
        if status.phase == "steady" || args.no_wait {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(LOOK);
    }
}

fn phase_of(control: SocketAddr) -> Result<String, Failure> {
    Ok(read(control)?.phase)
}

fn read(control: SocketAddr) -> Result<CaStatus, Failure> {
    let answer = control::ask(control, "GET", "/v1/ca", None)?.success()?;
    serde_json::from_str(&answer.text)
        .map_err(|error| Failure::running(format!("the control plane at {control} answers something else: {error}")))
}

/// One line for how far a rotation is.
fn progress(status: &CaStatus) -> String {
    let what = match status.phase.as_str() {
        "distribute" => "distribute: believe the new root",
        "reissue" => "re-issue: get a certificate under the new root",
        "retire" => "retire: forget the old root",
        _ => return "done: the new root is the only one".to_owned(),
    };
    let done = status.holders.saturating_sub(status.waiting);
    let mut line = format!("{what}: {done} of {} workloads", status.holders);
    let names: BTreeSet<String> = status.waited_for.iter().map(named).collect();
    if !names.is_empty() {
        let shown: Vec<&str> = names.iter().take(3).map(String::as_str).collect();
        let _ = write!(line, "; waiting for {}", shown.join(", "));
        if status.waiting > shown.len() {
            let _ = write!(line, " and others");
        }
    }
    line
}

fn named(holder: &Holder) -> String {
    match holder.absent {
        true => format!("{} (not heard of for a while; --forget-absent goes on without it)", holder.id),
        false => holder.id.clone(),
    }
}

/// What is close to its end.
fn close(status: &CaStatus, within: Duration, now: u64) -> Vec<String> {
    let left = |not_after: u64| not_after.saturating_sub(now);
    let of_cas = status.roots.iter().chain(&status.intermediates);
    let cas = of_cas.filter(|ca| left(ca.not_after) < within.as_secs()).map(|ca| ca.subject.clone());
    let is_late = |leaf: &&Holder| !leaf.absent && left(leaf.not_after) < status.leaf_ttl / LEAF_CLOSE;
    cas.chain(status.soonest.iter().filter(is_late).map(|leaf| leaf.id.clone())).collect()
}

fn to_json(status: &CaStatus, close: &[String]) -> Value {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    value["close"] = json!(close);
    value
}

fn render(status: &CaStatus, now: u64) -> String {
    let mut text = format!("CA             {}\n", status.source);
    if status.phase != "steady" {
        let _ = writeln!(text, "rotation       {}", progress(status));
    }
    let certificates = |text: &mut String, title: &str, list: &[Certificate]| {
        let _ = writeln!(text, "{title:<14} {}", if list.is_empty() { "none" } else { "" });
        for certificate in list {
            let Certificate { subject, fingerprint, not_after, signs } = certificate;
            let signs = if *signs { "   signs" } else { "" };
            let short = fingerprint.get(..16).unwrap_or(fingerprint);
            let _ = writeln!(text, "  {subject}   SHA-256 {short}…   {}{signs}", ends(*not_after, now));
        }
    };
    certificates(&mut text, "roots", &status.roots);
    certificates(&mut text, "intermediates", &status.intermediates);
    let _ =
        writeln!(text, "workloads      {} hold a certificate, each good for {}", status.holders, span(status.leaf_ttl));
    for Holder { id, not_after, absent, .. } in &status.soonest {
        let absent = if *absent { "   not heard of for a while" } else { "" };
        let _ = writeln!(text, "  {id}   {}{absent}", ends(*not_after, now));
    }
    if status.holders > status.soonest.len() {
        let _ = writeln!(text, "  and {} that end later", status.holders - status.soonest.len());
    }
    // Whitespace at the end of a line is nobody's.
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn ends(not_after: u64, now: u64) -> String {
    match not_after.checked_sub(now) {
        None | Some(0) => "has ended".to_owned(),
        Some(left) => format!("ends in {}", span(left)),
    }
}

/// The largest two units.
fn span(seconds: u64) -> String {
    let units = [(86400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (size, unit) in units {
        if rest >= size && parts.len() < 2 {
            parts.push(format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Tokens by which workloads of other machines get their first certificate
#[derive(Debug, clap::Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    Create(Create),
}

/// Mint a token for a service account
///
/// Whoever has it can be that service account until it ends: hand it over as you would a password. With it goes the root by
/// which the control plane is known (--ca-out).
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  maille token create --namespace shop --service-account web > istio-token
  maille token create --namespace shop --service-account web --ttl 24h --out istio-token --ca-out root-cert.pem")]
struct Create {
    #[command(flatten)]
    control: control::Address,

    /// The namespace
    #[arg(long, value_name = "NS", default_value = "default")]
    namespace: String,

    /// The service account
    #[arg(long, value_name = "SA", default_value = "default")]
    service_account: String,

    /// How long it is good for
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration)]
    ttl: Duration,

    /// A file to write it to, that only you can read; by default it goes to stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// A file to write the roots to
    #[arg(long, value_name = "FILE")]
    ca_out: Option<PathBuf>,
}

pub(crate) fn token(args: TokenArgs) -> Outcome {
    let TokenCommand::Create(args) = args.command;
    let Create { namespace, service_account, ttl, .. } = &args;
    let wish = json!({"namespace": namespace, "serviceAccount": service_account, "ttlSeconds": ttl.as_secs()});
    let answer = control::ask(args.control.resolve()?, "POST", "/v1/tokens", Some(wish))?.success()?;
    let answer: Value = serde_json::from_str(&answer.text).unwrap_or_default();
    let (Some(token), Some(roots)) = (answer["token"].as_str(), answer["roots"].as_str()) else {
        return Err(Failure::running("the control plane answers something else"));
    };
    if let Some(path) = &args.ca_out {
        write(path, roots, 0o644)?;
    }
    match &args.out {
        Some(path) => write(path, token, 0o600).map(|()| ExitCode::SUCCESS),
        None => terminal::out(token),
    }
}

/// Writes a file anew, with this mode from the start.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::running(format!("cannot write {}: {error}", path.display()));
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(phase: &str) -> CaStatus {
        let leaf = |id: &str, not_after, absent| Holder { id: id.into(), serial: "1".into(), not_after, absent };
        CaStatus {
            source: "its own".into(),
            phase: phase.into(),
            roots: vec![Certificate {
                subject: "CN=root".into(),
                fingerprint: "ab".repeat(32),
                not_after: 1000 + 40 * 86400,
                signs: true,
            }],
            intermediates: Vec::new(),
            leaf_ttl: 86400,
            holders: 3,
            soonest: vec![leaf("web", 1000 + 30000, false), leaf("db", 1000 + 300, true)],
            waited_for: vec![leaf("web", 0, false)],
            waiting: 1,
        }
    }

    #[test]
    fn what_is_close_to_its_end_is_named() {
        let days = |days: u64| Duration::from_secs(days * 86400);
        assert!(close(&status("steady"), days(30), 1000).is_empty(), "who is absent does not renew");
        assert_eq!(close(&status("steady"), days(41), 1000), ["CN=root"]);
        assert_eq!(close(&status("steady"), days(30), 1000 + 10000), ["web"]);
        assert_eq!(close(&status("steady"), days(30), 1000 + 50 * 86400), ["CN=root", "web"]);
    }

    #[test]
    fn a_rotation_says_whom_it_waits_for() {
        assert_eq!(
            progress(&status("reissue")),
            "re-issue: get a certificate under the new root: 2 of 3 workloads; waiting for web"
        );
        assert_eq!(progress(&status("steady")), "done: the new root is the only one");
    }

    #[test]
    fn the_text_is_for_people() {
        let expected = "\
CA             its own
roots
  CN=root   SHA-256 abababababababab…   ends in 40d   signs
intermediates  none
workloads      3 hold a certificate, each good for 1d
  web   ends in 8h 20m
  db   ends in 5m   not heard of for a while
  and 1 that end later
";
        assert_eq!(render(&status("steady"), 1000), expected);
    }
}
