//! Policies at work: what they are told of a connection or a request, and what a refusal becomes.

use std::borrow::Cow;
use std::time::SystemTime;

use maille_http::{Name, RequestHead};

use super::connection::ConnectionInfo;
use super::http::Client;
use super::record::Record;
use super::reply::Reply;
use super::scratch::Scratch;
use crate::config::{JwtFilter, Metadata, Rbac, Route};
use crate::policy::rbac::{Facts, Peer};
use crate::policy::{self, Refusal, Step};
use crate::route::ClientTls;

/// What policies see of a connection, and of a request on it.
pub(super) fn facts<'a>(
    info: &'a ConnectionInfo,
    remote: std::net::IpAddr,
    head: Option<&'a RequestHead>,
    route: Option<&'a Route>,
) -> Facts<'a> {
    let peer = info.tls.as_deref().map(|tls| match &tls.peer {
        Some(peer) => Peer { uris: &peer.uri_sans, dns: &peer.dns_sans, subject: &peer.subject },
        None => Peer::default(),
    });
    Facts {
        head,
        direct: info.direct.ip(),
        remote,
        destination: info.local,
        server_name: info.tls.as_deref().map_or(&*info.server_name, |tls| &tls.sni),
        peer,
        metadata: None,
        route_metadata: route.and_then(|route| route.metadata.as_deref()),
    }
}

/// What routes may ask of the client's TLS.
pub(super) fn client_tls(info: &ConnectionInfo) -> ClientTls {
    info.tls.as_deref().map_or_else(ClientTls::default, |tls| ClientTls {
        presented: tls.peer.is_some(),
        validated: tls.peer.is_some() && tls.peer_validated,
    })
}

/// Whether a connection may go on: RBAC rules that stand before everything else on its chain.
pub(super) fn admits(info: &ConnectionInfo) -> Result<(), Refusal> {
    for rules in &info.chain.rbac {
        let facts = facts(info, info.remote.ip(), None, None);
        if let Step::Refuse(refusal) = policy::ask_rules(rules, &facts, &mut Metadata::default()) {
            return Err(*refusal);
        }
    }
    Ok(())
}

/// Asks RBAC rules about a request.
pub(super) fn rbac(
    client: &Client,
    rules: &Rbac,
    scratch: &Scratch,
    record: &Record<'_>,
    metadata: &mut Metadata,
) -> Step {
    let facts = facts(&client.info, record.remote.ip(), Some(&scratch.request), record.route);
    let step = policy::ask_rules(rules, &facts, metadata);
    match &step {
        Step::Refuse(_) => client.metrics.rbac_denied().inc(),
        Step::Pass | Step::Reroute => client.metrics.rbac_allowed().inc(),
    }
    step
}

/// Asks a request for its token.
pub(super) fn jwt(
    client: &Client,
    filter: &JwtFilter,
    scratch: &mut Scratch,
    random: u64,
    metadata: &mut Metadata,
) -> Step {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let step = policy::ask_for_token(filter, &mut scratch.request, random, now, metadata);
    match &step {
        Step::Refuse(_) => client.metrics.jwt_authn_denied().inc(),
        Step::Pass | Step::Reroute => client.metrics.jwt_authn_allowed().inc(),
    }
    step
}

/// The answer to a refused request.
pub(super) fn reply(refusal: Refusal) -> Reply {
    let mut reply = Reply::new(refusal.status, "").body(refusal.body.as_bytes());
    reply.details = Cow::Owned(refusal.details);
    reply.headers.extend(refusal.challenge.map(|challenge| (Name::new("www-authenticate"), challenge.into_bytes())));
    reply
}
