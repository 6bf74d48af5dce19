//! The metrics of a cluster, of an HTTP connection manager and of a service's requests, under Envoy's and Istio's names.

use std::cell::{OnceCell, RefCell};
use std::time::Duration;

use crate::flags::ResponseFlags;
use crate::metrics::{Counter, Gauge, Histogram, Registry};

/// Makes a metric when it is first used; a name that is taken by another kind counts nowhere.
#[derive(Debug)]
struct Lazy<T>(OnceCell<Option<T>>);

impl<T> Lazy<T> {
    const fn new() -> Lazy<T> {
        Lazy(OnceCell::new())
    }

    #[inline]
    fn get(&self, make: impl FnOnce() -> Option<T>) -> Option<&T> {
        self.0.get_or_init(make).as_ref()
    }
}

/// Counters by class of status: 1xx to 5xx.
#[derive(Debug)]
struct Classes([Lazy<Counter>; 5]);

impl Classes {
    const fn new() -> Classes {
        Classes([const { Lazy::new() }; 5])
    }

    #[inline]
    fn inc(&self, status: u16, make: impl FnOnce(&str) -> Option<Counter>) {
        const NAMES: [&str; 5] = ["1", "2", "3", "4", "5"];
        let class = usize::from(status / 100).wrapping_sub(1);
        if let Some((lazy, name)) = self.0.get(class).zip(NAMES.get(class))
            && let Some(counter) = lazy.get(|| make(name))
        {
            counter.inc();
        }
    }
}

macro_rules! bundle {
    ($(#[$doc:meta])* $name:ident, $label:literal, $prefix:literal: { $($(#[$field_doc:meta])* $field:ident: $kind:ident = $suffix:literal, $make:ident;)* }) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name {
            registry: Registry,
            label: Box<str>,
            classes: Classes,
            $($field: Lazy<$kind>,)*
        }

        impl $name {
            /// Nothing is made before it is used.
            pub fn new(registry: &Registry, label: &str) -> $name {
                $name { registry: registry.clone(), label: label.into(), classes: Classes::new(), $($field: Lazy::new(),)* }
            }

            $($(#[$field_doc])*
            #[inline]
            pub fn $field(&self) -> Option<&$kind> {
                self.$field.get(|| self.registry.$make(concat!($prefix, $suffix), &[($label, &self.label)]))
            })*

            /// Counts a response by its class.
            #[inline]
            pub fn response(&self, status: u16) {
                self.classes.inc(status, |class| {
                    let labels = [("envoy_response_code_class", class), ($label, &self.label)];
                    self.registry.counter(concat!($prefix, "_rq_xx"), &labels)
                });
            }
        }
    };
}

bundle! {
    /// What happens at a cluster, on one worker.
    ClusterMetrics, "envoy_cluster_name", "envoy_cluster_upstream": {
        /// Requests.
        requests: Counter = "_rq_total", counter;
        /// Requests at work.
        active_requests: Gauge = "_rq_active", gauge;
        /// How long they took.
        request_time: Histogram = "_rq_time", histogram;
        /// Requests tried again.
        retries: Counter = "_rq_retry", counter;
        /// Requests that took too long.
        timeouts: Counter = "_rq_timeout", counter;
        /// Requests that a limit turned away.
        overflows: Counter = "_rq_pending_overflow", counter;
        /// Connections made.
        connections: Counter = "_cx_total", counter;
        /// Connections there are.
        active_connections: Gauge = "_cx_active", gauge;
        /// Connections that could not be made.
        connect_failures: Counter = "_cx_connect_fail", counter;
        /// Requests for which there was no healthy host.
        no_host: Counter = "_cx_none_healthy", counter;
        /// Bytes from upstream.
        bytes_received: Counter = "_cx_rx_bytes_total", counter;
        /// Bytes to upstream.
        bytes_sent: Counter = "_cx_tx_bytes_total", counter;
    }
}

bundle! {
    /// What happens at an HTTP connection manager, on one worker.
    HttpMetrics, "envoy_http_conn_manager_prefix", "envoy_http_downstream": {
        /// Requests.
        requests: Counter = "_rq_total", counter;
        /// Requests at work.
        active_requests: Gauge = "_rq_active", gauge;
        /// How long they took.
        request_time: Histogram = "_rq_time", histogram;
        /// Requests that no route matched.
        no_route: Counter = "_rq_no_route", counter;
        /// Connections.
        connections: Counter = "_cx_total", counter;
        /// Connections there are.
        active_connections: Gauge = "_cx_active", gauge;
        /// Clients that broke the protocol.
        protocol_errors: Counter = "_cx_protocol_error", counter;
    }
}

/// A status and flags that requests ended with, and their counter.
#[derive(Debug)]
struct Ending {
    status: u16,
    flags: ResponseFlags,
    counter: Option<Counter>,
}

/// Istio's request metrics, for one pair of source and destination, on one worker.
#[derive(Debug)]
pub struct RequestMetrics {
    registry: Registry,
    labels: Vec<(&'static str, Box<str>)>,
    endings: RefCell<Vec<Ending>>,
    time: Lazy<Histogram>,
}

impl RequestMetrics {
    /// `labels` are Istio's: `reporter`, `source_workload`, `destination_service`…
    pub fn new(registry: &Registry, labels: &[(&'static str, &str)]) -> RequestMetrics {
        RequestMetrics {
            registry: registry.clone(),
            labels: labels.iter().map(|(name, value)| (*name, (*value).into())).collect(),
            endings: RefCell::default(),
            time: Lazy::new(),
        }
    }

    /// Counts a request that ended.
    pub fn observe(&self, status: u16, flags: ResponseFlags, took: Duration) {
        let mut endings = self.endings.borrow_mut();
        let place = endings.iter().position(|e| e.status == status && e.flags == flags).unwrap_or_else(|| {
            endings.push(Ending { status, flags, counter: self.counter(status, flags) });
            endings.len() - 1
        });
        if let Some(Ending { counter: Some(counter), .. }) = endings.get(place) {
            counter.inc();
        }
        let labels = || self.labels.iter().map(|(name, value)| (*name, value.as_ref())).collect::<Vec<_>>();
        let make = || self.registry.histogram("istio_request_duration_milliseconds", &labels());
        if let Some(histogram) = self.time.get(make) {
            histogram.record(took);
        }
    }

    fn counter(&self, status: u16, flags: ResponseFlags) -> Option<Counter> {
        let status = status.to_string();
        let mut text = Vec::new();
        flags.write_short(&mut text);
        let flags = String::from_utf8_lossy(&text);
        let mut labels: Vec<_> = self.labels.iter().map(|(name, value)| (*name, value.as_ref())).collect();
        labels.extend([("response_code", status.as_str()), ("response_flags", flags.as_ref())]);
        self.registry.counter("istio_requests_total", &labels)
    }
}
