//! The `maille` command line: a thin main.
fn main() {}
