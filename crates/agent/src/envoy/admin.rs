//! The few questions we ask Envoy's admin interface, over its socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Envoy answers its admin from its main thread, which may be busy with new configuration.
const PATIENCE: Duration = Duration::from_secs(2);

/// No answer we ask for is longer.
const LONGEST: u64 = 1 << 20;

/// An Envoy's admin socket.
#[derive(Debug)]
pub(super) struct Admin {
    path: PathBuf,
}

impl Admin {
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it runs and has had its first configuration.
    pub(super) async fn is_live(&self) -> bool {
        self.ask("GET", "/ready").await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    pub(super) async fn post(&self, path: &str) -> io::Result<String> {
        self.ask("POST", path).await
    }

    /// Requests under way in the listeners whose statistics begin so; `None` when it does not answer.
    pub(super) async fn active_requests(&self, prefix: &str) -> Option<u64> {
        let answer = self.ask("GET", "/stats?usedonly&filter=downstream_rq_active").await.ok()?;
        let of = format!("http.{prefix}");
        let counts = answer.lines().filter(|line| line.starts_with(&of) && !line.starts_with("http.admin."));
        Some(counts.filter_map(|line| line.rsplit_once(": ")?.1.parse::<u64>().ok()).sum())
    }

    async fn ask(&self, method: &str, path: &str) -> io::Result<String> {
        let exchange = async {
            let mut stream = UnixStream::connect(&self.path).await?;
            let request =
                format!("{method} {path} HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            stream.take(LONGEST).read_to_end(&mut answer).await?;
            Ok(String::from_utf8_lossy(&answer).into_owned())
        };
        tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }
}
