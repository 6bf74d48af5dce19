//! The fault filter: makes requests wait, or fails them, on purpose.

use std::time::Duration;

use maille_http::RequestHead;
use maille_telemetry::flags::ResponseFlags;

use super::reply::Reply;
use crate::config::{Fault, FaultAbort};

/// The pause that a request gets.
pub(crate) fn delay(fault: &Fault, request: &RequestHead) -> Option<Duration> {
    let (pause, share) = fault.delay?;
    (applies(fault, request) && share.holds(fastrand::u64(..))).then_some(pause)
}

/// The failure that a request gets.
pub(crate) fn abort(fault: &Fault, request: &RequestHead) -> Option<Reply> {
    let (what, share) = fault.abort?;
    if !applies(fault, request) || !share.holds(fastrand::u64(..)) {
        return None;
    }
    // A gRPC status goes to gRPC clients; to others it is a success with this body, as in Envoy.
    let (status, grpc_status) = match what {
        FaultAbort::Http(status) => (status, None),
        FaultAbort::Grpc(code) => (200, Some(code)),
    };
    let reply = Reply::new(status, "fault_filter_abort").body(&b"fault filter abort"[..]);
    Some(Reply { grpc_status, ..reply.flags(ResponseFlags::FAULT_INJECTED) })
}

fn applies(fault: &Fault, request: &RequestHead) -> bool {
    fault.headers.iter().all(|matcher| matcher.matches(request))
}
