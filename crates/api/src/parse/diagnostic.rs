//! What is wrong, and where: printed as compilers print it.

use std::fmt;
use std::sync::Arc;

use super::tree::{File, Span};

/// How much of a line is shown.
const MAX_EXCERPT: usize = 160;
/// How much of a message is shown; it may quote a value of any length.
const MAX_TEXT: usize = 1000;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// Worth knowing; everything works.
    Note,
    /// Accepted, but hardly what was meant.
    Warning,
    /// The resource is not used.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// One finding about a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file, as it was named to us.
    pub file: Arc<str>,
    /// The line, counted from 1; 0 when the finding is about the file as a whole.
    pub line: usize,
    /// The column, counted from 1.
    pub column: usize,
    /// The first column after it; at least `column + 1`.
    pub end_column: usize,
    /// What is wrong.
    pub message: String,
    /// The text of the line; empty where it must not be shown.
    pub source_line: String,
    /// The resource, such as `VirtualService default/reviews`, as far as it can be told.
    pub resource: Option<String>,
    /// What would be right.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// A finding about a file as a whole.
    pub fn about_file(severity: Severity, file: impl Into<Arc<str>>, message: impl Into<String>) -> Self {
        Diagnostic {
            severity,
            file: file.into(),
            line: 0,
            column: 0,
            end_column: 0,
            message: message.into(),
            source_line: String::new(),
            resource: None,
            hint: None,
        }
    }

    pub(crate) fn at(severity: Severity, file: &File, span: Span, message: impl Into<String>) -> Self {
        let source_line = file.line(span.start.line).to_owned();
        let end_of_line = source_line.trim_end().chars().count() + 1;
        let end = if span.end.line == span.start.line { span.end.column } else { end_of_line };
        Diagnostic {
            severity,
            file: file.origin.clone(),
            line: span.start.line,
            column: span.start.column,
            end_column: end.min(end_of_line).max(span.start.column + 1),
            message: message.into(),
            source_line,
            resource: None,
            hint: None,
        }
    }

    /// Whether the resource is not used because of it.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: ", printable(&self.file))?,
            line => write!(f, "{}:{line}:{}: ", printable(&self.file), self.column)?,
        }
        write!(f, "{}: ", self.severity)?;
        if let Some(resource) = &self.resource {
            write!(f, "{}: ", printable(resource))?;
        }
        write!(f, "{}", printable(&self.message))?;
        if !self.source_line.is_empty() {
            self.excerpt(f)?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  = hint: {}", printable(hint))?;
        }
        Ok(())
    }
}

impl Diagnostic {
    /// The line with carets below; of a long line, the part around them.
    fn excerpt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = self.column.saturating_sub(1);
        let skipped = if column > MAX_EXCERPT / 2 { column - MAX_EXCERPT / 4 } else { 0 };
        let part: String = self.source_line.trim_end().chars().skip(skipped).take(MAX_EXCERPT).collect();
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        let dots = if skipped > 0 { "…" } else { "" };
        writeln!(f, "\n{number} | {dots}{}", printable(&part))?;
        // Tabs stay tabs, so that the carets stand where the text does.
        let before = dots.chars().chain(part.chars().take(column - skipped));
        let indent: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let width =
            self.end_column.saturating_sub(self.column).clamp(1, MAX_EXCERPT - (column - skipped).min(MAX_EXCERPT - 1));
        write!(f, "{gutter} | {indent}{}", "^".repeat(width))
    }
}

/// What comes from a file must neither steer the terminal, nor turn the reading direction, nor fill the screen.
fn printable(text: &str) -> String {
    let shown = |c: char| match c {
        '\t' | '\n' => c,
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    match text.char_indices().nth(MAX_TEXT) {
        None => text.chars().map(shown).collect(),
        // Messages end in what is expected, so the end is shown, too.
        Some(_) => {
            let tail = text.char_indices().nth_back(MAX_TEXT / 4 - 1).map_or(0, |(at, _)| at);
            let head = text.chars().take(MAX_TEXT / 2);
            head.chain(['…']).chain(text[tail..].chars()).map(shown).collect()
        }
    }
}
