//! The workload's own process: what it is told, how it is ended, and how it ended.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};

/// A running program.
#[derive(Debug)]
pub struct App {
    child: Child,
    own_group: bool,
}

impl App {
    /// Starts a program with our stdin and stderr, this stdout, and these variables on top of our environment.
    ///
    /// On a terminal it stays in our process group, so that it can read from the terminal and Ctrl-C reaches it as it
    /// would without us. Elsewhere it gets a group of its own: whoever ends our whole group then ends us, and we can
    /// take the workload out of the mesh before its process goes.
    ///
    /// # Errors
    /// When there is no such program, or it cannot be run.
    pub fn start(command: &[OsString], variables: &[(&str, String)], stdout: Stdio) -> io::Result<Self> {
        let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(arguments).envs(variables.iter().map(|(name, value)| (name, value)));
        command.stdout(stdout).kill_on_drop(true);
        let own_group = !io::stdin().is_terminal();
        if own_group {
            command.process_group(0);
        }
        bind_to_us(&mut command);
        Ok(Self { child: command.spawn()?, own_group })
    }

    /// Passes a signal on.
    pub fn signal(&self, signal: Signal) {
        let Some(pid) = pid(&self.child) else { return };
        // It may have ended just now.
        let _ = if self.own_group { kill_process_group(pid, signal) } else { kill_process(pid, signal) };
    }

    /// Whether the terminal has sent it what it sent us.
    pub fn shares_terminal(&self) -> bool {
        !self.own_group
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }
}

/// The exit code that a shell would report: its own, or 128 plus the signal that ended it.
pub fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// The exit code that a shell would report for a program that could not be started.
pub fn code_of_failure(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
}

/// Has the kernel end the child should we end without having ended it.
pub fn bind_to_us(command: &mut Command) {
    maille_net::child::die_with_parent(command.as_std_mut());
}

/// Takes our stdout away for the program alone: whatever else is said on it, such as access logs to `/dev/stdout`, goes
/// to stderr from here on.
///
/// # Errors
/// When stdout or stderr is closed.
pub fn take_stdout() -> io::Result<Stdio> {
    let stdout = io::stdout().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdout(io::stderr())?;
    Ok(stdout.into())
}

/// Asks a child to end.
pub fn terminate(child: &Child) {
    if let Some(pid) = pid(child) {
        let _ = kill_process(pid, Signal::TERM);
    }
}

fn pid(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(script: &str) -> u8 {
        let command = ["sh", "-c", script].map(OsString::from);
        let mut app = App::start(&command, &[("GREETING", "hello".into())], Stdio::inherit()).expect("sh starts");
        code(app.ended().await.expect("it ends"))
    }

    #[tokio::test]
    async fn exit_codes_are_the_shells() {
        for (script, expected) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)] {
            assert_eq!(run(script).await, expected, "{script}");
        }
        for (program, expected) in [("/nonexistent/program", 127), ("/etc/passwd", 126)] {
            let error = App::start(&[program.into()], &[], Stdio::inherit()).expect_err("it cannot start");
            assert_eq!(code_of_failure(&error), expected, "{program}");
        }
    }

    #[tokio::test]
    async fn variables_and_signals_arrive() {
        assert_eq!(run("test \"$GREETING\" = hello").await, 0);
        let script = "trap 'exit 9' USR1; echo > \"$READY\"; while :; do sleep 0.01; done";
        let ready = std::env::temp_dir().join(format!("maille-app-test-{}", std::process::id()));
        let variables = [("READY", ready.display().to_string())];
        let mut app =
            App::start(&["sh", "-c", script].map(OsString::from), &variables, Stdio::inherit()).expect("sh starts");
        while !ready.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        app.signal(Signal::USR1);
        assert_eq!(code(app.ended().await.expect("it ends")), 9);
        let _ = std::fs::remove_file(ready);
    }
}
