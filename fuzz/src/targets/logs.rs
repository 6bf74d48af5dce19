//! Logs: whatever a client sends, a line stays one line, and its parts stay where they were.

use maille_telemetry::format::{Escape, Format, JsonFormat, Operator, Values};

use super::{Answer, ensure};

/// What log lines and formats are made of.
pub(super) const WORDS: &[&[u8]] = &[
    b"\n",
    b"\r\n",
    b"\"",
    b"\\",
    b"\\\"",
    b"\\x0a",
    b"\\u000a",
    b"\x1b[2J",
    b"\x7f",
    b"\xff",
    b"\xc3\xa9",
    b"\xe2\x80\xa8",
    b"\xed\xa0\x80",
    b"%",
    b"%REQ(X)%",
    b"%REQ(",
    b")%",
    b"%%",
    b":",
    b"?",
    b"%RESPONSE_CODE%",
    b"%START_TIME(%s)%",
    b"\0",
];

struct Sent<'a>(&'a [u8]);

impl Values<String> for Sent<'_> {
    fn write(&self, _: &Operator<String>, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(self.0);
        true
    }
}

/// Takes the input for a value of each kind of log, and for a format.
pub(super) fn check(input: &[u8]) -> Answer {
    let format = parse("%REQ(X)%").map_err(|error| format!("the format is refused: {error}"))?;
    let mut line = Vec::new();
    format.write(&Sent(input), b"-", Escape::Line, &mut line);
    let told = || format!("\"{}\"", line.escape_ascii());
    ensure(!line.iter().any(|b| *b < 0x20 || *b == 0x7f), || format!("a control character in {}", told()))?;
    ensure(unescaped(&line).as_deref() == Some(input), || format!("another text from {}", told()))?;

    let shape = serde_json::json!({"a": "%REQ(X)%", "b": "<%REQ(X)%>"});
    let format = JsonFormat::parse(&shape, false, str::to_owned).map_err(|error| error.to_string())?;
    let mut json = Vec::new();
    format.write(&Sent(input), &mut json);
    let got: serde_json::Value =
        serde_json::from_slice(&json).map_err(|error| format!("no JSON: \"{}\": {error}", json.escape_ascii()))?;
    ensure(got.as_object().is_some_and(|fields| fields.len() == 2), || format!("other fields: {got}"))?;
    if let Ok(text) = std::str::from_utf8(input) {
        ensure(got["b"] == format!("<{text}>"), || format!("another text: {got}"))?;
    }

    let text = String::from_utf8_lossy(input);
    Ok(match parse(&text) {
        Ok(format) => format!("{} {}", format.operators().count().min(4), line.len() == input.len()),
        Err(error) => error.split([' ', '[', '(']).take(2).collect(),
    })
}

fn parse(text: &str) -> Result<Format<String>, String> {
    Format::parse(text, str::to_owned).map_err(|error| error.to_string())
}

/// What stood in a line before it was escaped.
fn unescaped(line: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut rest) = (Vec::new(), line);
    while let Some((&b, after)) = rest.split_first() {
        rest = match (b, after) {
            (b'\\', [b'x', digits @ ..]) => {
                let text = std::str::from_utf8(digits.get(..2)?).ok()?;
                out.push(u8::from_str_radix(text, 16).ok()?);
                &digits[2..]
            }
            (b'\\', [c @ (b'"' | b'\\'), after @ ..]) => {
                out.push(*c);
                after
            }
            (b'\\' | b'"', _) => return None,
            _ => {
                out.push(b);
                after
            }
        };
    }
    Some(out)
}
