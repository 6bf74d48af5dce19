//! A mesh to measure: a directory of Istio YAML, `maille up` on it, and the gateway process it starts.

use crate::identity::Identity;
use crate::process::{self, Process};
use anyhow::Context;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The binary under test: `$MAILLE`, else the release build.
pub(crate) fn maille() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("MAILLE").map_or_else(|| PathBuf::from("target/release/maille"), PathBuf::from);
    anyhow::ensure!(
        path.is_file(),
        "{} is not there: run `cargo build --release` first, or set MAILLE",
        path.display()
    );
    Ok(path)
}

/// Writes a file of the configuration the way editors do: a new file, renamed over the old one.
pub(crate) fn write(dir: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let temporary = dir.join(format!(".{name}.tmp"));
    fs::write(&temporary, text)?;
    fs::rename(temporary, dir.join(name)).with_context(|| format!("cannot write {name}"))
}

/// `maille up` on `config`; the gateway listens on the port that the configuration says.
pub(crate) fn up(config: &Path, xds_port: u16, proxy: &str, log: &Path) -> anyhow::Result<Process> {
    let (config, xds_port) = (config.display().to_string(), xds_port.to_string());
    Process::start(
        &format!("maille up --proxy {proxy}"),
        &maille()?,
        &["up", "-f", &config, "--xds-port", &xds_port, "--proxy", proxy, "--concurrency", "1"],
        log,
    )
}

/// The process id of the one gateway that a `maille up` started.
pub(crate) fn gateway_pid(up: &Process) -> anyhow::Result<u32> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let [pid] = process::children(up.pid())[..] {
            return Ok(pid);
        }
        anyhow::ensure!(
            Instant::now() < end,
            "{} has {} children, not the one gateway",
            up.name,
            process::children(up.pid()).len()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A Gateway on `port` for every host.
pub(crate) fn gateway(port: u16) -> String {
    gateway_of(port, "HTTP")
}

/// A Gateway on `port` that speaks `protocol`.
pub(crate) fn gateway_of(port: u16, protocol: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge, namespace: bench}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
  - port: {{number: {port}, name: edge, protocol: {protocol}}}
    hosts: [\"*\"]
"
    )
}

/// A Gateway on `port` that ends TLS, and the Secret with its certificate.
pub(crate) fn tls_gateway(port: u16, identity: &Identity) -> String {
    let indented = |pem: &str| pem.lines().map(|l| format!("    {l}\n")).collect::<String>();
    format!(
        "{}    tls: {{mode: SIMPLE, credentialName: edge}}
---
apiVersion: v1
kind: Secret
metadata: {{name: edge, namespace: istio-system}}
type: kubernetes.io/tls
stringData:
  tls.crt: |
{}  tls.key: |
{}",
        gateway_of(port, "HTTPS"),
        indented(&identity.certificate),
        indented(&identity.key)
    )
}

/// A service `NAME.example` with one endpoint per (port, version).
pub(crate) fn service(name: &str, endpoints: &[(u16, &str)]) -> String {
    service_of(name, "HTTP", endpoints)
}

/// The same, of another protocol.
pub(crate) fn service_of(name: &str, protocol: &str, endpoints: &[(u16, &str)]) -> String {
    let port_name = protocol.to_ascii_lowercase();
    let list: String = endpoints
        .iter()
        .map(|(port, version)| {
            format!("  - {{address: 127.0.0.1, ports: {{{port_name}: {port}}}, labels: {{version: {version}}}}}\n")
        })
        .collect();
    format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: bench}}
spec:
  hosts: [{name}.example]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: 80, name: {port_name}, protocol: {protocol}}}]
  endpoints:
{list}"
    )
}

/// A VirtualService that sends every connection of the gateway to a service.
pub(crate) fn tcp_service(name: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: bench}}
spec:
  hosts: [\"*\"]
  gateways: [edge]
  tcp:
  - route: [{{destination: {{host: {name}.example}}}}]
"
    )
}

/// A VirtualService on the gateway with `http` as its routes (already indented by two).
pub(crate) fn virtual_service(name: &str, host: &str, http: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: bench}}
spec:
  hosts: [\"{host}\"]
  gateways: [edge]
  http:
{http}"
    )
}

/// One request on a connection of its own; the whole answer as text.
pub(crate) fn ask(to: SocketAddr, host: &str, path: &str) -> anyhow::Result<String> {
    let mut s = TcpStream::connect(to)?;
    s.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(s, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    s.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Waits until the gateway answers.
pub(crate) fn await_ok(port: u16) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(20);
    while answers_from(port, "/")? != 200 {
        anyhow::ensure!(Instant::now() < end, "the gateway does not answer 200 after 20 s");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// The status of an answer.
pub(crate) fn answers_from(port: u16, path: &str) -> anyhow::Result<u16> {
    let answer = ask(([127, 0, 0, 1], port).into(), "bench.example", path)?;
    Ok(answer.get(9..12).and_then(|c| c.parse().ok()).unwrap_or(0))
}
