//! What a request's cookies say.

use maille_http::{HeaderId, RequestHead};

/// The value of the first cookie of this name, without the quotes around it.
pub(crate) fn cookie<'h>(request: &'h RequestHead, name: &[u8]) -> Option<&'h [u8]> {
    let mut pairs = request.headers.all(HeaderId::Cookie).flat_map(|line| line.split(|&b| b == b';'));
    let value = pairs.find_map(|pair| {
        let at = pair.iter().position(|&b| b == b'=')?;
        (pair[..at].trim_ascii() == name).then(|| pair[at + 1..].trim_ascii())
    })?;
    Some(value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value))
}
