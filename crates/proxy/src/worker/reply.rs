//! Answers of our own: what Envoy calls local replies.

use std::borrow::Cow;

use maille_http::h1::{self, BodyLength, RequestMeta, response_framing};
use maille_http::{HeaderId, Name, RequestHead, ResponseHead};
use maille_telemetry::flags::ResponseFlags;

use super::http::{After, Client, Downstream};
use super::record::Record;
use super::scratch::Scratch;
use super::transfer::Failure;
use super::upstream_request::Lost;
use super::{cors, response};
use crate::config::{CorsPolicy, HttpManager};
use crate::headers::{HeaderMutations, Protocol};

/// An answer of our own.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Cow<'static, [u8]>,
    pub(crate) details: Cow<'static, str>,
    pub(crate) flags: ResponseFlags,
    pub(crate) headers: Vec<(Name, Vec<u8>)>,
    /// Whether the connection is closed whatever the client wants.
    pub(crate) close: bool,
    /// Whether it goes on even though the request was bad.
    pub(crate) keep: bool,
    /// What gRPC clients are told, when it does not follow from the status.
    pub(crate) grpc_status: Option<u32>,
}

/// What becomes of an answer once a route has been chosen.
#[derive(Clone, Copy)]
pub(crate) struct OnRoute<'a> {
    pub(crate) mutations: &'a HeaderMutations,
    /// The origin that may read it.
    pub(crate) origin: Option<(&'a CorsPolicy, &'a [u8])>,
}

impl Reply {
    pub(crate) fn new(status: u16, details: &'static str) -> Reply {
        Reply {
            status,
            body: Cow::Borrowed(b""),
            details: Cow::Borrowed(details),
            flags: ResponseFlags::default(),
            headers: Vec::new(),
            close: false,
            keep: false,
            grpc_status: None,
        }
    }

    pub(crate) fn body(mut self, body: impl Into<Cow<'static, [u8]>>) -> Reply {
        self.body = body.into();
        self
    }

    pub(crate) fn flags(mut self, flags: ResponseFlags) -> Reply {
        self.flags = flags;
        self
    }

    pub(crate) fn header(mut self, id: HeaderId, value: impl Into<Vec<u8>>) -> Reply {
        self.headers.push((id.into(), value.into()));
        self
    }

    pub(crate) fn keep(mut self) -> Reply {
        self.keep = true;
        self
    }

    pub(crate) fn close(mut self) -> Reply {
        self.close = true;
        self
    }
}

/// What the client is told of a body that is none.
pub(crate) fn malformed(failure: &Failure) -> Reply {
    let (status, details) = match failure {
        Failure::Trailers(error @ (h1::Error::HeadTooLarge | h1::Error::TooManyFields)) => {
            (error.status(), error.details())
        }
        _ => (400, "http1.codec_error"),
    };
    Reply::new(status, details)
        .body(maille_http::response::reason(status).as_bytes())
        .flags(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR)
        .close()
}

/// What the client is told when its stream as such took too long. `received`: its request has come whole.
pub(crate) fn late_stream(late: &Lost, received: bool) -> Reply {
    // Who has sent everything has done nothing too late.
    let status = if received { 504 } else { 408 };
    let reply = |details, body: &'static str| Reply::new(status, details).body(body.as_bytes());
    match late {
        Lost::UpstreamTimeout => reply("upstream_max_stream_duration_reached", "upstream max stream duration reached")
            .flags(ResponseFlags::UPSTREAM_MAX_STREAM_DURATION_REACHED),
        Lost::Overload => overloaded(),
        Lost::RequestTimeout => reply("request_overall_timeout", "request timeout"),
        Lost::Silence => reply("stream_idle_timeout", "stream timeout").flags(ResponseFlags::STREAM_IDLE_TIMEOUT),
        // What remains is the stream's own limit, which gRPC calls its deadline.
        _ => Reply { grpc_status: Some(4), ..reply("max_duration_timeout", "downstream duration timeout") },
    }
}

/// The answer to what is shed (Envoy's).
pub(crate) fn overloaded() -> Reply {
    Reply::new(503, "overload").body(&b"envoy overloaded"[..]).flags(ResponseFlags::OVERLOAD_MANAGER)
}

/// What is not a request, or not one that is taken.
pub(crate) struct Malformed {
    pub(crate) status: u16,
    pub(crate) details: &'static str,
    pub(crate) body: &'static str,
}

impl From<h1::Error> for Malformed {
    fn from(error: h1::Error) -> Malformed {
        let body = maille_http::response::reason(error.status());
        Malformed { status: error.status(), details: error.details(), body }
    }
}

/// Answers what is not a request.
pub(crate) async fn refuse(
    client: &mut Client,
    manager: &HttpManager,
    scratch: &mut Scratch,
    error: impl Into<Malformed>,
) {
    let Malformed { status, details, body } = error.into();
    // What could not be read is nobody's method or path.
    scratch.request.clear();
    let mut record = Record::new(&client.info, client.protocol());
    let reply =
        Reply::new(status, details).body(body.as_bytes()).flags(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR).close();
    answer(client, manager, scratch, &mut record, None, &reply, None).await;
    record.finish(client, manager, scratch);
}

