//! Points in time as text: Envoy's `%START_TIME(FORMAT)%`, in UTC, without a time zone database.

use std::time::{SystemTime, UNIX_EPOCH};

/// A format of points in time, in the manner of strftime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeFormat {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Year,
    Month,
    Day,
    DayPadded,
    DayOfYear,
    Hour,
    Hour12,
    Minute,
    Second,
    Weekday,
    MonthName,
    AmPm,
    UnixSeconds,
    /// This many digits of the fraction of a second.
    Fraction(u8),
}

/// Envoy's default: RFC 3339 with milliseconds.
const DEFAULT: &str = "%Y-%m-%dT%H:%M:%S.%3fZ";

impl TimeFormat {
    /// Compiles a format; the default when it is empty.
    pub fn parse(format: &str) -> Result<TimeFormat, String> {
        let mut pieces = Vec::new();
        let mut rest = if format.is_empty() { DEFAULT } else { format };
        while let Some((before, after)) = rest.split_once('%') {
            text(&mut pieces, before);
            let mut chars = after.chars();
            let c = chars.next().ok_or("the time format ends in `%`")?;
            rest = chars.as_str();
            match c {
                'Y' => pieces.push(Piece::Year),
                'm' => pieces.push(Piece::Month),
                'd' => pieces.push(Piece::Day),
                'e' => pieces.push(Piece::DayPadded),
                'j' => pieces.push(Piece::DayOfYear),
                'H' => pieces.push(Piece::Hour),
                'I' => pieces.push(Piece::Hour12),
                'M' => pieces.push(Piece::Minute),
                'S' => pieces.push(Piece::Second),
                'a' => pieces.push(Piece::Weekday),
                'b' | 'h' => pieces.push(Piece::MonthName),
                'p' => pieces.push(Piece::AmPm),
                's' => pieces.push(Piece::UnixSeconds),
                'F' => pieces.extend(TimeFormat::parse("%Y-%m-%d")?.pieces),
                'T' => pieces.extend(TimeFormat::parse("%H:%M:%S")?.pieces),
                'Z' => text(&mut pieces, "UTC"),
                'z' => text(&mut pieces, "+0000"),
                '%' => text(&mut pieces, "%"),
                'f' => pieces.push(Piece::Fraction(9)),
                '1'..='9' if rest.starts_with('f') => {
                    pieces.push(Piece::Fraction(c as u8 - b'0'));
                    rest = &rest[1..];
                }
                'E' if rest.len() >= 2 && rest.as_bytes()[0].is_ascii_digit() && rest.as_bytes()[1] == b'S' => {
                    pieces.extend([Piece::Second, Piece::Text(".".into()), Piece::Fraction(rest.as_bytes()[0] - b'0')]);
                    rest = &rest[2..];
                }
                other => return Err(format!("the time format has `%{other}`, which is not supported")),
            }
        }
        text(&mut pieces, rest);
        Ok(TimeFormat { pieces })
    }

    /// Appends a point in time; what was before 1970 is 1970.
    pub fn write(&self, time: SystemTime, out: &mut Vec<u8>) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (seconds, nanos) = (since.as_secs(), since.subsec_nanos());
        let date = Date::of(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Year => digits(out, date.year, 4, b'0'),
                Piece::Month => digits(out, date.month, 2, b'0'),
                Piece::Day => digits(out, date.day, 2, b'0'),
                Piece::DayPadded => digits(out, date.day, 2, b' '),
                Piece::DayOfYear => digits(out, date.day_of_year(), 3, b'0'),
                Piece::Hour => digits(out, hour, 2, b'0'),
                Piece::Hour12 => digits(out, (hour + 11) % 12 + 1, 2, b'0'),
                Piece::Minute => digits(out, minute, 2, b'0'),
                Piece::Second => digits(out, second, 2, b'0'),
                Piece::Weekday => {
                    let at = (seconds / 86_400 % 7) as usize * 3;
                    out.extend_from_slice(&b"ThuFriSatSunMonTueWed"[at..at + 3]);
                }
                Piece::MonthName => {
                    let at = (date.month as usize - 1) * 3;
                    out.extend_from_slice(&b"JanFebMarAprMayJunJulAugSepOctNovDec"[at..at + 3]);
                }
                Piece::AmPm => out.extend_from_slice(if hour < 12 { b"AM" } else { b"PM" }),
                Piece::UnixSeconds => digits(out, seconds, 1, b'0'),
                Piece::Fraction(n) => {
                    let value = u64::from(nanos) / 10u64.pow(9 - u32::from(*n).min(9));
                    digits(out, value, usize::from(*n), b'0');
                }
            }
        }
    }
}

fn text(pieces: &mut Vec<Piece>, more: &str) {
    match pieces.last_mut() {
        _ if more.is_empty() => {}
        Some(Piece::Text(last)) => *last = format!("{last}{more}").into(),
        _ => pieces.push(Piece::Text(more.into())),
    }
}

/// Appends a number in decimal, padded to a width.
fn digits(out: &mut Vec<u8>, mut value: u64, width: usize, pad: u8) {
    let mut buffer = [pad; 20];
    let mut at = buffer.len();
    while value > 0 || at == buffer.len() {
        at -= 1;
        buffer[at] = b'0' + (value % 10) as u8;
        value /= 10;
    }
    out.extend_from_slice(&buffer[at.min(buffer.len().saturating_sub(width))..]);
}

/// A date of the Gregorian calendar.
struct Date {
    year: u64,
    month: u64,
    day: u64,
}

impl Date {
    /// From days since 1970-01-01. Years begin in March here, so that the leap day is a year's last.
    fn of(days: u64) -> Date {
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        Date {
            year: year_of_era + era * 400 + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * shifted + 2) / 5 + 1,
        }
    }

    fn day_of_year(&self) -> u64 {
        let leap = self.year.is_multiple_of(4) && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400));
        let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334][self.month as usize - 1];
        before + self.day + u64::from(leap && self.month > 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn formats() {
        let at = |s, ns| UNIX_EPOCH + Duration::new(s, ns);
        for (format, time, expected) in [
            ("", at(0, 0), "1970-01-01T00:00:00.000Z"),
            ("", at(1_709_210_096, 7_000_000), "2024-02-29T12:34:56.007Z"),
            ("%Y/%m/%dT%H:%M:%S%z %s", at(951_782_400, 0), "2000/02/29T00:00:00+0000 951782400"),
            ("%s.%3f.%6f.%f", at(12, 123_456_789), "12.123.123456.123456789"),
            ("%E3S %F %T %%", at(4_102_444_799, 999_999_999), "59.999 2099-12-31 23:59:59 %"),
            ("%a %b %e %j %I%p", at(1_709_210_096, 0), "Thu Feb 29 060 12PM"),
            ("%a %j", at(1_735_603_200, 0), "Tue 366"),
        ] {
            let mut out = Vec::new();
            TimeFormat::parse(format).unwrap().write(time, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{format}");
        }
        assert!(TimeFormat::parse("%Q").is_err());
        assert!(TimeFormat::parse("50%").is_err());
    }
}
