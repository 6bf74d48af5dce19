//! The ADS client of a proxy: one delta stream, kept up, that yields updates and takes back ACK or NACK.
//!
//! ```no_run
//! # use maille_xds::{client, types::core::Node, TypeUrl};
//! # async fn run() -> Result<(), client::BadUri> {
//! let mut client = client::connect(client::Options::new("http://127.0.0.1:15010", Node::default()))?;
//! client.subscribe_all(TypeUrl::Cluster);
//! client.subscribe_all(TypeUrl::Listener);
//! while let Some(update) = client.next().await {
//!     match update.type_url {
//!         // … take what can be taken; then say so, as soon as it is taken and without waiting for anything to warm:
//!         _ => client.ack(update.receipt),
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! An update must be answered before the server sends the next one of its type. While disconnected the client keeps
//! trying, and its owner keeps what it has: nothing is ever removed because a server went away.

mod driver;
mod state;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tonic::transport::{Endpoint, Uri};

use crate::types::core::Node;
use crate::{Resource, TypeUrl};

pub use state::{DeltaClient, Receipt};

/// Resources that came, changed or went, all of one type.
#[derive(Debug)]
pub struct Update {
    /// Their type.
    pub type_url: TypeUrl,
    /// New and changed resources.
    pub added: Vec<Resource>,
    /// Names of resources that no longer exist, or that were asked for and do not exist.
    pub removed: Vec<Arc<str>>,
    /// What to give back to [`Client::ack`] or [`Client::nack`].
    pub receipt: Receipt,
}

/// Where the client stands with its server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Connection {
    /// No attempt has come to an end yet.
    Connecting,
    /// The stream is open.
    Connected,
    /// The stream or the last attempt ended for this reason; the next attempt is being waited for.
    Disconnected(Arc<str>),
}

/// What a client needs to know.
#[derive(Clone)]
pub struct Options {
    /// `http://HOST:PORT` of the server.
    pub uri: String,
    /// Who we are; sent with the first request of each stream.
    pub node: Node,
    /// Reads the bearer token, anew for each attempt: a restarted server may have another one.
    pub token: Option<TokenSource>,
    /// How to connect, where that is not in plain text to the address of `uri`.
    pub dial: Option<Dial>,
    /// How long to wait between attempts.
    pub backoff: Backoff,
    /// The largest response to accept, in bytes.
    pub max_response: usize,
}

/// Reads a bearer token from wherever it is kept.
pub type TokenSource = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// Opens a connection to the server.
pub type Dial = Arc<dyn Fn() -> Dialling + Send + Sync>;

/// A connection being opened.
pub type Dialling = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// A connection of any kind.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Fully jittered exponential backoff.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The upper bound of the first wait; it doubles with each failure.
    pub base: Duration,
    /// The upper bound of all waits.
    pub max: Duration,
}

/// A handle to the running client; dropping it closes the stream.
pub struct Client {
    updates: mpsc::Receiver<Update>,
    // Unbounded because the only sender is this process, which sends one answer per update and one command per change
    // of interest.
    commands: mpsc::UnboundedSender<Command>,
    connection: watch::Receiver<Connection>,
}

/// The server's address cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("xDS server address {uri:?}: expected http://HOST:PORT ({reason})")]
pub struct BadUri {
    uri: String,
    reason: String,
}

#[derive(Debug)]
enum Command {
    SubscribeAll(TypeUrl),
    Subscribe(TypeUrl, Vec<Arc<str>>),
    Unsubscribe(TypeUrl, Vec<Arc<str>>),
    Ack(Receipt),
    Nack(Receipt, String, Vec<Arc<str>>),
}

