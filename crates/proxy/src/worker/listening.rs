//! Accepting connections.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::ready;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use maille_telemetry::metrics::ListenerMetrics;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::overload::{Admitted, Level};
use super::turns::{ACCEPTS, Allowance, Share};
use super::{Vital, Worker, connection};

/// The sockets that a worker accepts on.
#[derive(Default)]
pub(crate) struct Listening {
    tasks: AHashMap<SocketAddr, (JoinHandle<()>, Rc<TcpListener>)>,
}

impl Listening {
    pub(crate) fn start(&mut self, worker: &Rc<Worker>, address: SocketAddr, socket: std::net::TcpListener) {
        match TcpListener::from_std(socket) {
            Ok(socket) => {
                let socket = Rc::new(socket);
                let task = tokio::task::spawn_local(accept(worker.clone(), address, socket.clone()));
                self.tasks.insert(address, (task, socket));
            }
            Err(e) => tracing::error!(%address, "cannot accept on this worker: {e}"),
        }
    }

    /// Stops accepting on an address, after taking what the kernel has accepted already: closing would reset it.
    pub(crate) fn stop(&mut self, worker: &Rc<Worker>, address: SocketAddr) {
        let Some((task, socket)) = self.tasks.remove(&address) else { return };
        task.abort();
        while let Some(Ok((stream, peer))) = accept_now(&socket) {
            admit(worker, stream, peer, address);
        }
    }

    pub(crate) fn stop_all(&mut self, worker: &Rc<Worker>) {
        self.stop_where(worker, |_| true);
    }

    pub(crate) fn stop_where(&mut self, worker: &Rc<Worker>, which: impl Fn(&SocketAddr) -> bool) {
        let addresses: Vec<_> = self.tasks.keys().copied().filter(|address| which(address)).collect();
        for address in addresses {
            self.stop(worker, address);
        }
    }
}

fn accept_now(socket: &TcpListener) -> Option<std::io::Result<(TcpStream, SocketAddr)>> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match socket.poll_accept(&mut context) {
        std::task::Poll::Ready(accepted) => Some(accepted),
        std::task::Poll::Pending => None,
    }
}

/// Lets a connection in, if there may be one more.
fn admit(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr, address: SocketAddr) {
    let metrics = worker.listener_metrics(address);
    if worker.overload.level() == Level::New {
        return metrics.downstream_cx_overload_reject().inc();
    }
    match worker.overload.admit() {
        Some(place) => {
            metrics.downstream_cx_total().inc();
            connection::start(worker, stream, peer, address, Admission::new(place, metrics));
        }
        None => metrics.downstream_global_cx_overflow().inc(),
    }
}

/// A connection that was let in: counted until it is gone.
pub(crate) struct Admission {
    _place: Admitted,
    pub(crate) metrics: Rc<ListenerMetrics>,
    since: Instant,
}

impl Admission {
    fn new(place: Admitted, metrics: Rc<ListenerMetrics>) -> Admission {
        metrics.downstream_cx_active().inc();
        Admission { _place: place, metrics, since: Instant::now() }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.metrics.downstream_cx_active().dec();
        self.metrics.downstream_cx_destroy().inc();
        self.metrics.downstream_cx_length_ms().record(self.since.elapsed());
    }
}

async fn accept(worker: Rc<Worker>, address: SocketAddr, socket: Rc<TcpListener>) {
    let _vital = Vital(worker.clone());
    let share = Rc::<Share>::default();
    let mut allowance = Allowance::default();
    loop {
        let next = poll_fn(|cx| {
            ready!(allowance.poll(cx, &worker.turns, &share, ACCEPTS));
            let polled = socket.poll_accept(cx);
            allowance.count(&polled);
            polled
        });
        match next.await {
            Ok((stream, peer)) => admit(&worker, stream, peer, address),
            Err(e) => match e.raw_os_error() {
                // Out of descriptors or memory: the connection stays in the backlog, and trying at once would only spin.
                Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                    tracing::warn!(%address, "cannot accept now: {e}; raise the limit on open files if this lasts");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                // The client was gone before we looked.
                Some(libc::ECONNABORTED | libc::ECONNRESET) => tracing::debug!(%address, "accept: {e}"),
                // Whatever else it is may be so the next time as well.
                _ => {
                    tracing::debug!(%address, "accept: {e}");
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            },
        }
    }
}
