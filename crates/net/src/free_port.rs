//! Ports that nobody will take in the meantime.

use std::io;
use std::net::{IpAddr, TcpListener};
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below are ports that people know by heart.
const LOWEST: u16 = 10_000;

/// Where the system's own ports begin, unless it says otherwise ("Linux: net.ipv4.ip_local_port_range").
const SYSTEM_OWN: u16 = 32_768;

/// Istio's own ports.
const ISTIO: Range<u16> = 15_000..15_100;

/// A port of `ip` that nothing listens on, and that no connection is given by the system either: what is told a port like
/// this has time to listen there. A process is told none of them twice until it has had them all.
///
/// # Errors
/// When none is free.
pub fn free_port(ip: IpAddr) -> io::Result<u16> {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let end = system_own().filter(|begin| *begin > LOWEST + ISTIO.end - ISTIO.start).unwrap_or(SYSTEM_OWN);
    let count = end - LOWEST;
    // Processes begin in different places, so that those that start together do not ask for the same.
    let next = NEXT.get_or_init(|| AtomicU16::new((std::process::id().wrapping_mul(2_654_435_761) >> 16) as u16));
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..count {
        let port = LOWEST + next.fetch_add(1, Ordering::Relaxed) % count;
        if ISTIO.contains(&port) {
            continue;
        }
        match TcpListener::bind((ip, port)) {
            Ok(_) => return Ok(port),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The first port that the system gives to connections by itself.
fn system_own() -> Option<u16> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    range.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    #[test]
    fn nobody_is_told_a_port_twice_or_one_that_is_taken() {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let first = free_port(ip).expect("a port");
        let held: Vec<TcpListener> =
            (first + 1..first + 4).filter_map(|port| TcpListener::bind((ip, port)).ok()).collect();
        let taken: BTreeSet<u16> = held.iter().filter_map(|held| Some(held.local_addr().ok()?.port())).collect();
        let told: BTreeSet<u16> = (0..100).map(|_| free_port(ip).expect("a port")).collect();
        assert_eq!(told.len(), 100);
        assert!(told.is_disjoint(&taken) && !told.contains(&first));
        assert!(told.iter().all(|port| *port >= LOWEST && !ISTIO.contains(port)));
    }
}
