//! Reading the head of a response.

use super::{BodyLength, Error, Limits, Version, fields};
use crate::response::ResponseHead;
use crate::words;

/// What a response's head said beyond its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseMeta {
    /// Bytes of the head, the empty line included.
    pub len: usize,
    /// The version.
    pub version: Version,
    /// How the body is framed.
    pub body: BodyLength,
    /// Whether the server takes another request on this connection.
    pub keep_alive: bool,
}

/// Reads the head of a response to a request (`to_head`: one with the method HEAD). `None` when its end has not come yet.
pub fn parse_response(
    buf: &[u8],
    limits: &Limits,
    to_head: bool,
    head: &mut ResponseHead,
) -> Result<Option<ResponseMeta>, Error> {
    let too_large = if buf.len() >= limits.head_bytes { Err(Error::HeadTooLarge) } else { Ok(None) };
    if !b"HTTP/1.".starts_with(buf.get(..7.min(buf.len())).unwrap_or_default()) {
        return Err(Error::Syntax);
    }
    let Some(line_end) = words::position(buf, b'\n') else { return too_large };
    let line = buf.get(..line_end).and_then(|l| l.strip_suffix(b"\r")).ok_or(Error::Syntax)?;
    let (version, status) = status_line(line)?;

    head.clear();
    head.status = status;
    let rest = buf.get(line_end + 1..).unwrap_or_default();
    let host = |headers: &mut crate::Headers, value: &[u8]| {
        headers.push_parsed(b"host", value);
        Ok(())
    };
    let Some((len, framing)) = fields::parse(rest, limits, &mut head.headers, false, host)? else { return too_large };
    if line_end + 1 + len > limits.head_bytes {
        return Err(Error::HeadTooLarge);
    }
    if version == Version::Http10 && framing.chunked {
        return Err(Error::TransferEncodingInHttp10);
    }
    if status < 200 || status == 204 {
        // They have none to say (RFC 9110 §8.6).
        head.headers.remove_id(crate::HeaderId::ContentLength);
    }
    let bodiless = to_head || status < 200 || matches!(status, 204 | 304);
    let body = match (framing.chunked, framing.content_length) {
        _ if bodiless => BodyLength::Empty,
        (true, _) => BodyLength::Chunked,
        (false, Some(0)) => BodyLength::Empty,
        (false, Some(n)) => BodyLength::Exact(n),
        (false, None) => BodyLength::UntilClose,
    };
    Ok(Some(ResponseMeta {
        len: line_end + 1 + len,
        version,
        body,
        keep_alive: !framing.close
            && (version == Version::Http11 || framing.keep_alive)
            && body != BodyLength::UntilClose,
    }))
}

fn status_line(line: &[u8]) -> Result<(Version, u16), Error> {
    let version = match line.get(..9) {
        Some(b"HTTP/1.1 ") => Version::Http11,
        Some(b"HTTP/1.0 ") => Version::Http10,
        _ => return Err(Error::Syntax),
    };
    match line.get(9..).unwrap_or_default() {
        [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', reason @ ..]
            if reason.first().is_none_or(|&s| s == b' ')
                && reason.iter().all(|&b| b == b'\t' || (b >= b' ' && b != 0x7f)) =>
        {
            Ok((version, u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')))
        }
        _ => Err(Error::Syntax),
    }
}
