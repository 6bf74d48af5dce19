//! Walks the frames of an HTTP/2 connection as their bytes pass, and judges what a peer sends: floods of frames that are cheap to send and dear to take,
//! and sizes for which RFC 9113 demands another code than the `h2` crate answers with.

use h2::Reason;

use super::wire::Watch;

const HEAD: usize = 9;
const PREFACE: usize = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

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

/// Finds the frames among the bytes of one direction.
struct Walk {
    /// Bytes of the preface that are still to come.
    preface: usize,
    head: [u8; HEAD],
    /// Bytes of the head so far.
    have: usize,
    /// Bytes of the payload that are still to come.
    payload: usize,
    /// Whether the payload is one of SETTINGS, and its setting at hand.
    settings: bool,
    setting: Setting,
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
}

impl Walk {
    fn new(preface: usize) -> Walk {
        Walk { preface, head: [0; HEAD], have: 0, payload: 0, settings: false, setting: Setting::default() }
    }

    /// Walks over bytes. An error is what was found wrong with a frame, and how many of the bytes came before it.
    fn over(&mut self, bytes: &[u8], mut each: impl FnMut(Head) -> Result<(), Reason>) -> Result<(), (usize, Reason)> {
        let mut at = self.preface.min(bytes.len());
        self.preface -= at;
        while at < bytes.len() {
            let skip = self.payload.min(bytes.len() - at);
            if self.settings
                && let Some(wrong) = self.setting.take(&bytes[at..at + skip])
            {
                return Err((at + wrong, Reason::FLOW_CONTROL_ERROR));
            }
            self.payload -= skip;
            at += skip;
            let start = at;
            let n = (HEAD - self.have).min(bytes.len() - at);
            self.head[self.have..self.have + n].copy_from_slice(&bytes[at..at + n]);
            self.have += n;
            at += n;
            if self.have == HEAD {
                let [a, b, c, kind, flags, ..] = self.head;
                let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                (self.have, self.payload) = (0, length);
                self.settings = kind == SETTINGS;
                each(Head { length, kind, flags }).map_err(|error| (start, error))?;
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

    pub(crate) fn pass(&mut self, bytes: &[u8], watch: &Watch) {
        let _ = self.0.over(bytes, |head| {
            match head.kind {
                DATA => watch.data_sent.set(watch.data_sent.get() + 1),
                HEADERS => watch.streams.set(watch.streams.get() + 1),
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
}

impl Inbound {
    /// From a client, whose preface comes first, or from a server.
    pub(crate) fn new(from_server: bool) -> Inbound {
        Inbound { walk: Walk::new(if from_server { 0 } else { PREFACE }), seen: Seen::default() }
    }

    /// Walks over bytes. An error is why the connection ends, and how many of the bytes may be passed on before.
    pub(crate) fn pass(&mut self, bytes: &[u8], watch: &Watch) -> Result<(), (usize, Reason)> {
        self.walk.over(bytes, |head| self.seen.judge(head, watch))
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
}

impl Seen {
    fn judge(&mut self, head: Head, watch: &Watch) -> Result<(), Reason> {
        let Head { length, kind, flags } = head;
        if !std::mem::replace(&mut self.begun, true) && (kind != SETTINGS || flags & ACK != 0) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        match kind {
            DATA | HEADERS | CONTINUATION => {
                let nothing = length == 0 && flags & END_STREAM == 0;
                self.empty = if nothing { self.empty + 1 } else { 0 };
                if self.empty > MAX_EMPTY {
                    return Err(Reason::ENHANCE_YOUR_CALM);
                }
                match kind {
                    HEADERS => {
                        watch.streams.set(watch.streams.get() + 1);
                        self.continuations = 0;
                    }
                    CONTINUATION if flags & END_HEADERS == 0 => {
                        self.continuations += 1;
                        if self.continuations > MAX_CONTINUATIONS {
                            return Err(Reason::ENHANCE_YOUR_CALM);
                        }
                    }
                    _ => {}
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
            RST_STREAM => return size(length == 4),
            PING => return size(length == 8),
            SETTINGS if flags & ACK != 0 => return size(length == 0),
            SETTINGS => return size(length.is_multiple_of(6)),
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
