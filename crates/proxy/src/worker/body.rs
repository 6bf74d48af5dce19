//! The two ends of a body: an HTTP/1 connection, or a stream of an HTTP/2 connection.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
use maille_http::h1::BodyDecoder;

use super::buffers::{BLOCK, Blocks};
use super::http2::head;
use super::http2::wire::Watch;
use super::io::{Input, Stream};
use super::transfer::{self, Failure};

/// Where a body comes from.
pub(crate) enum Source<'a> {
    Http1(&'a mut Stream, &'a mut Input),
    Http2(&'a mut Incoming),
}

/// Where a body goes.
pub(crate) enum Sink<'a> {
    Http1(&'a mut Stream),
    Http2(&'a mut Outgoing),
}

/// What has come of a body, at the front of where it comes from; nothing is at its end.
pub(crate) struct Came {
    /// Bytes of data.
    pub(crate) data: usize,
    /// What is to be [consumed](Source::consume) when they have been handed on.
    pub(crate) consume: usize,
}

impl Source<'_> {
    /// Waits for some more of a body. `decoder` knows where one of HTTP/1 ends, and is told where one of HTTP/2 does.
    pub(crate) fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        decoder: &mut BodyDecoder,
        blocks: &Blocks,
    ) -> Poll<Result<Came, Failure>> {
        const END: Came = Came { data: 0, consume: 0 };
        match self {
            Source::Http1(stream, input) => {
                if input.is_empty() {
                    let n = ready!(input.poll_fill(cx, stream, blocks, BLOCK)).map_err(|_| Failure::Source)?;
                    if n == 0 && !decoder.may_end_here() {
                        return Poll::Ready(Err(Failure::Source));
                    }
                    if n == 0 {
                        *decoder = BodyDecoder::Done;
                        return Poll::Ready(Ok(END));
                    }
                }
                let decoded = decoder.decode(input.data_mut()).map_err(transfer::failure)?;
                Poll::Ready(Ok(Came { data: decoded.data, consume: decoded.consumed }))
            }
            Source::Http2(incoming) => {
                let more = ready!(incoming.poll_fill(cx))?;
                if !more || incoming.is_last() {
                    *decoder = BodyDecoder::Done;
                }
                let data = if more { incoming.data().len() } else { 0 };
                Poll::Ready(Ok(Came { data, consume: data }))
            }
        }
    }

    /// The first bytes of what has come.
    pub(crate) fn data(&self, n: usize) -> Data<'_> {
        match self {
            Source::Http1(_, input) => Data::Plain(input.peek().get(..n).unwrap_or_default()),
            Source::Http2(incoming) if n > 0 => Data::Shared(incoming.data()),
            Source::Http2(_) => Data::Plain(&[]),
        }
    }

    /// So much has been handed on, or will not be.
    pub(crate) fn consume(&mut self, n: usize, blocks: &Blocks) {
        match self {
            _ if n == 0 => {}
            Source::Http1(_, input) => input.consume(n, blocks),
            Source::Http2(incoming) => incoming.consume(n),
        }
    }
}

/// What comes on a stream of an HTTP/2 connection. The sender gets credit for more only when what came has been handed on.
pub(crate) struct Incoming {
    stream: RecvStream,
    data: Bytes,
    ended: bool,
    trailers: Option<HeaderMap>,
    /// Why it ended too early, if the sender said so.
    pub(crate) reason: Option<Reason>,
    /// The connection, where what came is counted.
    watch: Option<Rc<Watch>>,
}

impl Incoming {
    pub(crate) fn new(stream: RecvStream) -> Incoming {
        Incoming { stream, data: Bytes::new(), ended: false, trailers: None, reason: None, watch: None }
    }

    /// On a connection that is shared.
    pub(crate) fn on(mut self, watch: Rc<Watch>) -> Incoming {
        self.watch = Some(watch);
        self
    }

    /// How much has come and has not been handed on.
    pub(crate) fn held(&mut self) -> usize {
        self.stream.flow_control().used_capacity()
    }

    /// What has come and has not been handed on.
    pub(crate) fn data(&self) -> &Bytes {
        &self.data
    }

