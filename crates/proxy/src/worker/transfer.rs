//! Carrying a body, or a direction of a TCP connection, from one socket to another as it comes.

use std::io;
use std::task::{Context, Poll, ready};

use maille_http::h1::{BodyDecoder, BodyLength, CHUNK_END, LAST_CHUNK, chunk_head};

use super::buffers::{BLOCK, Blocks};
use super::io::{Input, Stream, poll_write};

/// A body on its way.
pub(crate) struct Transfer {
    decoder: BodyDecoder,
    /// Whether it is written in chunks.
    chunked: bool,
    /// Chunks that wait to be written.
    out: Vec<u8>,
    written: usize,
    /// Data at the front of the input that is written as it stands, and what is taken off the input then.
    direct: usize,
    direct_done: usize,
    consume: usize,
    /// Bytes of data so far.
    pub(crate) total: u64,
    /// Those of them that were not taken by [`Transfer::take_buffered`].
    streamed: u64,
    /// Everything that was sent, while it may be needed again.
    pub(crate) replay: Option<Replay>,
}

/// What was sent of a request's body, for a retry.
pub(crate) struct Replay {
    pub(crate) sent: Vec<u8>,
    pub(crate) limit: usize,
}

/// Why a body did not arrive.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It ended too early, or the sender is gone.
    Source,
    /// It is malformed.
    Malformed,
    /// The receiver is gone.
    Sink,
}

impl Transfer {
    /// Of a body of this length. It is written in chunks when its length is unknown, unless the receiver takes the end of the connection for its end.
    pub(crate) fn new(length: BodyLength, chunked: bool) -> Transfer {
        Transfer {
            decoder: BodyDecoder::new(length),
            chunked,
            out: Vec::new(),
            written: 0,
            direct: 0,
            direct_done: 0,
            consume: 0,
            total: 0,
            streamed: 0,
            replay: None,
        }
    }

    /// Whether all of it has been read from the source and written.
    pub(crate) fn is_done(&self) -> bool {
        self.decoder.is_done() && self.direct == 0 && self.written == self.out.len()
    }

    /// Whether all of it has been read from the source.
    pub(crate) fn is_received(&self) -> bool {
        self.decoder.is_done()
    }

    /// Whether everything that was sent can be sent again: with what [`Transfer::restart`] gives.
    pub(crate) fn can_restart(&self) -> bool {
        self.streamed == 0 || self.replay.is_some()
    }

    /// Begins again towards another receiver: appends what the old one was sent, or was about to be sent, to `out`.
    pub(crate) fn restart(&mut self, input: &mut Input, blocks: &Blocks, out: &mut Vec<u8>) {
        self.out.clear();
        self.written = 0;
        if self.direct > 0 {
            self.direct = 0;
            input.consume(self.consume, blocks);
        }
        if let Some(replay) = &mut self.replay {
            out.append(&mut replay.sent);
        }
        self.streamed = 0;
    }

    /// Moves what has been read already into `out`, framed as it is to be written; small bodies are whole then.
    pub(crate) fn take_buffered(
        &mut self,
        input: &mut Input,
        blocks: &Blocks,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        if input.is_empty() || self.decoder.is_done() {
            return Ok(());
        }
        let decoded = self.decoder.decode(input.data_mut()).map_err(|_| Failure::Malformed)?;
        self.total += decoded.data as u64;
        let data = &input.data()[..decoded.data];
        if self.chunked {
            frame(out, data, decoded.done);
        } else {
            out.extend_from_slice(data);
        }
        input.consume(decoded.consumed, blocks);
        Ok(())
    }

    /// Carries on as far as both sockets let it; ready at the end.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Stream,
        input: &mut Input,
        sink: &mut Stream,
        blocks: &Blocks,
    ) -> Poll<Result<(), Failure>> {
        loop {
            ready!(self.poll_flush(cx, input, sink, blocks)).map_err(|_| Failure::Sink)?;
            if self.decoder.is_done() {
                return Poll::Ready(Ok(()));
            }
            if input.is_empty() {
                let n = ready!(input.poll_fill(cx, source, blocks, BLOCK)).map_err(|_| Failure::Source)?;
                if n == 0 {
                    if !self.decoder.may_end_here() {
                        return Poll::Ready(Err(Failure::Source));
                    }
                    self.decoder = BodyDecoder::Done;
                    if self.chunked {
                        self.out.extend_from_slice(LAST_CHUNK);
                    }
                    continue;
                }
            }
            self.decode(input, blocks)?;
        }
    }

    fn decode(&mut self, input: &mut Input, blocks: &Blocks) -> Result<(), Failure> {
        let decoded = self.decoder.decode(input.data_mut()).map_err(|_| Failure::Malformed)?;
        self.total += decoded.data as u64;
        self.streamed += decoded.data as u64;
        let data = &input.data()[..decoded.data];
        let framed_from = self.out.len();
        if self.chunked {
            frame(&mut self.out, data, decoded.done);
        }
        if let Some(replay) = &mut self.replay {
            let sent = if self.chunked { &self.out[framed_from..] } else { data };
            if replay.sent.len() + sent.len() > replay.limit {
                self.replay = None;
            } else {
                replay.sent.extend_from_slice(sent);
            }
        }
        if self.chunked || decoded.data == 0 {
            input.consume(decoded.consumed, blocks);
        } else {
            (self.direct, self.direct_done, self.consume) = (decoded.data, 0, decoded.consumed);
        }
        Ok(())
    }

    fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut Input,
        sink: &mut Stream,
        blocks: &Blocks,
    ) -> Poll<io::Result<()>> {
        if !self.out.is_empty() {
            ready!(poll_write(cx, sink, &self.out, &mut self.written))?;
            self.out.clear();
            self.written = 0;
        }
        if self.direct > 0 {
            let data = &input.data()[..self.direct];
            ready!(poll_write(cx, sink, data, &mut self.direct_done))?;
            self.direct = 0;
            input.consume(self.consume, blocks);
        }
        Poll::Ready(Ok(()))
    }
}

fn frame(out: &mut Vec<u8>, data: &[u8], done: bool) {
    if !data.is_empty() {
        chunk_head(out, data.len());
        out.extend_from_slice(data);
        out.extend_from_slice(CHUNK_END);
    }
    if done {
        out.extend_from_slice(LAST_CHUNK);
    }
}
