//! Durations as Istio's API writes them: Go's syntax going in, protobuf's coming out.

use std::fmt;
use std::str::FromStr;

use crate::message::newtype_text;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const NANOS_PER_SECOND: i128 = 1_000_000_000;
/// Protobuf's limit: ten thousand years.
const MAX_SECONDS: i128 = 315_576_000_000;

/// A span of time, exact to the nanosecond; may be negative, which validation refuses where it makes no sense.
///
/// ```
/// # use maille_api::Duration;
/// assert_eq!("1m30.5s".parse::<Duration>().unwrap().to_string(), "90.500s");
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Duration {
    // Field order makes the derived order the order in time: both have the same sign.
    seconds: i64,
    nanos: i32,
}

impl Duration {
    pub(crate) const TYPE_NAME: &'static str = "Duration";

    /// No time at all.
    pub const ZERO: Duration = Duration { seconds: 0, nanos: 0 };

    /// So many seconds.
    pub const fn from_secs(seconds: i64) -> Duration {
        Duration { seconds, nanos: 0 }
    }

    /// So many milliseconds.
    pub const fn from_millis(millis: i64) -> Duration {
        Duration { seconds: millis / 1000, nanos: (millis % 1000) as i32 * 1_000_000 }
    }

    /// So many nanoseconds, if protobuf can say it.
    pub fn from_nanos(nanos: i128) -> Option<Duration> {
        let (seconds, rest) = (nanos / NANOS_PER_SECOND, nanos % NANOS_PER_SECOND);
        (seconds.abs() <= MAX_SECONDS).then_some(Duration { seconds: seconds as i64, nanos: rest as i32 })
    }

    /// The whole seconds; negative if the duration is.
    pub const fn seconds(self) -> i64 {
        self.seconds
    }

    /// What is left beside the whole seconds; has their sign.
    pub const fn subsec_nanos(self) -> i32 {
        self.nanos
    }

    /// The whole of it in nanoseconds.
    pub const fn as_nanos(self) -> i128 {
        self.seconds as i128 * NANOS_PER_SECOND + self.nanos as i128
    }

    /// The whole of it in milliseconds, rounded towards zero.
    pub const fn as_millis(self) -> i128 {
        self.as_nanos() / 1_000_000
    }

    /// Whether it is below zero.
    pub const fn is_negative(self) -> bool {
        self.seconds < 0 || self.nanos < 0
    }

    /// Whether it is no time at all.
    pub const fn is_zero(self) -> bool {
        self.seconds == 0 && self.nanos == 0
    }

    /// As the standard library's duration, which cannot be negative.
    pub fn to_std(self) -> Option<std::time::Duration> {
        Some(std::time::Duration::new(self.seconds.try_into().ok()?, self.nanos.try_into().ok()?))
    }
}

/// Why a text is not a duration.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ParseDurationError {
    /// A number without a unit.
    #[error("a duration needs a unit: `{0}s` would be seconds")]
    NoUnit(String),
    /// A unit nobody knows.
    #[error("`{0}` is no unit of time; known are h, m, s, ms, us and ns")]
    UnknownUnit(String),
    /// Not even a number.
    #[error("this is not a duration; one is written like 5s, 1.5s, 300ms or 1h30m")]
    Syntax,
    /// Longer than protobuf can say.
    #[error("this is more than the longest duration there can be, {MAX_SECONDS}s")]
    TooLong,
}

impl FromStr for Duration {
    type Err = ParseDurationError;

    /// Go's `time.ParseDuration`, whose syntax has protobuf's as a part.
    fn from_str(text: &str) -> Result<Self, ParseDurationError> {
        let (negative, mut rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        if rest == "0" {
            return Ok(Duration::ZERO);
        }
        if rest.is_empty() {
            return Err(ParseDurationError::Syntax);
        }
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let (nanos, after) = term(text, rest)?;
            total = total.checked_add(nanos).ok_or(ParseDurationError::TooLong)?;
            rest = after;
        }
        Duration::from_nanos(if negative { -total } else { total }).ok_or(ParseDurationError::TooLong)
    }
}

