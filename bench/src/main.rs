//! Side-by-side bench and the tests that need steady load: see README.md in this folder.

mod attack;
mod backend;
mod change;
mod contest;
mod drain;
mod floor;
mod gateways;
mod histogram;
mod identity;
mod load;
mod mesh;
mod process;
mod rotation;
mod rows;
mod servers;
mod sidecar;
mod streams;

use clap::{Parser, Subcommand, ValueEnum};
use contest::Report;
use rows::Options;

/// Measures proxies side by side, attacks them, and watches for lost requests while the configuration changes.
#[derive(Parser)]
#[command(name = "maille-bench", version)]
struct Cli {
    /// How figures are printed.
    #[arg(short, long, global = true, default_value = "table")]
    output: Output,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Output {
    /// Tables in Markdown.
    Table,
    /// One JSON array of rows.
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Every row below, one after the other (the default).
    All(Options),
    /// HTTP/1.1 through a gateway: CPU per request, beside Envoy, nginx, HAProxy and a bare forwarder.
    Http1(Options),
    /// HTTP/1.1 through a gateway: what it adds to the p99 at half of saturation.
    Latency(Options),
    /// Sidecar to sidecar, both summed.
    Sidecars(Options),
    /// Sidecar to sidecar with 100 AuthorizationPolicies of 5 rules each, both summed.
    Policies(Options),
    /// gRPC unary over HTTP/2 through a gateway.
    Grpc(Options),
    /// TLS handshakes per CPU second at a gateway.
    Handshakes(Options),
    /// Bodies of 1 MB through a gateway, plain and over TLS: bytes per CPU second.
    Bodies(Options),
    /// A TCP route: bytes per CPU second.
    Tcp(Options),
    /// Memory of a sidecar: idle, and with 1,000 services and 5,000 endpoints.
    Memory(Options),
    /// Memory of 10,000 idle keep-alive connections: HTTP/1.1, over TLS, HTTP/2.
    Connections(Options),
    /// 10 routes against 10,000 on one host.
    Routes(Options),
    /// Attacks on a gateway while a well-behaved client is measured: memory must stay bounded, nothing may die.
    Attack(attack::Args),
    /// Steady load through a gateway while routes, weights, subsets and endpoints change: nothing may be lost.
    Change(change::Args),
    /// Steady load while the control plane is killed and started again: nothing may be lost.
    Restart(change::RestartArgs),
    /// SIGTERM to a gateway under load from clients of HTTP/1.1 and HTTP/2: nothing may be lost.
    Drain(drain::Args),
    /// Load and open streams between sidecars while leaves, intermediates and roots change and the control plane dies: nothing may be lost.
    Rotation(rotation::Args),
    /// Only the load generator.
    Load(load::Args),
    /// Only the backend: answers every request with a small body.
    Backend(backend::Args),
    /// Only a server of gRPC streams, or of bytes.
    Serve(servers::Args),
    /// Only the floor: an epoll forwarder that parses nothing.
    Floor(floor::Args),
}

type Measure = fn(&Options) -> anyhow::Result<Report>;

const ALL: &[Measure] = &[
    rows::http1::run,
    rows::latency::run,
    rows::sidecars::run,
    rows::policies::run,
    rows::grpc::run,
    rows::handshakes::run,
    rows::bodies::run,
    rows::bodies::tls,
    rows::bodies::tcp,
    rows::memory::sidecars,
    rows::connections::http1,
    rows::connections::tls,
    rows::connections::http2,
    rows::routes::run,
];

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let command = cli.command.unwrap_or_else(|| Command::All(Options::parse_from(["all"])));
    let (options, measures): (_, &[Measure]) = match command {
        Command::All(o) => (o, ALL),
        Command::Http1(o) => (o, &[rows::http1::run]),
        Command::Latency(o) => (o, &[rows::latency::run]),
        Command::Sidecars(o) => (o, &[rows::sidecars::run]),
        Command::Policies(o) => (o, &[rows::policies::run]),
        Command::Grpc(o) => (o, &[rows::grpc::run]),
        Command::Handshakes(o) => (o, &[rows::handshakes::run]),
        Command::Bodies(o) => (o, &[rows::bodies::run, rows::bodies::tls]),
        Command::Tcp(o) => (o, &[rows::bodies::tcp]),
        Command::Memory(o) => (o, &[rows::memory::sidecars]),
        Command::Connections(o) => (o, &[rows::connections::http1, rows::connections::tls, rows::connections::http2]),
        Command::Routes(o) => (o, &[rows::routes::run]),
        Command::Attack(args) => return attack::run(&args),
        Command::Change(args) => return change::run(&args),
        Command::Restart(args) => return change::restart(&args),
        Command::Drain(args) => return drain::run(&args),
        Command::Rotation(args) => return rotation::run(&args),
        Command::Load(args) => return load::main(&args),
        Command::Backend(args) => return backend::main(&args),
        Command::Serve(args) => return servers::main(&args),
        Command::Floor(args) => return floor::main(&args),
    };
    process::step_aside();
    let (mut reports, mut failed) = (vec![], 0);
    for measure in measures {
        match measure(&options) {
            Ok(report) => {
                if cli.output == Output::Table {
                    report.print();
                }
                reports.push(report.json());
            }
            Err(e) => {
                failed += 1;
                eprintln!("\na row could not be measured: {e:#}"); // the others still can
            }
        }
    }
    if cli.output == Output::Json {
        println!("{}", serde_json::to_string_pretty(&reports)?);
    }
    anyhow::ensure!(failed == 0, "{failed} of {} rows could not be measured", measures.len());
    Ok(())
}
