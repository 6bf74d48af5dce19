//! Accepting connections.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ahash::AHashMap;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{Worker, connection};

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
            connection::start(worker, stream, peer, address);
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

fn accept_now(socket: &TcpListener) -> Option<std::io::Result<(tokio::net::TcpStream, SocketAddr)>> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match socket.poll_accept(&mut context) {
        std::task::Poll::Ready(accepted) => Some(accepted),
        std::task::Poll::Pending => None,
    }
}

async fn accept(worker: Rc<Worker>, address: SocketAddr, socket: Rc<TcpListener>) {
    loop {
        match socket.accept().await {
            Ok((stream, peer)) => connection::start(&worker, stream, peer, address),
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
