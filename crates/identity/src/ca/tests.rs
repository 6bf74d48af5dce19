//! What is issued, as openssl sees it; what is plugged in, and what is wrong with it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use super::*;
use crate::csr::{self, Request};
use crate::{SpiffeId, pem};

const HOUR: Duration = Duration::from_secs(3600);

fn web() -> SpiffeId {
    "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap()
}

fn request() -> Request {
    Request::read(&csr::generate().unwrap().1).unwrap()
}

fn shell(folder: &Path, script: &str) -> Output {
    Command::new("sh").args(["-ec", script]).current_dir(folder).output().unwrap()
}

/// Runs a script and gives what it printed; it must succeed.
fn run(folder: &Path, script: &str) -> String {
    let output = shell(folder, script);
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Leaf and chain as files, for openssl.
fn leave(folder: &Path, issued: &Issued, roots: &[CertificateDer<'static>]) {
    fs::write(folder.join("leaf.pem"), pem::encode_certificates(&issued.chain[..1])).unwrap();
    fs::write(folder.join("chain.pem"), pem::encode_certificates(&issued.chain[1..])).unwrap();
    fs::write(folder.join("roots.pem"), pem::encode_certificates(roots)).unwrap();
}

#[test]
fn openssl_believes_what_every_kind_of_root_issues() {
    for kind in [KeyKind::EcdsaP256, KeyKind::Rsa2048, KeyKind::Rsa4096] {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let (root, _) = Signer::new_root("cluster.local", kind, now).unwrap();
        let issued = root.issue(&request(), &web().into(), DEFAULT_LEAF_TTL, now).unwrap();
        leave(folder.path(), &issued, &[root.certificate().clone()]);
        for purpose in ["sslserver", "sslclient"] {
            run(folder.path(), &format!("openssl verify -x509_strict -purpose {purpose} -CAfile roots.pem leaf.pem"));
        }
        let text = run(folder.path(), "openssl x509 -in leaf.pem -noout -text -certopt ext_dump");
        for expected in [
            "X509v3 Subject Alternative Name: critical\n                URI:spiffe://cluster.local/ns/shop/sa/web\n",
            "X509v3 Key Usage: critical\n                Digital Signature, Key Encipherment\n",
            "X509v3 Extended Key Usage: \n                TLS Web Server Authentication, TLS Web Client Authentication\n",
            "X509v3 Basic Constraints: critical\n                CA:FALSE\n",
            "X509v3 Authority Key Identifier",
            "Subject: \n",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in {text}");
        }
        let number = run(folder.path(), "openssl x509 -in leaf.pem -noout -serial");
        assert_eq!(number.trim().trim_start_matches("serial=").to_lowercase(), issued.serial);
        let text = run(folder.path(), "openssl x509 -in roots.pem -noout -text");
        assert!(text.contains("CA:TRUE") && text.contains("Certificate Sign, CRL Sign"), "{text}");
        assert!(
            text.contains("O = cluster.local, CN = maille root ") || text.contains("O=cluster.local, CN=maille root ")
        );
    }
}

#[test]
fn names_come_from_whoever_was_proven_and_not_from_the_request() {
    let (_, hostile) = {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["bank.example".to_owned()]).unwrap();
        let uri = "spiffe://cluster.local/ns/istio-system/sa/istiod".try_into().unwrap();
        params.subject_alt_names.push(rcgen::SanType::URI(uri));
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        (key, pem)
    };
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let (root, _) = Signer::new_root("cluster.local", KeyKind::default(), now).unwrap();
    let issued = root.issue(&Request::read(&hostile).unwrap(), &web().into(), HOUR, now).unwrap();
    leave(folder.path(), &issued, &[]);
    let text = run(folder.path(), "openssl x509 -in leaf.pem -noout -text");
    assert!(text.contains("URI:spiffe://cluster.local/ns/shop/sa/web\n"), "{text}");
    for asked in ["bank.example", "istiod", "CA:TRUE", "Certificate Sign", "rcgen"] {
        assert!(!text.contains(asked), "{asked} was asked for and given: {text}");
    }
    // A common name was asked for: it is the identity, in Istio's dual use.
    assert!(text.contains("Subject: CN = spiffe://") || text.contains("Subject: CN=spiffe://"), "{text}");
}

#[test]
fn a_leaf_lives_as_long_as_it_may_and_no_longer_than_its_signer() {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let (root, key) = Signer::new_root("td", KeyKind::default(), start).unwrap();
    let issue = |ttl, now| root.issue(&request(), &web().into(), ttl, now);
    assert_eq!(issue(HOUR, start).unwrap().not_after, start + HOUR);
    assert!(matches!(issue(MAX_LEAF_TTL + HOUR, start), Err(CaError::TooLong { .. })));
    assert_eq!(issue(MAX_LEAF_TTL, start).unwrap().not_after, start + MAX_LEAF_TTL);
    let nearly = start + ROOT_TTL - Duration::from_secs(60);
    assert_eq!(issue(HOUR, nearly).unwrap().not_after, root.not_after());
    assert!(matches!(issue(HOUR, root.not_after()), Err(CaError::Expired)));
    assert!(matches!(Signer::root(root.certificate().clone(), &key, root.not_after()), Err(CaError::Expired)));
    assert!(Signer::root(root.certificate().clone(), &key, nearly).is_ok());
}

#[test]
fn numbers_are_random_and_positive() {
    let now = SystemTime::now();
    let (root, _) = Signer::new_root("td", KeyKind::default(), now).unwrap();
    let request = request();
    let numbers: std::collections::BTreeSet<String> =
        (0..50).map(|_| root.issue(&request, &web().into(), HOUR, now).unwrap().serial).collect();
    assert_eq!(numbers.len(), 50);
    assert!(numbers.iter().all(|number| number.len() == 32));
}

/// A root, an intermediate and what leads from one to the other, in the layout of `cacerts`.
const MAKE: &str = r#"
openssl req -x509 -newkey KIND -nodes -keyout root-key.pem -out root-cert.pem -days 30 -subj "/O=Acme, Inc./CN=Acmé Root" -utf8 \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign 2>/dev/null
make() { # NAME SIGNER
  openssl req -newkey KIND -nodes -keyout $1-key.pem -out $1.csr -subj "/C=FR/O=Acme/CN=$1" 2>/dev/null
  printf 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n' > ext
  openssl x509 -req -in $1.csr -CA $2-cert.pem -CAkey $2-key.pem -CAcreateserial -out $1-cert.pem -days 20 -extfile ext 2>/dev/null
}
make middle root; make ca middle
cat ca-cert.pem middle-cert.pem root-cert.pem > cert-chain.pem
"#;

fn cacerts(folder: &Path) -> Cacerts {
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    Cacerts {
        certificate: read("ca-cert.pem"),
        key: Secret(read("ca-key.pem")),
        chain: read("cert-chain.pem"),
        roots: read("root-cert.pem"),
    }
}

#[test]
fn a_plugged_in_ca_issues_what_leads_to_its_root() {
    for kind in ["rsa:2048", "ec -pkeyopt ec_paramgen_curve:P-256", "ec -pkeyopt ec_paramgen_curve:P-384"] {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), &MAKE.replace("KIND", kind));
        let (signer, roots) = Signer::plugged_in(&cacerts(folder.path()), SystemTime::now()).unwrap();
        assert_eq!((signer.chain().len(), roots.len()), (2, 1), "{kind}");
        let issued = signer.issue(&request(), &web().into(), HOUR, SystemTime::now()).unwrap();
        leave(folder.path(), &issued, &roots);
        run(folder.path(), "openssl verify -purpose sslserver -CAfile roots.pem -untrusted chain.pem leaf.pem");
        // Without what is between them there is no way.
        assert!(!shell(folder.path(), "openssl verify -CAfile roots.pem leaf.pem").status.success());
    }
}

