//! From workload to workload: two sidecars, mutual TLS between them, access log and metrics on; their CPU summed.

use super::{Options, http1};
use crate::contest::{self, Contender, Ratio, Report, Row, Wanted::AtMost};
use crate::mesh;
use crate::process::{self, await_port, free_port};
use crate::sidecar::Workload;
use std::path::Path;

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: server, namespace: bench}\nspec: {selector: {app: server}, ports: [{name: http, port: 9080}]}\n";

pub(crate) fn run(o: &Options) -> anyhow::Result<Report> {
    let dir = tempfile::tempdir()?;
    let (contenders, secured) = start(o, dir.path(), "")?;
    let row = Row {
        title: format!(
            "sidecar to sidecar, access log and metrics on, both proxies summed, {} connections; {}",
            o.connections,
            secured.join(", ")
        ),
        columns: &[
            ("CPU µs/request, both", 1),
            ("requests/s", 0),
            ("p50 µs", 0),
            ("p99 µs", 0),
            ("RSS MB, both", 1),
            ("lost", 0),
        ],
        ratios: &[Ratio { column: 0, wanted: &[("envoy", AtMost(0.4))] }],
    };
    contest::run(row, o.rounds, &contenders, |c| {
        let mut l = http1::args(o, c);
        l.host = "server:9080".into();
        let (done, cpu) = http1::measured(&l, c)?;
        Ok(vec![cpu, done.rate(), done.latency.quantile(0.5), done.latency.quantile(0.99), c.rss(), done.lost() as f64])
    })
}

/// maille's sidecars and Envoy's, each pair in a mesh of its own with `resources` beside the service; and for each whether
/// mutual TLS is on.
pub(super) fn start(o: &Options, dir: &Path, resources: &str) -> anyhow::Result<(Vec<Contender>, Vec<String>)> {
    let (mut contenders, mut secured) = (vec![], vec![]);
    for name in ["maille", "envoy"] {
        if !o.only.is_empty() && !o.only.iter().any(|x| x == name) {
            continue;
        }
        if name == "envoy" && process::find("ENVOY", &["envoy"]).is_none() {
            println!("envoy: not found on this machine, left out");
            continue;
        }
        let (c, mtls) = pair(dir, name, resources)?;
        secured.push(format!("{name} {}", if mtls { "mTLS" } else { "in plain text" }));
        contenders.push(c);
    }
    Ok((contenders, secured))
}

fn pair(dir: &Path, name: &'static str, resources: &str) -> anyhow::Result<(Contender, bool)> {
    let dir = &dir.join(name);
    let config = dir.join("config");
    std::fs::create_dir_all(&config)?;
    mesh::write(&config, "service.yaml", SERVICE)?;
    mesh::write(&config, "more.yaml", resources)?;
    mesh::write(
        &config,
        "mesh.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: 'accessLogFile: /dev/stdout'}\n",
    )?;
    let xds = free_port()?;
    let up = mesh::up(&config, xds, "none", &dir.join("up.log"))?;
    await_port(xds, "the control plane")?;
    let backend = format!("{} backend --listen 127.0.0.1:$PORT", std::env::current_exe()?.display());
    let server = Workload::join(dir, name, "server", xds, Some((9080, &backend)))?;
    let client = Workload::join(dir, name, "client", xds, None)?;
    let seen = client.await_ok("server:9080")?.to_ascii_lowercase();
    std::thread::sleep(std::time::Duration::from_secs(1));
    let c = Contender {
        name,
        address: client.http_proxy,
        pids: vec![client.sidecar, server.sidecar],
        _processes: vec![client.process, server.process, up],
    };
    c.pin();
    Ok((c, seen.contains("x-forwarded-client-cert")))
}
