//! Follows the compression of the fields that a client sends (RFC 7541), without their text: for the `h2` crate a mistake in it is one like any other, where
//! RFC 9113 §4.3 wants COMPRESSION_ERROR; and in trailers it passes over pseudo-headers.

use std::collections::VecDeque;

use h2::Reason;

/// How large the table may be: what is so while nobody has said otherwise, and we do not.
const TABLE: usize = 4096;
/// What an entry takes beside its text.
const ENTRY: usize = 32;
/// How long the names in the static table are; the first 14 are of pseudo-headers.
const NAMES: [u8; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14, 16, 13, 12, 6, 4,
    4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3, 16,
];
const PSEUDO: usize = 14;

/// How many of Huffman's codes have each length, from 5 bits to 30. They count up within a length, and from one length to the next (appendix B).
const CODES: [u8; 26] = [10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 4];
const SHORTEST: u32 = 5;
/// Before which 32 bits the codes of each length end.
const ENDS: [u64; 26] = ends();
/// The last of all codes, which no text has.
const END_OF_STRING: u64 = 0x3fff_ffff;

/// The state of a client's compression.
#[derive(Default)]
pub(crate) struct Hpack {
    /// The latest entry comes first.
    table: VecDeque<Entry>,
    /// What the entries take, and by how much less than at first they may.
    size: usize,
    withheld: usize,
    /// The beginning of a field whose end is to come.
    rest: Vec<u8>,
    /// Whether the block at hand has had a field, and a pseudo-header.
    begun: bool,
    pseudo: bool,
}

#[derive(Clone, Copy)]
struct Entry {
    name: usize,
    value: usize,
    pseudo: bool,
}

/// A text that has been read.
struct Text {
    len: usize,
    pseudo: bool,
    /// How many bytes it took.
    taken: usize,
}

type Read<T> = Result<Option<T>, Reason>;

impl Hpack {
    /// The next piece of a block.
    pub(crate) fn take(&mut self, piece: &[u8]) -> Result<(), Reason> {
        if self.rest.is_empty() {
            let read = self.fields(piece)?;
            self.rest.extend_from_slice(&piece[read..]);
            return Ok(());
        }
        let mut all = std::mem::take(&mut self.rest);
        all.extend_from_slice(piece);
        let read = self.fields(&all)?;
        all.drain(..read);
        self.rest = all;
        Ok(())
    }

    /// The block is over: whether there was a pseudo-header.
    pub(crate) fn end(&mut self) -> Result<bool, Reason> {
        self.begun = false;
        if !self.rest.is_empty() {
            return Err(Reason::COMPRESSION_ERROR);
        }
        // Nothing is kept for a connection that is idle.
        self.rest = Vec::new();
        Ok(std::mem::take(&mut self.pseudo))
    }

