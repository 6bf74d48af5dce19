//! Rotations, interrupted in every phase; and a CA that is plugged in and changes.

use std::process::Command;
use std::time::Instant;

use maille_api::parse;
use maille_identity::rotation::Phase;
use maille_store::Change;
use maille_xds::certificates::TrustResponse;

use super::*;

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// What an agent does, one step at a time.
struct Agent {
    credential: Credential,
    authority: String,
}

impl Agent {
    async fn new(fixture: &Fixture, account: &str) -> Self {
        let credential = fixture.enrol("shop", account).await;
        Self { credential, authority: fixture.control.shared.ca.trust().authority.clone() }
    }

    fn serial(&self) -> String {
        serial(&self.credential)
    }

    fn trust(&self) -> String {
        pem::fingerprint(&pem::certificates(self.credential.roots.as_bytes()).unwrap())
    }

    /// Says what it has and hears what there is.
    async fn hear(&mut self, fixture: &Fixture, leaving: bool) -> TrustResponse {
        let channel = channel(fixture.control.tls_address().unwrap(), &self.credential.roots, Some(&self.credential));
        let request =
            TrustRequest { serial: self.serial(), trust: self.trust(), authority: self.authority.clone(), leaving };
        let news = CertificateClient::new(channel.await.unwrap()).next(Request::new(request)).await.unwrap();
        self.credential.roots = news.roots.clone();
        self.authority = news.authority.clone();
        news
    }

    async fn renew(&mut self, fixture: &Fixture) {
        let serial = self.serial();
        let channel = channel(fixture.control.tls_address().unwrap(), &self.credential.roots, Some(&self.credential));
        self.credential = ask(channel.await.unwrap(), None, &[("REPLACES", &serial)], 0).await.unwrap().1;
    }
}

