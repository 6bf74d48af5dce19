//! The running proxy: a main thread that follows the control plane, and workers that serve what it hands them.

mod admin;
mod assembly;
mod dns;
mod files;
mod follow;
mod sockets;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use maille_identity::Workload;
use maille_xds::client::TokenSource;
use maille_xds::types::core::Node;
use maille_xds::{Resource, TypeUrl};
use tokio::sync::{mpsc, watch};

use maille_telemetry::metrics::Registry;

use crate::config::Locality;
use crate::worker::{self, Message, Shared, SharedLogs};

pub use assembly::Assembly;

/// What a proxy needs to know.
#[derive(Clone)]
pub struct Options {
    /// Who we are.
    pub node: Node,
    /// `http://HOST:PORT` of the control plane.
    pub xds: String,
    /// Reads the bearer token for it, anew for each attempt to connect.
    pub token: Option<TokenSource>,
    /// How many workers; 0 is one per processor.
    pub concurrency: usize,
    /// Whether each worker stays on a processor of its own.
    pub pin: bool,
    /// How long requests at work get to finish at a drain.
    pub drain: Duration,
    /// Where the admin endpoint listens: a loopback address.
    pub admin: Option<SocketAddr>,
    /// The workload's own certificate and roots, as they are renewed: what is discovered as `default` and `ROOTCA`
    /// elsewhere.
    pub workload: Option<watch::Receiver<Option<Arc<Workload>>>>,
}

impl Options {
    /// With our defaults: one worker per processor, not pinned; 5 s to drain; no admin endpoint.
    pub fn new(node: Node, xds: impl Into<String>) -> Options {
        Options {
            node,
            xds: xds.into(),
            token: None,
            concurrency: 0,
            pin: false,
            drain: Duration::from_secs(5),
            admin: None,
            workload: None,
        }
    }
}

/// Where a proxy stands.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Whether the control plane can be reached.
    pub connected: bool,
    /// Why not, as far as is known.
    pub connection_problem: Option<Arc<str>>,
    /// Whether everything that was sent first has been taken and is being served.
    pub ready: bool,
    /// The addresses that are listened on, each with its listener's name.
    pub listening: Vec<(Arc<str>, SocketAddr)>,
    /// What was refused and still is: one sentence each.
    pub refused: Vec<String>,
    /// Whether [`Handle::drain_inbound`] was asked for, and the last connection that came in is gone.
    pub inbound_drained: bool,
}

/// A running proxy.
pub struct Handle {
    status: watch::Receiver<Status>,
    drain: watch::Sender<Option<Drain>>,
    limit: Duration,
    main: Option<JoinHandle<()>>,
}

/// Starts a proxy. An error is about this machine; whatever is wrong with the control plane is in [`Status`], and tried again.
pub fn run(options: Options) -> io::Result<Handle> {
    let client = maille_xds::client::Options {
        token: options.token.clone(),
        ..maille_xds::client::Options::new(options.xds.clone(), options.node.clone())
    };
    start(options, Source::ControlPlane(Box::new(client)))
}

/// Starts a proxy without a control plane, on resources that never change: for tests and measurements.
pub fn run_fixed(options: Options, resources: Vec<(TypeUrl, Vec<Resource>)>) -> io::Result<Handle> {
    start(options, Source::Fixed(resources))
}

/// Where resources come from.
enum Source {
    ControlPlane(Box<maille_xds::client::Options>),
    Fixed(Vec<(TypeUrl, Vec<Resource>)>),
}

