//! The port: gRPC and HTTP/1 on one socket, the token before everything.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use maille_model::Proxy;
use maille_xds::certificates::{CertificateServer, TrustServer};
use maille_xds::server::{Received, TypeStatus};
use maille_xds::service::{self, Connection, Observer, WorldSource};
use maille_xds::types::core::Node;
use maille_xds::{TypeUrl, World};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::Extensions;
use tower::ServiceExt;

use crate::auth::{Caller, Peer};
use crate::ca::service::Service;
use crate::tls::{self, Tls};
use crate::{IDENTIFIER, Shared, auth, http};

type Error = Box<dyn std::error::Error + Send + std::marker::Sync>;

/// Connections at a time; a proxy or a workload takes one each.
const MAX_CONNECTIONS: usize = 10_000;

/// How often an idle connection is asked whether its other end is still there, and how long that may take.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take to send its request's head, and to show a token that lets it in. Whoever has no token
/// keeps nobody's place for longer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

/// A bound listener, ready for the runtime.
pub(crate) fn nonblocking(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Serves until the control plane stops; then connections end with it.
pub(crate) async fn serve(listener: TcpListener, tls: Option<Arc<Tls>>, shared: Arc<Shared>) {
    let ads = service::ads(Arc::new(Source(shared.clone())), IDENTIFIER);
    let certificates = Arc::new(Service(shared.clone()));
    let router = tonic::service::Routes::new(ads)
        .add_service(CertificateServer(certificates.clone()))
        .add_service(TrustServer(certificates))
        .prepare()
        .into_axum_router()
        .merge(http::routes(shared.clone()))
        .layer(axum::middleware::from_fn_with_state(shared.clone(), auth::authenticate));
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut stopping = shared.stopping.subscribe();
    loop {
        let (stream, from) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: others must end before more can come.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
            () = async { drop(stopping.wait_for(|stopping| *stopping).await) } => return,
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(limit = MAX_CONNECTIONS, "too many connections; one was closed");
            continue;
        };
        let (router, tls) = (router.clone(), tls.clone());
        let from = from.ip().to_canonical();
        // Whoever comes from our own address is on our machine as well.
        let is_local = from.is_loopback() || stream.local_addr().is_ok_and(|own| own.ip().to_canonical() == from);
        let peer = Peer { is_local, certificate: None };
        connections.spawn(async move {
            if let Err(error) = accept(stream, tls, peer, router).await {
                tracing::debug!(%error, "connection ended");
            }
            drop(place);
        });
    }
}

async fn accept(stream: TcpStream, tls: Option<Arc<Tls>>, mut peer: Peer, router: axum::Router) -> Result<(), Error> {
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return connection(stream, peer, router).await };
    let handshake = timeout(HEAD_TIMEOUT, tls.acceptor().accept(stream)).await;
    let stream = handshake.map_err(|_| "no TLS handshake came")??;
    peer.certificate = tls::shown(stream.get_ref().1);
    connection(stream, peer, router).await
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    peer: Peer,
    router: axum::Router,
) -> Result<(), Error> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .max_concurrent_streams(100);
    let admitted = auth::Admitted::default();
    let mark = admitted.clone();
    let service = TowerToHyperService::new(router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(mark.clone());
        request.extensions_mut().insert(peer.clone());
        request.map(axum::body::Body::new)
    }));
    let mut serving = pin!(server.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        ended = &mut serving => return ended,
        admitted = timeout(HEAD_TIMEOUT, admitted.wait()) => admitted.map_err(|_| "no request with the token came")?,
    }
    serving.await
}

/// Gives each proxy that connects its worlds.
struct Source(Arc<Shared>);

impl WorldSource for Source {
    fn connect(&self, node: Node, known: &Extensions) -> Result<Connection, tonic::Status> {
        let mut proxy = maille_translate::proxy_from_node(&node).map_err(|error| {
            tracing::warn!(node = %node.id, %error, "a proxy was turned away");
            tonic::Status::invalid_argument(error.to_string())
        })?;
        match known.get::<Caller>() {
            Some(Caller::Owner) => {}
            Some(Caller::Workload(id)) => {
                if proxy.service_account.is_empty() {
                    proxy.service_account = id.service_account().to_owned();
                }
                if proxy.namespace != id.namespace() || proxy.service_account != id.service_account() {
                    tracing::warn!(node = %node.id, %id, "a proxy that says it is somebody else was turned away");
                    return Err(tonic::Status::permission_denied(format!(
                        "the node says it runs as {} in namespace {}, and it has proved to be {id}",
                        proxy.service_account, proxy.namespace
                    )));
                }
            }
            None => return Err(tonic::Status::unauthenticated("nobody has said who is calling")),
        }
        let (id, worlds) = self.register(node.id.into(), proxy)?;
        Ok(Connection { worlds, observer: Box::new(id) })
    }
}

impl Source {
    fn register(
        &self,
        node: Arc<str>,
        proxy: Proxy,
    ) -> Result<(Session, watch::Receiver<Option<World>>), tonic::Status> {
        let stopping = || tonic::Status::unavailable("the control plane is shutting down");
        let (id, worlds) = self.0.proxies.connect(node.clone(), proxy).ok_or_else(stopping)?;
        tracing::info!(proxy = %node, "connected");
        Ok((Session { id, node, shared: self.0.clone() }, worlds))
    }
}

/// One proxy's stream; dropped when it ends.
struct Session {
    id: u64,
    node: Arc<str>,
    shared: Arc<Shared>,
}

impl Observer for Session {
    fn received(&mut self, received: &Received) {
        match received {
            Received::Subscription(_) | Received::Ack(_) => {}
            Received::Stale(_) => self.shared.metrics.nonce_expired(),
            Received::UnknownType(type_url) => {
                tracing::debug!(proxy = %self.node, type_url, "asked for a type that is not served");
            }
            Received::Nack(type_url, refusals) => {
                self.shared.metrics.rejected(*type_url);
                for refusal in refusals {
                    let name = refusal.name.as_deref().unwrap_or("(not said which)");
                    tracing::warn!(
                        proxy = %self.node, kind = type_url.noun(), name, reason = %refusal.reason,
                        "refused; the proxy keeps its last good version"
                    );
                }
                self.shared.proxies.refused(&self.node, refusals);
            }
        }
    }

    fn sent(&mut self, type_url: TypeUrl, resources: usize, removed: usize) {
        self.shared.metrics.pushed(type_url);
        tracing::debug!(proxy = %self.node, kind = type_url.short(), resources, removed, "sent");
    }

    fn status(&mut self, status: Vec<TypeStatus>) {
        self.shared.proxies.report(self.id, status);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.proxies.disconnect(self.id);
        tracing::info!(proxy = %self.node, "disconnected");
    }
}
