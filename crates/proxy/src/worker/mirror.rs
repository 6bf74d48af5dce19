//! Copies of requests, sent elsewhere and forgotten.

use std::rc::Rc;
use std::time::Duration;

use maille_http::RequestHead;
use maille_http::h1::{BodyDecoder, BodyLength, request_framing};
use tokio::io::AsyncReadExt;

use super::Worker;
use super::http::Downstream;
use super::io::write_all;
use crate::balance::Wish;
use crate::config::{Mirror, Priority};
use crate::upstream::{Counted, WorkerCluster, connect};

/// A copy is given up after this.
const LIMIT: Duration = Duration::from_secs(30);

/// Sends a copy of a request on a task of its own. Only what has come of the body by now can be copied: a request with more to come is not.
pub(crate) fn send(
    _worker: &Rc<Worker>,
    cluster: Rc<WorkerCluster>,
    mirror: &Mirror,
    request: &RequestHead,
    length: BodyLength,
    client: &Downstream,
) {
    let body = match length {
        BodyLength::Empty => Vec::new(),
        _ => {
            let Downstream::Http1(_, input) = client else { return };
            let mut data = input.is_empty().then(Vec::new).unwrap_or_else(|| input.data().to_vec());
            match BodyDecoder::new(length).decode(&mut data) {
                Ok(decoded) if decoded.done => data.truncate(decoded.data),
                _ => return,
            }
            data
        }
    };
    let Some(host) = cluster.pick(&Wish::of(None)) else { return };
    let mut head = request.clone();
    if mirror.host_suffix {
        let (name, port) = maille_http::host::split_port(head.authority());
        let mut authority = [name, b"-shadow"].concat();
        if let Some(port) = port {
            authority.extend_from_slice(format!(":{port}").as_bytes());
        }
        head.set_authority(&authority);
    }
    let mut bytes = Vec::new();
    // Whatever a route has done to it: a body without its length would be taken for requests.
    if length != BodyLength::Empty || head.headers.has(maille_http::HeaderId::ContentLength) {
        head.headers.set_id(maille_http::HeaderId::ContentLength, body.len().to_string().as_bytes());
    }
    head.write(&mut bytes);
    bytes.extend_from_slice(b"connection: close\r\n");
    let framed = if body.is_empty() { BodyLength::Empty } else { BodyLength::Exact(body.len() as u64) };
    let has_length = head.headers.has(maille_http::HeaderId::ContentLength);
    request_framing(&mut bytes, head.method(), framed, has_length);
    bytes.extend_from_slice(&body);
    tokio::task::spawn_local(async move {
        let whole = async {
            // A copy counts against the limits as any request does.
            let entry = cluster.entry();
            let breakers = entry.breakers(Priority::Default);
            let Some((pending, _connection)) = breakers.pending().zip(Counted::new(&host.host, breakers)) else {
                return;
            };
            let Ok(mut stream) = connect(&entry.config, &host, &host.purpose).await else { return };
            drop(pending);
            let Some(_active) = breakers.request() else { return };
            if write_all(&mut stream, &bytes).await.is_ok() {
                let mut nowhere = vec![0; 4096];
                while matches!(stream.read(&mut nowhere).await, Ok(n) if n > 0) {}
            }
        };
        let _ = tokio::time::timeout(LIMIT, whole).await;
    });
}
