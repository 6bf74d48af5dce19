//! Why a message was refused, and what Envoy answers and calls it.

/// A message that is not HTTP/1 as we accept it. The peer gets [`Error::status`] and the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant's Display text says it")]
pub enum Error {
    HeadTooLarge,
    TooManyFields,
    Version,
    Syntax,
    InvalidMethod,
    InvalidTarget,
    InvalidUrl,
    InvalidScheme,
    InvalidCharacters,
    Fragment,
    InvalidHost,
    MissingHost,
    DuplicateHost,
    ContentLength,
    ContentLengthAndTransferEncoding,
    TransferEncoding,
    TransferEncodingInHttp10,
    Connection,
    ConnectWithBody,
    Chunk,
    Trailers,
    HttpsOnPlaintext,
}

impl Error {
    /// The status to answer a request with.
    pub fn status(self) -> u16 {
        match self {
            Error::HeadTooLarge | Error::TooManyFields => 431,
            Error::Version => 426,
            Error::TransferEncoding => 501,
            Error::HttpsOnPlaintext => 403,
            _ => 400,
        }
    }

    /// Envoy's response code details.
    pub fn details(self) -> &'static str {
        match self {
            Error::HeadTooLarge => "http1.headers_too_large",
            Error::TooManyFields => "http1.too_many_headers",
            Error::Version => "low_version",
            Error::Syntax
            | Error::InvalidMethod
            | Error::InvalidTarget
            | Error::Chunk
            | Error::Trailers
            | Error::ContentLength => "http1.codec_error",
            Error::InvalidUrl => "http1.invalid_url",
            Error::InvalidCharacters => "http1.invalid_characters",
            Error::InvalidScheme => "http1.invalid_scheme",
            Error::Fragment => "path_normalization_failed",
            Error::InvalidHost | Error::DuplicateHost => "http.invalid_authority",
            Error::MissingHost => "missing_host_header",
            Error::ContentLengthAndTransferEncoding => "http1.content_length_and_chunked_not_allowed",
            Error::TransferEncoding | Error::TransferEncodingInHttp10 => "http1.invalid_transfer_encoding",
            Error::Connection => "http1.connection_header_rejected",
            Error::ConnectWithBody => "http1.body_disallowed",
            Error::HttpsOnPlaintext => "http1.https_url_on_plaintext_connection",
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Error::HeadTooLarge => "the head is larger than the limit",
            Error::TooManyFields => "the head has more fields than the limit",
            Error::Version => "the HTTP version is not one that is served here",
            Error::Syntax => "the head is not HTTP/1: a line is malformed or not ended by CR LF",
            Error::InvalidMethod => "the method is not known",
            Error::InvalidTarget => {
                "the request target is neither a path nor an absolute URL with characters that may stand there"
            }
            Error::InvalidUrl => "the request target is a URL whose host or port is none",
            Error::InvalidCharacters => "there are control characters in the head",
            Error::InvalidScheme => "the request target's scheme is neither http nor https",
            Error::Fragment => "the request target has a fragment",
            Error::InvalidHost => "the host has characters that may not stand there",
            Error::MissingHost => "there is no Host header",
            Error::DuplicateHost => "there is more than one Host header",
            Error::ContentLength => "Content-Length is not one number, given once",
            Error::ContentLengthAndTransferEncoding => "both Content-Length and Transfer-Encoding are given",
            Error::TransferEncoding => "Transfer-Encoding is anything but `chunked`, given once",
            Error::TransferEncodingInHttp10 => "an HTTP/1.0 message has a Transfer-Encoding",
            Error::Connection => "Connection names headers that may not be removed, or too many",
            Error::ConnectWithBody => "a CONNECT request has a body",
            Error::Chunk => "the chunked body is malformed",
            Error::Trailers => "the trailers hold fields that belong into a head",
            Error::HttpsOnPlaintext => "an https URL came over a plaintext connection",
        })
    }
}

impl std::error::Error for Error {}

/// Control characters are to blame where they are what is wrong with a head; as far as Envoy's details go, before anything else.
#[cold]
pub(super) fn blame(error: Error, from: &[u8]) -> Error {
    if matches!(error, Error::HeadTooLarge | Error::TooManyFields | Error::Version | Error::InvalidCharacters) {
        return error;
    }
    let end = from.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(from.len());
    let control = |b: &u8| b.is_ascii_control() && !matches!(b, b'\t' | b'\r' | b'\n');
    if from.iter().take(end).any(control) { Error::InvalidCharacters } else { error }
}
