//! One request from its head to the last byte of its response, both connections driven by one task.

mod attempt;
mod job;
mod outbound;
mod respond;
mod tunnel;

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use maille_http::h1::{RequestMeta, Version};
use maille_http::{HeaderId, RequestHead};
use maille_telemetry::flags::ResponseFlags;
use maille_telemetry::metrics::HttpMetrics;
use tokio::time::sleep;

use super::body::Source;
use super::buffers::BLOCK;
use super::cors::{self, Cors};
use super::fault::Faults;
use super::gate::{self, Asked};
use super::http::{After, Client, Downstream};
use super::overload::Level;
use super::record::Record;
use super::reply::{self, OnRoute, Reply, answer};
use super::request;
use super::scratch::Scratch;
use super::timers::Timers;
use super::transfer::{Failure, Transfer};
use super::upstream_request::Lost;
use crate::config::{
    Action, Fault, HttpFilterKind, HttpManager, Metadata, RequireTls, Route, RouteSource, RouteTable, VirtualHost,
};
use crate::headers::{HeaderMutations, Protocol};
use crate::policy::Step;
use crate::route::{Request, tls_redirect};
use crate::snapshot::Snapshot;
use job::Job;

/// Serves one request whose head has been read.
pub(crate) async fn exchange(
    client: &mut Client,
    manager: &HttpManager,
    scratch: &mut Scratch,
    meta: RequestMeta,
) -> After {
    let protocol = if meta.version == Version::Http10 { Protocol::Http10 } else { client.protocol() };
    let snapshot = client.worker.snapshot();
    let mut record = Record::new(&client.info, protocol);
    let _active = ActiveRequest::of(&client.metrics);
    let after = serve(client, &snapshot, manager, scratch, &meta, &mut record).await;
    client.ahead = None;
    record.finish(client, manager, scratch);
    client.registered.slot.hold(0);
    after
}

/// Puts on record a request whose client had given up before anybody looked at it.
pub(crate) fn abandoned(client: &Client, manager: &HttpManager, scratch: &Scratch) {
    let mut record = Record::new(&client.info, client.protocol());
    client.note_gone(&mut record);
    record.finish(client, manager, scratch);
}

/// Counts a request for as long as it is at work.
struct ActiveRequest(Rc<HttpMetrics>);

impl ActiveRequest {
    fn of(metrics: &Rc<HttpMetrics>) -> ActiveRequest {
        metrics.downstream_rq_active().inc();
        ActiveRequest(metrics.clone())
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.downstream_rq_active().dec();
    }
}

async fn serve<'s>(
    client: &mut Client,
    snapshot: &'s Snapshot,
    manager: &'s HttpManager,
    scratch: &mut Scratch,
    meta: &RequestMeta,
    record: &mut Record<'s>,
) -> After {
    if client.worker.overload.level() == Level::New {
        client.metrics.downstream_rq_overload_close().inc();
        return answer(client, manager, scratch, record, Some(meta), &reply::overloaded(), None).await;
    }
    if let Err(reply) = request::prepare(client, manager, scratch, meta, record) {
        return answer(client, manager, scratch, record, Some(meta), &reply, None).await;
    }
    if meta.expects_continue && !manager.proxy_100_continue {
        if client.send_continue().await.is_err() {
            client.note_gone(record);
            return After::Close;
        }
        scratch.request.headers.remove_id(HeaderId::Expect);
    }
    let table = match &manager.routes {
        RouteSource::Inline(table) => Some(&**table),
        RouteSource::Rds(name) => snapshot.routes.get(name).map(|table| &**table),
    };
    if let Some(table) = table {
        request::internal_only(table, &mut scratch.request);
    }
    let random = fastrand::u64(..);
    let mut metadata = Metadata::default();
    let mut found = find_route(client, table, &scratch.request, random, &metadata);
    let mut origin: Option<Vec<u8>> = None;
    let mut paused = false;
    for filter in &manager.filters {
        let route = found.as_ref().ok().map(|(_, route)| *route);
        record.route = route;
        let reply = match (&filter.kind, route) {
            (HttpFilterKind::Cors, Some(Route { cors: Some(policy), action: Action::Forward(_), .. })) => {
                match cors::check(policy, &scratch.request, random) {
                    Cors::Pass => None,
                    Cors::Allowed(allowed) => {
                        origin = Some(allowed);
                        None
                    }
                    Cors::Preflight(reply) => {
                        return answer(client, manager, scratch, record, Some(meta), &reply, None).await;
                    }
                }
            }
            (HttpFilterKind::Fault(default), Some(route)) => match route.fault.as_ref().or(default.as_ref()) {
                Some(fault) => match inject(client, manager, fault, scratch, record, &mut paused).await {
                    Ok(()) => None,
                    Err(Some(reply)) => Some(reply),
                    Err(None) => return After::Close,
                },
                None => None,
            },
            (HttpFilterKind::Rbac(rules), _) => match gate::rbac(client, rules, scratch, record, &mut metadata) {
                Step::Refuse(refusal) => Some(gate::reply(*refusal)),
                Step::Pass | Step::Reroute => None,
            },
            (HttpFilterKind::Jwt(filter), _) => match gate::jwt(client, filter, scratch, random, &mut metadata) {
                Step::Refuse(refusal) => Some(gate::reply(*refusal)),
                Step::Reroute => {
                    found = find_route(client, table, &scratch.request, random, &metadata);
                    None
                }
                Step::Pass => None,
            },
            (HttpFilterKind::ExtAuthz(filter), _) => {
                paused |= filter.concerns(&metadata);
                match gate::ext_authz(client, manager, meta, filter, scratch, record, &mut metadata).await {
                    Asked::Refuse(reply) => Some(reply),
                    Asked::Gone => {
                        client.note_gone(record);
                        return After::Close;
                    }
                    Asked::Reroute => {
                        found = find_route(client, table, &scratch.request, random, &metadata);
                        None
                    }
                    Asked::Pass => None,
                }
            }
            _ => None,
        };
        if let Some(reply) = reply {
            record.whole = paused && has_come(client, meta);
            let on_route = route.map(|route| {
                let origin = route.cors.as_deref().zip(origin.as_deref());
                OnRoute { mutations: response_mutations(route, random), origin }
            });
            return answer(client, manager, scratch, record, Some(meta), &reply, on_route).await;
        }
    }
    let (host, route) = match found {
        Ok(found) => found,
        Err(reply) => {
            record.route = None;
            return answer(client, manager, scratch, record, Some(meta), &reply, None).await;
        }
    };
    record.route = Some(route);
    let mutations = response_mutations(route, random);
    let reply = match &route.action {
        Action::Forward(forward) => {
            let job = Job { snapshot, manager, meta, host, route, forward, random, origin, timeout_status: 504 };
            return job.run(client, scratch, record).await;
        }
        Action::Redirect(redirect) => {
            let location = redirect.location(route, &scratch.request);
            Reply::new(redirect.status, "direct_response").header(HeaderId::Location, location)
        }
        Action::Respond(direct) => Reply::new(direct.status, "direct_response").body(direct.body.to_vec()),
    };
    let on_route = Some(OnRoute { mutations, origin: None });
    answer(client, manager, scratch, record, Some(meta), &reply, on_route).await
}

