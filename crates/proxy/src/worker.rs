//! A worker: one thread with its own sockets, connections, pools, buffers and clock, serving what the main thread hands it.

mod body;
mod buffers;
pub(crate) mod client_cert;
mod clock;
mod closing;
mod connection;
mod cors;
mod desk;
mod exchange;
pub(crate) mod fault;
mod gate;
pub(crate) mod hash;
mod held;
mod http;
mod http1;
pub(crate) mod http2;
pub(crate) mod inspect;
mod io;
mod istio;
mod listening;
mod logs;
mod mirror;
mod overload;
mod read_ahead;
mod record;
mod registry;
mod relay;
mod reply;
pub(crate) mod request;
mod response;
pub(crate) mod retry;
mod scratch;
mod sends;
mod shedding;
mod spare;
mod tcp;
mod text;
pub(crate) mod timers;
mod transfer;
mod turns;
mod upstream_request;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use maille_telemetry::metrics::{HttpMetrics, ListenerMetrics, Registry as MetricRegistry};
use tokio::sync::{Notify, mpsc};

use crate::config::{Direction, Listener};
use crate::run::newest::Newest;
use crate::snapshot::Snapshot;
use crate::upstream::{Counted, WorkerCluster};

use buffers::Blocks;
use clock::Clock;
use closing::Closing;
use desk::Desks;
pub(crate) use http2::wire::Watch;
pub(crate) use io::Stream;
pub(crate) use istio::OwnWorkload;
use istio::Reports;
use listening::Listening;
pub(crate) use logs::SharedLogs;
use logs::WorkerLogs;
pub(crate) use overload::{Level, Overload};
use registry::{Registered, Registry};
use scratch::Scratches;
use shedding::Published;
use turns::Turns;

/// What the main thread tells a worker.
pub(crate) enum Message {
    /// Serve this from now on.
    Snapshot(Newest),
    /// Accept connections on a socket, for whichever listener has the address.
    Listen(SocketAddr, std::net::TcpListener),
    /// Stop accepting on an address.
    Unlisten(SocketAddr),
    /// Tell these clients to go with their next response, and no others.
    Dismiss(Draining),
    /// Panic: the worker, or one of its connections. For tests; nothing happens in a release.
    Sabotage { whole: bool },
    /// Accept nothing more; who is connected stays.
    StopAccepting,
    /// Stop accepting for inbound listeners, and tell their clients to go; the rest goes on.
    DrainInbound(mpsc::UnboundedSender<()>),
    /// Stop accepting altogether; tell clients to go; end when they have, or when this time is over.
    Drain(Duration),
}

/// Which clients are being told to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Draining {
    No,
    Inbound,
    All,
}

impl Draining {
    pub(crate) fn concerns(self, direction: Direction) -> bool {
        match self {
            Draining::No => false,
            Draining::Inbound => direction == Direction::Inbound,
            Draining::All => true,
        }
    }
}

/// How long a silent client of a listener that was replaced may stay, or a connection that is carried otherwise now: as long as
/// Istio drains.
pub(crate) const SILENT_SECONDS: u32 = 45;

/// What is served. Each request takes hold of it, which must not touch a counter that other threads touch too.
#[allow(clippy::redundant_allocation, reason = "the outer count is this thread's own")]
pub(crate) type Current = Rc<Arc<Snapshot>>;

/// What all workers of a proxy share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) hostname: Arc<str>,
    pub(crate) registry: MetricRegistry,
    pub(crate) logs: SharedLogs,
    pub(crate) overload: Arc<Overload>,
    /// Who we are, in metrics.
    pub(crate) workload: Arc<OwnWorkload>,
}

