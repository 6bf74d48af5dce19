//! Carrying a body, or a direction of a TCP connection, from one side to the other as it comes.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http::HeaderMap;
use maille_http::Headers;
use maille_http::h1::{self, BodyDecoder, BodyLength, CHUNK_END, LAST_CHUNK, chunk_head, trailer_section};

use super::Worker;
use super::body::{Sink, Source};
use super::buffers::{BLOCK, Blocks};
use super::held::Held;
use super::http2::head;
use super::io::poll_write_all;
use super::mirror::Copies;
use super::turns::{self, Place, Share};

/// A body on its way.
pub(crate) struct Transfer {
    /// Where an HTTP/1 body ends; that of an HTTP/2 stream ends with the stream.
    decoder: BodyDecoder,
    /// Whether it is written in chunks.
    chunked: bool,
    /// What is being written: data at the front of the source, which goes out from where it is, and what of the source that stands for.
    data: usize,
    consume: usize,
    /// In chunks, what goes before it and behind it.
    size: Vec<u8>,
    end: Vec<u8>,
    /// How much of all that has been written.
    written: usize,
    /// Whether everything has been handed on, the end included.
    done: bool,
    /// Bytes of data so far.
    pub(crate) total: u64,
    /// How many there were when it last had a turn.
    turn: u64,
    place: Place,
    /// Those of them that were not taken by [`Transfer::take_buffered`].
    streamed: u64,
    /// What follows the data.
    trailers: Option<Trailers>,
    /// Whether HTTP/1 has trailers here: in what is read, and in what is written.
    trailing: Trailing,
    /// Everything that was sent, while it may be needed again.
    pub(crate) replay: Option<Replay>,
    /// Who else is to have it.
    copies: Option<Box<Copies>>,
    /// What has been read before anybody was there to take it.
    ahead: Option<Vec<u8>>,
    counted: Held,
}

/// Trailers, as they came.
enum Trailers {
    Http1(Headers),
    Http2(HeaderMap),
}

/// Where HTTP/1 has trailers; elsewhere they end here.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trailing {
    pub(crate) reads: bool,
    pub(crate) writes: bool,
}

/// What was sent of a request's body, for a retry; its data alone, since the next connection may frame it differently.
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
    /// Its trailers are, or there are too many.
    Trailers(h1::Error),
    /// The receiver is gone.
    Sink,
}

impl Transfer {
    /// Of a body of this length (that of an HTTP/2 stream is [`BodyLength::UntilClose`]). It is written in chunks to an HTTP/1 receiver when its length
    /// is unknown, unless the receiver takes the end of the connection for its end.
    pub(crate) fn new(length: BodyLength, chunked: bool) -> Transfer {
        Transfer {
            decoder: BodyDecoder::new(length),
            chunked,
            data: 0,
            consume: 0,
            size: Vec::new(),
            end: Vec::new(),
            written: 0,
            done: false,
            total: 0,
            turn: 0,
            place: Place::default(),
            streamed: 0,
            trailers: None,
            trailing: Trailing::default(),
            replay: None,
            copies: None,
            ahead: None,
            counted: Held::default(),
        }
    }

    /// Has all of it copied, what has been read ahead first.
    pub(crate) fn copy_to(&mut self, copies: Option<Box<Copies>>) {
        self.copies = copies;
        if let Some(ahead) = self.ahead.take() {
            self.copy(&ahead);
            self.ahead = Some(ahead);
        }
    }

    /// Reads ahead until all of it is there, or at least `most`; what has been read is kept.
    pub(crate) fn poll_ahead(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Source<'_>,
        blocks: &Blocks,
        most: usize,
    ) -> Poll<Result<(), Failure>> {
        while !self.decoder.is_done() && self.ahead().len() < most {
            // The end that comes by itself may have trailers, which are not read ahead.
            if let Source::Http2(incoming) = source
                && !ready!(incoming.poll_fill(cx))?
            {
                break;
            }
            ready!(self.poll_more(cx, source, blocks))?;
            self.ahead.get_or_insert_default().extend_from_slice(source.data(self.data).as_slice());
            self.written_all(source, blocks);
        }
        self.streamed = 0;
        Poll::Ready(Ok(()))
    }

    /// What has been read ahead.
    pub(crate) fn ahead(&self) -> &[u8] {
        self.ahead.as_deref().unwrap_or_default()
    }

    /// The same, to be handed on.
    pub(crate) fn take_ahead(&mut self) -> Option<Vec<u8>> {
        self.ahead.take()
    }

    /// Whether nothing of it is left at the source.
    pub(crate) fn is_over(&self, source: &Source<'_>) -> bool {
        self.decoder.is_done()
            || match source {
                Source::Http1(..) => false,
                Source::Http2(incoming) => incoming.is_over(),
            }
    }

