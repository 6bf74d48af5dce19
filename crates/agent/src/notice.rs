//! What the agent tells the person who started it: on stderr, so that the program's own output stays as it is.

use std::fmt::Display;
use std::future::Future;
use std::io::Write;
use std::time::Duration;

/// A wait shorter than this needs no words.
const PATIENCE: Duration = Duration::from_secs(1);

/// One line on stderr.
pub fn say(message: impl Display) {
    // Nobody is left to tell when stderr is closed.
    let _ = writeln!(std::io::stderr().lock(), "maille: {message}");
}

/// Waits for something, and says what for when it takes longer than a second.
pub async fn waiting<T>(what: impl Display, future: impl Future<Output = T>) -> T {
    tokio::pin!(future);
    match tokio::time::timeout(PATIENCE, &mut future).await {
        Ok(done) => done,
        Err(_) => {
            say(format_args!("waiting for {what} …"));
            future.await
        }
    }
}
