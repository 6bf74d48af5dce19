//! Headers of the PROXY protocol as they are, and as attackers write them.

use super::*;

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[command, family], &len, rest].concat()
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn headers_of_version_1() {
    let header = |len, client| Ok(Parsed::Header(Header { len, version: 1, client }));
    let pair = |a, b| Some((addr(a), addr(b)));
    for (text, expected) in [
        ("PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\nGET", header(35, pair("1.2.3.4:80", "5.6.7.8:443"))),
        ("PROXY TCP6 1::2 3::4 1 2\r\n", header(26, pair("[1::2]:1", "[3::4]:2"))),
        ("PROXY UNKNOWN\r\n", header(15, None)),
        ("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", header(35, None)),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r", Ok(Parsed::More)),
        ("PRO", Ok(Parsed::More)),
        ("", Ok(Parsed::More)),
        ("GET / HTTP/1.1\r\n", Ok(Parsed::Absent)),
        ("PROXX", Ok(Parsed::Absent)),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 80\r\n", Err(Malformed::V1)),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 80 443 9\r\n", Err(Malformed::V1)),
        ("PROXY TCP4 1::2 5.6.7.8 80 443\r\n", Err(Malformed::V1)),
        ("PROXY TCP6 1.2.3.4 5.6.7.8 80 443\r\n", Err(Malformed::V1)),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 80 65536\r\n", Err(Malformed::V1)),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 +80 443\r\n", Err(Malformed::V1)),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 080 443\r\n", Err(Malformed::V1)),
        ("PROXY TCP4 0.0.0.0 5.6.7.8 80 443\r\n", Err(Malformed::V1)),
        ("PROXY TCP4 224.0.0.1 5.6.7.8 80 443\r\n", Err(Malformed::V1)),
        ("PROXY UDP4 1.2.3.4 5.6.7.8 80 443\r\n", Err(Malformed::V1)),
        ("PROXY  TCP4 1.2.3.4 5.6.7.8 80 443\r\n", Err(Malformed::V1)),
    ] {
        assert_eq!(parse(text.as_bytes()), expected, "{text:?}");
    }
    assert_eq!(parse(&[&b"PROXY TCP4 "[..], &[b'1'; 96]].concat()), Err(Malformed::V1), "a line without an end");
}

#[test]
fn headers_of_version_2() {
    let v4 = [1, 2, 3, 4, 5, 6, 7, 8, 0, 80, 1, 187];
    let client = Some((addr("1.2.3.4:80"), addr("5.6.7.8:443")));
    let header = |len, client| Ok(Parsed::Header(Header { len, version: 2, client }));
    for (bytes, expected) in [
        (v2(0x21, 0x11, &v4), header(28, client)),
        (v2(0x21, 0x12, &v4), header(28, client)),
        (v2(0x21, 0x11, &[&v4[..], &[4, 0, 2, 9, 9]].concat()), header(33, client)),
        (v2(0x20, 0, &[]), header(16, None)),
        // LOCAL without addresses crashed Envoy (CVE-2024-23327); with some, they do not count.
        (v2(0x20, 0x11, &v4), header(28, None)),
        (v2(0x20, 0xff, &[1, 2, 3]), header(19, None)),
        (v2(0x21, 0x11, &v4[..11]), Err(Malformed::V2("it is too short for its addresses"))),
        (v2(0x21, 0x21, &v4), Err(Malformed::V2("it is too short for its addresses"))),
        (v2(0x21, 0x31, &[0; 216]), Err(Malformed::V2("its addresses are neither IPv4 nor IPv6"))),
        (v2(0x21, 0x00, &v4), Err(Malformed::V2("its addresses are neither IPv4 nor IPv6"))),
        (v2(0x21, 0x10, &v4), Err(Malformed::V2("it is about neither a stream nor datagrams"))),
        (v2(0x22, 0x11, &v4), Err(Malformed::V2("its command is neither LOCAL nor PROXY"))),
        (v2(0x11, 0x11, &v4), Err(Malformed::V2("its version is not 2"))),
        (v2(0x21, 0x11, &[0; 12]), Err(Malformed::V2("an address is nobody's"))),
        (v2(0x21, 0x11, &[&v4[..], &[4, 0]].concat()), Err(Malformed::V2("what it says in addition is cut off"))),
        (v2(0x21, 0x11, &[&v4[..], &[4, 0, 9, 1]].concat()), Err(Malformed::V2("what it says in addition is cut off"))),
        (v2(0x21, 0x11, &[&v4[..], &[0; 8000]].concat()), Err(Malformed::V2("it is too long"))),
    ] {
        assert_eq!(parse(&bytes), expected, "{bytes:?}");
        if expected.is_ok() {
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), Ok(Parsed::More), "{bytes:?} cut at {cut}");
            }
        }
    }
}

#[test]
fn what_is_written_is_read() {
    for (from, to) in [("1.2.3.4:80", "5.6.7.8:443"), ("[1::2]:80", "[3::4]:443"), ("1.2.3.4:80", "[3::4]:443")] {
        let (from, to) = (addr(from), addr(to));
        for write in [write_v1, write_v2] {
            let mut bytes = Vec::new();
            write(&mut bytes, Some((from, to)));
            let Ok(Parsed::Header(header)) = parse(&bytes) else { panic!("{bytes:?}") };
            assert_eq!(header.len, bytes.len());
            let (a, b) = header.client.unwrap();
            assert_eq!((a.ip().to_canonical(), a.port()), (from.ip(), from.port()));
            assert_eq!((b.ip().to_canonical(), b.port()), (to.ip(), to.port()));
        }
    }
    for write in [write_v1, write_v2] {
        let mut bytes = Vec::new();
        write(&mut bytes, None);
        assert!(matches!(parse(&bytes), Ok(Parsed::Header(Header { client: None, .. }))), "{bytes:?}");
    }
}
