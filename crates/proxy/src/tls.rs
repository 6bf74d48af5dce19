//! TLS on the wire: a handshake made from compiled configuration, and a stream that reads and writes plain bytes.

mod info;
mod stream;

pub(crate) use info::TlsInfo;
pub(crate) use stream::TlsStream;
