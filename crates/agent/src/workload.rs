//! A program as a workload of the mesh: everything that `maille run` does, in order.

mod signals;

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Map, Value, json};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::HTTP_PROXY_PORT;
use crate::address::{Address, AddressError};
use crate::app::{self, App};
use crate::lease::LeaseError;
use crate::membership::{Joining, Membership};
use crate::node::{Node, Role};
use crate::notice::{say, waiting};
use crate::settle::settle;
use crate::sidecar::{DataPlane, Sidecar, SidecarError};
use crate::way::Way;
use signals::Signals;

/// How long the control plane and the sidecar may take to come up.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the others take to hear that we left.
const HEARD: Duration = Duration::from_millis(300);

/// What to run, and as what.
#[derive(Clone)]
pub struct Options {
    /// The workload's name, unique in its namespace.
    pub name: String,
    /// The label `app`.
    pub service: String,
    /// The label `version`.
    pub version: Option<String>,
    /// The namespace.
    pub namespace: String,
    /// The service account.
    pub service_account: String,
    /// The port that others reach it on: the `targetPort` of its Service.
    pub port: Option<u16>,
    /// Where others reach it; without, at a loopback address of its own.
    pub address: Option<IpAddr>,
    /// The way to the control plane.
    pub way: Way,
    /// Which sidecar.
    pub plane: DataPlane,
    /// The program and its arguments.
    pub command: Vec<OsString>,
}

