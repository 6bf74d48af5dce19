//! `maille version`.

use clap::ValueEnum;
use serde_json::json;

use crate::failure::Outcome;
use crate::terminal;

/// The version of this binary.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The release of Istio whose API and defaults are followed, as proxies report it in their node metadata.
pub(crate) const ISTIO_VERSION: &str = maille_agent::ISTIO_VERSION;

/// Print the version
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  maille version\n  maille version -o json | jq -r .version")]
pub(crate) struct Args {
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

/// The forms that commands print in.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

pub(crate) fn run(args: Args) -> Outcome {
    match args.output {
        Output::Text => terminal::out(&format!("maille {VERSION} (Istio API {ISTIO_VERSION})")),
        Output::Json => terminal::out(&json!({"version": VERSION, "istioApi": ISTIO_VERSION}).to_string()),
    }
}
