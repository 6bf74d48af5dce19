//! A client that sends whatever frames it likes.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::peers::PATIENCE;
use crate::script::Proxy;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const PRIORITIZED: u8 = 0x20;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The bytes of a frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// Fields in HPACK, none of them compressed.
pub(crate) fn fields(list: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in list {
        out.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            out.push(text.len() as u8);
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

/// The fields of a request.
pub(crate) fn request(more: &[(&str, &str)]) -> Vec<u8> {
    let all = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "x")];
    [fields(&all), fields(more)].concat()
}

/// A HEADERS frame that opens a stream.
pub(crate) fn open(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &request(&[]))
}

/// A whole request.
pub(crate) fn whole(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &request(&[]))
}

/// A frame that has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The code of a RST_STREAM or GOAWAY.
    pub(crate) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// A client that sends whatever frames it likes.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    /// Connects and says what every client says first.
    pub(crate) fn start(proxy: &Proxy) -> Raw {
        let mut raw = Raw::silent(proxy);
        raw.send(PREFACE).send(frame(SETTINGS, 0, 0, &[]));
        raw
    }

    pub(crate) fn silent(proxy: &Proxy) -> Raw {
        let stream = TcpStream::connect(proxy.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Raw(stream)
    }

    /// Sends bytes; in vain when the other side has closed.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Raw {
        let _ = self.0.write_all(bytes.as_ref());
        self
    }

    /// The next frame; `None` at the end.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.read(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.read(&mut payload)?;
        let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    fn read(&mut self, buffer: &mut [u8]) -> Option<()> {
        match self.0.read_exact(buffer) {
            Ok(()) => Some(()),
            Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => None,
            Err(e) => panic!("{e}: the proxy says nothing"),
        }
    }

    /// The next frame of one of these kinds.
    pub(crate) fn next_of(&mut self, kinds: &[u8]) -> Option<Frame> {
        loop {
            let frame = self.next()?;
            if kinds.contains(&frame.kind) && !(frame.kind == SETTINGS && frame.flags & ACK == 0) {
                return Some(frame);
            }
        }
    }

    /// Whether the connection still works.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.send(frame(PING, 0, 0, b"are you?"));
        loop {
            match self.next() {
                None => return false,
                Some(frame) if frame.kind == PING && frame.payload == b"are you?" => return true,
                Some(_) => {}
            }
        }
    }
}