/// Why the program did not run as a workload.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No address, or its port is taken.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// There is no control plane to be found.
    #[error("no control plane at {control}: {reason}; {advice}")]
    NoControl {
        /// Where it was looked for.
        control: SocketAddr,
        /// What was missing.
        reason: String,
        /// What to check.
        advice: &'static str,
    },
    /// The sidecar did not come up.
    #[error(transparent)]
    Sidecar(#[from] SidecarError),
    /// The mesh would not have it.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The program could not be started.
    #[error("cannot run `{program}`: {source}")]
    Program {
        /// Its name.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// The system failed us.
    #[error(transparent)]
    System(#[from] io::Error),
}

impl RunError {
    /// The exit code that says whose fault it was: a shell's for a program that cannot be started, 2 for what the
    /// caller can mend, 1 for the rest.
    pub fn code(&self) -> u8 {
        match self {
            Self::Program { source, .. } => app::code_of_failure(source),
            Self::Address(AddressError::Port { .. }) | Self::Lease(LeaseError::Refused { .. }) => 2,
            Self::Sidecar(error) if error.is_usage() => 2,
            _ => 1,
        }
    }
}

/// Runs the program as a workload until it ends. Gives the exit code a shell would.
///
/// # Errors
/// When the program could not be run, or not as a workload.
pub async fn run(options: Options) -> Result<u8, RunError> {
    let mut signals = Signals::listen()?;
    let stdout = app::take_stdout()?;
    tokio::select! {
        prepared = prepare(&options) => {
            let (sidecar, address, app_port) = prepared?;
            tokio::spawn(settle());
            live(&options, stdout, signals, sidecar, address, app_port).await
        }
        signal = signals.next() => Ok(128 + signal.as_raw() as u8),
    }
}

/// Everything that has to be there before the program is.
async fn prepare(options: &Options) -> Result<(Sidecar, Address, Option<u16>), RunError> {
    let address = Address::reserve(&options.namespace, &options.name)?;
    let app_port = match options.port {
        Some(port) => {
            Address::check(SocketAddr::new(options.reached_at(&address), port))?;
            Some(maille_net::free_port(Ipv4Addr::LOCALHOST.into())?)
        }
        None => None,
    };
    let what = format!("the control plane at {} (`maille up`)", options.way.control);
    waiting(what, control_is_there(options)).await?;
    let mut sidecar =
        Sidecar::start(&options.plane, options.node(&address, app_port), address.ip.into(), &options.way).await?;
    let ready = timeout(PATIENCE, sidecar.ready(SocketAddr::from((address.ip, HTTP_PROXY_PORT))));
    match waiting("the sidecar's first configuration", ready).await {
        Ok(ready) => ready?,
        Err(_) => return Err(SidecarError::NotReady(PATIENCE, sidecar.problems()).into()),
    }
    Ok((sidecar, address, app_port))
}

/// Waits until the token and the place of certificates can be found and somebody listens on the port: a control plane that starts leaves
/// one after the other.
async fn control_is_there(options: &Options) -> Result<(), RunError> {
    let mut reason = String::new();
    let there = async {
        loop {
            match (options.way.tokens)().and_then(|_| (options.way.door.place)()) {
                Ok(_) => match TcpStream::connect(options.way.control).await {
                    Ok(_) => return,
                    Err(error) => reason = error.to_string(),
                },
                Err(error) => reason = error,
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    let found = timeout(PATIENCE, there).await;
    found.map_err(|_| RunError::NoControl { control: options.way.control, reason, advice: options.way.advice() })
}

/// From the program's start to its end.
async fn live(
    options: &Options,
    stdout: Stdio,
    mut signals: Signals,
    mut sidecar: Sidecar,
    address: Address,
    app_port: Option<u16>,
) -> Result<u8, RunError> {
    let program = |source| RunError::Program { program: options.command[0].to_string_lossy().into_owned(), source };
    let mut app = App::start(&options.command, &variables(&address, app_port), stdout).map_err(program)?;
    let joining = Joining { way: options.way.clone(), own: sidecar.own(), entry: options.entry(&address) };
    let mut membership = std::pin::pin!(join(joining, options, &address, app_port));
    let mut member = None;
    let signal = loop {
        tokio::select! {
            ended = app.ended() => {
                drop(member);
                sidecar.stop().await;
                return Ok(app::code(ended?));
            }
            joined = &mut membership, if member.is_none() => member = Some(joined?),
            error = sidecar.failed() => {
                say(format_args!("{error}; starting it again"));
                sidecar.restart().await?;
            }
            signal = signals.next() => match signal {
                Signal::USR1 | Signal::USR2 => app.signal(signal),
                signal => break signal,
            }
        }
    };
    // First nobody is sent here any more, then what is under way ends, then the program. A second signal cuts it short.
    let leave = async {
        if let Some(member) = member.take() {
            member.leave().await;
            if app_port.is_some() {
                sleep(HEARD).await;
            }
        }
        sidecar.drain().await;
    };
    let at_terminal = app.shares_terminal() && matches!(signal, Signal::INT | Signal::QUIT);
    tokio::select! {
        () = leave => {}
        ended = app.ended() => return finish(sidecar, ended?).await,
        _ = signals.next() => {}
    }
    if !at_terminal {
        app.signal(signal);
    }
    loop {
        tokio::select! {
            ended = app.ended() => return finish(sidecar, ended?).await,
            again = signals.next() => app.signal(again),
        }
    }
}

async fn finish(sidecar: Sidecar, status: std::process::ExitStatus) -> Result<u8, RunError> {
    sidecar.stop().await;
    Ok(app::code(status))
}

/// Joins as soon as the program listens: nobody is to be sent to a port that refuses.
async fn join(
    joining: Joining,
    options: &Options,
    address: &Address,
    app_port: Option<u16>,
) -> Result<Membership, LeaseError> {
    if let Some(port) = app_port {
        let what = format!("the program to listen on $PORT (127.0.0.1:{port}); it joins the mesh when it does");
        waiting(what, listening(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))).await;
    }
    let membership = Membership::join(joining, PATIENCE).await?;
    if let Some(port) = app_port {
        say(format_args!(
            "127.0.0.1:{port} is the program's own: whoever is on this machine reaches it there past the sidecar and its policies"
        ));
    }
    if let Some(port) = options.port {
        tokio::spawn(tell_when_unreachable(SocketAddr::new(options.reached_at(address), port), options.clone()));
    }
    Ok(membership)
}

async fn listening(at: SocketAddr) {
    while TcpStream::connect(at).await.is_err() {
        sleep(Duration::from_millis(20)).await;
    }
}

/// A workload that no Service selects runs, but nobody can reach it: somebody should be told.
async fn tell_when_unreachable(at: SocketAddr, options: Options) {
    if timeout(Duration::from_secs(5), listening(at)).await.is_err() {
        let Options { namespace, service, .. } = &options;
        say(format_args!(
            "no Service in namespace {namespace} selects app={service} with targetPort {}, so nothing reaches this workload yet",
            at.port()
        ));
    }
}

/// What the program finds in its environment.
fn variables(address: &Address, app_port: Option<u16>) -> Vec<(&'static str, String)> {
    let proxy = format!("http://{}:{HTTP_PROXY_PORT}", address.ip);
    let mut variables = vec![("http_proxy", proxy.clone()), ("HTTP_PROXY", proxy)];
    // Names that the caller's own environment exempts from its proxies are names of the mesh here.
    variables.extend([("no_proxy", String::new()), ("NO_PROXY", String::new())]);
    variables.extend(app_port.map(|port| ("PORT", port.to_string())));
    variables
}

impl Options {
    fn labels(&self) -> impl Iterator<Item = (String, String)> + '_ {
        let version = self.version.iter().map(|version| ("version".to_owned(), version.clone()));
        std::iter::once(("app".to_owned(), self.service.clone())).chain(version)
    }

    fn reached_at(&self, own: &Address) -> IpAddr {
        self.address.unwrap_or(own.ip.into())
    }

    fn node(&self, address: &Address, app_port: Option<u16>) -> Node {
        let mut metadata = Map::new();
        metadata.insert("INTERCEPTION_MODE".into(), json!("NONE"));
        metadata.insert("HTTP_PROXY_PORT".into(), json!(HTTP_PROXY_PORT.to_string()));
        // Whoever reaches it is taken for the workload.
        metadata.insert("HTTP_PROXY_ADDRESS".into(), json!(address.ip.to_string()));
        let ports: Map<_, _> =
            self.port.zip(app_port).map(|(port, app)| (port.to_string(), json!(app))).into_iter().collect();
        metadata.insert("APP_PORTS".into(), Value::Object(ports));
        Node {
            role: Role::Sidecar,
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            service_account: self.service_account.clone(),
            address: self.reached_at(address),
            labels: self.labels().collect(),
            metadata,
        }
    }

    /// The workload as others see it. Its ports are left to the Services that select it.
    fn entry(&self, address: &Address) -> Value {
        // Its sidecar has a certificate: others may speak mutual TLS to it.
        let tls_mode = ("security.istio.io/tlsMode".to_owned(), "istio".to_owned());
        let labels: Map<_, _> = self.labels().chain([tls_mode]).map(|(name, value)| (name, json!(value))).collect();
        json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "WorkloadEntry",
            "metadata": {"name": self.name, "namespace": self.namespace, "labels": labels},
            "spec": {"address": self.reached_at(address).to_string(), "labels": labels, "serviceAccount": self.service_account},
        })
    }
}
