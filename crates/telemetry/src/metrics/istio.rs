//! Istio's standard metrics of a source and a destination, on one worker.

use std::cell::{OnceCell, RefCell};
use std::time::Duration;

use crate::flags::ResponseFlags;
use crate::metrics::name::push;
use crate::metrics::{Counter, Histogram, Labels, Name, Registry, Scope, Tag, labels};

const fn name(suffix: &'static str) -> Name {
    Name { scope: Scope::Istio, suffix }
}

/// Different ends of requests that are told apart for one pair; what is more than that shares one.
const MOST_ENDINGS: usize = 64;

/// How requests ended, with the cells that count such requests.
#[derive(Debug)]
struct Ending {
    status: u16,
    flags: ResponseFlags,
    grpc: Option<u32>,
    requests: Counter,
    time: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
}

/// The metrics of one source, destination and protocol.
#[derive(Debug)]
pub struct RequestMetrics {
    registry: Registry,
    labels: Box<str>,
    endings: RefCell<Vec<Ending>>,
    connections: OnceCell<Connections>,
}

#[derive(Debug)]
struct Connections {
    opened: Counter,
    closed: Counter,
    sent: Counter,
    received: Counter,
}

/// A request that ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ended {
    /// The status; 0 is none.
    pub status: u16,
    /// What happened.
    pub flags: ResponseFlags,
    /// gRPC's own status.
    pub grpc: Option<u32>,
    /// How long it took.
    pub took: Duration,
    /// Bytes of the request.
    pub received: u64,
    /// Bytes of the response.
    pub sent: u64,
}

impl RequestMetrics {
    /// `of` are Istio's labels that stay the same: `reporter`, `source_workload`, `destination_service`…
    pub fn new(registry: &Registry, of: Labels<'_>) -> RequestMetrics {
        RequestMetrics {
            registry: registry.clone(),
            labels: labels(of),
            endings: RefCell::default(),
            connections: OnceCell::new(),
        }
    }

    /// Counts a request that ended.
    pub fn request(&self, ended: &Ended) {
        let mut endings = self.endings.borrow_mut();
        let same = |e: &Ending| e.status == ended.status && e.flags == ended.flags && e.grpc == ended.grpc;
        let place = match endings.iter().position(same) {
            Some(place) => place,
            None if endings.len() < MOST_ENDINGS => {
                endings.push(self.ending(ended));
                endings.len() - 1
            }
            None => endings.len() - 1,
        };
        if let Some(ending) = endings.get(place) {
            ending.requests.inc();
            ending.time.record(ended.took);
            ending.request_bytes.size(ended.received);
            ending.response_bytes.size(ended.sent);
        }
    }

    /// Counts a connection that opened.
    pub fn opened(&self) {
        self.connections().opened.inc();
    }

    /// Counts bytes that went over a connection, and whether it is closed now.
    pub fn moved(&self, received: u64, sent: u64, closed: bool) {
        let connections = self.connections();
        connections.received.add(received);
        connections.sent.add(sent);
        if closed {
            connections.closed.inc();
        }
    }

    fn connections(&self) -> &Connections {
        let counter = |suffix| self.registry.counter(name(suffix), "", Tag::Labels(self.labels.clone()));
        self.connections.get_or_init(|| Connections {
            opened: counter("istio_tcp_connections_opened_total"),
            closed: counter("istio_tcp_connections_closed_total"),
            sent: counter("istio_tcp_sent_bytes_total"),
            received: counter("istio_tcp_received_bytes_total"),
        })
    }

    fn ending(&self, ended: &Ended) -> Ending {
        let &Ended { status, flags, grpc, .. } = ended;
        let mut text = Vec::new();
        flags.write_short(&mut text);
        let mut labels = self.labels.to_string();
        push(&mut labels, "response_code", &status.to_string());
        push(&mut labels, "grpc_response_status", &grpc.map(|status| status.to_string()).unwrap_or_default());
        push(&mut labels, "response_flags", &String::from_utf8_lossy(&text));
        let tag = || Tag::Labels(labels.as_str().into());
        Ending {
            status,
            flags,
            grpc,
            requests: self.registry.counter(name("istio_requests_total"), "", tag()),
            time: self.registry.histogram(name("istio_request_duration_milliseconds"), "", tag()),
            request_bytes: self.registry.histogram(name("istio_request_bytes"), "", tag()),
            response_bytes: self.registry.histogram(name("istio_response_bytes"), "", tag()),
        }
    }
}
