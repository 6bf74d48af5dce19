//! Fields that follow a chunked body.

use super::fields::check_line_ends;
use super::{Error, Limits};
use crate::headers::Headers;
use crate::name::HeaderId;

/// Reads a trailer section without its last, empty line.
pub(super) fn parse(mut raw: Vec<u8>) -> Result<Headers, Error> {
    raw.extend_from_slice(b"\r\n");
    let mut space = [httparse::EMPTY_HEADER; Limits::ENVOYS.fields];
    let (len, fields) = match httparse::parse_headers(&raw, &mut space) {
        Ok(httparse::Status::Complete(done)) => done,
        Err(httparse::Error::TooManyHeaders) => return Err(Error::TooManyFields),
        Ok(httparse::Status::Partial) | Err(_) => return Err(super::error::blame(Error::Chunk, &raw)),
    };
    if len != raw.len() {
        return Err(Error::Chunk);
    }
    check_line_ends(&raw, fields).map_err(|_| Error::Chunk)?;
    let mut headers = Headers::new();
    for field in fields {
        headers.push_parsed(field.name.as_bytes(), field.value);
    }
    Ok(headers)
}

/// Whether trailers hold nothing that would frame or route a message for whoever merges them into its head.
pub(super) fn may_be_sent(trailers: &Headers) -> bool {
    const NEVER: [HeaderId; 10] = [
        HeaderId::Connection,
        HeaderId::ContentLength,
        HeaderId::Expect,
        HeaderId::Host,
        HeaderId::KeepAlive,
        HeaderId::ProxyConnection,
        HeaderId::Te,
        HeaderId::Trailer,
        HeaderId::TransferEncoding,
        HeaderId::Upgrade,
    ];
    !NEVER.iter().any(|id| trailers.has(*id))
}
