//! How a command fails: what went wrong, and whether the input or the run is at fault.

use std::fmt::Display;
use std::process::ExitCode;

/// A command's failure. `main` prints the message to stderr and exits with the code.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: Option<String>,
}

/// What every command returns: the exit code when nothing more needs saying.
pub(crate) type Outcome = Result<ExitCode, Failure>;

impl Failure {
    /// The input or the way of calling is at fault: exit code 2.
    pub(crate) fn usage(message: impl Display) -> Self {
        Self { code: 2, message: Some(message.to_string()) }
    }

    /// The fault is already on the screen: exit code 2.
    pub(crate) fn bad_input() -> Self {
        Self { code: 2, message: None }
    }

    /// Something failed while running: exit code 1.
    pub(crate) fn running(message: impl Display) -> Self {
        Self { code: 1, message: Some(message.to_string()) }
    }

    pub(crate) fn report(self) -> ExitCode {
        if let Some(message) = self.message {
            crate::terminal::error(&message);
        }
        ExitCode::from(self.code)
    }
}

impl From<anyhow::Error> for Failure {
    /// An error without a verdict of its own came up while running.
    fn from(error: anyhow::Error) -> Self {
        Self::running(format!("{error:#}"))
    }
}
