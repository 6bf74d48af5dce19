//! Sessions that connections to a server can take up again.
//!
//! Of TLS 1.3 each ticket is good for one connection. rustls keeps eight, which connections made at the same time use up.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::NamedGroup;
use rustls::client::{ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

/// More than these are not kept: the oldest are forgotten.
const MOST: usize = 64;

/// Of TLS 1.2, so many.
const OLDER: usize = 32;

pub(super) struct Sessions {
    tickets: Mutex<VecDeque<(ServerName<'static>, Tls13ClientSessionValue)>>,
    /// What there is beside tickets of TLS 1.3.
    others: ClientSessionMemoryCache,
}

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions { tickets: Mutex::default(), others: ClientSessionMemoryCache::new(OLDER) }
    }
}

impl Sessions {
    fn tickets(&self) -> MutexGuard<'_, VecDeque<(ServerName<'static>, Tls13ClientSessionValue)>> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for Sessions {
    fn insert_tls13_ticket(&self, server: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut tickets = self.tickets();
        if tickets.len() >= MOST {
            tickets.pop_front();
        }
        tickets.push_back((server, ticket));
    }

    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let mut tickets = self.tickets();
        let newest = tickets.iter().rposition(|(of, _)| of == server)?;
        tickets.remove(newest).map(|(_, ticket)| ticket)
    }

    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.others.set_kx_hint(server, group);
    }

    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        self.others.kx_hint(server)
    }

    fn set_tls12_session(&self, server: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.others.set_tls12_session(server, session);
    }

    fn tls12_session(&self, server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.others.tls12_session(server)
    }

    fn remove_tls12_session(&self, server: &ServerName<'static>) {
        self.others.remove_tls12_session(server);
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sessions({})", self.tickets().len())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use maille_identity::verify::{Certificate, Checks, PeerVerifier, provider};
    use rcgen::{CertificateParams, KeyPair};
    use rustls::client::Resumption;
    use rustls::crypto::aws_lc_rs::Ticketer;
    use rustls::sign::SingleCertAndKey;
    use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection};

    use super::*;

    #[test]
    fn connections_made_at_the_same_time_have_a_ticket_each() {
        let sessions = Arc::new(Sessions::default());
        let (client, server) = (client(sessions.clone()), server());
        let begin = || ClientConnection::new(client.clone(), "a.example".try_into().unwrap()).unwrap();
        let mut kinds = Vec::new();
        for _ in 0..3 {
            let begun: Vec<_> = (0..20).map(|_| begin()).collect();
            let kind = begun.into_iter().map(|client| finish(client, ServerConnection::new(server.clone()).unwrap()));
            kinds.push(kind.filter(|kind| *kind == HandshakeKind::Resumed).count());
        }
        assert_eq!(kinds, [0, 20, 20]);
        assert!(sessions.take_tls13_ticket(&"b.example".try_into().unwrap()).is_none(), "they are of another server");
        for _ in 0..40 {
            finish(begin(), ServerConnection::new(server.clone()).unwrap());
        }
        assert_eq!(format!("{sessions:?}"), "Sessions(64)");
    }

    fn client(sessions: Arc<Sessions>) -> Arc<ClientConfig> {
        let verifier = Arc::new(PeerVerifier::new(Checks::default(), false));
        let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let mut config = config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        config.resumption = Resumption::store(sessions);
        Arc::new(config)
    }

    fn server() -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        let own = Certificate::read(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_no_client_auth().with_cert_resolver(Arc::new(SingleCertAndKey::from(own.key)));
        config.ticketer = Ticketer::new().unwrap();
        Arc::new(config)
    }

    /// Carries what the two sides say to each other until they have nothing to say.
    fn finish(mut client: ClientConnection, mut server: ServerConnection) -> HandshakeKind {
        while client.wants_write() || server.wants_write() {
            let (mut there, mut back) = (Vec::new(), Vec::new());
            while client.wants_write() {
                client.write_tls(&mut there).unwrap();
            }
            let mut there = &there[..];
            while !there.is_empty() {
                server.read_tls(&mut there).unwrap();
                server.process_new_packets().unwrap();
            }
            while server.wants_write() {
                server.write_tls(&mut back).unwrap();
            }
            let mut back = &back[..];
            while !back.is_empty() {
                client.read_tls(&mut back).unwrap();
                client.process_new_packets().unwrap();
            }
        }
        client.handshake_kind().unwrap()
    }
}
