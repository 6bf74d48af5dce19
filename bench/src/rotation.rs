//! Nothing may fail, and no stream may end, while certificates change: leaves that are renewed, roots and intermediates that are
//! replaced, a control plane that is killed in every phase of it, and one that is away for half of a leaf's life.

mod cacerts;
mod traffic;

use crate::mesh;
use crate::process::{Process, await_port, free_port};
use crate::sidecar::Workload;
use cacerts::{Authority, Folder};
use clap::Parser;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use traffic::{Targets, Traffic};

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked whether it is there: often enough to find the control plane in each phase of a rotation.
const LOOK: Duration = Duration::from_millis(50);

/// How long a proxy has to take a new certificate into use, once it is known that it has been told.
const SETTLED: Duration = Duration::from_secs(2);

/// What `rotation` can be told.
#[derive(Parser)]
pub(crate) struct Args {
    /// How long workloads' certificates are good for, in seconds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(10..=60))]
    leaf: u64,
    /// Seconds of load on each of the two meshes, at least.
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// The data plane: maille or envoy.
    #[arg(long, default_value = "maille")]
    proxy: String,
    /// Only the hardest of each: the root is rotated once, disturbed, and only the intermediate is replaced.
    #[arg(long)]
    short: bool,
}

/// Runs both meshes, prints the counts, fails when anything was lost.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    scene(args, "a root of its own", None, |mesh| {
        if !args.short {
            mesh.lives(1)?;
            mesh.rotate("undisturbed", |_, _| Ok(()))?;
            mesh.stays_away()?;
        }
        mesh.rotate(
            "killed in each phase, and away for half a leaf's life while leaves are re-issued",
            |mesh, phase| {
                mesh.up.kill();
                if phase == "reissue" {
                    std::thread::sleep(mesh.leaf / 2);
                }
                mesh.start()
            },
        )
    })?;
    let folder = Folder::new()?;
    let (first, second) = (Authority::root("first")?, Authority::root("second")?);
    let one = first.intermediate("one")?;
    folder.put(&one, &[&first])?;
    scene(args, "a CA that is plugged in", Some(&folder), |mesh| {
        if !args.short {
            mesh.lives(1)?;
        }
        let two = first.intermediate("two")?;
        folder.put(&two, &[&first])?;
        mesh.shows(&two, "a new intermediate")?;
        if args.short {
            return Ok(());
        }
        mesh.stays_away()?;
        // As `maille ca rotate` says of a CA that is plugged in.
        let three = second.intermediate("three")?;
        folder.put(&two, &[&first, &second])?;
        mesh.believes(2)?;
        folder.put(&three, &[&second, &first])?;
        mesh.shows(&three, "an intermediate of another root")?;
        folder.put(&three, &[&second])?;
        mesh.believes(1)?;
        mesh.shows(&three, "the other root alone")
    })
}

/// One mesh under load while `steps` are taken.
fn scene(
    args: &Args,
    name: &str,
    cacerts: Option<&Folder>,
    steps: impl FnOnce(&mut Mesh) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    println!("{name}, {}, leaves of {} s", args.proxy, args.leaf);
    let mut mesh = Mesh::new(args, cacerts)?;
    let traffic = Traffic::start(mesh.targets())?;
    let began = Instant::now();
    let taken = steps(&mut mesh);
    // A step that fails is told of with what the traffic has seen of it.
    if taken.is_ok() {
        std::thread::sleep(Duration::from_secs_f64(args.seconds).saturating_sub(began.elapsed()));
    }
    let tally = traffic.stop()?;
    println!("  {:.0} s: {tally}", began.elapsed().as_secs_f64());
    taken?;
    tally.unbroken()
}

/// A mesh: the control plane, a client, and three servers, of HTTP, gRPC and bytes.
struct Mesh {
    dir: tempfile::TempDir,
    cacerts: Option<PathBuf>,
    leaf: Duration,
    xds: u16,
    up: Process,
    /// Where bytes go into the client's sidecar.
    bytes: SocketAddr,
    client: Workload,
    servers: Vec<Workload>,
}

