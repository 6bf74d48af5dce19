//! The bytes that a worker holds for others: what has come and has not been handed on. A worker is a thread, which keeps the sum.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, Waker};

thread_local! {
    static SUM: Cell<usize> = const { Cell::new(0) };
    /// Above this whoever sheds load is woken.
    static MARK: Cell<usize> = const { Cell::new(usize::MAX) };
    static SHEDDER: RefCell<Option<Waker>> = const { RefCell::new(None) };
}

/// Bytes that somebody holds, counted until dropped.
#[derive(Debug, Default)]
pub(crate) struct Held(Cell<usize>);

impl Held {
    pub(crate) fn get(&self) -> usize {
        self.0.get()
    }

    /// It is so much now.
    #[inline]
    pub(crate) fn set(&self, bytes: usize) {
        let sum = SUM.get() - self.0.replace(bytes) + bytes;
        SUM.set(sum);
        if sum > MARK.get() {
            wake();
        }
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.set(self.get() + bytes);
    }

    pub(crate) fn take_off(&self, bytes: usize) {
        self.set(self.get().saturating_sub(bytes));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// How much this worker holds.
#[inline]
pub(crate) fn sum() -> usize {
    SUM.get()
}

/// Waits until this worker holds more than `mark`.
pub(crate) fn poll_above(cx: &Context<'_>, mark: usize) -> Poll<()> {
    if sum() > mark {
        MARK.set(usize::MAX);
        return Poll::Ready(());
    }
    MARK.set(mark);
    SHEDDER.set(Some(cx.waker().clone()));
    Poll::Pending
}

#[cold]
fn wake() {
    SHEDDER.take().into_iter().for_each(Waker::wake);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_the_sum_of_what_everybody_holds() {
        let (a, b) = (Held::default(), Held::default());
        a.set(10);
        b.add(5);
        b.take_off(2);
        assert_eq!(sum(), 13);
        let cx = Context::from_waker(Waker::noop());
        assert!(poll_above(&cx, 13).is_pending());
        a.set(11);
        assert!(poll_above(&cx, 13).is_ready());
        drop(a);
        b.take_off(100);
        assert_eq!(sum(), 0);
    }
}
