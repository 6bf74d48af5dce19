//! JSON access logs: the object's shape is written once, only the values are filled in per line.

use serde_json::Value;

use crate::format::{Escape, Format, FormatError, Part, Values};

/// A JSON object with operators among its strings.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonFormat<N> {
    pieces: Vec<Piece<N>>,
    omit_empty: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Piece<N> {
    Raw(Box<[u8]>),
    Value(Format<N>),
}

impl<N> JsonFormat<N> {
    /// Compiles an object. With `omit_empty`, a missing value inside a longer string is nothing rather than `-`.
    pub fn parse(
        shape: &Value,
        omit_empty: bool,
        mut name: impl FnMut(&str) -> N,
    ) -> Result<JsonFormat<N>, FormatError> {
        let mut builder = Builder { pieces: Vec::new(), raw: Vec::new() };
        builder.value(shape, &mut name)?;
        builder.flush();
        Ok(JsonFormat { pieces: builder.pieces, omit_empty })
    }

    /// Appends the object, without a line break. A value that is missing on its own is `null`; numbers stay numbers.
    pub fn write(&self, values: &impl Values<N>, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Raw(raw) => out.extend_from_slice(raw),
                Piece::Value(format) => self.write_value(format, values, out),
            }
        }
    }

    fn write_value(&self, format: &Format<N>, values: &impl Values<N>, out: &mut Vec<u8>) {
        let start = out.len();
        match format.parts() {
            [Part::Value { operator, .. }] if operator.is_number() => {
                if !values.write(operator, out) {
                    out.extend_from_slice(b"null");
                }
            }
            [Part::Value { operator, max }] => {
                out.push(b'"');
                if values.write(operator, out) {
                    if let Some(max) = max {
                        out.truncate((start + 1).saturating_add(*max).min(out.len()));
                    }
                    Escape::Json.from(out, start + 1);
                    out.push(b'"');
                } else {
                    out.truncate(start);
                    out.extend_from_slice(b"null");
                }
            }
            _ => {
                out.push(b'"');
                format.write(values, if self.omit_empty { b"" } else { b"-" }, Escape::None, out);
                Escape::Json.from(out, start + 1);
                out.push(b'"');
            }
        }
    }
}

struct Builder<N> {
    pieces: Vec<Piece<N>>,
    raw: Vec<u8>,
}

impl<N> Builder<N> {
    fn value(&mut self, value: &Value, name: &mut impl FnMut(&str) -> N) -> Result<(), FormatError> {
        match value {
            Value::Object(fields) => {
                self.raw.push(b'{');
                for (i, (key, value)) in fields.iter().enumerate() {
                    if i > 0 {
                        self.raw.push(b',');
                    }
                    self.raw.extend_from_slice(Value::from(key.as_str()).to_string().as_bytes());
                    self.raw.push(b':');
                    self.value(value, name)?;
                }
                self.raw.push(b'}');
            }
            Value::Array(items) => {
                self.raw.push(b'[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        self.raw.push(b',');
                    }
                    self.value(item, name)?;
                }
                self.raw.push(b']');
            }
            Value::String(text) if text.contains('%') => {
                let format = Format::parse(text, &mut *name)?;
                self.flush();
                self.pieces.push(Piece::Value(format));
            }
            plain => self.raw.extend_from_slice(plain.to_string().as_bytes()),
        }
        Ok(())
    }

    fn flush(&mut self) {
        if !self.raw.is_empty() {
            self.pieces.push(Piece::Raw(std::mem::take(&mut self.raw).into()));
        }
    }
}
