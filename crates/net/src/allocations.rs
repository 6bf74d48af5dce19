//! An allocator that counts, for tests that hold the request path to allocating nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

/// The system's allocator, each of whose allocations is counted. Made a program's `#[global_allocator]`.
pub struct CountedAllocator(AtomicU64);

impl CountedAllocator {
    /// Nothing has been counted yet.
    #[allow(clippy::new_without_default, reason = "a static needs a constant")]
    pub const fn new() -> CountedAllocator {
        CountedAllocator(AtomicU64::new(0))
    }

    /// Allocations so far, of all threads; growing one in place or not is one too.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn one_more(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call is the system allocator's own, with the arguments that came; the counter allocates nothing.
unsafe impl GlobalAlloc for CountedAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.one_more();
        // SAFETY: the caller keeps to what `alloc` demands.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps to what `dealloc` demands, and every block is the system allocator's.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.one_more();
        // SAFETY: the caller keeps to what `realloc` demands, and every block is the system allocator's.
        unsafe { System.realloc(block, layout, size) }
    }
}
