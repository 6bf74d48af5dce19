//! `maille proxy`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::sync::Arc;

use clap::ValueEnum;
use maille_agent::node::{Node, Role};
use serde_json::{Map, Value};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Failure, Outcome};
use crate::up::gateways::gateway_metadata;
use crate::{control, terminal};

/// Run one proxy alone, configured by a control plane
///
/// `maille up` starts one of these for every gateway, and `maille run` has one beside its program; start one yourself to
/// have a gateway that outlives the control plane, or to run the configuration of somebody else's.
///
/// SIGTERM or Ctrl-C lets what is under way finish; a second one ends at once.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  maille proxy --role router --labels istio=ingressgateway --namespace istio-system
  maille proxy --role router --labels app=edge --namespace shop --control 127.0.0.1:15011 --port-map 80=8080,443=8443")]
pub(crate) struct Args {
    #[command(flatten)]
    control: control::Address,

    /// What it is for
    #[arg(long, value_name = "ROLE", default_value = "router")]
    role: RoleArg,

    /// Its name, unique in its namespace; by default made of its labels
    #[arg(long)]
    name: Option<String>,

    /// The namespace whose configuration it follows
    #[arg(long, value_name = "NS", default_value = "default")]
    namespace: String,

    /// Its labels, which Gateways and workload selectors select
    #[arg(long, value_name = "KEY=VALUE,…", value_delimiter = ',', value_parser = pair)]
    labels: Vec<(String, String)>,

    /// The service account it runs under
    #[arg(long, value_name = "SA", default_value = "default")]
    service_account: String,

    /// Its address; a gateway listens on it
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,

    /// Ports of Gateways that it opens elsewhere
    #[arg(long, value_name = "PORT=PORT,…", value_delimiter = ',', value_parser = ports)]
    port_map: Vec<(u16, u16)>,

    /// More node metadata, as the control plane understands it; a value that is JSON is taken as JSON
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,

    /// Worker threads; by default one per core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: Option<u16>,
}

/// What a proxy is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum RoleArg {
    /// A gateway
    Router,
    /// The proxy beside a workload
    Sidecar,
}

pub(crate) fn run(args: Args) -> Outcome {
    terminal::log("warn");
    let control = args.control.resolve()?;
    let tokens = control::tokens(control);
    let mut options = maille_proxy::Options::new(args.node().to_proto(), format!("http://{control}"));
    options.token = Some(Arc::new(move || tokens().ok()));
    options.concurrency = args.concurrency.map_or(0, usize::from);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::running(format!("no event loop: {error}")))?;
    runtime.block_on(serve(options))
}

/// Runs until told to end.
async fn serve(options: maille_proxy::Options) -> Outcome {
    let no_signals = |error| Failure::running(format!("no signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    tokio::spawn(maille_agent::settle::settle());
    let proxy = maille_proxy::run(options).map_err(|error| Failure::running(format!("the proxy: {error}")))?;
    tokio::select! {
        () = proxy.ended() => return Err(Failure::running("the proxy has ended by itself")),
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tokio::select! {
        () = proxy.drain() => Ok(ExitCode::SUCCESS),
        _ = interrupt.recv() => Ok(ExitCode::from(130)),
        _ = terminate.recv() => Ok(ExitCode::from(143)),
    }
}

impl Args {
    fn node(&self) -> Node {
        let labels: BTreeMap<_, _> = self.labels.iter().cloned().collect();
        let joined = || labels.values().map(String::as_str).collect::<Vec<_>>().join("-");
        let name = self.name.clone().unwrap_or_else(joined);
        let (role, mut metadata) = match self.role {
            RoleArg::Router => (Role::Router, gateway_metadata(self.address, &self.port_map.iter().copied().collect())),
            RoleArg::Sidecar => (Role::Sidecar, Map::new()),
        };
        for (key, value) in &self.metadata {
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.clone()));
            metadata.insert(key.clone(), value);
        }
        Node {
            role,
            name: if name.is_empty() { "proxy".to_owned() } else { name },
            namespace: self.namespace.clone(),
            service_account: self.service_account.clone(),
            address: self.address,
            labels,
            metadata,
        }
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

fn ports(text: &str) -> Result<(u16, u16), String> {
    let (from, to) = text.split_once('=').ok_or("expected PORT=PORT")?;
    let port = |text: &str| text.parse().ok().filter(|port| *port > 0).ok_or(format!("{text:?} is no port"));
    Ok((port(from)?, port(to)?))
}
