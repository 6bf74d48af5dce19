//! Which streams of a connection the client may still send on (RFC 9113 §5.1).
//!
//! What it sends on a stream that it has ended is told with STREAM_CLOSED, and it ends the connection: "an endpoint MAY choose to treat a stream error as
//! a connection error" (§5.4.1). What may still be under way on a stream that we have reset is the `h2` crate's to discard.

use std::collections::VecDeque;

use ahash::AHashSet;
use h2::Reason;

/// Streams that we have reset and that are remembered.
const MAX_RESET: usize = 64;
/// Gaps in the numbers of streams that are remembered.
const MAX_GAPS: usize = 8;

/// The streams of a connection.
pub(crate) struct Streams {
    /// Whether they are ours: the peer is a server, and nothing is known of them.
    ours: bool,
    /// The last one that has begun.
    last: u32,
    /// Those that the client has not ended.
    open: AHashSet<u32>,
    /// Those of them that we have reset, the latest ones; up to which number others have been forgotten.
    reset: VecDeque<u32>,
    forgotten: u32,
    /// Numbers that were passed over, the latest ones: from which to before which.
    gaps: VecDeque<(u32, u32)>,
    /// Streams above this one count for nothing: the client has been told so.
    most: u32,
}

impl Streams {
    pub(crate) fn new(ours: bool) -> Streams {
        let (open, reset, gaps) = Default::default();
        Streams { ours, last: 0, open, reset, forgotten: 0, gaps, most: u32::MAX }
    }

    /// Whether the peer is a server.
    pub(crate) fn are_ours(&self) -> bool {
        self.ours
    }

    /// Whether a stream is not idle.
    pub(crate) fn has_begun(&self, stream: u32) -> bool {
        stream % 2 == 1 && stream <= self.last
    }

    /// The client sends HEADERS.
    pub(crate) fn headers(&mut self, stream: u32, last: bool) -> Result<(), Reason> {
        if !self.ours && stream % 2 == 1 && stream > self.last {
            self.begin(stream);
        }
        self.data(stream, last)
    }

    /// The client sends DATA.
    pub(crate) fn data(&mut self, stream: u32, last: bool) -> Result<(), Reason> {
        // Whatever is wrong with other streams, the `h2` crate says what the RFC wants said.
        if self.has_begun(stream) && !self.may_send(stream) {
            return Err(Reason::STREAM_CLOSED);
        }
        if last {
            self.open.remove(&stream);
        }
        Ok(())
    }

    /// The client resets a stream.
    pub(crate) fn client_resets(&mut self, stream: u32) {
        self.open.remove(&stream);
    }

    /// We reset a stream.
    pub(crate) fn we_reset(&mut self, stream: u32) {
        if self.open.remove(&stream) {
            self.reset.push_back(stream);
            if self.reset.len() > MAX_RESET {
                self.forgotten = self.forgotten.max(self.reset.pop_front().unwrap_or_default());
            }
        }
    }

    /// We say that streams above this one count for nothing.
    pub(crate) fn we_leave(&mut self, most: u32) {
        self.most = most;
    }

    fn begin(&mut self, stream: u32) {
        let next = if self.last == 0 { 1 } else { self.last + 2 };
        if stream != next {
            self.gaps.push_back((next, stream));
            if self.gaps.len() > MAX_GAPS {
                self.gaps.pop_front();
            }
        }
        self.last = stream;
        if stream <= self.most {
            self.open.insert(stream);
        }
    }

    fn may_send(&self, stream: u32) -> bool {
        self.open.contains(&stream)
            || stream <= self.forgotten
            || stream > self.most
            || self.reset.contains(&stream)
            || self.gaps.iter().any(|(from, to)| (*from..*to).contains(&stream))
    }
}
