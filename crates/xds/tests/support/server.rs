//! An ADS server with one world for everybody.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::net::SocketAddr;
use std::sync::Arc;

use maille_xds::server::{Received, Sync, TypeStatus};
use maille_xds::service::{self, Connection, Observer, WorldSource};
use maille_xds::types::core::Node;
use maille_xds::{TypeUrl, World};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;

pub struct Server {
    address: SocketAddr,
    worlds: watch::Sender<Option<World>>,
    refusals: Mutex<mpsc::UnboundedReceiver<String>>,
    status: watch::Receiver<Option<Vec<TypeStatus>>>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

struct Source {
    worlds: watch::Receiver<Option<World>>,
    refusals: mpsc::UnboundedSender<String>,
    status: watch::Sender<Option<Vec<TypeStatus>>>,
}

struct Watcher {
    id: String,
    refusals: mpsc::UnboundedSender<String>,
    status: watch::Sender<Option<Vec<TypeStatus>>>,
}

impl Server {
    pub async fn start(world: impl Into<Option<World>>) -> Self {
        Self::start_on(0, world).await
    }

    pub async fn start_on(port: u16, world: impl Into<Option<World>>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (worlds, receiver) = watch::channel(world.into());
        let (refusals_in, refusals) = mpsc::unbounded_channel();
        let (status_in, status) = watch::channel(None);
        let source = Arc::new(Source { worlds: receiver, refusals: refusals_in, status: status_in });
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            tonic::transport::Server::builder()
                .add_service(service::ads(source, "test"))
                .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async { drop(stopped.await) })
                .await
                .unwrap();
        });
        Self { address, worlds, refusals: Mutex::new(refusals), status, stop, task }
    }

    pub fn uri(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn set(&self, world: World) {
        self.worlds.send_replace(Some(world));
    }

    pub async fn refusal(&self) -> String {
        self.refusals.lock().await.recv().await.unwrap()
    }

    pub async fn wait_for_client(&self) {
        self.status.clone().wait_for(Option::is_some).await.unwrap();
    }

    pub async fn wait_until_settled(&self) {
        let settled = |status: &Option<Vec<TypeStatus>>| {
            status.as_ref().is_some_and(|types| types.iter().all(|status| status.sync == Sync::Synced))
        };
        self.status.clone().wait_for(settled).await.unwrap();
    }

    /// Ends every stream, frees the port and says which it was.
    pub async fn stop(self) -> u16 {
        drop(self.worlds);
        drop(self.stop);
        self.task.await.unwrap();
        self.address.port()
    }
}

impl WorldSource for Source {
    fn connect(&self, node: Node, _: &tonic::Extensions) -> Result<Connection, Status> {
        let observer = Watcher { id: node.id, refusals: self.refusals.clone(), status: self.status.clone() };
        Ok(Connection { worlds: self.worlds.clone(), observer: Box::new(observer) })
    }
}

impl Observer for Watcher {
    fn received(&mut self, received: &Received) {
        if let Received::Nack(_, refusals) = received {
            for refusal in refusals {
                let name = refusal.name.as_deref().unwrap_or("?");
                let text = format!("{} refused {} {name}: {}", self.id, refusal.type_url.short(), refusal.reason);
                let _ = self.refusals.send(text);
            }
        }
    }

    fn sent(&mut self, _: TypeUrl, _: usize, _: usize) {}

    fn status(&mut self, status: Vec<TypeStatus>) {
        self.status.send_replace(Some(status));
    }
}