async fn until(fixture: &Fixture, phase: Phase) {
    let end = Instant::now() + PATIENCE;
    while fixture.control.shared.ca.phase() != phase {
        assert!(Instant::now() < end, "still in {}", fixture.control.shared.ca.phase());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether nothing changes for a while that should not.
async fn stays(fixture: &Fixture, phase: Phase) {
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(fixture.control.shared.ca.phase(), phase);
}

#[tokio::test]
async fn a_rotation_waits_for_everybody_and_resumes_where_it_was_interrupted() {
    let mut fixture = Fixture::new();
    let (mut web, mut db) = (Agent::new(&fixture, "web").await, Agent::new(&fixture, "db").await);
    let old = fixture.roots();
    let (status, answer) = fixture.http("POST", "/v1/ca/rotate", "").await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(fixture.http("POST", "/v1/ca/rotate", "").await.0, StatusCode::CONFLICT);

    // Distribute: both are told; the old root signs until both have said that they believe the new one.
    let both = web.hear(&fixture, false).await.roots;
    assert!(both.contains(old.trim()) && both.len() > old.len());
    stays(&fixture, Phase::Distribute).await;
    fixture.control.shared.ca.save();
    fixture = fixture.restarted(ca::Options::default()).await;
    stays(&fixture, Phase::Distribute).await;
    assert_eq!(fixture.control.ca_status().waiting, 2, "{:?}", fixture.control.ca_status());
    db.hear(&fixture, false).await;
    // Having taken it they ask again, and are kept waiting until there is more to hear.
    let (web_hears, db_hears) = tokio::join!(web.hear(&fixture, false), db.hear(&fixture, false));
    assert_eq!((web_hears.roots.len(), db_hears.roots.len()), (both.len(), both.len()));
    until(&fixture, Phase::Reissue).await;
    assert_eq!(web_hears.authority, fixture.control.shared.ca.trust().authority, "the new root signs");

    // Re-issue.
    web.renew(&fixture).await;
    stays(&fixture, Phase::Reissue).await;
    fixture.control.shared.ca.save();
    fixture = fixture.restarted(ca::Options::default()).await;
    stays(&fixture, Phase::Reissue).await;
    // Who believes the old root alone still recognises the control plane.
    let late = channel(fixture.control.tls_address().unwrap(), &old, None).await;
    assert!(late.is_ok(), "{:?}", late.err());
    db.renew(&fixture).await;

    // Retire.
    until(&fixture, Phase::Retire).await;
    fixture.control.shared.ca.save();
    fixture = fixture.restarted(ca::Options::default()).await;
    stays(&fixture, Phase::Retire).await;
    let (web_hears, db_hears) = tokio::join!(web.hear(&fixture, false), db.hear(&fixture, false));
    let new = fixture.roots();
    assert!(!new.contains(old.trim()) && both.contains(new.trim()));
    assert_eq!((&web_hears.roots, &db_hears.roots), (&new, &new));
    let control = fixture.control.shared.clone();
    let waiting = async { (web.hear(&fixture, false).await, db.hear(&fixture, false).await) };
    tokio::select! {
        _ = waiting => panic!("there is no more news"),
        () = async {
            // The one is waiting, the other waits behind it: say it for the other.
            drop(control.ca.asks(&db_serial(&control), None, &control.ca.trust().hash));
            until(&fixture, Phase::Steady).await;
        } => {}
    }
    // Nothing of the old root is left on disk.
    let kept = std::fs::read_to_string(fixture.file("ca")).unwrap();
    assert_eq!(kept.matches("BEGIN CERTIFICATE").count(), 1);
}

fn db_serial(shared: &crate::Shared) -> String {
    let status = shared.ca.status();
    status.soonest.iter().find(|holder| holder.id.ends_with("/db")).unwrap().serial.clone()
}

#[tokio::test]
async fn a_rotation_with_nobody_in_the_mesh_is_over_at_once() {
    let fixture = Fixture::new();
    let before = fixture.roots();
    fixture.http("POST", "/v1/ca/rotate", "").await;
    until(&fixture, Phase::Steady).await;
    assert_ne!(fixture.roots(), before);
}

#[tokio::test]
async fn whoever_leaves_is_not_waited_for_and_nobody_speaks_for_another() {
    let fixture = Fixture::new();
    let mut web = Agent::new(&fixture, "web").await;
    let db = Agent::new(&fixture, "db").await;
    fixture.http("POST", "/v1/ca/rotate", "").await;
    // web says that db leaves, and that db believes whatever there is.
    let lie = |leaving| TrustRequest { serial: db.serial(), trust: String::new(), authority: String::new(), leaving };
    for leaving in [true, false] {
        let channel = fixture.tls(Some(&web.credential)).await.unwrap();
        CertificateClient::new(channel).next(Request::new(lie(leaving))).await.unwrap();
    }
    assert_eq!(fixture.control.ca_status().holders, 2);
    web.hear(&fixture, true).await;
    stays(&fixture, Phase::Distribute).await;
    assert_eq!(fixture.control.ca_status().waiting, 1);
    let channel = fixture.tls(Some(&db.credential)).await.unwrap();
    CertificateClient::new(channel).next(Request::new(lie(true))).await.unwrap();
    until(&fixture, Phase::Steady).await;
}

/// A root and a CA under it, in the layout of `cacerts`.
fn cacerts(folder: &Path, name: &str) {
    let script = format!(
        r#"
mkdir -p new && cd new
[ -f ../root-key.pem ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ../root-key.pem \
    -out ../root.pem -days 3 -subj "/CN=root" -addext keyUsage=critical,keyCertSign
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca-key.pem -out csr -subj "/CN={name}"
printf 'basicConstraints=critical,CA:TRUE\nsubjectKeyIdentifier=hash\n' > ext
openssl x509 -req -in csr -CA ../root.pem -CAkey ../root-key.pem -CAcreateserial -out ca-cert.pem -days 2 -extfile ext
cp ../root.pem root-cert.pem; cat ca-cert.pem ../root.pem > cert-chain.pem
cd ..; mkdir -p cacerts; mv new/ca-key.pem new/*cert.pem new/cert-chain.pem cacerts/
"#
    );
    let output = Command::new("sh").args(["-ec", &script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn issuer(fixture: &Fixture) -> (String, usize) {
    let credential = fixture.enrol("shop", "web").await;
    use x509_parser::prelude::FromDer;
    let (_, leaf) = x509_parser::certificate::X509Certificate::from_der(&credential.chain[0]).unwrap();
    (leaf.issuer().to_string(), credential.chain.len())
}

#[tokio::test]
async fn a_ca_that_is_plugged_in_signs_and_is_replaced_without_a_restart() {
    let place = tempfile::tempdir().unwrap();
    cacerts(place.path(), "first");
    let options = ca::Options { cacerts: Some(place.path().join("cacerts")), ..ca::Options::default() };
    let fixture = Fixture::on(0, tempfile::tempdir().unwrap(), options);
    assert_eq!(issuer(&fixture).await, ("CN=first".to_owned(), 2));
    assert!(fixture.tls(None).await.is_ok(), "the control plane's own certificate leads to the same root");
    let (status, answer) = fixture.http("POST", "/v1/ca/rotate", "").await;
    assert!(status == StatusCode::CONFLICT && answer.contains("is plugged in from"), "{answer}");

    // Something broken changes nothing.
    std::fs::write(place.path().join("cacerts/ca-key.pem"), "-----BEGIN").unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(issuer(&fixture).await.0, "CN=first");
    cacerts(place.path(), "second");
    let end = Instant::now() + PATIENCE;
    while issuer(&fixture).await.0 != "CN=second" {
        assert!(Instant::now() < end, "it is not taken into use");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let status = fixture.control.ca_status();
    assert_eq!((status.roots.len(), status.intermediates.len()), (1, 1));
    assert!(status.intermediates[0].signs && !status.roots[0].signs);
}

#[tokio::test]
async fn the_secret_cacerts_is_as_good_as_files() {
    let place = tempfile::tempdir().unwrap();
    cacerts(place.path(), "from a Secret");
    let fixture = Fixture::new();
    let mut secret =
        "apiVersion: v1\nkind: Secret\nmetadata: {name: cacerts, namespace: istio-system}\nstringData:\n".to_owned();
    for name in ["ca-cert.pem", "ca-key.pem", "cert-chain.pem", "root-cert.pem"] {
        let text = std::fs::read_to_string(place.path().join("cacerts").join(name)).unwrap();
        secret += &format!("  {name}: {}\n", serde_json::Value::from(text));
    }
    let loaded = parse::load(&secret, "secret.yaml");
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    fixture.store.apply("test", loaded.objects.into_iter().map(Change::Put).collect());
    let end = Instant::now() + PATIENCE;
    while issuer(&fixture).await.0 != "CN=from a Secret" {
        assert!(Instant::now() < end, "it is not taken into use");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
