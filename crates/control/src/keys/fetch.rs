//! Key sets over HTTP and HTTPS.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{ACCEPT, HOST, LOCATION, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use maille_model::KeySource;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{FetchKeys, Fetched};

/// No document about keys is longer.
const LONGEST: usize = 1 << 20;
const MOST_REDIRECTS: usize = 5;
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// The network, and the authorities that the system trusts.
#[derive(Clone)]
pub(crate) struct Web {
    tls: TlsConnector,
}

impl Web {
    pub(crate) fn new() -> Web {
        let mut roots = RootCertStore::empty();
        // A root that cannot be read is one that vouches for nobody.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = match versions {
            Ok(builder) => builder.with_root_certificates(roots).with_no_client_auth(),
            // The provider has all versions.
            Err(error) => unreachable!("{error}"),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Web { tls: TlsConnector::from(Arc::new(config)) }
    }

    async fn keys(&self, source: KeySource) -> Result<Arc<str>, String> {
        let uri = match source {
            KeySource::Uri(uri) => uri,
            KeySource::Discovery(issuer) => {
                let document = self.get(&format!("{}{DISCOVERY}", issuer.trim_end_matches('/'))).await?;
                let document: Value =
                    serde_json::from_str(&document).map_err(|error| format!("{DISCOVERY}: {error}"))?;
                let uri = document["jwks_uri"].as_str().ok_or_else(|| format!("{DISCOVERY} names no jwks_uri"))?;
                uri.to_owned()
            }
        };
        let keys = self.get(&uri).await?;
        let is_set = |document: &Value| document["keys"].is_array() || document["kty"].is_string();
        match serde_json::from_str::<Value>(&keys) {
            Ok(document) if is_set(&document) => Ok(keys.into()),
            _ => Err(format!("what {uri} gives is not a key set")),
        }
    }

    async fn get(&self, uri: &str) -> Result<String, String> {
        let mut uri: Uri = uri.parse().map_err(|error| format!("{uri}: {error}"))?;
        for _ in 0..=MOST_REDIRECTS {
            let response = self.ask(&uri).await.map_err(|reason| format!("{uri}: {reason}"))?;
            if response.status().is_redirection() {
                let next = response.headers().get(LOCATION).and_then(|next| next.to_str().ok());
                uri = next.and_then(|next| follow(&uri, next)).ok_or_else(|| format!("{uri} leads nowhere"))?;
                continue;
            }
            if !response.status().is_success() {
                return Err(format!("{uri} answers {}", response.status()));
            }
            let body = Limited::new(response.into_body(), LONGEST).collect().await;
            let body = body.map_err(|error| format!("{uri}: {error}"))?.to_bytes();
            return String::from_utf8(body.into()).map_err(|_| format!("what {uri} gives is not text"));
        }
        Err(format!("{uri} is one redirection too many"))
    }

    async fn ask(&self, uri: &Uri) -> Result<hyper::Response<hyper::body::Incoming>, String> {
        let host = uri.host().ok_or("it names no host")?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("only http:// and https:// are supported".into()),
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = TcpStream::connect((bare, port)).await.map_err(|error| error.to_string())?;
        if !secure {
            return exchange(stream, uri).await;
        }
        let name = ServerName::try_from(bare.to_owned()).map_err(|error| error.to_string())?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| error.to_string())?;
        exchange(stream, uri).await
    }
}

impl FetchKeys for Web {
    fn fetch(&self, source: KeySource) -> Fetched {
        let web = self.clone();
        Box::pin(async move { web.keys(source).await })
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    uri: &Uri,
) -> Result<hyper::Response<hyper::body::Incoming>, String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // Ends with the answer, or when the answer is given up.
    tokio::spawn(connection);
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let request = Request::get(target)
        .header(HOST, authority)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, crate::IDENTIFIER)
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    sender.send_request(request).await.map_err(|error| error.to_string())
}

/// Where a redirection leads; never from https to http.
fn follow(from: &Uri, to: &str) -> Option<Uri> {
    let next: Uri = to.parse().ok()?;
    let next = match next.scheme() {
        Some(_) => next,
        None if to.starts_with('/') => Uri::builder()
            .scheme(from.scheme()?.clone())
            .authority(from.authority()?.clone())
            .path_and_query(to)
            .build()
            .ok()?,
        None => return None,
    };
    let downgrades = from.scheme_str() == Some("https") && next.scheme_str() != Some("https");
    (!downgrades).then_some(next)
}
