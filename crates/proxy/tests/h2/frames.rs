//! What a client may not do, frame by frame, and the code it is told (RFC 9113 §4 to §6, §8).

use maille_xds::types::UInt32Value;
use maille_xds::types::core::Http2ProtocolOptions;

use crate::raw::*;
use crate::script::{Proxy, Server};

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const COMPRESSION_ERROR: u32 = 9;

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// The connection ends.
    Connection(u32),
    /// A stream does.
    Stream(u32, u32),
    /// Nothing.
    Nothing,
}

use Told::{Connection, Nothing, Stream};

fn told(proxy: &Proxy, frames: &[Vec<u8>]) -> Told {
    let mut raw = Raw::start(proxy);
    for bytes in frames {
        raw.send(bytes);
    }
    // Answers to PINGs overtake others; what there is to say has been said when the second one comes.
    raw.send(frame(PING, 0, 0, b"the end?"));
    loop {
        match raw.next() {
            Some(frame) if frame.kind == GOAWAY => return Connection(frame.code()),
            Some(frame) if frame.kind == RST_STREAM => return Stream(frame.stream, frame.code()),
            Some(frame) if frame.kind == PING && frame.payload == b"the end." => return Nothing,
            Some(frame) if frame.kind == PING => {
                raw.send(self::frame(PING, 0, 0, b"the end."));
            }
            Some(_) => {}
            None => return Connection(u32::MAX),
        }
    }
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn window(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

fn with(more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &request(more))
}

fn only(list: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(list))
}

/// Where the codec says something else than the RFC demands, never less: it ends the connection where a stream would do, or drops what may not be there.
/// Whatever is wrong with a header block but its meaning ends the connection, as it does in Envoy unless told otherwise.
const INSTEAD: &[(&str, Told)] = &[
    ("4.3 what is not HPACK", Connection(PROTOCOL_ERROR)),
    ("4.3 an index that is not there", Connection(PROTOCOL_ERROR)),
    ("5.1 DATA after the end", Connection(PROTOCOL_ERROR)),
    ("5.1 HEADERS after the end", Connection(PROTOCOL_ERROR)),
    ("5.1 HEADERS after a reset", Connection(PROTOCOL_ERROR)),
    ("6.9 no credit for a stream", Connection(PROTOCOL_ERROR)),
    ("8.1 trailers with a pseudo-header", Nothing),
    ("8.2.1 an upper-case name", Connection(PROTOCOL_ERROR)),
    ("8.2.1 a line break in a value", Connection(PROTOCOL_ERROR)),
    ("8.2.1 NUL in a value", Connection(PROTOCOL_ERROR)),
    ("8.2.1 a space in a name", Connection(PROTOCOL_ERROR)),
    ("8.2.1 a colon in a name", Connection(PROTOCOL_ERROR)),
    ("8.2.1 a name of nothing", Connection(PROTOCOL_ERROR)),
    ("8.3 a pseudo-header that does not exist", Connection(PROTOCOL_ERROR)),
];

