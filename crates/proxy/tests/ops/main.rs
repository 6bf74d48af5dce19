//! The proxy as whoever runs it sees it: administration, statistics, drain, overload.

mod admin;
mod ends;
mod overload;
mod reports;
#[path = "../http/support.rs"]
#[allow(dead_code, reason = "shared with other suites, which use the rest")]
mod support;
