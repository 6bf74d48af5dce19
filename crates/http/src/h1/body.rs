//! Reading a body: how long it is, and where it ends.

use super::{Error, Limits, trailers};
use crate::headers::Headers;

/// How a message's body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// None, or of length zero.
    Empty,
    /// This many bytes (never zero).
    Exact(u64),
    /// In chunks.
    Chunked,
    /// Up to the end of the connection; responses only.
    UntilClose,
}

/// Finds a body's bytes and its end in what arrives.
#[derive(Debug)]
pub enum BodyDecoder {
    /// The body has ended.
    Done,
    /// A chunked body has ended, and these trailers were there, as they came.
    Trailed(Vec<u8>),
    /// This many bytes are still to come.
    Exact(u64),
    /// In chunks.
    Chunked(Chunks),
    /// Up to the end of the connection.
    UntilClose,
}

/// Where a chunked body stands.
#[derive(Debug)]
pub struct Chunks {
    state: State,
    /// Bytes of this chunk's size line so far.
    line: u32,
    size: u64,
    /// The trailers so far, as they came; mostly there are none.
    trailers: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
}

/// A chunk's size line, extensions included, may be this long.
const MAX_LINE: u32 = 8 * 1024;
/// The trailers together may be as large as a head may be by default.
const MAX_TRAILERS: usize = Limits::ENVOYS.head_bytes;

/// What one call found. The data has been moved to the front of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of the buffer that belong to this body, framing included.
    pub consumed: usize,
    /// Bytes of data, now at the front of the buffer.
    pub data: usize,
    /// Whether the body ended within them.
    pub done: bool,
}

impl BodyDecoder {
    /// For a body of this framing.
    pub fn new(length: BodyLength) -> BodyDecoder {
        match length {
            BodyLength::Empty | BodyLength::Exact(0) => BodyDecoder::Done,
            BodyLength::Exact(n) => BodyDecoder::Exact(n),
            BodyLength::Chunked => {
                BodyDecoder::Chunked(Chunks { state: State::Size, line: 0, size: 0, trailers: Vec::new() })
            }
            BodyLength::UntilClose => BodyDecoder::UntilClose,
        }
    }

    /// Whether the body has ended.
    pub fn is_done(&self) -> bool {
        matches!(self, BodyDecoder::Done | BodyDecoder::Trailed(_))
    }

    /// Whether the end of the connection now is the end of the body, rather than a body cut short.
    pub fn may_end_here(&self) -> bool {
        self.is_done() || matches!(self, BodyDecoder::UntilClose)
    }

    /// The trailers that came with the body, once. What would frame or route a message may not be among them (RFC 9110 §6.5.1).
    pub fn take_trailers(&mut self) -> Result<Option<Headers>, Error> {
        match self.read_trailers()? {
            Some(trailers) if !trailers::may_be_sent(&trailers) => Err(Error::Trailers),
            trailers => Ok(trailers),
        }
    }

    /// Has the trailers that came with the body end here; they have to be trailers all the same.
    pub fn drop_trailers(&mut self) -> Result<(), Error> {
        self.read_trailers().map(drop)
    }

    fn read_trailers(&mut self) -> Result<Option<Headers>, Error> {
        match std::mem::replace(self, BodyDecoder::Done) {
            BodyDecoder::Trailed(raw) => trailers::parse(raw).map(Some),
            other => {
                *self = other;
                Ok(None)
            }
        }
    }

    /// Takes what belongs to the body from the front of `buf`, and moves its data, freed of chunk framing, to the front.
    pub fn decode(&mut self, buf: &mut [u8]) -> Result<Decoded, Error> {
        let (consumed, data) = match self {
            BodyDecoder::Done | BodyDecoder::Trailed(_) => (0, 0),
            BodyDecoder::UntilClose => (buf.len(), buf.len()),
            BodyDecoder::Exact(left) => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(buf.len());
                *left -= n as u64;
                if *left == 0 {
                    *self = BodyDecoder::Done;
                }
                (n, n)
            }
            BodyDecoder::Chunked(chunks) => {
                let (consumed, data, done) = chunks.decode(buf)?;
                if done {
                    let raw = std::mem::take(&mut chunks.trailers);
                    *self = if raw.is_empty() { BodyDecoder::Done } else { BodyDecoder::Trailed(raw) };
                }
                (consumed, data)
            }
        };
        Ok(Decoded { consumed, data, done: self.is_done() })
    }
}

impl Chunks {
    fn decode(&mut self, buf: &mut [u8]) -> Result<(usize, usize, bool), Error> {
        let (mut at, mut data) = (0, 0);
        while let Some(&b) = buf.get(at) {
            if self.state == State::Data {
                let n = usize::try_from(self.size).unwrap_or(usize::MAX).min(buf.len() - at);
                if at != data {
                    buf.copy_within(at..at + n, data);
                }
                (at, data) = (at + n, data + n);
                self.size -= n as u64;
                if self.size == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            at += 1;
            if self.step(b)? {
                return Ok((at, data, true));
            }
        }
        Ok((at, data, false))
    }

    /// One byte of framing; true at the very end.
    fn step(&mut self, b: u8) -> Result<bool, Error> {
        self.line += 1;
        if self.line > MAX_LINE {
            return Err(Error::Chunk);
        }
        self.state = match (self.state, b) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                // Fifteen digits are more than any body has, and far from overflowing.
                if self.line > 15 {
                    return Err(Error::Chunk);
                }
                let digit = (b as char).to_digit(16).unwrap_or(0);
                self.size = self.size * 16 + u64::from(digit);
                State::Size
            }
            (State::Size, b';') if self.line > 1 => State::Extension,
            (State::Size, b'\r') if self.line > 1 => State::SizeLf,
            // Extensions end here: nobody may act on them two hops on.
            (State::Extension, b'\r') => State::SizeLf,
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => State::Extension,
            (State::SizeLf, b'\n') => {
                self.line = 0;
                if self.size == 0 { State::TrailerStart } else { State::Data }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => {
                self.line = 0;
                State::Size
            }
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerStart, b) if crate::name::is_token(b) => self.trailer(b, State::Trailer)?,
            (State::Trailer, b'\r') => self.trailer(b, State::TrailerLf)?,
            (State::Trailer, b'\t' | b' '..=b'~' | 0x80..) => self.trailer(b, State::Trailer)?,
            (State::TrailerLf, b'\n') => self.trailer(b, State::TrailerStart)?,
            (State::EndLf, b'\n') => return Ok(true),
            (State::TrailerStart | State::Trailer, b) if b.is_ascii_control() && !matches!(b, b'\r' | b'\n') => {
                return Err(Error::InvalidCharacters);
            }
            _ => return Err(Error::Chunk),
        };
        Ok(false)
    }

    fn trailer(&mut self, b: u8, next: State) -> Result<State, Error> {
        if self.trailers.len() >= MAX_TRAILERS {
            return Err(Error::HeadTooLarge);
        }
        self.line = 0;
        self.trailers.push(b);
        Ok(next)
    }
}
