//! The control plane: store to snapshot to xDS, registration, debug endpoints.
//!
//! ```text
//! store ─► builder (debounce, Snapshot, translate) ─► one world per proxy ─► ADS sessions
//!   ▲                                                                          │
//!   └── leases (POST /v1/workloads)                      status, metrics ◄─────┘
//! ```
//!
//! [`start`] serves all of it on one port; nobody is let in without the bearer token of [`token`].

mod auth;
mod builder;
mod http;
mod intern;
mod leases;
mod listen;
mod metrics;
mod proxies;
pub mod status;
pub mod token;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use maille_api::Diagnostic;
use maille_api::mesh::MeshConfig;
use maille_model::Snapshot;
use maille_store::Store;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use leases::Leases;
use proxies::Proxies;
use status::Status;
use token::TokenFile;

/// The port Istio's control plane answers xDS on in plain text, and ours.
pub const DEFAULT_PORT: u16 = 15010;

/// How the control plane introduces itself in every response.
pub const IDENTIFIER: &str = concat!("maille-", env!("CARGO_PKG_VERSION"));

/// What a control plane is started with.
pub struct Options {
    /// Where the resources are; loaded already, as its content is what the first answers are made of.
    pub store: Arc<Store>,
    /// Mesh settings to use whatever the ConfigMap `istio` in `istio-system` says.
    pub mesh: Option<MeshConfig>,
    /// Where to listen; bound already, so that a taken port is the caller's to report.
    pub listener: TcpListener,
    /// What lets clients in. Its folder also remembers the workloads that were there, for the next start.
    pub token: TokenFile,
    /// What is wrong with the configuration right now, for the status page.
    pub problems: Option<Problems>,
}

/// Reads what is wrong with the configuration right now.
pub type Problems = Arc<dyn Fn() -> Vec<Diagnostic> + Send + Sync>;

/// A running control plane. Dropping it leaves it running; [`Control::stop`] ends it.
pub struct Control {
    address: SocketAddr,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

/// What the parts of a control plane share.
struct Shared {
    token: TokenFile,
    proxies: Proxies,
    leases: Arc<Leases>,
    metrics: metrics::Metrics,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    problems: Option<Problems>,
    stopping: watch::Sender<bool>,
}

/// Starts a control plane on the current tokio runtime.
pub fn start(options: Options) -> io::Result<Control> {
    let Options { store, mesh, listener, token, problems } = options;
    let address = listener.local_addr()?;
    let (snapshots_in, snapshots) = watch::channel(None);
    let leases = Leases::restore(store.clone(), token.leases_path());
    let shared = Arc::new(Shared {
        token,
        proxies: Proxies::default(),
        leases: leases.clone(),
        metrics: metrics::Metrics::default(),
        snapshots: snapshots.clone(),
        problems,
        stopping: watch::Sender::new(false),
    });
    let tasks = vec![
        tokio::spawn(leases.clone().keep()),
        tokio::spawn(builder::run(store, mesh, shared.clone(), snapshots_in)),
        tokio::spawn(listen::serve(listen::nonblocking(listener)?, shared.clone())),
    ];
    tracing::info!(%address, "control plane listening");
    Ok(Control { address, snapshots, shared, tasks })
}

impl Control {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The mesh as it was last built; `None` until it has been for the first time.
    pub fn snapshots(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
        self.snapshots.clone()
    }

    /// Who is connected and how far they are, what they refused, and what is wrong.
    pub fn status(&self) -> Status {
        status::collect(&self.shared)
    }

    /// Tells of every refusal, made or mended, and of every proxy that comes or goes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.proxies.changes()
    }

    /// Ends every stream and every lease. Workloads that still hold one are remembered, with the token, for the next
    /// start on the same port; when there are none, no file is left.
    pub async fn stop(self) {
        self.shared.leases.close();
        self.shared.stopping.send_replace(true);
        self.shared.proxies.close();
        for task in self.tasks {
            task.abort();
            // Aborted, or over already.
            let _ = task.await;
        }
        let leases = self.shared.leases.clone();
        if !leases.save_or_remove() {
            self.shared.token.remove();
        }
    }
}

#[cfg(test)]
mod tests;
