//! The client: certificates with any names, tokens with any claims, addresses of its own.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::ask::{Ask, Verdict};
use crate::variants::Variant;

/// Only what is broken takes as long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A name that the server's certificate has, for hellos that ask for none.
const SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);

pub(crate) struct Client {
    issuer: Issuer<'static, KeyPair>,
    key: KeyPair,
    pub(crate) authority: PathBuf,
    pub(crate) server_chain: PathBuf,
    pub(crate) server_key: PathBuf,
    configurations: Mutex<HashMap<[String; 2], Arc<ClientConfig>>>,
    token_key: EcdsaKeyPair,
    pub(crate) key_set: String,
}

impl Client {
    pub(crate) fn new(folder: &Path) -> Client {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let (token_key, key_set) = token_key();
        let client = Client {
            issuer,
            key: KeyPair::generate().unwrap(),
            authority: folder.join("authority.pem"),
            server_chain: folder.join("server.pem"),
            server_key: folder.join("server.key"),
            configurations: Mutex::default(),
            token_key,
            key_set,
        };
        std::fs::write(&client.authority, authority.pem()).unwrap();
        std::fs::write(&client.server_chain, client.certificate(SanType::IpAddress(SERVER.into()), "server")).unwrap();
        std::fs::write(&client.server_key, client.key.serialize_pem()).unwrap();
        client
    }

    fn certificate(&self, name: SanType, subject: &str) -> String {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![name];
        params.distinguished_name.push(DnType::CommonName, subject);
        params.signed_by(&self.key, &self.issuer).unwrap().pem()
    }

    /// A token with these claims.
    pub(crate) fn token(&self, claims: &Value) -> String {
        let mut claims = claims.clone();
        claims["exp"] = json!(4_102_444_800_u64);
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&json!({"alg": "ES256", "kid": "k", "typ": "JWT"})), part(&claims));
        let signature = self.token_key.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// What comes of each request of a variant, each on a connection of its own.
    pub(crate) fn verdicts(&self, variant: &Variant) -> Vec<Verdict> {
        let ask = |request| match self.ask(request, variant.http) {
            Ok(verdict) => verdict,
            Err(error) if is_an_end(error.kind()) => Verdict::Closed,
            Err(error) => panic!("{} {request:?}: {error}", variant.name),
        };
        variant.requests.iter().map(ask).collect()
    }

    fn ask(&self, ask: &Ask, http: bool) -> io::Result<Verdict> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(ask.source.into(), 0).into())?;
        socket.connect(&SocketAddr::V4(ask.to).into())?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let request = match http {
            true => self.request(ask),
            false => b"anybody there?".to_vec(),
        };
        let Some(uri) = &ask.uri else { return exchange(stream, &request, http) };
        let name = match ask.sni.as_str() {
            "" => ServerName::IpAddress(IpAddr::V4(SERVER).into()),
            name => ServerName::try_from(name.to_owned()).map_err(io::Error::other)?,
        };
        let session = ClientConnection::new(self.configuration(uri, &ask.subject), name).map_err(io::Error::other)?;
        exchange(StreamOwned::new(session, stream), &request, http)
    }

    fn request(&self, ask: &Ask) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", ask.method, ask.path, ask.host);
        for (name, value) in ask.all_headers(|claims| self.token(claims)) {
            text += &format!("{name}: {value}\r\n");
        }
        (text + "\r\n").into_bytes()
    }

    /// TLS with a certificate that has these names. The server's does not matter here.
    fn configuration(&self, uri: &str, subject: &str) -> Arc<ClientConfig> {
        let mut configurations = self.configurations.lock().unwrap();
        let make = || {
            let certificate = self.certificate(SanType::URI(uri.try_into().unwrap()), subject);
            let chain = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(self.key.serialize_pem().as_bytes()).unwrap();
            let config = ClientConfig::builder_with_provider(maille_identity::verify::provider());
            let config = config.with_safe_default_protocol_versions().unwrap();
            let verifier = Arc::new(AnyName);
            let config = config.dangerous().with_custom_certificate_verifier(verifier);
            Arc::new(config.with_client_auth_cert(vec![chain], key).unwrap())
        };
        configurations.entry([uri.to_owned(), subject.to_owned()]).or_insert_with(make).clone()
    }
}

/// How a connection that is closed on us shows.
fn is_an_end(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe)
}

/// Sends a request, or something to be echoed.
fn exchange(mut stream: impl Read + Write, request: &[u8], http: bool) -> io::Result<Verdict> {
    stream.write_all(request)?;
    let mut got = Vec::new();
    if !http {
        got.resize(request.len(), 0);
        stream.read_exact(&mut got)?;
        assert_eq!(got, request);
        return Ok(Verdict::Answer(200, String::new()));
    }
    // Envoy waits a second before it closes, so the end is found by the length.
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer)?;
        got.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&got);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            match count {
                0 => return Ok(Verdict::Closed),
                _ => continue,
            }
        };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if count == 0 || length.is_some_and(|length| body.len() >= length.parse().unwrap_or(0)) {
            let status = head.get(9..12).and_then(|status| status.parse().ok()).ok_or(ErrorKind::InvalidData)?;
            return Ok(Verdict::Answer(status, body.to_owned()));
        }
    }
}

/// Takes whatever certificate the server has: who serves is not in question.
#[derive(Debug)]
struct AnyName;

impl rustls::client::danger::ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// A key that signs tokens, and the set it is in.
fn token_key() -> (EcdsaKeyPair, String) {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = pair.public_key().as_ref();
    let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
    let key = json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "k", "x": x, "y": y});
    (pair, json!({"keys": [key]}).to_string())
}
