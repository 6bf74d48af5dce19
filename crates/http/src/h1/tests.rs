use proptest::prelude::*;

use super::*;
use crate::{RequestHead, ResponseHead};

fn request(raw: &[u8]) -> Result<Option<(RequestMeta, RequestHead)>, Error> {
    let mut head = RequestHead::new();
    Ok(parse_request(raw, &Limits::default(), &mut head)?.map(|meta| (meta, head)))
}

fn response(raw: &[u8], to_head: bool) -> Result<Option<(ResponseMeta, ResponseHead)>, Error> {
    let mut head = ResponseHead::default();
    Ok(parse_response(raw, &Limits::default(), to_head, &mut head)?.map(|meta| (meta, head)))
}

/// Decodes a body that arrives in pieces of `cut` bytes; what it held and what followed it.
fn body(length: BodyLength, raw: &[u8], cut: usize) -> Result<(Vec<u8>, Option<usize>), Error> {
    let (mut decoder, mut data, mut at) = (BodyDecoder::new(length), Vec::new(), 0);
    for piece in raw.chunks(cut.max(1)) {
        let mut piece = piece.to_vec();
        let got = decoder.decode(&mut piece)?;
        data.extend_from_slice(&piece[..got.data]);
        at += got.consumed;
        if got.done {
            decoder.drop_trailers()?;
            return Ok((data, Some(at)));
        }
    }
    Ok((data, None))
}

#[test]
fn a_request() {
    let raw = b"\r\nPOST /a/b?c HTTP/1.1\r\nHost: X.example:80\r\nConnection: keep-alive, X-Drop\r\nX-Drop: 1\r\nX-A: \tb \r\nContent-Length: 5\r\nKeep-Alive: x\r\n\r\nhello";
    let (meta, head) = request(raw).unwrap().unwrap();
    assert_eq!(meta.len, raw.len() - 5);
    assert_eq!((meta.body, meta.keep_alive, meta.version), (BodyLength::Exact(5), true, Version::Http11));
    assert_eq!((head.method(), head.authority(), head.path()), (&b"POST"[..], &b"X.example:80"[..], &b"/a/b"[..]));
    let mut out = Vec::new();
    head.write(&mut out);
    request_framing(&mut out, head.method(), meta.body, true);
    assert_eq!(out, b"POST /a/b?c HTTP/1.1\r\nhost: X.example:80\r\nx-a: b\r\ncontent-length: 5\r\n\r\n");
}

/// None of these gets through; each with the status it is answered with.
fn refused(table: &[(&str, u16)]) {
    for (raw, status) in table {
        match request(raw.as_bytes()) {
            Err(e) => assert_eq!(e.status(), *status, "{raw:?}: {e}"),
            Ok(Some((RequestMeta { objection: Some(e), .. }, _))) => assert_eq!(e.status(), *status, "{raw:?}: {e}"),
            Ok(got) => panic!("{raw:?} was taken: {got:?}"),
        }
    }
}

/// Two ways to say how long a body is are one too many.
#[test]
fn row_01_never_both_a_length_and_chunks() {
    refused(&[
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400),
    ]);
}

/// A length is digits, once.
#[test]
fn row_02_lengths_that_readers_differ_on() {
    refused(&[
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5.0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5 5\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\n", 400),
        ("CONNECT x:80 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n", 400),
    ]);
}

