//! Numbers and addresses as text, into memory that is there already: what the standard formatter costs ten times as much for.

use std::io::Write as _;
use std::net::IpAddr;

/// Appends an address.
pub(crate) fn push_address(out: &mut Vec<u8>, address: IpAddr) {
    let IpAddr::V4(v4) = address else {
        // Writing to memory does not fail.
        let _ = write!(out, "{address}");
        return;
    };
    let [a, b, c, d] = v4.octets();
    push_octet(out, a);
    for octet in [b, c, d] {
        out.push(b'.');
        push_octet(out, octet);
    }
}

fn push_octet(out: &mut Vec<u8>, n: u8) {
    if n >= 100 {
        out.push(b'0' + n / 100);
    }
    if n >= 10 {
        out.push(b'0' + n / 10 % 10);
    }
    out.push(b'0' + n % 10);
}

/// A number in decimal digits.
pub(crate) fn decimal(mut n: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            return &digits[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_standard_formatter_writes_them() {
        for text in ["0.0.0.0", "127.0.0.1", "10.20.199.255", "255.255.255.255", "::1", "fe80::1:2", "::ffff:1.2.3.4"] {
            let mut out = Vec::new();
            push_address(&mut out, text.parse().unwrap());
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
        for n in [0, 9, 10, 12_345, u64::MAX] {
            assert_eq!(decimal(n, &mut [0; 20]), n.to_string().as_bytes());
        }
    }
}
