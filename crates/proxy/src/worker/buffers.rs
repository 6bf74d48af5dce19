//! Blocks of memory for bytes in transit. A connection borrows one when bytes come and gives it back when they are gone.

use std::cell::{Cell, RefCell};

/// The size of a block.
pub(crate) const BLOCK: usize = 16 * 1024;

/// More free blocks than this are never kept.
const MAX_FREE: usize = 256;

/// The free blocks of a worker, last used first.
pub(crate) struct Blocks {
    free: RefCell<Vec<Vec<u8>>>,
    /// The fewest free blocks since the last trim: what nobody needed in that time.
    unused: Cell<usize>,
}

impl Blocks {
    pub(crate) fn new() -> Blocks {
        Blocks { free: RefCell::new(Vec::new()), unused: Cell::new(0) }
    }

    /// A block, all of it readable memory.
    #[inline]
    pub(crate) fn take(&self) -> Vec<u8> {
        let mut free = self.free.borrow_mut();
        let block = free.pop();
        self.unused.set(self.unused.get().min(free.len()));
        block.unwrap_or_else(|| vec![0; BLOCK])
    }

    /// Gives a block back; one that has grown is freed.
    #[inline]
    pub(crate) fn give(&self, block: Vec<u8>) {
        let mut free = self.free.borrow_mut();
        if block.len() == BLOCK && free.len() < MAX_FREE {
            free.push(block);
        }
    }

    /// Frees half of the blocks that nobody needed since the last time.
    pub(crate) fn trim(&self) {
        let mut free = self.free.borrow_mut();
        let keep = free.len() - (self.unused.get() / 2).min(free.len());
        free.truncate(keep.max(4));
        self.unused.set(free.len());
    }
}