/// What all tasks of a worker share.
pub(crate) struct Worker {
    snapshot: RefCell<Current>,
    clusters: RefCell<AHashMap<Arc<str>, Rc<WorkerCluster>>>,
    pub(crate) blocks: Blocks,
    pub(crate) scratches: Scratches,
    pub(crate) desks: Desks,
    pub(crate) clock: Clock,
    pub(crate) turns: Turns,
    /// Connections to servers, and what counts them.
    pub(crate) closing: Closing<(Stream, Counted)>,
    /// Copies of requests that are being sent.
    pub(crate) copies: mirror::AtWork,
    pub(crate) connections: Registry,
    draining: Cell<Draining>,
    pub(crate) hostname: Arc<str>,
    pub(crate) logs: WorkerLogs,
    pub(crate) overload: Arc<Overload>,
    /// What it holds, as others see it.
    pub(crate) published: Published,
    pub(crate) istio: Reports,
    registry: MetricRegistry,
    http_metrics: RefCell<AHashMap<Arc<str>, Rc<HttpMetrics>>>,
    listener_metrics: RefCell<AHashMap<SocketAddr, Rc<ListenerMetrics>>>,
    /// Rung when something has panicked that every connection depends on.
    vital: Notify,
}

/// Runs a worker on the current thread until it has drained or the main thread is gone.
pub(crate) fn run(mailbox: mpsc::UnboundedReceiver<Message>, shared: Shared) -> std::io::Result<Outcome> {
    let runtime = maille_net::worker_runtime()?;
    // Whatever state it leaves behind goes with the runtime; nobody else looks at it.
    let caught = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(serve(mailbox, shared))));
    Ok(if caught.is_ok() { Outcome::Ended } else { Outcome::Fell })
}

/// How a worker ended.
pub(crate) enum Outcome {
    Ended,
    /// In a panic.
    Fell,
}

async fn serve(mut mailbox: mpsc::UnboundedReceiver<Message>, shared: Shared) {
    let worker = Rc::new(Worker {
        snapshot: RefCell::default(),
        clusters: RefCell::default(),
        blocks: Blocks::new(shared.overload.limits().idle),
        scratches: Scratches::new(),
        desks: Desks::new(),
        clock: Clock::new(),
        turns: Turns::default(),
        closing: Closing::default(),
        copies: mirror::AtWork::default(),
        connections: Registry::default(),
        draining: Cell::new(Draining::No),
        hostname: shared.hostname,
        logs: WorkerLogs::new(shared.logs),
        published: Published::new(shared.overload.clone()),
        overload: shared.overload,
        istio: Reports::new(shared.workload, &shared.registry),
        registry: shared.registry,
        http_metrics: RefCell::default(),
        listener_metrics: RefCell::default(),
        vital: Notify::new(),
    });
    let vital = Vital(worker.clone());
    tokio::task::spawn_local(async move { tick(&vital.0).await });
    let vital = Vital(worker.clone());
    tokio::task::spawn_local(async move { vital.0.turns.give().await });
    let vital = Vital(worker.clone());
    tokio::task::spawn_local(async move { vital.0.closing.run(&vital.0.turns).await });
    let vital = Vital(worker.clone());
    tokio::task::spawn_local(async move { shedding::shed(&vital.0).await });
    let mut listening = Listening::default();
    loop {
        let message = tokio::select! {
            message = mailbox.recv() => message,
            () = worker.vital.notified() => panic!("something that every connection depends on has panicked"),
        };
        let Some(message) = message else { break };
        match message {
            Message::Snapshot(newest) => newest.take().into_iter().for_each(|snapshot| worker.install(snapshot)),
            Message::Listen(address, socket) => listening.start(&worker, address, socket),
            Message::Unlisten(address) => listening.stop(&worker, address),
            Message::Dismiss(who) => worker.draining.set(who),
            Message::Sabotage { whole: true } => sabotage(),
            Message::Sabotage { whole: false } => worker.connections.sabotage(),
            Message::StopAccepting => listening.stop_all(&worker),
            Message::DrainInbound(done) => {
                worker.draining.set(Draining::Inbound);
                let snapshot = worker.snapshot();
                let inbound = |a: &SocketAddr| snapshot.bound.get(a).is_some_and(|l| l.direction == Direction::Inbound);
                listening.stop_where(&worker, inbound);
                worker.connections.close_idle(Draining::Inbound);
                tokio::task::spawn_local(when_empty(worker.clone(), done));
            }
            Message::Drain(limit) => {
                listening.stop_all(&worker);
                worker.drain(limit).await;
                worker.logs.flush();
                break;
            }
        }
    }
}

/// Held by what every connection depends on: when it panics, the worker is no good any more, and another takes its place.
pub(crate) struct Vital(pub(crate) Rc<Worker>);