/// The only coding is `chunked`, once, in HTTP/1.1.
#[test]
fn row_03_codings_that_readers_differ_on() {
    refused(&[
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\x0b\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n chunked\r\n\r\n", 400),
        ("POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 426),
    ]);
}

/// Lines end with CR LF, names are tokens, values hold no control characters.
#[test]
fn row_05_lines_and_fields_that_readers_differ_on() {
    refused(&[
        ("GET / HTTP/1.1\nHost: x\n\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\nX-A: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nX-A: b\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nX-A: a\rb\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nX-A: a\0b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nX-A: a\r\n b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\n X-A: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\n: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r \r\nHost: x\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\r\nHost: x\r\n\r\n", 400),
        ("GET / HTTP/1.1\x0c\r\nHost: x\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nX-A\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nX A: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\n:path: /evil\r\n\r\n", 400),
    ]);
}

/// One target, one host, each what it says it is.
#[test]
fn row_10_targets_and_hosts_that_readers_differ_on() {
    refused(&[
        ("GET / HTTP/1.0\r\n\r\n", 426),
        ("GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x y\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x/y\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x#y\r\n\r\n", 400),
        ("GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET /a\tb HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET /\u{e9} HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET /#f HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET http:///a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("get / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("CONNECT / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET / http/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET / HTTP/11\r\nHost: x\r\n\r\n", 400),
        ("GET / HTTP/1.2\r\nHost: x\r\n\r\n", 426),
        ("GET / HTTP/3.0\r\nHost: x\r\n\r\n", 426),
        ("GET /\r\n\r\n", 426),
        ("\x16\x03\x01\x02\x00", 400),
    ]);
}

/// Neither more nor larger fields than allowed.
#[test]
fn row_13_a_head_has_bounds() {
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(100));
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\na: {}\r\n\r\n", "b".repeat(60 * 1024));
    refused(&[(&many, 431), (&long, 431)]);
}

/// Nobody may name away what the next hop relies on.
#[test]
fn row_25_connection_names_nothing_that_others_rely_on() {
    refused(&[
        ("GET / HTTP/1.1\r\nHost: x\r\nConnection: x-forwarded-for\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nConnection: Authorization\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nConnection: a,b,c,d,e,f,g,h,i,j\r\n\r\n", 400),
    ]);
}

/// Every byte in every place of a head: what stands there is what the grammar allows.
#[test]
fn row_05_each_byte_in_each_place() {
    let token = crate::name::is_token;
    for b in 0..=255u8 {
        let taken = |before: &[u8], after: &[u8]| {
            let raw = [before, &[b], after].concat();
            matches!(request(&raw), Ok(Some((RequestMeta { objection: None, .. }, _))))
        };
        let rest = b" / HTTP/1.1\r\nHost: x\r\n\r\n";
        assert!(!taken(b"GE", b"T / HTTP/1.1\r\nHost: x\r\n\r\n"), "method {b:#x}");
        assert!(!taken(b"GET", rest), "behind the method {b:#x}");
        let target = matches!(b, b'!'..=b'~') && b != b'#';
        assert_eq!(taken(b"GET /a", b"b HTTP/1.1\r\nHost: x\r\n\r\n"), target, "target {b:#x}");
        assert_eq!(taken(b"GET / HTTP/1.", b"\r\nHost: x\r\n\r\n"), b == b'1', "version {b:#x}");
        assert_eq!(taken(b"GET / HTTP/1.1\r\nHost: x\r\nX-", b"A: b\r\n\r\n"), token(b) || b == b':', "name {b:#x}");
        let value = matches!(b, b'\t' | b' '..=b'~' | 0x80..);
        assert_eq!(taken(b"GET / HTTP/1.1\r\nHost: x\r\nX-A: a", b"b\r\n\r\n"), value, "value {b:#x}");
        let host = crate::host::authority_is_valid(&[b]);
        assert_eq!(taken(b"GET / HTTP/1.1\r\nHost: x", b"y\r\n\r\n"), host, "host {b:#x}");
    }
}

/// A response is held to bounds as a request is.
#[test]
fn row_13_responses_have_bounds() {
    for (head, taken) in [
        ("a: b\r\n".repeat(100), true),
        ("a: b\r\n".repeat(101), false),
        (format!("a: {}\r\n", "b".repeat(60 * 1024 - 30)), true),
        (format!("a: {}\r\n", "b".repeat(60 * 1024)), false),
    ] {
        let raw = format!("HTTP/1.1 200 OK\r\n{head}\r\n");
        assert_eq!(matches!(response(raw.as_bytes(), false), Ok(Some(_))), taken, "{} bytes", raw.len());
    }
}

#[test]
fn http10_where_it_is_served() {
    let limits = Limits { http10: true, ..Limits::default() };
    let mut head = RequestHead::new();
    let mut parse =
        |raw: &str| parse_request(raw.as_bytes(), &limits, &mut head).map(|meta| meta.map(|m| m.keep_alive));
    assert_eq!(parse("GET / HTTP/1.0\r\n\r\n"), Ok(Some(false)));
    assert_eq!(parse("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"), Ok(Some(true)));
    assert_eq!(parse("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), Err(Error::TransferEncodingInHttp10));
    assert_eq!(parse("GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n"), Err(Error::DuplicateHost));
}

#[test]
fn a_length_beside_chunks_is_passed_over_where_that_is_allowed() {
    let limits = Limits { chunked_length: true, ..Limits::default() };
    let mut head = RequestHead::new();
    let raw = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
    let meta = parse_request(raw, &limits, &mut head).unwrap().unwrap();
    assert_eq!((meta.body, meta.keep_alive), (BodyLength::Chunked, false));
    assert!(!head.headers.has(crate::HeaderId::ContentLength));
    let twice =
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(parse_request(twice, &limits, &mut head).unwrap_err(), Error::ContentLength);
}

#[test]
fn targets() {
    for (line, authority, path) in [
        ("GET http://y.example/abs HTTP/1.1", "y.example", "/abs"),
        ("GET http://u:p@Y.example:8080?q HTTP/1.1", "Y.example:8080", "?q"),
        ("GET http://y.example:80 HTTP/1.1", "y.example:80", "/"),
        ("OPTIONS * HTTP/1.1", "x", "*"),
        ("GET //a HTTP/1.1 ", "x", "//a"),
        ("CONNECT y:443 HTTP/1.1", "y:443", ""),
    ] {
        let (_, head) = request(format!("{line}\r\nHost: x\r\n\r\n").as_bytes()).unwrap().unwrap();
        assert_eq!((head.authority(), head.path_and_query()), (authority.as_bytes(), path.as_bytes()), "{line}");
    }
}

#[test]
fn responses() {
    let ok = |raw: &str, to_head| response(raw.as_bytes(), to_head).unwrap().unwrap().0;
    for (raw, to_head, body, keep_alive) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false, BodyLength::Exact(5), true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, BodyLength::Empty, true),
        ("HTTP/1.1 200\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", false, BodyLength::Empty, false),
        ("HTTP/1.1 200 \r\ntransfer-encoding: Chunked\r\n\r\n", false, BodyLength::Chunked, true),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", false, BodyLength::Empty, true),
        ("HTTP/1.1 204 No Content\r\n\r\n", false, BodyLength::Empty, true),
        ("HTTP/1.1 100 Continue\r\n\r\n", false, BodyLength::Empty, true),
        ("HTTP/1.1 200 OK\r\n\r\n", false, BodyLength::UntilClose, false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", false, BodyLength::Exact(5), false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: Keep-Alive\r\n\r\n", false, BodyLength::Exact(5), true),
    ] {
        let meta = ok(raw, to_head);
        assert_eq!((meta.body, meta.keep_alive, meta.len), (body, keep_alive, raw.len()), "{raw:?}");
    }
    for raw in [
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000\r\n\r\n",
        "http/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 O\0K\r\n\r\n",
        "SSH-2.0-x",
    ] {
        assert!(response(raw.as_bytes(), false).is_err(), "{raw:?}");
    }
}

#[test]
fn row_04_chunks_have_one_reading() {
    for (raw, data, rest) in [
        ("5\r\nhello\r\n0\r\n\r\nGET", "hello", 3),
        ("5;a=b\r\nhello\r\nA\r\n0123456789\r\n0\r\nX-T: 1\r\nContent-Length: 9\r\n\r\n", "hello0123456789", 0),
        ("00005\r\nhello\r\n000\r\n\r\n", "hello", 0),
    ] {
        for cut in 1..=raw.len() {
            let (got, end) = body(BodyLength::Chunked, raw.as_bytes(), cut).unwrap();
            assert_eq!((got.as_slice(), end), (data.as_bytes(), Some(raw.len() - rest)), "{raw:?} by {cut}");
        }
    }
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(9000));
    for raw in [
        "-5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "\r\n",
        ";\r\n",
        "g\r\n",
        "0x5\r\nhello\r\n",
        "1000000000000000\r\n",
        "5;a\nb\r\nhello\r\n",
        "5;a\rb\r\nhello\r\n",
        "0\n\n",
        "0\r\n a: b\r\n\r\n",
        "0\r\na: b\n\r\n",
        "0\r\n\rX",
        "0\r\na b: c\r\n\r\n",
        "0\r\na\r\n\r\n",
        "0\r\n: a\r\n\r\n",
        "0\r\na : b\r\n\r\n",
        &long,
    ] {
        for cut in [1, 3, raw.len()] {
            assert_eq!(body(BodyLength::Chunked, raw.as_bytes(), cut), Err(Error::Chunk), "{raw:?} by {cut}");
        }
    }
}

