//! Full TLS handshakes at a gateway: ECDSA P-256, nothing resumed.

use super::Options;
use crate::backend::Backend;
use crate::contest::{self, Ratio, Report, Row, Wanted::AtLeast};
use crate::gateways::{self, Identity, Job};
use crate::streams;
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use std::sync::Arc;

const AT_ONCE: usize = 16;

pub(crate) fn run(o: &Options) -> anyhow::Result<Report> {
    let dir = tempfile::tempdir()?;
    let backend = Backend::start("bench")?;
    let made = rcgen::generate_simple_self_signed(["bench.example".to_owned()])?;
    let identity = Identity { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() };
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone())?;
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
    let (plain, best) = (config(&roots, false)?, config(&roots, true)?);
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

fn config(roots: &RootCertStore, all_groups: bool) -> anyhow::Result<Arc<ClientConfig>> {
    let mut provider = aws_lc_rs::default_provider();
    if !all_groups {
        provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}
