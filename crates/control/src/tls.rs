//! TLS on the control plane's port: its own certificate, and who shows one to it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use maille_identity::ca::Names;
use maille_identity::csr::{self, Request};
use maille_identity::{SpiffeId, spiffe};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use tokio_rustls::TlsAcceptor;

use crate::Shared;

/// The names that Istio's agents look for.
const NAMES: [&str; 6] = [
    "istiod.istio-system.svc",
    "istiod.istio-system.svc.cluster.local",
    "istiod.istio-system",
    "istiod-remote.istio-system.svc",
    "istio-pilot.istio-system.svc",
    "localhost",
];

/// Who we are to those who ask for a SPIFFE id.
const ACCOUNT: (&str, &str) = ("istio-system", "istiod");

/// How soon it is tried again when our own certificate could not be made.
const AGAIN: Duration = Duration::from_secs(5);

/// What every TLS connection is accepted with.
pub(crate) struct Tls {
    config: RwLock<Arc<ServerConfig>>,
    /// Of the first one.
    renew_after: Duration,
    address: SocketAddr,
}

impl Tls {
    /// Ready for connections at an address.
    pub(crate) fn new(shared: &Shared, address: SocketAddr) -> io::Result<Arc<Self>> {
        let (config, renew_after) = config(shared, address).map_err(io::Error::other)?;
        Ok(Arc::new(Self { config: RwLock::new(config), renew_after, address }))
    }

    /// For one connection: whoever comes next may meet a newer one.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone().into()
    }

    /// Renews our certificate in time, and at once when the roots change, until it is dropped.
    pub(crate) async fn keep(self: Arc<Self>, shared: Arc<Shared>) {
        let mut trust = shared.ca.trust_changes();
        let mut wait = self.renew_after;
        loop {
            tokio::select! {
                changed = trust.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait) => {}
            }
            wait = match config(&shared, self.address) {
                Ok((config, renew_after)) => {
                    *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
                    renew_after
                }
                Err(error) => {
                    tracing::error!(%error, "the control plane's own certificate could not be renewed; trying again");
                    AGAIN
                }
            };
        }
    }
}

/// Who is at the other end, by the certificate that the handshake has checked. One that names no workload names nobody.
pub(crate) fn shown(connection: &ServerConnection) -> Option<SpiffeId> {
    spiffe::of_certificate(connection.peer_certificates()?.first()?).ok()
}

/// With a certificate of its own, and when that is to be renewed: at half of its life, which a signer near its end cuts short.
fn config(shared: &Shared, address: SocketAddr) -> Result<(Arc<ServerConfig>, Duration), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let mut names = Names { dns: NAMES.map(str::to_owned).to_vec(), ..Names::default() };
    names.addresses = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let mut reached: Vec<IpAddr> = vec![address.ip()];
    for name in &shared.ca.options().names {
        match name.parse() {
            Ok(address) => reached.push(address),
            Err(_) => names.dns.push(name.clone()),
        }
    }
    reached.retain(|address| !address.is_unspecified() && !address.is_loopback());
    names.addresses.extend(reached);
    let trusted = shared.trust_domains().map_err(|status| status.message().to_owned())?;
    names.id = SpiffeId::new(trusted[0].clone(), ACCOUNT.0, ACCOUNT.1).ok();

    let (key, request) = csr::generate().map_err(|error| text(&error))?;
    let request = Request::read(&request).map_err(|error| text(&error))?;
    let issued = shared.ca.serve(&request, &names).map_err(|error| text(&error))?;
    let renew_after = issued.not_after.duration_since(SystemTime::now()).unwrap_or_default() / 2;
    let provider = Arc::new(default_provider());
    let mut roots = RootCertStore::empty();
    for root in &shared.ca.trust().roots {
        roots.add(root.clone()).map_err(|error| text(&error))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| text(&error))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| text(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(issued.chain, key)
        .map_err(|error| text(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A certificate is checked anew on every connection: there are few, and they last.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok((Arc::new(config), renew_after.max(AGAIN)))
}
