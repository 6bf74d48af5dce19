//! Bytes as the API writes them: base64 in text, and never shown by accident.

use std::fmt;
use std::ops::Deref;

use crate::message::newtype_text;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes, base64 in JSON. `Debug` tells their number only: some are private keys.
#[derive(Clone, Default, Eq, Hash, PartialEq)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    pub(crate) const TYPE_NAME: &'static str = "Bytes";

    /// Reads base64, standard or URL-safe, padded or not, as protobuf's JSON does; line breaks are skipped.
    pub fn from_base64(text: &str) -> Option<Bytes> {
        let digits = text.trim_end_matches(['=', '\n', '\r', ' ']).bytes().filter(|b| !matches!(b, b'\n' | b'\r'));
        let (mut bytes, mut buffer, mut bits) = (Vec::with_capacity(text.len() / 4 * 3), 0u32, 0u32);
        for digit in digits {
            buffer = buffer << 6 | u32::from(value_of(digit)?);
            bits += 6;
            if bits >= 8 {
                bits -= 8;
                bytes.push((buffer >> bits) as u8);
                buffer &= (1 << bits) - 1;
            }
        }
        // Six left-over bits would be a lone digit, which encodes nothing.
        (bits < 6).then_some(Bytes(bytes))
    }

    /// Standard base64, padded.
    pub fn to_base64(&self) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::with_capacity(self.0.len().div_ceil(3) * 4);
        for chunk in self.0.chunks(3) {
            let group = chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            for i in 0..4 {
                let digit = DIGITS[(group >> (18 - 6 * i)) as usize & 63];
                text.push(if i <= chunk.len() { digit as char } else { '=' });
            }
        }
        text
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<String> for Bytes {
    fn from(text: String) -> Self {
        Bytes(text.into_bytes())
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = newtype_text(deserializer, Self::TYPE_NAME)?;
        Bytes::from_base64(&text).ok_or_else(|| de::Error::custom("this is not base64"))
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_base64())
    }
}

fn value_of(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::Bytes;

    #[test]
    fn base64_reads_and_writes() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(Bytes::from(bytes.to_owned()).to_base64(), text);
            assert_eq!(&*Bytes::from_base64(text).unwrap(), bytes.as_bytes());
            assert_eq!(&*Bytes::from_base64(text.trim_end_matches('=')).unwrap(), bytes.as_bytes());
        }
        assert_eq!(Bytes::from_base64("-_-_"), Bytes::from_base64("+/+/"));
        for bad in ["Z", "Zm9vY", "Zm 9v", "Zm=9v", "ü"] {
            assert_eq!(Bytes::from_base64(bad), None, "{bad}");
        }
    }

    #[test]
    fn debug_does_not_show_them() {
        assert_eq!(format!("{:?}", Bytes::from("key".to_owned())), "<3 bytes>");
    }
}
