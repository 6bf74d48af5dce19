//! Paths: a path in its form is left alone, has no dot segments in any spelling, and its query is never touched.

use maille_http::path::{EscapedSlashes, Outcome, PathRules};

use super::{Answer, ensure};

/// What paths are made of.
pub(super) const WORDS: &[&[u8]] = &[
    b"/",
    b"//",
    b"/./",
    b"/../",
    b"..",
    b".",
    b"%2e",
    b"%2E%2e",
    b"%2f",
    b"%2F",
    b"%5c",
    b"%5C",
    b"\\",
    b"\\..\\",
    b"%25",
    b"%252f",
    b"%00",
    b"%",
    b"%2",
    b"%%",
    b"%61",
    b"%c3%a9",
    b"\xc3\xa9",
    b";",
    b";a=b/",
    b"..;/",
    b".;/",
    b"?",
    b"#",
    b"?/../x",
    b"\"",
    b"{",
    b"^",
    b"\0",
    b" ",
    b"%zz",
    b"%66",
    b"%32%66",
];

/// Applies every combination of rules.
pub(super) fn check(input: &[u8]) -> Answer {
    use EscapedSlashes::{Keep, Reject, UnescapeAndForward, UnescapeAndRedirect};
    let mut kind = String::new();
    for (normalize, merge_slashes) in [(false, false), (false, true), (true, false), (true, true)] {
        for escaped_slashes in [Keep, Reject, UnescapeAndRedirect, UnescapeAndForward] {
            let rules = PathRules { normalize, merge_slashes, escaped_slashes };
            let (path, redirect) = match rules.apply(input) {
                Outcome::Continue(path) => (path.into_owned(), false),
                Outcome::Redirect(path) => (path, true),
                Outcome::Reject => {
                    kind += "-";
                    continue;
                }
            };
            kind += if path == input { "=" } else { "+" };
            let told = || format!("{rules:?} make \"{}\" of it", path.escape_ascii());
            let again = rules.apply(&path);
            ensure(again == Outcome::Continue(path.as_slice().into()), || format!("{}, then {again:?}", told()))?;
            ensure(query(&path) == query(input), || format!("{}: another query", told()))?;
            ensure(!redirect || escaped_slashes == UnescapeAndRedirect, told)?;
            form(&path[..path.len() - query(&path).len()], rules).map_err(|what| format!("{}: {what}", told()))?;
        }
    }
    Ok(kind)
}

fn query(path: &[u8]) -> &[u8] {
    path.iter().position(|&b| b == b'?').map_or(b"", |at| &path[at..])
}

/// Reads a path in its form once more, escapes and all.
fn form(path: &[u8], rules: PathRules) -> Result<(), String> {
    let has = |wanted: &[u8]| path.to_ascii_lowercase().windows(wanted.len()).any(|window| window == wanted);
    ensure(!rules.merge_slashes || !has(b"//"), || "slashes are not merged".into())?;
    let keeps = rules.escaped_slashes == EscapedSlashes::Keep;
    ensure(keeps || !(has(b"%2f") || has(b"%5c")), || "an escaped slash is left".into())?;
    if !rules.normalize {
        return Ok(());
    }
    ensure(path.first() == Some(&b'/'), || "it does not begin with a slash".into())?;
    ensure(path.iter().all(|b| matches!(b, b'!'..=b'~') && *b != b'\\'), || "a character no path has".into())?;
    for segment in path.split(|&b| b == b'/') {
        let text = String::from_utf8_lossy(segment).to_ascii_lowercase().replace("%2e", ".");
        let name = text.split(';').next().unwrap_or_default();
        ensure(name != "." && name != "..", || format!("the segment {text:?}"))?;
    }
    Ok(())
}
