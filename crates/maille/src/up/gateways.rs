//! The gateway proxies of this machine: one child process for each that is planned, started and ended as the plan changes.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::task::Poll;
use std::time::Duration;

use maille_agent::app::{bind_to_us, terminate};
use maille_agent::certificates::Certificates;
use maille_agent::envoy::{self, Envoy};
use maille_agent::node::{Node, Role};
use serde_json::{Map, Value, json};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::plan::Planned;
use crate::plane::Plane;
use crate::terminal;

/// A gateway that ended by itself is started again after this long.
const AGAIN: Duration = Duration::from_secs(1);

/// Our proxy drains by itself when it is told to end; past this it is ended by force.
const DRAIN: Duration = Duration::from_secs(8);

/// What all gateways of a mesh share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    /// Which proxy.
    pub(crate) plane: Plane,
    /// Envoy's program, when it is the proxy.
    pub(crate) envoy: Option<std::path::PathBuf>,
    /// Where their configuration comes from.
    pub(crate) control: SocketAddr,
    /// The address they listen on.
    pub(crate) address: IpAddr,
    /// Worker threads each.
    pub(crate) concurrency: Option<usize>,
}

/// The gateways that run.
pub(crate) struct Gateways {
    shared: Shared,
    running: Vec<Gateway>,
    /// Those that are no longer planned and finish what they have begun.
    leaving: JoinSet<()>,
    /// How often one has ended by itself.
    falls: u32,
}

struct Gateway {
    planned: Planned,
    process: Option<Process>,
    fault: Option<String>,
}

enum Process {
    Maille(Child),
    Envoy(Envoy, Certificates),
}

impl Gateways {
    pub(crate) fn new(shared: Shared) -> Self {
        Self { shared, running: Vec::new(), leaving: JoinSet::new(), falls: 0 }
    }

    /// Starts and ends processes until they are those of the plan. A gateway whose identity is unchanged keeps running.
    pub(crate) fn follow(&mut self, plan: Vec<Planned>) {
        let mut before: Vec<Gateway> = std::mem::take(&mut self.running);
        for planned in plan {
            let same = before.iter().position(|gateway| is_same(&gateway.planned, &planned));
            self.running.push(match same {
                Some(at) => Gateway { planned, ..before.swap_remove(at) },
                None => Gateway::start(planned, &self.shared),
            });
        }
        for process in before.into_iter().filter_map(|gateway| gateway.process) {
            self.leaving.spawn(process.drain());
        }
    }

    /// The gateways, each with why it does not run.
    pub(crate) fn list(&self) -> impl Iterator<Item = (&Planned, Option<&str>)> {
        self.running.iter().map(|gateway| (&gateway.planned, gateway.fault.as_deref()))
    }

    /// Waits until one ends that should not have. Cancel-safe.
    pub(crate) async fn any_ended(&mut self) {
        let running = &mut self.running;
        let (index, status) = poll_fn(|context| {
            for (index, gateway) in running.iter_mut().enumerate() {
                let Some(process) = &mut gateway.process else { continue };
                if let Poll::Ready(status) = pin!(process.ended()).poll(context) {
                    return Poll::Ready((index, status));
                }
            }
            Poll::Pending
        })
        .await;
        let gateway = &mut self.running[index];
        gateway.process = None;
        gateway.fault = Some(match status {
            Ok(status) => format!("its process ended ({status}); it is started again"),
            Err(error) => format!("its process is lost ({error}); it is started again"),
        });
        self.falls += 1;
    }

    /// When to start again what has ended: soon, but not over and over.
    pub(crate) fn mend_after(&self) -> Duration {
        (AGAIN * (1 << self.falls.saturating_sub(1).min(5))).min(Duration::from_secs(30))
    }

    /// Starts again what has ended.
    pub(crate) fn mend(&mut self) {
        for gateway in self.running.iter_mut().filter(|gateway| gateway.process.is_none()) {
            *gateway = Gateway::start(gateway.planned.clone(), &self.shared);
        }
    }

    /// Ends all of them, once what is under way has finished.
    pub(crate) async fn drain(mut self) {
        for process in self.running.into_iter().filter_map(|gateway| gateway.process) {
            self.leaving.spawn(process.drain());
        }
        while self.leaving.join_next().await.is_some() {}
    }
}

/// What a proxy says of itself when it connects cannot change afterwards.
fn is_same(one: &Planned, other: &Planned) -> bool {
    let identity = |p: &Planned| (p.name.clone(), p.namespace.clone(), p.labels.clone(), p.port_map());
    identity(one) == identity(other)
}

