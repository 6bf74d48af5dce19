//! What is known of a TLS connection once its handshake is over.

use std::cell::OnceCell;
use std::sync::Arc;

use maille_identity::verify::PeerVerifier;
use maille_identity::x509::PeerCertificate;
use rustls::pki_types::UnixTime;
use rustls::{Connection, HandshakeKind, ProtocolVersion};

use super::TlsStream;
use super::params::suite_name;

/// What two sides have agreed on, and who they are.
#[derive(Debug, Default)]
pub(crate) struct TlsInfo {
    /// `TLSv1.2` or `TLSv1.3`.
    pub(crate) version: &'static str,
    /// The cipher suite, by OpenSSL's name.
    pub(crate) cipher: &'static str,
    /// The name that the client asked for; empty is none.
    pub(crate) sni: Box<str>,
    /// Whether it goes on with an earlier session.
    pub(crate) session_resumed: bool,
    /// The other side's certificate; it has been verified if the configuration wants that.
    pub(crate) peer: Option<Arc<PeerCertificate>>,
    /// Whether the other side's certificate was checked, and found good.
    pub(crate) peer_validated: bool,
    /// Our own certificate.
    pub(crate) local: Option<Arc<PeerCertificate>>,
    /// What `x-forwarded-client-cert` says of it, once it has been asked for.
    pub(crate) forwarded: OnceCell<Box<str>>,
}

impl TlsInfo {
    /// Of a finished handshake.
    pub(super) fn of(stream: &TlsStream, verifier: Option<&Arc<PeerVerifier>>) -> TlsInfo {
        let state = stream.state();
        let (sni, is_client) = match stream.session() {
            Connection::Server(server) => (server.server_name().unwrap_or_default(), false),
            Connection::Client(_) => ("", true),
        };
        let peer = state.peer_certificates().and_then(|chain| {
            let known = verifier.and_then(|verifier| verifier.known(chain, is_client, UnixTime::now()));
            known.or_else(|| PeerCertificate::parse(chain.first()?).ok().map(Arc::new))
        });
        TlsInfo {
            version: match state.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                _ => "",
            },
            cipher: state.negotiated_cipher_suite().map_or("", |suite| suite_name(suite.suite())),
            sni: sni.into(),
            session_resumed: state.handshake_kind() == Some(HandshakeKind::Resumed),
            peer_validated: peer.is_some() && verifier.is_some_and(|verifier| verifier.checks_anything()),
            peer,
            local: None,
            forwarded: OnceCell::new(),
        }
    }
}
