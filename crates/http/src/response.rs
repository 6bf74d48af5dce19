//! The head of a response.

use std::borrow::Cow;

use crate::headers::Headers;
use crate::name::Name;

/// The head of a response: a status and fields. The reason phrase is not kept; the standard one for the status is written.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// The fields, the framing ones (`transfer-encoding`, and `connection` unless it is an upgrade's) aside.
    pub headers: Headers,
    /// The status code.
    pub status: u16,
}

impl ResponseHead {
    /// A head without fields.
    pub fn new(status: u16) -> ResponseHead {
        ResponseHead { headers: Headers::new(), status }
    }

    /// Forgets everything but the memory.
    pub fn clear(&mut self) {
        self.headers.clear();
        self.status = 0;
    }

    /// The value a matcher sees under a name, `:status` included; several values are joined by `,`.
    pub fn header(&self, name: &Name) -> Option<Cow<'_, [u8]>> {
        match name.as_str() {
            ":status" => Some(Cow::Owned(self.status.to_string().into_bytes())),
            _ => self.headers.joined(name),
        }
    }

    /// The value that a formatter writes for a name: of several, the first.
    pub fn first(&self, name: &Name) -> Option<Cow<'_, [u8]>> {
        match name.as_str() {
            ":status" => self.header(name),
            _ => self.headers.first(name).map(Cow::Borrowed),
        }
    }

    /// Appends the head as HTTP/1.1, up to where the framing headers and the empty line follow.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"HTTP/1.1 ");
        let s = self.status;
        out.extend_from_slice(&[digit(s / 100), digit(s / 10), digit(s), b' ']);
        out.extend_from_slice(reason(s).as_bytes());
        out.extend_from_slice(b"\r\n");
        self.headers.write(out);
    }
}

fn digit(n: u16) -> u8 {
    b'0' + (n % 10) as u8
}

/// The reason phrase that Envoy writes for a status code; it means nothing to anybody.
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Payload Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Entity",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        510 => "Not Extended",
        511 => "Network Authentication Required",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_the_status_line() {
        let mut head = ResponseHead::new(404);
        head.headers.append(&Name::new("x-a"), b"1");
        let mut out = Vec::new();
        head.write(&mut out);
        assert_eq!(out, b"HTTP/1.1 404 Not Found\r\nx-a: 1\r\n");
        assert_eq!(head.header(&Name::new(":status")).as_deref(), Some(&b"404"[..]));
    }
}
