//! The endpoints for whoever runs the proxy: administration (15000), readiness (15021) and metrics (15090), in Envoy's shapes.
//!
//! They are one small HTTP/1 server with one list of paths each; the main thread answers, as it has everything at hand.

mod answer;
mod certs;
mod clusters;
mod config_dump;
pub(crate) mod query;
mod server;
mod statistics;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use maille_http::h1::{Limits, parse_request};
use maille_http::response::reason;
use maille_http::{HeaderId, RequestHead, host};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{Bind, Endpoints, Otherwise};
pub(super) use answer::{Command, Process, View, answer};
use query::Query;
pub(super) use statistics::Inclusion;

/// Whoever asks has this long to do so, and to take the answer.
const LIMIT: Duration = Duration::from_secs(30);

/// So many may ask at a time.
const AT_ONCE: usize = 32;

/// What an endpoint is for, which is what it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Everything.
    Admin,
    /// Whether the proxy takes traffic.
    Ready,
    /// Metrics.
    Metrics,
}

/// A question to the main thread.
pub(super) struct Question {
    pub(super) post: bool,
    pub(super) path: String,
    pub(super) query: Query,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// What it says.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn text(status: u16, body: impl Into<String>) -> Answer {
        Answer { status, content_type: "text/plain; charset=UTF-8", body: body.into() }
    }

    pub(super) fn json(body: &serde_json::Value) -> Answer {
        Answer { status: 200, content_type: "application/json", body: format!("{body:#}\n") }
    }
}

/// The endpoints' sockets.
#[derive(Default)]
pub(super) struct Sockets {
    open: Vec<(Purpose, StdListener)>,
}

impl Sockets {
    /// Opens those that are asked for.
    pub(super) fn open(endpoints: &Endpoints) -> io::Result<Sockets> {
        let Endpoints { admin, ready, metrics } = endpoints;
        let mut sockets = Sockets::default();
        for (purpose, bind) in [(Purpose::Admin, admin), (Purpose::Ready, ready), (Purpose::Metrics, metrics)] {
            if let Some(bind) = bind
                && let Some(socket) = open(purpose, *bind)?
            {
                sockets.open.push((purpose, socket));
            }
        }
        Ok(sockets)
    }

    pub(super) fn address(&self, purpose: Purpose) -> Option<SocketAddr> {
        self.open.iter().find(|(p, _)| *p == purpose).and_then(|(_, socket)| socket.local_addr().ok())
    }

    /// Serves them, from within the main thread's runtime.
    pub(super) fn serve(self, questions: &mpsc::Sender<Question>) -> io::Result<()> {
        let room = Arc::new(Semaphore::new(AT_ONCE));
        for (purpose, socket) in self.open {
            tokio::spawn(serve(TcpListener::from_std(socket)?, purpose, questions.clone(), room.clone()));
        }
        Ok(())
    }
}

fn open(purpose: Purpose, bind: Bind) -> io::Result<Option<StdListener>> {
    if purpose == Purpose::Admin && !bind.address.ip().is_loopback() {
        let what =
            format!("{}: the admin endpoint asks nobody who they are, so it listens on loopback only", bind.address);
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let options = maille_net::ListenOptions::default();
    let error = match maille_net::listen(bind.address, options) {
        Ok(socket) => return Ok(Some(socket)),
        Err(error) => error,
    };
    match bind.otherwise {
        Otherwise::AnyPort => maille_net::listen(SocketAddr::new(bind.address.ip(), 0), options).map(Some),
        Otherwise::Without => {
            tracing::info!(?purpose, "{} is taken ({error}): going without", bind.address);
            Ok(None)
        }
        Otherwise::Fail => {
            Err(io::Error::new(error.kind(), format!("{purpose:?} endpoint: {}: {error}", bind.address)))
        }
    }
}

async fn serve(socket: TcpListener, purpose: Purpose, questions: mpsc::Sender<Question>, room: Arc<Semaphore>) {
    loop {
        // Whoever comes while all places are taken waits in the backlog.
        let Ok(place) = room.clone().acquire_owned().await else { return };
        match socket.accept().await {
            Ok((stream, _)) => {
                let questions = questions.clone();
                tokio::spawn(async move {
                    let _place = place;
                    let _ = tokio::time::timeout(LIMIT, one(stream, purpose, questions)).await;
                });
            }
            Err(error) => {
                tracing::warn!(?purpose, "cannot accept: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn one(mut stream: TcpStream, purpose: Purpose, questions: mpsc::Sender<Question>) {
    let mut bytes = Vec::new();
    let mut head = RequestHead::new();
    loop {
        match parse_request(
            &bytes,
            &Limits { head_bytes: 16 << 10, fields: 64, http10: true, ..Limits::ENVOYS },
            &mut head,
        ) {
            Ok(Some(_)) => break,
            Ok(None) => {}
            Err(_) => return,
        }
        let mut more = [0; 1024];
        match stream.read(&mut more).await {
            Ok(n) if n > 0 => bytes.extend_from_slice(&more[..n]),
            _ => return,
        }
    }
    let answer = ask(&head, purpose, &questions).await;
    let to_head = head.method() == b"HEAD";
    let mut out = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: {}\r\ncache-control: no-cache, max-age=0\r\nx-content-type-options: nosniff\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        answer.status,
        reason(answer.status),
        answer.content_type,
        answer.body.len()
    );
    if !to_head {
        out.push_str(&answer.body);
    }
    if stream.write_all(out.as_bytes()).await.is_ok() {
        let _ = stream.shutdown().await;
        // Closing with bytes unread would reset the connection before the answer is read.
        let mut rest = [0; 512];
        while stream.read(&mut rest).await.is_ok_and(|n| n > 0) {}
    }
}

async fn ask(head: &RequestHead, purpose: Purpose, questions: &mpsc::Sender<Question>) -> Answer {
    let post = match head.method() {
        b"GET" | b"HEAD" => false,
        b"POST" => true,
        _ => return Answer::text(405, "Method Not Allowed\n"),
    };
    if !is_local(head.authority()) || (post && head.headers.get(HeaderId::Origin).is_some()) {
        // A page in a browser on this machine, or a name that leads here: nobody who runs the proxy asks like that.
        return Answer::text(403, "Forbidden: ask by address or as localhost, and not from a page\n");
    }
    let target = String::from_utf8_lossy(head.path_and_query()).into_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let path = match (purpose, path) {
        (Purpose::Admin, path) => path,
        (Purpose::Ready, "/healthz/ready") => "/ready",
        (Purpose::Metrics, "/stats/prometheus" | "/metrics") => "/stats/prometheus",
        _ => return Answer::text(404, "Not Found\n"),
    };
    let (answer, answered) = oneshot::channel();
    let question = Question { post, path: path.to_owned(), query: Query::parse(query), answer };
    let _ = questions.send(question).await;
    answered.await.unwrap_or(Answer::text(503, "the proxy is ending\n"))
}

/// Whether a request was meant for this machine by whoever wrote it: a web page only gets here under a name of its own.
fn is_local(authority: &[u8]) -> bool {
    let (name, _) = host::split_port(authority);
    let Ok(name) = std::str::from_utf8(name) else { return false };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.is_empty() || name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}
