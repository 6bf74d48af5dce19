//! The fault filter: makes requests wait, or fails them, on purpose.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use maille_http::{Name, RequestHead};
use maille_telemetry::flags::ResponseFlags;

use super::reply::Reply;
use crate::config::{Fault, FaultAbort, FaultDelay, Fraction};

/// Faults at work, of all requests at a connection manager.
pub(crate) type Active = Arc<AtomicU32>;

/// One request's faults: however many there are, it counts as one at a time.
pub(crate) struct Faults<'f> {
    fault: &'f Fault,
    active: &'f Active,
    counted: bool,
}

impl<'f> Faults<'f> {
    /// Those of a request; `None` when they are not for it.
    pub(crate) fn new(fault: &'f Fault, active: &'f Active, request: &RequestHead) -> Option<Faults<'f>> {
        let applies = fault.headers.iter().all(|matcher| matcher.matches(request));
        applies.then_some(Faults { fault, active, counted: false })
    }

    /// The pause that it gets.
    pub(crate) fn delay(&mut self, request: &RequestHead) -> Option<Duration> {
        let (pause, share) = self.fault.delay?;
        let pause = match pause {
            FaultDelay::Fixed(pause) => holds(share).then_some(pause),
            FaultDelay::Header => {
                let share = share_said(request, "x-envoy-fault-delay-request-percentage", share);
                holds(share)
                    .then(|| number(request, "x-envoy-fault-delay-request"))
                    .flatten()
                    .map(Duration::from_millis)
            }
        };
        pause.filter(|_| self.count())
    }

    /// The failure that it gets.
    pub(crate) fn abort(&mut self, request: &RequestHead) -> Option<Reply> {
        let (what, share) = self.fault.abort?;
        let share = match what {
            FaultAbort::Header => share_said(request, "x-envoy-fault-abort-request-percentage", share),
            _ => share,
        };
        if !holds(share) {
            return None;
        }
        // A gRPC status goes to gRPC clients; to others it is a success with this body, as in Envoy.
        let (status, grpc_status) = match what {
            FaultAbort::Http(status) => (status, None),
            FaultAbort::Grpc(code) => (200, Some(code)),
            FaultAbort::Header => match number(request, "x-envoy-fault-abort-request") {
                Some(status @ 200..600) => (status as u16, None),
                _ => (200, Some(number(request, "x-envoy-fault-abort-grpc-request")? as u32)),
            },
        };
        if !self.count() {
            return None;
        }
        let reply = Reply::new(status, "fault_filter_abort").body(&b"fault filter abort"[..]);
        Some(Reply { grpc_status, ..reply.flags(ResponseFlags::FAULT_INJECTED) })
    }

    /// Whether there may be one more.
    fn count(&mut self) -> bool {
        if !self.counted {
            let most = self.fault.max_active.unwrap_or(u32::MAX);
            let more = |active: u32| (active < most).then(|| active + 1);
            self.counted = self.active.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        }
        self.counted
    }
}

impl Drop for Faults<'_> {
    fn drop(&mut self) {
        if self.counted {
            self.active.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn holds(share: Fraction) -> bool {
    share.holds(fastrand::u64(..))
}

/// A request may ask for fewer faults than there are, but not for more.
fn share_said(request: &RequestHead, header: &str, share: Fraction) -> Fraction {
    let said = number(request, header).and_then(|said| u32::try_from(said).ok());
    Fraction { numerator: said.map_or(share.numerator, |said| said.min(share.numerator)), ..share }
}

/// What the first header of this name says.
fn number(request: &RequestHead, header: &str) -> Option<u64> {
    let name = Name::new(header);
    let first = request.headers.values(&name).next()?;
    std::str::from_utf8(first).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests;
