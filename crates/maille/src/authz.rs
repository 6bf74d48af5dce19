//! `maille authz check`: which policies apply to a workload.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use maille_model::{Endpoint, MutualTls, Policy};
use serde_json::{Value, json};

use crate::explain::{self, Mesh};
use crate::failure::{Failure, Outcome};
use crate::terminal;
use crate::version::Output;

/// Look at policies
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Check(Check),
}

/// List what applies to a workload: how it takes mutual TLS, whose tokens it takes, and its rules in the order they are asked
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  maille authz check -f config/ foo/finance-v1
  maille authz check -f config/ finance.foo -o json

Exit codes: 0 done, 2 the input is wrong or there is no such workload.")]
struct Check {
    /// NAMESPACE/NAME of a workload, or the host of a service: all of its workloads
    workload: String,

    /// A file, a directory, or `-` for stdin; may be given several times
    #[arg(short, long = "file", value_name = "PATH", required = true)]
    file: Vec<PathBuf>,

    /// How to print it
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

pub(crate) fn run(args: Args) -> Outcome {
    let Command::Check(check) = args.command;
    let mesh = explain::load(&check.file)?;
    let found = workloads(&mesh, &check.workload);
    if found.is_empty() {
        let all: Vec<String> = mesh.endpoints().map(name).collect();
        let known = if all.is_empty() { "there is none".into() } else { format!("there are {}", all.join(", ")) };
        return Err(Failure::usage(format!("no workload is called {}: {known}", check.workload)));
    }
    let described: Vec<Value> = found.into_iter().map(|endpoint| describe(&mesh, endpoint)).collect();
    match check.output {
        Output::Json => terminal::out(&Value::from(described).to_string())?,
        Output::Text => terminal::out(&described.iter().map(text).collect::<Vec<_>>().join("\n\n"))?,
    };
    Ok(ExitCode::SUCCESS)
}

/// Those that a name means, each once.
fn workloads<'m>(mesh: &'m Mesh, wanted: &str) -> Vec<&'m Endpoint> {
    let names = [wanted.to_owned(), format!("{wanted}.svc.cluster.local")];
    let service = mesh.snapshot.services().iter().find(|service| names.contains(&service.hostname));
    let behind: Vec<&Endpoint> = match service {
        Some(service) => service.ports.iter().flat_map(|port| mesh.snapshot.endpoints(service, port.number)).collect(),
        None => mesh.endpoints().filter(|endpoint| name(endpoint) == wanted).collect(),
    };
    let mut found: Vec<&Endpoint> = Vec::new();
    for endpoint in behind {
        if !found.iter().any(|known| name(known) == name(endpoint) && known.labels == endpoint.labels) {
            found.push(endpoint);
        }
    }
    found
}

fn name(endpoint: &Endpoint) -> String {
    let name = if endpoint.workload_name.is_empty() { endpoint.address.host() } else { &endpoint.workload_name };
    format!("{}/{name}", endpoint.namespace)
}

fn describe(mesh: &Mesh, endpoint: &Endpoint) -> Value {
    let proxy = explain::sidecar(
        &endpoint.namespace,
        &endpoint.service_account,
        endpoint.address.host(),
        endpoint.labels.clone(),
    );
    let mode = mesh.snapshot.peer_mode(&proxy.namespace, &proxy.labels);
    let said = |mode: MutualTls| format!("{mode:?}").to_uppercase();
    let ports: serde_json::Map<String, Value> =
        mode.ports.iter().map(|(port, mode)| (port.to_string(), said(*mode).into())).collect();
    let rules = mesh.snapshot.authorization(&proxy);
    json!({
        "workload": name(endpoint),
        "serviceAccount": endpoint.service_account,
        "sidecar": endpoint.has_mutual_tls(),
        "mutualTls": {"mode": said(mode.mode), "ports": ports},
        "requestAuthentication": list(&mesh.snapshot.request_authentications(&proxy)),
        "authorization": {
            "CUSTOM": list(&rules.custom),
            "DENY": list(&rules.deny),
            "ALLOW": list(&rules.allow),
            "AUDIT": list(&rules.audit),
        },
    })
}

fn list<T>(policies: &[Arc<Policy<T>>]) -> Vec<Value> {
    let one = |policy: &Arc<Policy<T>>| {
        json!({
            "namespace": policy.meta.namespace,
            "name": policy.meta.name,
            "source": policy.source.as_ref().map(ToString::to_string),
        })
    };
    policies.iter().map(one).collect()
}

fn text(workload: &Value) -> String {
    let plain = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let policies = |all: &Value| -> Vec<String> {
        let all = all.as_array().into_iter().flatten();
        all.map(|p| format!("{}/{}  {}", plain(&p["namespace"]), plain(&p["name"]), plain(&p["source"]))).collect()
    };
    let mut lines = vec![plain(&workload["workload"])];
    if workload["sidecar"] == json!(false) {
        lines.push("  no sidecar: nothing below is enforced there".into());
    }
    let tls = &workload["mutualTls"];
    lines.push(format!("  {:<12}{}", "mutual TLS", plain(&tls["mode"])));
    for (port, mode) in tls["ports"].as_object().into_iter().flatten() {
        lines.push(format!("  {:<12}{} at port {port}", "", plain(mode)));
    }
    let mut section = |title: &str, all: Vec<String>| {
        for (i, policy) in all.into_iter().enumerate() {
            lines.push(format!("  {:<12}{policy}", if i == 0 { title } else { "" }));
        }
    };
    section("tokens", policies(&workload["requestAuthentication"]));
    for action in ["CUSTOM", "DENY", "ALLOW", "AUDIT"] {
        section(action, policies(&workload["authorization"][action]));
    }
    if ["CUSTOM", "DENY", "ALLOW"].iter().all(|a| workload["authorization"][a].as_array().is_none_or(Vec::is_empty)) {
        lines.push("  no AuthorizationPolicy applies: every request passes".into());
    }
    lines.join("\n")
}