    /// With trailers on sides of HTTP/1 as well.
    pub(crate) fn trailing(self, trailing: Trailing) -> Transfer {
        Transfer { trailing, ..self }
    }

    /// Whether it is written in chunks, from the beginning on.
    pub(crate) fn set_chunked(&mut self, chunked: bool) {
        self.chunked = chunked;
    }

    /// Whether all of it has been read from the source and written.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// Whether it is over with what has been framed of it: nothing is left for the receiver to be told.
    pub(crate) fn is_framed(&self) -> bool {
        self.is_received() && self.trailers.is_none()
    }

    /// Whether all of it has been read from the source.
    pub(crate) fn is_received(&self) -> bool {
        self.decoder.is_done()
    }

    /// How much memory it has for itself; counted as such from now on.
    pub(crate) fn held(&self) -> usize {
        let kept = [self.replay.as_ref().map(|replay| &replay.sent), self.ahead.as_ref()];
        let bytes =
            self.size.capacity() + self.end.capacity() + kept.into_iter().flatten().map(Vec::capacity).sum::<usize>();
        self.counted.set(bytes);
        bytes
    }

    /// Whether everything that was sent can be sent again: with what [`Transfer::restart`] gives.
    pub(crate) fn can_restart(&self) -> bool {
        self.streamed == 0 || self.replay.is_some()
    }

    /// Begins again towards another receiver: appends the data that the old one was sent, or was about to be sent, to `out`.
    pub(crate) fn restart(&mut self, source: &mut Source<'_>, chunked: bool, blocks: &Blocks, out: &mut Vec<u8>) {
        self.chunked = chunked;
        self.done = false;
        self.written_all(source, blocks);
        if let Some(replay) = &mut self.replay {
            out.append(&mut replay.sent);
        }
        self.streamed = 0;
    }

    /// Moves what has been read already into `out`, framed as it is to be written; small bodies are whole then.
    pub(crate) fn take_buffered(
        &mut self,
        source: &mut Source<'_>,
        blocks: &Blocks,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        match source {
            Source::Http1(_, input) => {
                if input.is_empty() || self.decoder.is_done() {
                    return Ok(());
                }
                let decoded = self.decoder.decode(input.data_mut()).map_err(failure)?;
                self.total += decoded.data as u64;
                self.note_trailers()?;
                self.frame(out, &input.data()[..decoded.data], decoded.done);
                self.copy(&input.data()[..decoded.data]);
                input.consume(decoded.consumed, blocks);
            }
            Source::Http2(incoming) => {
                let mut context = Context::from_waker(std::task::Waker::noop());
                // Whoever waits for more is woken for it: this only looks at what is there.
                while self.total < BLOCK as u64 && !self.decoder.is_done() {
                    let more = match incoming.poll_fill(&mut context) {
                        Poll::Ready(more) => more?,
                        Poll::Pending => break,
                    };
                    // Trailers are for the stream to carry.
                    if !more {
                        break;
                    }
                    let data = incoming.data().len();
                    self.total += data as u64;
                    if incoming.is_last() {
                        self.decoder = BodyDecoder::Done;
                    }
                    self.frame(out, incoming.data(), self.decoder.is_done());
                    self.copy(incoming.data());
                    incoming.consume(data);
                }
            }
        }
        Ok(())
    }

