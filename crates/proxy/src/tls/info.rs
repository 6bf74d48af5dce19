//! What is known of a TLS connection once its handshake is over.

use std::sync::Arc;

use maille_identity::x509::PeerCertificate;

/// What two sides have agreed on, and who they are.
#[derive(Debug, Default)]
pub(crate) struct TlsInfo {
    /// `TLSv1.2` or `TLSv1.3`.
    pub(crate) version: &'static str,
    /// The cipher suite, by OpenSSL's name.
    pub(crate) cipher: &'static str,
    /// The name that the client asked for; empty is none.
    pub(crate) sni: Box<str>,
    /// What ALPN has settled on; empty is nothing.
    pub(crate) alpn: Box<str>,
    /// Whether it goes on with an earlier session.
    pub(crate) session_resumed: bool,
    /// The other side's certificate; it has been verified if the configuration wants that.
    pub(crate) peer: Option<PeerCertificate>,
    /// Whether the other side's certificate was checked, and found good.
    pub(crate) peer_validated: bool,
    /// Our own certificate.
    pub(crate) local: Option<Arc<PeerCertificate>>,
}