/// Writes an answer. Afterwards the connection goes on only if the client's request has been read whole.
pub(crate) async fn answer(
    client: &mut Client,
    manager: &HttpManager,
    scratch: &mut Scratch,
    record: &mut Record<'_>,
    meta: Option<&RequestMeta>,
    reply: &Reply,
    route: Option<OnRoute<'_>>,
) -> After {
    record.flags.set(reply.flags);
    record.details = reply.details.clone();
    let (to_head, connects) = (scratch.request.method() == b"HEAD", scratch.request.method() == b"CONNECT");
    let (request, head) = (&scratch.request, &mut scratch.response);
    head.clear();
    head.status = reply.status;
    for (name, value) in &reply.headers {
        head.headers.append(name, value);
    }
    if let Some(route) = route {
        if !route.mutations.is_empty() {
            let stream = record.stream(&client.info, &client.worker.hostname);
            route.mutations.apply_to_response(head, request, &stream, &mut scratch.mutations);
        }
        if let Some((policy, origin)) = route.origin {
            cors::mark(policy, origin, head);
        }
    }
    let grpc = is_grpc(&scratch.request);
    compose(&mut scratch.response, reply, grpc);
    record.status = scratch.response.status;
    response::finish_headers(client, manager, scratch);
    let has_length = scratch.response.headers.has(HeaderId::ContentLength);
    let body: &[u8] = if !to_head && has_length { &reply.body } else { b"" };
    record.sent = body.len() as u64;
    let read_ahead = client.ahead.take().is_some_and(|body| body.is_over(&client.side.source()));
    // What follows a tunnel that was refused may be meant for the tunnel.
    let bare = |meta: &RequestMeta| meta.body == BodyLength::Empty && !meta.upgrade && !connects;
    let whole = record.whole || read_ahead || meta.is_some_and(bare);
    // A bad request may have been misread: what follows it is not trusted to be another one.
    let close = reply.close || (reply.status == 400 && !reply.keep);
    let keep = !close && whole && meta.is_some_and(|meta| meta.keep_alive) && !response::must_close(client, manager);
    let written = match &client.side {
        Downstream::Http1(..) => {
            scratch.downstream.clear();
            scratch.response.write(&mut scratch.downstream);
            if record.protocol == Protocol::Http10 {
                h1::write_http10(&mut scratch.downstream);
            }
            let length = match reply.body.is_empty() || grpc {
                true => BodyLength::Empty,
                false => BodyLength::Exact(reply.body.len() as u64),
            };
            response_framing(&mut scratch.downstream, scratch.response.status, to_head, length, has_length, !keep);
            response::header_case(manager, &mut scratch.downstream, None);
            scratch.downstream.extend_from_slice(body);
            client.write_all(&scratch.downstream).await
        }
        Downstream::Http2(_) => client.send_whole(&scratch.response, body).await,
    };
    match written {
        Ok(()) if keep => After::KeepAlive,
        Ok(()) if whole => After::Close,
        Ok(()) => After::Linger,
        Err(_) => {
            record.flags.set(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
            After::Close
        }
    }
}

/// Says what the body is. gRPC clients are told in their own way.
fn compose(head: &mut ResponseHead, reply: &Reply, grpc: bool) {
    head.headers.remove_id(HeaderId::ContentLength);
    if grpc {
        head.status = 200;
        let status = reply.grpc_status.unwrap_or_else(|| grpc_status(reply.status));
        head.headers.set_id(HeaderId::ContentType, b"application/grpc");
        head.headers.set_id(HeaderId::GrpcStatus, status.to_string().as_bytes());
        if !reply.body.is_empty() {
            head.headers.set(&Name::new("grpc-message"), &percent_encode(&reply.body));
        }
    } else if reply.body.is_empty() {
        head.headers.remove_id(HeaderId::ContentType);
    } else {
        head.headers.append_id(HeaderId::ContentLength, reply.body.len().to_string().as_bytes());
        if !head.headers.has(HeaderId::ContentType) {
            head.headers.append_id(HeaderId::ContentType, b"text/plain");
        }
    }
}

pub(crate) fn is_grpc(request: &RequestHead) -> bool {
    request.headers.get(HeaderId::ContentType).is_some_and(|value| {
        value.strip_prefix(b"application/grpc").is_some_and(|rest| matches!(rest.first(), None | Some(b'+')))
    })
}

/// What an HTTP status means in gRPC (the protocol's own table).
fn grpc_status(status: u16) -> u32 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

fn percent_encode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for &b in text {
        if (b' '..=b'~').contains(&b) && b != b'%' {
            out.push(b);
        } else {
            out.extend_from_slice(format!("%{b:02X}").as_bytes());
        }
    }
    out
}
