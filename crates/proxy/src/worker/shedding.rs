//! What a worker sheds when it holds too many bytes, in this order: who is idle, and keep-alive; the requests that hold most; new requests and new
//! connections. What is shed is told or logged why.

use std::cell::Cell;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use super::overload::{Level, Overload};
use super::{Draining, Worker, held};

/// Between two looks while there is too much.
const AGAIN: Duration = Duration::from_millis(50);

/// What a worker holds, as others see it; taken back when the worker ends.
pub(crate) struct Published {
    overload: Arc<Overload>,
    bytes: Cell<usize>,
}

impl Published {
    pub(crate) fn new(overload: Arc<Overload>) -> Published {
        Published { overload, bytes: Cell::new(0) }
    }

    pub(crate) fn now(&self) {
        let bytes = held::sum();
        self.overload.hold(self.bytes.replace(bytes), bytes);
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        self.overload.hold(self.bytes.get(), 0);
    }
}

/// Sheds for as long as the worker runs.
pub(crate) async fn shed(worker: &Worker) {
    let limits = worker.overload.limits();
    loop {
        poll_fn(|cx| held::poll_above(cx, limits.idle)).await;
        tracing::warn!(bytes = held::sum(), "this worker holds much; idle connections go");
        worker.connections.close_idle(Draining::All);
        while limits.level(held::sum()) > Level::Fine {
            if limits.level(held::sum()) >= Level::Largest {
                let count = worker.connections.shed_largest(held::sum() - limits.idle);
                worker.overload.reset_streams(count);
            }
            worker.published.now();
            tokio::time::sleep(AGAIN).await;
        }
        worker.published.now();
    }
}
