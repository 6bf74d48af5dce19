//! Fair shares of a worker, which does one thing after another. Whoever asks for little never comes here. Whoever has moved many bytes or begun many
//! things in one go waits for a turn: until the system has been asked what else has come, and until those who wait for longer have had theirs, one
//! client after the other however much each of them wants.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Bytes that may be moved in one turn.
pub(crate) const BYTES: u64 = 64 * 1024;

/// How many connections, streams or requests that are there already may be begun in one turn.
pub(crate) const BEGINNINGS: u32 = 8;

/// Who waits for a turn.
#[derive(Default)]
pub(crate) struct Turns {
    /// Shares that somebody waits in, each of them once.
    ring: RefCell<VecDeque<Rc<Share>>>,
    /// Whoever gives the turns, while nobody waits.
    giver: RefCell<Option<Waker>>,
}

/// What one client has: all streams of a connection together.
#[derive(Default)]
pub(crate) struct Share {
    waiting: RefCell<VecDeque<Rc<Ticket>>>,
}

struct Ticket {
    waker: RefCell<Waker>,
    called: Cell<bool>,
}

/// A place in the line, given up when dropped.
#[derive(Default)]
pub(crate) struct Place(Option<Rc<Ticket>>);

impl Turns {
    /// Waits for a turn.
    pub(crate) fn poll(&self, cx: &Context<'_>, share: &Rc<Share>, place: &mut Place) -> Poll<()> {
        match &place.0 {
            Some(ticket) if ticket.called.get() => {
                place.0 = None;
                return Poll::Ready(());
            }
            Some(ticket) => ticket.waker.borrow_mut().clone_from(cx.waker()),
            None => {
                let ticket = Rc::new(Ticket { waker: RefCell::new(cx.waker().clone()), called: Cell::new(false) });
                place.0 = Some(ticket.clone());
                let mut waiting = share.waiting.borrow_mut();
                if waiting.is_empty() {
                    self.ring.borrow_mut().push_back(share.clone());
                }
                waiting.push_back(ticket);
                self.giver.take().into_iter().for_each(Waker::wake);
            }
        }
        Poll::Pending
    }

    /// Waits for a turn.
    pub(crate) async fn wait(&self, share: &Rc<Share>) {
        let mut place = Place::default();
        poll_fn(|cx| self.poll(cx, share, &mut place)).await;
    }

    /// Gives turns for as long as the worker runs.
    pub(crate) async fn give(&self) {
        loop {
            poll_fn(|cx| {
                if self.ring.borrow().is_empty() {
                    *self.giver.borrow_mut() = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(())
            })
            .await;
            // The runtime comes back here after it has asked the system what has come.
            tokio::task::yield_now().await;
            self.call();
        }
    }

    /// Lets the next one go on.
    fn call(&self) {
        let mut ring = self.ring.borrow_mut();
        while let Some(share) = ring.pop_front() {
            let ticket = share.waiting.borrow_mut().pop_front();
            if !share.waiting.borrow().is_empty() {
                ring.push_back(share);
            }
            // Nobody else has the ticket of someone who has gone.
            if let Some(ticket) = ticket.filter(|ticket| Rc::strong_count(ticket) > 1) {
                ticket.called.set(true);
                ticket.waker.borrow().wake_by_ref();
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who goes on when turns are given until nobody waits.
    fn order(turns: &Turns, places: &mut [(&'static str, Rc<Share>, Place)]) -> Vec<&'static str> {
        let cx = Context::from_waker(Waker::noop());
        let mut order = vec![];
        while !turns.ring.borrow().is_empty() {
            turns.call();
            for (name, share, place) in places.iter_mut() {
                if place.0.is_some() && turns.poll(&cx, share, place).is_ready() {
                    order.push(*name);
                }
            }
        }
        order
    }

    #[test]
    fn one_client_after_the_other_however_much_each_wants() {
        let (turns, cx) = (Turns::default(), Context::from_waker(Waker::noop()));
        let shares: [Rc<Share>; 2] = Default::default();
        let mut places = Vec::new();
        for (name, of) in [("a1", 0), ("a2", 0), ("a3", 0), ("b1", 1), ("a4", 0)] {
            let mut place = Place::default();
            assert!(turns.poll(&cx, &shares[of], &mut place).is_pending(), "{name}");
            assert!(turns.poll(&cx, &shares[of], &mut place).is_pending(), "{name}: asking twice is no second place");
            places.push((name, shares[of].clone(), place));
        }
        places.remove(1); // a2 has gone
        assert_eq!(order(&turns, &mut places), ["a1", "b1", "a3", "a4"]);
    }
}