impl Drop for Vital {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.vital.notify_one();
        }
    }
}

impl Worker {
    /// What is served now. Requests keep what they got from here.
    pub(crate) fn snapshot(&self) -> Current {
        self.snapshot.borrow().clone()
    }

    /// This worker's side of a cluster.
    pub(crate) fn cluster(&self, name: &str) -> Option<Rc<WorkerCluster>> {
        if let Some(cluster) = self.clusters.borrow().get(name) {
            return Some(cluster.clone());
        }
        let (name, entry) = {
            let snapshot = self.snapshot.borrow();
            let (name, entry) = snapshot.clusters.get_key_value(name)?;
            (name.clone(), entry.clone())
        };
        let cluster = Rc::new(WorkerCluster::new(entry, &self.registry));
        self.clusters.borrow_mut().insert(name, cluster.clone());
        Some(cluster)
    }

    /// This worker's metrics of the connection managers with a prefix.
    pub(crate) fn http_metrics(&self, prefix: &Arc<str>) -> Rc<HttpMetrics> {
        let mut all = self.http_metrics.borrow_mut();
        let make = || Rc::new(HttpMetrics::new(&self.registry, prefix));
        all.entry(prefix.clone()).or_insert_with(make).clone()
    }

    /// This worker's metrics of the listener at an address.
    pub(crate) fn listener_metrics(&self, address: SocketAddr) -> Rc<ListenerMetrics> {
        let mut all = self.listener_metrics.borrow_mut();
        // As Envoy writes addresses in the names of statistics.
        let make = || Rc::new(ListenerMetrics::new(&self.registry, &address.to_string().replace(':', "_")));
        all.entry(address).or_insert_with(make).clone()
    }

    /// Whether clients of a listener are being told to go.
    pub(crate) fn is_draining(&self, direction: Direction) -> bool {
        self.draining.get().concerns(direction)
    }

    /// A connection's place among the others.
    pub(crate) fn register(&self, listener: &Arc<Listener>) -> Registered {
        let registered = self.connections.add(listener);
        // What it has agreed on so far may have taken longer than its listener stayed.
        if !is_current(&self.snapshot.borrow(), listener) {
            registered.slot.outdate();
        }
        registered
    }

    fn install(&self, snapshot: Arc<Snapshot>) {
        self.clusters.borrow_mut().retain(|name, cluster| match snapshot.clusters.get(name) {
            Some(entry) => {
                cluster.update(entry.clone());
                true
            }
            None => {
                cluster.close();
                false
            }
        });
        let silent_until = self.clock.seconds().saturating_add(SILENT_SECONDS);
        self.connections.retire(|listener| is_current(&snapshot, listener), silent_until);
        *self.snapshot.borrow_mut() = Rc::new(snapshot);
    }

    async fn drain(&self, limit: Duration) {
        self.draining.set(Draining::All);
        self.connections.close_idle(Draining::All);
        let empty = async {
            while !self.connections.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(limit, empty).await;
    }
}

fn is_current(snapshot: &Snapshot, listener: &Arc<Listener>) -> bool {
    snapshot.listeners.get(&listener.name).is_some_and(|now| Arc::ptr_eq(now, listener))
}

/// Says when the last connection that came in is gone.
async fn when_empty(worker: Rc<Worker>, done: mpsc::UnboundedSender<()>) {
    while !worker.connections.is_empty_of(Draining::Inbound) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Nobody asks any more when the proxy is ending.
    let _ = done.send(());
}

/// Once a second: the clock, and whatever has been idle for too long.
async fn tick(worker: &Worker) {
    let mut interval = tokio::time::interval(Duration::from_secs(1));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        interval.tick().await;
        worker.clock.tick();
        let now = worker.clock.seconds();
        worker.connections.close_overdue(now);
        worker.blocks.trim();
        worker.published.now();
        worker.scratches.trim();
        worker.desks.trim();
        worker.logs.flush();
        for cluster in worker.clusters.borrow().values() {
            cluster.sweep(now);
        }
    }
}

/// A worker falls over, because a test wants to see what becomes of the others.
fn sabotage() {
    if cfg!(debug_assertions) {
        panic!("a test wants this worker to fall over");
    }
}
