//! The control plane: store to snapshot to xDS, registration, debug endpoints.
//!
//! ```text
//! store ─► builder (debounce, Snapshot, translate) ─► one world per proxy ─► ADS sessions
//!   ▲                                                                          │
//!   └── leases (POST /v1/workloads)                      status, metrics ◄─────┘
//! ```
//!
//! [`start`] serves all of it on a port of this machine, where the bearer token of [`token`] lets in, and over TLS on
//! another, where workloads are let in by their certificates, and by the tokens that [`ca`] mints.

mod auth;
mod builder;
pub mod ca;
mod http;
mod intern;
mod keys;
mod leases;
mod listen;
mod metrics;
mod proxies;
pub mod status;
mod tls;
pub mod token;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use maille_api::Diagnostic;
use maille_api::mesh::MeshConfig;
use maille_identity::TrustDomain;
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

/// The port Istio's control plane answers on with TLS, and ours.
pub const DEFAULT_TLS_PORT: u16 = 15012;

/// How the control plane introduces itself in every response.
pub const IDENTIFIER: &str = concat!("maille-", env!("CARGO_PKG_VERSION"));

/// What a control plane is started with.
pub struct Options {
    /// Where the resources are; loaded already, as its content is what the first answers are made of.
    pub store: Arc<Store>,
    /// Mesh settings to use whatever the ConfigMap `istio` in `istio-system` says.
    pub mesh: Option<MeshConfig>,
    /// Where to listen in plain text, on loopback; bound already, so that a taken port is the caller's to report.
    pub listener: TcpListener,
    /// Where to listen with TLS; bound already.
    pub tls: Option<TcpListener>,
    /// How the CA is set up.
    pub ca: ca::Options,
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
    tls: Option<SocketAddr>,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

/// What the parts of a control plane share.
struct Shared {
    token: TokenFile,
    proxies: Proxies,
    leases: Arc<Leases>,
    ca: Arc<ca::Ca>,
    /// Until there is a first snapshot.
    mesh: MeshConfig,
    metrics: metrics::Metrics,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    problems: Option<Problems>,
    stopping: watch::Sender<bool>,
}

/// Starts a control plane on the current tokio runtime.
///
/// # Errors
/// When the plain port is not on loopback, or the CA cannot be had.
pub fn start(options: Options) -> io::Result<Control> {
    let Options { store, mesh, listener, tls, ca, token, problems } = options;
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        let reason = format!("{address} is not on loopback: what listens there must speak TLS");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    let initial = builder::mesh_config(mesh.as_ref(), &store);
    let ca = Arc::new(ca::Ca::open(ca, &token, &store, &initial.trust_domain).map_err(io::Error::other)?);
    let (snapshots_in, snapshots) = watch::channel(None);
    let leases = Leases::restore(store.clone(), token.leases_path());
    let shared = Arc::new(Shared {
        token,
        proxies: Proxies::default(),
        leases: leases.clone(),
        ca: ca.clone(),
        mesh: initial,
        metrics: metrics::Metrics::default(),
        snapshots: snapshots.clone(),
        problems,
        stopping: watch::Sender::new(false),
    });
    let (keys, fetching) = keys::Keys::new(keys::Web::new());
    let mut tasks = vec![
        tokio::spawn(fetching),
        tokio::spawn(leases.clone().keep()),
        tokio::spawn(ca.clone().drive()),
        tokio::spawn(ca.follow(store.clone())),
        tokio::spawn(builder::run(store, mesh, keys, shared.clone(), snapshots_in)),
        tokio::spawn(listen::serve(listen::nonblocking(listener)?, None, shared.clone())),
    ];
    tracing::info!(%address, "control plane listening");
    let tls = match tls {
        Some(listener) => {
            let address = listener.local_addr()?;
            let tls = tls::Tls::new(&shared, address)?;
            tasks.push(tokio::spawn(tls.clone().keep(shared.clone())));
            tasks.push(tokio::spawn(listen::serve(listen::nonblocking(listener)?, Some(tls), shared.clone())));
            if !address.ip().is_loopback() {
                // Whoever comes from elsewhere knows our root.
                shared.ca.keep();
            }
            shared.token.leave_tls_address(address)?;
            tracing::info!(%address, "control plane listening with TLS");
            Some(address)
        }
        None => None,
    };
    Ok(Control { address, tls, snapshots, shared, tasks })
}

impl Control {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens with TLS.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls
    }

    /// The CA: its roots, who holds its certificates, and how far a rotation is.
    pub fn ca_status(&self) -> ca::status::CaStatus {
        self.shared.ca.status()
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
        self.shared.ca.save();
        if !leases.save_or_remove() {
            self.shared.token.remove();
            self.shared.ca.remove_if_unknown();
        }
    }
}

impl Shared {
    /// The mesh's own trust domain, and then those that are as good.
    fn trust_domains(&self) -> Result<Vec<TrustDomain>, tonic::Status> {
        let snapshot = self.snapshots.borrow();
        let mesh = snapshot.as_ref().map_or(&self.mesh, |snapshot| snapshot.mesh());
        let own = mesh.trust_domain.parse::<TrustDomain>().map_err(|error| {
            tonic::Status::failed_precondition(format!("the mesh's trustDomain {:?}: {error}", mesh.trust_domain))
        })?;
        let aliases = mesh.trust_domain_aliases.iter().filter_map(|alias| alias.parse().ok());
        Ok(std::iter::once(own).chain(aliases).collect())
    }
}

#[cfg(test)]
mod tests;
