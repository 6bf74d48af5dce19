//! Paths brought into one form before anything matches them, so that two spellings of a path cannot get two answers.
//!
//! The form is Envoy's (`normalize_path`): dot segments resolved, `\` read as `/`, unreserved characters unescaped, characters
//! that must be escaped escaped. The order of the steps is Envoy's too: escaped slashes, then normalization, then merging.

use std::borrow::Cow;

/// What to do with paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathRules {
    /// Resolve dot segments and bring escapes into one form.
    pub normalize: bool,
    /// Read `//` as `/`.
    pub merge_slashes: bool,
    /// What `%2F` and `%5C` mean.
    pub escaped_slashes: EscapedSlashes,
}

/// What an escaped slash or backslash in a path means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// Nothing special.
    #[default]
    Keep,
    /// The request is refused.
    Reject,
    /// It becomes a slash, and the client is sent to the resulting path.
    UnescapeAndRedirect,
    /// It becomes a slash.
    UnescapeAndForward,
}

/// What became of a path.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// Go on with this path.
    Continue(Cow<'a, [u8]>),
    /// Send the client to this path.
    Redirect(Vec<u8>),
    /// Refuse the request (400, `path_normalization_failed`).
    Reject,
}

impl PathRules {
    /// Applies the rules to a path with its query; the query is never touched.
    pub fn apply<'a>(&self, path_and_query: &'a [u8]) -> Outcome<'a> {
        let mark = path_and_query.iter().position(|&b| b == b'?').unwrap_or(path_and_query.len());
        let (path, query) =
            (path_and_query.get(..mark).unwrap_or_default(), path_and_query.get(mark..).unwrap_or_default());
        if path_and_query.contains(&b'#') {
            return Outcome::Reject;
        }
        let mut now = Cow::Borrowed(path);
        let mut redirect = false;
        if self.escaped_slashes != EscapedSlashes::Keep
            && let Some(unescaped) = unescape_slashes(&now)
        {
            match self.escaped_slashes {
                EscapedSlashes::Reject => return Outcome::Reject,
                how => redirect = how == EscapedSlashes::UnescapeAndRedirect,
            }
            now = Cow::Owned(unescaped);
        }
        if self.normalize && !is_normal(&now) {
            match normalize(&now) {
                Some(normal) => now = Cow::Owned(normal),
                None => return Outcome::Reject,
            }
        }
        if self.merge_slashes && now.windows(2).any(|w| w == b"//") {
            now = Cow::Owned(merge_slashes(&now));
        }
        match now {
            Cow::Borrowed(_) => Outcome::Continue(Cow::Borrowed(path_and_query)),
            Cow::Owned(mut all) => {
                all.extend_from_slice(query);
                if redirect { Outcome::Redirect(all) } else { Outcome::Continue(Cow::Owned(all)) }
            }
        }
    }
}

fn unescape_slashes(path: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&first, after)) = rest.split_first() {
        match rest.get(..3) {
            Some(b"%2f" | b"%2F") => out.push(b'/'),
            Some(b"%5c" | b"%5C") => out.push(b'\\'),
            _ => {
                out.push(first);
                rest = after;
                continue;
            }
        }
        rest = rest.get(3..).unwrap_or_default();
    }
    (out.len() != path.len()).then_some(out)
}

fn merge_slashes(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for &b in path {
        if b != b'/' || out.last() != Some(&b'/') {
            out.push(b);
        }
    }
    out
}

/// What a character of a path needs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Pass,
    Escape,
    Special,
    Invalid,
}

static CLASS: [Class; 256] = {
    let mut table = [Class::Invalid; 256];
    let mut b = 0x21usize;
    while b < 0x7f {
        #[allow(clippy::indexing_slicing, reason = "b < 127")]
        {
            table[b] = match b as u8 {
                b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' => Class::Escape,
                b'%' | b'\\' => Class::Special,
                _ => Class::Pass,
            };
        }
        b += 1;
    }
    table
};

