//! Large bodies over HTTP/1.1, and bytes over a TCP route: how many of them a second of CPU moves.

use super::Options;
use crate::contest::{self, Ratio, Report, Row, Wanted::AtLeast};
use crate::gateways::{self, Job};
use crate::identity::{Groups, Identity};
use crate::servers::{Kind, Server};
use crate::streams::{self, Done};
use std::net::SocketAddr;

const CONNECTIONS: usize = 8;
const COLUMNS: &[(&str, usize)] = &[("MB per CPU second", 0), ("MB/s", 0), ("p99 ms", 1), ("RSS MB", 1)];
const RATIOS: &[Ratio] = &[Ratio { column: 0, wanted: &[("envoy", AtLeast(1.0))] }];

/// 1 MB up and 1 MB down with each request.
pub(crate) fn run(o: &Options) -> anyhow::Result<Report> {
    let title = format!("HTTP/1.1, bodies of 1 MB both ways, {CONNECTIONS} connections");
    let names = ["maille", "envoy", "nginx", "haproxy"];
    measure(o, title, &names, Kind::Bodies, Job::Http1, |to| streams::bodies(to, None, CONNECTIONS, o.seconds))
}

/// The same with TLS between the client and the gateway.
pub(crate) fn tls(o: &Options) -> anyhow::Result<Report> {
    let title = format!("HTTP/1.1 over TLS, bodies of 1 MB both ways, {CONNECTIONS} connections");
    let names = ["maille", "envoy", "nginx", "haproxy"];
    let identity = Identity::new()?;
    let client = identity.client(Groups::All)?;
    measure(o, title, &names, Kind::Bodies, Job::Tls(&identity), |to| {
        streams::bodies(to, Some(&client), CONNECTIONS, o.seconds)
    })
}

/// The same bytes without HTTP.
pub(crate) fn tcp(o: &Options) -> anyhow::Result<Report> {
    let title = format!("TCP route, bytes both ways, {CONNECTIONS} connections");
    let names = ["floor", "maille", "envoy", "haproxy"];
    measure(o, title, &names, Kind::Echo, Job::Tcp, |to| streams::bytes(to, CONNECTIONS, o.seconds))
}

fn measure(
    o: &Options,
    title: String,
    names: &[&str],
    kind: Kind,
    job: Job<'_>,
    load: impl Fn(SocketAddr) -> anyhow::Result<Done>,
) -> anyhow::Result<Report> {
    let dir = tempfile::tempdir()?;
    let backend = Server::start(kind)?;
    let contenders = gateways::start(names, &o.only, dir.path(), backend.port, job)?;
    contest::run(Row { title, columns: COLUMNS, ratios: RATIOS }, o.rounds, &contenders, |c| {
        let before = c.cpu();
        let done = load(c.address)?;
        let (mb, cpu) = (done.bytes as f64 / 1e6, (c.cpu() - before).max(1) as f64 / 1e9);
        Ok(vec![mb / cpu, mb / o.seconds, done.latency.quantile(0.99) / 1000.0, c.rss()])
    })
}
