//! The sockets that are listened on: one per worker and address, kept over all changes of what is served there.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};

use maille_net::{ListenOptions, listen};

use crate::config::Listener;

/// The addresses that are listened on.
#[derive(Default)]
pub(crate) struct Sockets {
    open: BTreeMap<SocketAddr, Vec<TcpListener>>,
    /// Addresses whose sockets the workers have.
    handed_over: BTreeMap<SocketAddr, ()>,
}

/// The addresses of a listener that has sockets of its own.
pub(crate) fn addresses(listener: &Listener) -> impl Iterator<Item = SocketAddr> {
    let all = std::iter::once(listener.address).chain(listener.additional_addresses.iter().copied());
    all.filter(|_| listener.bind_to_port)
}

impl Sockets {
    /// Whether an address is listened on already.
    pub(crate) fn has(&self, address: SocketAddr) -> bool {
        self.open.contains_key(&address) || self.handed_over.contains_key(&address)
    }

    /// Listens on a listener's addresses, as far as that is not so already; on failure, on none of those.
    pub(crate) fn open(&mut self, listener: &Listener, workers: usize) -> io::Result<()> {
        let mut fresh = Vec::new();
        for address in addresses(listener).filter(|&address| !self.has(address)) {
            fresh.push((address, open_one(listener, address, workers).map_err(|e| named(e, address))?));
        }
        self.open.extend(fresh);
        Ok(())
    }

    /// Whether [`Sockets::open`] would succeed now.
    pub(crate) fn could_open(&self, listener: &Listener) -> bool {
        let mut fresh = addresses(listener).filter(|&address| !self.has(address));
        fresh.all(|address| open_one(listener, address, 1).is_ok())
    }

    /// One more socket of an address that workers have, for one that has lost its own.
    pub(crate) fn again(&self, listener: &Listener, address: SocketAddr, workers: usize) -> io::Result<TcpListener> {
        listen(address, options(listener, workers > 1))
    }

    /// The sockets of an address, for the workers, the first time they are asked for.
    pub(crate) fn hand_over(&mut self, address: SocketAddr) -> Option<Vec<TcpListener>> {
        let sockets = self.open.remove(&address)?;
        self.handed_over.insert(address, ());
        Some(sockets)
    }

    /// Forgets the addresses that are not wanted any more; which of them the workers must stop accepting on.
    pub(crate) fn keep(&mut self, wanted: impl Fn(SocketAddr) -> bool) -> Vec<SocketAddr> {
        self.open.retain(|address, _| wanted(*address));
        let gone: Vec<_> = self.handed_over.keys().copied().filter(|address| !wanted(*address)).collect();
        self.handed_over.retain(|address, ()| wanted(*address));
        gone
    }
}

fn open_one(listener: &Listener, address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    if workers == 1 {
        return Ok(vec![listen(address, options(listener, false))?]);
    }
    // Sockets that may share an address would also share it with another proxy, each getting half of the connections.
    // One that may not share finds out whether the address is free.
    drop(listen(address, options(listener, false))?);
    (0..workers).map(|_| listen(address, options(listener, true))).collect()
}

fn options(listener: &Listener, reuse_port: bool) -> ListenOptions {
    ListenOptions {
        reuse_port,
        transparent: listener.transparent,
        freebind: listener.freebind,
        backlog: listener.backlog,
    }
}

fn named(error: io::Error, address: SocketAddr) -> io::Error {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => "; another process listens there",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need privileges",
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        _ => "",
    };
    io::Error::new(error.kind(), format!("cannot listen on {address}: {error}{hint}"))
}
