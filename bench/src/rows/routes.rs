//! Does a lookup grow with the number of routes? 10 against 10,000 on one host, through one gateway.

use super::{Options, http1};
use crate::backend::Backend;
use crate::contest::{self, Contender, Report, Row};
use crate::gateways::local;
use crate::process::{PROXY_CORE, await_port, free_port, pin};
use crate::{load, mesh};
use std::fmt::Write as _;

pub(crate) fn run(o: &Options) -> anyhow::Result<Report> {
    let dir = tempfile::tempdir()?;
    let backend = Backend::start("bench")?;
    let config = dir.path().join("routes");
    std::fs::create_dir(&config)?;
    let port = free_port()?;
    mesh::write(&config, "gateway.yaml", &mesh::gateway(port))?;
    mesh::write(&config, "service.yaml", &mesh::service("shop", &[(backend.port, "v1")]))?;
    for (host, count) in [("few", 10), ("many", 10_000)] {
        let mut routes = String::new();
        let width = (count - 1usize).to_string().len();
        for n in 0..count {
            let kind = if n % 2 == 0 { "exact" } else { "prefix" };
            writeln!(
                routes,
                "  - match: [{{uri: {{{kind}: /route/{n:0width$}/end}}}}]\n    route: [{{destination: {{host: shop.example}}}}]"
            )?;
        }
        mesh::write(
            &config,
            &format!("{host}.yaml"),
            &mesh::virtual_service(host, &format!("{host}.example"), &routes),
        )?;
    }
    let up = mesh::up(&config, free_port()?, "maille", &dir.path().join("routes.log"))?;
    await_port(port, "the gateway with 10,000 routes")?;
    let pid = mesh::gateway_pid(&up)?;
    pin(pid, PROXY_CORE);
    let contenders = [("few", 10), ("many", 10_000)];
    let all: Vec<_> = contenders
        .iter()
        .map(|(host, _)| Contender { name: host, address: local(port), pids: vec![pid], _processes: vec![] })
        .collect();
    let row = Row {
        title: "every request to another route, one connection: 10 routes on the host (few), 10,000 (many)".into(),
        columns: &[("p50 µs", 1), ("CPU µs/request", 2), ("p50 against 10 routes", 3)],
        ratios: &[],
    };
    let mut few = 1.0;
    let report = contest::run(row, o.rounds, &all, |c| {
        let paths = if c.name == "few" { 10 } else { 10_000 };
        let l = load::Args {
            address: c.address,
            host: format!("{}.example", c.name),
            path: "/route/{n}/end".into(),
            paths,
            connections: 1,
            rate: None,
            seconds: o.seconds,
        };
        let (done, cpu) = http1::measured(&l, c)?;
        anyhow::ensure!(done.lost() == 0, "{} requests lost, {:?}", done.lost(), done.other);
        let p50 = done.latency.quantile(0.5);
        if c.name == "few" {
            few = p50;
        }
        Ok(vec![p50, cpu, p50 / few])
    })?;
    drop(up);
    Ok(report)
}
