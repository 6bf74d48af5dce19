//! Outlier detection: hosts that fail too often get no requests for a while. Workers keep the record, the main thread judges by it.

mod detector;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use crate::config::OutlierDetection;

pub(crate) use detector::{Counts, Detector, Reason, Verdict};

/// What came of an attempt at a request or a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A response with this status.
    Response(u16),
    /// A connection for a request, which has yet to be answered.
    Connected,
    /// A connection that is all that was wanted.
    Established,
    /// No connection, or one that ended before the response began.
    Failed,
    /// Nothing, for too long.
    TimedOut,
}

/// The record of one host, written by all workers. Survives updates of the host.
///
/// While all goes well nothing is written, unless rates of success are to be compared: then it costs as much as any counter.
#[derive(Debug, Default)]
pub(crate) struct Monitor {
    consecutive_5xx: AtomicU32,
    consecutive_gateway_failure: AtomicU32,
    consecutive_local_origin_failure: AtomicU32,
    /// The [`Reason`]s there are to look at this host, by bit.
    reached: AtomicU8,
    ejected: AtomicBool,
    external: Tally,
    local: Tally,
}

/// How many of how many have succeeded since the last look.
#[derive(Debug, Default)]
struct Tally {
    succeeded: AtomicU32,
    total: AtomicU32,
}

impl Monitor {
    /// Puts an outcome on record; whether the main thread ought to look at it now.
    pub(crate) fn record(&self, config: &OutlierDetection, outcome: Outcome) -> bool {
        use Outcome::*;
        match (outcome, config.split_external_local_origin_errors) {
            (Response(status), _) => self.response(config, status),
            (Connected, false) => false,
            (Established, false) => self.response(config, 200),
            (Failed, false) => self.response(config, 503),
            (TimedOut, false) => self.response(config, 504),
            (Connected | Established, true) => {
                self.local.add(config.compares_local(), true);
                reset(&self.consecutive_local_origin_failure);
                false
            }
            (Failed | TimedOut, true) => {
                self.local.add(config.compares_local(), false);
                let count = &self.consecutive_local_origin_failure;
                self.another(count, config.consecutive_local_origin_failure, Reason::ConsecutiveLocalOriginFailure)
            }
        }
    }

    /// Whether the host is to be left alone.
    pub(crate) fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    fn response(&self, config: &OutlierDetection, status: u16) -> bool {
        let failed = (500..600).contains(&status);
        self.external.add(config.compares_external(), !failed);
        if !failed {
            reset(&self.consecutive_5xx);
            reset(&self.consecutive_gateway_failure);
            return false;
        }
        let mut look = false;
        let gateway = &self.consecutive_gateway_failure;
        if (502..=504).contains(&status) {
            look |= self.another(gateway, config.consecutive_gateway_failure, Reason::ConsecutiveGatewayFailure);
        } else {
            reset(gateway);
        }
        look | self.another(&self.consecutive_5xx, config.consecutive_5xx, Reason::Consecutive5xx)
    }

    /// One more in a row. The main thread is called once, when there are enough; it begins anew when it has looked.
    fn another(&self, count: &AtomicU32, enough: u32, reason: Reason) -> bool {
        if count.fetch_add(1, Ordering::Relaxed).wrapping_add(1) != enough {
            return false;
        }
        self.reached.fetch_or(reason.bit(), Ordering::Release);
        true
    }

    fn counter(&self, reason: Reason) -> Option<&AtomicU32> {
        match reason {
            Reason::Consecutive5xx => Some(&self.consecutive_5xx),
            Reason::ConsecutiveGatewayFailure => Some(&self.consecutive_gateway_failure),
            Reason::ConsecutiveLocalOriginFailure => Some(&self.consecutive_local_origin_failure),
            _ => None,
        }
    }
}

impl OutlierDetection {
    fn compares_external(&self) -> bool {
        self.enforcing_success_rate > 0 || self.enforcing_failure_percentage > 0
    }

    fn compares_local(&self) -> bool {
        self.enforcing_local_origin_success_rate > 0 || self.enforcing_failure_percentage_local_origin > 0
    }
}

impl Tally {
    fn add(&self, wanted: bool, succeeded: bool) {
        if !wanted {
            return;
        }
        self.total.fetch_add(1, Ordering::Relaxed);
        if succeeded {
            self.succeeded.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What has come together, in percent and of how many; begins anew.
    fn take(&self) -> Option<(f64, u32)> {
        let succeeded = self.succeeded.swap(0, Ordering::Relaxed);
        let total = self.total.swap(0, Ordering::Relaxed);
        (total > 0).then(|| (f64::from(succeeded.min(total)) * 100.0 / f64::from(total), total))
    }
}

/// Back to nothing, without writing what others would then have to read again.
fn reset(counter: &AtomicU32) {
    if counter.load(Ordering::Relaxed) != 0 {
        counter.store(0, Ordering::Relaxed);
    }
}

/// What a status of gRPC means in HTTP; anything that is none is the server's failure.
pub(crate) fn grpc_to_http(status: &[u8]) -> u16 {
    match status {
        b"0" => 200,
        b"1" => 499,
        b"3" | b"9" | b"11" => 400,
        b"4" => 504,
        b"5" => 404,
        b"6" | b"10" => 409,
        b"7" => 403,
        b"8" => 429,
        b"12" => 501,
        b"14" => 503,
        b"16" => 401,
        _ => 500,
    }
}

#[cfg(test)]
mod tests;
