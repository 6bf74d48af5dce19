//! Resident memory: a sidecar with nothing to do, and one that knows a large mesh.

use super::Options;
use crate::backend::Backend;
use crate::contest::{self, Ratio, Report, Row, Wanted::AtMost};
use crate::mesh;
use crate::process::{self, await_port, free_port, rss_mb};
use crate::sidecar::Workload;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

const SERVICES: usize = 1000;
const ENDPOINTS: usize = 5;

/// A sidecar alone, and one in a mesh of 1,000 services with 5 endpoints each.
pub(crate) fn sidecars(o: &Options) -> anyhow::Result<Report> {
    let dir = tempfile::tempdir()?;
    let backend = Backend::start("bench")?;
    let mut samples = vec![];
    for name in ["maille", "envoy"] {
        if !o.only.is_empty() && !o.only.iter().any(|x| x == name)
            || name == "envoy" && process::find("ENVOY", &["envoy"]).is_none()
        {
            println!("{name}: left out");
            continue;
        }
        let idle = sidecar(&dir.path().join(format!("{name}-idle")), name, 1, backend.port)?;
        let large = sidecar(&dir.path().join(format!("{name}-large")), name, SERVICES, backend.port)?;
        samples.push((name, vec![idle, large]));
    }
    let row = Row {
        title: format!(
            "memory of a sidecar, the workload not counted; large: {SERVICES} services with {ENDPOINTS} endpoints each (wanted idle: at most 10 MB)"
        ),
        columns: &[("RSS MB idle", 1), ("RSS MB large", 1)],
        ratios: &[Ratio { column: 0, wanted: &[] }, Ratio { column: 1, wanted: &[("envoy", AtMost(0.25))] }],
    };
    Ok(contest::once(row, samples))
}

fn sidecar(dir: &Path, proxy: &str, services: usize, backend: u16) -> anyhow::Result<f64> {
    let config = dir.join("config");
    std::fs::create_dir_all(&config)?;
    let mut text = String::new();
    for n in 0..services {
        // The last address differs, so that no two endpoints are the same; the first of each answers.
        let endpoints: Vec<_> = (0..ENDPOINTS)
            .map(|k| {
                format!(
                    "{{address: {}, ports: {{http: {backend}}}}}",
                    if k == 0 { "127.0.0.1".into() } else { format!("127.{k}.{}.{}", n / 250, n % 250 + 1) }
                )
            })
            .collect();
        writeln!(
            text,
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: s{n}, namespace: bench}}\nspec: {{hosts: [s{n}.example], location: MESH_INTERNAL, \
             resolution: STATIC, ports: [{{number: 80, name: http, protocol: HTTP}}], endpoints: [{}]}}\n---",
            endpoints.join(", ")
        )?;
    }
    mesh::write(&config, "services.yaml", &text)?;
    let xds = free_port()?;
    let _up = mesh::up(&config, xds, "none", &dir.join("up.log"))?;
    await_port(xds, "the control plane")?;
    let workload = Workload::join(dir, proxy, "idle", xds, None)?;
    if services == SERVICES {
        // Every endpoint but the first refuses; any answer says that the route is there.
        let last = format!("s{}.example", services - 1);
        let end = std::time::Instant::now() + Duration::from_secs(60);
        while !mesh::ask(workload.http_proxy, &last, "/").is_ok_and(|a| a.starts_with("HTTP/1.1 200")) {
            anyhow::ensure!(
                std::time::Instant::now() < end,
                "{proxy}: the last of {services} services cannot be reached after 60 s"
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    std::thread::sleep(Duration::from_secs(5));
    Ok(rss_mb(workload.sidecar))
}
