//! Copying both ways between a client and whatever is at the other end.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::worker::Worker;
use crate::worker::body::{Incoming, Outgoing, Sink, Source};
use crate::worker::buffers::Blocks;
use crate::worker::io::{Input, Stream, poll_shutdown};
use crate::worker::transfer::Transfer;
use crate::worker::turns::Share;

/// The other end of a connection that is carried.
pub(super) enum End {
    Http1(Stream, Input),
    Http2(Incoming, Outgoing),
}

impl End {
    pub(super) fn release(&mut self, blocks: &Blocks) {
        if let End::Http1(_, input) = self {
            input.release(blocks);
        }
    }
}

/// Copies both ways, framed as the other end wants it, until both directions have ended, one has failed, or it is `ended` from
/// without; how many bytes went each way.
pub(super) async fn copy_framed(
    (client, client_input): (&mut Stream, &mut Input),
    end: &mut End,
    [there, back]: [Transfer; 2],
    worker: &Worker,
    share: &Rc<Share>,
    idle: Option<Duration>,
    ended: &mut impl FnMut(&mut Context<'_>) -> bool,
) -> (u64, u64) {
    let (mut there, mut back) = (Direction::new(there), Direction::new(back));
    let totals = carry(idle, ended, |cx| {
        let (a, b) = match end {
            End::Http1(stream, input) => (
                there.poll(cx, &mut Source::Http1(client, client_input), &mut Sink::Http1(stream), worker, share),
                back.poll(cx, &mut Source::Http1(stream, input), &mut Sink::Http1(client), worker, share),
            ),
            End::Http2(incoming, outgoing) => (
                there.poll(cx, &mut Source::Http1(client, client_input), &mut Sink::Http2(outgoing), worker, share),
                back.poll(cx, &mut Source::Http2(incoming), &mut Sink::Http1(client), worker, share),
            ),
        };
        (a, b, there.transfer.total, back.transfer.total)
    });
    totals.await
}

type Progress = (Poll<Result<(), ()>>, Poll<Result<(), ()>>, u64, u64);

/// Polls both directions until they are through, nothing has moved for too long, or it is `ended`.
async fn carry(
    idle: Option<Duration>,
    mut ended: impl FnMut(&mut Context<'_>) -> bool,
    mut poll: impl FnMut(&mut Context<'_>) -> Progress,
) -> (u64, u64) {
    let mut moved = 0;
    let mut totals = (0, 0);
    let mut timer = idle.map(|limit| (limit, Box::pin(tokio::time::sleep(limit))));
    poll_fn(|cx| {
        let (a, b, there, back) = poll(cx);
        totals = (there, back);
        if ended(cx) {
            return Poll::Ready(());
        }
        if let Some((limit, timer)) = &mut timer {
            if std::mem::replace(&mut moved, there + back) != there + back {
                timer.as_mut().reset(tokio::time::Instant::now() + *limit);
            }
            if timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
        }
        match (a, b) {
            (Poll::Ready(Err(())), _) | (_, Poll::Ready(Err(()))) => Poll::Ready(()),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    })
    .await;
    totals
}

struct Direction {
    transfer: Transfer,
    ended: bool,
}

impl Direction {
    fn new(transfer: Transfer) -> Direction {
        Direction { transfer, ended: false }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Source<'_>,
        sink: &mut Sink<'_>,
        worker: &Worker,
        share: &Rc<Share>,
    ) -> Poll<Result<(), ()>> {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        match self.transfer.poll(cx, source, sink, worker, share) {
            Poll::Ready(Ok(())) => {
                let shut = match sink {
                    Sink::Http1(stream) => poll_shutdown(cx, stream),
                    // The end of the stream has been said with the last of it.
                    Sink::Http2(_) => Poll::Ready(Ok(())),
                };
                match shut {
                    Poll::Ready(Ok(())) => {
                        self.ended = true;
                        Poll::Ready(Ok(()))
                    }
                    Poll::Ready(Err(_)) => Poll::Ready(Err(())),
                    Poll::Pending => Poll::Pending,
                }
            }
            Poll::Ready(Err(_)) => Poll::Ready(Err(())),
            Poll::Pending => Poll::Pending,
        }
    }
}
