//! What a client may not do, frame by frame, and the code it is told (RFC 9113 §4 to §6, §8): every error of those sections, and every frame in every
//! state that a stream may be in.

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
    said(&mut raw)
}

/// What has been said by now.
fn said(raw: &mut Raw) -> Told {
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

/// Where a stream error is treated as a connection error, with the same code: "an endpoint MAY choose to treat a stream error as a connection error"
/// (§5.4.1). After its end a stream is one that nobody knows any more, a block that the codec cannot read has no stream yet, and what is said of
/// priorities counts for nothing. Of none of them Envoy 1.40 makes a stream error either: it ends the connection, over a field without a word, and says
/// nothing at all of what comes after a stream's end.
const AS_CONNECTION_ERROR: &[&str] = &[
    "5.1 DATA after the end",
    "5.1 HEADERS after the end",
    "6.3 PRIORITY too small",
    "6.3 PRIORITY too large",
    "8.2.1 an upper-case name",
    "8.2.1 a line break in a value",
    "8.2.1 NUL in a value",
    "8.2.1 a space in a name",
    "8.2.1 a colon in a name",
    "8.2.1 a name of nothing",
    "8.3 a pseudo-header that does not exist",
];

/// What is to be told, where the RFC leaves a choice as well.
fn demanded(what: &str, demanded: Told) -> Told {
    match demanded {
        Stream(_, code) if AS_CONNECTION_ERROR.contains(&what) => Connection(code),
        other => other,
    }
}

#[test]
fn every_error_has_its_code() {
    let reset = frame(RST_STREAM, 0, 1, &8u32.to_be_bytes());
    let half = request(&[]);
    let (first, rest) = half.split_at(10);
    let zero = 0u32.to_be_bytes();
    let within = |other: &[u8]| vec![frame(HEADERS, 0, 1, first), other.to_vec()];
    let larger = [&[0x3f, 0xe2, 0x1f], &half[..]].concat();
    // A name of one letter, "a", whose last bits are not ones.
    let huffman = [&half[..], &[0, 0x81, 0x18, 1, b'b']].concat();
    let pushed = [&[0, 0, 0, 2][..], &half].concat();
    let table: Vec<(&str, Vec<Vec<u8>>, Told)> = vec![
        ("a request", vec![whole(1)], Nothing),
        ("4.1 an unknown frame", vec![frame(0x42, 0xff, 7, b"whatever")], Nothing),
        ("4.1 flags that mean nothing", vec![frame(HEADERS, 0xd7, 1, &request(&[]))], Nothing),
        ("4.1 the reserved bit", vec![frame(HEADERS, END_HEADERS | END_STREAM, 1 << 31 | 1, &request(&[]))], Nothing),
        (
            "4.2 HEADERS above the limit",
            vec![frame(HEADERS, END_HEADERS, 1, &[0; 16385])],
            Connection(FRAME_SIZE_ERROR),
        ),
        ("4.2 SETTINGS above the limit", vec![frame(SETTINGS, 0, 0, &[0; 16386])], Connection(FRAME_SIZE_ERROR)),
        ("4.2 an unknown frame above the limit", vec![frame(0x42, 0, 0, &[0; 16385])], Connection(FRAME_SIZE_ERROR)),
        ("4.2 DATA without its pad length", vec![open(1), frame(DATA, PADDED, 1, &[])], Connection(FRAME_SIZE_ERROR)),
        (
            "4.2 HEADERS without their pad length",
            vec![frame(HEADERS, END_HEADERS | PADDED, 1, &[])],
            Connection(FRAME_SIZE_ERROR),
        ),
        (
            "4.2 HEADERS without all of their priority",
            vec![frame(HEADERS, END_HEADERS | PADDED | PRIORITIZED, 1, &[0; 5])],
            Connection(FRAME_SIZE_ERROR),
        ),
        ("4.2 a frame above the limit", vec![open(1), frame(DATA, 0, 1, &[0; 16385])], Connection(FRAME_SIZE_ERROR)),
        ("4.3 what is not HPACK", vec![frame(HEADERS, END_HEADERS, 1, &[0xff; 8])], Connection(COMPRESSION_ERROR)),
        (
            "4.3 an index that is not there",
            vec![frame(HEADERS, END_HEADERS, 1, &[0xbf])],
            Connection(COMPRESSION_ERROR),
        ),
        (
            "4.3 a block that stops short",
            vec![frame(HEADERS, END_HEADERS, 1, &half[..9])],
            Connection(COMPRESSION_ERROR),
        ),
        (
            "4.3 a table larger than may be",
            vec![frame(HEADERS, END_HEADERS, 1, &larger)],
            Connection(COMPRESSION_ERROR),
        ),
        ("4.3 a padding that is none", vec![frame(HEADERS, END_HEADERS, 1, &huffman)], Connection(COMPRESSION_ERROR)),
        ("4.3 another frame within a block", within(&frame(PING, 0, 0, &[0; 8])), Connection(PROTOCOL_ERROR)),
        ("4.3 SETTINGS within a block", within(&frame(SETTINGS, 0, 0, &[])), Connection(PROTOCOL_ERROR)),
        ("5.5 an unknown frame within a block", within(&frame(0x42, 0, 1, &[])), Connection(PROTOCOL_ERROR)),
        ("5.5 an unknown error code", vec![open(1), frame(RST_STREAM, 0, 1, &0x4242u32.to_be_bytes())], Nothing),
        ("6.2 HEADERS within a block", within(&whole(3)), Connection(PROTOCOL_ERROR)),
        ("6.2 HEADERS of the same stream within a block", within(&whole(1)), Connection(PROTOCOL_ERROR)),
        ("6.2 DATA within a block", within(&frame(DATA, 0, 1, b"x")), Connection(PROTOCOL_ERROR)),
        ("6.3 PRIORITY within a block", within(&frame(PRIORITY, 0, 1, &[0; 5])), Connection(PROTOCOL_ERROR)),
        ("6.4 RST_STREAM within a block", within(&reset), Connection(PROTOCOL_ERROR)),
        ("6.9 WINDOW_UPDATE within a block", within(&window(0, 1)), Connection(PROTOCOL_ERROR)),
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
        (
            "6.1 padding of all that is there",
            vec![open(1), frame(DATA, PADDED, 1, &[3, 0, 0])],
            Connection(PROTOCOL_ERROR),
        ),
        ("6.1 nothing but padding", vec![open(1), frame(DATA, PADDED, 1, &[2, 0, 0])], Nothing),
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
        ("6.3 PRIORITY too small", vec![open(1), frame(PRIORITY, 0, 1, &[0; 4])], Stream(1, FRAME_SIZE_ERROR)),
        ("6.3 PRIORITY too large", vec![open(1), frame(PRIORITY, 0, 1, &[0; 6])], Stream(1, FRAME_SIZE_ERROR)),
        (
            "6.2 padding of all that is there",
            vec![frame(HEADERS, END_HEADERS | PADDED, 1, &[&[half.len() as u8 + 1], &half[..]].concat())],
            Connection(PROTOCOL_ERROR),
        ),
        (
            "6.2 padding",
            vec![frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, &[&[3], &half[..], &[0; 3]].concat())],
            Nothing,
        ),
        ("6.4 RST_STREAM on the connection", vec![frame(RST_STREAM, 0, 0, &zero)], Connection(PROTOCOL_ERROR)),
        ("6.4 RST_STREAM too small", vec![open(1), frame(RST_STREAM, 0, 1, &[0; 3])], Connection(FRAME_SIZE_ERROR)),
        ("6.4 RST_STREAM too large", vec![open(1), frame(RST_STREAM, 0, 1, &[0; 5])], Connection(FRAME_SIZE_ERROR)),
        ("6.5 SETTINGS on a stream", vec![frame(SETTINGS, 0, 1, &[])], Connection(PROTOCOL_ERROR)),
        ("6.5 SETTINGS of another size", vec![frame(SETTINGS, 0, 0, &[0; 5])], Connection(FRAME_SIZE_ERROR)),
        ("6.5 an ACK that says something", vec![frame(SETTINGS, ACK, 0, &[0; 6])], Connection(FRAME_SIZE_ERROR)),
        ("6.5.2 ENABLE_PUSH neither 0 nor 1", vec![setting(2, 2)], Connection(PROTOCOL_ERROR)),
        ("6.5.2 a window above the largest", vec![setting(4, 1 << 31)], Connection(FLOW_CONTROL_ERROR)),
        ("6.5.2 frames too small", vec![setting(5, 16383)], Connection(PROTOCOL_ERROR)),
        ("6.5.2 frames too large", vec![setting(5, 1 << 24)], Connection(PROTOCOL_ERROR)),
        ("6.5 an ACK on a stream", vec![frame(SETTINGS, ACK, 1, &[])], Connection(PROTOCOL_ERROR)),
        ("6.5.2 no table", vec![setting(1, 0), whole(1)], Nothing),
        ("6.5.2 a table without end", vec![setting(1, u32::MAX), whole(1)], Nothing),
        ("6.5.2 the largest window", vec![setting(4, (1 << 31) - 1), whole(1)], Nothing),
        ("6.5.2 the largest frames", vec![setting(5, (1 << 24) - 1), whole(1)], Nothing),
        ("8441 ENABLE_CONNECT_PROTOCOL neither 0 nor 1", vec![setting(8, 2)], Connection(PROTOCOL_ERROR)),
        ("6.5.2 an unknown setting", vec![setting(0x4242, 1)], Nothing),
        (
            "6.6 a promise from a client",
            vec![open(1), frame(PUSH_PROMISE, END_HEADERS, 1, &pushed)],
            Connection(PROTOCOL_ERROR),
        ),
        (
            "6.6 a promise on the connection",
            vec![frame(PUSH_PROMISE, END_HEADERS, 0, &pushed)],
            Connection(PROTOCOL_ERROR),
        ),
        ("6.7 an answer to no PING", vec![frame(PING, ACK, 0, &[7; 8])], Nothing),
        ("6.7 PING too large", vec![frame(PING, 0, 0, &[0; 9])], Connection(FRAME_SIZE_ERROR)),
        ("6.7 PING on a stream", vec![frame(PING, 0, 1, &[0; 8])], Connection(PROTOCOL_ERROR)),
        ("6.7 PING of another size", vec![frame(PING, 0, 0, &[0; 7])], Connection(FRAME_SIZE_ERROR)),
        ("6.8 GOAWAY on a stream", vec![frame(GOAWAY, 0, 1, &[0; 8])], Connection(PROTOCOL_ERROR)),
        ("6.8 GOAWAY too small", vec![frame(GOAWAY, 0, 0, &[0; 4])], Connection(FRAME_SIZE_ERROR)),
        ("6.9 no credit for the connection", vec![window(0, 0)], Connection(PROTOCOL_ERROR)),
        ("6.9 no credit for a stream", vec![open(1), window(1, 0)], Stream(1, PROTOCOL_ERROR)),
        ("6.9 no credit for a stream that has ended", vec![whole(1), window(1, 0)], Stream(1, PROTOCOL_ERROR)),
        ("6.9 no credit for an idle stream", vec![window(1, 0)], Connection(PROTOCOL_ERROR)),
        (
            "6.9 WINDOW_UPDATE too large",
            vec![frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1, 0])],
            Connection(FRAME_SIZE_ERROR),
        ),
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
        (
            "6.10 CONTINUATION on the connection",
            vec![frame(HEADERS, 0, 1, first), frame(CONTINUATION, END_HEADERS, 0, rest)],
            Connection(PROTOCOL_ERROR),
        ),
        (
            "6.10 CONTINUATION behind DATA",
            vec![open(1), frame(DATA, 0, 1, b"x"), frame(CONTINUATION, END_HEADERS, 1, rest)],
            Connection(PROTOCOL_ERROR),
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
    let proxy = proxy_of(&server);
    let mut wrong = Vec::new();
    for (what, frames, expected) in &table {
        let got = told(&proxy, frames);
        let expected = demanded(what, *expected);
        if got != expected {
            wrong.push(format!("{what}: {got:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn proxy_of(server: &Server) -> Proxy {
    Proxy::with(server, |manager, _| {
        manager.http2_protocol_options = Some(Http2ProtocolOptions {
            max_concurrent_streams: Some(UInt32Value { value: 4 }),
            initial_stream_window_size: Some(UInt32Value { value: 65535 }),
            initial_connection_window_size: Some(UInt32Value { value: 1 << 20 }),
            ..Default::default()
        });
    })
}

/// A state that a stream may be in (§5.1), as far as a client can bring it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// A number that only a server may use.
    Servers,
    Open,
    /// The client has ended it, the server not.
    HalfClosed,
    /// Both have.
    Ended,
    /// The client has reset it.
    Reset,
    /// The server has answered before the request's end, and has reset it then.
    ResetByServer,
    /// It was passed over.
    Skipped,
}

impl State {
    /// Brings a stream there: its number.
    fn reach(self, raw: &mut Raw, server: &Server) -> u32 {
        let answer = |raw: &mut Raw| {
            let mut upstream = server.accept();
            upstream.head();
            upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
            while raw.next_of(&[DATA, HEADERS]).unwrap().flags & END_STREAM == 0 {}
        };
        match self {
            State::Idle => return 1,
            State::Servers => return 2,
            State::Open => drop(raw.send(open(1))),
            State::HalfClosed => drop(raw.send(whole(1))),
            State::Ended => {
                raw.send(whole(1));
                answer(raw);
            }
            State::Reset => drop(raw.send(open(1)).send(frame(RST_STREAM, 0, 1, &8u32.to_be_bytes()))),
            State::ResetByServer => {
                raw.send(open(1));
                answer(raw);
                assert_eq!(raw.next_of(&[RST_STREAM]).unwrap().stream, 1);
            }
            State::Skipped => {
                raw.send(whole(5));
                return 3;
            }
        }
        1
    }
}

/// §5.1 and §5.1.1: each frame in each state.
#[test]
fn every_frame_in_every_state() {
    use State::*;
    let protocol = Connection(PROTOCOL_ERROR);
    // §5.1: "An endpoint MAY treat receipt of any other type of frame on a closed stream as a connection error of type STREAM_CLOSED"; what is half
    // closed demands a stream error of it, which may be treated as one of the connection (§5.4.1).
    let closed = Connection(STREAM_CLOSED);
    let trailers = fields(&[("a", "b")]);
    type Frames<'a> = (&'a str, &'a dyn Fn(u32) -> Vec<u8>, &'a dyn Fn(State, u32) -> Told);
    let table: &[Frames<'_>] = &[
        ("DATA", &|n| frame(DATA, 0, n, b"x"), &|state, n| match state {
            Idle | Servers => protocol,
            Open | ResetByServer => Nothing,
            HalfClosed | Ended | Reset => closed,
            Skipped => Stream(n, STREAM_CLOSED),
        }),
        ("the last DATA", &|n| frame(DATA, END_STREAM, n, b""), &|state, n| match state {
            Idle | Servers => protocol,
            Open | ResetByServer => Nothing,
            HalfClosed | Ended | Reset => closed,
            Skipped => Stream(n, STREAM_CLOSED),
        }),
        ("HEADERS", &|n| whole(n), &|state, n| match state {
            Idle | ResetByServer => Nothing,
            // It was passed over: the number is not greater than all before (§5.1.1).
            Servers | Skipped => protocol,
            // Trailers have no pseudo-headers.
            Open => Stream(n, PROTOCOL_ERROR),
            HalfClosed | Ended | Reset => closed,
        }),
        ("trailers", &|n| frame(HEADERS, END_HEADERS | END_STREAM, n, &trailers), &|state, n| match state {
            // A request without pseudo-headers.
            Idle => Stream(n, PROTOCOL_ERROR),
            Open | ResetByServer => Nothing,
            Servers | Skipped => protocol,
            HalfClosed | Ended | Reset => closed,
        }),
        ("PRIORITY", &|n| frame(PRIORITY, 0, n, &[0, 0, 0, 0, 1]), &|_, _| Nothing),
        ("RST_STREAM", &|n| frame(RST_STREAM, 0, n, &8u32.to_be_bytes()), &|state, _| match state {
            Idle | Servers => protocol,
            _ => Nothing,
        }),
        ("WINDOW_UPDATE", &|n| window(n, 1), &|state, _| match state {
            Idle | Servers => protocol,
            _ => Nothing,
        }),
        ("PUSH_PROMISE", &|n| frame(PUSH_PROMISE, END_HEADERS, n, &[0, 0, 0, 2, 0x82]), &|_, _| protocol),
        ("CONTINUATION", &|n| frame(CONTINUATION, END_HEADERS, n, &trailers), &|_, _| protocol),
        ("an unknown frame", &|n| frame(0x42, 0, n, b"whatever"), &|_, _| Nothing),
    ];
    let mut wrong = Vec::new();
    for state in [Idle, Servers, Open, HalfClosed, Ended, Reset, ResetByServer, Skipped] {
        for (what, make, expected) in table {
            // What comes to a server belongs to this case.
            let server = Server::start();
            let proxy = proxy_of(&server);
            let mut raw = Raw::start(&proxy);
            let stream = state.reach(&mut raw, &server);
            raw.send(make(stream));
            let (got, expected) = (said(&mut raw), expected(state, stream));
            if got != expected {
                wrong.push(format!("{state:?}, {what}: {got:?}, not {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// §6.5.3: every SETTINGS is acknowledged, in order; §6.7: every PING is answered with what it says.
#[test]
fn settings_and_pings_are_answered() {
    let server = Server::start();
    let proxy = proxy_of(&server);
    let mut raw = Raw::start(&proxy);
    for n in 0..8u8 {
        raw.send(setting(4, 65535 + u32::from(n))).send(frame(PING, 0, 0, &[n; 8]));
    }
    let (mut acknowledged, mut answered) = (0, Vec::new());
    while answered.len() < 8 || acknowledged < 9 {
        let frame = raw.next().unwrap();
        match frame.kind {
            SETTINGS if frame.flags & ACK != 0 => acknowledged += 1,
            PING => {
                assert_eq!(frame.flags, ACK);
                answered.push(frame.payload[0]);
            }
            _ => {}
        }
    }
    assert_eq!(answered, (0..8).collect::<Vec<u8>>());
}

/// §5.4.1: after GOAWAY the connection is closed; §5.4.2: a stream's error leaves the others alone.
#[test]
fn errors_end_what_they_are_about() {
    let server = Server::start();
    let proxy = proxy_of(&server);
    let mut raw = Raw::start(&proxy);
    raw.send(frame(DATA, 0, 0, b"x"));
    assert_eq!(raw.next_of(&[GOAWAY]).unwrap().code(), PROTOCOL_ERROR);
    assert!(raw.next_of(&[GOAWAY]).is_none(), "the end");
    let mut raw = Raw::start(&proxy);
    // In two pieces, so that the frame's head has passed before it is found to be wrong.
    let none = window(1, 0);
    raw.send(open(1)).send(&none[..10]);
    std::thread::sleep(std::time::Duration::from_millis(50));
    raw.send([&none[10..], &whole(3)].concat());
    let mut upstream = server.accept();
    upstream.head();
    let told = raw.next_of(&[RST_STREAM, GOAWAY]).unwrap();
    assert_eq!((told.kind, told.stream, told.code()), (RST_STREAM, 1, PROTOCOL_ERROR));
    server.accept().send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(raw.next_of(&[HEADERS]).unwrap().stream, 3);
    assert!(raw.is_alive());
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
