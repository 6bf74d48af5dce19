//! Signatures that this thread has verified already: the next request with the same token costs a hash, not a public-key operation.
//!
//! That a signature is good is all that is remembered. When a token is good, and for whom, is judged at each use. Tokens are
//! secrets, so they are known by their hash, in which the set of keys has part: new keys know no old token.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::AHashSet;
use aws_lc_rs::digest;

use super::Token;

/// So many are remembered at least; at most twice as many.
const KEPT: usize = 1024;

/// What one set of keys is told from any other by.
#[derive(Debug)]
pub(super) struct KeySetId(u64);

impl KeySetId {
    pub(super) fn next() -> KeySetId {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        KeySetId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A token's signature by a set of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Seal([u8; digest::SHA256_OUTPUT_LEN]);

impl Seal {
    /// `None` where there is no such hash.
    pub(super) fn of(keys: &KeySetId, token: &Token<'_>) -> Option<Seal> {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(&keys.0.to_be_bytes());
        // What is signed holds no NUL, so no other token reads the same.
        hash.update(token.signed.as_bytes());
        hash.update(&[0]);
        hash.update(&token.signature);
        hash.finish().as_ref().try_into().ok().map(Seal)
    }
}

/// Those that were verified lately, and those a while before: the latter go when there are enough of the former.
#[derive(Default)]
struct Verified {
    lately: AHashSet<Seal>,
    before: AHashSet<Seal>,
}

thread_local!(static VERIFIED: RefCell<Verified> = RefCell::default());

/// Whether a signature has been found good before.
pub(super) fn is_known(seal: &Seal) -> bool {
    VERIFIED.with_borrow_mut(|verified| {
        let known_before = verified.before.contains(seal);
        if known_before {
            verified.add(*seal);
        }
        known_before || verified.lately.contains(seal)
    })
}

/// Remembers that a signature is good.
pub(super) fn remember(seal: Seal) {
    VERIFIED.with_borrow_mut(|verified| verified.add(seal));
}

impl Verified {
    fn add(&mut self, seal: Seal) {
        if self.lately.len() >= KEPT {
            self.before = std::mem::take(&mut self.lately);
        }
        self.lately.insert(seal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_an_end_to_what_is_remembered() {
        let seal = |n: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            Seal(bytes)
        };
        remember(seal(usize::MAX));
        for n in 0..10 * KEPT {
            remember(seal(n));
            // What is in use stays.
            assert!(is_known(&seal(n)) && is_known(&seal(usize::MAX)), "{n}");
        }
        assert!(!is_known(&seal(0)));
        VERIFIED.with_borrow(|verified| assert!(verified.lately.len() + verified.before.len() <= 2 * KEPT));
    }
}
