//! Exact paths and prefixes of many routes in one small table: a lookup reads one place of it for each text it tries.
//!
//! What a lookup costs with many routes is memory that is in no cache, so a slot holds all that is asked of it, texts lie
//! behind each other, and no route is looked at before its condition on the path is known to hold.

use ahash::RandomState;

/// No route.
pub(super) const NONE: u32 = u32::MAX;

/// Prefixes of up to this many lengths are looked up, one length after the other; beyond that walking a trie is cheaper.
pub(super) const MANY_LENGTHS: usize = 24;

/// What a text has to do with the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is the path.
    Exact = 0,
    /// The path starts with it.
    Prefix = 1,
    /// The path starts with it, and ends there or goes on with `/`.
    Separated = 2,
}

/// Ordinals of routes by kind and text; those of one text in order.
#[derive(Clone, Debug)]
pub(super) struct PathTable {
    /// Random keys: requests must not be able to choose what they collide with.
    hasher: RandomState,
    /// Open addressing, a power of two, at most two thirds full.
    slots: Box<[Slot]>,
    texts: Vec<u8>,
    /// The route that comes next with the same kind and text, by ordinal.
    next: Box<[u32]>,
    /// The lengths of the prefixes.
    lengths: Vec<Length>,
}

/// 16 bytes, four to a cache line.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// The upper half of the hash, with the kind.
    tag: u32,
    /// The first route, [`NONE`] in an empty slot.
    first: u32,
    /// Where the text is; all texts come from one protobuf message, which cannot have more than 2 GiB.
    start: u32,
    length: u32,
}

/// The earliest routes whose prefix has this length.
#[derive(Clone, Copy, Debug)]
struct Length {
    length: usize,
    plain: u32,
    separated: u32,
}

impl PathTable {
    /// From `(ordinal, kind, text)` in order; ordinals are less than `routes`.
    pub(super) fn new(entries: &[(u32, Kind, &[u8])], routes: usize) -> PathTable {
        let empty = Slot { tag: 0, first: NONE, start: 0, length: 0 };
        let size = (entries.len() + entries.len() / 2 + 1).next_power_of_two();
        let mut table = PathTable {
            hasher: RandomState::new(),
            slots: vec![empty; size].into(),
            texts: Vec::new(),
            next: vec![NONE; routes].into(),
            lengths: Vec::new(),
        };
        // Backwards, so that each route goes before the later ones of its text.
        for &(ordinal, kind, text) in entries.iter().rev() {
            table.insert(ordinal, kind, text);
        }
        table.lengths.sort_unstable_by_key(|l| l.length);
        table
    }

    fn insert(&mut self, ordinal: u32, kind: Kind, text: &[u8]) {
        let hash = self.hasher.hash_one(text);
        let at = self.place(hash, kind, text);
        let slot = &mut self.slots[at];
        if slot.first == NONE {
            *slot = Slot {
                tag: tag(hash, kind),
                first: ordinal,
                start: self.texts.len() as u32,
                length: text.len() as u32,
            };
            self.texts.extend_from_slice(text);
        } else {
            self.next[ordinal as usize] = std::mem::replace(&mut slot.first, ordinal);
        }
        if kind == Kind::Exact {
            return;
        }
        let known = self.lengths.iter().position(|l| l.length == text.len()).unwrap_or_else(|| {
            self.lengths.push(Length { length: text.len(), plain: NONE, separated: NONE });
            self.lengths.len() - 1
        });
        match kind {
            Kind::Separated => self.lengths[known].separated = ordinal,
            _ => self.lengths[known].plain = ordinal,
        }
    }

    /// The slot of a text, or the empty one where it would go.
    #[inline]
    fn place(&self, hash: u64, kind: Kind, text: &[u8]) -> usize {
        let (tag, mask) = (tag(hash, kind), self.slots.len() - 1);
        let mut at = hash as usize & mask;
        loop {
            let slot = &self.slots[at];
            if slot.first == NONE || (slot.tag == tag && self.text(slot) == text) {
                return at;
            }
            at = (at + 1) & mask;
        }
    }

    #[inline]
    fn text(&self, slot: &Slot) -> &[u8] {
        &self.texts[slot.start as usize..][..slot.length as usize]
    }

    /// Goes through the routes whose condition on the path holds. `offer` gets the first route of each text with which it
    /// holds, and [`PathTable::next`] for the others; it returns the earliest route that was taken so far, and later ones
    /// are not looked for.
    #[inline]
    pub(super) fn collect(&self, path: &[u8], mut earliest: u32, mut offer: impl FnMut(u32) -> u32) {
        let mut visit = |hash: u64, kind: Kind, text: &[u8], earliest: u32| {
            let first = self.slots[self.place(hash, kind, text)].first;
            if first < earliest { offer(first) } else { earliest }
        };
        earliest = visit(self.hasher.hash_one(path), Kind::Exact, path, earliest);
        for length in &self.lengths {
            let Some(text) = path.get(..length.length) else { return };
            let plain = length.plain < earliest;
            let separated = length.separated < earliest && matches!(path.get(length.length), None | Some(b'/'));
            if !plain && !separated {
                continue;
            }
            let hash = self.hasher.hash_one(text);
            if plain {
                earliest = visit(hash, Kind::Prefix, text, earliest);
            }
            if separated {
                earliest = visit(hash, Kind::Separated, text, earliest);
            }
        }
    }

    /// The route that follows another one with the same text.
    pub(super) fn next(&self, ordinal: u32) -> u32 {
        self.next[ordinal as usize]
    }
}

#[inline]
fn tag(hash: u64, kind: Kind) -> u32 {
    (hash >> 32) as u32 & !3 | kind as u32
}
