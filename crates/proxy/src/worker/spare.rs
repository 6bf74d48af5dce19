//! What is not in use, kept for whoever needs one next.

use std::cell::{Cell, RefCell};

/// So many are kept however long nobody needs them.
const FEW: usize = 4;

/// Things of one kind that are not in use, the last used first.
pub(crate) struct Spare<T> {
    free: RefCell<Vec<T>>,
    /// More than this are never kept.
    most: usize,
    /// The fewest since the last trim: what nobody needed in that time.
    unused: Cell<usize>,
}

impl<T> Spare<T> {
    pub(crate) fn new(most: usize) -> Spare<T> {
        Spare { free: RefCell::default(), most, unused: Cell::new(0) }
    }

    #[inline]
    pub(crate) fn take(&self) -> Option<T> {
        let mut free = self.free.borrow_mut();
        let one = free.pop();
        self.unused.set(self.unused.get().min(free.len()));
        one
    }

    #[inline]
    pub(crate) fn give(&self, one: T) {
        let mut free = self.free.borrow_mut();
        if free.len() < self.most {
            free.push(one);
        }
    }

    /// Frees half of what nobody needed since the last time.
    pub(crate) fn trim(&self) {
        let mut free = self.free.borrow_mut();
        let keep = free.len() - (self.unused.get() / 2).min(free.len());
        free.truncate(keep.max(FEW));
        self.unused.set(free.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_needs_is_freed_by_and_by() {
        let spare = Spare::new(64);
        assert_eq!(spare.take(), None);
        (0..100).for_each(|n| spare.give(n));
        let len = || spare.free.borrow().len();
        assert_eq!((len(), spare.take()), (64, Some(63)));
        spare.give(63);
        // Nobody knows yet how many were needed.
        spare.trim();
        assert_eq!(len(), 64);
        let kept: Vec<usize> = (0..6).map(|_| (spare.trim(), len()).1).collect();
        assert_eq!(kept, [32, 16, 8, 4, 4, 4]);
        // What was needed a moment ago may be again.
        (4..40).for_each(|n| spare.give(n));
        spare.trim();
        let all: Vec<i32> = std::iter::from_fn(|| spare.take()).collect();
        all.iter().for_each(|n| spare.give(*n));
        spare.trim();
        assert_eq!((all.len(), len()), (38, 38));
    }
}
