//! A whole control plane on a loopback port, with our xDS client and plain HTTP in front of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use maille_api::parse;
use maille_store::{Change, Store};
use maille_xds::TypeUrl;
use maille_xds::client::{self, Client, Connection, Update};
use maille_xds::types::core::Node;
use maille_xds::types::{Struct, Value, ValueKind};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use crate::token::TokenFile;
use crate::{Control, Options, ca, start};

const RESOURCES: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 80, targetPort: 9080}]
";

const CLUSTER: &str = "outbound|80||reviews.shop.svc.cluster.local";

struct Fixture {
    control: Control,
    store: Arc<Store>,
    secret: String,
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self::on(0, tempfile::tempdir().unwrap())
    }

    fn on(port: u16, folder: tempfile::TempDir) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let store = Arc::new(Store::new());
        let loaded = parse::load(RESOURCES, "test.yaml");
        assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
        store.apply("test", loaded.objects.into_iter().map(Change::Put).collect());
        let token = TokenFile::create_in(&folder.path().join("private"), port).unwrap();
        let secret = token.secret().to_owned();
        let tls = Some(std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap());
        let ca = ca::Options::default();
        let options = Options { store: store.clone(), mesh: None, listener, tls, ca, token, problems: None };
        let control = start(options).unwrap();
        Self { control, store, secret, folder }
    }

    /// Stops and starts it again, on the same port and with the same folder.
    async fn restarted(self) -> Self {
        let port = self.control.address().port();
        self.control.stop().await;
        Self::on(port, self.folder)
    }

    fn client(&self) -> Client {
        self.client_with(&self.secret, node())
    }

    fn client_with(&self, token: &str, node: Node) -> Client {
        let mut options = client::Options::new(format!("http://{}", self.control.address()), node).token(token);
        options.backoff = client::Backoff { base: Duration::from_millis(5), max: Duration::from_millis(50) };
        client::connect(options).unwrap()
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).header("authorization", format!("Bearer {}", self.secret));
        let (response, _connection) = self.send(request.body(Full::default()).unwrap()).await;
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn lease(&self, name: &str, address: &str) -> HeldLease {
        let entry = json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "WorkloadEntry",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"address": address, "labels": {"app": "reviews"}},
        });
        let request = Request::post("/v1/workloads")
            .header("authorization", format!("Bearer {}", self.secret))
            .body(Full::new(Bytes::from(entry.to_string())))
            .unwrap();
        let (response, connection) = self.send(request).await;
        assert_eq!(response.status(), StatusCode::OK);
        let mut body = response.into_body();
        let greeting = body.frame().await.unwrap().unwrap().into_data().unwrap();
        let greeting: serde_json::Value = serde_json::from_slice(&greeting).unwrap();
        assert_eq!(greeting["address"], address);
        HeldLease { body, connection }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> (Response<Incoming>, AbortOnDrop) {
        let stream = tokio::net::TcpStream::connect(self.control.address()).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = AbortOnDrop(tokio::spawn(async move { drop(connection.await) }));
        (sender.send_request(request).await.unwrap(), connection)
    }
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct HeldLease {
    body: Incoming,
    #[expect(dead_code, reason = "held open until this is dropped")]
    connection: AbortOnDrop,
}

impl HeldLease {
    /// Returns when the server has ended the lease.
    async fn ended(mut self) {
        while let Some(Ok(_)) = self.body.frame().await {}
    }
}

fn node() -> Node {
    let text = |text: &str| Value { kind: Some(ValueKind::StringValue(text.into())) };
    let metadata = [("NAMESPACE", text("shop")), ("ISTIO_VERSION", text("1.28.0"))];
    Node {
        id: "sidecar~127.9.9.9~caller-1.shop~shop.svc.cluster.local".into(),
        metadata: Some(Struct { fields: metadata.map(|(name, value)| (name.to_owned(), value)).into() }),
        ..Default::default()
    }
}

