//! Clients and servers of HTTP/2 that do as they should.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use maille_xds::types::core::Http2ProtocolOptions;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::script::{Proxy, Setup};

/// Long enough for any machine; only what is broken takes as long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test to its end, or fails it.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async { tokio::time::timeout(PATIENCE, test).await.expect("the test hangs") });
}

/// A connection to a proxy.
pub(crate) async fn connect(proxy: &Proxy) -> SendRequest<Bytes> {
    connect_to(proxy.http).await
}

pub(crate) async fn connect_to(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    send
}

/// A request for a path.
pub(crate) fn get(path: &str) -> Request<()> {
    Request::get(format!("http://a.example{path}")).body(()).unwrap()
}

pub(crate) fn post(path: &str) -> Request<()> {
    Request::post(format!("http://a.example{path}")).body(()).unwrap()
}

/// Sends a request without a body and waits for all of the response.
pub(crate) async fn ask(client: &mut SendRequest<Bytes>, request: Request<()>) -> Whole {
    let (response, _) = client.clone().ready().await.unwrap().send_request(request, true).unwrap();
    whole(response.await.unwrap()).await
}

/// A message that has come to its end.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) error: Option<h2::Error>,
}

impl Whole {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn trailer(&self, name: &str) -> &str {
        self.trailers.as_ref().and_then(|t| t.get(name)).map_or("", |value| value.to_str().unwrap())
    }
}

pub(crate) async fn whole(response: Response<RecvStream>) -> Whole {
    let (parts, body) = response.into_parts();
    let (status, headers) = (parts.status.as_u16(), parts.headers);
    let (body, trailers, error) = read(body).await;
    Whole { status, headers, body, trailers, error }
}

/// Reads a body to its end.
pub(crate) async fn read(mut body: RecvStream) -> (Vec<u8>, Option<HeaderMap>, Option<h2::Error>) {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        match data {
            Ok(data) => {
                body.flow_control().release_capacity(data.len()).unwrap();
                all.extend_from_slice(&data);
            }
            Err(error) => return (all, None, Some(error)),
        }
    }
    match body.trailers().await {
        Ok(trailers) => (all, trailers, None),
        Err(error) => (all, None, Some(error)),
    }
}

/// Sends data as the other side gives credit for it.
pub(crate) async fn send(stream: &mut SendStream<Bytes>, data: &[u8], end: bool) -> Result<(), h2::Error> {
    let mut sent = 0;
    while sent < data.len() {
        stream.reserve_capacity(data.len() - sent);
        let n = match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(n) => n?.min(data.len() - sent),
            None => return Ok(()),
        };
        let last = end && sent + n == data.len();
        stream.send_data(Bytes::copy_from_slice(&data[sent..sent + n]), last)?;
        sent += n;
    }
    if data.is_empty() && end {
        stream.send_data(Bytes::new(), true)?;
    }
    Ok(())
}

/// A server of HTTP/2: each request it gets is handed to the test.
pub(crate) struct Server2 {
    pub(crate) address: SocketAddr,
    requests: mpsc::UnboundedReceiver<Asked>,
}

/// A request that has come to a server.
pub(crate) struct Asked {
    pub(crate) request: Request<RecvStream>,
    pub(crate) respond: SendResponse<Bytes>,
    /// Which of its connections it came on.
    pub(crate) connection: usize,
}

impl Asked {
    pub(crate) fn path(&self) -> &str {
        self.request.uri().path()
    }

    /// Answers with a status and a body.
    pub(crate) async fn answer(mut self, status: u16, body: &[u8]) {
        let response = Response::builder().status(status).body(()).unwrap();
        let mut stream = self.respond.send_response(response, body.is_empty()).unwrap();
        if !body.is_empty() {
            send(&mut stream, body, true).await.unwrap();
        }
    }
}

impl Server2 {
    pub(crate) async fn start() -> Server2 {
        Server2::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl Fn(&mut h2::server::Builder) + 'static) -> Server2 {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let (sender, requests) = mpsc::unbounded_channel();
        tokio::task::spawn_local(async move {
            let mut number = 0;
            loop {
                let (stream, _) = socket.accept().await.unwrap();
                let mut builder = h2::server::Builder::new();
                change(&mut builder);
                let sender = sender.clone();
                number += 1;
                let connection = number;
                tokio::task::spawn_local(async move {
                    let Ok(mut h2) = builder.handshake::<_, Bytes>(stream).await else { return };
                    while let Some(Ok((request, respond))) = h2.accept().await {
                        let leave = request.uri().path() == "/leave";
                        if sender.send(Asked { request, respond, connection }).is_err() {
                            return;
                        }
                        if leave {
                            h2.graceful_shutdown();
                        }
                    }
                });
            }
        });
        Server2 { address, requests }
    }

    pub(crate) async fn next(&mut self) -> Asked {
        self.requests.recv().await.expect("a request")
    }

    /// Whether nothing has come since.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.requests.try_recv().is_err()
    }
}

/// Has a proxy speak HTTP/2 with its server.
pub(crate) fn http2(setup: &mut Setup) {
    #[allow(deprecated, reason = "the short way to say it, which configurations in use still have")]
    {
        setup.cluster.http2_protocol_options = Some(Http2ProtocolOptions::default());
    }
}