impl Mesh {
    fn new(args: &Args, cacerts: Option<&Folder>) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let config = dir.path().join("config");
        std::fs::create_dir(&config)?;
        let (xds, bytes) = (free_port()?, SocketAddr::from(([127, 0, 0, 1], free_port()?)));
        mesh::write(&config, "mesh.yaml", &resources(bytes.port()))?;
        let (cacerts, leaf) = (cacerts.map(|folder| folder.path().to_owned()), Duration::from_secs(args.leaf));
        let up = up(dir.path(), xds, leaf, cacerts.as_deref())?;
        let join = |name: &str, server: Option<(u16, &str)>| Workload::join(dir.path(), &args.proxy, name, xds, server);
        let own = std::env::current_exe()?;
        let servers =
            [("web", "backend"), ("calls", "serve calls"), ("bytes", "serve bytes")].map(|(name, command)| {
                join(name, Some((9000, &format!("{} {command} --listen 127.0.0.1:$PORT", own.display()))))
            });
        let servers = servers.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        let client = join("client", None)?;
        let seen = client.await_ok("web:9000")?.to_ascii_lowercase();
        anyhow::ensure!(seen.contains("x-forwarded-client-cert"), "requests go in plain text:\n{seen}");
        await_port(bytes.port(), "the client's sidecar")?;
        Ok(Self { dir, cacerts, leaf, xds, up, bytes, client, servers })
    }

    fn targets(&self) -> Targets {
        Targets { http_proxy: self.client.http_proxy, bytes: self.bytes, web: "web:9000", calls: "calls:9000" }
    }

    /// Starts the control plane again.
    fn start(&mut self) -> anyhow::Result<()> {
        self.up = up(self.dir.path(), self.xds, self.leaf, self.cacerts.as_deref())?;
        Ok(())
    }

    /// Lets leaves live and be renewed.
    fn lives(&self, times: u32) -> anyhow::Result<()> {
        std::thread::sleep(self.leaf * times);
        let status = self.status()?;
        let ends = status["soonest"][0]["notAfter"].as_u64().unwrap_or_default();
        anyhow::ensure!(ends > seconds_since_1970(), "a leaf is over: {status}");
        self.said(&format!("leaves were renewed for {} s", (self.leaf * times).as_secs()));
        Ok(())
    }

    /// The control plane goes without a word, for half of a leaf's life.
    fn stays_away(&mut self) -> anyhow::Result<()> {
        self.up.kill();
        std::thread::sleep(self.leaf / 2);
        self.start()?;
        // Everybody has come back and been renewed.
        self.lives(1)?;
        self.said("the control plane was killed and away for half of a leaf's life");
        Ok(())
    }

    /// `maille ca rotate`, to its end; `disturb` is called once in each phase.
    fn rotate(&mut self, how: &str, disturb: impl Fn(&mut Self, &str) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let fingerprints = |status: &Value| {
            status["roots"].as_array().map(|roots| roots.iter().map(|r| r["fingerprint"].clone()).collect::<Vec<_>>())
        };
        let before = fingerprints(&self.status()?);
        self.ask(&["rotate", "--no-wait"])?;
        for phase in ["distribute", "reissue", "retire"] {
            self.until(phase, |status| status["phase"] == phase)?;
            disturb(self, phase)?;
        }
        let status = self.until("the end of the rotation", |status| status["phase"] == "steady")?;
        let after = fingerprints(&status);
        anyhow::ensure!(
            after.as_ref().is_some_and(|roots| roots.len() == 1) && after != before,
            "not one new root: {status}"
        );
        self.said(&format!("the root was rotated, {how}"));
        Ok(())
    }

    /// Waits until every server shows a chain with this intermediate.
    fn shows(&self, intermediate: &Authority, what: &str) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        for server in &self.servers {
            while !cacerts::shown((server.http_proxy.ip(), 9000).into())?.contains(intermediate.der()) {
                anyhow::ensure!(
                    Instant::now() < end,
                    "{}: {what} is not in use after {PATIENCE:?}",
                    server.process.name
                );
                std::thread::sleep(LOOK);
            }
        }
        std::thread::sleep(SETTLED);
        self.said(&format!("{what} is in use, without a restart"));
        Ok(())
    }

    /// Waits until the mesh believes so many roots, and everybody has heard of it.
    fn believes(&self, roots: usize) -> anyhow::Result<()> {
        self.until("the roots", |status| status["roots"].as_array().is_some_and(|list| list.len() == roots))?;
        std::thread::sleep(SETTLED);
        self.said(&format!("roots that are believed: {roots}"));
        Ok(())
    }

    fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let end = Instant::now() + PATIENCE;
        loop {
            let status = self.status()?;
            if is_so(&status) {
                return Ok(status);
            }
            anyhow::ensure!(Instant::now() < end, "{what} has not come after {PATIENCE:?}: {status}");
            std::thread::sleep(LOOK);
        }
    }

    /// What `maille ca status` says; whether anything is close to its end is not asked.
    fn status(&self) -> anyhow::Result<Value> {
        let (_, text) = self.ca(&["status", "-o", "json"])?;
        Ok(serde_json::from_str(&text)?)
    }

    fn ask(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let (succeeded, text) = self.ca(arguments)?;
        anyhow::ensure!(succeeded, "maille ca {}: {text}", arguments.join(" "));
        Ok(())
    }

    fn ca(&self, arguments: &[&str]) -> anyhow::Result<(bool, String)> {
        let control = format!("127.0.0.1:{}", self.xds);
        let output = Command::new(mesh::maille()?).arg("ca").args(arguments).args(["--control", &control]).output()?;
        let text = match output.stdout.as_slice() {
            [] => output.stderr,
            _ => output.stdout,
        };
        Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
    }

    fn said(&self, what: &str) {
        println!("  {what}");
    }
}