#[test]
fn the_key_of_a_plugged_in_ca_may_be_in_any_of_its_forms() {
    let folder = tempfile::tempdir().unwrap();
    for (kind, form) in [("rsa:2048", "rsa -traditional"), ("ec -pkeyopt ec_paramgen_curve:P-256", "ec")] {
        run(folder.path(), &MAKE.replace("KIND", kind));
        run(folder.path(), &format!("openssl {form} -in ca-key.pem -out old 2>/dev/null; mv old ca-key.pem"));
        let files = cacerts(folder.path());
        assert!(String::from_utf8_lossy(&files.key.0).contains("PRIVATE KEY"));
        Signer::plugged_in(&files, SystemTime::now()).unwrap();
    }
}

#[test]
fn a_root_may_be_plugged_in_too() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &MAKE.replace("KIND", "ec -pkeyopt ec_paramgen_curve:P-256"));
    run(folder.path(), "cp root-cert.pem ca-cert.pem; cp root-key.pem ca-key.pem; cp root-cert.pem cert-chain.pem");
    let (signer, _) = Signer::plugged_in(&cacerts(folder.path()), SystemTime::now()).unwrap();
    assert!(signer.chain().is_empty());
}

#[test]
fn what_cannot_be_plugged_in_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &MAKE.replace("KIND", "ec -pkeyopt ec_paramgen_curve:P-256"));
    let good = cacerts(folder.path());
    let leaf = {
        let (signer, _) = Signer::plugged_in(&good, SystemTime::now()).unwrap();
        let (key, csr) = csr::generate().unwrap();
        let issued = signer.issue(&Request::read(&csr).unwrap(), &web().into(), HOUR, SystemTime::now()).unwrap();
        (pem::encode_certificates(&issued.chain[..1]).into_bytes(), pem::encode_key(&key).into_bytes())
    };
    let root_key = fs::read(folder.path().join("root-key.pem")).unwrap();
    let with = |change: &dyn Fn(&mut Cacerts)| {
        let mut files = good.clone();
        change(&mut files);
        Signer::plugged_in(&files, SystemTime::now()).map(|_| ()).unwrap_err().to_string()
    };
    for (problem, expected) in [
        (with(&|files| files.certificate.clear()), "ca-cert.pem: there is no certificate in it"),
        (with(&|files| files.certificate.truncate(100)), "ca-cert.pem: "),
        (with(&|files| files.key.0.clear()), "ca-key.pem: "),
        (with(&|files| files.key = Secret(root_key.clone())), "ca-key.pem: it is not the key of the CA's certificate"),
        (with(&|files| files.roots.clear()), "root-cert.pem: there is no certificate in it"),
        (with(&|files| files.chain.clear()), "cert-chain.pem: what the CA issues does not lead to a root"),
        (
            with(&|files| (files.certificate, files.key) = (leaf.0.clone(), Secret(leaf.1.clone()))),
            "ca-cert.pem: it is not the certificate of a CA",
        ),
    ] {
        assert!(problem.starts_with(expected), "{problem} is not {expected}");
    }
    let later = SystemTime::now() + 25 * 24 * HOUR;
    assert!(matches!(Signer::plugged_in(&good, later), Err(CaError::Expired)));
    assert!(!format!("{good:?}").contains("PRIVATE") && format!("{good:?}").contains("key: …"));
}

#[test]
fn what_was_made_is_read_back_and_signs_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    for kind in [KeyKind::EcdsaP256, KeyKind::Rsa2048] {
        let (first, key) = Signer::new_root("td", kind, now).unwrap();
        let key = pem::key(pem::encode_key(&key).as_bytes()).unwrap();
        let again = Signer::root(first.certificate().clone(), &key, now).unwrap();
        assert_eq!(first.key_id(), again.key_id());
        leave(
            folder.path(),
            &again.issue(&request(), &web().into(), HOUR, now).unwrap(),
            &[first.certificate().clone()],
        );
        run(folder.path(), "openssl verify -CAfile roots.pem leaf.pem");
        let (_, other) = Signer::new_root("td", kind, now).unwrap();
        assert!(Signer::root(first.certificate().clone(), &other, now).is_err());
    }
}
