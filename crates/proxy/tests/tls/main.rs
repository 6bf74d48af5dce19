//! TLS on both sides, what is looked at before a connection is served, and what attackers make of it.

mod certificates;
mod downstream;
mod inspectors;
mod support;
mod tunnels;
mod upstream;
