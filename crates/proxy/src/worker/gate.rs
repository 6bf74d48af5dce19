//! Policies at work: what they are told of a connection or a request, and what a refusal becomes.

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use maille_http::h1::{BodyLength, RequestMeta};
use maille_http::{HeaderId, Name, RequestHead, ResponseHead};
use maille_telemetry::flags::ResponseFlags;

use super::Worker;
use super::connection::ConnectionInfo;
use super::http::Client;
use super::read_ahead::{Missing, read_ahead};
use super::record::Record;
use super::reply::Reply;
use super::request::append_forwarded_for;
use super::scratch::Scratch;
use super::timers::to_grpc_timeout;
use super::upstream_request::own;
use crate::config::{AuthzGrpc, AuthzService, ExtAuthz, FilterChain, HttpManager, JwtFilter, Metadata, Rbac, Route};
use crate::policy::ext_authz::{Answer, Described, Shown, Verdict};
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

/// Whether a connection may go on: RBAC rules that stand before everything else on a chain.
pub(super) fn admits(info: &ConnectionInfo, chain: &FilterChain) -> Result<(), Refusal> {
    judge(info, chain, &mut Metadata::default())
}

fn judge(info: &ConnectionInfo, chain: &FilterChain, metadata: &mut Metadata) -> Result<(), Refusal> {
    for rules in &chain.rbac {
        let facts = facts(info, info.remote.ip(), None, None);
        if let Step::Refuse(refusal) = policy::ask_rules(rules, &facts, metadata) {
            return Err(*refusal);
        }
    }
    Ok(())
}

/// Whether a connection that carries no HTTP may be made: what the rules say first, then external authorizers.
pub(super) async fn lets_in(worker: &Rc<Worker>, info: &ConnectionInfo) -> Result<(), Refused> {
    let mut metadata = Metadata::default();
    judge(info, &info.chain, &mut metadata)
        .map_err(|refusal| Refused { details: refusal.details, flags: ResponseFlags::default() })?;
    for filter in info.chain.authorizers.iter().filter(|filter| filter.concerns(&metadata)) {
        let facts = facts(info, info.remote.ip(), None, None);
        let described = describe(info, None, info.remote, "");
        let message = filter.check_request(&facts, &described, None, &metadata);
        let (request, body) = call(&filter.service, filter.timeout, &message);
        let asked = async {
            let cluster = worker.cluster(&filter.service.cluster)?;
            let framing = BodyLength::Exact(body.len() as u64);
            let (response, body) = own::ask(worker, &cluster, &request, &body, framing).await?;
            answer_of_call(filter, &response, &body)
        };
        let answer = match filter.timeout {
            Some(limit) => tokio::time::timeout(limit, asked).await.ok().flatten(),
            None => asked.await,
        };
        let details = match answer.unwrap_or_default().verdict {
            Verdict::Allowed => continue,
            Verdict::Failed if filter.failure_mode_allow => continue,
            Verdict::Failed => "ext_authz_error",
            Verdict::Denied(..) => "ext_authz_close",
        };
        return Err(Refused { details: details.to_owned(), flags: ResponseFlags::UNAUTHORIZED_EXTERNAL_SERVICE });
    }
    Ok(())
}