/// What becomes of the response's headers; the destination is the same as later, both are drawn with the same number.
fn response_mutations(route: &Route, random: u64) -> &HeaderMutations {
    match &route.action {
        Action::Forward(forward) => &forward.destination(random).response,
        Action::Redirect(_) | Action::Respond(_) => &route.response,
    }
}

fn find_route<'s>(
    client: &Client,
    table: Option<&'s RouteTable>,
    head: &RequestHead,
    random: u64,
    metadata: &Metadata,
) -> Result<(&'s VirtualHost, &'s Route), Reply> {
    let table = table.ok_or_else(|| not_found("route_configuration_not_found"))?;
    let host = table.virtual_host(head.authority()).ok_or_else(|| not_found("route_not_found"))?;
    if host.require_tls != RequireTls::None && head.headers.get(HeaderId::XForwardedProto) != Some(b"https") {
        let external = !head.headers.has(HeaderId::XEnvoyInternal);
        if host.require_tls == RequireTls::All || external {
            return Err(Reply::new(301, "direct_response").header(HeaderId::Location, tls_redirect(head)));
        }
    }
    let request = Request { head, random, tls: gate::client_tls(&client.info), metadata: Some(metadata) };
    let route = host.route(&request).ok_or_else(|| not_found("route_not_found"))?;
    Ok((host, route))
}

fn not_found(details: &'static str) -> Reply {
    Reply::new(404, details).flags(ResponseFlags::NO_ROUTE_FOUND)
}

/// Does what a fault says; an error is the answer, or that the client has gone.
async fn inject(
    client: &mut Client,
    manager: &HttpManager,
    injected: &Fault,
    scratch: &Scratch,
    record: &mut Record<'_>,
    paused: &mut bool,
) -> Result<(), Option<Reply>> {
    let Some(mut faults) = Faults::new(injected, &manager.active_faults, &scratch.request) else { return Ok(()) };
    if let Some(pause) = faults.delay(&scratch.request) {
        record.flags.set(ResponseFlags::DELAY_INJECTED);
        *paused = true;
        if pause_for(client, pause, None).await.is_err() {
            client.note_gone(record);
            return Err(None);
        }
    }
    match faults.abort(&scratch.request) {
        Some(reply) => Err(Some(reply)),
        None => Ok(()),
    }
}

/// Whether a request that was kept waiting has come whole meanwhile. What has come of its body is read, as far as one waits for that.
fn has_come(client: &mut Client, meta: &RequestMeta) -> bool {
    let limit = u64::from(client.info.listener.buffer_limit);
    let Client { side: Downstream::Http1(stream, input), worker, ahead, .. } = client else { return false };
    let mut body = ahead.take().map_or_else(|| Transfer::new(meta.body, false), |body| *body);
    let mut out = Vec::new();
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        out.clear();
        if body.take_buffered(&mut Source::Http1(stream, input), &worker.blocks, &mut out).is_err() {
            return false;
        }
        if body.is_received() || body.total > limit {
            return body.is_received() && !meta.upgrade;
        }
        // Whoever waits for more has gone on: this only looks at what is there.
        match input.poll_fill(&mut cx, stream, &worker.blocks, BLOCK) {
            Poll::Ready(Ok(n)) if n > 0 => {}
            _ => return false,
        }
    }
}

/// Waits; in vain when the client goes away meanwhile, or its time is over.
async fn pause_for(client: &mut Client, pause: Duration, mut timers: Option<&mut Timers>) -> Result<(), Lost> {
    let mut timer = std::pin::pin!(sleep(pause));
    poll_fn(|cx| {
        if timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if client.poll_gone(cx) {
            return Poll::Ready(Err(Lost::Client(Failure::Source)));
        }
        match timers.as_mut().and_then(|timers| timers.poll(cx, client, false)) {
            Some(late) => Poll::Ready(Err(late)),
            None => Poll::Pending,
        }
    })
    .await
}
