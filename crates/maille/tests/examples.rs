//! Every folder of `examples/` works as it stands: traffic goes through each, on maille's proxy and on a real Envoy.

#[path = "support/mesh.rs"]
mod mesh;

use mesh::{Mesh, data_planes, free_port, request, serve};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Not a test of its own: what workloads and clients of the other tests run.
#[test]
fn job() {
    mesh::job();
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name)
}

/// A copy of an example in which some words differ: ports and addresses that must be free here.
fn example_with(name: &str, swaps: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(example(name)).unwrap() {
        let file = file.unwrap();
        let mut text = std::fs::read_to_string(file.path()).unwrap();
        for (from, to) in swaps {
            text = text.replace(from, to);
        }
        std::fs::write(dir.path().join(file.file_name()), text).unwrap();
    }
    dir
}

fn all_ok(answers: &[String]) -> bool {
    answers.iter().all(|a| a.starts_with("HTTP/1.1 200"))
}

fn served_by(answers: &[String], name: &str) -> usize {
    answers.iter().filter(|a| a.trim_end().ends_with(name)).count()
}

#[test]
fn canary_80_to_20() {
    for proxy in data_planes() {
        let mut mesh = Mesh::up(&example("canary"), proxy);
        mesh.workload("v1", "my-svc", &["--version", "v1", "--port", "8080"]);
        mesh.workload("v2", "my-svc", &["--version", "v2", "--port", "8080"]);
        let answers = mesh.ask_until("http://vmapp.jianghao.tech/", "", 400, all_ok);
        let v2 = served_by(&answers, "v2");
        assert!((40..=120).contains(&v2), "{proxy}: v2 served {v2} of 400, 80 were due");
    }
}

#[test]
fn plaintext_towards_a_service() {
    for proxy in data_planes() {
        let mut mesh = Mesh::up(&example("plaintext"), proxy);
        mesh.workload("a", "my-svc", &["--port", "8080"]);
        mesh.ask_until("http://my-svc/", "", 3, all_ok);
    }
}

#[test]
fn least_request() {
    for proxy in data_planes() {
        let mut mesh = Mesh::up(&example("least-request"), proxy);
        for name in ["r1", "r2"] {
            mesh.workload(name, "ratings", &["--namespace", "prod", "--port", "9080"]);
        }
        let url = "http://ratings.prod.svc.cluster.local/ratings/1";
        mesh.ask_until(url, "", 60, |a| all_ok(a) && served_by(a, "r1") > 0 && served_by(a, "r2") > 0);
    }
}

#[test]
fn the_same_cookie_the_same_endpoint() {
    for proxy in data_planes() {
        let mut mesh = Mesh::up(&example("sticky-cookie"), proxy);
        for name in ["r1", "r2"] {
            mesh.workload(name, "ratings", &["--namespace", "prod", "--port", "9080"]);
        }
        let url = "http://ratings.prod.svc.cluster.local/ratings/1";
        // Without the cookie each client is given one of its own, so both endpoints serve.
        let fresh = mesh.ask_until(url, "", 60, |a| all_ok(a) && served_by(a, "r1") > 0 && served_by(a, "r2") > 0);
        assert!(fresh.iter().all(|a| a.to_lowercase().contains("set-cookie: user=")), "{proxy}: {}", fresh[0]);
        let sticky = mesh.ask(url, "cookie: user=jianghao", 60);
        assert!(all_ok(&sticky));
        let r1 = served_by(&sticky, "r1");
        assert!(r1 == 0 || r1 == 60, "{proxy}: one cookie, but r1 served {r1} of 60");
    }
}

#[test]
fn connection_pool() {
    for proxy in data_planes() {
        let mut mesh = Mesh::up(&example("connection-pool"), proxy);
        mesh.workload("c", "myredissrv", &["--namespace", "prod", "--port", "6380"]);
        mesh.ask_until("http://myredissrv.prod/", "", 5, all_ok);
    }
}

