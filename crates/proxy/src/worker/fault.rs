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
    let status = match what {
        FaultAbort::Http(status) => status,
        // What Envoy's filter makes of a gRPC status for clients that do not speak gRPC.
        FaultAbort::Grpc(code) => match code {
            0 => 200,
            3 | 9 | 11 => 400,
            16 => 401,
            7 => 403,
            5 => 404,
            6 | 10 => 409,
            8 => 429,
            1 => 499,
            12 => 501,
            14 => 503,
            4 => 504,
            _ => 500,
        },
    };
    Some(Reply::new(status, "fault_filter_abort").body(&b"fault filter abort"[..]).flags(ResponseFlags::FAULT_INJECTED))
}

fn applies(fault: &Fault, request: &RequestHead) -> bool {
    fault.headers.iter().all(|matcher| matcher.matches(request))
}
