//! The CA and the ways to it as processes: what `maille ca status` says by its exit code, and who may ask from where.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const MAILLE: &str = env!("CARGO_BIN_EXE_maille");

fn free_port() -> u16 {
    maille_net::free_port(Ipv4Addr::LOCALHOST.into()).unwrap()
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(40);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "never came: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A process that ends with the test.
struct Running(Child);

impl Running {
    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.0.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that was stopped would not hear of it.
        self.signal("-CONT");
        self.signal("-TERM");
        let _ = self.0.wait();
    }
}

/// A control plane with folders of its own.
struct Plane {
    _up: Running,
    dir: tempfile::TempDir,
    control: String,
    tls: u16,
}

impl Plane {
    fn start(config: &str, more: &[&str]) -> Plane {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["config", "runtime"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        fs::write(dir.path().join("config/mesh.yaml"), config).unwrap();
        let (port, tls) = (free_port(), free_port());
        let mut up = maille(dir.path());
        up.args([
            "up",
            "--xds-port",
            &port.to_string(),
            "--tls-address",
            &format!("127.0.0.1:{tls}"),
            "--proxy",
            "none",
        ]);
        up.args(more).arg("-f").arg(dir.path().join("config"));
        let up = Running(up.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let plane = Plane { _up: up, dir, control: format!("127.0.0.1:{port}"), tls };
        eventually("the control plane", || plane.status(&[]).status.code().filter(|code| *code != 2));
        plane
    }

    fn status(&self, more: &[&str]) -> Output {
        maille(self.dir.path()).args(["ca", "status", "--control", &self.control]).args(more).output().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn maille(dir: &Path) -> Command {
    let mut command = Command::new(MAILLE);
    command.env("XDG_RUNTIME_DIR", dir.join("runtime")).stdin(Stdio::null());
    command
}

#[test]
fn status_tells_by_its_exit_code_that_a_root_is_close_to_its_end() {
    let plane = Plane::start("", &[]);
    let fine = plane.status(&[]);
    assert_eq!((fine.status.code(), text(&fine.stderr)), (Some(0), String::new()));
    for format in ["text", "json"] {
        let late = plane.status(&["--within", "100000d", "-o", format]);
        assert_eq!(late.status.code(), Some(1), "{format}");
        assert!(text(&late.stderr).starts_with("close to its end: "), "{}", text(&late.stderr));
        assert_eq!(text(&late.stdout).contains("\"close\":[\""), format == "json", "{}", text(&late.stdout));
    }
}

#[test]
fn status_tells_by_its_exit_code_that_a_certificate_is_not_renewed() {
    let plane = Plane::start("", &["--leaf-ttl", "20s"]);
    let mut run = maille(plane.dir.path());
    run.args(["run", "--name", "late", "--service", "late", "--control", &plane.control, "--", "sleep", "600"]);
    let run = Running(run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let holds = || text(&plane.status(&[]).stdout).contains("/sa/");
    eventually("a certificate", || holds().then_some(()));
    assert_eq!(plane.status(&[]).status.code(), Some(0), "it is new");
    run.signal("-STOP");
    let late = eventually("an end that is close", || Some(plane.status(&[])).filter(|said| !said.status.success()));
    assert_eq!(late.status.code(), Some(1));
    let said = text(&late.stderr);
    assert!(said.starts_with("close to its end: spiffe://") && said.contains("/sa/"), "{said}");
}

#[test]
fn nobody_to_ask_is_exit_code_2() {
    let dir = tempfile::tempdir().unwrap();
    let control = format!("127.0.0.1:{}", free_port());
    let output = maille(dir.path()).args(["ca", "status", "--control", &control]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
}

/// Nothing but TLS and a token goes to another machine.
#[test]
fn another_machine_is_asked_over_tls_alone() {
    let dir = tempfile::tempdir().unwrap();
    let far = ["--control", "192.0.2.1:15010"];
    let token = dir.path().join("token");
    fs::write(&token, "a token").unwrap();
    let token = token.to_str().unwrap();
    let missing = ["--ca-file", "missing.pem", "--token-file", token];
    let way = "192.0.2.1:15010 is another machine: give its TLS port, with --ca-file and --token-file";
    let cases: [(&[&str], &[&str], &str); 6] = [
        (&["proxy"], &[], way),
        (&["run", "--name", "a", "--service", "a"], &["--", "true"], way),
        (&["ca", "status"], &[], "192.0.2.1:15010 is another machine: ask there"),
        (&["ca", "rotate"], &[], "192.0.2.1:15010 is another machine: ask there"),
        (&["proxy", "--token-file", token], &[], "--ca-file"),
        (&["proxy"], &missing, "cannot read missing.pem"),
    ];
    for (command, more, said) in cases {
        let output = maille(dir.path()).args(command).args(far).args(more).output().unwrap();
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {error}");
        assert!(error.contains(said), "{command:?}: {error}");
    }
}

const GATEWAY: &str = "\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: PORT, name: http, protocol: HTTP}, hosts: ['*']}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: istio-system}
spec: {hosts: ['*'], gateways: [edge], http: [{directResponse: {status: 200, body: {string: here}}}]}
";

/// A gateway of another machine: over TLS, by a token of its own, and not by one that is for somebody else.
#[test]
fn a_proxy_of_another_machine_is_configured_over_tls() {
    let port = free_port();
    let plane = Plane::start(&GATEWAY.replace("PORT", &port.to_string()), &[]);
    let (ca, token) = (plane.path("ca.pem"), plane.path("token"));
    let mint = |namespace: &str| {
        let _ = fs::remove_file(&token);
        let mut create = maille(plane.dir.path());
        create.args(["token", "create", "--control", &plane.control, "--namespace", namespace, "--out"]).arg(&token);
        assert!(create.arg("--ca-out").arg(&ca).status().unwrap().success());
    };
    let start = || {
        // It knows nothing of this machine's control plane.
        let elsewhere = tempfile::tempdir().unwrap();
        let mut proxy = maille(elsewhere.path());
        proxy.args(["proxy", "--namespace", "istio-system", "--labels", "istio=ingressgateway", "--concurrency", "1"]);
        proxy.args(["--control", &format!("127.0.0.1:{}", plane.tls), "--ca-file"]).arg(&ca);
        proxy.arg("--token-file").arg(&token).stdout(Stdio::null()).stderr(Stdio::null());
        Running(proxy.spawn().unwrap())
    };
    let answers = || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.ends_with("here").then_some(())
    };
    mint("elsewhere");
    let refused = start();
    std::thread::sleep(Duration::from_secs(3));
    assert!(answers().is_none(), "a token of another namespace");
    drop(refused);
    mint("istio-system");
    let _proxy = start();
    eventually("the gateway's answer", answers);
}
