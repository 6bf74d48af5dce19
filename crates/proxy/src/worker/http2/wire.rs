//! The bytes of an HTTP/2 connection on their way to and from the `h2` crate: frames are counted, and what a peer may not do is found, before anybody
//! spends memory or time on it.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use ahash::AHashMap;
use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::{self, Fault, Inbound, Outbound};
use super::streams::Streams;
use crate::worker::Worker;
use crate::worker::held::Held;
use crate::worker::io::{Input, Stream};
use crate::worker::turns::{self, Place, Share};

/// How much streams may hand on before it has been written. More than that at a time makes nothing faster.
const MAX_UNWRITTEN: usize = 256 * 1024;
/// What a frame costs to take, in bytes that could be moved instead.
const FRAME: u64 = 1024;
/// From so many frames in one read on, a read takes no more than this: the next ones can wait.
const MANY_FRAMES: u64 = 32;
const DENSE_READ: usize = 2048;

/// A connection as the `h2` crate sees it.
pub(crate) struct Wire {
    stream: Stream,
    /// What was read before it was known to be HTTP/2.
    input: Input,
    worker: Rc<Worker>,
    /// What the `h2` crate is shown next, and what came behind it.
    shown: Vec<u8>,
    behind: Vec<u8>,
    inbound: Inbound,
    outbound: Outbound,
    streams: Streams,
    watch: Rc<Watch>,
    share: Rc<Share>,
    place: Place,
    /// What has been read since the last turn.
    spent: u64,
    /// Whether what was read last was many small frames.
    dense: bool,
    /// The socket's end, as it was read.
    end: Option<io::Result<()>>,
}

/// What is known of a connection beside what the `h2` crate knows.
#[derive(Default)]
pub(crate) struct Watch {
    /// What the peer has done that ends the connection.
    verdict: Cell<Option<Reason>>,
    /// Whoever drives the connection.
    driver: RefCell<Option<Waker>>,
    /// Whether the socket takes nothing more right now.
    stalled: Cell<bool>,
    /// Bytes that streams have handed on since everything was last written.
    unwritten: Held,
    /// Bytes of DATA that have come and have not been handed on, about: what comes for streams that are gone is counted until all are.
    pub(in crate::worker) received: Held,
    /// Streams that wait until it is, by number.
    waiting: RefCell<AHashMap<u32, Waker>>,
    /// Whether the peer takes no more streams.
    pub(crate) going: Cell<bool>,
    /// DATA frames that were sent, and HEADERS frames of either direction.
    pub(super) data_sent: Cell<u64>,
    pub(super) streams: Cell<u64>,
}

impl Watch {
    /// What ends the connection, if anything does.
    pub(crate) fn verdict(&self) -> Option<Reason> {
        self.verdict.get()
    }

    /// Ends the connection.
    pub(crate) fn condemn(&self, reason: Reason) {
        if self.verdict.get().is_none() {
            self.verdict.set(Some(reason));
            self.wake();
        }
    }

    /// Whether a stream must not hand on more for now: what a peer does not read piles up nowhere. It is woken when it may.
    pub(crate) fn is_congested(&self, cx: &Context<'_>, stream: u32) -> bool {
        let congested = self.stalled.get() || self.unwritten.get() >= MAX_UNWRITTEN;
        if congested {
            self.waiting.borrow_mut().insert(stream, cx.waker().clone());
        }
        congested
    }

    /// A stream has handed on so much.
    pub(crate) fn hand_on(&self, n: usize) {
        self.unwritten.add(n);
    }

    /// The connection has written what it could: streams go on if that was everything.
    pub(crate) fn has_written(&self) {
        if self.stalled.get() {
            return;
        }
        self.unwritten.set(0);
        for (_, waker) in self.waiting.borrow_mut().drain() {
            waker.wake();
        }
    }

    /// No stream is left that anything could be handed on from.
    pub(crate) fn forget_received(&self) {
        self.received.set(0);
    }

    /// Whether the socket takes nothing more right now.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.get()
    }

    /// Wakes whoever drives the connection.
    pub(crate) fn wake(&self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    /// Has the task woken that drives the connection.
    pub(crate) fn wake_with(&self, cx: &Context<'_>) {
        let mut driver = self.driver.borrow_mut();
        if !driver.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *driver = Some(cx.waker().clone());
        }
    }
}

