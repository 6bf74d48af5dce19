//! A whole control plane, asked for certificates as Istio's agents ask, and as nobody should.

mod rotation;

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request as HttpRequest, StatusCode};
use hyper_util::rt::TokioIo;
use maille_identity::csr;
use maille_identity::{SpiffeId, pem, spiffe};
use maille_store::Store;
use maille_xds::certificates::{CertificateClient, CertificateRequest, CertificateResponse, TrustRequest};
use maille_xds::types::{Struct, Value, ValueKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};

use crate::auth::Caller;
use crate::token::TokenFile;
use crate::{Control, ca, start};

struct Fixture {
    control: Control,
    store: Arc<Store>,
    secret: String,
    folder: tempfile::TempDir,
}

/// A certificate with its key, as an agent holds it.
#[derive(Clone)]
struct Credential {
    chain: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
    roots: String,
}

impl Fixture {
    fn new() -> Self {
        Self::on(0, tempfile::tempdir().unwrap(), ca::Options::default())
    }

    fn on(port: u16, folder: tempfile::TempDir, ca: ca::Options) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let tls = Some(std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap());
        let store = Arc::new(Store::new());
        let token = TokenFile::create_in(&folder.path().join("private"), port).unwrap();
        let secret = token.secret().to_owned();
        let options = crate::Options { store: store.clone(), mesh: None, listener, tls, ca, token, problems: None };
        Self { control: start(options).unwrap(), store, secret, folder }
    }

    async fn restarted(self, ca: ca::Options) -> Self {
        let port = self.control.address().port();
        self.control.stop().await;
        Self::on(port, self.folder, ca)
    }

    fn file(&self, extension: &str) -> std::path::PathBuf {
        self.folder.path().join("private").join(format!("{}.{extension}", self.control.address().port()))
    }

    fn roots(&self) -> String {
        std::fs::read_to_string(self.file("ca.pem")).unwrap()
    }

    async fn plain(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.control.address())).unwrap().connect().await.unwrap()
    }

    async fn tls(&self, credential: Option<&Credential>) -> Result<Channel, tonic::transport::Error> {
        channel(self.control.tls_address().unwrap(), &self.roots(), credential).await
    }

    /// A certificate for a workload, as our own agents get theirs.
    async fn enrol(&self, namespace: &str, account: &str) -> Credential {
        let metadata = [("NAMESPACE", namespace), ("SERVICE_ACCOUNT", account)];
        ask(self.plain().await, Some(&self.secret), &metadata, 0).await.unwrap().1
    }

    async fn http(&self, method: &str, path: &str, body: &str) -> (StatusCode, String) {
        let stream = TcpStream::connect(self.control.address()).await.unwrap();
        send(stream, Some(&self.secret), method, path, body).await
    }

    async fn mint(&self, body: &str) -> String {
        let (status, answer) = self.http("POST", "/v1/tokens", body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        serde_json::from_str::<serde_json::Value>(&answer).unwrap()["token"].as_str().unwrap().to_owned()
    }
}