    /// How many entries the table has.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn entries(&self) -> usize {
        self.table.len()
    }

    /// Reads the fields that are there to their end; how many bytes they took.
    fn fields(&mut self, bytes: &[u8]) -> Result<usize, Reason> {
        let mut at = 0;
        while let Some(taken) = self.field(&bytes[at..])? {
            at += taken;
        }
        Ok(at)
    }

    fn field(&mut self, bytes: &[u8]) -> Read<usize> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let (bits, keep) = match first {
            0x80.. => {
                let Some((index, taken)) = number(bytes, 7)? else { return Ok(None) };
                self.pseudo |= self.entry(index)?.pseudo;
                self.begun = true;
                return Ok(Some(taken));
            }
            0x20..0x40 => {
                let Some((most, taken)) = number(bytes, 5)? else { return Ok(None) };
                if self.begun || most > TABLE {
                    return Err(Reason::COMPRESSION_ERROR);
                }
                self.withheld = TABLE - most;
                self.make_room(0);
                return Ok(Some(taken));
            }
            0x40.. => (6, true),
            _ => (4, false),
        };
        let Some((index, mut taken)) = number(bytes, bits)? else { return Ok(None) };
        let name = if index == 0 {
            let Some(text) = text(&bytes[taken..])? else { return Ok(None) };
            taken += text.taken;
            Entry { name: text.len, value: 0, pseudo: text.pseudo }
        } else {
            self.entry(index)?
        };
        let Some(value) = text(&bytes[taken..])? else { return Ok(None) };
        self.pseudo |= name.pseudo;
        self.begun = true;
        if keep {
            self.keep(Entry { value: value.len, ..name });
        }
        Ok(Some(taken + value.taken))
    }

    fn entry(&self, index: usize) -> Result<Entry, Reason> {
        let index = index.checked_sub(1).ok_or(Reason::COMPRESSION_ERROR)?;
        match NAMES.get(index) {
            Some(name) => Ok(Entry { name: usize::from(*name), value: 0, pseudo: index < PSEUDO }),
            None => self.table.get(index - NAMES.len()).copied().ok_or(Reason::COMPRESSION_ERROR),
        }
    }

    fn keep(&mut self, entry: Entry) {
        let size = entry.size();
        self.make_room(size);
        if size <= TABLE - self.withheld {
            self.size += size;
            self.table.push_front(entry);
        }
    }

    fn make_room(&mut self, size: usize) {
        while self.size + size > TABLE - self.withheld {
            let Some(oldest) = self.table.pop_back() else { return };
            self.size -= oldest.size();
        }
    }
}

impl Entry {
    fn size(&self) -> usize {
        self.name + self.value + ENTRY
    }
}

/// A number that begins in the last bits of the first byte, and how many bytes it took.
fn number(bytes: &[u8], bits: u32) -> Read<(usize, usize)> {
    let Some((first, more)) = bytes.split_first() else { return Ok(None) };
    let most = (1 << bits) - 1;
    let mut number = usize::from(*first) & most;
    if number < most {
        return Ok(Some((number, 1)));
    }
    for (i, byte) in more.iter().take(4).enumerate() {
        number += usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(Some((number, i + 2)));
        }
    }
    // What is longer is larger than anything may be.
    if more.len() < 4 { Ok(None) } else { Err(Reason::COMPRESSION_ERROR) }
}

fn text(bytes: &[u8]) -> Read<Text> {
    let Some((len, before)) = number(bytes, 7)? else { return Ok(None) };
    let Some(raw) = bytes.get(before..before + len) else { return Ok(None) };
    let taken = before + len;
    Ok(Some(match bytes[0] & 0x80 {
        0 => Text { len, pseudo: raw.first() == Some(&b':'), taken },
        // The colon's code has seven bits.
        _ => Text { len: letters(raw)?, pseudo: raw.first().is_some_and(|byte| byte >> 1 == 0x5c), taken },
    }))
}

/// How many letters there are in Huffman's code.
fn letters(raw: &[u8]) -> Result<usize, Reason> {
    let mut bytes = raw.iter();
    // The bits at hand stand at the window's upper end.
    let (mut window, mut have, mut count) = (0u64, 0u32, 0);
    loop {
        while have <= 56
            && let Some(byte) = bytes.next()
        {
            window |= u64::from(*byte) << (56 - have);
            have += 8;
        }
        let next = window >> 32;
        let length = ENDS.iter().zip(SHORTEST..).find(|(end, _)| next < **end).map_or(u32::MAX, |(_, length)| length);
        if length > have {
            // What is left fills a byte, with ones.
            let is_padding = have < 8 && next >> (32 - have) == (1 << have) - 1;
            return if is_padding { Ok(count) } else { Err(Reason::COMPRESSION_ERROR) };
        }
        if length == 30 && next >> 2 == END_OF_STRING {
            return Err(Reason::COMPRESSION_ERROR);
        }
        window <<= length;
        have -= length;
        count += 1;
    }
}

const fn ends() -> [u64; 26] {
    let mut ends = [0; 26];
    let (mut end, mut i) = (0, 0);
    while i < ends.len() {
        end += (CODES[i] as u64) << (32 - SHORTEST - i as u32);
        ends[i] = end;
        i += 1;
    }
    ends
}

#[cfg(test)]
mod tests;