impl Wire {
    /// Of a connection to a server, or from a client.
    pub(crate) fn new(
        worker: Rc<Worker>,
        share: Rc<Share>,
        stream: Stream,
        input: Input,
        to_server: bool,
        watch: Rc<Watch>,
    ) -> Wire {
        let (inbound, outbound, streams) = (Inbound::new(to_server), Outbound::new(to_server), Streams::new(to_server));
        let (shown, behind) = Default::default();
        let (place, spent, dense, end) = Default::default();
        Wire {
            stream,
            input,
            worker,
            shown,
            behind,
            inbound,
            outbound,
            streams,
            watch,
            share,
            place,
            spent,
            dense,
            end,
        }
    }

    /// Reads from the socket; where that is over, `h2` hears of it in its turn: all streams end with it at once.
    fn poll_socket(&mut self, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.end.is_none() {
            let before = room.filled().len();
            match ready!(Pin::new(&mut self.stream).poll_read(cx, room)) {
                Ok(()) if room.filled().len() > before => return Poll::Ready(Ok(())),
                end => self.end = Some(end),
            }
        }
        ready!(self.poll_end(cx));
        Poll::Ready(self.end.replace(Ok(())).unwrap_or(Ok(())))
    }

    /// Waits for a turn if many streams are about to end. Each of them holds on to what is known of the connection.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match Rc::strong_count(&self.watch) > turns::BEGINNINGS as usize {
            true => self.worker.turns.poll(cx, &self.share, &mut self.place),
            false => Poll::Ready(()),
        }
    }

    /// What came of writing: an error is heard of in its turn.
    fn poll_written<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let polled = match polled {
            Poll::Ready(Err(error)) => self.poll_end(cx).map(|()| Err(error)),
            other => other,
        };
        self.watch.stalled.set(polled.is_pending());
        polled
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // After a verdict the connection only lives to say so.
        if this.watch.verdict().is_some() {
            return Poll::Pending;
        }
        if !this.shown.is_empty() {
            hand_over(&mut this.shown, room);
            return Poll::Ready(Ok(()));
        }
        if this.spent >= turns::BYTES {
            ready!(this.worker.turns.poll(cx, &this.share, &mut this.place));
            this.spent = 0;
        }
        let before = room.filled().len();
        if !this.behind.is_empty() {
            hand_over(&mut this.behind, room);
        } else if this.input.is_empty() && this.dense {
            let n = room.remaining().min(DENSE_READ);
            let mut part = ReadBuf::new(room.initialize_unfilled_to(n));
            ready!(this.poll_socket(cx, &mut part))?;
            let n = part.filled().len();
            room.advance(n);
        } else if this.input.is_empty() {
            ready!(this.poll_socket(cx, room))?;
        } else {
            let n = this.input.len().min(room.remaining());
            room.put_slice(&this.input.data()[..n]);
            this.input.consume(n, &this.worker.blocks);
        }
        let frames = this.inbound.frames;
        let got = &mut room.filled_mut()[before..];
        let passed = this.inbound.pass(got, &this.watch, &mut this.streams);
        let frames = this.inbound.frames - frames;
        this.spent += got.len() as u64 + frames * FRAME;
        this.dense = frames >= MANY_FRAMES;
        let good = match passed {
            Ok(()) => return Poll::Ready(Ok(())),
            Err((good, Fault::Connection(reason))) => {
                this.watch.condemn(reason);
                good
            }
            Err((good, Fault::Stream(stream))) => {
                this.shown.extend_from_slice(&frames::ends(stream));
                this.behind.splice(..0, got[good..].iter().copied());
                good
            }
        };
        room.set_filled(before + good);
        match good {
            0 => Poll::Pending,
            _ => Poll::Ready(Ok(())),
        }
    }
}

/// Moves as much as there is room for.
fn hand_over(from: &mut Vec<u8>, room: &mut ReadBuf<'_>) {
    let n = from.len().min(room.remaining());
    room.put_slice(&from[..n]);
    from.drain(..n);
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.stream).poll_write(cx, data);
        let n = ready!(this.poll_written(cx, polled))?;
        this.outbound.pass(&data[..n], &this.watch, &mut this.streams);
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, data);
        let n = ready!(this.poll_written(cx, polled))?;
        let mut left = n;
        for slice in data {
            let part = left.min(slice.len());
            this.outbound.pass(&slice[..part], &this.watch, &mut this.streams);
            left -= part;
        }
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.stream).poll_flush(cx);
        this.poll_written(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.input.release(&self.worker.blocks);
    }
}
