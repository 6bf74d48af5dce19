//! The `maille` command line: a thin main, one module per command.

mod authz;
mod ca;
mod cli;
mod completion;
mod control;
mod demo;
mod diagnostics;
mod duration;
mod explain;
mod failure;
mod plane;
mod proxy;
mod run;
mod terminal;
mod up;
mod validate;
mod version;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run()
}
