//! Idle connections to one host, kept by one worker: the last one used is the first one used again.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::net::TcpStream;

use super::{ClusterEntry, Host, Load};

/// Idle connections to one host.
pub(crate) struct Pool {
    idle: RefCell<Vec<Idle>>,
    /// Set once the host is gone: what comes back is closed.
    closed: Cell<bool>,
}

/// A connection in a provably clean state: whole responses read, whole requests sent, not a byte left over.
pub(crate) struct Idle {
    pub(crate) stream: TcpStream,
    /// Requests that it has carried.
    pub(crate) requests: u32,
    /// The worker's clock, in seconds, when it became idle.
    pub(crate) since: u32,
    /// Counts the connection for as long as it lives.
    pub(crate) counted: Counted,
}

/// An open connection, counted at its host and its cluster until dropped.
pub(crate) struct Counted {
    host: Arc<Load>,
    cluster: Arc<Load>,
}

impl Counted {
    /// Counts a connection; `None` when the cluster has as many as it may.
    pub(crate) fn new(host: &Host, cluster: &ClusterEntry, limit: u32) -> Option<Counted> {
        if !Load::take(&cluster.load.connections, limit) {
            return None;
        }
        Load::take(&host.load.connections, u32::MAX);
        Some(Counted { host: host.load.clone(), cluster: cluster.load.clone() })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        Load::give(&self.host.connections);
        Load::give(&self.cluster.connections);
    }
}

impl Pool {
    pub(crate) fn new() -> Pool {
        Pool { idle: RefCell::new(Vec::new()), closed: Cell::new(false) }
    }

    /// An idle connection that is still good.
    pub(crate) fn take(&self) -> Option<Idle> {
        let mut idle = self.idle.borrow_mut();
        loop {
            let connection = idle.pop()?;
            if is_quiet(&connection.stream) {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection for the next request.
    pub(crate) fn put(&self, connection: Idle) {
        if !self.closed.get() {
            self.idle.borrow_mut().push(connection);
        }
    }

    /// Closes connections that were idle since before `oldest`, and those that the server closed.
    pub(crate) fn sweep(&self, oldest: u32) {
        self.idle.borrow_mut().retain(|c| c.since >= oldest && is_quiet(&c.stream));
    }

    /// Closes all idle connections; those at work are closed when they come back.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.idle.borrow_mut().clear();
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.idle.borrow().len()
    }
}

/// Whether nothing has come: a server that speaks unasked has closed the connection, or means something we cannot know.
fn is_quiet(stream: &TcpStream) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    match stream.poll_read_ready(&mut context) {
        Poll::Pending => true,
        Poll::Ready(Err(_)) => false,
        // The last read filled the buffer, so nobody knows yet whether there is more.
        Poll::Ready(Ok(())) => {
            matches!(stream.try_read(&mut [0]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
        }
    }
}
