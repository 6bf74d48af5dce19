//! Parsers of network input that nobody outside calls, for the program that feeds them mutated input.

use std::net::IpAddr;
use std::time::Duration;

use maille_http::{HeaderId, Headers, Name, RequestHead};
use maille_identity::x509::PeerCertificate;

use crate::config::{AuthzService, ClientCertDetails, ExtAuthz, ForwardClientCert};
use crate::policy::ext_authz::Answer;
use crate::policy::jwt::{self, Looks, Places};
use crate::run::admin::query::Query;
use crate::tls::TlsInfo;
use crate::worker;
use crate::worker::http2::frames::{Fault, Inbound};
use crate::worker::http2::hpack::Hpack;
use crate::worker::http2::streams::Streams;
use crate::worker::http2::wire::Watch;

/// What is found wrong with what a client of HTTP/2 sends behind its preface, read in pieces.
pub fn frames(input: &[u8], piece: usize) -> Vec<String> {
    let (watch, mut streams, mut inbound) = (Watch::default(), Streams::new(false), Inbound::new(false));
    let mut found = Vec::new();
    let _ = inbound.pass(&mut b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), &watch, &mut streams);
    for piece in input.chunks(piece.max(1)) {
        let mut piece = piece.to_vec();
        let mut rest = &mut piece[..];
        while let Err((good, fault)) = inbound.pass(rest, &watch, &mut streams) {
            assert!(good <= rest.len(), "{good} of {} bytes are good", rest.len());
            found.push(format!("{fault:?}"));
            if let Fault::Connection(_) = fault {
                return found;
            }
            rest = &mut rest[good..];
        }
    }
    found
}

/// What a block of fields is: whether it has a pseudo-header, and how many entries the table has then; nothing when it cannot be read.
pub fn fields(block: &[u8], piece: usize) -> Option<(bool, usize)> {
    let mut hpack = Hpack::default();
    for piece in block.chunks(piece.max(1)) {
        hpack.take(piece).ok()?;
    }
    Some((hpack.end().ok()?, hpack.entries()))
}

/// What a connection begins with: nothing while that cannot be told.
pub fn http_inspector(bytes: &[u8]) -> Option<&'static str> {
    worker::inspect::protocol::name_of(bytes)
}

/// `x-forwarded-client-cert` behind a client with this certificate, which has been found good.
pub fn client_cert(dns: &str, uri: &str, subject: &str, said: Option<&str>) -> Option<Vec<u8>> {
    let peer = PeerCertificate {
        uri_sans: vec![uri.into()],
        dns_sans: vec![dns.into()],
        ip_sans: Vec::new(),
        email_sans: Vec::new(),
        subject: subject.into(),
        issuer: "".into(),
        serial: "".into(),
        sha256: "00ff".into(),
        der: Box::default(),
        not_before: 0,
        not_after: 0,
    };
    let tls = TlsInfo { peer: Some(peer.into()), peer_validated: true, ..TlsInfo::default() };
    let mut headers = Headers::new();
    if let Some(said) = said {
        headers.append_id(HeaderId::XForwardedClientCert, said.as_bytes());
    }
    let details = ClientCertDetails { subject: true, cert: false, chain: false, dns: true, uri: true };
    worker::client_cert::forward(ForwardClientCert::AppendForward, details, Some(&tls), &mut headers);
    headers.get(HeaderId::XForwardedClientCert).map(<[u8]>::to_vec)
}

/// The address in these lines of `x-forwarded-for`, and whether it is the only one.
pub fn forwarded_address(lines: &[&[u8]], skip: u32) -> Option<(IpAddr, bool)> {
    let mut headers = Headers::new();
    lines.iter().for_each(|line| headers.append_id(HeaderId::XForwardedFor, line));
    worker::request::forwarded_address(&headers, skip)
}

/// Whether a referer is passed on.
pub fn is_referer(value: &[u8]) -> bool {
    worker::request::is_referer(value)
}

/// What `grpc-timeout` says.
pub fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    worker::timers::grpc_timeout(value)
}

/// A duration as `grpc-timeout` says it.
pub fn to_grpc_timeout(timeout: Duration) -> String {
    worker::timers::to_grpc_timeout(timeout)
}

/// A cookie as the choice of a host sees it.
pub fn hashed_cookie<'h>(head: &'h RequestHead, name: &[u8]) -> Option<&'h [u8]> {
    worker::hash::cookie(head, name)
}

/// A cookie as it is looked at for a token.
pub fn token_cookie<'h>(head: &'h RequestHead, name: &[u8]) -> Option<&'h [u8]> {
    jwt::cookie(head, name)
}

/// The tokens of a request, which are taken out of it.
pub fn tokens(head: &mut RequestHead) -> Vec<String> {
    let headers = [(Name::new("authorization"), "Bearer ".into()), (Name::new("x-token"), "".into())];
    let places =
        Places::of([Looks { issuer: "", headers: &headers, params: &["a".into(), "token".into()], cookies: &[] }]);
    places.take(head)
}

/// The answer of a gRPC authorizer.
pub fn authz_answer(message: &[u8]) -> Answer {
    let filter = ExtAuthz {
        service: AuthzService::Grpc { cluster: "authz".into(), authority: "authz".into() },
        timeout: None,
        failure_mode_allow: false,
        failure_mode_header: false,
        status_on_error: 403,
        body: None,
        enabled: None,
        clear_route: false,
        include_certificate: false,
        include_server_name: false,
        allowed: None,
        disallowed: Vec::new(),
        metadata_namespaces: Vec::new(),
        stat_prefix: "".into(),
    };
    filter.check_response(message)
}

/// The query of a URL of the admin endpoint.
pub fn query(text: &str) -> Vec<(String, String)> {
    Query::parse(text).iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
