//! The commands and what their help says.

use std::process::ExitCode;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{ColorChoice, CommandFactory, Parser, Subcommand};

use crate::{authz, ca, completion, demo, explain, proxy, run, up, validate, version};

/// A service mesh that speaks Istio's API, in one binary.
#[derive(Debug, Parser)]
#[command(
    name = "maille",
    version = version::VERSION,
    styles = styles(),
    max_term_width = 120,
    disable_help_subcommand = true,
    after_long_help = "\
First steps:
  maille demo                                    a small mesh with traffic, to look at and to play with
  maille validate -f DIR                         what is wrong with your Istio YAML, and where
  maille up -f DIR                               run it: control plane and gateways
  maille run --name web-1 --service web --port 8080 -- ./server
                                                 run a program as part of it

Exit codes: 0 done, 1 failed while running, 2 the input or the way of calling is wrong.
`maille run` exits with the code of its program, or 128 plus the signal that ended it."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// When to colour: `auto` means on a terminal, unless NO_COLOR is set.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_short_help = true)]
    color: ColorChoice,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Args),
    Run(run::Args),
    Demo(demo::Args),
    Ca(ca::Args),
    Token(ca::TokenArgs),
    Validate(validate::Args),
    Explain(explain::Args),
    Authz(authz::Args),
    Proxy(proxy::Args),
    Version(version::Args),
    Completion(completion::Args),
    #[command(hide = true)]
    DemoApp(demo::app::Args),
}

/// Parses the arguments, runs the command, and says how it went.
pub(crate) fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // clap's own codes: 0 for --help and --version, 2 for a mistake.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match cli.color {
        ColorChoice::Always => anstream::ColorChoice::Always.write_global(),
        ColorChoice::Never => anstream::ColorChoice::Never.write_global(),
        ColorChoice::Auto => {}
    }
    let outcome = match cli.command {
        Command::Up(args) => up::run(args),
        Command::Run(args) => run::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Ca(args) => ca::run(args),
        Command::Token(args) => ca::token(args),
        Command::Proxy(args) => proxy::run(args),
        Command::DemoApp(args) => demo::app::run(args),
        Command::Validate(args) => validate::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Authz(args) => authz::run(args),
        Command::Version(args) => version::run(args),
        Command::Completion(args) => completion::run(args, Cli::command()),
    };
    outcome.unwrap_or_else(|failure| failure.report())
}

fn styles() -> Styles {
    Styles::styled()
        .header(AnsiColor::Yellow.on_default().bold())
        .usage(AnsiColor::Yellow.on_default().bold())
        .literal(AnsiColor::Green.on_default())
        .placeholder(AnsiColor::Cyan.on_default())
}
