//! Side-by-side bench and the tests that need steady load: see README.md in this folder.

mod backend;
mod change;
mod compare;
mod floor;
mod histogram;
mod load;
mod mesh;
mod process;

use clap::{Parser, Subcommand};

/// Measures proxies side by side, and watches for lost requests while the configuration changes.
#[derive(Parser)]
#[command(name = "maille-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// CPU per request, requests/s, latency and memory of maille, Envoy, nginx, HAProxy and a bare forwarder (the default).
    Compare(compare::Args),
    /// Steady load through a gateway while routes, weights, subsets and endpoints change: nothing may be lost.
    Change(change::Args),
    /// Steady load while the control plane is killed and started again: nothing may be lost.
    Restart(change::RestartArgs),
    /// Only the load generator.
    Load(load::Args),
    /// Only the backend: answers every request with a small body.
    Backend(backend::Args),
    /// Only the floor: an epoll forwarder that parses nothing.
    Floor(floor::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command.unwrap_or(Command::Compare(compare::Args::default())) {
        Command::Compare(args) => compare::run(&args),
        Command::Change(args) => change::run(&args),
        Command::Restart(args) => change::restart(&args),
        Command::Load(args) => load::main(&args),
        Command::Backend(args) => backend::main(&args),
        Command::Floor(args) => floor::main(&args),
    }
}
