//! TLS towards clients: which certificate and which configuration a connection gets, by what its first message says.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use maille_identity::verify::{Certificate, Checks, PeerVerifier};
use maille_identity::x509::{PeerCertificate, dns_matches};
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{ClientHello, NoClientAuth, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, ServerConfig, SignatureScheme};

use super::params::Params;
use crate::config::DownstreamTls;

/// A configuration with its secrets, ready for connections. Sessions are taken up again within it alone: its ticket keys
/// are its own, and go with it.
pub(crate) struct ServerContext {
    faces: Vec<Face>,
    verifier: Option<Arc<PeerVerifier>>,
    alpn: Vec<Box<[u8]>>,
}

/// What we are to some clients.
struct Face {
    certificate: Arc<Certificate>,
    config: Arc<ServerConfig>,
    /// For clients that want none of our protocols: they are served without one, as Envoy does.
    no_alpn: Arc<ServerConfig>,
}

/// A certificate with what is to be shown with it at the time.
#[derive(Debug)]
struct Shown(Arc<Certificate>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(self.0.shown(now.as_secs() as i64).clone())
    }
}

/// What a connection gets.
pub(crate) struct Choice {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) local: Arc<PeerCertificate>,
}

impl ServerContext {
    /// Of a configuration and its secrets, which are all there.
    pub(crate) fn new(
        tls: &DownstreamTls,
        certificates: &[Arc<Certificate>],
        checks: Option<Checks>,
    ) -> Result<ServerContext, Error> {
        let params = Params::of(&tls.common).map_err(|(_, reason)| Error::General(reason))?;
        // Someone who must show a certificate, which nothing is known of, may show any.
        let checks = checks.or_else(|| tls.require_client_certificate.then(Checks::default));
        let verifier = checks.map(|checks| Arc::new(PeerVerifier::new(checks, tls.require_client_certificate)));
        let ticketer = if tls.tickets { Some(Ticketer::new()?) } else { None };
        let alpn: Vec<Box<[u8]>> = tls.common.alpn.iter().map(|name| name.as_bytes().into()).collect();
        let face = |certificate: &Arc<Certificate>| {
            let builder = ServerConfig::builder_with_provider(params.provider.clone())
                .with_protocol_versions(&params.versions)?;
            let builder = match &verifier {
                Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
                None => builder.with_client_cert_verifier(Arc::new(NoClientAuth)),
            };
            let mut config = builder.with_cert_resolver(Arc::new(Shown(certificate.clone())));
            config.session_storage = Arc::new(NoServerSessionStorage {});
            // Envoy: the server's order counts, unless `prefer_client_ciphers` says otherwise (which is refused by name).
            config.ignore_client_order = true;
            match &ticketer {
                Some(ticketer) => config.ticketer = ticketer.clone(),
                None => config.send_tls13_tickets = 0,
            }
            let no_alpn = Arc::new(config.clone());
            config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
            Ok(Face { certificate: certificate.clone(), config: Arc::new(config), no_alpn })
        };
        let faces = certificates.iter().map(face).collect::<Result<Vec<_>, Error>>()?;
        if faces.is_empty() {
            return Err(Error::NoCertificatesPresented);
        }
        Ok(ServerContext { faces, verifier, alpn })
    }

    /// Checks certificates of clients, if any are.
    pub(crate) fn verifier(&self) -> Option<&Arc<PeerVerifier>> {
        self.verifier.as_ref()
    }

    /// What a client gets.
    pub(crate) fn choose(&self, hello: &ClientHello<'_>) -> Choice {
        let face = self.face(hello.server_name(), hello.signature_schemes());
        let wants = |ours: &[u8]| hello.alpn().is_some_and(|mut theirs| theirs.any(|name| name == ours));
        let agree = hello.alpn().is_none() || self.alpn.iter().any(|ours| wants(ours));
        let config = if agree { face.config.clone() } else { face.no_alpn.clone() };
        Choice { config, local: face.certificate.leaf.clone() }
    }

    /// The certificate for a name, else the first; of several the one whose key the client can verify, ECDSA if it can.
    fn face(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> &Face {
        let first = &self.faces[0];
        if self.faces.len() == 1 {
            return first;
        }
        let usable = |face: &&Face| face.certificate.key.key.choose_scheme(schemes).is_some();
        let best = |named: &dyn Fn(&Face) -> bool| {
            let fitting = || self.faces.iter().filter(|face| named(face)).filter(usable);
            fitting().find(|face| face.is_ecdsa()).or_else(|| fitting().next())
        };
        let exact = name.and_then(|name| best(&|face| face.names().any(|own| own.eq_ignore_ascii_case(name))));
        let wild = || name.and_then(|name| best(&|face| face.names().any(|own| dns_matches(own, name))));
        exact.or_else(wild).or_else(|| best(&|_| true)).unwrap_or(first)
    }
}

impl Face {
    fn is_ecdsa(&self) -> bool {
        self.certificate.key.key.algorithm() == rustls::SignatureAlgorithm::ECDSA
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.certificate.leaf.dns_sans.iter().map(|name| &**name)
    }
}

impl fmt::Debug for ServerContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerContext").field("certificates", &self.faces.len()).finish_non_exhaustive()
    }
}
