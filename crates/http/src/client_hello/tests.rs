//! ClientHellos as clients send them, cut and bent in every way.

use super::*;

fn long(data: &[u8]) -> Vec<u8> {
    [&u16::try_from(data.len()).unwrap().to_be_bytes()[..], data].concat()
}

fn short(data: &[u8]) -> Vec<u8> {
    [&[u8::try_from(data.len()).unwrap()][..], data].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &long(data)].concat()
}

fn sni(name: &[u8]) -> Vec<u8> {
    extension(0, &long(&[&[0][..], &long(name)].concat()))
}

fn alpn(names: &[&str]) -> Vec<u8> {
    extension(16, &long(&names.iter().flat_map(|name| short(name.as_bytes())).collect::<Vec<_>>()))
}

fn message(extensions: &[u8]) -> Vec<u8> {
    let body = [&[3, 3][..], &[7; 32], &short(&[1; 32]), &long(&[0x13, 1]), &short(&[0]), &long(extensions)].concat();
    [&[1, 0][..], &long(&body)].concat()
}

/// In records of this size.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|part| [&[22, 3, 1][..], &long(part)].concat()).collect()
}

fn says(name: &str, alpn: &[&str]) -> Parsed {
    let alpn = alpn.iter().map(|name| (*name).to_owned()).collect();
    Parsed::Hello(ClientHello { server_name: name.to_owned(), alpn })
}

#[test]
fn what_clients_say() {
    let both = [sni(b"Www.Example.com"), extension(43, &[2, 3, 4]), alpn(&["h2", "http/1.1"])].concat();
    for (extensions, expected) in [
        (both, says("www.example.com", &["h2", "http/1.1"])),
        (sni(b"outbound_.80_.v1_.a.ns.svc.cluster.local"), says("outbound_.80_.v1_.a.ns.svc.cluster.local", &[])),
        (alpn(&["istio"]), says("", &["istio"])),
        (Vec::new(), says("", &[])),
        ([sni(b"a.example"), sni(b"b.example")].concat(), Parsed::Other),
        ([alpn(&["a"]), alpn(&["b"])].concat(), Parsed::Other),
        (sni(b""), Parsed::Other),
        (sni(b"a\0.example"), Parsed::Other),
        (sni(b"a b"), Parsed::Other),
        (sni(&[b'a'; 256]), Parsed::Other),
        (extension(0, &[]), Parsed::Other),
        (extension(0, &[0, 9, 0, 0, 1, b'a']), Parsed::Other),
        (extension(16, &[0, 1, 0]), Parsed::Other),
        (vec![0, 0, 0, 9, 1], Parsed::Other),
    ] {
        let message = message(&extensions);
        for size in [1, 7, 1 << 14] {
            let bytes = records(&message, size);
            assert_eq!(parse(&bytes), expected, "{extensions:?} in records of {size}");
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), Parsed::More, "{extensions:?} in records of {size}, cut at {cut}");
            }
            let more = [bytes, b"more".to_vec()].concat();
            assert_eq!(parse(&more), expected, "what comes behind is another's");
        }
    }
}

#[test]
fn what_is_no_hello() {
    let hello = records(&message(&sni(b"a.example")), 1 << 14);
    let with = |at: usize, byte: u8| {
        let mut bytes = hello.clone();
        bytes[at] = byte;
        bytes
    };
    for bytes in [
        b"GET / HTTP/1.1\r\n".to_vec(),
        b"\0".to_vec(),
        // An alert, SSL 2, another handshake message, a record that is too long, an empty one.
        with(0, 21),
        with(1, 2),
        with(5, 2),
        [22, 3, 1, 0xff, 0xff].to_vec(),
        [22, 3, 1, 0, 0].to_vec(),
        // A message longer than any hello.
        [22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff].to_vec(),
    ] {
        assert_eq!(parse(&bytes), Parsed::Other, "{bytes:?}");
    }
    let endless = records(&message(&extension(21, &vec![0; 16300])), 1);
    assert_eq!(parse(&endless), Parsed::Other, "a hello in more bytes than there may be");
}

#[test]
fn bytes_bent_at_random_do_no_harm() {
    let whole = records(&message(&[sni(b"a.example"), alpn(&["h2"])].concat()), 50);
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            parse(&bytes);
        }
    }
}
