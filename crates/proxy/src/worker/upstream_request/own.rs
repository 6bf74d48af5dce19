//! A request of our own, answered whole: this is how an authorizer is asked.

use std::borrow::Cow;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use maille_http::h1::{BodyDecoder, BodyLength, LAST_CHUNK, Limits, ResponseMeta, request_framing};
use maille_http::{HeaderId, RequestHead, ResponseHead};

use super::{Upstream, carries, http1, http2};
use crate::balance::Wish;
use crate::config::Priority;
use crate::headers::Protocol;
use crate::tls::Carries;
use crate::upstream::WorkerCluster;
use crate::worker::Worker;
use crate::worker::body::Incoming;
use crate::worker::relay::End;
use crate::worker::transfer::frame;

/// More of an answer's body than this is no answer.
const MAX_BODY: usize = 1 << 20;

/// Says in a request that it is the proxy who asks, and how long it waits (Envoy: async_client_impl.cc, router.cc).
pub(crate) fn announce(request: &mut RequestHead, timeout: Option<Duration>) {
    request.headers.set_id(HeaderId::XEnvoyInternal, b"true");
    if let Some(timeout) = timeout {
        request.headers.set_id(HeaderId::XEnvoyExpectedRqTimeoutMs, timeout.as_millis().to_string().as_bytes());
    }
}

/// Sends a request with all of its body, and waits for all of the response; `None` when there is none. The status of
/// gRPC is among the headers, wherever it came.
/// `framing`: how HTTP/1 frames the body. Whoever calls limits the time.
pub(crate) async fn ask(
    worker: &Rc<Worker>,
    cluster: &Rc<WorkerCluster>,
    request: &RequestHead,
    body: &[u8],
    framing: BodyLength,
) -> Option<(ResponseHead, Vec<u8>)> {
    let entry = cluster.entry();
    let host = cluster.pick(&Wish::of(None))?;
    let breakers = entry.breakers(Priority::Default);
    let carries = carries(entry.config.http.protocol, Protocol::Http11);
    let mut upstream = match Upstream::idle(&entry, &host, carries) {
        Some(upstream) => upstream,
        None => {
            let _pending = breakers.pending()?;
            match carries {
                Carries::Http2 => http2::obtain(worker, &entry, &host, breakers).await.ok()?,
                _ => http1::obtain(worker, &entry, &host, breakers).await.ok()?,
            }
        }
    };
    let _active = breakers.request()?;
    let http = &entry.config.http;
    let limits = Limits {
        head_bytes: http.max_header_bytes as usize,
        fields: http.max_header_count as usize,
        http10: true,
        ..Limits::ENVOYS
    };
    let mut response = ResponseHead::default();
    match answer(worker, &mut upstream, request, (body, framing), &limits, &mut response).await {
        Some((body, true)) => {
            upstream.reuse(worker, http.max_requests_per_connection);
            Some((response, body))
        }
        Some((body, false)) => {
            upstream.close(worker);
            Some((response, body))
        }
        None => {
            upstream.close(worker);
            None
        }
    }
}

/// The body of the response, and whether the connection is good for another request.
async fn answer(
    worker: &Worker,
    upstream: &mut Upstream,
    request: &RequestHead,
    (body, framing): (&[u8], BodyLength),
    limits: &Limits,
    response: &mut ResponseHead,
) -> Option<(Vec<u8>, bool)> {
    let bytes = match upstream {
        Upstream::Http1(_) => Cow::Owned(framed(request, body, framing)),
        Upstream::Http2(_) => Cow::Borrowed(body),
    };
    let to_head = request.method() == b"HEAD";
    upstream.start(request, true, body.len()).ok()?;
    let mut again = None;
    let meta = loop {
        let meta: ResponseMeta = match again {
            Some(meta) => meta,
            None => {
                let head = poll_fn(|cx| match upstream.poll_whole(cx, &bytes) {
                    Ok(()) => upstream.poll_head(cx, worker, limits, to_head, response).map(Result::ok),
                    Err(_) => Poll::Ready(None),
                });
                head.await?
            }
        };
        if !(100..200).contains(&response.status) {
            break meta;
        }
        again = upstream.parse_again(worker, meta.len, limits, to_head, response).ok()?;
    };
    let length = match upstream {
        Upstream::Http1(connection) => {
            connection.input.consume(meta.len, &worker.blocks);
            meta.body
        }
        Upstream::Http2(_) => BodyLength::UntilClose,
    };
    let out = whole(worker, upstream, length).await?;
    let keep = match upstream {
        Upstream::Http1(_) => meta.keep_alive && length != BodyLength::UntilClose,
        Upstream::Http2(stream) => {
            let trailers = stream.incoming().and_then(Incoming::take_trailers);
            if let Some(status) = trailers.as_ref().and_then(|trailers| trailers.get("grpc-status")) {
                response.headers.set_id(HeaderId::GrpcStatus, status.as_bytes());
            }
            true
        }
    };
    Some((out, keep))
}

/// A request as HTTP/1 has it.
fn framed(request: &RequestHead, body: &[u8], framing: BodyLength) -> Vec<u8> {
    let mut bytes = Vec::new();
    request.write(&mut bytes);
    request_framing(&mut bytes, request.method(), framing, request.headers.has(HeaderId::ContentLength));
    match framing {
        BodyLength::Chunked => {
            frame(&mut bytes, body);
            bytes.extend_from_slice(LAST_CHUNK);
        }
        _ => bytes.extend_from_slice(body),
    }
    bytes
}

/// All of a body.
async fn whole(worker: &Worker, upstream: &mut Upstream, length: BodyLength) -> Option<Vec<u8>> {
    let mut decoder = BodyDecoder::new(length);
    let mut out = Vec::new();
    poll_fn(|cx| {
        let Some(mut source) = upstream.source() else { return Poll::Ready(None) };
        while !decoder.is_done() {
            let Ok(came) = ready!(source.poll_more(cx, &mut decoder, &worker.blocks)) else {
                return Poll::Ready(None);
            };
            out.extend_from_slice(source.data(came.data).as_slice());
            source.consume(came.consume, &worker.blocks);
            if out.len() > MAX_BODY {
                return Poll::Ready(None);
            }
        }
        Poll::Ready(Some(()))
    })
    .await?;
    // What stands in their place has to be trailers, or nobody knows where the answer ends.
    decoder.drop_trailers().ok()?;
    Some(out)
}