fn up(dir: &Path, xds: u16, leaf: Duration, cacerts: Option<&Path>) -> anyhow::Result<Process> {
    let (config, port, leaf) =
        (dir.join("config").display().to_string(), xds.to_string(), format!("{}s", leaf.as_secs()));
    let mut args = vec!["up", "-f", &config, "--xds-port", &port, "--proxy", "none", "--leaf-ttl", &leaf];
    let cacerts = cacerts.map(|folder| folder.display().to_string());
    if let Some(folder) = &cacerts {
        args.extend(["--cacerts", folder]);
    }
    let up = Process::start("maille up", &mesh::maille()?, &args, &dir.join("up.log"))?;
    await_port(xds, "the control plane")?;
    Ok(up)
}

/// Three services behind strict mutual TLS. The client's sidecar listens for bytes to one of them. Connections between
/// sidecars are used for a few requests alone, so that there are handshakes all the time.
fn resources(bytes: u16) -> String {
    let services: String = [("web", "http", 9000), ("calls", "grpc", 9000), ("bytes", "tcp", bytes)]
        .map(|(name, protocol, port)| {
            format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: bench}}\nspec: {{selector: {{app: {name}}}, ports: [{{name: {protocol}, port: {port}, targetPort: 9000}}]}}\n---\n"
            )
        })
        .concat();
    format!(
        "{services}apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: istio-system}}
spec: {{mtls: {{mode: STRICT}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: web, namespace: bench}}
spec: {{host: web, trafficPolicy: {{connectionPool: {{http: {{maxRequestsPerConnection: 10}}}}}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: calls, namespace: bench}}
spec: {{host: calls, trafficPolicy: {{connectionPool: {{http: {{maxRequestsPerConnection: 10}}}}}}}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: client, namespace: bench}}
spec:
  workloadSelector: {{labels: {{app: client}}}}
  egress:
  - {{port: {{number: {bytes}, name: tcp, protocol: TCP}}, bind: 127.0.0.1, captureMode: NONE, hosts: [./bytes.bench.svc.cluster.local]}}
  - {{hosts: [./*]}}
"
    )
}

fn seconds_since_1970() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs()
}
