//! Connections to servers that are over. Closing one costs the kernel as much as a request costs us, and thousands are over at once when their clients
//! go: some are closed at once, whatever else is over comes in its turn.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Poll, Waker};

use super::turns::{BEGINNINGS, Share, Turns};

/// What is over; `T` is closed when it is dropped.
pub(crate) struct Closing<T> {
    over: RefCell<VecDeque<T>>,
    /// How many have been closed in this turn.
    closed: Cell<u32>,
    /// Whoever closes the others, while there is none.
    closer: RefCell<Option<Waker>>,
}

impl<T> Default for Closing<T> {
    fn default() -> Closing<T> {
        Closing { over: RefCell::default(), closed: Cell::new(0), closer: RefCell::default() }
    }
}

impl<T> Closing<T> {
    /// Closes a connection, or has it closed soon.
    pub(crate) fn close(&self, connection: T) {
        if self.closed.get() < BEGINNINGS {
            self.closed.set(self.closed.get() + 1);
            drop(connection);
        } else {
            self.over.borrow_mut().push_back(connection);
        }
        self.closer.take().into_iter().for_each(Waker::wake);
    }

    /// Closes what is over for as long as the worker runs.
    pub(crate) async fn run(&self, turns: &Turns) {
        let share = std::rc::Rc::<Share>::default();
        loop {
            poll_fn(|cx| {
                if self.closed.get() == 0 && self.over.borrow().is_empty() {
                    *self.closer.borrow_mut() = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(())
            })
            .await;
            turns.wait(&share).await;
            self.turn();
        }
    }

    fn turn(&self) {
        self.closed.set(0);
        for _ in 0..BEGINNINGS {
            // Nobody else looks at them while one is being closed.
            let Some(connection) = self.over.borrow_mut().pop_front() else { break };
            self.closed.set(self.closed.get() + 1);
            drop(connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn no_more_than_some_are_closed_in_a_turn() {
        let (closing, open) = (Closing::default(), Rc::new(()));
        let few = BEGINNINGS as usize;
        for _ in 0..2 * few + 1 {
            closing.close(open.clone());
        }
        let mut left = vec![];
        for _ in 0..4 {
            left.push(Rc::strong_count(&open) - 1);
            closing.turn();
        }
        assert_eq!(left, [few + 1, 1, 0, 0]);
        closing.close(open.clone());
        assert_eq!(Rc::strong_count(&open), 1, "one alone is closed at once");
    }
}
