//! Host names and ports as they come in `Host` and in absolute URLs.

/// Whether all characters may stand in an authority. User information is let through, as Envoy does; it never matches a host.
pub fn authority_is_valid(authority: &[u8]) -> bool {
    authority.iter().all(|&b| AUTHORITY.get(b as usize).copied().unwrap_or(false))
}

static AUTHORITY: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0usize;
    while b < 128 {
        #[allow(clippy::indexing_slicing, reason = "b < 128")]
        {
            table[b] = (b as u8).is_ascii_alphanumeric()
                || matches!(
                    b as u8,
                    b'!' | b'$'
                        | b'%'
                        | b'&'
                        | b'\''
                        | b'('
                        | b')'
                        | b'*'
                        | b'+'
                        | b','
                        | b'-'
                        | b'.'
                        | b':'
                        | b';'
                        | b'='
                        | b'@'
                        | b'['
                        | b']'
                        | b'_'
                        | b'~'
                );
        }
        b += 1;
    }
    table
};

/// Splits `host:port` and `[v6]:port`; the port only when it is digits.
pub fn split_port(authority: &[u8]) -> (&[u8], Option<u16>) {
    let Some(colon) = authority.iter().rposition(|&b| b == b':') else { return (authority, None) };
    let (host, port) = (authority.get(..colon).unwrap_or_default(), authority.get(colon + 1..).unwrap_or_default());
    // Without brackets, more than one colon is an address, not a port.
    let bare_v6 = host.contains(&b':') && host.last() != Some(&b']');
    let digits = !port.is_empty() && port.len() <= 5 && port.iter().all(u8::is_ascii_digit);
    if bare_v6 || !digits {
        return (authority, None);
    }
    let number = port.iter().fold(0u32, |n, b| n * 10 + u32::from(b - b'0'));
    u16::try_from(number).map_or((authority, None), |number| (host, Some(number)))
}

/// Whether this is a host, not empty, with brackets only around all of it, and a port of its own or none.
pub fn is_host_and_port(authority: &[u8]) -> bool {
    let (host, port) = match authority.strip_prefix(b"[") {
        Some(rest) => {
            let Some(end) = rest.iter().position(|&b| b == b']') else { return false };
            let (host, after) = (rest.get(..end).unwrap_or_default(), rest.get(end + 1..).unwrap_or_default());
            match after.split_first() {
                None => (host, None),
                Some((b':', port)) => (host, Some(port)),
                Some(_) => return false,
            }
        }
        None => {
            let mut parts = authority.splitn(2, |&b| b == b':');
            (parts.next().unwrap_or_default(), parts.next())
        }
    };
    let is_port = |port: &[u8]| {
        let text = std::str::from_utf8(port).unwrap_or_default();
        port.iter().all(u8::is_ascii_digit) && text.parse::<u16>().is_ok()
    };
    !host.is_empty() && !host.iter().any(|b| matches!(b, b'[' | b']')) && port.is_none_or(is_port)
}

/// Splits off what follows the last colon when it is digits; empty when there is no port.
pub fn split_digits(authority: &[u8]) -> (&[u8], &[u8]) {
    let Some(colon) = authority.iter().rposition(|&b| b == b':') else { return (authority, b"") };
    let (host, port) = (authority.get(..colon).unwrap_or_default(), authority.get(colon + 1..).unwrap_or_default());
    let bare_v6 = host.contains(&b':') && host.last() != Some(&b']');
    if port.is_empty() || bare_v6 || !port.iter().all(u8::is_ascii_digit) { (authority, b"") } else { (host, port) }
}

/// A port's number as Envoy reads it, which knows no end to ports; `None` for no digits at all.
pub fn number(port: &[u8]) -> Option<u32> {
    std::str::from_utf8(port).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        for (authority, host, port) in [
            ("a.example", "a.example", None),
            ("a.example:80", "a.example", Some(80)),
            ("a.example:", "a.example:", None),
            ("a.example:x", "a.example:x", None),
            ("a.example:99999", "a.example:99999", None),
            ("[::1]", "[::1]", None),
            ("[::1]:443", "[::1]", Some(443)),
            ("::1", "::1", None),
            ("a:99999999999999999999", "a:99999999999999999999", None),
            ("u:q@fff~fffffffffffff", "u:q@fff~fffffffffffff", None),
        ] {
            assert_eq!(split_port(authority.as_bytes()), (host.as_bytes(), port), "{authority}");
        }
    }

    #[test]
    fn hosts_and_ports() {
        for (authority, ok) in [
            ("x", true),
            ("x:80", true),
            ("[::1]", true),
            ("[::1]:65535", true),
            ("", false),
            (":80", false),
            ("x:", false),
            ("x:65536", false),
            ("x:a", false),
            ("x:+1", false),
            ("x:1:2", false),
            ("[::1", false),
            ("::1]", false),
            ("[]:1", false),
            ("[::1]x", false),
            ("[::1]:", false),
        ] {
            assert_eq!(is_host_and_port(authority.as_bytes()), ok, "{authority}");
        }
    }

    #[test]
    fn characters() {
        for (authority, ok) in [
            ("a-b_c.example:80", true),
            ("u:p@x", true),
            ("[::1]", true),
            ("x/y", false),
            ("x y", false),
            ("x#y", false),
            ("é", false),
        ] {
            assert_eq!(authority_is_valid(authority.as_bytes()), ok, "{authority}");
        }
    }
}
