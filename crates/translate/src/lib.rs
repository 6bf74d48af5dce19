//! Snapshot and proxy in, Envoy resources out: a pure function.
