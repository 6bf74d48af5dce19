//! Walks the frames of an HTTP/2 connection as their bytes pass, and judges what a peer sends: floods of frames that are cheap to send and dear to take,
//! and what RFC 9113 wants answered with another code than the `h2` crate answers with.

use h2::Reason;

use super::hpack::Hpack;
use super::streams::Streams;
use super::wire::Watch;

const HEAD: usize = 9;
const PREFACE: usize = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITIZED: u8 = 0x20;

/// CONTINUATION frames of one header block: as many as a block at its limit needs, with room to spare.
const MAX_CONTINUATIONS: u32 = 16;
/// PRIORITY frames, for each stream so far and one more (Envoy's).
const MAX_PRIORITY_PER_STREAM: u64 = 100;
/// WINDOW_UPDATE frames for each DATA frame sent (Envoy's).
const MAX_WINDOW_UPDATES_PER_DATA: u64 = 10;
/// Frames in a row that carry nothing (Envoy's).
const MAX_EMPTY: u32 = 1;

/// The setting that is the credit of streams, and the most it may be.
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_WINDOW: u32 = (1 << 31) - 1;
/// The largest number of a stream.
const MAX_STREAM: u32 = (1 << 31) - 1;

/// What is wrong with what a peer has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection ends.
    Connection(Reason),
    /// A stream does, with PROTOCOL_ERROR.
    Stream(u32),
}

impl Fault {
    /// How many of `n` bytes, the last of which ends the frame, may be passed on: all of them where the connection goes on.
    fn passes(self, n: usize) -> usize {
        match self {
            Fault::Connection(_) => n.saturating_sub(1),
            Fault::Stream(_) => n,
        }
    }
}

/// A frame on which the `h2` crate ends a stream with PROTOCOL_ERROR, and does nothing else: it depends on itself.
pub(crate) fn ends(stream: u32) -> [u8; HEAD + 5] {
    let [a, b, c, d] = stream.to_be_bytes();
    [0, 0, 5, PRIORITY, 0, a, b, c, d, a, b, c, d, 0]
}

/// Finds the frames among the bytes of one direction.
struct Walk {
    /// Bytes of the preface that are still to come.
    preface: usize,
    head: [u8; HEAD],
    /// Bytes of the head so far.
    have: usize,
    /// Bytes of the payload that are still to come, and what is looked for in them.
    payload: usize,
    inside: Inside,
}

/// What is looked for in a payload.
enum Inside {
    Nothing,
    /// What is wrong with SETTINGS.
    Settings(Setting),
    /// The number that it begins with: so many bytes of it have come.
    Number(u32, u8),
    Block(Block),
}

/// A piece of a block of fields.
struct Block {
    /// Bytes that come before it, and whether the next one says how much padding there is behind it.
    before: usize,
    padded: bool,
    /// Bytes of it that are still to come.
    length: usize,
}

/// What a walk finds.
enum Found<'b> {
    Frame(Head),
    /// The number in a frame of this kind, of this stream, as soon as it is there.
    Number(u8, u32, u32),
    Fields(&'b [u8]),
    /// The end of a block of fields.
    End,
}

/// A setting as far as it has come.
#[derive(Default)]
struct Setting {
    bytes: [u8; 6],
    have: usize,
}

impl Setting {
    /// Takes bytes; at which of them a setting is found to be wrong, if one is.
    fn take(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            self.bytes[self.have] = *byte;
            self.have = (self.have + 1) % self.bytes.len();
            let [a, b, value @ ..] = self.bytes;
            let is_window = u16::from_be_bytes([a, b]) == INITIAL_WINDOW_SIZE;
            if self.have == 0 && is_window && u32::from_be_bytes(value) > MAX_WINDOW {
                return Some(at);
            }
        }
        None
    }
}

/// The head of a frame.
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Head {
    fn of([a, b, c, kind, flags, stream @ ..]: [u8; HEAD]) -> Head {
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        // One bit is not part of the number.
        Head { length, kind, flags, stream: u32::from_be_bytes(stream) & MAX_STREAM }
    }

    fn is_last(&self) -> bool {
        self.flags & END_STREAM != 0
    }
}

impl Inside {
    fn of(head: &Head) -> Inside {
        match head.kind {
            SETTINGS => Inside::Settings(Setting::default()),
            WINDOW_UPDATE | GOAWAY => Inside::Number(0, 0),
            HEADERS | CONTINUATION => {
                let has = |flag| head.kind == HEADERS && head.flags & flag != 0;
                let before = usize::from(has(PADDED)) + if has(PRIORITIZED) { 5 } else { 0 };
                let length = head.length.saturating_sub(before);
                Inside::Block(Block { before, padded: has(PADDED), length })
            }
            _ => Inside::Nothing,
        }
    }
}

