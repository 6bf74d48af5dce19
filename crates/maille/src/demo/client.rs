//! A small HTTP client: keeps its connections, and asks through a proxy or a gateway.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{HOST, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// Nothing in the bookshop takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Nothing in the bookshop is larger.
const LARGEST: usize = 1 << 20;

/// Asks everything of one address, which passes it on.
pub(super) struct Client {
    address: SocketAddr,
    idle: Mutex<Vec<SendRequest<Empty<Bytes>>>>,
}

impl Client {
    pub(super) fn of(address: SocketAddr) -> Self {
        Self { address, idle: Mutex::default() }
    }

    /// The JSON behind a URL, or why there is none.
    pub(super) async fn get(&self, url: &'static str, headers: &HeaderMap) -> Result<Value, String> {
        let uri = Uri::from_static(url);
        let (status, body) = self.ask(uri, headers).await.map_err(|error| format!("{url}: {error}"))?;
        if !status.is_success() {
            return Err(format!("{url}: {status}"));
        }
        serde_json::from_slice(&body).map_err(|error| format!("{url}: no JSON: {error}"))
    }

    /// The status and body behind a URL: a whole one, as to a proxy, or a path, whose host is then in the headers.
    pub(super) async fn ask(&self, uri: Uri, headers: &HeaderMap) -> Result<(StatusCode, Bytes), String> {
        let exchange = async {
            let mut request = Request::new(Empty::new());
            *request.headers_mut() = headers.clone();
            if let Some(host) = uri.authority() {
                let host = HeaderValue::from_str(host.as_str()).map_err(|error| error.to_string())?;
                request.headers_mut().insert(HOST, host);
            }
            *request.uri_mut() = uri;
            let mut connection = self.connection().await?;
            let answer = connection.send_request(request).await.map_err(|error| error.to_string())?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), LARGEST).collect().await.map_err(|error| error.to_string())?;
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            Ok((status, body.to_bytes()))
        };
        tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| "no answer in time".to_owned())?
    }

    /// One that is open and idle, else a new one.
    async fn connection(&self) -> Result<SendRequest<Empty<Bytes>>, String> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut connection) = idle else { break };
            if connection.ready().await.is_ok() {
                return Ok(connection);
            }
        }
        let stream = TcpStream::connect(self.address).await.map_err(|error| error.to_string())?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        Ok(sender)
    }
}
