//! Blocks of memory for bytes in transit. A connection borrows one when bytes come and gives it back when they are gone.

use std::cell::Cell;
use std::rc::Rc;

use super::spare::Spare;

/// The size of a block.
pub(crate) const BLOCK: usize = 16 * 1024;

/// The size of a block for those who have much to carry: fewer calls, packets and wake-ups for the same bytes.
const LARGE: usize = 256 * 1024;

/// So many large blocks are lent at a time, and no more than a sixteenth of what a worker may hold. Whoever reads nothing may hold one for long, and
/// there may be thousands of them.
const MOST_LARGE: usize = 32;

/// The free blocks of a worker.
pub(crate) struct Blocks {
    blocks: Spare<Vec<u8>>,
    large: Spare<Vec<u8>>,
    lent: Rc<Cell<usize>>,
    most_large: usize,
}

/// Counts a large block until it is given back, or lost.
pub(crate) struct Lent(Rc<Cell<usize>>);

impl Blocks {
    /// For a worker that may hold so many bytes.
    pub(crate) fn new(bytes: usize) -> Blocks {
        let most_large = (bytes / 16 / LARGE).min(MOST_LARGE);
        Blocks { blocks: Spare::new(256), large: Spare::new(MOST_LARGE), lent: Rc::default(), most_large }
    }

    /// A block, all of it readable memory.
    #[inline]
    pub(crate) fn take(&self) -> Vec<u8> {
        self.blocks.take().unwrap_or_else(|| vec![0; BLOCK])
    }

    /// A large block, unless too many are lent; it is lent for as long as what comes with it is kept.
    pub(crate) fn take_large(&self) -> Option<(Vec<u8>, Lent)> {
        if self.lent.get() >= self.most_large {
            return None;
        }
        self.lent.set(self.lent.get() + 1);
        Some((self.large.take().unwrap_or_else(|| vec![0; LARGE]), Lent(self.lent.clone())))
    }

    /// Gives a block back; one that has grown is freed.
    #[inline]
    pub(crate) fn give(&self, block: Vec<u8>) {
        match block.len() {
            BLOCK => self.blocks.give(block),
            LARGE => self.large.give(block),
            _ => {}
        }
    }

    /// Frees some of what nobody needs.
    pub(crate) fn trim(&self) {
        self.blocks.trim();
        self.large.trim();
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_blocks_are_few() {
        assert!(Blocks::new(15 * LARGE).take_large().is_none(), "a worker that may hold little has none");
        let blocks = Blocks::new(1 << 30);
        let mut lent: Vec<_> = std::iter::from_fn(|| blocks.take_large()).collect();
        assert_eq!(lent.len(), MOST_LARGE);
        // One that is lost is not lost for good.
        drop(lent.pop());
        let (block, _counted) = blocks.take_large().unwrap();
        assert_eq!(block.len(), LARGE);
        assert!(blocks.take_large().is_none());
    }
}