impl Block {
    /// What of some bytes belongs to the block.
    fn cut<'b>(&mut self, mut bytes: &'b [u8]) -> Result<&'b [u8], Fault> {
        if let (true, Some(padding)) = (self.padded, bytes.first()) {
            let left = self.length.checked_sub(usize::from(*padding));
            self.length = left.ok_or(Fault::Connection(Reason::PROTOCOL_ERROR))?;
            self.padded = false;
        }
        bytes = &bytes[self.skip(bytes.len())..];
        let n = self.length.min(bytes.len());
        self.length -= n;
        Ok(&bytes[..n])
    }

    fn skip(&mut self, most: usize) -> usize {
        let n = self.before.min(most);
        self.before -= n;
        n
    }
}

impl Walk {
    fn new(preface: usize) -> Walk {
        Walk { preface, head: [0; HEAD], have: 0, payload: 0, inside: Inside::Nothing }
    }

    /// Walks over bytes. An error is what was found wrong with a frame, and how many of the bytes came before that.
    fn over<'b>(
        &mut self,
        bytes: &'b [u8],
        mut each: impl FnMut(Found<'b>) -> Result<(), Fault>,
    ) -> Result<(), (usize, Fault)> {
        let mut at = self.preface.min(bytes.len());
        self.preface -= at;
        while at < bytes.len() {
            let part = &bytes[at..at + self.payload.min(bytes.len() - at)];
            if !part.is_empty() {
                self.payload -= part.len();
                self.look(part, &mut each).map_err(|(n, fault)| (at + n, fault))?;
                at += part.len();
            }
            let start = at;
            let n = (HEAD - self.have).min(bytes.len() - at);
            self.head[self.have..self.have + n].copy_from_slice(&bytes[at..at + n]);
            self.have += n;
            at += n;
            if self.have == HEAD {
                let head = Head::of(self.head);
                (self.have, self.payload, self.inside) = (0, head.length, Inside::of(&head));
                each(Found::Frame(head)).map_err(|fault| (start, fault))?;
                if self.payload == 0 {
                    self.look(&[], &mut each).map_err(|(_, fault)| (fault.passes(at), fault))?;
                }
            }
        }
        Ok(())
    }

    /// Looks into the next part of a payload.
    fn look<'b>(
        &mut self,
        part: &'b [u8],
        each: &mut impl FnMut(Found<'b>) -> Result<(), Fault>,
    ) -> Result<(), (usize, Fault)> {
        match &mut self.inside {
            Inside::Nothing => {}
            Inside::Settings(setting) => {
                if let Some(wrong) = setting.take(part) {
                    return Err((wrong, Fault::Connection(Reason::FLOW_CONTROL_ERROR)));
                }
            }
            Inside::Number(number, have) => {
                for (n, byte) in part.iter().enumerate() {
                    *number = *number << 8 | u32::from(*byte);
                    *have += 1;
                    if *have == 4 {
                        let Head { kind, stream, .. } = Head::of(self.head);
                        each(Found::Number(kind, stream, *number)).map_err(|fault| (n + 1, fault))?;
                        self.inside = Inside::Nothing;
                        break;
                    }
                }
            }
            Inside::Block(block) => {
                let fields = block.cut(part).map_err(|fault| (0, fault))?;
                each(Found::Fields(fields)).map_err(|fault| (0, fault))?;
                if self.payload == 0 && Head::of(self.head).flags & END_HEADERS != 0 {
                    each(Found::End).map_err(|fault| (fault.passes(part.len()), fault))?;
                }
            }
        }
        Ok(())
    }
}

/// What we send: counted, since what a peer may send depends on it.
pub(crate) struct Outbound(Walk);

impl Outbound {
    /// To a client, or to a server, to which a preface goes first.
    pub(crate) fn new(to_server: bool) -> Outbound {
        Outbound(Walk::new(if to_server { PREFACE } else { 0 }))
    }

    pub(crate) fn pass(&mut self, bytes: &[u8], watch: &Watch, streams: &mut Streams) {
        let _ = self.0.over(bytes, |found| {
            match found {
                Found::Frame(head) => match head.kind {
                    DATA => watch.data_sent.set(watch.data_sent.get() + 1),
                    HEADERS => {
                        watch.streams.set(watch.streams.get() + 1);
                    }
                    RST_STREAM => streams.we_reset(head.stream),
                    _ => {}
                },
                Found::Number(GOAWAY, _, last) => streams.we_leave(last),
                _ => {}
            }
            Ok(())
        });
    }
}

/// What a peer sends.
pub(crate) struct Inbound {
    walk: Walk,
    seen: Seen,
    /// How many frames there were.
    pub(super) frames: u64,
}

impl Inbound {
    /// From a client, whose preface comes first, or from a server.
    pub(crate) fn new(from_server: bool) -> Inbound {
        Inbound { walk: Walk::new(if from_server { 0 } else { PREFACE }), seen: Seen::default(), frames: 0 }
    }