#[test]
fn circuit_breaker() {
    for proxy in data_planes() {
        let mut mesh = Mesh::up(&example("circuit-breaker"), proxy);
        mesh.workload("r1", "reviews", &["--namespace", "prod", "--port", "9080"]);
        mesh.ask_until("http://reviews.prod/", "", 5, all_ok);
    }
}

#[test]
fn external_service() {
    let port = free_port();
    for address in ["127.0.0.2", "127.0.0.3"] {
        let listener = TcpListener::bind((address, port)).unwrap();
        std::thread::spawn(move || serve(listener, address.to_owned()));
    }
    let config = example_with("external-service", &[("8081", &port.to_string())]);
    for proxy in data_planes() {
        let mesh = Mesh::up(config.path(), proxy);
        let both = |a: &[String]| all_ok(a) && served_by(a, "127.0.0.2") > 0 && served_by(a, "127.0.0.3") > 0;
        mesh.ask_until("http://www.jianghao.tech/", "", 40, both);
    }
}

#[test]
fn virtual_machine_behind_a_gateway() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let vm = listener.local_addr().unwrap().port();
    std::thread::spawn(move || serve(listener, "vm1".to_owned()));
    for proxy in data_planes() {
        let edge = free_port();
        let config =
            example_with("virtual-machine", &[("8082", &vm.to_string()), ("number: 80", &format!("number: {edge}"))]);
        let mesh = Mesh::up(config.path(), proxy);
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let answer = request(edge, "vmapp.jianghao.tech", "/", "").unwrap_or_default();
            if answer.starts_with("HTTP/1.1 200") && answer.trim_end().ends_with("vm1") {
                break;
            }
            assert!(Instant::now() < end, "{proxy}: {answer}\nthe mesh said:\n{}", mesh.up.said());
            std::thread::sleep(Duration::from_millis(200));
        }
        let other = request(edge, "elsewhere.example", "/", "").unwrap();
        assert!(other.starts_with("HTTP/1.1 404"), "{proxy}: {other}");
    }
}

#[test]
fn tls_at_the_edge_on_envoy() {
    if !data_planes().contains(&"envoy") {
        return;
    }
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let page = backend.local_addr().unwrap().port();
    std::thread::spawn(move || serve(backend, "productpage".to_owned()));
    let certs = tempfile::tempdir().unwrap();
    let (crt, key) = (certs.path().join("servercert.pem"), certs.path().join("privatekey.pem"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=uk.bookinfo.com"])
        .args(["-addext", "subjectAltName=DNS:uk.bookinfo.com"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&crt)
        .output()
        .expect("openssl makes the certificate of this test");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let (http, https) = (free_port(), free_port());
    let config = example_with(
        "gateway-tls",
        &[
            ("number: 80\n", &format!("number: {http}\n")),
            ("number: 443\n", &format!("number: {https}\n")),
            ("http: 9080", &format!("http: {page}")),
            ("/etc/certs", &certs.path().display().to_string()),
        ],
    );
    let mesh = Mesh::up(config.path(), "envoy");
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let asked = std::process::Command::new("curl")
            .args(["-s", "-m", "5", "--cacert"])
            .arg(&crt)
            .args([
                "--resolve",
                &format!("uk.bookinfo.com:{https}:127.0.0.1"),
                &format!("https://uk.bookinfo.com:{https}/"),
            ])
            .output()
            .expect("curl asks over TLS");
        if String::from_utf8_lossy(&asked.stdout).trim() == "productpage" {
            break;
        }
        assert!(Instant::now() < end, "no answer over TLS\nthe mesh said:\n{}", mesh.up.said());
        std::thread::sleep(Duration::from_millis(200));
    }
    let plain = request(http, "uk.bookinfo.com", "/x", "").unwrap();
    assert!(plain.starts_with("HTTP/1.1 301") && plain.contains("location: https://uk.bookinfo.com"), "{plain}");
}
