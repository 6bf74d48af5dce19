//! Finding the control plane: `--control`, and the token that opens its door.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use maille_agent::door::Door;
use maille_agent::membership::Tokens;
use maille_agent::way::Way;

use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::failure::Failure;

/// A control plane on this machine answers within this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// No answer is longer.
const LONGEST: usize = 16 << 20;

/// Where the control plane listens when nothing else is said, as Istio's.
pub(crate) const XDS_PORT: u16 = 15010;

/// The option that names the control plane.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Address {
    /// The control plane, as HOST:PORT
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:15010", env = "MAILLE_CONTROL")]
    control: String,
}

impl Address {
    /// The address to connect to.
    pub(crate) fn resolve(&self) -> Result<SocketAddr, Failure> {
        let text = &self.control;
        let bad = |reason: String| Failure::usage(format!("--control {text}: expected HOST:PORT ({reason})"));
        let mut found = text.to_socket_addrs().map_err(|error| bad(error.to_string()))?;
        let address = found.next().ok_or_else(|| bad("the name has no address".to_owned()))?;
        if address.port() == 0 { Err(bad("nobody listens on port 0".to_owned())) } else { Ok(address) }
    }
}

/// The options that lead to a control plane on another machine.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Remote {
    /// The roots of a control plane on another machine, in PEM: --control is then its TLS port (`maille up --tls-address`)
    #[arg(long, value_name = "FILE", requires = "token_file")]
    ca_file: Option<PathBuf>,

    /// The token that opens it, made there by `maille token create`; needed for the first certificate only
    #[arg(long, value_name = "FILE", requires = "ca_file")]
    token_file: Option<PathBuf>,
}

impl Remote {
    /// The way to the control plane, here or there. The files are read anew each time.
    pub(crate) fn way(self, control: SocketAddr) -> Result<Way, Failure> {
        let (Some(ca_file), Some(token_file)) = (self.ca_file, self.token_file) else {
            return match control.ip().is_loopback() {
                true => Ok(Way { control, tokens: tokens(control), door: door(control), remote: false }),
                false => Err(Failure::usage(format!(
                    "{control} is another machine: give its TLS port, with --ca-file and --token-file (`maille token create` there makes both)"
                ))),
            };
        };
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
        };
        for path in [&ca_file, &token_file] {
            read(path).map_err(Failure::usage)?;
        }
        let place = Arc::new(move || read(&ca_file).map(|roots| (control, roots)));
        let tokens: Tokens = Arc::new(move || read(&token_file).map(|token| token.trim().to_owned()));
        Ok(Way { control, tokens: tokens.clone(), door: Door { place, tokens: Some(tokens) }, remote: true })
    }
}

/// The way to the certificates of the control plane on this machine, found anew each time.
pub(crate) fn door(control: SocketAddr) -> Door {
    let place = Arc::new(move || maille_control::token::find_tls(control.port()).map_err(|error| error.to_string()));
    Door { place, tokens: Some(tokens(control)) }
}

/// What the control plane answers.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Answer {
    /// The answer, if it is what was asked for.
    pub(crate) fn success(self) -> Result<Self, Failure> {
        match self.status {
            200..300 => Ok(self),
            _ => Err(Failure::running(self.text.trim())),
        }
    }
}

/// Asks the control plane on this machine something, as its owner.
pub(crate) fn ask(control: SocketAddr, method: &str, path: &str, body: Option<Value>) -> Result<Answer, Failure> {
    if !control.ip().is_loopback() {
        return Err(Failure::usage(format!("{control} is another machine: ask there, as whoever runs `maille up`")));
    }
    let token = maille_control::token::find(control.port()).map_err(Failure::usage)?;
    let away = |error: String| Failure::usage(format!("the control plane at {control} cannot be asked: {error}"));
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", control.to_string())
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.map(|body| body.to_string()).unwrap_or_default())))
        .map_err(|error| away(error.to_string()))?;
    let asking = async {
        let stream = TcpStream::connect(control).await.map_err(|error| away(error.to_string()))?;
        let opened = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = opened.map_err(|error| away(error.to_string()))?;
        tokio::spawn(async move { drop(connection.await) });
        let answer = sender.send_request(request).await.map_err(|error| away(error.to_string()))?;
        let status = answer.status().as_u16();
        let body =
            Limited::new(answer.into_body(), LONGEST).collect().await.map_err(|error| away(error.to_string()))?;
        Ok(Answer { status, text: String::from_utf8_lossy(&body.to_bytes()).into_owned() })
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::running(format!("no event loop: {error}")))?;
    runtime.block_on(async {
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(answer) => answer,
            Err(_) => Err(away("it does not answer".to_owned())),
        }
    })
}

/// Reads the token that the control plane on this machine has left for us, anew each time.
pub(crate) fn tokens(control: SocketAddr) -> Tokens {
    Arc::new(move || maille_control::token::find(control.port()).map_err(|error| error.to_string()))
}
