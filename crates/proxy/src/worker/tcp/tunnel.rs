//! Ways through an HTTP proxy: a connection that is carried by a CONNECT or a POST request. Not a byte of it is sent before
//! the proxy has said yes.

use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use maille_http::ResponseHead;
use maille_http::h1::{BodyLength, Limits, parse_response};

use crate::config::{Tunnel, UpstreamHttp};
use crate::tls::Carries;
use crate::worker::body::{Incoming, Outgoing, Sink, Source};
use crate::worker::buffers::Blocks;
use crate::worker::io::{Input, Stream, write_all};
use crate::worker::relay::{self, Relay};
use crate::worker::transfer::Transfer;

/// One end of a connection that is carried: a connection, or a stream of one.
pub(super) enum End {
    Http1(Stream, Input),
    Http2(Incoming, Outgoing),
}

impl End {
    pub(super) fn release(&mut self, blocks: &Blocks) {
        if let End::Http1(_, input) = self {
            input.release(blocks);
        }
    }
}

impl relay::End for End {
    fn source(&mut self) -> Option<Source<'_>> {
        Some(match self {
            End::Http1(stream, input) => Source::Http1(stream, input),
            End::Http2(incoming, _) => Source::Http2(incoming),
        })
    }

    fn sink(&mut self) -> Option<Sink<'_>> {
        Some(match self {
            End::Http1(stream, _) => Sink::Http1(stream),
            End::Http2(_, outgoing) => Sink::Http2(outgoing),
        })
    }
}

/// An open tunnel: what is at its other end, and how bytes get there and back.
pub(super) struct Open {
    pub(super) end: End,
    pub(super) relay: Relay,
}

impl Open {
    /// A connection that needs no tunnel.
    pub(super) fn bytes(stream: Stream) -> Open {
        Open { end: End::Http1(stream, Input::default()), relay: Relay::of_bytes() }
    }
}

/// Asks for a way to where the tunnel leads; what the proxy said when it said no.
pub(super) async fn open(
    stream: Stream,
    tunnel: &Tunnel,
    http: &UpstreamHttp,
    carries: Carries,
    blocks: &Blocks,
) -> Result<Open, String> {
    let http2 = carries == Carries::Http2 || stream.alpn() == Some(b"h2");
    match http2 {
        true => open_http2(stream, tunnel).await,
        false => open_http1(stream, tunnel, http, blocks).await,
    }
}

async fn open_http1(mut stream: Stream, tunnel: &Tunnel, http: &UpstreamHttp, blocks: &Blocks) -> Result<Open, String> {
    let host = &tunnel.host;
    let request = match &tunnel.post_path {
        None => format!("CONNECT {host} HTTP/1.1\r\nhost: {host}\r\n\r\n"),
        Some(path) => format!("POST {path} HTTP/1.1\r\nhost: {host}\r\ntransfer-encoding: chunked\r\n\r\n"),
    };
    write_all(&mut stream, request.as_bytes()).await.map_err(|e| e.to_string())?;
    let limits = Limits {
        head_bytes: http.max_header_bytes as usize,
        fields: http.max_header_count as usize,
        http10: true,
        ..Limits::ENVOYS
    };
    let mut input = Input::default();
    let mut head = ResponseHead::new(0);
    let answer = poll_fn(|cx| {
        loop {
            match input.poll_fill(cx, &mut stream, blocks, limits.head_bytes + 1) {
                Poll::Ready(Ok(n)) if n > 0 => {}
                Poll::Ready(_) => return Poll::Ready(Err("it closed the connection".to_owned())),
                Poll::Pending => return Poll::Pending,
            }
            loop {
                match parse_response(input.peek(), &limits, false, &mut head) {
                    // Something to read before the answer.
                    Ok(Some(meta)) if (100..200).contains(&head.status) && head.status != 101 => {
                        input.consume(meta.len, blocks);
                        if input.is_empty() {
                            break;
                        }
                    }
                    Ok(Some(meta)) => return Poll::Ready(Ok(meta)),
                    Ok(None) => break,
                    Err(error) => return Poll::Ready(Err(error.to_string())),
                }
            }
        }
    });
    let answer = answer.await;
    let meta = match answer {
        Ok(meta) if (200..300).contains(&head.status) => meta,
        Ok(_) => {
            input.release(blocks);
            return Err(format!("it answered {}", head.status));
        }
        Err(why) => {
            input.release(blocks);
            return Err(why);
        }
    };
    input.consume(meta.len, blocks);
    let posts = tunnel.post_path.is_some();
    // Behind the yes to a CONNECT everything is the tunnel's, whatever its head says about a body.
    let back = if posts { meta.body } else { BodyLength::UntilClose };
    Ok(Open {
        end: End::Http1(stream, input),
        relay: Relay::new(Transfer::new(BodyLength::UntilClose, posts), Transfer::new(back, false)),
    })
}

async fn open_http2(stream: Stream, tunnel: &Tunnel) -> Result<Open, String> {
    let scheme = if matches!(stream, Stream::Tls(_)) { "https" } else { "http" };
    let (method, uri) = match &tunnel.post_path {
        None => (http::Method::CONNECT, tunnel.host.to_string()),
        Some(path) => (http::Method::POST, format!("{scheme}://{}{path}", tunnel.host)),
    };
    let request = http::Request::builder().method(method).uri(uri).body(()).map_err(|e| e.to_string())?;
    let made = h2::client::Builder::new().enable_push(false).handshake::<_, Bytes>(stream).await;
    let (send, connection) = made.map_err(|e| e.to_string())?;
    // It ends when the tunnel does: nobody else can ask for anything on it.
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    let mut send = send.ready().await.map_err(|e| e.to_string())?;
    let (response, outgoing) = send.send_request(request, false).map_err(|e| e.to_string())?;
    let response = response.await.map_err(|e| e.to_string())?;
    if !response.status().is_success() {
        return Err(format!("it answered {}", response.status().as_u16()));
    }
    Ok(Open {
        end: End::Http2(Incoming::new(response.into_body()), Outgoing::new(outgoing, false)),
        relay: Relay::of_bytes(),
    })
}
