//! What a worker counts.

/// A worker's metrics.
#[derive(Clone, Debug, Default)]
pub struct WorkerMetrics {}