fn class(b: u8) -> Class {
    CLASS.get(b as usize).copied().unwrap_or(Class::Invalid)
}

/// Whether normalization would change nothing: the usual case, told in one pass without allocating.
fn is_normal(path: &[u8]) -> bool {
    let mut after_slash = false;
    for &b in path {
        if class(b) != Class::Pass || (after_slash && b == b'.') {
            return false;
        }
        after_slash = b == b'/';
    }
    path.first() == Some(&b'/')
}

/// The path in its one form; `None` when it may not be a path at all (a control character, `%00`).
fn normalize(path: &[u8]) -> Option<Vec<u8>> {
    let mut out: Vec<u8> = Vec::with_capacity(path.len() + 8);
    // Where a `%` stands that begins no escape: should what follows it decode to hex digits, it would begin one.
    let mut bare: Option<usize> = None;
    let mut rest = path.strip_prefix(b"/").or_else(|| path.strip_prefix(b"\\")).unwrap_or(path);
    out.push(b'/');
    let mut segment_start = true;
    while let Some((&b, after)) = rest.split_first() {
        if segment_start {
            segment_start = false;
            if let Some((dots, len)) = dot_segment(rest) {
                rest = rest.get(len..).unwrap_or_default();
                if dots == 2 {
                    // It goes with its segment.
                    bare = None;
                    out.pop();
                    let keep = out.iter().rposition(|&b| b == b'/').map_or(0, |at| at + 1);
                    out.truncate(keep);
                    if out.is_empty() {
                        out.push(b'/');
                    }
                }
                segment_start = true;
                continue;
            }
        }
        rest = after;
        match b {
            b'/' | b'\\' => {
                out.push(b'/');
                segment_start = true;
            }
            b'%' => match (rest.first().and_then(|b| hex(*b)), rest.get(1).and_then(|b| hex(*b))) {
                (Some(high), Some(low)) => {
                    let byte = high * 16 + low;
                    match byte {
                        0 => return None,
                        b'-' | b'.' | b'_' | b'~' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => out.push(byte),
                        _ => {
                            out.push(b'%');
                            out.extend_from_slice(rest.get(..2).unwrap_or_default());
                        }
                    }
                    rest = rest.get(2..).unwrap_or_default();
                }
                _ => {
                    bare = Some(out.len());
                    out.push(b'%');
                }
            },
            b => match class(b) {
                Class::Escape => {
                    out.push(b'%');
                    out.extend([b >> 4, b & 15].map(|n| if n < 10 { b'0' + n } else { b'A' + n - 10 }));
                }
                Class::Invalid => return None,
                _ => out.push(b),
            },
        }
        if let Some(at) = bare
            && let Some([a, b]) = out.get(at + 1..)
        {
            if hex(*a).is_some() && hex(*b).is_some() {
                out.splice(at + 1..at + 1, *b"25");
            }
            bare = None;
        }
    }
    Some(out)
}

/// A segment that is `.` or `..`, escaped or not, with or without path parameters: how many dots, and its bytes with the slash that ends it.
fn dot_segment(rest: &[u8]) -> Option<(usize, usize)> {
    let dot = |at: usize| match rest.get(at..) {
        Some([b'.', ..]) => 1,
        Some([b'%', b'2', b'e' | b'E', ..]) => 3,
        _ => 0,
    };
    let first = dot(0);
    if first == 0 {
        return None;
    }
    let second = dot(first);
    let dots = if second == 0 { 1 } else { 2 };
    let end = first + second;
    match rest.get(end) {
        None => Some((dots, end)),
        Some(b'/' | b'\\') => Some((dots, end + 1)),
        Some(b';') => {
            let slash = rest.get(end..)?.iter().position(|&b| b == b'/');
            Some((dots, slash.map_or(rest.len(), |at| end + at + 1)))
        }
        _ => None,
    }
}

fn hex(b: u8) -> Option<u8> {
    match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        b'A'..=b'F' => Some(b - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
