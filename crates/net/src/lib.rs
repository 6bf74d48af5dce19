//! Worker runtime, listeners, original destination, child processes; the only unsafe code.
#![allow(unsafe_code, reason = "this crate is where it lives; each block says why it is sound")]

mod allocations;
pub mod child;
mod cpu;
mod free_port;
mod keepalive;
mod limits;
mod listener;
mod memory;
mod original_dst;
mod own_address;
mod read;
mod runtime;

pub use allocations::CountedAllocator;
pub use cpu::{cpus, pin_to};
pub use free_port::free_port;
pub use keepalive::set_keepalive;
pub use limits::{make_room_for_files, raise_open_files};
pub use listener::{ListenOptions, listen};
pub use memory::{memory_limit, release_startup_code};
pub use original_dst::original_dst;
pub use own_address::own_address;
pub use read::try_read;
pub use runtime::worker_runtime;
