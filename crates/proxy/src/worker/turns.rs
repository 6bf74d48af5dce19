//! Fair shares of a worker, which does one thing after another. Whoever asks for little never comes here. Whoever has moved many bytes or begun many
//! things in one go waits for a turn: until the system has been asked what else has come, and until others have had theirs, one client after the
//! other however much each of them wants. Whoever has not had a turn for long comes before those who have one after the other.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

/// Bytes that may be moved in one turn.
pub(crate) const BYTES: u64 = 64 * 1024;

/// How many streams or requests that are there already may be begun, or connections closed, in one turn.
pub(crate) const BEGINNINGS: u32 = 8;

/// How many connections may be accepted in one turn: each begins with what its client has sent by then.
pub(crate) const ACCEPTS: u32 = 4;

/// Who waits for a turn.
#[derive(Default)]
pub(crate) struct Turns {
    /// Shares that somebody waits in, each of them once.
    ring: RefCell<VecDeque<Rc<Share>>>,
    /// Those of them that have not had a turn for long, which are not in the ring.
    first: RefCell<VecDeque<Rc<Share>>>,
    /// How many turns there were.
    given: Cell<u64>,
    /// Whoever gives the turns, while nobody waits.
    giver: RefCell<Option<Waker>>,
}

/// What one client has: all streams of a connection together.
#[derive(Default)]
pub(crate) struct Share {
    waiting: RefCell<VecDeque<Rc<Ticket>>>,
    /// Which turn was its last one.
    last: Cell<Option<u64>>,
}

struct Ticket {
    waker: RefCell<Waker>,
    called: Cell<bool>,
}

/// A place in the line, given up when dropped.
#[derive(Default)]
pub(crate) struct Place(Option<Rc<Ticket>>);

/// What somebody may begin before it is the turn of others.
#[derive(Default)]
pub(crate) struct Allowance {
    begun: u32,
    place: Place,
}

impl Allowance {
    /// Waits for a turn where `most` have been begun since the last one.
    pub(crate) fn poll(&mut self, cx: &Context<'_>, turns: &Turns, share: &Rc<Share>, most: u32) -> Poll<()> {
        if self.begun >= most {
            ready!(turns.poll(cx, share, &mut self.place));
            self.begun = 0;
        }
        Poll::Ready(())
    }

    /// Counts what came of the next one, if it has come.
    pub(crate) fn count<T>(&mut self, polled: &Poll<T>) {
        self.begun = if polled.is_ready() { self.begun + 1 } else { 0 };
    }
}

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
                    let line = if self.is_long_ago(share) { &self.first } else { &self.ring };
                    line.borrow_mut().push_back(share.clone());
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
                if self.is_empty() {
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

    /// Whether anybody waits for one.
    pub(crate) fn are_waited_for(&self) -> bool {
        !self.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.first.borrow().is_empty() && self.ring.borrow().is_empty()
    }

    /// Whether all who wait could have had a turn since this one's last.
    fn is_long_ago(&self, share: &Share) -> bool {
        let line = (self.first.borrow().len() + self.ring.borrow().len()) as u64;
        share.last.get().is_none_or(|last| self.given.get() - last > line)
    }

    /// Who is next: one of those that have waited long comes in between, whoever is new.
    fn next(&self) -> Option<Rc<Share>> {
        let (mut first, mut ring) = (self.first.borrow_mut(), self.ring.borrow_mut());
        match self.given.get() % 4 {
            0 => ring.pop_front().or_else(|| first.pop_front()),
            _ => first.pop_front().or_else(|| ring.pop_front()),
        }
    }

    /// Lets the next one go on.
    fn call(&self) {
        while let Some(share) = self.next() {
            let ticket = share.waiting.borrow_mut().pop_front();
            // Nobody else has the ticket of someone who has gone.
            let ticket = ticket.filter(|ticket| Rc::strong_count(ticket) > 1);
            if ticket.is_some() {
                self.given.set(self.given.get() + 1);
                share.last.set(Some(self.given.get()));
            }
            if !share.waiting.borrow().is_empty() {
                self.ring.borrow_mut().push_back(share);
            }
            if let Some(ticket) = ticket {
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
        while !turns.is_empty() {
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
    fn row_19_one_client_after_the_other_however_much_each_wants() {
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

    #[test]
    fn no_more_than_some_begin_before_others_have_had_their_turn() {
        let (turns, cx) = (Turns::default(), Context::from_waker(Waker::noop()));
        let (listener, other) = (Rc::<Share>::default(), Rc::<Share>::default());
        let (mut allowance, mut place, mut accepted) = (Allowance::default(), Place::default(), 0);
        let mut burst = || {
            let before = accepted;
            // There is always one more that waits to be accepted.
            while allowance.poll(&cx, &turns, &listener, ACCEPTS).is_ready() {
                allowance.count(&Poll::Ready(()));
                accepted += 1;
            }
            accepted - before
        };
        assert!(turns.poll(&cx, &other, &mut place).is_pending());
        assert_eq!(burst(), ACCEPTS);
        turns.call();
        assert!(turns.poll(&cx, &other, &mut place).is_ready(), "the other's turn comes first");
        assert_eq!(burst(), 0);
        turns.call();
        assert_eq!(burst(), ACCEPTS);
    }

    #[test]
    fn who_has_not_had_a_turn_for_long_comes_first() {
        let (turns, cx) = (Turns::default(), Context::from_waker(Waker::noop()));
        let join = |name, share: &Rc<Share>| {
            let mut place = Place::default();
            assert!(turns.poll(&cx, share, &mut place).is_pending());
            (name, share.clone(), place)
        };
        let shares: [Rc<Share>; 4] = Default::default();
        let mut places = vec![];
        for (name, share) in ["a", "b", "c"].into_iter().zip(&shares) {
            places.extend((0..3).map(|_| join(name, share)));
        }
        assert_eq!(order(&turns, &mut places)[..6], ["a", "b", "c", "a", "b", "c"]);
        let mut places: Vec<_> =
            ["a", "b", "c"].into_iter().zip(&shares).map(|(name, share)| join(name, share)).collect();
        places.push(join("d", &shares[3]));
        // However many are new, one of the others comes in between.
        assert_eq!(order(&turns, &mut places).iter().position(|name| *name == "d"), Some(1));
    }
}
