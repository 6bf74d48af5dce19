//! Who is spoken to and by whom: authorities, PROXY protocol headers, ClientHellos.

use maille_http::{client_hello, host, proxy_header};

use super::{Answer, ensure};

/// What authorities are made of.
pub(super) const HOST_WORDS: &[&[u8]] = &[
    b":",
    b"::",
    b"[",
    b"]",
    b"[::1]",
    b"]:",
    b":80",
    b"@",
    b"u:p@",
    b".",
    b"%",
    b"a.example",
    b":00080",
    b":65536",
    b"/",
    b" ",
    b"\xff",
];

/// What PROXY protocol headers are made of.
pub(super) const PROXY_WORDS: &[&[u8]] = &[
    b"PROXY ",
    b"TCP4 ",
    b"TCP6 ",
    b"UNKNOWN",
    b"\r\n",
    b" ",
    b"10.0.0.1",
    b"::1",
    b"::ffff:10.0.0.1",
    b"0.0.0.0",
    b" 80",
    b" 080",
    b"\r\n\r\n\0\r\nQUIT\n",
    b"\x21\x11\0\x0c",
    b"\x21\x21\0\x24",
    b"\x20\0\0\0",
    b"\x04\0\x01\0",
    b"\xff\xff",
];

/// What ClientHellos are made of.
pub(super) const HELLO_WORDS: &[&[u8]] = &[
    b"\x16\x03\x01",
    b"\x16\x03\x03\0\x04",
    b"\x01\0\0",
    b"\0\0",
    b"\0\x01",
    b"\0\x10",
    b"\x02h2",
    b"\x08http/1.1",
    b"\0\0\0\x06\0\x04\0\0\x01x",
    b"a.example",
    b"\0\x10\0\x05\0\x03\x02h2",
    b"\xff\xff",
    b"\0",
    b"..",
];

/// Splits an authority in every way there is, which must agree.
pub(super) fn host(input: &[u8]) -> Answer {
    let (name, port) = host::split_port(input);
    let (digits_name, digits) = host::split_digits(input);
    let told = || format!("split_port {:?} {port:?}, split_digits {:?}", name.escape_ascii(), digits.escape_ascii());
    match port {
        Some(port) => {
            let fine = digits_name == name && host::number(digits) == Some(port.into());
            ensure(fine && input == [name, b":", digits].concat(), told)?;
        }
        None => ensure(name == input, told)?,
    }
    ensure(digits.is_empty() && digits_name == input || input == [digits_name, b":", digits].concat(), told)?;
    let whole = host::is_host_and_port(input);
    if whole && !digits.is_empty() && digits.len() <= 5 {
        ensure(port.is_some(), || format!("a host and a port, but {}", told()))?;
    }
    Ok(format!("{} {:?} {} {}", host::authority_is_valid(input), port.is_some(), whole, digits.len().min(7)))
}

/// Reads a header; what is read of it survives being written in both versions.
pub(super) fn proxy_header(input: &[u8]) -> Answer {
    use proxy_header::{Parsed, parse, write_v1, write_v2};
    let whole = parse(input);
    for cut in cuts(input) {
        let got = parse(&input[..cut]);
        let fine = match (got, whole) {
            (Ok(Parsed::More), Ok(Parsed::Header(header))) => cut < header.len,
            (Ok(Parsed::More), _) => true,
            (Ok(Parsed::Header(header)), _) => header.len <= cut && got == whole,
            _ => got == whole,
        };
        ensure(fine, || format!("the first {cut} bytes are {got:?}, all are {whole:?}"))?;
    }
    let Ok(Parsed::Header(header)) = whole else { return Ok(format!("{whole:?}")) };
    ensure(header.len <= input.len(), || format!("longer than what came: {header:?}"))?;
    for (version, write) in [(1, write_v1 as fn(&mut Vec<u8>, _)), (2, write_v2)] {
        let mut out = Vec::new();
        write(&mut out, header.client);
        let again = parse(&out);
        let want = proxy_header::Header { len: out.len(), version, ..header };
        ensure(again == Ok(Parsed::Header(want)), || format!("{header:?}, written and read again {again:?}"))?;
    }
    let family = header.client.map(|(from, _)| from.is_ipv4());
    Ok(format!("{} {family:?}", header.version))
}

/// Reads a ClientHello.
pub(super) fn client_hello(input: &[u8]) -> Answer {
    use client_hello::{Parsed, parse};
    let whole = parse(input);
    for cut in cuts(input) {
        let got = parse(&input[..cut]);
        let fine = got == Parsed::More || got == whole;
        ensure(fine, || format!("the first {cut} bytes are {got:?}, all are {whole:?}"))?;
    }
    let Parsed::Hello(hello) = whole else { return Ok(format!("{whole:?}")) };
    let name = hello.server_name.as_bytes();
    ensure(name.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b':')), || {
        format!("the name {:?}", hello.server_name)
    })?;
    ensure(hello.alpn.iter().all(|protocol| !protocol.is_empty()), || format!("the protocols {:?}", hello.alpn))?;
    let behind = parse(&[input, b"\x16\x03\x03\0\x01\x01"].concat());
    ensure(behind == Parsed::Hello(hello.clone()), || format!("with something behind it: {behind:?}"))?;
    Ok(format!("{} {}", name.len().min(3), hello.alpn.len()))
}

fn cuts(input: &[u8]) -> impl Iterator<Item = usize> + use<> {
    let len = input.len();
    (0..=len).step_by(1 + len / 128)
}