    /// Carries on as far as both sides let it, and as the client's share does; ready at the end.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Source<'_>,
        sink: &mut Sink<'_>,
        worker: &Worker,
        share: &Rc<Share>,
    ) -> Poll<Result<(), Failure>> {
        let blocks = &worker.blocks;
        loop {
            ready!(self.poll_flush(cx, source, sink, blocks)).map_err(|_| Failure::Sink)?;
            if self.decoder.is_done() {
                if let Sink::Http2(outgoing) = sink {
                    outgoing.end(self.trailers_to_send()).map_err(|_| Failure::Sink)?;
                }
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            if self.total - self.turn >= turns::BYTES {
                ready!(worker.turns.poll(cx, share, &mut self.place));
                self.turn = self.total;
            }
            ready!(self.poll_more(cx, source, blocks))?;
        }
    }

    /// Reads some more, and puts it in line for writing.
    fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Source<'_>,
        blocks: &Blocks,
    ) -> Poll<Result<(), Failure>> {
        let came = ready!(source.poll_more(cx, &mut self.decoder, blocks))?;
        self.note_trailers()?;
        if came.data == 0
            && let Source::Http2(incoming) = source
        {
            self.trailers = incoming.take_trailers().map(Trailers::Http2);
        }
        let data = source.data(came.data);
        let data = data.as_slice();
        self.total += data.len() as u64;
        self.streamed += data.len() as u64;
        self.copy(data);
        if let Some(replay) = &mut self.replay {
            if replay.sent.len() + data.len() > replay.limit {
                self.replay = None;
            } else {
                replay.sent.extend_from_slice(data);
            }
        }
        if self.chunked {
            if came.data > 0 {
                chunk_head(&mut self.size, came.data);
                self.end.extend_from_slice(CHUNK_END);
            }
            if self.decoder.is_done() {
                let mut end = std::mem::take(&mut self.end);
                self.last_chunk(&mut end);
                self.end = end;
            }
        }
        (self.data, self.consume) = (came.data, came.consume);
        Poll::Ready(Ok(()))
    }

    /// Ends a chunked body, with its trailers where the receiver gets them.
    pub(crate) fn last_chunk(&self, out: &mut Vec<u8>) {
        match &self.trailers {
            Some(Trailers::Http1(trailers)) if self.trailing.writes => trailer_section(out, trailers),
            Some(Trailers::Http2(trailers)) if self.trailing.writes => trailer_section(out, &head::fields_of(trailers)),
            _ => out.extend_from_slice(LAST_CHUNK),
        }
    }

    /// Keeps the trailers that came with the end of an HTTP/1 body, where HTTP/1 has any.
    #[inline]
    fn note_trailers(&mut self) -> Result<(), Failure> {
        if let BodyDecoder::Trailed(_) = self.decoder {
            match self.trailing.reads {
                true => self.trailers = self.decoder.take_trailers().map_err(Failure::Trailers)?.map(Trailers::Http1),
                false => self.decoder.drop_trailers().map_err(Failure::Trailers)?,
            }
        }
        Ok(())
    }

    /// The trailers for a stream of HTTP/2. They stay here as long as they may be sent again.
    fn trailers_to_send(&mut self) -> Option<HeaderMap> {
        let map = |trailers: &Trailers| match trailers {
            Trailers::Http1(trailers) => head::fields_to(trailers),
            Trailers::Http2(trailers) => trailers.clone(),
        };
        match self.replay {
            Some(_) => self.trailers.as_ref().map(map),
            None => match self.trailers.take()? {
                Trailers::Http2(trailers) => Some(trailers),
                http1 => Some(map(&http1)),
            },
        }
    }

    /// Hands what has come to whoever has a copy of it.
    #[inline]
    fn copy(&mut self, data: &[u8]) {
        let Some(copies) = &mut self.copies else { return };
        if !copies.add(data) {
            self.copies = None;
        } else if self.decoder.is_done() {
            self.copies.take().into_iter().for_each(Copies::send);
        }
    }

    fn frame(&self, out: &mut Vec<u8>, data: &[u8], done: bool) {
        match self.chunked {
            true => frame(out, data),
            false => out.extend_from_slice(data),
        }
        if self.chunked && done {
            self.last_chunk(out);
        }
    }

    fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Source<'_>,
        sink: &mut Sink<'_>,
        blocks: &Blocks,
    ) -> Poll<io::Result<()>> {
        if self.consume == 0 && self.end.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let data = source.data(self.data);
        match sink {
            Sink::Http1(stream) => {
                let all = [&self.size, data.as_slice(), &self.end];
                ready!(poll_write_all(cx, stream, all, &mut self.written))?;
            }
            Sink::Http2(outgoing) => {
                let last = self.is_framed();
                ready!(outgoing.poll_write(cx, data, &mut self.written, last))?;
            }
        }
        self.written_all(source, blocks);
        Poll::Ready(Ok(()))
    }

    /// What was in line has been written, or will not be: the source has it no more.
    fn written_all(&mut self, source: &mut Source<'_>, blocks: &Blocks) {
        (self.data, self.written) = (0, 0);
        self.size.clear();
        self.end.clear();
        source.consume(std::mem::take(&mut self.consume), blocks);
    }
}

/// Trailers may be found to be too long while they are read.
pub(super) fn failure(error: h1::Error) -> Failure {
    match error {
        h1::Error::HeadTooLarge => Failure::Trailers(error),
        _ => Failure::Malformed,
    }
}

/// The data of a chunked body, or of its beginning, that was framed here.
pub(crate) fn unframe(framed: &mut Vec<u8>) {
    if let Ok(decoded) = BodyDecoder::new(BodyLength::Chunked).decode(framed) {
        framed.truncate(decoded.data);
    }
}

/// Appends data as a chunk.
pub(crate) fn frame(out: &mut Vec<u8>, data: &[u8]) {
    if !data.is_empty() {
        chunk_head(out, data.len());
        out.extend_from_slice(data);
        out.extend_from_slice(CHUNK_END);
    }
}