fn start(options: Options, source: Source) -> io::Result<Handle> {
    if let Err(error) = maille_net::raise_open_files() {
        tracing::warn!("the limit on open files stays as it is: {error}");
    }
    let limit = options.drain;
    let hostname: Arc<str> = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().into();
    let registry = Registry::default();
    let shared = Shared { hostname, registry: registry.clone(), logs: SharedLogs::default() };
    let mut crew = Crew { mailboxes: Vec::new(), threads: Vec::new() };
    let cpus = maille_net::cpus();
    let count = if options.concurrency == 0 { cpus.len() } else { options.concurrency };
    for number in 0..count.max(1) {
        let cpu = options.pin.then(|| cpus[number % cpus.len()]);
        crew.add(number, cpu, shared.clone())?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (client, fixed) = match source {
        Source::ControlPlane(client) => {
            let _inside = runtime.enter();
            let client = maille_xds::client::connect(*client);
            (Some(client.map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?), Vec::new())
        }
        Source::Fixed(resources) => (None, resources),
    };
    let admin = match options.admin {
        Some(address) => {
            let socket = maille_net::listen(address, maille_net::ListenOptions::default())?;
            let _inside = runtime.enter();
            Some(tokio::net::TcpListener::from_std(socket)?)
        }
        None => None,
    };
    let (status_in, status) = watch::channel(Status::default());
    let (drain, drain_out) = watch::channel(None);
    let admin_drain = drain.clone();
    let locality = options.node.locality.as_ref().filter(|place| !place.region.is_empty() || !place.zone.is_empty());
    let locality = locality.map(|place| Locality {
        region: place.region.as_str().into(),
        zone: place.zone.as_str().into(),
        sub_zone: place.sub_zone.as_str().into(),
    });
    let outside = follow::Outside {
        status: status_in,
        drain: drain_out,
        admin,
        admin_drain,
        registry,
        locality,
        workload: options.workload,
    };
    let main = std::thread::Builder::new().name("proxy-main".into()).spawn(move || {
        runtime.block_on(follow::follow(client, fixed, crew, outside));
    })?;
    Ok(Handle { status, drain, limit, main: Some(main) })
}

impl Handle {
    /// Where the proxy stands; changes can be waited for.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Stops accepting for inbound listeners and tells their clients to go; what goes out is served on. Returns when
    /// the requests at work have finished, or have had their time.
    pub async fn drain_inbound(&self) {
        let _ = self.drain.send(Some(Drain::Inbound));
        let mut status = self.status.clone();
        let drained = status.wait_for(|status| status.inbound_drained);
        let _ = tokio::time::timeout(self.limit, drained).await;
    }

    /// Stops accepting, tells clients to go, lets requests at work finish, ends. Returns when it has ended.
    pub async fn drain(mut self) {
        let _ = self.drain.send(Some(Drain::All(self.limit)));
        let main = self.main.take();
        let _ = tokio::task::spawn_blocking(move || main.map(JoinHandle::join)).await;
    }

    /// Resolves when the proxy has ended, by [`Handle::drain`] or by its admin endpoint.
    pub async fn ended(&self) {
        let mut status = self.status.clone();
        while status.changed().await.is_ok() {}
    }
}

impl Drop for Handle {
    /// Ends the proxy at once.
    fn drop(&mut self) {
        let _ = self.drain.send(Some(Drain::All(Duration::ZERO)));
    }
}

/// What is to be drained; how long it may take.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Drain {
    Inbound,
    All(Duration),
}

/// The workers.
pub(crate) struct Crew {
    mailboxes: Vec<mpsc::UnboundedSender<Message>>,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    fn add(&mut self, number: usize, cpu: Option<usize>, shared: Shared) -> io::Result<()> {
        let (mailbox, messages) = mpsc::unbounded_channel();
        let thread = std::thread::Builder::new().name(format!("proxy-{number}")).spawn(move || {
            if let Some(cpu) = cpu
                && let Err(error) = maille_net::pin_to(cpu)
            {
                tracing::warn!(worker = number, cpu, "cannot stay on a processor: {error}");
            }
            if let Err(error) = worker::run(messages, shared) {
                tracing::error!(worker = number, "cannot start: {error}");
            }
        })?;
        self.mailboxes.push(mailbox);
        self.threads.push(thread);
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.mailboxes.len()
    }

    /// Tells one worker.
    pub(crate) fn tell(&self, worker: usize, message: Message) {
        // A worker that is gone has said why when it went.
        let _ = self.mailboxes[worker].send(message);
    }

    /// Drains what comes in; each worker says when it has.
    pub(crate) fn drain_inbound(&self, done: &mpsc::UnboundedSender<()>) {
        for mailbox in &self.mailboxes {
            let _ = mailbox.send(Message::DrainInbound(done.clone()));
        }
    }

    /// Drains all workers; returns when they have ended.
    pub(crate) async fn drain(self, limit: Duration) {
        for mailbox in &self.mailboxes {
            let _ = mailbox.send(Message::Drain(limit));
        }
        let threads = self.threads;
        let _ = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|t| drop(t.join()))).await;
    }
}
