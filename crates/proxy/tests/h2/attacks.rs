//! Attacks by name: each fails when what stands against it is taken away.

use std::time::Duration;

use maille_xds::types::UInt32Value;
use maille_xds::types::core::Http2ProtocolOptions;

use crate::raw::*;
use crate::script::{Proxy, Server};

const ENHANCE_YOUR_CALM: u32 = 11;

fn proxy_of(server: &Server) -> Proxy {
    Proxy::with(server, |manager, _| {
        manager.http2_protocol_options = Some(Http2ProtocolOptions {
            max_concurrent_streams: Some(UInt32Value { value: 100 }),
            ..Default::default()
        });
    })
}

/// Sends something again and again until the proxy says why it has had enough; the code, and how often it was sent.
fn until_told(raw: &mut Raw, most: u32, mut next: impl FnMut(u32) -> Vec<u8>) -> Option<u32> {
    raw.0.set_nonblocking(false).unwrap();
    for n in 0..most {
        raw.send(next(n));
    }
    raw.next_of(&[GOAWAY]).map(|frame| frame.code())
}

fn cancel(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())
}

/// CVE-2023-44487: streams that are reset as soon as they are there.
#[test]
fn row_15_rapid_reset() {
    let server = Server::start();
    let proxy = proxy_of(&server);
    // All at once, and one after the other so that each is seen.
    let mut raw = Raw::start(&proxy);
    let told = until_told(&mut raw, 600, |n| [open(2 * n + 1), cancel(2 * n + 1)].concat());
    assert_eq!(told, Some(ENHANCE_YOUR_CALM));
    let mut raw = Raw::start(&proxy);
    let mut sent = 0;
    for n in 0..600 {
        sent = n;
        raw.send(open(2 * n + 1)).send(frame(PING, 0, 0, &[0; 8]));
        if raw.next_of(&[GOAWAY, PING]).is_none_or(|frame| frame.kind == GOAWAY) {
            break;
        }
        raw.send(cancel(2 * n + 1)).send(frame(PING, 0, 0, &[0; 8]));
        if raw.next_of(&[GOAWAY, PING]).is_none_or(|frame| frame.kind == GOAWAY) {
            break;
        }
    }
    assert!((200..=260).contains(&sent), "{sent}: half of 500 is enough");
    // Nobody else is troubled.
    assert!(Raw::start(&proxy).is_alive());
}

/// What was reset before anybody looked at it costs no server anything.
#[test]
fn row_15_what_is_reset_at_once_reaches_no_server() {
    let server = Server::start();
    let proxy = proxy_of(&server);
    let mut raw = Raw::start(&proxy);
    raw.send((0..50).flat_map(|n| [open(2 * n + 1), cancel(2 * n + 1)].concat()).collect::<Vec<_>>());
    let last = [(":method", "GET"), (":scheme", "http"), (":path", "/last"), (":authority", "x")];
    raw.send(frame(HEADERS, END_HEADERS | END_STREAM, 101, &fields(&last)));
    assert!(server.accept().head().starts_with("GET /last "));
    assert!(server.is_quiet());
}

/// CVE-2025-8671: streams that the server has to reset.
#[test]
fn row_16_made_you_reset() {
    let server = Server::start();
    let proxy = proxy_of(&server);
    for (what, bad) in [
        ("a window that overflows", frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffffu32.to_be_bytes())),
        ("a bad length", frame(DATA, END_STREAM, 0, b"four")),
        ("trailers without an end", frame(HEADERS, END_HEADERS, 0, &fields(&[("a", "b")]))),
    ] {
        let mut raw = Raw::start(&proxy);
        let block = request(&[("content-length", "3")]);
        let told = until_told(&mut raw, 1200, |n| {
            let stream = (2 * n + 1).to_be_bytes();
            let mut bad = bad.clone();
            bad[5..9].copy_from_slice(&stream);
            [frame(HEADERS, END_HEADERS, 2 * n + 1, &block), bad].concat()
        });
        assert!(told.is_some_and(|code| code != 0), "{what}");
    }
}

