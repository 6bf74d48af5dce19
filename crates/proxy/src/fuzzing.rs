//! Parsers of network input that nobody outside calls, for the program that feeds them mutated input.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use maille_http::{HeaderId, Headers, Name, RequestHead};
use maille_identity::x509::PeerCertificate;

use crate::config::{
    AuthzGrpc, AuthzService, ClientCertDetails, Discovery, DnsFamily, DnsOptions, Endpoint, EndpointAddress, Endpoints,
    ExtAuthz, Fault, FaultAbort, FaultDelay, ForwardClientCert, Fraction, Health, LocalityEndpoints,
};
use crate::policy::ext_authz::Answer;
use crate::policy::jwt::{Looks, Places};
use crate::run::admin::query::Query;
use crate::run::dns::names::{Found, Names};
use crate::tls::TlsInfo;
use crate::worker;
use crate::worker::fault::{Active, Faults};
use crate::worker::http2::frames::{self, Inbound};
use crate::worker::http2::hpack::Hpack;
use crate::worker::http2::streams::Streams;
use crate::worker::http2::wire::Watch;
use crate::worker::retry::Terms;
use crate::worker::timers::Limits;

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
            if let frames::Fault::Connection(_) = fault {
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

/// A cookie's value.
pub fn cookie<'h>(head: &'h RequestHead, name: &[u8]) -> Option<&'h [u8]> {
    crate::headers::cookie(head, name)
}

/// What a request from inside says of its own times and retries; whatever says so is taken out of it.
pub struct OwnTerms {
    /// For all of it, for one try, and for the stream to the upstream (`Some(None)`: no limit).
    pub times: (Option<Duration>, Option<Duration>, Option<Option<Duration>>),
    /// How often it may be tried again.
    pub retries: Option<u32>,
}

/// What a request says of itself, where the route says 15 s and nothing of retries.
pub fn own_terms(head: &mut RequestHead) -> OwnTerms {
    let limits = Limits { route: Some(Duration::from_secs(15)), ..Limits::default() };
    let terms = Terms::new(None, &limits, head);
    let retries = terms.retry().map(|policy| policy.max);
    OwnTerms { times: (terms.timeout, terms.per_try, terms.stream), retries }
}

/// The pause and the status of the faults that a request asks for, where it may.
pub fn own_faults(head: &RequestHead) -> (Option<Duration>, Option<(u16, Option<u32>)>) {
    let all = Fraction { numerator: 1, denominator: 1 };
    let fault = Fault {
        delay: Some((FaultDelay::Header, all)),
        abort: Some((FaultAbort::Header, all)),
        headers: Vec::new(),
        max_active: None,
    };
    let active = Active::default();
    let Some(mut faults) = Faults::new(&fault, &active, head) else { return (None, None) };
    (faults.delay(head), faults.abort(head).map(|reply| (reply.status, reply.grpc_status)))
}

/// An answer of DNS for the one name of a cluster, after a good one: the addresses in it, those of the cluster's hosts, and when it is asked again.
pub struct Resolved {
    /// In the message, with how many seconds each holds.
    pub said: Vec<(IpAddr, u32)>,
    /// Each host's own, and others that it may be reached at.
    pub hosts: Vec<(SocketAddr, Vec<SocketAddr>)>,
    /// How long until then.
    pub again: Duration,
}

/// What comes of a DNS message; `None` when it is none. `family`: which addresses are wanted.
pub fn resolved(message: &[u8], family: DnsFamily, logical: bool) -> Option<Resolved> {
    let said: Vec<(IpAddr, u32)> = hickory_resolver::proto::op::Message::from_vec(message)
        .ok()?
        .answers
        .iter()
        .filter_map(|record| Some((record.data.ip_addr()?, record.ttl)))
        .collect();
    let endpoint = Endpoint {
        address: EndpointAddress::Host("name".into(), 80),
        hostname: "".into(),
        weight: 1,
        health: Health::Healthy,
        metadata: None,
        others: Arc::default(),
    };
    let locality =
        LocalityEndpoints { locality: Default::default(), priority: 0, weight: None, endpoints: vec![endpoint] };
    let endpoints = Arc::new(Endpoints { localities: vec![locality], ..Endpoints::default() });
    let options = DnsOptions {
        refresh: Duration::from_secs(5),
        failure_refresh: Some((Duration::from_secs(1), Duration::from_secs(10))),
        jitter: Duration::from_secs(1),
        respect_ttl: true,
        family,
    };
    let discovery = match logical {
        true => Discovery::LogicalDns(endpoints, options),
        false => Discovery::StrictDns(endpoints, options),
    };
    let mut names = Names::of(&discovery)?;
    let ttl = said.iter().map(|(_, seconds)| *seconds).min().unwrap_or_default();
    let addresses = said.iter().map(|(address, _)| *address).collect();
    let (_, again) = names.take(0, Some(Found { addresses, ttl: Duration::from_secs(ttl.into()) }), 1.0);
    let endpoints = names.endpoints();
    let hosts = endpoints.localities.iter().flat_map(|locality| &locality.endpoints);
    let hosts = hosts.filter_map(|host| match host.address {
        EndpointAddress::Socket(address) => Some((address, host.others.to_vec())),
        _ => None,
    });
    Some(Resolved { said, hosts: hosts.collect(), again })
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
        service: AuthzService::Grpc(AuthzGrpc { cluster: "authz".into(), authority: "authz".into() }),
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
