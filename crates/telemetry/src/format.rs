//! Envoy's command operators (`%REQ(:METHOD)%`, `%RESPONSE_CODE%`, …): parsed once, then written into the caller's buffer.
//!
//! Access logs and header values share them. Where the values come from is [`Values`]' business; `N` is how the caller
//! likes to hold the name of a header.

mod escape;
mod json;
mod operator;
mod parse;

pub use escape::Escape;
pub use json::JsonFormat;
pub use operator::{Field, HeaderPair, Operator, PathOption};
pub use parse::FormatError;

/// Where operators find their values.
pub trait Values<N> {
    /// Appends what an operator stands for; `false`, and nothing appended, when there is no such value.
    fn write(&self, operator: &Operator<N>, out: &mut Vec<u8>) -> bool;
}

/// A text with operators.
#[derive(Clone, Debug, PartialEq)]
pub struct Format<N> {
    parts: Vec<Part<N>>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Part<N> {
    Literal(Box<[u8]>),
    Value { operator: Operator<N>, max: Option<usize> },
}

impl<N> Format<N> {
    /// Compiles a text; `name` makes header names (given in lower case).
    pub fn parse(text: &str, mut name: impl FnMut(&str) -> N) -> Result<Format<N>, FormatError> {
        parse::parse(text, &mut name).map(|parts| Format { parts })
    }

    /// The text, when there is no operator in it.
    pub fn as_literal(&self) -> Option<&[u8]> {
        match self.parts.as_slice() {
            [] => Some(b""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The operators in it.
    pub fn operators(&self) -> impl Iterator<Item = &Operator<N>> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Value { operator, .. } => Some(operator),
        })
    }

    /// Appends the text with its values; `absent` stands for those that are missing.
    pub fn write(&self, values: &impl Values<N>, absent: &[u8], escape: Escape, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text),
                Part::Value { operator, max } => {
                    let start = out.len();
                    if values.write(operator, out) {
                        if let Some(max) = max {
                            out.truncate(start.saturating_add(*max).min(out.len()));
                        }
                        escape.from(out, start);
                    } else {
                        out.extend_from_slice(absent);
                    }
                }
            }
        }
    }

    pub(crate) fn parts(&self) -> &[Part<N>] {
        &self.parts
    }
}

/// Istio's default text format (`meshConfig.accessLogFormat` when it is empty).
pub const ISTIO_TEXT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% ",
    "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% ",
    "\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% ",
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ",
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
);

#[cfg(test)]
mod tests;
