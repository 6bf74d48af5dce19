//! A workload's place in the mesh: a request that stays open for as long as the workload is there.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use maille_xds::client::Stream;
use serde_json::Value;
use tokio::task::JoinHandle;

/// No refusal is longer.
const LONGEST_REFUSAL: usize = 16 << 10;

/// A control plane that accepts a connection answers within this time.
const ANSWER: Duration = Duration::from_secs(10);

/// A lease that stands. The workload leaves the mesh when it is dropped.
#[derive(Debug)]
pub struct Lease {
    body: Incoming,
    connection: JoinHandle<()>,
}

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The control plane could not be talked to. Trying again may help.
    #[error("the control plane at {control} cannot be reached: {reason}")]
    Unreachable {
        /// Where it was looked for.
        control: SocketAddr,
        /// What happened.
        reason: String,
    },
    /// The control plane does not know our token. A token read anew may help.
    #[error(
        "the control plane at {control} does not accept the token: it was started by somebody else, or anew just now"
    )]
    Unauthorized {
        /// Which control plane.
        control: SocketAddr,
    },
    /// The control plane will not have this workload.
    #[error("the control plane refuses this workload: {reason}")]
    Refused {
        /// Its words.
        reason: String,
    },
}

impl Lease {
    /// Registers the workload (a `WorkloadEntry` as JSON) on a connection to the control plane, and holds on to it.
    ///
    /// # Errors
    /// [`LeaseError`] says whether trying again can help.
    pub async fn take(
        control: SocketAddr,
        connecting: impl Future<Output = io::Result<Box<dyn Stream>>>,
        token: &str,
        entry: &Value,
    ) -> Result<Self, LeaseError> {
        let unreachable = |reason: String| LeaseError::Unreachable { control, reason };
        let attempt = async {
            let stream = connecting.await.map_err(|error| unreachable(plain(&error)))?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| unreachable(error.to_string()))?;
            let connection = tokio::spawn(async move { drop(connection.await) });
            let request = Request::post("/v1/workloads")
                .header(header::HOST, control.to_string())
                .header(header::AUTHORIZATION, format!("Bearer {token}"))
                .header(header::CONTENT_TYPE, "application/json")
                .body(Full::new(Bytes::from(entry.to_string())))
                .map_err(|error| unreachable(error.to_string()))?;
            let answer = sender.send_request(request).await.map_err(|error| unreachable(error.to_string()))?;
            Ok((answer, connection))
        };
        let (answer, connection) = tokio::time::timeout(ANSWER, attempt)
            .await
            .map_err(|_| unreachable(format!("no answer within {} s", ANSWER.as_secs())))??;
        match answer.status() {
            status if status.is_success() => Ok(Self { body: answer.into_body(), connection }),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(LeaseError::Unauthorized { control }),
            status if status.is_server_error() => Err(unreachable(format!("it answers {status}"))),
            status => Err(LeaseError::Refused { reason: refusal(status, answer.into_body()).await }),
        }
    }

    /// Returns when the control plane has ended the lease or gone away.
    pub async fn ended(&mut self) {
        while let Some(Ok(_)) = self.body.frame().await {}
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

async fn refusal(status: StatusCode, body: Incoming) -> String {
    let words = http_body_util::Limited::new(body, LONGEST_REFUSAL).collect();
    match tokio::time::timeout(ANSWER, words).await {
        Ok(Ok(words)) => match String::from_utf8_lossy(&words.to_bytes()).trim() {
            "" => status.to_string(),
            words => words.to_owned(),
        },
        _ => status.to_string(),
    }
}

/// `Connection refused` without the number that only programmers know.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nothing listens there; is `maille up` running?".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
