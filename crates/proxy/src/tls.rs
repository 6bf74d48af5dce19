//! TLS on the wire: configuration with its secrets made ready for connections, handshakes, and a stream that reads and
//! writes plain bytes.

mod client;
mod context;
mod failure;
mod handshake;
mod info;
mod material;
mod params;
mod server;
mod sessions;
mod stream;

pub(crate) use client::{Carries, ClientContext};
pub(crate) use context::{Contexts, Security, Servers, Transport, Transports};
pub(crate) use failure::reason;
pub(crate) use handshake::{accept, connect};
pub(crate) use info::TlsInfo;
pub(crate) use material::Materials;
pub(crate) use params::Params;
pub(crate) use server::ServerContext;
pub(crate) use stream::TlsStream;
