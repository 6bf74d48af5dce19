//! HTTP/1: reading heads and bodies strictly, writing them back.
//!
//! httparse finds the tokens; what they may be and how a message is framed is decided here, once, and stricter than the
//! RFC asks: whatever two readers could frame differently is refused. A message that leaves this module has one meaning.

mod body;
mod case;
mod encode;
mod error;
mod fields;
mod request;
mod response;
mod trailers;

pub use body::{BodyDecoder, BodyLength, Decoded};
pub use case::{original_case, proper_case};
pub use encode::{CHUNK_END, LAST_CHUNK, chunk_head, request_framing, response_framing, trailer_section, write_http10};
pub use error::Error;
pub use request::{RequestMeta, parse_request};
pub use response::{ResponseMeta, parse_response};

/// What a head may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a head, request line included.
    pub head_bytes: usize,
    /// Fields of a head; never above [`Limits::MAX_FIELDS`].
    pub fields: usize,
    /// Whether requests may be HTTP/1.0.
    pub http10: bool,
    /// Whether a message may have both a length and chunks; then the chunks count, and the connection ends with the message (RFC 9112 §6.1).
    pub chunked_length: bool,
    /// Whether the fields' names are remembered as they were spelled ([`original_case`]).
    pub keep_case: bool,
    /// Whether every token is a method, and not only those that Envoy's codec knows.
    pub custom_methods: bool,
}

impl Limits {
    /// More fields than this are refused whatever the configuration says.
    pub const MAX_FIELDS: usize = 256;

    /// Envoy's defaults: 60 KiB, 100 fields, HTTP/1.1 only.
    pub const ENVOYS: Limits = Limits {
        head_bytes: 60 * 1024,
        fields: 100,
        http10: false,
        chunked_length: false,
        keep_case: false,
        custom_methods: false,
    };
}

impl Default for Limits {
    /// [`Limits::ENVOYS`].
    fn default() -> Limits {
        Limits::ENVOYS
    }
}

/// HTTP/1.0 or HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are the versions")]
pub enum Version {
    Http10,
    Http11,
}

#[cfg(test)]
mod tests;
