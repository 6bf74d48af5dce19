//! gRPC unary calls over HTTP/2 on both sides of a gateway.

use super::Options;
use crate::contest::{self, Ratio, Report, Row, Wanted::AtMost};
use crate::gateways::{self, Job};
use crate::servers::{Kind, Server};
use crate::streams;

const STREAMS: usize = 8;

pub(crate) fn run(o: &Options) -> anyhow::Result<Report> {
    let dir = tempfile::tempdir()?;
    let backend = Server::start(Kind::Grpc)?;
    let contenders = gateways::start(&["maille", "envoy"], &o.only, dir.path(), backend.port, Job::Grpc)?;
    let connections = o.connections.div_ceil(STREAMS);
    let row = Row {
        title: format!("gRPC unary over HTTP/2, {connections} connections with {STREAMS} calls at a time each"),
        columns: &[("CPU µs/call", 1), ("calls/s", 0), ("p50 µs", 0), ("p99 µs", 0), ("RSS MB", 1)],
        ratios: &[Ratio { column: 0, wanted: &[("envoy", AtMost(0.5))] }],
    };
    contest::run(row, o.rounds, &contenders, |c| {
        let before = c.cpu();
        let done = streams::grpc(c.address, connections, STREAMS, o.seconds)?;
        let cpu = (c.cpu() - before) as f64 / 1000.0 / done.count.max(1) as f64;
        let latency = &done.latency;
        Ok(vec![cpu, done.count as f64 / o.seconds, latency.quantile(0.5), latency.quantile(0.99), c.rss()])
    })
}