#[test]
fn row_04_trailers_frame_nothing() {
    let read = |section: &str| {
        let mut raw = format!("2\r\nhi\r\n0\r\n{section}\r\n").into_bytes();
        let mut decoder = BodyDecoder::new(BodyLength::Chunked);
        let decoded = decoder.decode(&mut raw)?;
        assert!(decoded.done && decoded.consumed == raw.len() && decoded.data == 2, "{section:?}");
        let got = decoder.take_trailers()?;
        assert!(decoder.take_trailers().unwrap().is_none());
        assert!(decoder.is_done());
        let mut out = Vec::new();
        trailer_section(&mut out, &got.unwrap_or_default());
        Ok(String::from_utf8(out).unwrap())
    };
    let big = format!("a: {}\r\n", "b".repeat(62_000));
    let many = "a: b\r\n".repeat(101);
    for (section, want) in [
        ("", Ok("0\r\n\r\n")),
        ("X-T: 1\r\nX-T:  2 \r\n", Ok("0\r\nx-t: 1\r\nx-t: 2\r\n\r\n")),
        ("Content-Length: 9\r\n", Err(Error::Trailers)),
        ("a: b\r\ntransfer-ENCODING: chunked\r\n", Err(Error::Trailers)),
        ("Host: evil\r\n", Err(Error::Trailers)),
        ("Connection: close\r\n", Err(Error::Trailers)),
        (&big, Err(Error::HeadTooLarge)),
        (&many, Err(Error::TooManyFields)),
    ] {
        assert_eq!(read(section).as_deref(), want.as_deref(), "{section:.40}");
    }
}

