//! Making a connection to a host.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use maille_http::proxy_header;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::time::timeout;

use super::{WorkerHost, eyeballs};
use crate::config::{Cluster, ProxyVersion};
use crate::tls::{self, Carries, Security};
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
    /// There is no TLS with the host: why, in Envoy's words.
    Tls(Box<str>),
}

impl ConnectError {
    /// The same, for someone else.
    pub(crate) fn again(&self) -> ConnectError {
        let same = |e: &io::Error| e.raw_os_error().map_or_else(|| e.kind().into(), io::Error::from_raw_os_error);
        match self {
            ConnectError::Timeout => ConnectError::Timeout,
            ConnectError::Remote(e) => ConnectError::Remote(same(e)),
            ConnectError::Local(e) => ConnectError::Local(same(e)),
            ConnectError::Tls(why) => ConnectError::Tls(why.clone()),
        }
    }
}

/// What a connection is made for, as far as that makes it another than the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Purpose {
    /// What it carries.
    pub(crate) carries: Carries,
    /// The name that the server is asked by, when the request decides that.
    pub(crate) server_name: Option<Arc<str>>,
    /// Where the client is, and where it went, for a server that is told.
    pub(crate) client: Option<(SocketAddr, SocketAddr)>,
}

/// Connects to a host, as its cluster says.
pub(crate) async fn connect(cluster: &Cluster, to: &WorkerHost, purpose: &Purpose) -> Result<Stream, ConnectError> {
    let WorkerHost { host, transport, .. } = to;
    let whole = async {
        let mut tcp = match host.others.is_empty() {
            true => {
                let socket = socket(cluster, host.address).map_err(ConnectError::Local)?;
                socket.connect(host.address).await.map_err(ConnectError::Remote)?
            }
            false => {
                let socket = |address| socket(cluster, address);
                eyeballs::connect(host.address, &host.others, socket).await.map_err(ConnectError::Remote)?
            }
        };
        if let Some(version) = transport.proxy_protocol {
            let mut header = Vec::new();
            match (version, purpose.client) {
                (ProxyVersion::V1, client) => proxy_header::write_v1(&mut header, client),
                (ProxyVersion::V2, client) => proxy_header::write_v2(&mut header, client),
            }
            tcp.write_all(&header).await.map_err(ConnectError::Remote)?;
        }
        match &transport.security {
            Security::Plain => Ok(Stream::Plain(tcp)),
            Security::Tls(context) => {
                let name = context.name(purpose.server_name.as_deref(), &host.hostname, host.address.ip());
                let secured = tls::connect(tcp, context, name, purpose.carries).await;
                secured.map(|tls| Stream::Tls(Box::new(tls))).map_err(|e| ConnectError::Tls(tls::reason(&e).into()))
            }
            Security::Missing => Err(ConnectError::Tls("TLS_error:_Secret_is_not_supplied_by_SDS".into())),
        }
    };
    timeout(cluster.connect_timeout, whole).await.unwrap_or(Err(ConnectError::Timeout))
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
