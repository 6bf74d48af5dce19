//! Listening sockets: one for each worker on the same address.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// How to listen.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListenOptions {
    /// Several sockets on the same address, among which the kernel spreads connections.
    pub reuse_port: bool,
    /// Connections to any address are taken (TPROXY); needs privileges.
    pub transparent: bool,
    /// The address need not exist yet.
    pub freebind: bool,
    /// Connections that wait to be accepted; the system's limit when `None`.
    pub backlog: Option<u32>,
}

/// How much of what is written may wait in the kernel for its turn to be sent. What is on its way is not counted, so that fast connections stay fast;
/// for a client that takes nothing it is all there is, instead of the megabytes of a send buffer.
const UNSENT: u32 = 128 * 1024;

/// Listens on an address, non-blocking. Data sent to connections that it accepts is not held back (TCP_NODELAY), and does not pile up (TCP_NOTSENT_LOWAT).
pub fn listen(address: SocketAddr, options: ListenOptions) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if options.freebind {
        match address {
            SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
            SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
        }
    }
    if options.transparent && address.is_ipv4() {
        socket.set_ip_transparent_v4(true)?;
    }
    // Accepted sockets inherit both: two calls less for each.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    let backlog = options.backlog.map_or(libc::SOMAXCONN, |n| i32::try_from(n).unwrap_or(i32::MAX));
    socket.listen(backlog)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sockets_share_an_address_only_when_asked() {
        let shared = ListenOptions { reuse_port: true, ..ListenOptions::default() };
        let first = listen("127.0.0.1:0".parse().unwrap(), shared).unwrap();
        let address = first.local_addr().unwrap();
        assert_eq!(listen(address, shared).unwrap().local_addr().unwrap(), address);
        assert!(listen(address, ListenOptions::default()).is_err());
    }

    #[test]
    fn row_19_what_a_client_does_not_take_does_not_pile_up() {
        use std::io::{ErrorKind, Write};
        let listener = listen("127.0.0.1:0".parse().unwrap(), ListenOptions::default()).unwrap();
        let client = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        client.set_recv_buffer_size(4096).unwrap();
        client.connect(&listener.local_addr().unwrap().into()).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        accepted.set_nonblocking(true).unwrap();
        let mut taken = 0;
        let error = loop {
            match accepted.write(&[0; 16 * 1024]) {
                Ok(n) => taken += n,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert!(taken <= UNSENT as usize + 64 * 1024, "{taken} bytes");
    }
}
