//! What `maille up` shows: where everything listens and what is wrong, on one screen, and again when that changes.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use maille_api::{Diagnostic, Severity};
use owo_colors::OwoColorize;

use super::plan::{Planned, Port, Why};
use crate::diagnostics::{coloured, count, plural};

/// Everything that is shown.
pub(crate) struct View {
    /// Where the configuration is read from.
    pub(crate) sources: Vec<String>,
    /// How many resources there are.
    pub(crate) resources: usize,
    /// Where the control plane listens.
    pub(crate) control: SocketAddr,
    /// Where gateways listen.
    pub(crate) address: IpAddr,
    /// The proxy that carries the traffic; `None` when gateways are somebody else's.
    pub(crate) plane: Option<String>,
    /// Each gateway, and why it does not run.
    pub(crate) gateways: Vec<(Planned, Option<String>)>,
    /// What is wrong with the files.
    pub(crate) problems: Vec<Diagnostic>,
    /// What is wrong with the mesh they make.
    pub(crate) warnings: Vec<String>,
    /// What proxies have refused.
    pub(crate) refusals: Vec<String>,
}

/// The screen as text.
pub(crate) fn render(view: &View) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: &str| text += &format!("{:<15}{value}\n", label.bold());
    let sources =
        if view.sources.is_empty() { "no files: -f PATH names them".to_owned() } else { view.sources.join(", ") };
    line("configuration", &format!("{sources} ({}, watched)", plural(view.resources, "resource")));
    line("control plane", &format!("{}   (maille run --control {})", view.control, view.control));
    match &view.plane {
        None => line("gateways", "none started (--proxy none)"),
        Some(_) if view.gateways.is_empty() => line("gateways", "none: no Gateway is configured"),
        Some(plane) => line("gateways", &format!("{} on {plane}", view.gateways.len())),
    }
    for (planned, fault) in &view.gateways {
        text += &gateway(planned, fault.as_deref(), view.address);
    }
    text += &wrong(view);
    text
}

fn gateway(planned: &Planned, fault: Option<&str>, address: IpAddr) -> String {
    let mut text = format!("  {} in {}\n", planned.name.bold(), planned.namespace);
    if planned.ports.is_empty() {
        text += "    no ports\n";
    }
    for (number, port) in &planned.ports {
        let at = SocketAddr::new(address, port.moved.map_or(*number, |(moved, _)| moved));
        let why = match port.moved {
            Some((_, Why::Privileged)) => format!("   port {number} is root's here, so it is {}", at.port()),
            Some((_, Why::Taken)) => format!("   another gateway has port {number}, so it is {}", at.port()),
            None => String::new(),
        };
        text += &format!("    {}   {}{}\n", url(at, port).green(), hosts(&port.hosts), why.yellow());
    }
    if let Some(fault) = fault {
        text += &format!("    {} {fault}\n", "error:".red().bold());
    }
    text
}

fn url(at: SocketAddr, port: &Port) -> String {
    match port.protocol.to_ascii_uppercase().as_str() {
        "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" => format!("http://{at}"),
        "HTTPS" => format!("https://{at}"),
        other => format!("{}://{at}", other.to_ascii_lowercase()),
    }
}

/// The first few hosts; a gateway may have thousands.
fn hosts(hosts: &BTreeSet<String>) -> String {
    const FIRST: usize = 4;
    let first: Vec<&str> = hosts.iter().take(FIRST).map(String::as_str).collect();
    match hosts.len().saturating_sub(FIRST) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// How many findings of each sort are shown in full; the rest is counted. Errors always are.
const SHOWN: usize = 5;

fn wrong(view: &View) -> String {
    let mut text = String::new();
    let (errors, others): (Vec<_>, Vec<_>) =
        view.problems.iter().partition(|problem| problem.severity != Severity::Warning);
    for problem in errors.iter().chain(others.iter().take(SHOWN)) {
        text += &format!("\n{}\n", coloured(problem));
    }
    for warning in view.warnings.iter().take(SHOWN) {
        text += &format!("\n{} {warning}\n", "warning:".yellow().bold());
    }
    for refusal in view.refusals.iter().take(SHOWN) {
        text += &format!("\n{} {refusal}\n", "refused:".red().bold());
    }
    let unseen = |list: usize| list.saturating_sub(SHOWN);
    match unseen(others.len()) + unseen(view.warnings.len()) + unseen(view.refusals.len()) {
        0 => {}
        more => {
            text += &format!(
                "\n… and {more} more like these; `maille validate -f PATH` shows what is wrong with files in full\n"
            )
        }
    }
    let counts = [
        count(&view.problems),
        (!view.warnings.is_empty()).then(|| plural(view.warnings.len(), "remark") + " on the mesh"),
        (!view.refusals.is_empty()).then(|| plural(view.refusals.len(), "refusal") + " by proxies"),
    ];
    let counts: Vec<_> = counts.into_iter().flatten().collect();
    text + &if counts.is_empty() {
        format!("{}\n", "nothing wrong".green())
    } else {
        format!("\n{}\n", counts.join(", ").bold())
    }
}
