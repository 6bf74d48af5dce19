//! The connections to one host that one worker has: the last one used is the first one used again, and who finds none waits.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::limits::{give, take};
use super::waiting::{Line, Place, Turn};
use super::{Breakers, ConnectError, Host, Load, Multiplexed};
use crate::worker::Stream;

type Waiting = Line<Idle, ConnectError>;

/// Idle connections to one host, and those who wait for one.
pub(crate) struct Pool {
    idle: RefCell<Vec<Idle>>,
    line: Rc<Waiting>,
    /// Those of HTTP/2.
    pub(crate) multiplexed: Rc<Multiplexed>,
    /// Set once the host is gone: what comes back is closed.
    closed: Cell<bool>,
    /// Tells connections that no request can be the last of that they are over.
    severed: Notify,
}

/// A connection in a provably clean state: whole responses read, whole requests sent, not a byte left over.
pub(crate) struct Idle {
    pub(crate) stream: Stream,
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
    /// Who might make another one when this one is gone.
    line: Option<Rc<Waiting>>,
}

impl Counted {
    /// Counts a connection; `None` when the cluster has as many as it may.
    pub(crate) fn new(host: &Host, breakers: Breakers<'_>) -> Option<Counted> {
        Counted::up_to(breakers.limits.max_connections, host, breakers)
    }

    fn up_to(limit: u32, host: &Host, breakers: Breakers<'_>) -> Option<Counted> {
        if !take(&breakers.load.connections, limit) {
            return None;
        }
        take(&host.load.connections, u32::MAX);
        Some(Counted { host: host.load.clone(), cluster: breakers.load.clone(), line: None })
    }

    /// Counts one of a pool. A pool may always have one: whoever waits there would otherwise wait for ever.
    fn of_pool(line: &Rc<Waiting>, host: &Host, breakers: Breakers<'_>) -> Option<Counted> {
        let first = line.open() == 0;
        if !first && host.load.connections.load(Ordering::Relaxed) >= breakers.limits.max_connections_per_host {
            return None;
        }
        let limit = if first { u32::MAX } else { breakers.limits.max_connections };
        let mut counted = Counted::up_to(limit, host, breakers)?;
        if first {
            take(&breakers.load.pools, u32::MAX);
        }
        line.opened();
        counted.line = Some(line.clone());
        Some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        give(&self.host.connections);
        give(&self.cluster.connections);
        if let Some(line) = &self.line {
            line.closed();
            if line.open() == 0 {
                give(&self.cluster.pools);
            }
        }
    }
}

impl Pool {
    pub(crate) fn new() -> Pool {
        Pool {
            idle: RefCell::default(),
            line: Rc::new(Line::new()),
            multiplexed: Rc::default(),
            closed: Cell::new(false),
            severed: Notify::new(),
        }
    }

    /// An idle connection that is still good.
    pub(crate) fn take(&self) -> Option<Idle> {
        let mut idle = self.idle.borrow_mut();
        loop {
            let mut connection = idle.pop()?;
            if connection.stream.is_quiet() {
                return Some(connection);
            }
        }
    }

    /// Whether a request may wait here: where there is no connection yet, only if there may be one more pool.
    pub(crate) fn may_wait(&self, breakers: Breakers<'_>) -> bool {
        self.line.open() > 0 || breakers.pool_is_free()
    }

    /// The right to make a connection of HTTP/2, if there may be one more.
    pub(crate) fn open(&self, host: &Host, breakers: Breakers<'_>) -> Option<Counted> {
        Counted::of_pool(&self.line, host, breakers)
    }

    /// Waits until there is an idle connection, or the right to make one.
    pub(crate) async fn wait(&self, host: &Host, breakers: Breakers<'_>) -> Turn<Idle, Counted, ConnectError> {
        let waiter = Waiter { pool: self, place: self.line.join() };
        poll_fn(|cx| {
            let turn = self.line.poll(cx, &waiter.place, || Counted::of_pool(&self.line, host, breakers));
            // Who wants a new one and may not make it takes what there is.
            match turn.is_pending().then(|| self.take()).flatten() {
                Some(idle) => Poll::Ready(Turn::Given(idle)),
                None => turn,
            }
        })
        .await
    }

    /// Tells those who wait that no connection can be made: they have waited long enough.
    pub(crate) fn fail(&self, error: &ConnectError) {
        self.line.fail(|| error.again());
    }

    /// Keeps a connection for the next request.
    pub(crate) fn put(&self, connection: Idle) {
        if let Some(connection) = self.line.give(connection)
            && !self.closed.get()
        {
            self.idle.borrow_mut().push(connection);
        }
    }

    /// Closes connections that were idle since before `oldest` or began before `born`, and those that the server closed.
    pub(crate) fn sweep(&self, oldest: u32, born: u32) {
        self.multiplexed.sweep(oldest, born);
        self.idle.borrow_mut().retain_mut(|c| c.since >= oldest && c.stream.is_quiet());
    }

    /// Closes all idle connections; those at work are closed when they come back.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.multiplexed.close();
        self.idle.borrow_mut().clear();
    }

    /// Ends the connections that carry whatever comes.
    pub(crate) fn sever(&self) {
        self.severed.notify_waiters();
    }

    /// Waits for that.
    pub(crate) fn severed(&self) -> Notified<'_> {
        self.severed.notified()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.idle.borrow().len() + self.multiplexed.len()
    }
}

/// Someone in the line, until dropped.
struct Waiter<'a> {
    pool: &'a Pool,
    place: Rc<Place<Idle, ConnectError>>,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.pool.line.leave(&self.place) {
            self.pool.put(connection);
        }
    }
}