/// One number and its unit, as nanoseconds, and what follows them.
fn term<'a>(whole_text: &str, text: &'a str) -> Result<(i128, &'a str), ParseDurationError> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(ParseDurationError::Syntax);
    }
    let end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(end);
    let scale: i128 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => NANOS_PER_SECOND,
        "m" => 60 * NANOS_PER_SECOND,
        "h" => 3600 * NANOS_PER_SECOND,
        "" => return Err(ParseDurationError::NoUnit(whole_text.to_owned())),
        _ => return Err(ParseDurationError::UnknownUnit(unit.to_owned())),
    };
    let number = |digits: &str| match digits {
        "" => Ok(0),
        digits => digits.parse::<i128>().map_err(|_| ParseDurationError::TooLong),
    };
    let whole = number(whole)?.checked_mul(scale).ok_or(ParseDurationError::TooLong)?;
    // Beyond eighteen digits a fraction is less than a nanosecond, whatever its unit.
    let fraction = &fraction[..fraction.len().min(18)];
    let part = number(fraction)? * scale / 10i128.pow(fraction.len() as u32);
    Ok((whole + part, rest))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

impl fmt::Display for Duration {
    /// Protobuf's JSON form: seconds with 0, 3, 6 or 9 digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.seconds.unsigned_abs(), self.nanos.unsigned_abs());
        let sign = if self.is_negative() { "-" } else { "" };
        match nanos {
            0 => write!(f, "{sign}{seconds}s"),
            n if n % 1_000_000 == 0 => write!(f, "{sign}{seconds}.{:03}s", n / 1_000_000),
            n if n % 1_000 == 0 => write!(f, "{sign}{seconds}.{:06}s", n / 1_000),
            n => write!(f, "{sign}{seconds}.{n:09}s"),
        }
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = newtype_text(deserializer, Self::TYPE_NAME)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_and_print_as_protobuf() {
        for (text, printed) in [
            ("5s", "5s"),
            ("1.5s", "1.500s"),
            ("30ms", "0.030s"),
            ("5m", "300s"),
            ("1h2m", "3720s"),
            ("1h15m30.918s", "4530.918s"),
            ("-2s", "-2s"),
            ("-0.5s", "-0.500s"),
            ("+1s", "1s"),
            ("0", "0s"),
            (".5s", "0.500s"),
            ("1.s", "1s"),
            ("10us", "0.000010s"),
            ("10µs", "0.000010s"),
            ("7ns", "0.000000007s"),
            ("0.3333333333333333333h", "1199.999999999s"),
            ("315576000000s", "315576000000s"),
        ] {
            assert_eq!(text.parse::<Duration>().map(|d| d.to_string()), Ok(printed.to_owned()), "{text}");
            assert_eq!(printed.parse::<Duration>(), text.parse::<Duration>());
        }
    }

    #[test]
    fn what_is_no_duration_says_why() {
        for (text, error) in [
            ("", ParseDurationError::Syntax),
            ("s", ParseDurationError::Syntax),
            (".s", ParseDurationError::Syntax),
            ("5", ParseDurationError::NoUnit("5".into())),
            ("1m5", ParseDurationError::NoUnit("1m5".into())),
            ("5 s", ParseDurationError::UnknownUnit(" s".into())),
            ("3d", ParseDurationError::UnknownUnit("d".into())),
            ("315576000001s", ParseDurationError::TooLong),
            ("999999999999999999999999999999999999999999s", ParseDurationError::TooLong),
        ] {
            assert_eq!(text.parse::<Duration>(), Err(error), "{text}");
        }
    }

    #[test]
    fn durations_order_in_time() {
        let mut sorted = ["1s", "-1s", "0.5s", "-0.5s", "0"].map(|text| text.parse::<Duration>().unwrap());
        sorted.sort();
        assert_eq!(sorted.map(|d| d.to_string()), ["-1s", "-0.500s", "0s", "0.500s", "1s"]);
    }
}
