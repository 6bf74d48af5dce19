//! A new connection: which listener and filter chain it belongs to.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::io::Stream;
use super::{Worker, http, tcp};
use crate::config::{DownstreamTransport, FilterChain, Listener, ListenerFilterKind, Network};
use crate::route::Connection;
use crate::tls::TlsInfo;

/// What is known of a connection from the start.
pub(crate) struct ConnectionInfo {
    /// Its number on this worker.
    pub(crate) id: u64,
    /// The other end.
    pub(crate) remote: SocketAddr,
    /// Where the client wanted to go.
    pub(crate) local: SocketAddr,
    /// Where it came in.
    pub(crate) own: SocketAddr,
    /// The name the client asked for, by the first bytes of a TLS connection; empty is none.
    pub(crate) server_name: Box<str>,
    /// `raw_buffer`, or `tls` when the first bytes say so.
    pub(crate) transport_protocol: &'static str,
    /// What the connection carries as far as its first bytes say: what ALPN offers, or which HTTP it is.
    pub(crate) application_protocols: Vec<Box<str>>,
    /// What TLS has agreed on, where we are its end.
    pub(crate) tls: Option<Rc<TlsInfo>>,
    pub(crate) chain: Arc<FilterChain>,
    pub(crate) listener: Arc<Listener>,
}

/// Serves a connection on a task of its own.
pub(crate) fn start(worker: &Rc<Worker>, stream: TcpStream, remote: SocketAddr, address: SocketAddr) {
    thread_local!(static NEXT_ID: Cell<u64> = const { Cell::new(0) });
    let snapshot = worker.snapshot();
    let Some(listener) = snapshot.bound.get(&address) else { return };
    let Ok(own) = stream.local_addr() else { return };
    let restores = |listener: &Listener| {
        listener.filters.iter().any(|f| {
            f.kind == ListenerFilterKind::OriginalDst && !f.disabled.as_ref().is_some_and(|p| p.holds(own.port()))
        })
    };
    let mut local = own;
    if (listener.use_original_dst || restores(listener))
        && let Some(original) = maille_net::original_dst(&stream)
    {
        local = original;
    }
    let listener = if listener.use_original_dst && local != own {
        owner(&snapshot.listeners, local).unwrap_or(listener)
    } else {
        listener
    };
    let facts = Connection {
        destination: local,
        source: remote,
        direct_source: remote,
        server_name: "",
        transport_protocol: "raw_buffer",
        application_protocols: &[],
    };
    let Some(chain) = listener.chains.find(&facts).or(listener.default_chain.as_ref()) else {
        tracing::debug!(listener = %listener.name, %remote, "no filter chain matches");
        return;
    };
    if let DownstreamTransport::Tls(_) = chain.transport {
        // Refused when the configuration came; should one get here all the same, plain text is never served in its place.
        return;
    }
    let id = NEXT_ID.get() + 1;
    NEXT_ID.set(id);
    let info = ConnectionInfo {
        id,
        remote,
        local,
        own,
        server_name: Box::default(),
        transport_protocol: "raw_buffer",
        application_protocols: Vec::new(),
        tls: None,
        chain: chain.clone(),
        listener: listener.clone(),
    };
    match &chain.network {
        Network::Http(manager) => {
            tokio::task::spawn_local(http::serve(worker.clone(), Stream::Plain(stream), manager.clone(), info));
        }
        Network::Tcp(proxy) => {
            tokio::task::spawn_local(tcp::serve(worker.clone(), Stream::Plain(stream), proxy.clone(), info));
        }
        Network::Close => {}
    }
}

impl ConnectionInfo {
    /// Whether whoever connects to an address gets here again, and again. `listens` knows the addresses that are
    /// accepted on: a listener that only has the name of an address accepts nothing there.
    pub(crate) fn comes_back(&self, to: SocketAddr, listens: impl Fn(SocketAddr) -> bool) -> bool {
        comes_back(self.own.ip(), to, listens)
    }
}

fn comes_back(own: IpAddr, to: SocketAddr, listens: impl Fn(SocketAddr) -> bool) -> bool {
    let anywhere = |ip: IpAddr| listens(SocketAddr::new(ip, to.port()));
    let here = to.ip() == own || to.ip().is_loopback() || to.ip().is_unspecified();
    listens(to) || (here && (anywhere(Ipv4Addr::UNSPECIFIED.into()) || anywhere(Ipv6Addr::UNSPECIFIED.into())))
}

/// The listener that a destination belongs to: its own address, else the one for any address at that port.
fn owner(listeners: &ahash::AHashMap<Arc<str>, Arc<Listener>>, destination: SocketAddr) -> Option<&Arc<Listener>> {
    let addresses = |l: &Listener| std::iter::once(l.address).chain(l.additional_addresses.clone());
    let exact = listeners.values().find(|l| addresses(l).any(|a| a == destination));
    exact.or_else(|| {
        listeners.values().find(|l| {
            !l.use_original_dst && addresses(l).any(|a| a.ip().is_unspecified() && a.port() == destination.port())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_come_back() {
        let bound = ["0.0.0.0:15001", "10.0.0.7:9000"].map(|a| a.parse::<SocketAddr>().unwrap());
        for (to, back) in [
            ("10.0.0.7:9000", true),
            ("10.0.0.7:15001", true),
            ("127.0.0.1:15001", true),
            ("10.0.0.8:15001", false),
            ("10.0.0.7:3306", false),
            ("10.0.0.8:9000", false),
        ] {
            let own = "10.0.0.7".parse().unwrap();
            assert_eq!(comes_back(own, to.parse().unwrap(), |a| bound.contains(&a)), back, "{to}");
        }
    }
}