/// Why a connection may not be made.
pub(super) struct Refused {
    pub(super) details: String,
    pub(super) flags: ResponseFlags,
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

/// What came of asking somebody else.
pub(super) enum Asked {
    Pass,
    Reroute,
    Refuse(Reply),
    /// The client has gone meanwhile.
    Gone,
}

/// Asks an external authorizer about a request, if it is one to ask about.
pub(super) async fn ext_authz(
    client: &mut Client,
    manager: &HttpManager,
    meta: &RequestMeta,
    filter: &ExtAuthz,
    scratch: &mut Scratch,
    record: &mut Record<'_>,
    metadata: &mut Metadata,
) -> Asked {
    if !filter.concerns(metadata) {
        return Asked::Pass;
    }
    if let Some(shown) = filter.body {
        let most = shown.most();
        match read_ahead(client, manager, meta, scratch.request.method(), record, most).await {
            Ok(()) => {}
            Err(Missing::Gone) => return Asked::Gone,
            Err(Missing::Refused(reply)) => return Asked::Refuse(reply),
        }
        if !shown.partial && client.ahead.as_ref().is_some_and(|body| body.ahead().len() > shown.max as usize) {
            // Where such a body ends is not waited for, even if that is known by now.
            let too_large = Reply::new(413, "request_payload_too_large").body(&b"Payload Too Large"[..]);
            return Asked::Refuse(too_large.close());
        }
    }
    let answer = match consult(client, filter, scratch, record, metadata).await {
        Ok(answer) => answer.unwrap_or_default(),
        Err(()) => return Asked::Gone,
    };
    for (key, value) in &answer.metadata {
        policy::write_metadata(metadata, "envoy.filters.http.ext_authz", key, value.clone());
    }
    let metrics = &client.metrics;
    let refuse = |status, details| Reply::new(status, details).flags(ResponseFlags::UNAUTHORIZED_EXTERNAL_SERVICE);
    match &answer.verdict {
        Verdict::Allowed => {
            metrics.ext_authz_ok().inc();
            let changed = answer.apply(&mut scratch.request);
            record.added.extend(answer.response);
            if changed && filter.clear_route { Asked::Reroute } else { Asked::Pass }
        }
        Verdict::Denied(status, body) => {
            metrics.ext_authz_denied().inc();
            let mut reply = refuse(*status, "ext_authz_denied").body(body.clone());
            reply.headers = answer.response;
            Asked::Refuse(reply)
        }
        Verdict::Failed => {
            metrics.ext_authz_error().inc();
            if !filter.failure_mode_allow {
                return Asked::Refuse(refuse(filter.status_on_error, "ext_authz_error"));
            }
            metrics.ext_authz_failure_mode_allowed().inc();
            if filter.failure_mode_header {
                scratch.request.set(&Name::new("x-envoy-auth-failure-mode-allowed"), b"true");
            }
            Asked::Pass
        }
    }
}

/// The authorizer's answer, if one comes; an error is that the client has gone.
async fn consult(
    client: &mut Client,
    filter: &ExtAuthz,
    scratch: &Scratch,
    record: &Record<'_>,
    metadata: &Metadata,
) -> Result<Option<Answer>, ()> {
    let head = &scratch.request;
    let ahead = client.ahead.take();
    let shown = filter.body.zip(ahead.as_deref()).map(|(shown, body)| {
        let bytes = &body.ahead()[..body.ahead().len().min(shown.max as usize)];
        Shown { bytes, partial: bytes.len() < body.ahead().len() || !body.is_over(&client.side.source()) }
    });
    let (cluster, request, body) = match &filter.service {
        AuthzService::Http(http) => {
            let body = shown.map_or_else(Vec::new, |shown| shown.bytes.to_vec());
            let mut request = http.request(filter, head, shown);
            own::announce(&mut request, filter.timeout);
            (&http.cluster, request, body)
        }
        AuthzService::Grpc(grpc) => {
            let info = client.info.clone();
            let facts = facts(&info, record.remote.ip(), Some(head), record.route);
            let described = describe(&info, Some(head), record.remote, record.protocol.as_str());
            let message = filter.check_request(&facts, &described, shown, metadata);
            let (request, body) = call(grpc, filter.timeout, &message);
            (&grpc.cluster, request, body)
        }
    };
    client.ahead = ahead;
    let worker = client.worker.clone();
    let Some(cluster) = worker.cluster(cluster) else { return Ok(None) };
    let framing = BodyLength::Exact(body.len() as u64);
    let asked_at = Instant::now();
    let mut asked = std::pin::pin!(own::ask(&worker, &cluster, &request, &body, framing));
    let mut timer = std::pin::pin!(filter.timeout.map(tokio::time::sleep));
    let answered = poll_fn(|cx| {
        if let Poll::Ready(answer) = asked.as_mut().poll(cx) {
            return Poll::Ready(Ok(answer));
        }
        if timer.as_mut().as_pin_mut().is_some_and(|timer| timer.poll(cx).is_ready()) {
            return Poll::Ready(Ok(None));
        }
        if client.poll_gone(cx) { Poll::Ready(Err(())) } else { Poll::Pending }
    });
    let Some((mut response, body)) = answered.await? else { return Ok(None) };
    // What of the answer the client sees is for the configuration to say: this may be, too.
    let took = asked_at.elapsed().as_millis().to_string();
    response.headers.set_id(HeaderId::XEnvoyUpstreamServiceTime, took.as_bytes());
    Ok(match &filter.service {
        AuthzService::Http(http) => Some(http.answer(&response, body)),
        AuthzService::Grpc(_) => answer_of_call(filter, &response, &body),
    })
}

/// A gRPC call to an authorizer.
fn call(service: &AuthzGrpc, timeout: Option<Duration>, message: &[u8]) -> (RequestHead, Vec<u8>) {
    let mut request = RequestHead::new();
    request.set_method(b"POST");
    request.set_path(b"/envoy.service.auth.v3.Authorization/Check");
    request.set_authority(service.authority.as_bytes());
    request.headers.append_id(HeaderId::ContentType, b"application/grpc");
    request.headers.append_id(HeaderId::Te, b"trailers");
    if let Some(timeout) = timeout {
        request.headers.append_id(HeaderId::GrpcTimeout, to_grpc_timeout(timeout).as_bytes());
    }
    append_forwarded_for(&mut request.headers, maille_net::own_address(), &mut Vec::new());
    own::announce(&mut request, timeout);
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    (request, [&[0], &length[..], message].concat())
}

/// What comes of it; `None` is no answer.
fn answer_of_call<S>(filter: &ExtAuthz<S>, response: &ResponseHead, body: &[u8]) -> Option<Answer> {
    let good = response.status == 200 && response.headers.get(HeaderId::GrpcStatus) == Some(b"0");
    // One message, not compressed.
    let message = body.split_first_chunk::<5>().filter(|(prefix, rest)| {
        prefix[0] == 0 && u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize == rest.len()
    });
    message.filter(|_| good).map(|(_, message)| filter.check_response(message))
}

/// What an authorizer is told that policies do not look at.
fn describe<'a>(
    info: &'a ConnectionInfo,
    head: Option<&'a RequestHead>,
    source: SocketAddr,
    protocol: &'a str,
) -> Described<'a> {
    let local = info.tls.as_deref().and_then(|tls| tls.local.as_deref());
    let name = local.and_then(|local| local.uri_sans.first().or(local.dns_sans.first()));
    let peer = info.tls.as_deref().and_then(|tls| tls.peer.as_ref());
    Described {
        head,
        source,
        protocol,
        id: info.id,
        now: SystemTime::now(),
        local_principal: name.map_or("", |name| name),
        certificate: peer.map_or(&[], |peer| &peer.der),
    }
}

/// The answer to a refused request.
pub(super) fn reply(refusal: Refusal) -> Reply {
    let mut reply = Reply::new(refusal.status, "").body(refusal.body.as_bytes());
    reply.details = Cow::Owned(refusal.details);
    reply.headers.extend(refusal.challenge.map(|challenge| (Name::new("www-authenticate"), challenge.into_bytes())));
    reply
}