/// Reads updates, accepting them, until one satisfies.
async fn until(client: &mut Client, mut satisfies: impl FnMut(&Update) -> bool) {
    let waiting = async {
        loop {
            let update = client.next().await.expect("the client runs until it is dropped");
            let done = satisfies(&update);
            client.ack(update.receipt);
            if done {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("the update comes");
}

fn has_endpoint(update: &Update, address: &str) -> bool {
    use maille_xds::types::endpoint::ClusterLoadAssignment;
    update.type_url == TypeUrl::Endpoint
        && update.added.iter().any(|resource| {
            let assignment: ClusterLoadAssignment = resource.decode().unwrap();
            format!("{assignment:?}").contains(&format!("{address:?}"))
        })
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn nobody_is_let_in_without_the_token() {
    let fixture = Fixture::new();
    for path in ["/healthz", "/metrics", "/v1/status", "/nowhere"] {
        for header in [None, Some("Bearer wrong".to_owned()), Some(format!("Basic {}", fixture.secret))] {
            let mut request = Request::get(path);
            if let Some(header) = &header {
                request = request.header("authorization", header);
            }
            let (response, _connection) = fixture.send(request.body(Full::default()).unwrap()).await;
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path} {header:?}");
        }
    }
    let client = fixture.client_with("wrong", node());
    client.subscribe_all(TypeUrl::Cluster);
    let mut connection = client.connection();
    let refused = connection.wait_for(|now| matches!(now, Connection::Disconnected(_))).await.unwrap().clone();
    assert!(matches!(&refused, Connection::Disconnected(reason) if reason.contains("wrong token")), "{refused:?}");
    assert_eq!(fixture.get("/v1/status").await.0, StatusCode::OK);
    fixture.control.stop().await;
}

#[tokio::test]
async fn a_proxy_gets_clusters_and_follows_workloads_that_come_and_go() {
    let fixture = Fixture::new();
    let mut client = fixture.client();
    client.subscribe_all(TypeUrl::Cluster);
    until(&mut client, |update| update.added.iter().any(|resource| &*resource.name == CLUSTER)).await;
    client.subscribe(TypeUrl::Endpoint, [CLUSTER]);
    let first = fixture.lease("reviews-1", "127.9.1.1").await;
    until(&mut client, |update| has_endpoint(update, "127.9.1.1")).await;
    let _second = fixture.lease("reviews-2", "127.9.1.2").await;
    until(&mut client, |update| has_endpoint(update, "127.9.1.2")).await;
    drop(first);
    until(&mut client, |update| has_endpoint(update, "127.9.1.2") && !has_endpoint(update, "127.9.1.1")).await;

    fixture.store.apply("test", {
        let loaded = parse::load(&RESOURCES.replace("name: reviews", "name: ratings"), "test.yaml");
        loaded.objects.into_iter().map(Change::Put).collect()
    });
    until(&mut client, |update| update.added.iter().any(|resource| resource.name.contains("||ratings.shop"))).await;
    fixture.control.stop().await;
}

#[tokio::test]
async fn a_restart_sends_nothing_that_did_not_change_and_keeps_endpoints() {
    let fixture = Fixture::new();
    let mut client = fixture.client();
    client.subscribe_all(TypeUrl::Cluster);
    client.subscribe(TypeUrl::Endpoint, [CLUSTER]);
    let lease = fixture.lease("reviews-1", "127.9.2.1").await;
    until(&mut client, |update| has_endpoint(update, "127.9.2.1")).await;

    let secret = fixture.secret.clone();
    let fixture = fixture.restarted().await;
    assert_eq!(fixture.secret, secret, "proxies that cannot read the file still show the old token");
    lease.ended().await;
    // The first thing that is sent is what really is new.
    let marker = "apiVersion: v1\nkind: Service\nmetadata: {name: marker, namespace: shop}\nspec: {ports: [{name: http, port: 80}]}";
    let mut changes = fixture.control.changes();
    changes.wait_for(|changes| *changes > 0).await.unwrap();
    let _lease = fixture.lease("reviews-1", "127.9.2.1").await;
    fixture.store.apply("test", parse::load(marker, "m").objects.into_iter().map(Change::Put).collect());
    let update = client.next().await.unwrap();
    let names: Vec<&str> = update.added.iter().map(|resource| &*resource.name).collect();
    assert_eq!((update.type_url, names), (TypeUrl::Cluster, vec!["outbound|80||marker.shop.svc.cluster.local"]));
    assert!(update.removed.is_empty());
    fixture.control.stop().await;
}

#[tokio::test]
async fn stopping_leaves_files_only_for_workloads_that_are_still_there() {
    let fixture = Fixture::new();
    let private = fixture.folder.path().join("private");
    let port = fixture.control.address().port();
    let lease = fixture.lease("reviews-1", "127.9.3.1").await;
    let fixture = fixture.restarted().await;
    lease.ended().await;
    let status = fixture.control.status();
    assert!(status.workloads[0].awaited && status.workloads[0].name == "reviews-1", "{status:?}");
    let lease = fixture.lease("reviews-1", "127.9.3.1").await;
    assert!(!fixture.control.status().workloads[0].awaited);
    drop(lease);
    let mut revisions = fixture.store.subscribe();
    let gone = |store: &Store| store.list().1.iter().all(|object| object.meta.name != "reviews-1");
    while !gone(&fixture.store) {
        revisions.changed().await.unwrap();
    }
    assert!(files(&private).contains(&format!("{port}.token")));
    let Fixture { control, folder: _folder, .. } = fixture;
    control.stop().await;
    assert_eq!(files(&private), [""; 0]);
}

#[tokio::test]
async fn status_and_metrics_tell_who_is_connected_and_what_they_refused() {
    let fixture = Fixture::new();
    let mut client = fixture.client();
    client.subscribe_all(TypeUrl::Cluster);
    let update = client.next().await.unwrap();
    let mut changes = fixture.control.changes();
    let before = *changes.borrow_and_update();
    client.nack(update.receipt, format!("cluster {CLUSTER}: lb_policy: not served"), [CLUSTER]);
    changes.wait_for(|changes| *changes > before).await.unwrap();

    let (_, body) = fixture.get("/v1/status").await;
    let status: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status["ready"], true);
    assert_eq!(status["proxies"][0]["node"], node().id);
    assert_eq!(status["proxies"][0]["kind"], "sidecar");
    assert_eq!(status["refusals"][0]["kind"], "cluster");
    assert_eq!(status["refusals"][0]["name"], CLUSTER);
    assert_eq!(status["refusals"][0]["reason"], format!("cluster {CLUSTER}: lb_policy: not served"));
    let (status, metrics) = fixture.get("/metrics").await;
    assert_eq!(status, StatusCode::OK);
    for line in
        ["pilot_xds 1", "pilot_total_xds_rejects 1", "pilot_xds_cds_reject 1", "pilot_xds_pushes{type=\"cds\"} 1"]
    {
        assert!(metrics.lines().any(|found| found == line), "no {line} in\n{metrics}");
    }
    assert_eq!(fixture.get("/healthz").await.0, StatusCode::OK);
    drop(client);
    changes.wait_for(|_| fixture.control.status().proxies.is_empty()).await.unwrap();
    fixture.control.stop().await;
}

#[tokio::test]
async fn a_node_that_makes_no_sense_is_told_so() {
    let fixture = Fixture::new();
    let client = fixture.client_with(&fixture.secret, Node { id: "me".into(), ..Default::default() });
    client.subscribe_all(TypeUrl::Cluster);
    let mut connection = client.connection();
    let refused = connection.wait_for(|now| matches!(now, Connection::Disconnected(_))).await.unwrap().clone();
    assert!(matches!(&refused, Connection::Disconnected(reason) if reason.contains("node id")), "{refused:?}");
    fixture.control.stop().await;
}

/// Places are limited, so that nobody without the token may keep one.
#[tokio::test]
async fn connections_without_a_token_end_by_themselves() {
    let fixture = Fixture::new();
    let held = fixture.lease("a", "127.1.1.1").await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let refused = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";
    for said in [&b""[..], b"G", b"PRI * HT", preface, refused] {
        let mut stream = tokio::net::TcpStream::connect(fixture.control.address()).await.unwrap();
        stream.write_all(said).await.unwrap();
        let mut answer = Vec::new();
        // Returns when the other side has closed; how does not matter.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{said:?}");
    }
    assert!(fixture.get("/v1/status").await.1.contains("127.1.1.1"), "the lease stands");
    drop(held);
}
