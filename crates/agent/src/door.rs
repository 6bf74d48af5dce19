//! The way to the control plane: where it is, by which roots it is known, and what opens it.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use maille_identity::{Workload, pem};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::{Channel, Endpoint, Uri};

use crate::membership::Tokens;

/// How the control plane is called in its certificate, as Istio's.
pub(crate) const NAME: &str = "istiod.istio-system.svc";

/// Where the control plane listens with TLS and the roots it is known by, in PEM; read anew for each connection.
pub type Place = Arc<dyn Fn() -> Result<(SocketAddr, String), String> + Send + Sync>;

/// The way to a control plane.
#[derive(Clone)]
pub struct Door {
    /// Where.
    pub place: Place,
    /// What opens it to whoever has no certificate yet.
    pub tokens: Option<Tokens>,
}

/// Why the control plane cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// Nobody knows where it is, or by what it is known.
    #[error("the control plane cannot be found: {0}")]
    Unknown(String),
    /// There is no token.
    #[error("no token: {0}")]
    Token(String),
    /// It does not answer, or is somebody else.
    #[error("the control plane at {address}: {reason}")]
    Unreachable {
        /// Where it was looked for.
        address: SocketAddr,
        /// What happened.
        reason: String,
    },
    /// The roots, or our own certificate.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

impl Door {
    /// Whether there is anything to show but a certificate.
    pub fn has_token(&self) -> bool {
        self.tokens.is_some()
    }

    /// Shows the token.
    ///
    /// # Errors
    /// When there is none.
    pub fn authorize(&self, metadata: &mut MetadataMap) -> Result<(), DoorError> {
        let tokens = self.tokens.as_ref().ok_or_else(|| DoorError::Token("none was given".into()))?;
        let token = tokens().map_err(DoorError::Token)?;
        let value = format!("Bearer {token}").parse::<MetadataValue<_>>();
        let mut value = value.map_err(|_| DoorError::Token("it holds characters that no header may hold".into()))?;
        value.set_sensitive(true);
        metadata.insert("authorization", value);
        Ok(())
    }

    /// A connection that the control plane has proved to be at the end of, on which we show our certificate if we have one.
    ///
    /// # Errors
    /// When the control plane cannot be reached, or is not the one it should be.
    pub async fn stream(&self, own: Option<&Workload>, alpn: &[&[u8]]) -> Result<TlsStream<TcpStream>, DoorError> {
        let (address, config) = self.config(own, alpn)?;
        dial(address, config).await
    }

    /// A gRPC channel, on which we show our certificate if we have one.
    ///
    /// # Errors
    /// When the control plane cannot be reached, or is not the one it should be.
    pub async fn channel(&self, own: Option<&Workload>) -> Result<Channel, DoorError> {
        let (address, config) = self.config(own, &[b"h2"])?;
        // One connection per channel: whoever needs another looks for the place anew.
        let mut once = Some(dial(address, config).await?);
        let connector = tower::service_fn(move |_: Uri| {
            let stream = once.take().ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionReset));
            async move { stream.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://istiod.istio-system.svc")
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true);
        let connected = endpoint.connect_with_connector(connector).await;
        connected.map_err(|error| DoorError::Unreachable { address, reason: with_causes(&error) })
    }

    fn config(&self, own: Option<&Workload>, alpn: &[&[u8]]) -> Result<(SocketAddr, ClientConfig), DoorError> {
        let (address, roots) = (self.place)().map_err(DoorError::Unknown)?;
        let tls = |error: &dyn std::fmt::Display| DoorError::Tls(error.to_string());
        let mut store = RootCertStore::empty();
        let found = pem::certificates(roots.as_bytes()).map_err(|error| tls(&error))?;
        // What we have been told since is as good as what we began with.
        for root in found.iter().chain(own.iter().flat_map(|own| &own.roots)) {
            store.add(root.clone()).map_err(|error| tls(&error))?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| tls(&error))?
            .with_root_certificates(store);
        let mut config = match own {
            None => config.with_no_client_auth(),
            Some(own) => {
                config.with_client_auth_cert(own.chain.clone(), own.key.clone_key()).map_err(|error| tls(&error))?
            }
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config.resumption = rustls::client::Resumption::disabled();
        Ok((address, config))
    }
}

async fn dial(address: SocketAddr, config: ClientConfig) -> Result<TlsStream<TcpStream>, DoorError> {
    let unreachable = |error: io::Error| DoorError::Unreachable { address, reason: error.to_string() };
    let stream = TcpStream::connect(address).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    let name = ServerName::try_from(NAME).map_err(|error| DoorError::Tls(error.to_string()))?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(unreachable)
}

/// The whole chain: a transport error by itself says only that it is one.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
