//! The memory that one request needs while it is at work, used again by the next.

use std::cell::RefCell;

use maille_http::{RequestHead, ResponseHead};

/// The memory of one request.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) request: RequestHead,
    pub(crate) response: ResponseHead,
    /// The request as it goes upstream, kept until it cannot be needed for a retry.
    pub(crate) upstream: Vec<u8>,
    /// The response as it goes to the client.
    pub(crate) downstream: Vec<u8>,
    pub(crate) mutations: crate::headers::Scratch,
    /// For values put together on the way.
    pub(crate) text: Vec<u8>,
}

/// Memory above this is not kept for the next request.
const MAX_KEPT: usize = 64 * 1024;

/// Scratches that are not in use.
#[derive(Default)]
#[allow(clippy::vec_box, reason = "they are handed about as boxes; a connection that waits holds one pointer")]
pub(crate) struct Scratches {
    free: RefCell<Vec<Box<Scratch>>>,
}

impl Scratches {
    pub(crate) fn take(&self) -> Box<Scratch> {
        self.free.borrow_mut().pop().unwrap_or_default()
    }

    pub(crate) fn give(&self, mut scratch: Box<Scratch>) {
        let mut free = self.free.borrow_mut();
        if free.len() >= 64 {
            return;
        }
        scratch.request.clear();
        scratch.response.clear();
        for buffer in [&mut scratch.upstream, &mut scratch.downstream, &mut scratch.text] {
            buffer.clear();
            if buffer.capacity() > MAX_KEPT {
                *buffer = Vec::new();
            }
        }
        free.push(scratch);
    }
}
