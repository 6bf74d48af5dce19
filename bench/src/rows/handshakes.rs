//! Full TLS handshakes at a gateway: ECDSA P-256, nothing resumed.

use super::Options;
use crate::backend::Backend;
use crate::contest::{self, Ratio, Report, Row, Wanted::AtLeast};
use crate::gateways::{self, Job};
use crate::identity::{Groups, Identity};
use crate::streams;
use rustls::ClientConfig;
use std::sync::Arc;

const AT_ONCE: usize = 16;

pub(crate) fn run(o: &Options) -> anyhow::Result<Report> {
    let dir = tempfile::tempdir()?;
    let backend = Backend::start("bench")?;
    let identity = Identity::new()?;
    let contenders = gateways::start(
        &["maille", "envoy", "nginx", "haproxy"],
        &o.only,
        dir.path(),
        backend.port,
        Job::Tls(&identity),
    )?;
    let row = Row {
        title: format!(
            "TLS handshakes, ECDSA P-256, nothing resumed, {AT_ONCE} at a time; x25519, and what client and proxy like best"
        ),
        columns: &[
            ("x25519 per CPU second", 0),
            ("per second", 0),
            ("p99 µs", 0),
            ("their best per CPU second", 0),
            ("RSS MB", 1),
        ],
        ratios: &[
            Ratio { column: 0, wanted: &[("envoy", AtLeast(1.0))] },
            Ratio { column: 3, wanted: &[("envoy", AtLeast(1.0))] },
        ],
    };
    let (plain, best) = (identity.client(Groups::X25519)?, identity.client(Groups::All)?);
    contest::run(row, o.rounds, &contenders, |c| {
        let per_cpu = |config: &Arc<ClientConfig>| {
            let before = c.cpu();
            let done = streams::handshakes(c.address, config.clone(), AT_ONCE, o.seconds)?;
            anyhow::Ok((done.count as f64 * 1e9 / (c.cpu() - before).max(1) as f64, done))
        };
        let (first, done) = per_cpu(&plain)?;
        let (second, _) = per_cpu(&best)?;
        Ok(vec![first, done.count as f64 / o.seconds, done.latency.quantile(0.99), second, c.rss()])
    })
}
