//! Regular expressions in RE2's syntax, which is what Istio and Envoy speak.

use maille_re2::translate;

use super::findings::{Problem, Verdict};

/// Istio's limit; Envoy is told to take whatever fits in it.
const MAX_LENGTH: usize = 1024;

/// A regular expression that Envoy will compile.
pub(super) fn check(pattern: &str) -> Verdict {
    if pattern.is_empty() {
        return Err(Problem::new("the regular expression is empty").hint("write `.*` to match everything"));
    }
    if pattern.len() > MAX_LENGTH {
        let problem = format!("the regular expression has {} bytes, at most {MAX_LENGTH} are allowed", pattern.len());
        return Err(problem.into());
    }
    translate(pattern).and_then(|pattern| regex::Regex::new(&pattern).map_err(reason)).map(|_| ()).map_err(|reason| {
        Problem::new(format!("`{pattern}` is not a regular expression: {reason}"))
            .hint("the syntax is RE2's: no look-around, no back-references")
    })
}

/// The last line of the crate's drawing of what is wrong.
fn reason(error: regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}
