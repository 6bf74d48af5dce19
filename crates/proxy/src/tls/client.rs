//! TLS towards upstreams.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use maille_identity::verify::{Certificate, Checks, PeerVerifier};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ClientConnection, Error};

use super::params::Params;
use super::sessions::Sessions;
use crate::config::{UpstreamProtocol, UpstreamTls};

/// A configuration with its secrets, ready for connections. Sessions are taken up again within it alone.
pub(crate) struct ClientContext {
    tls: Arc<UpstreamTls>,
    certificate: Option<Arc<Certificate>>,
    verifier: Arc<PeerVerifier>,
    /// Made for the first connection: there are clusters by the thousand, and most of them never see one.
    configs: OnceLock<Result<Configs, Error>>,
}

/// By what connections carry: HTTP says which one it is when the configuration does not.
type Configs = [Arc<ClientConfig>; 4];

/// What a connection is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Carries {
    #[default]
    Http1,
    Http2,
    /// The HTTP that the server likes better.
    AnyHttp,
    Bytes,
}

impl From<UpstreamProtocol> for Carries {
    fn from(protocol: UpstreamProtocol) -> Carries {
        match protocol {
            UpstreamProtocol::Http1 | UpstreamProtocol::Downstream => Carries::Http1,
            UpstreamProtocol::Http2 => Carries::Http2,
            UpstreamProtocol::Alpn => Carries::AnyHttp,
        }
    }
}

impl Carries {
    fn alpn(self) -> &'static [&'static [u8]] {
        match self {
            Carries::Http1 => &[b"http/1.1"],
            Carries::Http2 => &[b"h2"],
            Carries::AnyHttp => &[b"h2", b"http/1.1"],
            Carries::Bytes => &[],
        }
    }
}

impl ClientContext {
    /// Of a configuration and its secrets, which are all there. `asked`: the certificate must be for the name asked for.
    pub(crate) fn new(
        tls: &Arc<UpstreamTls>,
        certificate: Option<&Arc<Certificate>>,
        checks: Option<Checks>,
        asked: bool,
    ) -> Result<ClientContext, Error> {
        params(tls)?;
        let mut checks = checks.unwrap_or_default();
        checks.server_name = asked || tls.auto_sni_san_validation;
        let verifier = Arc::new(PeerVerifier::new(checks, false));
        let certificate = certificate.cloned();
        Ok(ClientContext { tls: tls.clone(), certificate, verifier, configs: OnceLock::new() })
    }

    fn configs(&self) -> Result<Configs, Error> {
        let tls = &self.tls;
        let params = params(tls)?;
        let builder = ClientConfig::builder_with_provider(params.provider)
            .with_protocol_versions(&params.versions)?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier.clone());
        let mut config = match &self.certificate {
            Some(certificate) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certificate.key.clone())))
            }
            None => builder.with_no_client_auth(),
        };
        // Renewing this context forgets the sessions.
        config.resumption = Resumption::store(Arc::new(Sessions::default()));
        config.alpn_protocols = tls.common.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok([Carries::Http1, Carries::Http2, Carries::AnyHttp, Carries::Bytes].map(|carries| {
            let mut config = config.clone();
            if config.alpn_protocols.is_empty() {
                config.alpn_protocols = carries.alpn().iter().map(|name| name.to_vec()).collect();
            }
            Arc::new(config)
        }))
    }

    /// Checks certificates of servers.
    pub(crate) fn verifier(&self) -> &Arc<PeerVerifier> {
        &self.verifier
    }

    /// The name that a host is asked by. `wanted` comes with the request, `hostname` is the host's own.
    pub(crate) fn name(&self, wanted: Option<&str>, hostname: &str, address: IpAddr) -> ServerName<'static> {
        let own = if self.tls.auto_host_sni && !hostname.is_empty() { hostname } else { &self.tls.sni };
        let name = wanted.unwrap_or(own);
        // Without a name there is no SNI, which is what rustls makes of an address.
        ServerName::try_from(name.to_owned()).unwrap_or(ServerName::IpAddress(address.into()))
    }

    /// Begins a session.
    pub(crate) fn connect(&self, name: ServerName<'static>, carries: Carries) -> Result<ClientConnection, Error> {
        let configs = self.configs.get_or_init(|| self.configs()).as_ref().map_err(Error::clone)?;
        ClientConnection::new(configs[carries as usize].clone(), name)
    }
}

fn params(tls: &UpstreamTls) -> Result<Params, Error> {
    Params::of(&tls.common).map_err(|(_, reason)| Error::General(reason))
}