#[test]
fn every_error_has_its_code() {
    let reset = frame(RST_STREAM, 0, 1, &8u32.to_be_bytes());
    let half = request(&[]);
    let (first, rest) = half.split_at(10);
    let zero = 0u32.to_be_bytes();
    let table: Vec<(&str, Vec<Vec<u8>>, Told)> = vec![
        ("a request", vec![whole(1)], Nothing),
        ("4.1 an unknown frame", vec![frame(0x42, 0xff, 7, b"whatever")], Nothing),
        ("4.2 a frame above the limit", vec![open(1), frame(DATA, 0, 1, &[0; 16385])], Connection(FRAME_SIZE_ERROR)),
        ("4.3 what is not HPACK", vec![frame(HEADERS, END_HEADERS, 1, &[0xff; 8])], Connection(COMPRESSION_ERROR)),
        (
            "4.3 an index that is not there",
            vec![frame(HEADERS, END_HEADERS, 1, &[0xbf])],
            Connection(COMPRESSION_ERROR),
        ),
        (
            "4.3 another frame within a block",
            vec![frame(HEADERS, 0, 1, first), frame(PING, 0, 0, &[0; 8])],
            Connection(PROTOCOL_ERROR),
        ),
        ("5.1 DATA on an idle stream", vec![frame(DATA, 0, 1, b"x")], Connection(PROTOCOL_ERROR)),
        ("5.1 RST_STREAM on an idle stream", vec![reset.clone()], Connection(PROTOCOL_ERROR)),
        ("5.1 WINDOW_UPDATE on an idle stream", vec![window(1, 1)], Connection(PROTOCOL_ERROR)),
        ("5.1 PRIORITY on an idle stream", vec![frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 1])], Nothing),
        ("5.1 DATA after the end", vec![whole(1), frame(DATA, 0, 1, b"x")], Stream(1, STREAM_CLOSED)),
        ("5.1 HEADERS after the end", vec![whole(1), whole(1)], Stream(1, STREAM_CLOSED)),
        ("5.1 HEADERS after a reset", vec![open(1), reset.clone(), whole(1)], Connection(STREAM_CLOSED)),
        ("5.1 WINDOW_UPDATE after a reset", vec![open(1), reset.clone(), window(1, 1)], Nothing),
        ("5.1.1 a stream of the server's", vec![whole(2)], Connection(PROTOCOL_ERROR)),
        ("5.1.1 a stream that was passed over", vec![whole(5), whole(3)], Connection(PROTOCOL_ERROR)),
        (
            "5.1.2 more streams than may be",
            vec![open(1), open(3), open(5), open(7), open(9)],
            Stream(9, REFUSED_STREAM),
        ),
        ("6.1 DATA on the connection", vec![frame(DATA, 0, 0, b"x")], Connection(PROTOCOL_ERROR)),
        ("6.1 more padding than there is", vec![open(1), frame(DATA, PADDED, 1, &[9, 0])], Connection(PROTOCOL_ERROR)),
        (
            "6.2 HEADERS on the connection",
            vec![frame(HEADERS, END_HEADERS, 0, &request(&[]))],
            Connection(PROTOCOL_ERROR),
        ),
        (
            "6.2 more padding than there is",
            vec![frame(HEADERS, END_HEADERS | PADDED, 1, &[200, 0x82])],
            Connection(PROTOCOL_ERROR),
        ),
        (
            "5.3 a stream that depends on itself",
            vec![frame(
                HEADERS,
                END_HEADERS | END_STREAM | PRIORITIZED,
                1,
                &[&[0, 0, 0, 1, 9], &request(&[])[..]].concat(),
            )],
            Stream(1, PROTOCOL_ERROR),
        ),
        ("6.3 PRIORITY on the connection", vec![frame(PRIORITY, 0, 0, &[0; 5])], Connection(PROTOCOL_ERROR)),
        ("6.3 PRIORITY of another size", vec![open(1), frame(PRIORITY, 0, 1, &[0; 4])], Connection(FRAME_SIZE_ERROR)),
        ("6.4 RST_STREAM on the connection", vec![frame(RST_STREAM, 0, 0, &zero)], Connection(PROTOCOL_ERROR)),
        (
            "6.4 RST_STREAM of another size",
            vec![open(1), frame(RST_STREAM, 0, 1, &[0; 3])],
            Connection(FRAME_SIZE_ERROR),
        ),
        ("6.5 SETTINGS on a stream", vec![frame(SETTINGS, 0, 1, &[])], Connection(PROTOCOL_ERROR)),
        ("6.5 SETTINGS of another size", vec![frame(SETTINGS, 0, 0, &[0; 5])], Connection(FRAME_SIZE_ERROR)),
        ("6.5 an ACK that says something", vec![frame(SETTINGS, ACK, 0, &[0; 6])], Connection(FRAME_SIZE_ERROR)),
        ("6.5.2 ENABLE_PUSH neither 0 nor 1", vec![setting(2, 2)], Connection(PROTOCOL_ERROR)),
        ("6.5.2 a window above the largest", vec![setting(4, 1 << 31)], Connection(FLOW_CONTROL_ERROR)),
        ("6.5.2 frames too small", vec![setting(5, 16383)], Connection(PROTOCOL_ERROR)),
        ("6.5.2 frames too large", vec![setting(5, 1 << 24)], Connection(PROTOCOL_ERROR)),
        ("6.5.2 an unknown setting", vec![setting(0x4242, 1)], Nothing),
        (
            "6.6 a promise from a client",
            vec![open(1), frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82])],
            Connection(PROTOCOL_ERROR),
        ),
        ("6.7 PING on a stream", vec![frame(PING, 0, 1, &[0; 8])], Connection(PROTOCOL_ERROR)),
        ("6.7 PING of another size", vec![frame(PING, 0, 0, &[0; 7])], Connection(FRAME_SIZE_ERROR)),
        ("6.8 GOAWAY on a stream", vec![frame(GOAWAY, 0, 1, &[0; 8])], Connection(PROTOCOL_ERROR)),
        ("6.8 GOAWAY too small", vec![frame(GOAWAY, 0, 0, &[0; 4])], Connection(FRAME_SIZE_ERROR)),
        ("6.9 no credit for the connection", vec![window(0, 0)], Connection(PROTOCOL_ERROR)),
        ("6.9 no credit for a stream", vec![open(1), window(1, 0)], Stream(1, PROTOCOL_ERROR)),
        ("6.9 WINDOW_UPDATE of another size", vec![frame(WINDOW_UPDATE, 0, 0, &[0; 3])], Connection(FRAME_SIZE_ERROR)),
        ("6.9.1 too much credit for the connection", vec![window(0, 0x7fff_ffff)], Connection(FLOW_CONTROL_ERROR)),
        ("6.9.1 too much credit for a stream", vec![open(1), window(1, 0x7fff_ffff)], Stream(1, FLOW_CONTROL_ERROR)),
        (
            "6.9.2 too much by a setting",
            vec![open(1), window(1, 1), setting(4, 0x7fff_ffff)],
            Connection(FLOW_CONTROL_ERROR),
        ),
        (
            "6.9.1 more data than there is credit for",
            (0..8).map(|_| frame(DATA, 0, 1, &[0; 16384])).fold(vec![open(1)], |mut all, data| {
                all.push(data);
                all
            }),
            Connection(FLOW_CONTROL_ERROR),
        ),
        ("6.10 CONTINUATION of nothing", vec![frame(CONTINUATION, END_HEADERS, 1, first)], Connection(PROTOCOL_ERROR)),
        (
            "6.10 CONTINUATION after the end",
            vec![whole(1), frame(CONTINUATION, END_HEADERS, 1, rest)],
            Connection(PROTOCOL_ERROR),
        ),
        (
            "6.10 CONTINUATION of another stream",
            vec![frame(HEADERS, 0, 1, first), frame(CONTINUATION, END_HEADERS, 3, rest)],
            Connection(PROTOCOL_ERROR),
        ),
        (
            "6.10 CONTINUATION as it should be",
            vec![frame(HEADERS, END_STREAM, 1, first), frame(CONTINUATION, END_HEADERS, 1, rest)],
            Nothing,
        ),
        (
            "8.1 trailers without an end",
            vec![open(1), frame(HEADERS, END_HEADERS, 1, &fields(&[("a", "b")]))],
            Stream(1, PROTOCOL_ERROR),
        ),
        (
            "8.1 trailers with a pseudo-header",
            vec![open(1), frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&[(":path", "/")]))],
            Stream(1, PROTOCOL_ERROR),
        ),
        (
            "8.1.1 less data than was said",
            vec![
                frame(HEADERS, END_HEADERS, 1, &request(&[("content-length", "5")])),
                frame(DATA, END_STREAM, 1, b"four"),
            ],
            Stream(1, PROTOCOL_ERROR),
        ),
        (
            "8.1.1 more data than was said",
            vec![
                frame(HEADERS, END_HEADERS, 1, &request(&[("content-length", "3")])),
                frame(DATA, END_STREAM, 1, b"four"),
            ],
            Stream(1, PROTOCOL_ERROR),
        ),
        (
            "8.1.1 two lengths",
            vec![with(&[("content-length", "0"), ("content-length", "1")])],
            Stream(1, PROTOCOL_ERROR),
        ),
        ("8.2.1 an upper-case name", vec![with(&[("X-A", "1")])], Stream(1, PROTOCOL_ERROR)),
        ("8.2.1 a line break in a value", vec![with(&[("a", "b\r\nc: d")])], Stream(1, PROTOCOL_ERROR)),
        ("8.2.1 NUL in a value", vec![with(&[("a", "b\0")])], Stream(1, PROTOCOL_ERROR)),
        ("8.2.1 a space in a name", vec![with(&[("a b", "c")])], Stream(1, PROTOCOL_ERROR)),
        ("8.2.1 a colon in a name", vec![with(&[("a:b", "c")])], Stream(1, PROTOCOL_ERROR)),
        ("8.2.1 a name of nothing", vec![with(&[("", "c")])], Stream(1, PROTOCOL_ERROR)),
        ("8.2.2 connection", vec![with(&[("connection", "close")])], Stream(1, PROTOCOL_ERROR)),
        ("8.2.2 transfer-encoding", vec![with(&[("transfer-encoding", "chunked")])], Stream(1, PROTOCOL_ERROR)),
        ("8.2.2 upgrade", vec![with(&[("upgrade", "x")])], Stream(1, PROTOCOL_ERROR)),
        ("8.2.2 keep-alive", vec![with(&[("keep-alive", "1")])], Stream(1, PROTOCOL_ERROR)),
        ("8.2.2 te", vec![with(&[("te", "gzip")])], Stream(1, PROTOCOL_ERROR)),
        ("8.2.2 te: trailers", vec![with(&[("te", "trailers")])], Nothing),
        ("8.3 a pseudo-header that does not exist", vec![with(&[(":nobody", "1")])], Stream(1, PROTOCOL_ERROR)),
        (
            "8.3 a pseudo-header behind others",
            vec![only(&[(":method", "GET"), ("a", "b"), (":scheme", "http"), (":path", "/"), (":authority", "x")])],
            Stream(1, PROTOCOL_ERROR),
        ),
        ("8.3 a response's pseudo-header", vec![with(&[(":status", "200")])], Stream(1, PROTOCOL_ERROR)),
        (
            "8.3.1 two methods",
            vec![only(&[
                (":method", "GET"),
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "/"),
                (":authority", "x"),
            ])],
            Stream(1, PROTOCOL_ERROR),
        ),
        (
            "8.3.1 no method",
            vec![only(&[(":scheme", "http"), (":path", "/"), (":authority", "x")])],
            Stream(1, PROTOCOL_ERROR),
        ),
        (
            "8.3.1 no scheme",
            vec![only(&[(":method", "GET"), (":path", "/"), (":authority", "x")])],
            Stream(1, PROTOCOL_ERROR),
        ),
        (
            "8.3.1 no path",
            vec![only(&[(":method", "GET"), (":scheme", "http"), (":authority", "x")])],
            Stream(1, PROTOCOL_ERROR),
        ),
        (
            "8.3.1 an empty path",
            vec![only(&[(":method", "GET"), (":scheme", "http"), (":path", ""), (":authority", "x")])],
            Stream(1, PROTOCOL_ERROR),
        ),
        (
            "8.3.1 a path with a space",
            vec![only(&[(":method", "GET"), (":scheme", "http"), (":path", "/a b"), (":authority", "x")])],
            Stream(1, PROTOCOL_ERROR),
        ),
        (
            "8.5 CONNECT with a path",
            vec![only(&[(":method", "CONNECT"), (":path", "/"), (":authority", "x:1")])],
            Stream(1, PROTOCOL_ERROR),
        ),
        (
            "8441 a protocol where none may be",
            vec![only(&[
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "http"),
                (":path", "/"),
                (":authority", "x"),
            ])],
            Stream(1, PROTOCOL_ERROR),
        ),
    ];
    let server = Server::start();
    let proxy = Proxy::with(&server, |manager, _| {
        manager.http2_protocol_options = Some(Http2ProtocolOptions {
            max_concurrent_streams: Some(UInt32Value { value: 4 }),
            initial_stream_window_size: Some(UInt32Value { value: 65535 }),
            initial_connection_window_size: Some(UInt32Value { value: 1 << 20 }),
            ..Default::default()
        });
    });
    let mut wrong = Vec::new();
    for (what, frames, expected) in &table {
        let got = told(&proxy, frames);
        let expected = INSTEAD.iter().find(|(name, _)| name == what).map_or(expected, |(_, instead)| instead);
        if got != *expected {
            wrong.push(format!("{what}: {got:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The preface is not to be departed from.
#[test]
fn a_preface_that_is_none() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let mut raw = Raw::silent(&proxy);
    raw.send(PREFACE).send(frame(PING, 0, 0, &[0; 8]));
    assert_eq!(raw.next_of(&[GOAWAY]).map(|frame| frame.code()), Some(PROTOCOL_ERROR));
    // What only begins like it is a bad request.
    let mut raw = Raw::silent(&proxy);
    raw.send(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
    let mut got = String::new();
    std::io::Read::read_to_string(&mut raw.0, &mut got).unwrap();
    assert!(got.starts_with("HTTP/1.1 "), "{got}");
}
