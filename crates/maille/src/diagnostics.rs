//! Findings as compilers print them, with colours, and as JSON.

use maille_api::{Diagnostic, Severity};
use owo_colors::{OwoColorize, Style};
use serde_json::{Value, json};

/// The text of a finding. Its plain form is the finding's own [`std::fmt::Display`].
pub(crate) fn coloured(diagnostic: &Diagnostic) -> String {
    let style = match diagnostic.severity {
        Severity::Error => Style::new().red().bold(),
        Severity::Warning => Style::new().yellow().bold(),
        Severity::Note => Style::new().cyan().bold(),
    };
    let plain = diagnostic.to_string();
    let mut lines = plain.lines();
    let mut text = String::new();
    if let Some(first) = lines.next() {
        let word = format!("{}: ", diagnostic.severity);
        match first.split_once(&word) {
            Some((place, message)) => {
                text += &format!("{}{} {}", place.bold(), word.trim_end().style(style), message.bold())
            }
            None => text += first,
        }
    }
    for line in lines {
        let is_marker = line.trim_end().ends_with('^') && line.contains(" | ");
        text += &if is_marker { format!("\n{}", line.style(style)) } else { format!("\n{line}") };
    }
    text
}

/// A finding for programs.
pub(crate) fn to_json(diagnostic: &Diagnostic) -> Value {
    json!({
        "severity": diagnostic.severity.to_string(),
        "file": &*diagnostic.file,
        "line": diagnostic.line,
        "column": diagnostic.column,
        "endColumn": diagnostic.end_column,
        "resource": diagnostic.resource,
        "message": diagnostic.message,
        "hint": diagnostic.hint,
    })
}

/// `1 error, 2 warnings`; nothing when there is nothing to count.
pub(crate) fn count(diagnostics: &[Diagnostic]) -> Option<String> {
    let of = |severity| diagnostics.iter().filter(|d| d.severity == severity).count();
    let words = [(of(Severity::Error), "error"), (of(Severity::Warning), "warning")];
    let words: Vec<_> = words.into_iter().filter(|(n, _)| *n > 0).map(|(n, word)| plural(n, word)).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// `1 file`, `2 files`
pub(crate) fn plural(n: usize, word: &str) -> String {
    format!("{n} {word}{}", if n == 1 { "" } else { "s" })
}
