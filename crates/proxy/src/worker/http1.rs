//! A client's HTTP/1 connection: one request after the other, each read, answered, forgotten.

use std::future::poll_fn;
use std::task::{Poll, ready};
use std::time::Duration;

use maille_http::h1::{self, Limits, RequestMeta, parse_request};

use super::desk::Order;
use super::http::{After, Client, Downstream, seconds};
use super::io::poll_shutdown;
use super::scratch::Scratch;
use crate::config::{Codec, HeaderCase, HttpManager};

/// Receiving a head may not take longer than this when the configuration sets no limit: a client that sends a byte a minute would keep a connection for ever.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// What an HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What came next on a connection.
enum Next {
    Request(Box<Scratch>, RequestMeta),
    Bad(Box<Scratch>, h1::Error),
    /// The client speaks HTTP/2.
    Preface,
    End,
}

/// Serves a connection to its end; or up to where it turns out to be one of HTTP/2, which it gives back.
pub(crate) async fn serve(mut client: Box<Client>) -> Option<Box<Client>> {
    let after = loop {
        let (scratch, request) = match client.next().await {
            Next::Request(scratch, meta) => {
                client.requests = client.requests.saturating_add(1);
                client.registered.slot.set(false, u32::MAX);
                if let Downstream::Http1(_, input) = &mut client.side {
                    input.consume(meta.len, &client.worker.blocks);
                }
                (scratch, Ok(meta))
            }
            Next::Bad(scratch, error) => (scratch, Err(error.into())),
            Next::Preface => return Some(client),
            Next::End => break After::Close,
        };
        client.limit_silence(client.manager.timeouts.stream_idle);
        let worker = client.worker.clone();
        let served = worker.desks.serve(Order { client, scratch, request }).await;
        client = served.client;
        worker.scratches.give(served.scratch);
        if served.after != After::KeepAlive {
            break served.after;
        }
    };
    if after == After::Linger {
        Box::pin(client.linger()).await;
    }
    client.release();
    None
}

impl Client {
    /// Waits for the next request. While nothing comes, the connection holds no memory but its own.
    async fn next(&mut self) -> Next {
        let Client { side: Downstream::Http1(stream, input), worker, manager, registered, .. } = self else {
            return Next::End;
        };
        let limits = &limits(manager);
        let mut scratch: Option<Box<Scratch>> = None;
        let mut parse = !input.is_empty();
        let slot = &registered.slot;
        let life = self.born.saturating_add(seconds(manager.timeouts.max_connection_duration));
        let set_deadline = |idle: bool| {
            let limit = match idle {
                true => manager.timeouts.idle,
                false => manager.timeouts.request_headers.or(Some(HEAD_TIMEOUT)),
            };
            let deadline = worker.clock.seconds().saturating_add(seconds(limit));
            slot.set(idle, if idle { deadline.min(life) } else { deadline });
        };
        set_deadline(input.is_empty());
        // Only a connection's first bytes say what it is, where ALPN has not.
        let mut may_be_http2 = self.requests == 0 && manager.codec != Codec::Http1 && stream.alpn().is_none();
        loop {
            if parse && may_be_http2 && input.data().first() == Some(&b'P') {
                let n = input.len().min(PREFACE.len());
                may_be_http2 = input.data()[..n] == PREFACE[..n];
                if may_be_http2 && n == PREFACE.len() {
                    return Next::Preface;
                }
                parse = !may_be_http2;
            }
            if parse {
                let memory = scratch.get_or_insert_with(|| worker.scratches.take());
                match parse_request(input.data(), limits, &mut memory.request) {
                    Ok(Some(meta)) => match scratch.take() {
                        Some(scratch) => return Next::Request(scratch, meta),
                        None => return Next::End,
                    },
                    Ok(None) => {}
                    Err(error) => return Next::Bad(scratch.take().unwrap_or_default(), error),
                }
            }
            let before = input.len();
            let got = poll_fn(|cx| {
                if slot.poll_closing(cx) {
                    return Poll::Ready(None);
                }
                // One byte more than a head may have, so that a head that is too large is seen to be.
                let limit = limits.head_bytes + 1;
                Poll::Ready(ready!(input.poll_fill(cx, stream, &worker.blocks, limit)).ok())
            });
            match got.await {
                None | Some(0) => {
                    if let Some(scratch) = scratch {
                        worker.scratches.give(scratch);
                    }
                    return Next::End;
                }
                Some(_) => {
                    if before == 0 {
                        set_deadline(false);
                    }
                    // A head ends with a line; without a new one there is nothing new to find, except that it is too long.
                    parse = before == 0
                        || input.len() > limits.head_bytes
                        || (may_be_http2 && before < PREFACE.len())
                        || input.data()[before..].contains(&b'\n');
                }
            }
        }
    }

    /// Ends our side and reads on for a while: closing with bytes unread would reset the connection, and the client might never see our answer.
    async fn linger(&mut self) {
        let Client { side: Downstream::Http1(stream, input), worker, manager, .. } = self else { return };
        let limit = manager.timeouts.delayed_close.unwrap_or(Duration::from_secs(1));
        input.release(&worker.blocks);
        let until_gone = poll_fn(|cx| {
            let _ = poll_shutdown(cx, stream);
            loop {
                match ready!(input.poll_fill(cx, stream, &worker.blocks, 0)) {
                    Ok(0) | Err(_) => return Poll::Ready(()),
                    Ok(_) => input.release(&worker.blocks),
                }
            }
        });
        let _ = tokio::time::timeout(limit, until_gone).await;
    }
}

fn limits(manager: &HttpManager) -> Limits {
    Limits {
        head_bytes: manager.max_header_bytes as usize,
        fields: manager.max_header_count as usize,
        http10: manager.http1.accept_http10,
        chunked_length: manager.http1.allow_chunked_length,
        keep_case: manager.http1.header_case == HeaderCase::Preserve,
        custom_methods: manager.http1.custom_methods,
    }
}
