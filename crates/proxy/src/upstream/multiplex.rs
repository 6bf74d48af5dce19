//! The HTTP/2 connections to one host that one worker has: each carries many requests at a time.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::{Context, Waker};

use bytes::Bytes;
use h2::client::SendRequest;

use super::ConnectError;
use crate::worker::Watch;

/// The connections to one host, and those who wait for one.
#[derive(Default)]
pub(crate) struct Multiplexed {
    connections: RefCell<Vec<Rc<Carrier>>>,
    /// Connections that are being made.
    connecting: Cell<u32>,
    /// How often none could be made, and why the last time.
    failures: Cell<u64>,
    failure: RefCell<Option<ConnectError>>,
    waiting: RefCell<BTreeMap<u64, Waker>>,
    /// Whether the host is gone: a connection that is made all the same is for one request.
    closed: Cell<bool>,
    next: Cell<u64>,
}

/// A connection that carries requests.
pub(crate) struct Carrier {
    send: SendRequest<Bytes>,
    /// Requests at work.
    active: Cell<u32>,
    /// Requests so far.
    requests: Cell<u32>,
    /// The worker's clock, in seconds, when it began, and when it last became idle.
    born: u32,
    since: Cell<u32>,
    /// What is known of it: whether it takes no more requests, among the rest.
    watch: Rc<Watch>,
}

/// How much a connection may carry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacity {
    pub(crate) streams: u32,
    pub(crate) requests: Option<u32>,
}

impl Carrier {
    /// `watch` knows whether it takes no more requests.
    pub(crate) fn new(send: SendRequest<Bytes>, now: u32, watch: Rc<Watch>) -> Carrier {
        Carrier { send, active: Cell::new(0), requests: Cell::new(0), born: now, since: Cell::new(now), watch }
    }

    fn has_room(&self, capacity: Capacity) -> bool {
        let most = capacity.streams.min(u32::try_from(self.send.current_max_send_streams()).unwrap_or(u32::MAX));
        self.active.get() < most
    }

    fn is_over(&self, capacity: Capacity) -> bool {
        self.watch.going.get() || capacity.requests.is_some_and(|most| self.requests.get() >= most)
    }
}

impl Multiplexed {
    /// A place on a connection that has one.
    pub(crate) fn take(self: &Rc<Self>, capacity: Capacity) -> Option<Ride> {
        let mut connections = self.connections.borrow_mut();
        // Who still rides on one that takes no more keeps it alive.
        connections.retain(|c| !c.is_over(capacity));
        let carrier = connections.iter().find(|c| c.has_room(capacity))?.clone();
        drop(connections);
        if self.closed.get() {
            carrier.watch.going.set(true);
        }
        Some(Ride::on(carrier, self.clone()))
    }

    /// How many connections there are, made or being made.
    pub(crate) fn len(&self) -> usize {
        self.connections.borrow().len() + self.connecting.get() as usize
    }

    /// Whether one is being made.
    pub(crate) fn is_connecting(&self) -> bool {
        self.connecting.get() > 0
    }

    /// Says that one is being made, until dropped.
    pub(crate) fn connecting(self: &Rc<Self>) -> Connecting {
        self.connecting.set(self.connecting.get() + 1);
        Connecting(self.clone())
    }

    /// One has been made.
    pub(crate) fn add(&self, carrier: Rc<Carrier>) {
        self.connections.borrow_mut().push(carrier);
        self.wake_all();
    }

    /// None could be made: those who wait have waited long enough.
    pub(crate) fn fail(&self, error: ConnectError) {
        self.failures.set(self.failures.get() + 1);
        *self.failure.borrow_mut() = Some(error);
        self.wake_all();
    }

    /// Takes a place among those who wait.
    pub(crate) fn wait(self: &Rc<Self>) -> Wait {
        let number = self.next.get();
        self.next.set(number + 1);
        Wait { all: self.clone(), number, seen: self.failures.get() }
    }

    /// Lets go of connections that have carried nothing since before `oldest`, or began before `born`.
    pub(crate) fn sweep(&self, oldest: u32, born: u32) {
        self.connections
            .borrow_mut()
            .retain(|c| !c.watch.going.get() && c.born >= born && (c.active.get() > 0 || c.since.get() >= oldest));
    }

    /// Lets go of all of them; those at work go when they are done.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.connections.borrow_mut().clear();
    }

    /// The first of those who wait may have found a place.
    pub(crate) fn wake_one(&self) {
        let first = self.waiting.borrow_mut().pop_first();
        if let Some((_, waker)) = first {
            waker.wake();
        }
    }

    fn wake_all(&self) {
        for (_, waker) in std::mem::take(&mut *self.waiting.borrow_mut()) {
            waker.wake();
        }
    }
}

/// A connection that is being made.
pub(crate) struct Connecting(Rc<Multiplexed>);

impl Drop for Connecting {
    fn drop(&mut self) {
        self.0.connecting.set(self.0.connecting.get() - 1);
        self.0.wake_all();
    }
}

/// Someone who waits for a place.
pub(crate) struct Wait {
    all: Rc<Multiplexed>,
    number: u64,
    seen: u64,
}

impl Wait {
    /// Why there is no connection, if one could not be made since the waiting began.
    pub(crate) fn failure(&self) -> Option<ConnectError> {
        if self.all.failures.get() == self.seen {
            return None;
        }
        self.all.failure.borrow().as_ref().map(ConnectError::again)
    }

    /// Has the task woken when that may have changed.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        self.all.waiting.borrow_mut().insert(self.number, cx.waker().clone());
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        // Who was woken and leaves passes it on.
        if self.all.waiting.borrow_mut().remove(&self.number).is_none() {
            self.all.wake_one();
        }
    }
}

/// A request's place on a connection, until dropped.
pub(crate) struct Ride {
    carrier: Rc<Carrier>,
    all: Rc<Multiplexed>,
    /// Whether the connection has carried requests before.
    pub(crate) reused: bool,
}

impl Ride {
    /// A place on a connection that has room.
    pub(crate) fn on(carrier: Rc<Carrier>, all: Rc<Multiplexed>) -> Ride {
        carrier.active.set(carrier.active.get() + 1);
        let reused = carrier.requests.get() > 0;
        carrier.requests.set(carrier.requests.get().saturating_add(1));
        Ride { carrier, all, reused }
    }

    /// What sends a request.
    pub(crate) fn sender(&self) -> SendRequest<Bytes> {
        self.carrier.send.clone()
    }

    /// What is known of the connection.
    pub(crate) fn watch(&self) -> Rc<Watch> {
        self.carrier.watch.clone()
    }

    /// The connection takes no more requests.
    pub(crate) fn give_up(&self) {
        self.carrier.watch.going.set(true);
    }

    /// Whether the connection takes no more requests.
    pub(crate) fn is_over(&self) -> bool {
        self.carrier.watch.going.get()
    }

    /// Ends at this time of the worker's clock.
    pub(crate) fn end(self, now: u32) {
        self.carrier.since.set(now);
    }
}

impl Drop for Ride {
    fn drop(&mut self) {
        self.carrier.active.set(self.carrier.active.get() - 1);
        if self.carrier.active.get() == 0 {
            self.carrier.watch.forget_received();
        }
        self.all.wake_one();
    }
}
