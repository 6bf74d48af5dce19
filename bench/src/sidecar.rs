//! A workload with its sidecar, by `maille run`, and which of its processes is the sidecar.

use crate::mesh;
use crate::process::{self, Process};
use anyhow::Context;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// A workload of the mesh.
pub(crate) struct Workload {
    pub(crate) process: Process,
    /// The process that is the sidecar: `maille run` itself, or the Envoy it started.
    pub(crate) sidecar: u32,
    /// The sidecar's HTTP proxy for what goes out.
    pub(crate) http_proxy: SocketAddr,
}

impl Workload {
    /// Joins the mesh at `control`; `port` and `command` make it a server: a shell command that listens on `$PORT`.
    pub(crate) fn join(
        dir: &Path,
        proxy: &str,
        name: &str,
        control: u16,
        server: Option<(u16, &str)>,
    ) -> anyhow::Result<Self> {
        let (said, log) = (dir.join(format!("{name}.http_proxy")), dir.join(format!("{name}.log")));
        let control = format!("127.0.0.1:{control}");
        let command = format!(
            "echo $http_proxy > {said}.new; mv {said}.new {said}; exec {}",
            server.map_or("sleep 3600", |s| s.1),
            said = said.display()
        );
        let port = server.map(|s| s.0.to_string());
        let mut args = vec![
            "run",
            "--name",
            name,
            "--service",
            name,
            "--namespace",
            "bench",
            "--control",
            &control,
            "--proxy",
            proxy,
        ];
        if let Some(port) = &port {
            args.extend(["--port", port]);
        }
        args.extend(["--", "sh", "-c", &command]);
        let process = Process::start(&format!("maille run {name}"), &mesh::maille()?, &args, &log)?;
        let end = Instant::now() + Duration::from_secs(30);
        while !said.exists() {
            anyhow::ensure!(
                Instant::now() < end,
                "{name} did not join:\n{}",
                std::fs::read_to_string(&log).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        let text = std::fs::read_to_string(&said)?;
        let http_proxy = text
            .trim()
            .trim_start_matches("http://")
            .trim_end_matches('/')
            .parse()
            .with_context(|| format!("http_proxy is {text:?}"))?;
        let sidecar = match proxy {
            "envoy" => *process::children(process.pid())
                .iter()
                .find(|p| process::comm(**p).contains("envoy"))
                .context("no Envoy beside the workload")?,
            _ => process.pid(),
        };
        Ok(Self { process, sidecar, http_proxy })
    }

    /// Sends a request through the sidecar until it is answered 200.
    pub(crate) fn await_ok(&self, host: &str) -> anyhow::Result<String> {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let answer = mesh::ask(self.http_proxy, host, "/headers").unwrap_or_default();
            if answer.starts_with("HTTP/1.1 200") {
                return Ok(answer);
            }
            anyhow::ensure!(
                Instant::now() < end,
                "{host} does not answer 200 through the sidecar after 30 s: {answer:?}"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