/// CVE-2024-27316 and its many relatives.
#[test]
fn row_17_continuation_flood() {
    let server = Server::start();
    let proxy = proxy_of(&server);
    for payload in
        [&b""[..], &fields(&[("a", "b")]), &fields(&[("a-name-of-some-length", &"v".repeat(100))]).repeat(100)]
    {
        let mut raw = Raw::start(&proxy);
        raw.send(frame(HEADERS, END_STREAM, 1, &request(&[])));
        let told = until_told(&mut raw, 1000, |_| frame(CONTINUATION, 0, 1, payload));
        assert_eq!(told, Some(ENHANCE_YOUR_CALM), "{} bytes each", payload.len());
    }
}

/// CVE-2019-9511 to 9518, CVE-2020-11080: frames that cost nothing to send.
#[test]
fn row_18_floods_of_cheap_frames() {
    let server = Server::start();
    let proxy = proxy_of(&server);
    let one = frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes());
    let table: Vec<(&str, Vec<u8>, Vec<u8>)> = vec![
        ("empty DATA", open(1), frame(DATA, 0, 1, b"")),
        ("PRIORITY", whole(1), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])),
        ("WINDOW_UPDATE", whole(1), one),
        ("empty HEADERS", Vec::new(), frame(HEADERS, 0, 1, b"")),
    ];
    for (what, first, again) in table {
        let mut raw = Raw::start(&proxy);
        raw.send(first);
        assert_eq!(until_told(&mut raw, 1000, |_| again.clone()), Some(ENHANCE_YOUR_CALM), "{what}");
    }
    // Small DATA costs more to take than to send as well.
    let mut raw = Raw::start(&proxy);
    raw.send(open(1));
    let told = until_told(&mut raw, 400_000, |_| frame(DATA, 0, 1, b"x"));
    assert_eq!(told, Some(ENHANCE_YOUR_CALM), "small DATA");
}

/// Whoever does not read answers to PING or SETTINGS is not read either: nothing piles up.
#[test]
fn row_18_answers_that_nobody_reads() {
    let server = Server::start();
    let proxy = proxy_of(&server);
    for again in [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[])] {
        let mut raw = Raw::start(&proxy);
        raw.0.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let many = again.repeat(10_000);
        let mut sent = 0;
        while sent < 512 && std::io::Write::write_all(&mut raw.0, &many).is_ok() {
            sent += 1;
        }
        assert!(sent < 512, "the proxy takes whatever comes");
    }
    assert!(Raw::start(&proxy).is_alive());
}

/// A header list may not be larger than the limit, however small it was sent.
#[test]
fn row_18_header_bombs() {
    let server = Server::start();
    let proxy = proxy_of(&server);
    // One large field put into the table, then named again and again: each name is one byte.
    let mut block = request(&[]);
    block.extend_from_slice(&[0x40, 1, b'a', 0x7f, 0x80 + (3900 - 127) as u8 % 128, ((3900 - 127) / 128) as u8]);
    block.extend_from_slice(&[b'v'; 3900]);
    block.extend_from_slice(&[0xbe; 12_000]);
    let mut raw = Raw::start(&proxy);
    raw.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block[..16_000.min(block.len())]));
    // Far beyond the limit it is not even read to its end, so that nobody holds what it stands for.
    let told = raw.next_of(&[GOAWAY, RST_STREAM, HEADERS]).unwrap();
    assert!(told.kind == GOAWAY && told.code() == ENHANCE_YOUR_CALM, "{told:?}");
    assert!(server.is_quiet());
}

