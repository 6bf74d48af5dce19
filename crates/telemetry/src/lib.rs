//! Metric cells, access logs, and their export.

pub mod flags;
pub mod format;
pub mod log;
pub mod metrics;
pub mod time;