    /// Walks over bytes. An error is what ends the connection or a stream, and how many of the bytes may be passed on before.
    pub(crate) fn pass(
        &mut self,
        bytes: &mut [u8],
        watch: &Watch,
        streams: &mut Streams,
    ) -> Result<(), (usize, Fault)> {
        let passed = self.walk.over(bytes, |found| match found {
            Found::Frame(head) => {
                self.frames += 1;
                self.seen.judge(head, watch, streams).map_err(Fault::Connection)
            }
            Found::Number(WINDOW_UPDATE, stream, 0) if streams.has_begun(stream) => Err(Fault::Stream(stream)),
            Found::Number(..) => Ok(()),
            Found::Fields(fields) => self.seen.fields(fields, streams),
            Found::End => self.seen.end(streams),
        });
        // Credit of nothing ends a stream only, but for the `h2` crate the connection: what it sees is that the stream got a little.
        if let Err((good @ 1.., Fault::Stream(_))) = passed
            && self.walk.head[3] == WINDOW_UPDATE
        {
            bytes[good - 1] |= 1;
        }
        passed
    }
}

/// What has come so far.
#[derive(Default)]
struct Seen {
    priorities: u64,
    window_updates: u64,
    /// Frames in a row that carried nothing.
    empty: u32,
    /// CONTINUATION frames of the header block at hand.
    continuations: u32,
    /// Whether anything has come.
    begun: bool,
    /// The stream of the block of fields that goes on.
    block: Option<u32>,
    /// The compression of fields, and the stream that the block at hand ends, if it does.
    hpack: Hpack,
    trailers: Option<u32>,
}

impl Seen {
    /// A piece of a block. What a server sends the `h2` crate judges alone: its code is one that "can always be used in place of more specific error codes"
    /// (§5.4).
    fn fields(&mut self, fields: &[u8], streams: &Streams) -> Result<(), Fault> {
        if streams.are_ours() { Ok(()) } else { self.hpack.take(fields).map_err(Fault::Connection) }
    }

    fn end(&mut self, streams: &Streams) -> Result<(), Fault> {
        if streams.are_ours() {
            return Ok(());
        }
        let has_pseudo = self.hpack.end().map_err(Fault::Connection)?;
        match self.trailers.take() {
            Some(stream) if has_pseudo => Err(Fault::Stream(stream)),
            _ => Ok(()),
        }
    }

    fn judge(&mut self, head: Head, watch: &Watch, streams: &mut Streams) -> Result<(), Reason> {
        let Head { length, kind, flags, stream } = head;
        if !std::mem::replace(&mut self.begun, true) && (kind != SETTINGS || flags & ACK != 0) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if let DATA | HEADERS | CONTINUATION = kind {
            let nothing = length == 0 && flags & END_STREAM == 0;
            self.empty = if nothing { self.empty + 1 } else { 0 };
            if self.empty > MAX_EMPTY {
                return Err(Reason::ENHANCE_YOUR_CALM);
            }
        }
        // §6.10: a block is one piece after the other, and nothing in between.
        let goes_on = (kind == CONTINUATION).then_some(stream);
        if !streams.are_ours() && goes_on != self.block.take() {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if let HEADERS | CONTINUATION = kind {
            self.block = (flags & END_HEADERS == 0).then_some(stream);
        }
        match kind {
            DATA => {
                watch.received.add(length);
                streams.data(stream, head.is_last())?;
                return size(flags & PADDED == 0 || length >= 1);
            }
            HEADERS => {
                watch.streams.set(watch.streams.get() + 1);
                self.continuations = 0;
                self.trailers = streams.has_begun(stream).then_some(stream);
                streams.headers(stream, head.is_last())?;
                let padded = if flags & PADDED == 0 { 0 } else { 1 };
                return size(length >= if flags & PRIORITIZED == 0 { padded } else { padded + 5 });
            }
            CONTINUATION if flags & END_HEADERS == 0 => {
                self.continuations += 1;
                if self.continuations > MAX_CONTINUATIONS {
                    return Err(Reason::ENHANCE_YOUR_CALM);
                }
            }
            PRIORITY => {
                self.priorities += 1;
                if self.priorities > MAX_PRIORITY_PER_STREAM * (1 + watch.streams.get()) {
                    return Err(Reason::ENHANCE_YOUR_CALM);
                }
                return size(length == 5);
            }
            WINDOW_UPDATE => {
                self.window_updates += 1;
                let data = MAX_WINDOW_UPDATES_PER_DATA * watch.data_sent.get();
                if self.window_updates > 5 + 2 * (watch.streams.get() + data) {
                    return Err(Reason::ENHANCE_YOUR_CALM);
                }
                return size(length == 4);
            }
            RST_STREAM => {
                size(length == 4)?;
                streams.client_resets(stream);
            }
            PING => return size(length == 8),
            SETTINGS if flags & ACK != 0 => return size(length == 0),
            SETTINGS => return size(length.is_multiple_of(6)),
            // §8.4: "A client cannot push."
            PUSH_PROMISE if !streams.are_ours() => return Err(Reason::PROTOCOL_ERROR),
            GOAWAY => {
                watch.going.set(true);
                return size(length >= 8);
            }
            _ => {}
        }
        Ok(())
    }
}

fn size(right: bool) -> Result<(), Reason> {
    if right { Ok(()) } else { Err(Reason::FRAME_SIZE_ERROR) }
}