    /// Waits for data; `false` at the end, when the trailers are there too.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Failure>> {
        while self.data.is_empty() {
            if self.ended {
                return Poll::Ready(Ok(false));
            }
            let got = match ready!(self.stream.poll_data(cx)) {
                Some(got) => got,
                None => {
                    let trailers = ready!(self.stream.poll_trailers(cx));
                    self.trailers = trailers.map_err(|e| self.failed(&e))?;
                    self.ended = true;
                    return Poll::Ready(Ok(false));
                }
            };
            self.data = got.map_err(|e| self.failed(&e))?;
        }
        Poll::Ready(Ok(true))
    }

    /// Whether nothing follows what has come.
    pub(crate) fn is_last(&self) -> bool {
        self.stream.is_end_stream()
    }

    /// Whether everything has come and been handed on, the trailers aside.
    pub(crate) fn is_over(&self) -> bool {
        self.data.is_empty() && self.ended
    }

    /// So much has been handed on.
    pub(crate) fn consume(&mut self, n: usize) {
        self.data.advance(n);
        // In vain only when the stream is gone, and its credit with it.
        let _ = self.stream.flow_control().release_capacity(n);
        if let Some(watch) = &self.watch {
            watch.received.take_off(n);
        }
    }

    /// The trailers, once the end has come.
    pub(crate) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take().map(head::clean_trailers)
    }

    fn failed(&mut self, error: &h2::Error) -> Failure {
        self.reason = error.reason().filter(|_| error.is_reset());
        match error.is_library() {
            true => Failure::Malformed,
            false => Failure::Source,
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // What nobody has taken goes with the stream.
        if let Some(watch) = self.watch.take() {
            watch.received.take_off(self.held());
        }
    }
}

/// What goes out on a stream of an HTTP/2 connection.
pub(crate) struct Outgoing {
    stream: SendStream<Bytes>,
    ended: bool,
    /// The connection, where others ride on it too.
    watch: Option<Rc<Watch>>,
}

impl Outgoing {
    /// `ended`: nothing follows the head.
    pub(crate) fn new(stream: SendStream<Bytes>, ended: bool) -> Outgoing {
        Outgoing { stream, ended, watch: None }
    }

    /// On a connection that is shared.
    pub(crate) fn on(self, watch: Rc<Watch>) -> Outgoing {
        Outgoing { watch: Some(watch), ..self }
    }

    /// Whether the end has been said.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Hands on what is left of `data` after `written`, as the other side gives credit for it; ready when all of it is, and the end with it if
    /// this is the last of it.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        data: Data<'_>,
        written: &mut usize,
        last: bool,
    ) -> Poll<io::Result<()>> {
        let len = data.len();
        while *written < len {
            if let Some(watch) = &self.watch
                && watch.is_congested(cx, self.stream.stream_id().as_u32())
            {
                return Poll::Pending;
            }
            let credit = self.stream.capacity();
            if credit == 0 {
                self.stream.reserve_capacity(len - *written);
                match ready!(self.stream.poll_capacity(cx)) {
                    Some(Ok(_)) => continue,
                    _ => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                }
            }
            let end = len.min(*written + credit);
            let ended = last && end == len;
            self.stream.send_data(data.slice(*written, end), ended).map_err(|_| io::ErrorKind::BrokenPipe)?;
            if let Some(watch) = &self.watch {
                watch.hand_on(end - *written);
            }
            *written = end;
            self.ended |= ended;
        }
        Poll::Ready(Ok(()))
    }

    /// Says that nothing more comes but these trailers.
    pub(crate) fn end(&mut self, trailers: Option<HeaderMap>) -> io::Result<()> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        let said = match trailers {
            Some(trailers) => self.stream.send_trailers(trailers),
            None => self.stream.send_data(Bytes::new(), true),
        };
        said.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Ends the stream before its end.
    pub(crate) fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }

    /// Waits for the other side to end the stream.
    pub(crate) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reason, h2::Error>> {
        self.stream.poll_reset(cx)
    }
}

/// Bytes to hand on: those that are shared already are not copied.
#[derive(Clone, Copy)]
pub(crate) enum Data<'a> {
    Plain(&'a [u8]),
    Shared(&'a Bytes),
}

impl Data<'_> {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Data::Plain(data) => data,
            Data::Shared(data) => data,
        }
    }

    fn len(&self) -> usize {
        match self {
            Data::Plain(data) => data.len(),
            Data::Shared(data) => data.len(),
        }
    }

    fn slice(&self, from: usize, to: usize) -> Bytes {
        match self {
            Data::Plain(data) => Bytes::copy_from_slice(&data[from..to]),
            Data::Shared(data) => data.slice(from..to),
        }
    }
}
