//! Making a connection to a host.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpSocket;
use tokio::time::timeout;

use crate::config::Cluster;
use crate::worker::Stream;

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// It took too long.
    Timeout,
    /// The host, or something on the way, refused.
    Remote(io::Error),
    /// This machine cannot make one.
    Local(io::Error),
}

impl ConnectError {
    /// The same, for someone else.
    pub(crate) fn again(&self) -> ConnectError {
        let same = |e: &io::Error| e.raw_os_error().map_or_else(|| e.kind().into(), io::Error::from_raw_os_error);
        match self {
            ConnectError::Timeout => ConnectError::Timeout,
            ConnectError::Remote(e) => ConnectError::Remote(same(e)),
            ConnectError::Local(e) => ConnectError::Local(same(e)),
        }
    }
}

/// Connects as the cluster says.
pub(crate) async fn connect(cluster: &Cluster, address: SocketAddr) -> Result<Stream, ConnectError> {
    let socket = socket(cluster, address).map_err(ConnectError::Local)?;
    match timeout(cluster.connect_timeout, socket.connect(address)).await {
        Ok(Ok(stream)) => Ok(Stream::Plain(stream)),
        Ok(Err(e)) => Err(ConnectError::Remote(e)),
        Err(_) => Err(ConnectError::Timeout),
    }
}

fn socket(cluster: &Cluster, address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    if let Some(keepalive) = &cluster.tcp_keepalive {
        maille_net::set_keepalive(&socket, keepalive.probes, keepalive.time, keepalive.interval)?;
    }
    if let Some(source) = cluster.source_addresses.iter().find(|source| source.is_ipv4() == address.is_ipv4()) {
        socket.bind(SocketAddr::new(*source, 0))?;
    }
    Ok(socket)
}
