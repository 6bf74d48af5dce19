//! Access logs.

use std::sync::Arc;

use maille_http::Name;
use maille_telemetry::format::{Format, JsonFormat};

/// One access log.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// Where lines go.
    pub sink: LogSink,
    /// What a line says.
    pub format: Arc<LogFormat>,
    /// What is logged; `None` is everything.
    pub filter: Option<LogFilter>,
}

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LogSink {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to.
    File(Arc<str>),
}

/// What a log line says.
#[derive(Clone, Debug)]
pub enum LogFormat {
    /// Text with operators.
    Text(Format<Name>),
    /// A JSON object a line.
    Json(JsonFormat<Name>),
}

/// What is logged.
#[derive(Clone, Debug, PartialEq)]
pub enum LogFilter {
    /// Requests or connections with one of these response flags; with any at all when empty.
    ResponseFlags(Vec<Box<str>>),
    /// By status code.
    Status(Compare, u32),
    /// By duration in milliseconds.
    DurationMs(Compare, u32),
    /// What is not a health check.
    NotHealthCheck,
    /// When one of them holds.
    Or(Vec<LogFilter>),
    /// When all of them hold.
    And(Vec<LogFilter>),
}

/// A comparison with a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are the operators")]
pub enum Compare {
    Equal,
    NotEqual,
    AtLeast,
    AtMost,
}

impl Compare {
    /// Whether `value` compares so with `constant`.
    pub fn holds(self, value: u64, constant: u64) -> bool {
        match self {
            Compare::Equal => value == constant,
            Compare::NotEqual => value != constant,
            Compare::AtLeast => value >= constant,
            Compare::AtMost => value <= constant,
        }
    }
}