/// CVE-2020-12604: streams whose responses nobody takes hold what they hold, and no more.
#[test]
fn row_19_stalled_readers() {
    let server = Server::start();
    let proxy = proxy_of(&server);
    let mut raw = Raw::silent(&proxy);
    // No credit for streams.
    raw.send(PREFACE).send(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
    for n in 0..6 {
        raw.send(whole(2 * n + 1));
    }
    let mut upstreams: Vec<_> = (0..6).map(|_| server.accept()).collect();
    for upstream in &mut upstreams {
        upstream.head();
        upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n");
        upstream.0.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut taken = 0;
        while taken < 64 && std::io::Write::write_all(&mut upstream.0, &[0; 1 << 20]).is_ok() {
            taken += 1;
        }
        assert!(taken < 64, "the proxy takes what its client does not");
    }
    // They go when the client does.
    drop(raw);
    for upstream in &mut upstreams {
        upstream.rest();
    }
}

/// A response that comes before the request's end leaves a connection that nobody may use again.
#[test]
fn row_08_a_request_that_was_not_read() {
    let server = Server::start();
    let proxy = proxy_of(&server);
    let mut raw = Raw::start(&proxy);
    raw.send(open(1)).send(frame(DATA, 0, 1, b"GET /smuggled HTTP/1.1\r\n"));
    let mut upstream = server.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let end = |raw: &mut Raw| loop {
        let frame = raw.next().unwrap();
        if frame.kind == DATA && frame.flags & END_STREAM != 0 {
            return;
        }
    };
    end(&mut raw);
    // The stream is over, the connection is not; the one to the server is.
    raw.send(whole(3));
    let mut other = server.accept();
    assert!(other.head().starts_with("POST / "));
    other.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    end(&mut raw);
    upstream.rest();
}

/// What a server sends behind its response is no response to the next request.
#[test]
fn row_09_a_response_too_many() {
    let server = Server::start();
    let proxy = proxy_of(&server);
    let mut raw = Raw::start(&proxy);
    raw.send(whole(1));
    let mut upstream = server.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil");
    assert_eq!(raw.next_of(&[DATA]).unwrap().payload, b"ok");
    raw.send(whole(3));
    let mut other = server.accept();
    other.head();
    other.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood");
    assert_eq!(raw.next_of(&[DATA]).unwrap().payload, b"good");
}

/// CVE-2023-27491 and the like: what means nothing in HTTP/2 may mean something in HTTP/1.
#[test]
fn row_06_a_request_that_changes_its_meaning() {
    let server = Server::start();
    let proxy = proxy_of(&server);
    let smuggled = "x\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x";
    let line = |name: &'static str, value: &'static str| {
        let mut all = vec![(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "x")];
        match all.iter_mut().find(|(n, _)| *n == name) {
            Some((_, old)) => *old = value,
            None => all.push((name, value)),
        }
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&all))
    };
    let hosted = |host| {
        let all = [(":method", "POST"), (":scheme", "http"), (":path", "/"), ("host", host)];
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&all))
    };
    let length = frame(HEADERS, END_HEADERS, 1, &request(&[("content-length", "1")]));
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("a line break in a value", line("a", "x\r\nb: c")),
        ("a line break in the path", line(":path", "/ HTTP/1.1\r\na: b")),
        ("a space in the path", line(":path", "/a HTTP/1.1")),
        ("a line break in the method", line(":method", "GET / HTTP/1.1\r\na: b")),
        ("a space in the method", line(":method", "GET /a")),
        ("a line break in the authority", line(":authority", smuggled)),
        ("a space in the authority", line(":authority", "a b")),
        ("a slash in the authority", line(":authority", "a/b")),
        ("a space in the host that stands for it", hosted("a b")),
        ("a slash in the host that stands for it", hosted("a/b")),
        ("letters in the path that need an escape", line(":path", "/\u{e9}")),
        ("a line break in the scheme", line(":scheme", "http\r\na: b")),
        ("chunked", line("transfer-encoding", "chunked")),
        ("connection", line("connection", "content-length")),
        ("a longer body", [length.clone(), frame(DATA, END_STREAM, 1, b"GET /smuggled HTTP/1.1\r\n\r\n")].concat()),
        ("a name with a colon", line("a:b", "c")),
        ("a name with a line break", line("a\r\nb", "c")),
        ("an upper-case name", line("Content-Length", "5")),
        ("a signed length", line("content-length", "+0")),
        ("a path that is none", line(":path", "a")),
    ];
    for (what, frames) in table {
        let mut raw = Raw::start(&proxy);
        raw.send(frames);
        match raw.next_of(&[GOAWAY, RST_STREAM, HEADERS]) {
            // A status of the proxy's own: 400 stands in HPACK's table.
            Some(answer) if answer.kind == HEADERS => assert_eq!(answer.payload[0], 0x8c, "{what}"),
            told => assert!(told.is_some(), "{what}"),
        }
        assert!(raw.0.shutdown(std::net::Shutdown::Both).is_ok());
        if let Some(mut upstream) = server.try_accept() {
            assert_eq!(what, "a longer body", "it reaches the server");
            let got = String::from_utf8(upstream.rest()).unwrap();
            assert!(!got.contains("smuggled"), "{got}");
        }
    }
}
