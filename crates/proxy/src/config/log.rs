//! Access logs.

use std::sync::Arc;

use maille_http::Name;
use maille_telemetry::flags::ResponseFlags;
use maille_telemetry::format::{Escape, Format, JsonFormat};
use maille_telemetry::log::Target;

use crate::headers::{LogValues, StreamInfo};

/// One access log.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// Where lines go.
    pub target: Target,
    /// What a line says.
    pub format: Arc<LogFormat>,
    /// What is logged; `None` is everything.
    pub filter: Option<LogFilter>,
}

impl AccessLog {
    /// Whether something that ended so is logged.
    pub fn wants(&self, stream: &StreamInfo<'_>) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.holds(stream))
    }

    /// Appends the line.
    pub fn write(&self, values: &LogValues<'_>, out: &mut Vec<u8>) {
        match &*self.format {
            LogFormat::Text(format) => format.write(values, b"-", Escape::Line, out),
            LogFormat::Json(format) => {
                format.write(values, out);
                out.push(b'\n');
            }
        }
    }
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
    /// Requests or connections with one of these response flags; `None` is with any at all.
    ResponseFlags(Option<ResponseFlags>),
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

impl LogFilter {
    fn holds(&self, stream: &StreamInfo<'_>) -> bool {
        match self {
            LogFilter::ResponseFlags(None) => !stream.response_flags.is_empty(),
            LogFilter::ResponseFlags(Some(flags)) => stream.response_flags.has(*flags),
            LogFilter::Status(compare, value) => compare.holds(stream.response_code.into(), (*value).into()),
            LogFilter::DurationMs(compare, value) => compare.holds(stream.duration.as_millis() as u64, (*value).into()),
            // Nothing here takes a request for a health check.
            LogFilter::NotHealthCheck => true,
            LogFilter::Or(filters) => filters.iter().any(|filter| filter.holds(stream)),
            LogFilter::And(filters) => filters.iter().all(|filter| filter.holds(stream)),
        }
    }
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
