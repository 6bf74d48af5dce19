//! The running proxy: a main thread that follows the control plane, and workers that serve what it hands them.

pub(crate) mod admin;
mod assembly;
mod crew;
pub(crate) mod dns;
mod ejections;
mod files;
mod follow;
mod kept;
pub(crate) mod newest;
mod sockets;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use maille_identity::Workload;
use maille_xds::client::{Dial, TokenSource};
use maille_xds::types::core::Node;
use maille_xds::{Resource, TypeUrl};
use tokio::sync::{mpsc, watch};

use maille_telemetry::metrics::{Filter, Registry};

use crate::config::Locality;
use crate::worker::{Message, Overload, OwnWorkload, Shared, SharedLogs};
use crew::Crew;

pub use admin::Purpose;
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
    /// How to connect to it, where that is not in plain text.
    pub dial: Option<Dial>,
    /// How many workers; 0 is one per processor.
    pub concurrency: usize,
    /// Whether each worker stays on a processor of its own.
    pub pin: bool,
    /// How long requests at work get to finish at a drain, once nothing more is accepted.
    pub drain: Duration,
    /// The workload's own certificate and roots, as they are renewed: what is discovered as `default` and `ROOTCA`
    /// elsewhere.
    pub workload: Option<watch::Receiver<Option<Arc<Workload>>>>,
    /// What is still accepted at a drain: others need time to hear that we are going.
    pub lame_duck: LameDuck,
    /// Where whoever runs the proxy asks it.
    pub endpoints: Endpoints,
    /// How many clients may be connected; never more than open files allow, which is what it is by default.
    pub max_connections: Option<usize>,
    /// How many bytes may be held for others, over all workers; an eighth of the machine's memory, or of what the process may have, by default, but
    /// at least 64 MiB and at most 1 GiB.
    pub max_held: Option<usize>,
    /// Changes what is logged.
    pub log_control: Option<LogControl>,
}

/// How long a proxy that is to end goes on accepting connections, telling each client not to come back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LameDuck {
    /// At least so long.
    pub least: Duration,
    /// And until nobody is connected any more.
    pub until_idle: bool,
}

/// Sets what is logged, when it is given that, and says what is logged now: `info`, `maille_proxy=debug`, separated by commas.
pub type LogControl = Arc<dyn Fn(Option<&str>) -> Result<String, String> + Send + Sync>;

/// The endpoints for whoever runs the proxy; `None` is not to have it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Endpoints {
    /// Envoy's administration, on loopback only: it asks nobody who they are.
    pub admin: Option<Bind>,
    /// `/healthz/ready`.
    pub ready: Option<Bind>,
    /// `/stats/prometheus`.
    pub metrics: Option<Bind>,
}

impl Endpoints {
    /// Istio's ports, on one address.
    pub fn at(ip: IpAddr, otherwise: Otherwise) -> Endpoints {
        let bind = |port, otherwise| Some(Bind { address: SocketAddr::new(ip, port), otherwise });
        let side = if otherwise == Otherwise::AnyPort { Otherwise::Without } else { otherwise };
        Endpoints { admin: bind(15000, otherwise), ready: bind(15021, side), metrics: bind(15090, side) }
    }
}

/// Where to listen.
#[derive(Clone, Copy, Debug)]
pub struct Bind {
    /// There.
    pub address: SocketAddr,
    /// What to do when that is taken.
    pub otherwise: Otherwise,
}

/// What to do when an address is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Otherwise {
    /// Do not start.
    Fail,
    /// Listen on any port.
    AnyPort,
    /// Do without.
    Without,
}

