//! A request of our own, answered whole: this is how an authorizer is asked.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::ready;

use maille_http::h1::{BodyDecoder, BodyLength, LAST_CHUNK, Limits, ResponseMeta, request_framing};
use maille_http::{HeaderId, RequestHead, ResponseHead};

use super::{Upstream, carries, http1, http2};
use crate::balance::Wish;
use crate::config::Priority;
use crate::headers::Protocol;
use crate::tls::Carries;
use crate::upstream::WorkerCluster;
use crate::worker::Worker;
use crate::worker::buffers::BLOCK;
use crate::worker::transfer::frame;

/// More of an answer's body than this is no answer.
const MAX_BODY: usize = 1 << 20;

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
    let upstream = match Upstream::idle(&entry, &host, carries) {
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
    let (answer, upstream) = match upstream {
        Upstream::Http1(mut connection) => {
            let answer = over_http1(worker, &mut connection, request, (body, framing), &limits, &mut response).await;
            (answer, Upstream::Http1(connection))
        }
        Upstream::Http2(mut stream) => {
            let answer = over_http2(&mut stream, request, body, &limits, &mut response).await;
            (answer.map(|body| (body, true)), Upstream::Http2(stream))
        }
    };
    match answer {
        Some((body, keep)) => {
            match keep {
                true => upstream.reuse(worker, http.max_requests_per_connection),
                false => upstream.close(worker),
            }
            Some((response, body))
        }
        None => {
            upstream.close(worker);
            None
        }
    }
}

/// The body of the response, and whether the connection is good for another request.
async fn over_http1(
    worker: &Worker,
    connection: &mut http1::Upstream,
    request: &RequestHead,
    (body, framing): (&[u8], BodyLength),
    limits: &Limits,
    response: &mut ResponseHead,
) -> Option<(Vec<u8>, bool)> {
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
    connection.start();
    let to_head = request.method() == b"HEAD";
    let meta = poll_fn(|cx| {
        if connection.poll_whole(cx, &bytes).is_err() {
            return std::task::Poll::Ready(None);
        }
        connection.poll_head(cx, worker, limits, to_head, response).map(Result::ok)
    });
    let mut meta: ResponseMeta = meta.await?;
    while (100..200).contains(&response.status) {
        let next = connection.parse_again(worker, meta.len, limits, to_head, response).ok()?;
        meta = match next {
            Some(meta) => meta,
            None => poll_fn(|cx| connection.poll_head(cx, worker, limits, to_head, response)).await.ok()?,
        };
    }
    connection.input.consume(meta.len, &worker.blocks);
    let mut decoder = BodyDecoder::new(meta.body);
    let mut out = Vec::new();
    let whole = poll_fn(|cx| {
        while !decoder.is_done() {
            if connection.input.is_empty() {
                let filled = connection.input.poll_fill(cx, &mut connection.stream, &worker.blocks, BLOCK);
                match ready!(filled) {
                    Ok(n) if n > 0 => {}
                    Ok(_) => return std::task::Poll::Ready(decoder.may_end_here().then_some(false)),
                    Err(_) => return std::task::Poll::Ready(None),
                }
            }
            let Ok(decoded) = decoder.decode(connection.input.data_mut()) else {
                return std::task::Poll::Ready(None);
            };
            out.extend_from_slice(&connection.input.data()[..decoded.data]);
            connection.input.consume(decoded.consumed, &worker.blocks);
            if out.len() > MAX_BODY {
                return std::task::Poll::Ready(None);
            }
        }
        std::task::Poll::Ready(Some(true))
    });
    let clean = whole.await?;
    Some((out, clean && meta.keep_alive))
}

async fn over_http2(
    stream: &mut http2::Upstream,
    request: &RequestHead,
    body: &[u8],
    limits: &Limits,
    response: &mut ResponseHead,
) -> Option<Vec<u8>> {
    stream.start(request, true, body.len()).ok()?;
    let to_head = request.method() == b"HEAD";
    loop {
        let head = poll_fn(|cx| {
            if stream.poll_whole(cx, body).is_err() {
                return std::task::Poll::Ready(None);
            }
            stream.poll_head(cx, limits, to_head, response).map(Result::ok)
        });
        head.await?;
        if !(100..200).contains(&response.status) {
            break;
        }
    }
    let incoming = stream.incoming()?;
    let mut out = Vec::new();
    poll_fn(|cx| {
        while let Ok(true) = ready!(incoming.poll_fill(cx)).map_err(|_| out.clear()) {
            out.extend_from_slice(incoming.data());
            let n = incoming.data().len();
            incoming.consume(n);
            if out.len() > MAX_BODY {
                break;
            }
        }
        std::task::Poll::Ready(())
    })
    .await;
    if let Some(status) = incoming.take_trailers().as_ref().and_then(|trailers| trailers.get("grpc-status")) {
        response.headers.set_id(HeaderId::GrpcStatus, status.as_bytes());
    }
    (out.len() <= MAX_BODY && incoming.reason.is_none()).then_some(out)
}
