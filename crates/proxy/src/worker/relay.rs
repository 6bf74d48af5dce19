//! Carrying bytes both ways between two ends, each direction ending on its own.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use maille_http::h1::BodyLength;

use super::Worker;
use super::body::{Sink, Source};
use super::io::poll_shutdown;
use super::transfer::Transfer;
use super::turns::Share;

/// One end of what is carried; without a source or a sink it is gone.
pub(crate) trait End {
    /// Where its bytes come from.
    fn source(&mut self) -> Option<Source<'_>>;

    /// Where the other's go.
    fn sink(&mut self) -> Option<Sink<'_>>;
}

/// What is carried between two ends, and how far that is.
pub(crate) struct Relay {
    there: Direction,
    back: Direction,
    /// Whether the first end had nothing more to say while the other one had.
    left: bool,
    /// Whether the end of one direction is that of both.
    as_one: bool,
}

struct Direction {
    transfer: Transfer,
    ended: bool,
}

impl Relay {
    /// Of a connection whose bytes are framed like this on their way there and back.
    pub(crate) fn new(there: Transfer, back: Transfer) -> Relay {
        let direction = |transfer| Direction { transfer, ended: false };
        Relay { there: direction(there), back: direction(back), left: false, as_one: false }
    }

    /// Of bytes as they come.
    pub(crate) fn of_bytes() -> Relay {
        let bytes = || Transfer::new(BodyLength::UntilClose, false);
        Relay::new(bytes(), bytes())
    }

    /// Of bytes as they come, between two ends that are both closed when either is.
    pub(crate) fn as_one() -> Relay {
        Relay { as_one: true, ..Relay::of_bytes() }
    }

    /// How many bytes went from the first end to the second, and back.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.there.transfer.total, self.back.transfer.total)
    }

    /// Whether it was the first end that went before the other.
    pub(crate) fn was_left(&self) -> bool {
        self.left
    }

    /// Carries bytes both ways until both directions have ended (or the first has, where that is enough), one has failed, nothing has come for too long, or it is `ended` from
    /// without.
    pub(crate) async fn run(
        &mut self,
        a: &mut impl End,
        b: &mut impl End,
        worker: &Worker,
        share: &Rc<Share>,
        idle: Option<Duration>,
        mut ended: impl FnMut(&mut Context<'_>) -> bool,
    ) {
        let Relay { there, back, left, as_one } = self;
        let mut moved = 0;
        let mut timer = idle.map(|limit| (limit, Box::pin(tokio::time::sleep(limit))));
        poll_fn(|cx| {
            if ended(cx) {
                return Poll::Ready(());
            }
            let polled = [
                there.poll(cx, a.source(), b.sink(), worker, share),
                back.poll(cx, b.source(), a.sink(), worker, share),
            ];
            let total = there.transfer.total + back.transfer.total;
            if let Some((limit, timer)) = &mut timer {
                if std::mem::replace(&mut moved, total) != total {
                    timer.as_mut().reset(tokio::time::Instant::now() + *limit);
                }
                if timer.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
            }
            *left |= polled[0].is_ready() && polled[1].is_pending();
            match polled {
                [Poll::Ready(Err(Failed)), _] | [_, Poll::Ready(Err(Failed))] => Poll::Ready(()),
                [Poll::Ready(Ok(())), Poll::Ready(Ok(()))] => Poll::Ready(()),
                [Poll::Ready(Ok(())), _] | [_, Poll::Ready(Ok(()))] if *as_one => Poll::Ready(()),
                _ => Poll::Pending,
            }
        })
        .await;
    }
}

struct Failed;

impl Direction {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: Option<Source<'_>>,
        sink: Option<Sink<'_>>,
        worker: &Worker,
        share: &Rc<Share>,
    ) -> Poll<Result<(), Failed>> {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        let (Some(mut source), Some(mut sink)) = (source, sink) else { return Poll::Ready(Err(Failed)) };
        ready!(self.transfer.poll(cx, &mut source, &mut sink, worker, share)).map_err(|_| Failed)?;
        // Of a stream of HTTP/2 the end has been said with the last of it.
        if let Sink::Http1(stream) = sink {
            ready!(poll_shutdown(cx, stream)).map_err(|_| Failed)?;
        }
        self.ended = true;
        Poll::Ready(Ok(()))
    }
}
