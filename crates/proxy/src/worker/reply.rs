//! Answers of our own: what Envoy calls local replies.

use std::borrow::Cow;

use maille_http::h1::{self, BodyLength, RequestMeta, response_framing};
use maille_http::{HeaderId, Name, RequestHead};
use maille_telemetry::flags::ResponseFlags;

use super::http::{After, Client};
use super::io::write_all;
use super::record::Record;
use super::response;
use super::scratch::Scratch;
use crate::config::{HttpManager, Route};
use crate::headers::Protocol;

/// An answer of our own.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Cow<'static, [u8]>,
    pub(crate) details: Cow<'static, str>,
    pub(crate) flags: ResponseFlags,
    pub(crate) headers: Vec<(Name, Vec<u8>)>,
    /// Whether the connection is closed whatever the client wants.
    pub(crate) close: bool,
    /// Whether it is about routing and not an error, so that the route's own response headers apply.
    pub(crate) by_route: bool,
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
            by_route: false,
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

    pub(crate) fn close(mut self) -> Reply {
        self.close = true;
        self
    }

    pub(crate) fn by_route(mut self) -> Reply {
        self.by_route = true;
        self
    }
}

/// Answers what is not a request.
pub(crate) async fn refuse(client: &mut Client, manager: &HttpManager, scratch: &mut Scratch, error: h1::Error) {
    let mut record = Record::new(&client.info, Protocol::Http11);
    let body = match error {
        h1::Error::Fragment => "",
        error => maille_http::response::reason(error.status()),
    };
    let reply = Reply::new(error.status(), error.details())
        .body(body.as_bytes())
        .flags(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR)
        .close();
    answer(client, manager, scratch, &mut record, None, &reply, None).await;
    record.finish(client, manager, scratch);
}

/// Writes an answer. Afterwards the connection goes on only if the client's request has been read whole.
pub(crate) async fn answer(
    client: &mut Client,
    manager: &HttpManager,
    scratch: &mut Scratch,
    record: &mut Record,
    meta: Option<&RequestMeta>,
    reply: &Reply,
    route: Option<&Route>,
) -> After {
    record.flags.set(reply.flags);
    record.details = reply.details.clone();
    let to_head = scratch.request.method() == b"HEAD";
    compose(scratch, reply);
    record.status = scratch.response.status;
    if reply.by_route
        && let Some(route) = route.filter(|route| !route.response.is_empty())
    {
        let stream = record.stream(&client.info, &client.worker.hostname);
        route.response.apply_to_response(&mut scratch.response, &scratch.request, &stream, &mut scratch.mutations);
    }
    let whole = meta.is_some_and(|meta| meta.body == BodyLength::Empty);
    let keep =
        !reply.close && whole && meta.is_some_and(|meta| meta.keep_alive) && !response::must_close(client, manager);
    response::finish_headers(client, manager, scratch);
    scratch.downstream.clear();
    scratch.response.write(&mut scratch.downstream);
    let length = if reply.body.is_empty() { BodyLength::Empty } else { BodyLength::Exact(reply.body.len() as u64) };
    let has_length = scratch.response.headers.has(HeaderId::ContentLength);
    response_framing(&mut scratch.downstream, scratch.response.status, to_head, length, has_length, !keep);
    if !to_head && has_length {
        scratch.downstream.extend_from_slice(&reply.body);
        record.sent = reply.body.len() as u64;
    }
    match write_all(&mut client.stream, &scratch.downstream).await {
        Ok(()) if keep => After::KeepAlive,
        Ok(()) if whole => After::Close,
        Ok(()) => After::Linger,
        Err(_) => {
            record.flags.set(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
            After::Close
        }
    }
}

/// Makes the response's head. gRPC clients are told in their own way.
fn compose(scratch: &mut Scratch, reply: &Reply) {
    let head = &mut scratch.response;
    head.clear();
    if is_grpc(&scratch.request) && !reply.by_route {
        head.status = 200;
        head.headers.append_id(HeaderId::ContentType, b"application/grpc");
        head.headers.append_id(HeaderId::GrpcStatus, grpc_status(reply.status).to_string().as_bytes());
        if !reply.body.is_empty() {
            head.headers.append(&Name::new("grpc-message"), &percent_encode(&reply.body));
        }
        for (name, value) in &reply.headers {
            head.headers.append(name, value);
        }
        return;
    }
    head.status = reply.status;
    for (name, value) in &reply.headers {
        head.headers.append(name, value);
    }
    if !reply.body.is_empty() {
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
fn grpc_status(status: u16) -> u8 {
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
