//! Who a gateway that ends TLS says it is, and clients that believe it.

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use std::sync::Arc;

/// Certificate (ECDSA P-256) and key in PEM.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
    roots: RootCertStore,
}

/// The key exchanges that a client offers.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Groups {
    X25519,
    All,
}

impl Identity {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed(["bench.example".to_owned()])?;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone())?;
        Ok(Self { certificate: made.cert.pem(), key: made.signing_key.serialize_pem(), roots })
    }

    /// The name that it proves.
    pub(crate) fn name() -> anyhow::Result<ServerName<'static>> {
        Ok(ServerName::try_from("bench.example")?)
    }

    /// A client that resumes nothing.
    pub(crate) fn client(&self, groups: Groups) -> anyhow::Result<Arc<ClientConfig>> {
        let mut provider = aws_lc_rs::default_provider();
        if groups == Groups::X25519 {
            provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}
