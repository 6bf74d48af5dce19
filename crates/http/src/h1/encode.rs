//! Writing: the framing headers that end a head, and chunks.

use super::BodyLength;
use crate::headers::Headers;

/// What follows the data of a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";
/// What ends a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Ends a chunked body that has trailers.
pub fn trailer_section(out: &mut Vec<u8>, trailers: &Headers) {
    out.extend_from_slice(b"0\r\n");
    trailers.write(out);
    out.extend_from_slice(b"\r\n");
}

/// Ends a request's head: `transfer-encoding` or a `content-length` of zero where one is due (as Envoy does it), and the empty line.
/// A body of known length has its `content-length` among the fields already.
pub fn request_framing(out: &mut Vec<u8>, method: &[u8], body: BodyLength, has_content_length: bool) {
    match body {
        BodyLength::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        BodyLength::Empty
            if !has_content_length && !matches!(method, b"GET" | b"HEAD" | b"DELETE" | b"TRACE" | b"CONNECT") =>
        {
            out.extend_from_slice(b"content-length: 0\r\n");
        }
        _ => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// Makes a response's head one of HTTP/1.0, in which its client speaks.
pub fn write_http10(head: &mut [u8]) {
    if let Some(minor) = head.get_mut(7) {
        *minor = b'0';
    }
}

/// Ends a response's head likewise. `body` is what will be written: a body of unknown length goes in chunks unless the client speaks HTTP/1.0.
pub fn response_framing(
    out: &mut Vec<u8>,
    status: u16,
    to_head: bool,
    body: BodyLength,
    has_content_length: bool,
    close: bool,
) {
    if close {
        out.extend_from_slice(b"connection: close\r\n");
    }
    match body {
        BodyLength::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        // What a GET would have got is not known; Envoy takes it for chunked.
        BodyLength::Empty if to_head && !has_content_length && status >= 200 && !matches!(status, 204 | 304) => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        BodyLength::Empty if !has_content_length && !to_head && status >= 200 && !matches!(status, 204 | 304) => {
            out.extend_from_slice(b"content-length: 0\r\n");
        }
        _ => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the size line of a chunk of `n` bytes (never zero: that would end the body).
pub fn chunk_head(out: &mut Vec<u8>, n: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut started = false;
    for shift in (0..usize::BITS / 4).rev() {
        let digit = (n >> (shift * 4)) & 15;
        started |= digit != 0;
        if started {
            out.extend(DIGITS.get(digit));
        }
    }
    out.extend_from_slice(b"\r\n");
}
