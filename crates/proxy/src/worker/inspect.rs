//! Listener filters: what a connection's first bytes say about it, before anyone is chosen to serve it. The bytes stay
//! where they are for whoever that is.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;

use maille_http::{client_hello, proxy_header};

use super::buffers::{BLOCK, Blocks};
use super::io::{Input, Stream};
use crate::config::{Listener, ListenerFilterKind, ProxyVersion};

pub(crate) mod protocol;

/// What is known of a connection before it is served.
#[derive(Debug)]
pub(crate) struct Facts {
    /// The client, as far as a PROXY protocol header is believed.
    pub(crate) remote: SocketAddr,
    /// Where the client wanted to go.
    pub(crate) local: SocketAddr,
    pub(crate) server_name: Box<str>,
    pub(crate) transport_protocol: &'static str,
    pub(crate) application_protocols: Vec<Box<str>>,
}

/// Why a connection is not served.
#[derive(Debug)]
pub(crate) enum Rejected {
    /// It ended, or broke.
    Gone,
    /// What it says is not what has to come.
    Malformed(&'static str),
}

/// Whether there is anything to read before a connection is served.
pub(crate) fn reads(listener: &Listener, port: u16) -> bool {
    active(listener, port).any(|kind| match kind {
        ListenerFilterKind::OriginalDst => false,
        // Nobody but the chains asks which HTTP it is.
        ListenerFilterKind::HttpInspector => listener.chains.look_inside(),
        ListenerFilterKind::TlsInspector { .. } | ListenerFilterKind::ProxyProtocol { .. } => true,
    })
}

/// The filters that look at connections to a port.
pub(crate) fn active(listener: &Listener, port: u16) -> impl Iterator<Item = &ListenerFilterKind> {
    let filters = listener.filters.iter();
    filters.filter(move |f| !f.disabled.as_ref().is_some_and(|when| when.holds(port))).map(|f| &f.kind)
}

/// Lets every filter look, in order. What they find is in `facts` even when time runs out on them.
pub(crate) async fn inspect(
    listener: &Listener,
    port: u16,
    stream: &mut Stream,
    input: &mut Input,
    blocks: &Blocks,
    facts: &mut Facts,
) -> Result<(), Rejected> {
    for kind in active(listener, port) {
        match kind {
            ListenerFilterKind::OriginalDst => {}
            ListenerFilterKind::ProxyProtocol { optional, refused } => {
                header(*optional, *refused, stream, input, blocks, facts).await?;
            }
            ListenerFilterKind::TlsInspector { strict } => {
                hello(*strict, stream, input, blocks, facts).await?;
            }
            ListenerFilterKind::HttpInspector if facts.transport_protocol != "tls" && listener.chains.look_inside() => {
                let version = loop {
                    match protocol::of(input.peek()) {
                        protocol::Parsed::More if input.len() < BLOCK => more(stream, input, blocks).await?,
                        protocol::Parsed::Http(version) => break Some(version),
                        protocol::Parsed::More | protocol::Parsed::Other => break None,
                    }
                };
                facts.application_protocols.extend(version.map(Into::into));
            }
            ListenerFilterKind::HttpInspector => {}
        }
    }
    Ok(())
}

async fn header(
    optional: bool,
    refused: Option<ProxyVersion>,
    stream: &mut Stream,
    input: &mut Input,
    blocks: &Blocks,
    facts: &mut Facts,
) -> Result<(), Rejected> {
    let header = loop {
        match proxy_header::parse(input.peek()) {
            Ok(proxy_header::Parsed::More) => more(stream, input, blocks).await?,
            Ok(proxy_header::Parsed::Header(header)) => break header,
            Ok(proxy_header::Parsed::Absent) if optional => return Ok(()),
            Ok(proxy_header::Parsed::Absent) => return Err(Rejected::Malformed("no PROXY protocol header")),
            Err(_) => return Err(Rejected::Malformed("a malformed PROXY protocol header")),
        }
    };
    let version = if header.version == 1 { ProxyVersion::V1 } else { ProxyVersion::V2 };
    if refused == Some(version) {
        // Where a header need not be there, one that is not read is no header.
        return if optional { Ok(()) } else { Err(Rejected::Malformed("a PROXY protocol header of another version")) };
    }
    input.consume(header.len, blocks);
    if let Some((remote, local)) = header.client {
        (facts.remote, facts.local) = (remote, local);
    }
    Ok(())
}

async fn hello(
    strict: bool,
    stream: &mut Stream,
    input: &mut Input,
    blocks: &Blocks,
    facts: &mut Facts,
) -> Result<(), Rejected> {
    loop {
        match client_hello::parse(input.peek()) {
            client_hello::Parsed::More => more(stream, input, blocks).await?,
            client_hello::Parsed::Other if strict => return Err(Rejected::Malformed("no TLS ClientHello")),
            client_hello::Parsed::Other => return Ok(()),
            client_hello::Parsed::Hello(hello) => {
                facts.transport_protocol = "tls";
                facts.server_name = hello.server_name.into();
                facts.application_protocols = hello.alpn.into_iter().map(Into::into).collect();
                return Ok(());
            }
        }
    }
}

async fn more(stream: &mut Stream, input: &mut Input, blocks: &Blocks) -> Result<(), Rejected> {
    let got: io::Result<usize> = poll_fn(|cx| input.poll_fill(cx, stream, blocks, BLOCK)).await;
    match got {
        Ok(n) if n > 0 => Ok(()),
        _ => Err(Rejected::Gone),
    }
}