#[test]
fn other_bodies() {
    assert_eq!(body(BodyLength::Exact(5), b"helloGET", 2).unwrap(), (b"hello".to_vec(), Some(5)));
    assert_eq!(body(BodyLength::Exact(9), b"hello", 2).unwrap(), (b"hello".to_vec(), None));
    assert_eq!(body(BodyLength::UntilClose, b"hello", 2).unwrap(), (b"hello".to_vec(), None));
}

#[test]
fn chunk_heads() {
    for (n, text) in [(1, "1\r\n"), (16, "10\r\n"), (0xabcdef, "abcdef\r\n"), (usize::MAX, "ffffffffffffffff\r\n")] {
        let mut out = Vec::new();
        chunk_head(&mut out, n);
        assert_eq!(out, text.as_bytes());
    }
}

proptest! {
    /// However a request is cut, it is the same request: every proper start of it is "not yet" or the final error.
    #[test]
    fn cuts_do_not_matter(
        path in "/[a-z?%.]{0,12}", names in proptest::collection::vec("[A-Za-z-]{1,12}", 0..6), value in "[ -~]{0,20}", chunked: bool,
    ) {
        let fields: String = names.iter().map(|n| format!("{n}: {value}\r\n")).collect();
        let te = if chunked { "transfer-encoding: chunked\r\n" } else { "" };
        let raw = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{fields}{te}\r\n");
        let whole = request(raw.as_bytes()).map(|r| r.map(|(m, h)| (m, format!("{h:?}"))));
        for cut in 0..raw.len() {
            match request(&raw.as_bytes()[..cut]) {
                Ok(None) => {}
                Err(e) => prop_assert_eq!(Err(e), whole.clone()),
                Ok(Some(got)) => prop_assert!(false, "complete after {cut} bytes: {got:?}"),
            }
        }
    }

    #[test]
    fn row_36_random_bytes_never_panic(raw in proptest::collection::vec(any::<u8>(), 0..300), cut in 1usize..20) {
        let _ = request(&raw);
        let _ = response(&raw, false);
        let _ = body(BodyLength::Chunked, &raw, cut);
    }

    /// Nearly HTTP: the pieces that framing is made of, in any order.
    #[test]
    fn row_36_random_pieces_never_panic(pieces in proptest::collection::vec(prop_oneof![
        Just("GET / HTTP/1.1\r\n"), Just("HTTP/1.1 200 OK\r\n"), Just("Host: x\r\n"), Just("\r\n"), Just("\n"), Just("\r"), Just(": "),
        Just("Content-Length: 5\r\n"), Just("Transfer-Encoding: chunked\r\n"), Just("Connection: a, close\r\n"), Just("5\r\n"), Just("0\r\n\r\n"), Just("hello"), Just("\0"),
    ], 0..12)) {
        let raw = pieces.concat();
        if let Ok(Some((meta, head))) = request(raw.as_bytes()) {
            prop_assert!(meta.len <= raw.len());
            prop_assert!(meta.objection.is_some() || !head.authority().is_empty());
        }
        let _ = response(raw.as_bytes(), false);
        let _ = body(BodyLength::Chunked, raw.as_bytes(), 1);
    }

    /// What we accept as a length is exactly what the rule says.
    #[test]
    fn row_02_a_length_is_digits_given_once(value in "[0-9+, x-]{0,20}") {
        let raw = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {value}\r\n\r\n");
        let trimmed = value.trim();
        let ok = !trimmed.is_empty() && trimmed.len() <= 18 && trimmed.bytes().all(|b| b.is_ascii_digit());
        prop_assert_eq!(request(raw.as_bytes()).is_ok(), ok);
    }
}