/// Starts a client on the current tokio runtime. It connects, and reconnects, by itself until it is dropped.
pub fn connect(options: Options) -> Result<Client, BadUri> {
    let bad = |reason: &str| BadUri { uri: options.uri.clone(), reason: reason.into() };
    let uri: Uri = options.uri.parse().map_err(|error| bad(&format!("{error}")))?;
    match (uri.scheme_str(), uri.host(), uri.port()) {
        (Some("http"), Some(_), Some(_)) => {}
        (Some("http"), _, None) => return Err(bad("there is no port")),
        (Some("http"), None, _) => return Err(bad("there is no host")),
        _ => return Err(bad("the scheme is not http")),
    }
    let endpoint = Endpoint::from(uri)
        .connect_timeout(driver::CONNECT)
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true);
    let (updates_in, updates) = mpsc::channel(1);
    let (commands, commands_out) = mpsc::unbounded_channel();
    let (connection_in, connection) = watch::channel(Connection::Connecting);
    tokio::spawn(driver::run(endpoint, options, updates_in, commands_out, connection_in));
    Ok(Client { updates, commands, connection })
}

impl Client {
    /// The next update, whenever it comes. Cancel-safe. `None` only if the runtime is being shut down.
    pub async fn next(&mut self) -> Option<Update> {
        self.updates.recv().await
    }

    /// Subscribes to every resource of a type (a wildcard subscription).
    pub fn subscribe_all(&self, type_url: TypeUrl) {
        self.send(Command::SubscribeAll(type_url));
    }

    /// Adds names to what is subscribed to. Each is answered, if only by its removal.
    pub fn subscribe<N: Into<Arc<str>>>(&self, type_url: TypeUrl, names: impl IntoIterator<Item = N>) {
        self.send(Command::Subscribe(type_url, names.into_iter().map(Into::into).collect()));
    }

    /// Takes names out of what is subscribed to, and forgets their versions.
    pub fn unsubscribe<N: Into<Arc<str>>>(&self, type_url: TypeUrl, names: impl IntoIterator<Item = N>) {
        self.send(Command::Unsubscribe(type_url, names.into_iter().map(Into::into).collect()));
    }

    /// Accepts an update.
    pub fn ack(&self, receipt: Receipt) {
        self.send(Command::Ack(receipt));
    }

    /// Refuses an update: `reason` says which resource, which field, and why. Resources of the update that are not
    /// among `refused` count as taken; an empty list refuses the update whole.
    pub fn nack<N: Into<Arc<str>>>(
        &self,
        receipt: Receipt,
        reason: impl Into<String>,
        refused: impl IntoIterator<Item = N>,
    ) {
        self.send(Command::Nack(receipt, reason.into(), refused.into_iter().map(Into::into).collect()));
    }

    /// Where the client stands with its server; changes can be waited for.
    pub fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.clone()
    }

    fn send(&self, command: Command) {
        // The driver goes away only with the runtime, and then there is nobody left to tell.
        let _ = self.commands.send(command);
    }
}

impl Options {
    /// Options with our defaults: no token, waits of 100 ms to 5 s, responses up to 64 MiB.
    pub fn new(uri: impl Into<String>, node: Node) -> Self {
        Self { uri: uri.into(), node, token: None, dial: None, backoff: Backoff::default(), max_response: 64 << 20 }
    }

    /// With a token that never changes.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        let token = token.into();
        self.token = Some(Arc::new(move || Some(token.clone())));
        self
    }

    /// With a token read anew for each attempt.
    pub fn token_source(mut self, source: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        self.token = Some(Arc::new(source));
        self
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_millis(100), max: Duration::from_secs(5) }
    }
}

impl Backoff {
    /// How long to wait after `failures` failures in a row, `jitter` being uniform in 0..1. Never less than half the
    /// base, so that a server that refuses at once is not hammered.
    pub fn delay(&self, failures: u32, jitter: f64) -> Duration {
        let bound = self.base.saturating_mul(1u32 << failures.saturating_sub(1).min(16)).min(self.max);
        bound.mul_f64(jitter.clamp(0.0, 1.0)).max(self.base / 2)
    }
}
