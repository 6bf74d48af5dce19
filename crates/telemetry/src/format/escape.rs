//! Keeps values from breaking out of the text they are written into.

/// How values are escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// Not at all: the caller takes care of it.
    None,
    /// For a line of text: control characters as `\xNN`, quotes and backslashes with a backslash.
    Line,
    /// For the inside of a JSON string; bytes that are not UTF-8 as `\u00NN`.
    Json,
}

impl Escape {
    /// Escapes `out[start..]` where it stands.
    pub(crate) fn from(self, out: &mut Vec<u8>, start: usize) {
        let Some(value) = out.get(start..) else { return };
        let clean = match self {
            Escape::None => true,
            Escape::Line => value.iter().all(|b| !is_special(*b)),
            Escape::Json => value.iter().all(|b| !is_special(*b) && b.is_ascii()) || is_clean_utf8(value),
        };
        if !clean {
            self.rewrite(out, start);
        }
    }

    /// The rare case, and the only one that allocates: somebody sent what is not plain text.
    #[cold]
    fn rewrite(self, out: &mut Vec<u8>, start: usize) {
        let value = out.split_off(start);
        for chunk in value.utf8_chunks() {
            for b in chunk.valid().bytes() {
                match (self, b) {
                    (_, b'"' | b'\\') => out.extend_from_slice(&[b'\\', b]),
                    (_, b) if !is_special(b) => out.push(b),
                    (Escape::Json, b) => push_hex(out, b"\\u00", b),
                    (_, b) => push_hex(out, b"\\x", b),
                }
            }
            for &b in chunk.invalid() {
                push_hex(out, if self == Escape::Json { b"\\u00" } else { b"\\x" }, b);
            }
        }
    }
}

fn is_special(b: u8) -> bool {
    b < 0x20 || matches!(b, b'"' | b'\\' | 0x7f)
}

fn is_clean_utf8(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok() && value.iter().all(|b| !is_special(*b))
}

fn push_hex(out: &mut Vec<u8>, prefix: &[u8], b: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(prefix);
    out.extend_from_slice(&[DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]);
}
