//! The proxy beside a workload, ours or a real Envoy.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use maille_proxy::run::{Endpoints, Otherwise};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::certificates::Certificates;
use crate::envoy::{self, Envoy};
use crate::node::Node;
use crate::way::{Own, Way};

/// Which proxy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DataPlane {
    /// Ours, in this process.
    Maille,
    /// Envoy, a process of its own: the one at this path, else as [`envoy::find`] finds it.
    Envoy(Option<PathBuf>),
}

/// Why there is no sidecar.
#[derive(Debug, thiserror::Error)]
pub enum SidecarError {
    /// No Envoy to be found.
    #[error(transparent)]
    NoEnvoy(#[from] envoy::NotFound),
    /// It does not start, or has ended.
    #[error("the sidecar: {0}")]
    Ended(#[from] io::Error),
    /// The control plane does not configure it.
    #[error("the sidecar was not ready after {} s: {}", .0.as_secs(), reasons(.1))]
    NotReady(Duration, Vec<String>),
}

impl SidecarError {
    /// Whether the caller can mend it.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::NoEnvoy(_))
    }
}

fn reasons(known: &[String]) -> String {
    match known {
        [] => "see what `maille up` says about its configuration".to_owned(),
        known => known.join("; "),
    }
}

/// A running sidecar.
pub struct Sidecar {
    running: Running,
    certificates: Certificates,
}

enum Running {
    Maille(maille_proxy::Handle),
    Envoy { envoy: Envoy, options: Box<envoy::Options> },
}

impl Sidecar {
    /// Starts one, and has a certificate made for it. `local` is a loopback address of its own, for what nobody else is to reach.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start(plane: &DataPlane, node: Node, local: IpAddr, way: &Way) -> Result<Self, SidecarError> {
        let certificates = Certificates::start(node.enrolment(way.door.clone()));
        let workload = certificates.workload();
        let running = match plane {
            DataPlane::Maille => Running::Maille(maille(&node, local, way, workload)?),
            DataPlane::Envoy(program) => {
                let program = envoy::find(program.as_deref())?;
                let place = way.door.place.clone();
                let options = envoy::Options { program, node, place, concurrency: Some(1), workload };
                Running::Envoy { envoy: Envoy::start(&options)?, options: Box::new(options) }
            }
        };
        Ok(Self { running, certificates })
    }

    /// Waits until it accepts connections on its forward-proxy listener.
    ///
    /// # Errors
    /// When it ends instead.
    pub async fn ready(&mut self, forward_proxy: SocketAddr) -> Result<(), SidecarError> {
        match &mut self.running {
            Running::Maille(handle) => {
                // The sender ends only with the proxy.
                handle.status().wait_for(|status| status.ready).await.map_err(|_| has_ended())?;
            }
            Running::Envoy { envoy, .. } => envoy.ready().await?,
        }
        while TcpStream::connect(forward_proxy).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Returns when it has ended by itself.
    pub async fn failed(&mut self) -> SidecarError {
        match &mut self.running {
            Running::Maille(handle) => {
                handle.ended().await;
                has_ended()
            }
            Running::Envoy { envoy, .. } => match envoy.ended().await {
                Ok(status) => io::Error::other(format!("Envoy ended ({status})")).into(),
                Err(error) => error.into(),
            },
        }
    }

    /// Starts it again after it has ended.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn restart(&mut self) -> Result<(), SidecarError> {
        match &mut self.running {
            // It shares our process: there is nothing to start again.
            Running::Maille(_) => return Err(has_ended()),
            Running::Envoy { envoy, options } => {
                // Not in a tight loop, should it end at once every time.
                sleep(Duration::from_secs(1)).await;
                *envoy = Envoy::start(options)?;
            }
        }
        Ok(())
    }

    /// Takes no new connections from outside and lets what is under way finish; the workload's own requests still pass.
    pub async fn drain(&mut self) {
        match &mut self.running {
            Running::Maille(handle) => handle.drain_inbound().await,
            Running::Envoy { envoy, .. } => envoy.drain_inbound().await,
        }
    }

    /// Its certificate, as it is renewed.
    pub fn own(&self) -> Own {
        self.certificates.workload()
    }

    /// Ends it.
    pub async fn stop(self) {
        let leaving = self.certificates.leave();
        let stopping = async {
            match self.running {
                Running::Maille(handle) => handle.drain().await,
                Running::Envoy { envoy, .. } => envoy.stop().await,
            }
        };
        tokio::join!(stopping, leaving);
    }

    /// What keeps it from being ready, as far as it knows.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = match &self.running {
            Running::Maille(handle) => {
                let status = handle.status().borrow().clone();
                status.connection_problem.iter().map(ToString::to_string).chain(status.refused).collect()
            }
            Running::Envoy { .. } => Vec::new(),
        };
        problems.extend(self.certificates.problem().map(|problem| format!("no certificate: {problem}")));
        problems
    }
}

/// One worker: a sidecar serves one workload, and is to be small.
fn maille(node: &Node, local: IpAddr, way: &Way, workload: Own) -> io::Result<maille_proxy::Handle> {
    let node = node.clone().ours();
    let mut options = maille_proxy::Options::new(node.to_proto(), format!("http://{}", way.control));
    let tokens = way.tokens.clone();
    options.token = Some(Arc::new(move || tokens().ok()));
    options.concurrency = 1;
    options.dial = way.dial(workload.clone());
    options.workload = Some(workload);
    // The workload's address is its own, so Istio's ports are free there, however many workloads there are.
    options.endpoints = Endpoints::at(local, Otherwise::Without);
    maille_proxy::run(options)
}

fn has_ended() -> SidecarError {
    io::Error::other("it has ended by itself").into()
}
