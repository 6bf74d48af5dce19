//! The demo's processes: watched while they run, and ended together.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use maille_agent::app::{bind_to_us, terminate};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

/// How many of its last lines tell why a process ended.
const LAST_WORDS: usize = 20;

/// A process has this long to end by itself.
const END: Duration = Duration::from_secs(10);

/// One process of the demo. Dropping it ends it by force.
pub(super) struct Child {
    name: String,
    child: tokio::process::Child,
    words: Arc<Mutex<VecDeque<String>>>,
}

impl Child {
    /// Starts it; every line that it says goes to `line`.
    pub(super) fn start(
        name: &str,
        exe: &Path,
        args: &[&str],
        line: impl Fn(&str) + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let mut command = Command::new(exe);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // Ctrl-C is for us: we end them in order.
        command.process_group(0);
        bind_to_us(&mut command);
        let mut child = command.spawn()?;
        let words = Arc::new(Mutex::new(VecDeque::new()));
        if let Some(out) = child.stdout.take() {
            tokio::spawn(listen(out, words.clone(), line.clone()));
        }
        if let Some(err) = child.stderr.take() {
            tokio::spawn(listen(err, words.clone(), line));
        }
        Ok(Self { name: name.to_owned(), child, words })
    }
}

/// Waits for the first of them to end; its name and last words.
pub(super) async fn any_ended(children: &mut [Child]) -> (String, String) {
    let at = std::future::poll_fn(|context| {
        for (at, child) in children.iter_mut().enumerate() {
            if std::pin::pin!(child.child.wait()).poll(context).is_ready() {
                return Poll::Ready(at);
            }
        }
        Poll::Pending
    })
    .await;
    // What it said last may still be on its way.
    sleep(Duration::from_millis(50)).await;
    let words = children[at].words.lock().unwrap_or_else(PoisonError::into_inner);
    (children[at].name.clone(), words.iter().map(String::as_str).collect::<Vec<_>>().join("\n"))
}

/// Ends the workloads, then the control plane and its gateway, and waits until all are gone.
pub(super) async fn end(mut children: Vec<Child>) {
    let workloads = children.split_off(1.min(children.len()));
    for part in [workloads, children] {
        part.iter().for_each(|child| terminate(&child.child));
        for mut child in part {
            if timeout(END, child.child.wait()).await.is_err() {
                let _ = child.child.kill().await;
            }
        }
    }
}

async fn listen(out: impl AsyncRead + Unpin, words: Arc<Mutex<VecDeque<String>>>, told: impl Fn(&str)) {
    let mut lines = BufReader::new(out).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        told(&line);
        let mut words = words.lock().unwrap_or_else(PoisonError::into_inner);
        if words.len() == LAST_WORDS {
            words.pop_front();
        }
        words.push_back(line);
    }
}
