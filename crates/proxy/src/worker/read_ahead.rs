//! Reading a request's body before it is known where it goes, for filters that look at it.

use std::future::poll_fn;
use std::task::Poll;

use maille_http::h1::{BodyLength, RequestMeta};

use super::http::Client;
use super::record::Record;
use super::reply::{self, Reply};
use super::timers::Timers;
use super::transfer::{Failure, Trailing};
use crate::config::HttpManager;

/// Why the body is not there.
pub(super) enum Missing {
    /// The client has gone.
    Gone,
    /// What it is told.
    Refused(Reply),
}

/// Whether a request has a body that can be looked at: what follows an upgrade or CONNECT is none.
fn has_body(meta: &RequestMeta, method: &[u8]) -> bool {
    meta.body != BodyLength::Empty && !meta.upgrade && method != b"CONNECT"
}

/// Has at least `most` bytes of the body ready in [`Client::ahead`], or all of it, if there is one.
pub(super) async fn read_ahead(
    client: &mut Client,
    manager: &HttpManager,
    meta: &RequestMeta,
    method: &[u8],
    record: &Record<'_>,
    most: usize,
) -> Result<(), Missing> {
    if !has_body(meta, method) {
        return Ok(());
    }
    let trailing = Trailing { reads: manager.http1.enable_trailers, writes: false };
    let mut body = client.ahead.take().unwrap_or_else(|| Box::new(client.side.body(meta.body).trailing(trailing)));
    client.limit_silence(manager.timeouts.stream_idle);
    let mut timers = Timers::new(manager, None, manager.timeouts.max_stream_duration, record.start);
    let result = poll_fn(|cx| {
        if let Poll::Ready(read) = body.poll_ahead(cx, &mut client.side.source(), &client.worker.blocks, most) {
            return Poll::Ready(read.map_err(|failure| match failure {
                Failure::Malformed | Failure::Trailers(_) => Missing::Refused(reply::malformed(&failure)),
                Failure::Source | Failure::Sink => Missing::Gone,
            }));
        }
        client.note_held(body.held());
        match timers.poll(cx, client, false) {
            Some(late) => Poll::Ready(Err(Missing::Refused(reply::late_stream(&late, false)))),
            None => Poll::Pending,
        }
    })
    .await;
    client.ahead = Some(body);
    result
}
