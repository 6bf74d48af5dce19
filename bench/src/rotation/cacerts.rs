//! Certificate authorities to plug in, in the layout of Istio's `cacerts`; and what a server shows.

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, crypto::aws_lc_rs};
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// An authority with its key.
pub(super) struct Authority {
    certificate: rcgen::Certificate,
    params: CertificateParams,
    key: KeyPair,
}

impl Authority {
    pub(super) fn root(name: &str) -> anyhow::Result<Self> {
        let (params, key) = (params(&format!("root {name}")), KeyPair::generate()?);
        let certificate = params.self_signed(&key)?;
        Ok(Self { certificate, params, key })
    }

    /// One under it.
    pub(super) fn intermediate(&self, name: &str) -> anyhow::Result<Self> {
        let (params, key) = (params(&format!("intermediate {name}")), KeyPair::generate()?);
        let certificate = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key))?;
        Ok(Self { certificate, params, key })
    }

    pub(super) fn der(&self) -> &CertificateDer<'static> {
        self.certificate.der()
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params
}

/// The folder that is plugged in.
pub(super) struct Folder {
    place: tempfile::TempDir,
}

impl Folder {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self { place: tempfile::tempdir()? })
    }

    pub(super) fn path(&self) -> &Path {
        self.place.path()
    }

    /// Replaces what is in it, file by file. The first of the roots is the one that the intermediate is of.
    pub(super) fn put(&self, intermediate: &Authority, roots: &[&Authority]) -> anyhow::Result<()> {
        let root = roots.first().context("there is no root")?.certificate.pem();
        let certificate = intermediate.certificate.pem();
        self.write("ca-key.pem", &intermediate.key.serialize_pem())?;
        self.write("ca-cert.pem", &certificate)?;
        self.write("cert-chain.pem", &format!("{certificate}{root}"))?;
        self.write("root-cert.pem", &roots.iter().map(|root| root.certificate.pem()).collect::<String>())
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let (draft, path): (PathBuf, PathBuf) = (self.path().join(".draft"), self.path().join(name));
        fs::write(&draft, text)?;
        fs::rename(draft, path).with_context(|| format!("cannot write {name}"))
    }
}

/// The chain that a server shows to whoever comes, without its being believed.
pub(super) fn shown(server: SocketAddr) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let looker = Arc::new(Looker {
        seen: Mutex::default(),
        schemes: provider.signature_verification_algorithms.supported_schemes(),
    });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(looker.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"istio".to_vec()];
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut connection = ClientConnection::new(Arc::new(config), ServerName::try_from("nobody.example")?)?;
    while connection.is_handshaking() && connection.complete_io(&mut stream).is_ok() {}
    let seen = std::mem::take(&mut *looker.seen.lock().unwrap_or_else(PoisonError::into_inner));
    anyhow::ensure!(!seen.is_empty(), "{server} shows no certificate");
    Ok(seen)
}

/// Believes nothing, and everything.
#[derive(Debug)]
struct Looker {
    seen: Mutex<Vec<CertificateDer<'static>>>,
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for Looker {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let all = std::iter::once(leaf).chain(intermediates).map(|certificate| certificate.clone().into_owned());
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = all.collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
