//! An address of its own for each workload on this machine, from 127.0.0.0/8.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use crate::HTTP_PROXY_PORT;

/// How many addresses to try. Collisions are rare: there are sixteen million addresses.
const TRIES: u64 = 64;

/// An address that no other workload on this machine has, for as long as this value lives.
#[derive(Debug)]
pub struct Address {
    /// The address.
    pub ip: Ipv4Addr,
    /// Nothing is ever sent here. Only one process can hold this socket, and the kernel takes it back however that
    /// process ends: a lock without a file.
    _held: UdpSocket,
}

/// Why a workload gets no address, or cannot listen on it.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// None of the addresses tried could be had.
    #[error("no free address in 127.0.0.0/8 ({0}); is something listening on port {HTTP_PROXY_PORT} of every address?")]
    None(io::Error),
    /// The sidecar could not listen on the service's port.
    #[error("the sidecar cannot listen on {at}: {source}; {advice}")]
    Port {
        /// Where.
        at: SocketAddr,
        /// What the system said.
        source: io::Error,
        /// What to check.
        advice: &'static str,
    },
}

impl Address {
    /// Reserves the address that the name hashes to, or the next one that is free: a workload that is started again
    /// usually has the address it had before.
    ///
    /// # Errors
    /// When every address tried is taken.
    pub fn reserve(namespace: &str, name: &str) -> Result<Self, AddressError> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for attempt in 0..TRIES {
            let ip = candidate(namespace, name, attempt);
            match hold(ip) {
                Ok(held) => return Ok(Self { ip, _held: held }),
                Err(error) => last = error,
            }
        }
        Err(AddressError::None(last))
    }

    /// Checks that a listener could be opened there.
    ///
    /// # Errors
    /// When the port is taken or reserved for root, or the address is not of this machine.
    pub fn check(at: SocketAddr) -> Result<(), AddressError> {
        TcpListener::bind(at).map(drop).map_err(|source| {
            let advice = match source.kind() {
                io::ErrorKind::AddrInUse => {
                    "another program listens on this port of every address (0.0.0.0): end it, or bind it to 127.0.0.1"
                }
                io::ErrorKind::PermissionDenied => {
                    "ports below 1024 are root's here: give the Service a targetPort above and pass that as --port"
                }
                io::ErrorKind::AddrNotAvailable => "--address must be an address of this machine",
                _ => "check the port",
            };
            AddressError::Port { at, source, advice }
        })
    }
}

/// The reservation, and a look whether the forward proxy could listen.
fn hold(ip: Ipv4Addr) -> io::Result<UdpSocket> {
    let held = UdpSocket::bind((ip, HTTP_PROXY_PORT))?;
    TcpListener::bind((ip, HTTP_PROXY_PORT))?;
    Ok(held)
}

/// Stays clear of 127.0.0.0/16, where people put things by hand, and of .0 and .255.
fn candidate(namespace: &str, name: &str, attempt: u64) -> Ipv4Addr {
    let mut hasher = DefaultHasher::new();
    (namespace, name, attempt).hash(&mut hasher);
    let hash = hasher.finish();
    let part = |shift: u32, low: u64, count: u64| (low + (hash >> shift) % count) as u8;
    Ipv4Addr::new(127, part(0, 1, 254), part(16, 0, 256), part(32, 1, 254))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_address_while_it_is_free_and_shares_it_with_nobody() {
        let first = Address::reserve("shop", "address-test").expect("an address");
        let second = Address::reserve("shop", "address-test").expect("another address");
        assert_ne!(first.ip, second.ip);
        let was = first.ip;
        drop(first);
        assert_eq!(Address::reserve("shop", "address-test").expect("the first address").ip, was);
    }

    #[test]
    fn candidates_are_loopback_addresses_a_host_can_have() {
        for attempt in 0..2000 {
            let [a, b, _, d] = candidate("ns", "name", attempt).octets();
            assert!(a == 127 && b >= 1 && (1..255).contains(&d));
        }
    }

    #[test]
    fn a_taken_port_is_named() {
        let address = Address::reserve("shop", "port-test").expect("an address");
        let taken = TcpListener::bind((address.ip, 0)).expect("a port");
        let port = taken.local_addr().expect("its number").port();
        let at = |port| SocketAddr::from((address.ip, port));
        let error = Address::check(at(port)).expect_err("it is taken").to_string();
        assert!(error.contains(&port.to_string()) && error.contains("another program"), "{error}");
        assert!(Address::check(at(port.wrapping_add(1).max(2000))).is_ok());
    }
}
