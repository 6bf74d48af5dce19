//! Where a connection was going before it was redirected to us.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use socket2::SockRef;

/// The destination that a REDIRECT rule replaced; `None` when the connection was made to us.
pub fn original_dst(socket: &impl AsFd) -> Option<SocketAddr> {
    let socket = SockRef::from(socket);
    let local = socket.local_addr().ok()?.as_socket()?;
    let found = match local {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    };
    found.ok()?.as_socket().filter(|original| *original != local)
}
