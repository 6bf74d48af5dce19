//! Small keep-alive HTTP/1.1 requests through a gateway.

use super::Options;
use crate::backend::Backend;
use crate::contest::{self, Contender, Ratio, Report, Row, Wanted::AtMost};
use crate::gateways::{self, Job};
use crate::load;
use crate::process::PROXY_CORE;

pub(crate) fn run(o: &Options) -> anyhow::Result<Report> {
    let dir = tempfile::tempdir()?;
    let backend = Backend::start("bench")?;
    let contenders = gateways::start(
        &["floor", "maille", "envoy", "nginx", "haproxy"],
        &o.only,
        dir.path(),
        backend.port,
        Job::Http1,
    )?;
    let row = Row {
        title: format!(
            "HTTP/1.1 keep-alive, {} connections, steady at {:.0}/s, one worker on core {PROXY_CORE}",
            o.connections, o.rate
        ),
        columns: &[
            ("CPU µs/request", 1),
            ("requests/s", 0),
            ("p50 µs", 0),
            ("p99 µs", 0),
            ("CPU µs/request steady", 1),
            ("p50 µs steady", 0),
            ("p99 µs steady", 0),
            ("RSS MB", 1),
            ("lost", 0),
        ],
        ratios: &[
            Ratio {
                column: 0,
                wanted: &[
                    ("floor", AtMost(1.2)),
                    ("envoy", AtMost(0.38)),
                    ("nginx", AtMost(1.0)),
                    ("haproxy", AtMost(1.0)),
                ],
            },
            Ratio { column: 4, wanted: &[] },
        ],
    };
    contest::run(row, o.rounds, &contenders, |c| visit(o, c))
}

fn visit(o: &Options, c: &Contender) -> anyhow::Result<Vec<f64>> {
    let mut l = args(o, c);
    let (flat, flat_cpu) = measured(&l, c)?;
    l.rate = Some(o.rate);
    let (steady, steady_cpu) = measured(&l, c)?;
    Ok(vec![
        flat_cpu,
        flat.rate(),
        flat.latency.quantile(0.5),
        flat.latency.quantile(0.99),
        steady_cpu,
        steady.latency.quantile(0.5),
        steady.latency.quantile(0.99),
        c.rss(),
        (flat.lost() + steady.lost()) as f64,
    ])
}

pub(crate) fn args(o: &Options, c: &Contender) -> load::Args {
    load::Args {
        address: c.address,
        host: "bench.example".into(),
        path: "/".into(),
        paths: 1,
        connections: o.connections,
        rate: None,
        seconds: o.seconds,
    }
}

/// Runs a load; with it, the CPU time the proxy took for each request, in µs.
pub(crate) fn measured(l: &load::Args, c: &Contender) -> anyhow::Result<(load::Outcome, f64)> {
    let before = c.cpu();
    let outcome = load::run(l)?;
    let count = outcome.latency.count().max(1) as f64;
    Ok((outcome, (c.cpu() - before) as f64 / 1000.0 / count))
}