impl Gateway {
    fn start(planned: Planned, shared: &Shared) -> Self {
        match Process::start(&planned, shared) {
            Ok(process) => Self { planned, process: Some(process), fault: None },
            Err(error) => Self { planned, process: None, fault: Some(format!("it cannot be started: {error}")) },
        }
    }
}

impl Process {
    fn start(planned: &Planned, shared: &Shared) -> io::Result<Self> {
        let words = planned.labels.iter().flat_map(|(name, value)| [name, value]);
        if let Some(word) = words.into_iter().find(|word| !is_label(word)) {
            let message = format!("`{word}` in the Gateway's selector is neither a label's name nor a value");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        match &shared.plane {
            Plane::Maille => Ok(Self::Maille(maille(planned, shared)?)),
            Plane::Envoy(_) => {
                let program = shared.envoy.clone().ok_or(io::ErrorKind::NotFound)?;
                let node = node(planned, shared);
                let door = crate::control::door(shared.control);
                let (place, concurrency) = (door.place.clone(), shared.concurrency);
                let certificates = Certificates::start(node.enrolment(door));
                let options = envoy::Options { program, node, place, concurrency, workload: certificates.workload() };
                Ok(Self::Envoy(Envoy::start(&options)?, certificates))
            }
        }
    }

    /// Returns when it has ended by itself. Cancel-safe.
    async fn ended(&mut self) -> io::Result<ExitStatus> {
        match self {
            Self::Maille(child) => child.wait().await,
            Self::Envoy(envoy, _) => envoy.ended().await,
        }
    }

    async fn drain(self) {
        match self {
            Self::Maille(mut child) => {
                terminate(&child);
                if timeout(DRAIN, child.wait()).await.is_err() {
                    let _ = child.kill().await;
                }
            }
            Self::Envoy(envoy, certificates) => {
                tokio::join!(envoy.drain(), certificates.leave());
            }
        }
    }
}

/// Whether it consists of what Kubernetes allows in the names and values of labels.
fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    text.len() <= 317 && text.chars().all(inner) && !text.starts_with('-')
}

/// `maille proxy`, from this very binary.
fn maille(planned: &Planned, shared: &Shared) -> io::Result<Child> {
    let list = |pairs: Vec<String>| pairs.join(",");
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["proxy", "--role", "router", "--control", &shared.control.to_string()])
        .args(["--name", &planned.name, "--namespace", &planned.namespace])
        .args(["--service-account", &service_account(planned)])
        .args(["--address", &shared.address.to_string()])
        .args(["--labels", &list(planned.labels.iter().map(|(k, v)| format!("{k}={v}")).collect())])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if std::env::var_os(terminal::LOG).is_none() {
        // What it refuses is on our screen.
        command.env(terminal::LOG, "error");
    }
    let moved = planned.port_map();
    if !moved.is_empty() {
        command.args(["--port-map", &list(moved.iter().map(|(from, to)| format!("{from}={to}")).collect())]);
    }
    if let Some(concurrency) = shared.concurrency {
        command.args(["--concurrency", &concurrency.to_string()]);
    }
    // Ctrl-C is for us: we end the gateways when they have finished what they have begun.
    command.process_group(0);
    bind_to_us(&mut command);
    command.spawn()
}

/// As Istio's own gateways run.
fn service_account(planned: &Planned) -> String {
    format!("{}-service-account", planned.name)
}

/// How a gateway introduces itself.
fn node(planned: &Planned, shared: &Shared) -> Node {
    Node {
        role: Role::Router,
        name: planned.name.clone(),
        namespace: planned.namespace.clone(),
        service_account: service_account(planned),
        address: shared.address,
        labels: planned.labels.clone(),
        metadata: gateway_metadata(shared.address, &planned.port_map()),
    }
}

/// Where a gateway listens, for the control plane to know.
pub(crate) fn gateway_metadata(address: IpAddr, port_map: &BTreeMap<u16, u16>) -> Map<String, Value> {
    let ports: Map<_, _> = port_map.iter().map(|(from, to)| (from.to_string(), json!(to.to_string()))).collect();
    let mut metadata = Map::new();
    metadata.insert("BIND_ADDRESS".into(), json!(address.to_string()));
    if !ports.is_empty() {
        metadata.insert("PORT_MAP".into(), Value::Object(ports));
    }
    metadata
}
