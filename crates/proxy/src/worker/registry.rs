//! The connections of a worker, so that those that are idle for too long, or at a drain, can be told to close.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use super::Draining;
use crate::config::{Direction, Listener};

/// All connections of a worker.
#[derive(Default)]
pub(crate) struct Registry {
    slots: Rc<RefCell<Slots>>,
}

#[derive(Default)]
struct Slots {
    used: Vec<Option<Rc<Slot>>>,
    free: Vec<usize>,
    count: usize,
}

/// What the worker knows of one connection.
pub(crate) struct Slot {
    direction: Direction,
    /// What it was taken in by.
    listener: RefCell<Arc<Listener>>,
    /// That listener has been replaced: what it asked of its clients is not what is asked of them now.
    outdated: Cell<bool>,
    /// The second from which on it is closed; `u32::MAX` is never.
    deadline: Cell<u32>,
    /// Whether it waits for a request, so that nothing is lost by closing it.
    idle: Cell<bool>,
    closing: Cell<bool>,
    /// Bytes that its request holds, as it last said when it had to wait.
    held: Cell<usize>,
    /// Whether its request is to end because of that.
    shed: Cell<bool>,
    /// Whether a test wants it to panic.
    sabotaged: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// A connection's place in the registry; dropped with the connection.
pub(crate) struct Registered {
    pub(crate) slot: Rc<Slot>,
    slots: Rc<RefCell<Slots>>,
    at: usize,
}

impl Registry {
    pub(crate) fn add(&self, listener: &Arc<Listener>) -> Registered {
        let slot = Rc::new(Slot {
            direction: listener.direction,
            listener: RefCell::new(listener.clone()),
            outdated: Cell::new(false),
            deadline: Cell::new(u32::MAX),
            idle: Cell::new(false),
            closing: Cell::new(false),
            held: Cell::new(0),
            shed: Cell::new(false),
            sabotaged: Cell::new(false),
            waker: RefCell::new(None),
        });
        let mut slots = self.slots.borrow_mut();
        slots.count += 1;
        let at = match slots.free.pop() {
            Some(at) => {
                slots.used[at] = Some(slot.clone());
                at
            }
            None => {
                slots.used.push(Some(slot.clone()));
                slots.used.len() - 1
            }
        };
        Registered { slot, slots: self.slots.clone(), at }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.borrow().count == 0
    }

    /// Whether there is none of those that a drain is about.
    pub(crate) fn is_empty_of(&self, draining: Draining) -> bool {
        !self.slots.borrow().used.iter().flatten().any(|slot| draining.concerns(slot.direction))
    }

    /// Has one connection panic, in tests.
    pub(crate) fn sabotage(&self) {
        let slots = self.slots.borrow();
        if let Some(slot) = slots.used.iter().flatten().next() {
            slot.sabotaged.set(true);
            if let Some(waker) = slot.waker.take() {
                waker.wake();
            }
        }
    }

    /// Closes what waits for requests, of those that a drain is about.
    pub(crate) fn close_idle(&self, draining: Draining) {
        self.close(|slot| slot.idle.get() && draining.concerns(slot.direction));
    }

    /// Has the clients of listeners that were replaced or removed go with their next response, or when they have been silent for
    /// a while: a connection keeps the filters it began with.
    pub(crate) fn retire(&self, is_current: impl Fn(&Arc<Listener>) -> bool, silent_until: u32) {
        for slot in self.slots.borrow().used.iter().flatten().filter(|slot| !slot.outdated.get()) {
            if is_current(&slot.listener.borrow()) {
                continue;
            }
            slot.outdate();
            if slot.idle.get() {
                slot.ends_by(silent_until);
            }
            if let Some(waker) = slot.waker.take() {
                waker.wake();
            }
        }
    }

    /// Closes what is past its deadline.
    pub(crate) fn close_overdue(&self, now: u32) {
        self.close(|slot| slot.deadline.get() <= now);
    }

    /// Has those requests end that hold most, until so many bytes are free; how many.
    pub(crate) fn shed_largest(&self, bytes: usize) -> u64 {
        let slots = self.slots.borrow();
        let mut all: Vec<&Rc<Slot>> =
            slots.used.iter().flatten().filter(|slot| slot.held.get() > 0 && !slot.shed.get()).collect();
        all.sort_by_key(|slot| std::cmp::Reverse(slot.held.get()));
        let (mut freed, mut count) = (0, 0);
        for slot in all {
            if freed >= bytes {
                break;
            }
            freed += slot.held.get();
            count += 1;
            slot.shed.set(true);
            slot.waker.take().into_iter().for_each(Waker::wake);
        }
        count
    }

    fn close(&self, which: impl Fn(&Slot) -> bool) {
        for slot in self.slots.borrow().used.iter().flatten().filter(|slot| which(slot)) {
            slot.closing.set(true);
            if let Some(waker) = slot.waker.take() {
                waker.wake();
            }
        }
    }
}

impl Slot {
    /// Says what the connection does now, and until when it may.
    pub(crate) fn set(&self, idle: bool, deadline: u32) {
        self.idle.set(idle);
        self.deadline.set(deadline);
    }

    /// Says how much the request at work holds; none does without one.
    pub(crate) fn hold(&self, bytes: usize) {
        self.held.set(bytes);
        if bytes == 0 {
            self.shed.set(false);
        }
    }

    /// Whether the request at work is to end because it holds too much.
    pub(crate) fn is_shed(&self) -> bool {
        self.shed.get()
    }

    /// Whether the client is to go because what took it in is not in force any more.
    pub(crate) fn is_outdated(&self) -> bool {
        self.outdated.get()
    }

    pub(crate) fn outdate(&self) {
        self.outdated.set(true);
    }

    /// The listener of now has been looked at; from here on it is what counts.
    pub(crate) fn follow(&self, listener: Option<&Arc<Listener>>) {
        self.outdated.set(false);
        if let Some(listener) = listener {
            self.listener.replace(listener.clone());
        }
    }

    /// Ends it then at the latest.
    pub(crate) fn ends_by(&self, deadline: u32) {
        self.deadline.set(self.deadline.get().min(deadline));
    }

    /// What was said about closing has been heard; it may be said again.
    pub(crate) fn reopen(&self) {
        self.closing.set(false);
    }

    /// Whether the connection is to close; if not, the task is woken when it is.
    pub(crate) fn poll_closing(&self, cx: &mut Context<'_>) -> bool {
        assert!(!cfg!(debug_assertions) || !self.sabotaged.get(), "a test wants this connection to panic");
        if self.closing.get() {
            return true;
        }
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        false
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut slots = self.slots.borrow_mut();
        slots.used[self.at] = None;
        slots.free.push(self.at);
        slots.count -= 1;
    }
}
