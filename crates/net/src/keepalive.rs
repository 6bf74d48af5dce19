//! Keep-alive of TCP connections.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// Turns keep-alive on; what is `None` is the system's default.
pub fn set_keepalive(
    socket: &impl AsFd,
    probes: Option<u32>,
    time: Option<Duration>,
    interval: Option<Duration>,
) -> io::Result<()> {
    let mut keepalive = TcpKeepalive::new();
    if let Some(probes) = probes {
        keepalive = keepalive.with_retries(probes);
    }
    if let Some(time) = time {
        keepalive = keepalive.with_time(time);
    }
    if let Some(interval) = interval {
        keepalive = keepalive.with_interval(interval);
    }
    SockRef::from(socket).set_tcp_keepalive(&keepalive)
}
