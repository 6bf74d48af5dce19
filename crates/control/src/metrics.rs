//! The control plane's own counters, under istiod's names.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use maille_xds::TypeUrl;

use crate::Shared;

/// Counters; reading them together is not a transaction.
pub(crate) struct Metrics {
    started: Instant,
    pushes: [AtomicU64; TypeUrl::COUNT],
    rejects: [AtomicU64; TypeUrl::COUNT],
    expired_nonces: AtomicU64,
    snapshots: Timing,
    debounce: Timing,
}

#[derive(Default)]
struct Timing {
    count: AtomicU64,
    micros: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            pushes: Default::default(),
            rejects: Default::default(),
            expired_nonces: AtomicU64::new(0),
            snapshots: Timing::default(),
            debounce: Timing::default(),
        }
    }
}

impl Metrics {
    pub(crate) fn pushed(&self, type_url: TypeUrl) {
        self.pushes[type_url as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn rejected(&self, type_url: TypeUrl) {
        self.rejects[type_url as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn nonce_expired(&self) {
        self.expired_nonces.fetch_add(1, Relaxed);
    }

    pub(crate) fn built(&self, took: Duration) {
        self.snapshots.add(took);
    }

    pub(crate) fn debounced(&self, waited: Duration) {
        self.debounce.add(waited);
    }
}

impl Timing {
    fn add(&self, duration: Duration) {
        self.count.fetch_add(1, Relaxed);
        self.micros.fetch_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    fn write(&self, text: &mut String, name: &str, help: &str) {
        let seconds = Duration::from_micros(self.micros.load(Relaxed)).as_secs_f64();
        let count = self.count.load(Relaxed);
        let _ =
            write!(text, "# HELP {name} {help}\n# TYPE {name} summary\n{name}_sum {seconds}\n{name}_count {count}\n");
    }
}

/// Everything in Prometheus' text format.
pub(crate) fn render(shared: &Shared) -> String {
    let Shared { metrics, .. } = shared;
    let mut text = String::new();
    let mut one = |kind: &str, name: &str, help: &str, value: u64| {
        // Writing to a string cannot fail.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    };
    let snapshot = shared.snapshots.borrow().clone();
    let services = snapshot.as_ref().map_or(0, |snapshot| snapshot.services().len());
    one("gauge", "pilot_xds", "Proxies connected over xDS.", shared.proxies.count() as u64);
    one("gauge", "pilot_services", "Services known.", services as u64);
    one("gauge", "maille_workload_leases", "Workloads that hold a lease.", shared.leases.count() as u64);
    one("gauge", "istiod_uptime_seconds", "Seconds since the start.", metrics.started.elapsed().as_secs());
    let rejects = metrics.rejects.iter().map(|count| count.load(Relaxed)).sum();
    one("counter", "pilot_total_xds_rejects", "Responses that proxies refused.", rejects);
    let expired = metrics.expired_nonces.load(Relaxed);
    one("counter", "pilot_xds_expired_nonce", "Requests that answered an older response.", expired);
    for type_url in [TypeUrl::Cluster, TypeUrl::Endpoint, TypeUrl::Listener, TypeUrl::Route] {
        let (name, noun) = (format!("pilot_xds_{}_reject", type_url.short()), type_url.noun());
        let count = metrics.rejects[type_url as usize].load(Relaxed);
        one("counter", &name, &format!("Responses with a {noun} that proxies refused."), count);
    }
    let _ = write!(text, "# HELP pilot_xds_pushes Responses sent.\n# TYPE pilot_xds_pushes counter\n");
    for type_url in TypeUrl::ALL {
        let count = metrics.pushes[type_url as usize].load(Relaxed);
        if count > 0 {
            let _ = writeln!(text, "pilot_xds_pushes{{type=\"{}\"}} {count}", type_url.short());
        }
    }
    metrics.snapshots.write(&mut text, "pilot_pushcontext_init_seconds", "Time to build the snapshot.");
    metrics.debounce.write(&mut text, "pilot_debounce_time", "Time changes waited for others.");
    text
}
