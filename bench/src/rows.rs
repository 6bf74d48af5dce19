//! The rows of the bench: one module each, one question each.

pub(crate) mod bodies;
pub(crate) mod connections;
pub(crate) mod grpc;
pub(crate) mod handshakes;
pub(crate) mod http1;
pub(crate) mod latency;
pub(crate) mod memory;
pub(crate) mod policies;
pub(crate) mod routes;
pub(crate) mod sidecars;

use clap::Parser;

/// What every row can be told.
#[derive(Parser, Clone)]
pub(crate) struct Options {
    /// Rounds; each visits every proxy once.
    #[arg(long, default_value_t = 7)]
    pub(crate) rounds: usize,
    /// Seconds of load per visit and mode.
    #[arg(long, default_value_t = 1.5)]
    pub(crate) seconds: f64,
    /// Connections.
    #[arg(long, default_value_t = 32)]
    pub(crate) connections: usize,
    /// Requests a second of the steady mode.
    #[arg(long, default_value_t = 8000.0)]
    pub(crate) rate: f64,
    /// Only these proxies (names as in the tables), separated by commas.
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
}