async fn send(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    bearer: Option<&str>,
    method: &str,
    path: &str,
    body: &str,
) -> (StatusCode, String) {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let mut request = HttpRequest::builder().method(method).uri(path).header("content-type", "application/json");
    if let Some(bearer) = bearer {
        request = request.header("authorization", format!("Bearer {bearer}"));
    }
    let response = sender.send_request(request.body(Full::new(Bytes::from(body.to_owned()))).unwrap()).await.unwrap();
    let status = response.status();
    let body = match status == StatusCode::OK && path == "/v1/workloads" {
        true => Bytes::new(),
        false => response.into_body().collect().await.unwrap().to_bytes(),
    };
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn client_config(roots: &str, credential: Option<&Credential>) -> Arc<ClientConfig> {
    let mut store = RootCertStore::empty();
    for root in pem::certificates(roots.as_bytes()).unwrap() {
        store.add(root).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(store);
    let mut config = match credential {
        None => config.with_no_client_auth(),
        Some(credential) => config.with_client_auth_cert(credential.chain.clone(), credential.key.clone_key()).unwrap(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

async fn dial(
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("istiod.istio-system.svc").unwrap();
    tokio_rustls::TlsConnector::from(config).connect(name, stream).await
}

async fn channel(
    address: SocketAddr,
    roots: &str,
    credential: Option<&Credential>,
) -> Result<Channel, tonic::transport::Error> {
    let config = client_config(roots, credential);
    let connector = tower::service_fn(move |_: Uri| {
        let config = config.clone();
        async move { dial(address, config).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://istiod").connect_with_connector(connector).await
}

/// Asks for a certificate, and gives the answer and what can be made of it.
async fn ask(
    channel: Channel,
    bearer: Option<&str>,
    metadata: &[(&str, &str)],
    seconds: i64,
) -> Result<(CertificateResponse, Credential), Status> {
    let (key, csr) = csr::generate().unwrap();
    let answer = ask_with(channel, bearer, metadata, seconds, csr).await?;
    let (roots, chain) = answer.cert_chain.split_last().unwrap();
    let chain = pem::certificates(chain.concat().as_bytes()).unwrap();
    let credential = Credential { chain, key: Arc::new(key), roots: roots.clone() };
    Ok((answer, credential))
}

async fn ask_with(
    channel: Channel,
    bearer: Option<&str>,
    metadata: &[(&str, &str)],
    seconds: i64,
    csr: String,
) -> Result<CertificateResponse, Status> {
    let text = |text: &str| Value { kind: Some(ValueKind::StringValue(text.into())) };
    let fields = metadata.iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect();
    let message = CertificateRequest { csr, validity_duration: seconds, metadata: Some(Struct { fields }) };
    let mut request = Request::new(message);
    if let Some(bearer) = bearer {
        request.metadata_mut().insert("authorization", format!("Bearer {bearer}").parse().unwrap());
    }
    CertificateClient::new(channel).create(request).await
}

fn serial(credential: &Credential) -> String {
    use x509_parser::prelude::FromDer;
    let (_, leaf) = x509_parser::certificate::X509Certificate::from_der(&credential.chain[0]).unwrap();
    pem::hex(leaf.raw_serial())
}

fn id_of(credential: &Credential) -> SpiffeId {
    spiffe::of_certificate(&credential.chain[0]).unwrap()
}

fn id(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o777
}

#[tokio::test]
async fn the_owner_gets_the_identity_it_names_and_the_roots_last() {
    let fixture = Fixture::new();
    let metadata = [("NAMESPACE", "shop"), ("SERVICE_ACCOUNT", "web"), ("WORKLOAD_NAME", "web-1")];
    let (answer, credential) = ask(fixture.plain().await, Some(&fixture.secret), &metadata, 0).await.unwrap();
    assert_eq!(id_of(&credential), id("spiffe://cluster.local/ns/shop/sa/web"));
    assert_eq!(answer.cert_chain.last().unwrap(), &fixture.roots());
    let status = fixture.control.ca_status();
    assert_eq!((status.holders, status.soonest[0].id.as_str()), (1, "spiffe://cluster.local/ns/shop/sa/web"));

    let refused = ask(fixture.plain().await, Some(&fixture.secret), &metadata[..1], 0).await.err().unwrap();
    assert!(refused.message().contains("must say SERVICE_ACCOUNT"), "{refused}");
    let evil = [("NAMESPACE", "shop"), ("SERVICE_ACCOUNT", "a/sa/b")];
    let refused = ask(fixture.plain().await, Some(&fixture.secret), &evil, 0).await.err().unwrap();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_workload_that_is_in_the_mesh_under_one_account_gets_no_others() {
    let fixture = Fixture::new();
    let entry = serde_json::json!({
        "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
        "metadata": {"name": "web-1", "namespace": "shop"}, "spec": {"address": "127.1.2.3", "serviceAccount": "web"},
    });
    let entry = entry.to_string();
    let _lease = fixture.control.shared.leases.take(&Caller::Owner, entry.as_bytes()).unwrap();
    for (account, granted) in [("web", true), ("admin", false)] {
        let metadata = [("NAMESPACE", "shop"), ("SERVICE_ACCOUNT", account), ("WORKLOAD_NAME", "web-1")];
        let answer = ask(fixture.plain().await, Some(&fixture.secret), &metadata, 0).await;
        assert_eq!(answer.is_ok(), granted, "{account}: {:?}", answer.err());
    }
}

#[tokio::test]
async fn a_token_and_then_the_certificate_prove_who_asks_whatever_is_asked_for() {
    let fixture = Fixture::new();
    let token = fixture.mint(r#"{"namespace": "shop", "serviceAccount": "web"}"#).await;
    let web = id("spiffe://cluster.local/ns/shop/sa/web");
    let others = [("NAMESPACE", "istio-system"), ("SERVICE_ACCOUNT", "istiod")];
    let (_, first) = ask(fixture.tls(None).await.unwrap(), Some(&token), &others, 0).await.unwrap();
    assert_eq!(id_of(&first), web);
    // From now on without the token, and a bad one takes nothing away.
    for bearer in [None, Some("wrong"), Some("a.b.c")] {
        let (_, second) = ask(fixture.tls(Some(&first)).await.unwrap(), bearer, &others, 0).await.unwrap();
        assert_eq!(id_of(&second), web);
    }
}

#[tokio::test]
async fn whoever_proves_nothing_gets_nothing() {
    let fixture = Fixture::new();
    let none = format!("eyJhbGciOiJub25lIn0.{}.", "eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6c2hvcDp3ZWIifQ");
    let other = Fixture::new();
    let theirs = other.mint(r#"{"namespace": "shop", "serviceAccount": "web"}"#).await;
    let long = "A".repeat(3000);
    for bearer in [None, Some("wrong"), Some(none.as_str()), Some(theirs.as_str()), Some(long.as_str()), Some("")] {
        for channel in [fixture.plain().await, fixture.tls(None).await.unwrap()] {
            let metadata = [("NAMESPACE", "shop"), ("SERVICE_ACCOUNT", "web")];
            let refused = ask(channel, bearer, &metadata, 0).await.err().unwrap();
            assert_eq!(refused.code(), Code::Unauthenticated, "{bearer:?}: {refused}");
        }
    }
    // One from another mesh does not even get through the handshake, and one that believes another mesh does not come in.
    let foreign = other.enrol("shop", "web").await;
    let channel = channel(fixture.control.tls_address().unwrap(), &fixture.roots(), Some(&foreign)).await;
    let refused = match channel {
        Ok(channel) => ask(channel, None, &[], 0).await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
    assert!(self::channel(fixture.control.tls_address().unwrap(), &other.roots(), None).await.is_err());
}

#[tokio::test]
async fn impersonation_and_other_signers_are_refused_by_name() {
    let fixture = Fixture::new();
    for name in ["ImpersonatedIdentity", "CertSigner"] {
        let metadata = [("NAMESPACE", "shop"), ("SERVICE_ACCOUNT", "web"), (name, "spiffe://cluster.local/ns/a/sa/b")];
        let refused = ask(fixture.plain().await, Some(&fixture.secret), &metadata, 0).await.err().unwrap();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(refused.message().contains(name), "{refused}");
    }
}

#[tokio::test]
async fn bad_requests_are_the_callers_fault() {
    let fixture = Fixture::new();
    let metadata = [("NAMESPACE", "shop"), ("SERVICE_ACCOUNT", "web")];
    for csr in ["", "hello", &"A".repeat(20 << 10)] {
        let channel = fixture.plain().await;
        let refused = ask_with(channel, Some(&fixture.secret), &metadata, 0, csr.to_owned()).await.err().unwrap();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    let huge = ask_with(fixture.plain().await, Some(&fixture.secret), &metadata, 0, "A".repeat(1 << 20)).await;
    assert_eq!(huge.err().unwrap().code(), Code::OutOfRange);
    let refused = ask(fixture.plain().await, Some(&fixture.secret), &metadata, 91 * 86400).await.err().unwrap();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("at most 7776000 s"), "{refused}");
}

#[tokio::test]
async fn an_expired_certificate_does_not_get_in() {
    let fixture = Fixture::new();
    let metadata = [("NAMESPACE", "shop"), ("SERVICE_ACCOUNT", "web")];
    let (_, brief) = ask(fixture.plain().await, Some(&fixture.secret), &metadata, 1).await.unwrap();
    assert!(ask(fixture.tls(Some(&brief)).await.unwrap(), None, &[], 0).await.is_ok());
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let refused = match fixture.tls(Some(&brief)).await {
        Ok(channel) => ask(channel, None, &[], 0).await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
}

#[tokio::test]
async fn a_workload_registers_itself_and_nobody_else_and_administers_nothing() {
    let fixture = Fixture::new();
    let web = fixture.enrol("shop", "web").await;
    let address = fixture.control.tls_address().unwrap();
    let entry = |namespace: &str, account: &str| {
        serde_json::json!({
            "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
            "metadata": {"name": "web-1", "namespace": namespace},
            "spec": {"address": "127.1.2.3", "serviceAccount": account},
        })
        .to_string()
    };
    let mut config = (*client_config(&fixture.roots(), Some(&web))).clone();
    config.alpn_protocols.clear();
    let config = Arc::new(config);
    let forbidden = [
        ("POST", "/v1/workloads", entry("shop", "admin")),
        ("POST", "/v1/workloads", entry("bank", "web")),
        ("POST", "/v1/workloads", entry("shop", "")),
        ("GET", "/v1/status", String::new()),
        ("GET", "/metrics", String::new()),
        ("GET", "/v1/ca", String::new()),
        ("POST", "/v1/ca/rotate", String::new()),
        ("POST", "/v1/ca/forget-absent", String::new()),
        ("POST", "/v1/tokens", r#"{"namespace": "bank", "serviceAccount": "vault"}"#.to_owned()),
    ];
    for (method, path, body) in forbidden {
        let (status, answer) = send(dial(address, config.clone()).await.unwrap(), None, method, path, &body).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{method} {path} {body}: {answer}");
    }
    let stream = dial(address, config).await.unwrap();
    assert_eq!(send(stream, None, "POST", "/v1/workloads", &entry("shop", "web")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_proxy_gets_the_configuration_of_whom_it_has_proved_to_be() {
    use maille_xds::types::core::Node;
    use maille_xds::types::discovery::DeltaDiscoveryRequest;
    use maille_xds::types::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
    let fixture = Fixture::new();
    let web = fixture.enrol("shop", "web").await;
    for (namespace, account, granted) in
        [("shop", "web", true), ("shop", "", true), ("shop", "admin", false), ("bank", "web", false)]
    {
        let text = |text: &str| Value { kind: Some(ValueKind::StringValue(text.into())) };
        let fields = [("NAMESPACE", text(namespace)), ("SERVICE_ACCOUNT", text(account))];
        let node = Node {
            id: format!("sidecar~127.9.9.9~web-1.{namespace}~{namespace}.svc.cluster.local"),
            metadata: Some(Struct { fields: fields.map(|(name, value)| (name.to_owned(), value)).into() }),
            ..Default::default()
        };
        let request = DeltaDiscoveryRequest {
            node: Some(node),
            type_url: maille_xds::TypeUrl::Cluster.as_str().to_owned(),
            ..Default::default()
        };
        let requests =
            futures_util::StreamExt::chain(futures_util::stream::iter([request]), futures_util::stream::pending());
        let mut client = AggregatedDiscoveryServiceClient::new(fixture.tls(Some(&web)).await.unwrap());
        let mut answers = client.delta_aggregated_resources(requests).await.unwrap().into_inner();
        match answers.message().await {
            Ok(answer) => assert!(granted && answer.is_some(), "{namespace}/{account}"),
            Err(refused) => {
                assert!(!granted, "{refused}");
                assert_eq!(refused.code(), Code::PermissionDenied);
            }
        }
    }
}

#[tokio::test]
async fn secrets_are_in_private_files_and_go_with_the_last_who_knew_them() {
    let fixture = Fixture::new();
    let web = fixture.enrol("shop", "web").await;
    fixture.control.shared.ca.save();
    for (extension, expected) in [("token", 0o600), ("ca", 0o600), ("certificates", 0o600), ("ca.pem", 0o644)] {
        assert_eq!(mode(&fixture.file(extension)), expected, "{extension}");
    }
    assert!(std::fs::read_to_string(fixture.file("ca")).unwrap().contains("PRIVATE KEY"));
    for public in ["ca.pem", "certificates", "tls"] {
        assert!(!std::fs::read_to_string(fixture.file(public)).unwrap().contains("PRIVATE KEY"), "{public}");
    }
    let (private, roots) = (fixture.folder.path().join("private"), fixture.roots());
    let fixture = fixture.restarted(ca::Options::default()).await;
    assert_eq!(fixture.roots(), roots, "somebody holds a certificate of it");
    let leaving = TrustRequest { serial: serial(&web), leaving: true, ..TrustRequest::default() };
    let channel = fixture.tls(Some(&web)).await.unwrap();
    CertificateClient::new(channel).next(Request::new(leaving)).await.unwrap();
    fixture.control.stop().await;
    assert_eq!(std::fs::read_dir(&private).unwrap().count(), 0, "nobody elsewhere knew any of it");

    // Whoever has a token elsewhere knows this CA by its root.
    let fixture = Fixture::new();
    fixture.mint(r#"{"namespace": "shop", "serviceAccount": "web", "ttlSeconds": 60}"#).await;
    let before = fixture.roots();
    assert_ne!(before, roots);
    let fixture = fixture.restarted(ca::Options::default()).await;
    assert_eq!(fixture.roots(), before);
}

#[tokio::test]
async fn a_state_that_cannot_be_read_is_not_replaced_by_a_new_root() {
    let fixture = Fixture::new();
    let (path, port) = (fixture.file("ca"), fixture.control.address().port());
    fixture.mint(r#"{"namespace": "shop", "serviceAccount": "web"}"#).await;
    fixture.control.stop().await;
    for (content, mode, expected) in [("{", 0o600, "is not the state of a CA"), ("{}", 0o644, "mode 644")] {
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        let token = TokenFile::create_in(&fixture.folder.path().join("private"), port).unwrap();
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let store = Arc::new(Store::new());
        let ca = ca::Options::default();
        let options = crate::Options { store, mesh: None, listener, tls: None, ca, token, problems: None };
        let error = start(options).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
    }
}

#[tokio::test]
async fn plain_text_is_for_loopback_alone() {
    let folder = tempfile::tempdir().unwrap();
    let token = TokenFile::create_in(&folder.path().join("private"), 1).unwrap();
    let listener = std::net::TcpListener::bind(("0.0.0.0", 0)).unwrap();
    let (store, ca) = (Arc::new(Store::new()), ca::Options::default());
    let error = start(crate::Options { store, mesh: None, listener, tls: None, ca, token, problems: None });
    let error = error.err().unwrap().to_string();
    assert!(error.contains("is not on loopback"), "{error}");
}