impl Options {
    /// With our defaults: one worker per processor, not pinned; 5 s to drain; no endpoints of our own.
    pub fn new(node: Node, xds: impl Into<String>) -> Options {
        Options {
            node,
            xds: xds.into(),
            token: None,
            dial: None,
            concurrency: 0,
            pin: false,
            drain: Duration::from_secs(5),
            workload: None,
            lame_duck: LameDuck::default(),
            endpoints: Endpoints::default(),
            max_connections: None,
            max_held: None,
            log_control: None,
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
    /// Whether it was told to end.
    pub leaving: bool,
    /// The endpoints for whoever runs the proxy, where they are.
    pub endpoints: Vec<(Purpose, SocketAddr)>,
}

impl Status {
    /// Where one of the endpoints is.
    pub fn endpoint(&self, purpose: Purpose) -> Option<SocketAddr> {
        self.endpoints.iter().find(|(p, _)| *p == purpose).map(|(_, address)| *address)
    }
}

/// A running proxy.
pub struct Handle {
    status: watch::Receiver<Status>,
    logs: SharedLogs,
    registry: Registry,
    drain: watch::Sender<Option<Drain>>,
    ending: Ending,
    workers: Arc<[mpsc::UnboundedSender<Message>]>,
    main: Option<JoinHandle<()>>,
}

/// Starts a proxy. An error is about this machine; whatever is wrong with the control plane is in [`Status`], and tried again.
pub fn run(options: Options) -> io::Result<Handle> {
    let client = maille_xds::client::Options {
        token: options.token.clone(),
        dial: options.dial.clone(),
        ..maille_xds::client::Options::new(options.xds.clone(), options.node.clone())
    };
    start(options, Source::ControlPlane(Box::new(client)))
}

/// Starts a proxy without a control plane, on resources that never change: for tests and measurements.
pub fn run_fixed(options: Options, resources: Vec<(TypeUrl, Vec<Resource>)>) -> io::Result<Handle> {
    start(options, Source::Fixed(resources))
}

/// For so many open files there is room from the start: 512 KiB of the kernel's memory, however many more the limit allows.
const MOST_ROOM: u64 = 1 << 16;

/// Where resources come from.
enum Source {
    ControlPlane(Box<maille_xds::client::Options>),
    Fixed(Vec<(TypeUrl, Vec<Resource>)>),
}

fn start(options: Options, source: Source) -> io::Result<Handle> {
    let descriptors = maille_net::raise_open_files().unwrap_or_else(|error| {
        tracing::warn!("the limit on open files stays as it is: {error}");
        1024
    });
    // Now, while nobody waits for it.
    if let Err(error) = maille_net::make_room_for_files(descriptors.min(MOST_ROOM)) {
        tracing::warn!("the table of open files grows as it is used: {error}");
    }
    let ending = Ending { lame_duck: options.lame_duck, limit: options.drain };
    let endpoints = admin::Sockets::open(&options.endpoints)?;
    let hostname: Arc<str> = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().into();
    let registry = Registry::default();
    let cpus = maille_net::cpus();
    let count = if options.concurrency == 0 { cpus.len() } else { options.concurrency };
    let held = options.max_held.unwrap_or_else(|| (maille_net::memory_limit() / 8).clamp(64 << 20, 1 << 30));
    let shared = Shared {
        hostname,
        registry: registry.clone(),
        logs: SharedLogs::default(),
        workload: Arc::new(OwnWorkload::of(&options.node)),
        overload: Arc::new(Overload::new(options.max_connections, descriptors, held / count.max(1))),
    };
    let (logs, overload) = (shared.logs.clone(), shared.overload.clone());
    let places = (0..count.max(1)).map(|number| options.pin.then(|| cpus[number % cpus.len()]));
    let crew = Crew::start(places.collect(), shared)?;
    let workers = crew.mailboxes();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (client, fixed) = match source {
        Source::ControlPlane(client) => {
            let _inside = runtime.enter();
            let client = maille_xds::client::connect(*client);
            (Some(client.map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?), Vec::new())
        }
        Source::Fixed(resources) => (None, resources),
    };
    let (questions_in, questions) = mpsc::channel(1);
    let status_now = Status {
        endpoints: [Purpose::Admin, Purpose::Ready, Purpose::Metrics]
            .into_iter()
            .filter_map(|purpose| Some((purpose, endpoints.address(purpose)?)))
            .collect(),
        ..Status::default()
    };
    {
        let _inside = runtime.enter();
        endpoints.serve(&questions_in)?;
    }
    let locality = options.node.locality.as_ref().filter(|place| !place.region.is_empty() || !place.zone.is_empty());
    let locality = locality.map(|place| Locality {
        region: place.region.as_str().into(),
        zone: place.zone.as_str().into(),
        sub_zone: place.sub_zone.as_str().into(),
    });
    for (purpose, address) in &status_now.endpoints {
        tracing::info!("{purpose:?} endpoint on http://{address}");
    }
    let process = admin::Process {
        stats: admin::Inclusion::of(&options.node),
        node: options.node,
        started: Instant::now(),
        concurrency: crew.len(),
        drain: options.drain,
        registry: registry.clone(),
        logs: logs.clone(),
        overload,
        log_control: options.log_control,
    };
    let (status_in, status) = watch::channel(status_now);
    let (drain, drain_out) = watch::channel(None);
    let outside = follow::Outside {
        status: status_in,
        drain: drain_out,
        questions,
        process,
        ending,
        locality,
        workload: options.workload,
    };
    let main = std::thread::Builder::new().name("proxy-main".into()).spawn(move || {
        runtime.block_on(follow::follow(client, fixed, crew, outside));
    })?;
    Ok(Handle { status, logs, registry, drain, ending, workers, main: Some(main) })
}

impl Handle {
    /// Where the proxy stands; changes can be waited for.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Makes a worker fall over, or one of its connections: for tests of what becomes of the others. It does nothing in a release.
    #[doc(hidden)]
    pub fn sabotage(&self, worker: usize, whole: bool) {
        if let Some(mailbox) = self.workers.get(worker) {
            let _ = mailbox.send(Message::Sabotage { whole });
        }
    }

    /// Opens the files of access logs anew: for whoever has given the old ones other names.
    pub fn reopen_logs(&self) {
        self.logs.reopen();
    }

    /// What is counted, in Prometheus' text format.
    pub fn metrics(&self) -> String {
        self.registry.collect().prometheus(Filter::default())
    }

    /// Stops accepting for inbound listeners and tells their clients to go; what goes out is served on. Returns when
    /// the requests at work have finished, or have had their time.
    pub async fn drain_inbound(&self) {
        let _ = self.drain.send(Some(Drain::Inbound));
        let mut status = self.status.clone();
        let drained = status.wait_for(|status| status.inbound_drained);
        let _ = tokio::time::timeout(self.ending.limit, drained).await;
    }

    /// Tells clients to go, stops accepting ([`Options::lame_duck`]), lets requests at work finish, ends. Returns when it has ended.
    pub async fn drain(mut self) {
        let _ = self.drain.send(Some(Drain::All(self.ending)));
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
        let _ = self.drain.send(Some(Drain::All(Ending::default())));
    }
}

/// What is to be drained; how long it may take.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Drain {
    Inbound,
    All(Ending),
}

/// How a proxy ends. The default is at once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ending {
    pub(crate) lame_duck: LameDuck,
    /// How long requests at work may take after that.
    pub(crate) limit: Duration,
}
