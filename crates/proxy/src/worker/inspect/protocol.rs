//! Which HTTP a connection begins with.

/// What every HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// No request line that is looked at is longer.
const LINE: usize = 8 * 1024;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// Not enough to tell.
    More,
    /// This HTTP, by the name that filter chains have for it.
    Http(&'static str),
    /// Something else.
    Other,
}

/// Looks at the first bytes of a connection.
pub(super) fn of(bytes: &[u8]) -> Parsed {
    if bytes.iter().zip(PREFACE).all(|(a, b)| a == b) {
        return if bytes.len() < PREFACE.len() { Parsed::More } else { Parsed::Http("h2c") };
    }
    // Empty lines before a request are no part of it.
    let skipped = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let bytes = &bytes[skipped.min(4)..];
    let end = bytes.iter().take(LINE).position(|byte| *byte == b'\n');
    let line = &bytes[..end.unwrap_or(bytes.len())];
    // However much of the line has come, it is judged alike: where the network cuts it says nothing about it.
    let is_method = |byte: &u8| byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_');
    let method = line.iter().take_while(|byte| is_method(byte)).count();
    let text = line.iter().all(|byte| *byte >= 0x20 && *byte != 0x7f || matches!(byte, b'\r' | b'\t'));
    if !text || method > 32 || line.get(method).is_some_and(|byte| method == 0 || *byte != b' ') {
        return Parsed::Other;
    }
    if end.is_none() {
        return if line.len() < LINE { Parsed::More } else { Parsed::Other };
    }
    // Whoever reads the request takes blanks behind it for nothing, and must be the one who gets it.
    let line = line.strip_suffix(b"\r").unwrap_or(line).trim_ascii_end();
    let mut words = line.split(|byte| *byte == b' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(method), Some(target), Some(version), None) if !method.is_empty() && !target.is_empty() => {
            match version {
                b"HTTP/1.1" => Parsed::Http("http/1.1"),
                b"HTTP/1.0" => Parsed::Http("http/1.0"),
                _ => Parsed::Other,
            }
        }
        _ => Parsed::Other,
    }
}

/// The name of what a connection begins with; nothing while that cannot be told.
#[cfg(feature = "fuzzing")]
pub(crate) fn name_of(bytes: &[u8]) -> Option<&'static str> {
    match of(bytes) {
        Parsed::More => None,
        Parsed::Http(name) => Some(name),
        Parsed::Other => Some(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_connections_begin_with() {
        for (bytes, expected) in [
            (&b""[..], Parsed::More),
            (b"G", Parsed::More),
            (b"GET /", Parsed::More),
            (b"GET / HTTP/1.1\r", Parsed::More),
            (b"GET / HTTP/1.1 \t\r\n", Parsed::Http("http/1.1")),
            (b"GET /\tHTTP/1.1\r\n", Parsed::Other),
            (b"GET\xa9", Parsed::Other),
            (b"GET\xa9 / HTTP/1.0\r\n", Parsed::Other),
            (b"GET /\x01 HTTP/1.1\r\n", Parsed::Other),
            (b" / HTTP/1.1\r\n", Parsed::Other),
            (b"GET / HTTP/1.1\r\n", Parsed::Http("http/1.1")),
            (b"GET / HTTP/1.1\nHost: a\n", Parsed::Http("http/1.1")),
            (b"M-SEARCH * HTTP/1.0\r\n", Parsed::Http("http/1.0")),
            (b"\r\nGET / HTTP/1.1\r\n", Parsed::Http("http/1.1")),
            (b"PRI", Parsed::More),
            (b"PRI * HTTP/2.0\r\n\r\nSM", Parsed::More),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Parsed::Http("h2c")),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\nX", Parsed::Other),
            (b"PUT ", Parsed::More),
            (b"GET /\r\n", Parsed::Other),
            (b"GET / HTTP/0.9\r\n", Parsed::Other),
            (b"GET  / HTTP/1.1\r\n", Parsed::Other),
            (b"*1\r\n$4\r\nPING\r\n", Parsed::Other),
            (b"\x16\x03\x01", Parsed::Other),
            (b"\0", Parsed::Other),
            (b"EHLO mail.example\r\n", Parsed::Other),
            (b"GET\0/", Parsed::Other),
            (b"(", Parsed::Other),
        ] {
            assert_eq!(of(bytes), expected, "{:?}", bytes.escape_ascii().to_string());
        }
        assert_eq!(of(&[&b"GET /"[..], &[b'a'; LINE]].concat()), Parsed::Other, "a line without an end");
        assert_eq!(of(&[b'A'; 33]), Parsed::Other, "a method without an end");
    }
}
