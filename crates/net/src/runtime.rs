//! The runtime of one worker: a single thread that owns its connections, timers and buffers.

use std::io;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

/// A runtime for the calling thread.
pub fn worker_runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_io().enable_time().event_interval(31).build_local(LocalOptions::default())
}
