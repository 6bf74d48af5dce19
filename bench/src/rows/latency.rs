//! What a gateway adds to the slowest hundredth of requests, at half of what it can take, and at half of what Envoy can take.

use super::{Options, http1};
use crate::backend::Backend;
use crate::contest::{self, Contender, Ratio, Report, Row, Wanted::AtMost, median};
use crate::gateways::{self, Job, local};
use crate::load;

pub(crate) fn run(o: &Options) -> anyhow::Result<Report> {
    let dir = tempfile::tempdir()?;
    let backend = Backend::start("bench")?;
    let contenders =
        gateways::start(&["maille", "envoy", "nginx", "haproxy"], &o.only, dir.path(), backend.port, Job::Http1)?;
    let mut half = vec![];
    for c in &contenders {
        let rates = (0..3).map(|_| Ok(load::run(&http1::args(o, c))?.rate())).collect::<anyhow::Result<Vec<_>>>()?;
        half.push((c.name, median(rates) / 2.0));
    }
    let common = half.iter().find(|h| h.0 == "envoy").map_or(half[0].1, |h| h.1);
    let row = Row {
        title: format!(
            "p99 added by a gateway, {} connections, the same load on the backend alone taken off, common rate {common:.0}/s",
            o.connections
        ),
        columns: &[
            ("half of its saturation /s", 0),
            ("p99 added µs", 0),
            ("p50 added µs", 0),
            ("p99 added µs at the common rate", 0),
        ],
        ratios: &[Ratio { column: 1, wanted: &[("envoy", AtMost(0.6))] }, Ratio { column: 3, wanted: &[] }],
    };
    contest::run(row, o.rounds, &contenders, |c| {
        let own = half.iter().find(|h| h.0 == c.name).map_or(common, |h| h.1);
        let (p50, p99) = added(o, c, backend.port, own)?;
        Ok(vec![own, p99, p50, added(o, c, backend.port, common)?.1])
    })
}

fn added(o: &Options, c: &Contender, backend: u16, rate: f64) -> anyhow::Result<(f64, f64)> {
    let mut l = http1::args(o, c);
    l.rate = Some(rate);
    let through = load::run(&l)?;
    l.address = local(backend);
    let direct = load::run(&l)?;
    anyhow::ensure!(through.lost() == 0, "{} requests were lost", through.lost());
    let difference = |q| through.latency.quantile(q) - direct.latency.quantile(q);
    Ok((difference(0.5), difference(0.99)))
}
