//! Where resources live, as one ordered stream of changes.
//!
//! A [`Store`] holds every resource the mesh knows, each put there by an *origin* (the files on disk, the leases of
//! running workloads). Whoever builds something from them waits for a new revision and takes the whole list: there is
//! no moment at which half of one change can be seen.

pub mod files;
mod memory;

pub use memory::{Change, Store};
