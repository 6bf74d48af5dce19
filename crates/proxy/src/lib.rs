//! The data plane: compile xDS, route, balance, forward; workers, drain, admin.

mod balance;
pub mod compile;
pub mod config;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod headers;
pub mod policy;
pub mod route;
pub mod run;
pub mod simulate;
mod snapshot;
mod tls;
mod upstream;
mod worker;

pub use run::{Handle, Options, Status, run, run_fixed};
pub use snapshot::Snapshot;
pub use upstream::{ClusterEntry, Host, HostSet, Load, PriorityHosts};
