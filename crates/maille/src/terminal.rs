//! What reaches the screen: colours on a terminal, plain text in a pipe.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::sync::Arc;

use maille_proxy::run::LogControl;
use owo_colors::OwoColorize;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::failure::{Failure, Outcome};

/// Prints to stdout. A reader that went away (`| head`) is no failure.
pub(crate) fn out(text: &str) -> Outcome {
    match writeln!(anstream::stdout().lock(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::running(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Prints to stderr. There is nobody left to tell when that fails.
pub(crate) fn err(text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// Prints a failure to stderr.
pub(crate) fn error(message: &str) {
    err(&format!("{} {message}", "error:".red().bold()));
}

/// The variable that asks for more of the log, or less: `info`, `maille_control=debug`, …
pub(crate) const LOG: &str = "MAILLE_LOG";

/// Sends the log of a long-running command to stderr: this much of it, or what [`LOG`] asks for. Gives the means to change
/// that while it runs.
pub(crate) fn log(default: &str) -> LogControl {
    let asked_for = std::env::var(LOG).ok().and_then(|text| {
        let fault = |error| err(&format!("{} {LOG}={text}: {error}", "warning:".yellow().bold()));
        text.parse::<Targets>().map_err(fault).ok()
    });
    // `default` is a constant of the caller's.
    let targets = asked_for.or_else(|| default.parse().ok()).unwrap_or_default();
    let colours = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
    let lines = tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(std::io::stderr);
    let (filter, handle) = reload::Layer::new(targets);
    // An error means that a log is set up already.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
    Arc::new(move |wanted| {
        if let Some(wanted) = wanted {
            let targets: Targets = wanted.parse().map_err(|error| format!("{wanted}: {error}"))?;
            handle.reload(targets).map_err(|error| error.to_string())?;
        }
        handle.with_current(Targets::to_string).map_err(|error| error.to_string())
    })
}
