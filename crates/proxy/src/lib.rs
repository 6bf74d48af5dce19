//! The data plane: compile xDS, route, balance, forward; workers, drain, admin.

pub mod compile;
pub mod config;
pub mod headers;
pub mod route;
