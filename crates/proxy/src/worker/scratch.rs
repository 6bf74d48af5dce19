//! The memory that one request needs while it is at work, used again by the next.

use maille_http::{RequestHead, ResponseHead};

use super::spare::Spare;

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
pub(crate) struct Scratches(Spare<Box<Scratch>>);

impl Scratches {
    pub(crate) fn new() -> Scratches {
        Scratches(Spare::new(64))
    }

    pub(crate) fn take(&self) -> Box<Scratch> {
        self.0.take().unwrap_or_default()
    }

    pub(crate) fn give(&self, mut scratch: Box<Scratch>) {
        scratch.request.clear();
        scratch.response.clear();
        for buffer in [&mut scratch.upstream, &mut scratch.downstream, &mut scratch.text] {
            buffer.clear();
            if buffer.capacity() > MAX_KEPT {
                *buffer = Vec::new();
            }
        }
        self.0.give(scratch);
    }

    /// Frees some of those that nobody needs.
    pub(crate) fn trim(&self) {
        self.0.trim();
    }
}
