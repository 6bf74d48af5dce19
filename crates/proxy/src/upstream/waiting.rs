//! Requests that wait for a connection to one host, on one worker: first come, first served.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// The line of those that wait for a `T`, and the number of `T` there are.
pub(crate) struct Line<T, E> {
    waiting: RefCell<VecDeque<Rc<Place<T, E>>>>,
    open: Cell<u32>,
}

/// A place in a line. Whoever has one calls [`Line::leave`] in the end, however it ends.
pub(crate) struct Place<T, E> {
    got: RefCell<Option<Result<T, E>>>,
    waker: Cell<Option<Waker>>,
}

/// What waiting has come to.
#[derive(Debug, PartialEq)]
pub(crate) enum Turn<T, O, E> {
    /// Someone is done with one.
    Given(T),
    /// There may be one more: here is the right to make it.
    Open(O),
    /// None can be had.
    Failed(E),
}

impl<T, E> Line<T, E> {
    pub(crate) fn new() -> Line<T, E> {
        Line { waiting: RefCell::default(), open: Cell::new(0) }
    }

    /// How many there are, in use or not, finished or being made.
    pub(crate) fn open(&self) -> u32 {
        self.open.get()
    }

    /// One is being made.
    pub(crate) fn opened(&self) {
        self.open.set(self.open.get() + 1);
    }

    /// One is gone: whoever is first may make another.
    pub(crate) fn closed(&self) {
        self.open.set(self.open.get() - 1);
        self.wake_first();
    }

    /// Gives one to whoever is first; gives it back when nobody waits.
    #[inline]
    pub(crate) fn give(&self, item: T) -> Option<T> {
        if self.waiting.borrow().is_empty() {
            return Some(item);
        }
        match self.waiting.borrow_mut().pop_front() {
            Some(place) => place.settle(Ok(item)),
            None => return Some(item),
        }
        None
    }

    /// Tells everybody who waits that there is none to be had.
    pub(crate) fn fail(&self, why: impl Fn() -> E) {
        for place in std::mem::take(&mut *self.waiting.borrow_mut()) {
            place.settle(Err(why()));
        }
    }

    /// Joins at the end.
    pub(crate) fn join(&self) -> Rc<Place<T, E>> {
        let place = Rc::new(Place { got: RefCell::new(None), waker: Cell::new(None) });
        self.waiting.borrow_mut().push_back(place.clone());
        self.wake_first();
        place
    }

    /// Waits. `open` is asked by whoever is first whether there may be one more.
    pub(crate) fn poll<O>(
        &self,
        cx: &mut Context<'_>,
        place: &Rc<Place<T, E>>,
        open: impl FnOnce() -> Option<O>,
    ) -> Poll<Turn<T, O, E>> {
        if let Some(got) = place.got.borrow_mut().take() {
            return Poll::Ready(got.map_or_else(Turn::Failed, Turn::Given));
        }
        if self.is_first(place)
            && let Some(right) = open()
        {
            self.waiting.borrow_mut().pop_front();
            self.wake_first();
            return Poll::Ready(Turn::Open(right));
        }
        place.waker.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// Gives up a place; what was given to it in the meantime is for someone else.
    pub(crate) fn leave(&self, place: &Rc<Place<T, E>>) -> Option<T> {
        let was_first = self.is_first(place);
        self.waiting.borrow_mut().retain(|other| !Rc::ptr_eq(other, place));
        if was_first {
            self.wake_first();
        }
        place.got.borrow_mut().take().and_then(Result::ok)
    }

    fn is_first(&self, place: &Rc<Place<T, E>>) -> bool {
        self.waiting.borrow().front().is_some_and(|first| Rc::ptr_eq(first, place))
    }

    fn wake_first(&self) {
        if let Some(first) = self.waiting.borrow().front() {
            first.wake();
        }
    }
}

impl<T, E> Place<T, E> {
    fn settle(&self, result: Result<T, E>) {
        *self.got.borrow_mut() = Some(result);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests;
