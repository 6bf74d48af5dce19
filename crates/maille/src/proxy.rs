//! `maille proxy`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use maille_agent::certificates::{Certificates, Enrolment};
use maille_agent::node::{Node, Role};
use maille_agent::way::Way;
use maille_proxy::run::{Bind, Endpoints, LameDuck, Otherwise};
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
/// SIGTERM or Ctrl-C lets what is under way finish; a second one ends at once. SIGUSR1 opens access logs anew, for whoever
/// rotates them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  maille proxy --role router --labels istio=ingressgateway --namespace istio-system
  maille proxy --role router --labels app=edge --namespace shop --control 127.0.0.1:15011 --port-map 80=8080,443=8443")]
pub(crate) struct Args {
    #[command(flatten)]
    control: control::Address,

    #[command(flatten)]
    remote: control::Remote,

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

    /// Where it answers whoever runs it, in Envoy's way: a loopback address, or a port on 127.0.0.1; by default 15000, or any
    /// port when that is taken (MAILLE_LOG=info tells which)
    #[arg(long, value_name = "[IP:]PORT", value_parser = place)]
    admin: Option<SocketAddr>,

    /// At SIGTERM, how long it still accepts connections, telling each client not to come back
    #[arg(long, value_name = "SECONDS", env = "TERMINATION_DRAIN_DURATION_SECONDS", default_value_t = 0)]
    drain_time: u32,

    /// At SIGTERM, accept for as long as anybody is connected, but at least the drain time
    #[arg(long, env = "EXIT_ON_ZERO_ACTIVE_CONNECTIONS")]
    drain_until_idle: bool,

    /// How many clients may be connected at a time; by default, and at most, as many as open files allow
    #[arg(long, value_name = "N")]
    max_connections: Option<usize>,

    /// How many MiB it may hold for others, what was received and not yet handed on, before it sheds load; by default an
    /// eighth of the memory it may have, from 64 to 1024
    #[arg(long, value_name = "MIB")]
    max_held: Option<usize>,
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
    let log = terminal::log("warn");
    let control = args.control.resolve()?;
    let way = args.remote.clone().way(control)?;
    let tokens = way.tokens.clone();
    let mut options = maille_proxy::Options::new(args.node().ours().to_proto(), format!("http://{control}"));
    options.token = Some(Arc::new(move || tokens().ok()));
    options.concurrency = args.concurrency.map_or(0, usize::from);
    options.endpoints = Endpoints::at(Ipv4Addr::LOCALHOST.into(), Otherwise::AnyPort);
    if let Some(address) = args.admin {
        options.endpoints.admin = Some(Bind { address, otherwise: Otherwise::Fail });
    }
    let least = Duration::from_secs(args.drain_time.into());
    options.lame_duck = LameDuck { least, until_idle: args.drain_until_idle };
    options.max_connections = args.max_connections;
    options.max_held = args.max_held.map(|mib| mib.saturating_mul(1 << 20));
    options.log_control = Some(log);
    let enrolment = args.node().enrolment(way.door.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::running(format!("no event loop: {error}")))?;
    runtime.block_on(serve(options, enrolment, way))
}

/// Runs until told to end.
async fn serve(mut options: maille_proxy::Options, enrolment: Enrolment, way: Way) -> Outcome {
    let no_signals = |error| Failure::running(format!("no signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    tokio::spawn(maille_agent::settle::settle());
    let mut rotated = signal(SignalKind::user_defined1()).map_err(no_signals)?;
    let certificates = Certificates::start(enrolment);
    options.dial = way.dial(certificates.workload());
    options.workload = Some(certificates.workload());
    let proxy = maille_proxy::run(options).map_err(|error| Failure::running(format!("the proxy: {error}")))?;
    let status = proxy.status();
    loop {
        tokio::select! {
            () = proxy.ended() => return match status.borrow().leaving {
                true => {
                    certificates.leave().await;
                    Ok(ExitCode::SUCCESS)
                }
                false => Err(Failure::running("the proxy has ended by itself")),
            },
            _ = rotated.recv() => proxy.reopen_logs(),
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    tokio::select! {
        () = async { tokio::join!(proxy.drain(), certificates.leave()); } => Ok(ExitCode::SUCCESS),
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

fn place(text: &str) -> Result<SocketAddr, String> {
    let port = text.parse().map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let place = port.or_else(|_| text.parse()).map_err(|_| "expected PORT or IP:PORT".to_owned())?;
    match place.ip().is_loopback() {
        true => Ok(place),
        false => Err("it asks nobody who they are, so it listens on loopback only".to_owned()),
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
