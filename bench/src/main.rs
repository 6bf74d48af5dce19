//! Side-by-side bench: see README.md in this folder.
fn main() {}
