//! Copies of requests, sent elsewhere and forgotten.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use maille_http::h1::BodyLength;
use maille_http::{HeaderId, RequestHead};

use super::Worker;
use super::request::append_forwarded_for;
use super::upstream_request::own;
use crate::config::Mirror;
use crate::upstream::WorkerCluster;

/// A copy is given up after this.
const LIMIT: Duration = Duration::from_secs(30);
/// Of a body that is longer there is no copy.
const MAX_BODY: usize = 1 << 20;
/// What the copies of a worker may take at a time: so many, and so many bytes of bodies.
const MOST: u32 = 1024;
const MOST_BYTES: usize = 64 << 20;

/// What the copies of a worker take.
#[derive(Default)]
pub(crate) struct AtWork {
    copies: Cell<u32>,
    bytes: Cell<usize>,
}

/// The copies of one request, until all of its body has come.
pub(crate) struct Copies {
    worker: Rc<Worker>,
    to: Vec<(Rc<WorkerCluster>, RequestHead)>,
    body: Vec<u8>,
    /// How HTTP/1 frames it.
    pub(crate) framing: BodyLength,
}

impl Copies {
    /// Those that a request is to have, as it is now; `None` when it has none.
    pub(crate) fn of(worker: &Rc<Worker>, mirrors: &[Mirror], request: &RequestHead) -> Option<Box<Copies>> {
        let mut to = Vec::new();
        for mirror in mirrors.iter().filter(|mirror| mirror.fraction.holds(fastrand::u64(..))) {
            let Some(cluster) = worker.cluster(&mirror.cluster) else { continue };
            if worker.copies.copies.get() >= MOST {
                cluster.metrics.retry_or_shadow_abandoned().inc();
                continue;
            }
            worker.copies.copies.set(worker.copies.copies.get() + 1);
            let mut head = request.clone();
            if mirror.host_suffix {
                suffix(&mut head);
            }
            // It is the proxy that sends it.
            head.headers.set_id(HeaderId::XEnvoyInternal, b"true");
            append_forwarded_for(&mut head.headers, maille_net::own_address(), &mut Vec::new());
            // Nobody waits to be told to go on.
            head.headers.remove_id(HeaderId::Expect);
            to.push((cluster, head));
        }
        (!to.is_empty())
            .then(|| Box::new(Copies { worker: worker.clone(), to, body: Vec::new(), framing: BodyLength::Empty }))
    }

    /// More of the body has come; `false` when that is too much.
    pub(crate) fn add(&mut self, data: &[u8]) -> bool {
        let bytes = &self.worker.copies.bytes;
        let room = self.body.len() + data.len() <= MAX_BODY && bytes.get() + data.len() <= MOST_BYTES;
        if room {
            bytes.set(bytes.get() + data.len());
            self.body.extend_from_slice(data);
        } else {
            self.to.iter().for_each(|(cluster, _)| cluster.metrics.retry_or_shadow_abandoned().inc());
        }
        room
    }

    /// The whole body has come: sends the copies, each on a task of its own.
    pub(crate) fn send(self: Box<Self>) {
        let copies: Rc<Copies> = Rc::from(self);
        for number in 0..copies.to.len() {
            let copies = copies.clone();
            tokio::task::spawn_local(async move {
                let (cluster, head) = &copies.to[number];
                let mut head = head.clone();
                // Whatever a route has done to it: a body without its length would be taken for requests.
                match copies.framing {
                    BodyLength::Empty if !head.headers.has(HeaderId::ContentLength) => {}
                    BodyLength::Chunked | BodyLength::UntilClose => {
                        head.headers.remove_id(HeaderId::ContentLength);
                    }
                    BodyLength::Empty | BodyLength::Exact(_) => {
                        head.headers.set_id(HeaderId::ContentLength, copies.body.len().to_string().as_bytes());
                    }
                }
                cluster.metrics.upstream_rq_total().inc();
                // What comes of it is nobody's business.
                let answer = own::ask(&copies.worker, cluster, &head, &copies.body, copies.framing);
                let _ = tokio::time::timeout(LIMIT, answer).await;
            });
        }
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        let AtWork { copies, bytes } = &self.worker.copies;
        copies.set(copies.get() - self.to.len() as u32);
        bytes.set(bytes.get() - self.body.len());
    }
}

/// `shop:80` becomes `shop-shadow:80`.
fn suffix(head: &mut RequestHead) {
    let (name, port) = maille_http::host::split_port(head.authority());
    let mut authority = [name, b"-shadow"].concat();
    if let Some(port) = port {
        authority.extend_from_slice(format!(":{port}").as_bytes());
    }
    head.set_authority(&authority);
}
