//! Feeds mutated input to every parser of network input and checks what must hold of the answer, whatever came.
//!
//! Needs no sanitizer and no nightly compiler: nothing here is unsafe, arithmetic is checked in the profile it is built
//! with, and the interesting mistakes of a proxy are wrong answers rather than crashes. The same seed makes the same inputs.

mod mutate;
mod run;
mod targets;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;

use crate::run::{Finding, corpus, run, try_input};
use crate::targets::{TARGETS, Target};

/// Looks for input that a parser answers wrongly.
#[derive(Parser)]
struct Args {
    /// How long, all targets together.
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// Where the random numbers start.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Tries this one input instead, as it was found.
    #[arg(long, requires = "target")]
    input: Option<PathBuf>,
    /// One target alone.
    target: Option<String>,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let names = || TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
    let chosen: Vec<&Target> =
        TARGETS.iter().filter(|target| args.target.as_deref().is_none_or(|name| name == target.name)).collect();
    anyhow::ensure!(!chosen.is_empty(), "no such target; there are {}", names());
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    run::quiet_panics();

    if let (Some(path), [target]) = (&args.input, chosen.as_slice()) {
        let input = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        return Ok(match try_input(target, &input) {
            Ok(_) => ExitCode::SUCCESS,
            Err(what) => {
                println!("{}: {what}", target.name);
                ExitCode::FAILURE
            }
        });
    }

    let each = Duration::from_secs_f64(args.seconds / chosen.len() as f64);
    let mut code = ExitCode::SUCCESS;
    for target in chosen {
        let seeds = corpus(&home.join("corpus").join(target.name))?;
        let report = run(target, seeds, args.seed, each);
        println!("{:<14} {:>9} inputs, {:>5} kinds of answers", target.name, report.executions, report.kinds);
        if let Some(Finding { input, what }) = report.finding {
            let path = home.join("found").join(format!("{}-{}", target.name, args.seed));
            std::fs::create_dir_all(home.join("found"))?;
            std::fs::write(&path, &input)?;
            println!("FOUND: {what}\n  input: {}\n  as text: \"{}\"", path.display(), input.escape_ascii());
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}
