//! Bytes looked at eight at a time: names and values are short, so that a loop over bytes costs more than what is done with them.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x80 * ONES;

/// Appends a text, its ASCII letters in lower case.
#[inline]
pub(crate) fn extend_lower(out: &mut Vec<u8>, text: &[u8]) {
    let (words, rest) = text.as_chunks::<8>();
    for word in words {
        out.extend_from_slice(&lower(u64::from_ne_bytes(*word)).to_ne_bytes());
    }
    out.extend(rest.iter().map(u8::to_ascii_lowercase));
}

/// Whether a byte of a text is below 16: NUL, CR and LF are, and else nothing but controls.
#[inline]
pub(crate) fn has_low_control(text: &[u8]) -> bool {
    let (words, rest) = text.as_chunks::<8>();
    words.iter().any(|word| has_below_16(u64::from_ne_bytes(*word))) || rest.iter().any(|b| *b < 16)
}

/// Where a byte first stands in a text.
#[inline]
pub(crate) fn position(text: &[u8], byte: u8) -> Option<usize> {
    let (words, rest) = text.as_chunks::<8>();
    for (n, word) in words.iter().enumerate() {
        let found = zeros(u64::from_le_bytes(*word) ^ (u64::from(byte) * ONES));
        if found != 0 {
            return Some(8 * n + found.trailing_zeros() as usize / 8);
        }
    }
    rest.iter().position(|b| *b == byte).map(|at| 8 * words.len() + at)
}

/// The high bit of each byte that is zero, up to the lowest one; above it they may be wrong.
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGH
}

fn lower(word: u64) -> u64 {
    let seven = word & !HIGH;
    // In each byte the high bit says: at least `A`; above `Z`; below 128.
    let from_a = seven + (0x80 - u64::from(b'A')) * ONES;
    let above_z = seven + (0x7f - u64::from(b'Z')) * ONES;
    let upper = (from_a ^ above_z) & !word & HIGH;
    word | (upper >> 2)
}

fn has_below_16(word: u64) -> bool {
    word.wrapping_sub(16 * ONES) & !word & HIGH != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_byte_by_byte() {
        for b in 0..=255u8 {
            for len in [1, 7, 8, 9, 17] {
                for at in 0..len {
                    for around in *b"mM\xff" {
                        let mut text = vec![around; len];
                        text[at] = b;
                        let mut out = Vec::new();
                        extend_lower(&mut out, &text);
                        assert_eq!(out, text.to_ascii_lowercase(), "{b} at {at} of {len}");
                        assert_eq!(has_low_control(&text), b < 16, "{b} at {at} of {len}");
                        assert_eq!(
                            position(&text, b),
                            text.iter().position(|other| *other == b),
                            "{b} at {at} of {len}"
                        );
                    }
                }
            }
        }
    }
}
