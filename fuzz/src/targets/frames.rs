//! HTTP/2 below the crate that speaks it: frames and compressed fields.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use maille_proxy::fuzzing;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::{Answer, ensure};

/// What frames are made of.
pub(super) const WORDS: &[&[u8]] = &[
    b"\0\0\0\x04\0\0\0\0\0",
    b"\0\0\0\x04\x01\0\0\0\0",
    b"\0\0\x06\x04\0\0\0\0\0\0\x04\x7f\xff\xff\xff",
    b"\0\0\x01\x01\x05\0\0\0\x01\x82",
    b"\0\0\x01\x01\x04\0\0\0\x03\x82",
    b"\0\0\x01\x01\0\0\0\0\x05\x84",
    b"\0\0\x01\x09\x04\0\0\0\x05\x82",
    b"\0\0\x0c\x01\x2d\0\0\0\x07\x02\0\0\0\x01\x09\x82\x86\x84\x01\0\0",
    b"\0\0\x01\0\0\0\0\0\x03x",
    b"\0\0\x01\0\x01\0\0\0\x03x",
    b"\0\0\x04\x03\0\0\0\0\x03\0\0\0\x08",
    b"\0\0\x04\x08\0\0\0\0\x01\0\0\0\0",
    b"\0\0\x04\x08\0\0\0\0\x03\0\0\0\0",
    b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x01",
    b"\0\0\x05\x02\0\0\0\0\x01\0\0\0\0\x01",
    b"\0\0\x08\x06\0\0\0\0\0\0\0\0\0\0\0\0\0",
    b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0",
    b"\x40\x01a\x01b",
    b"\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
    b"\x3f\xe1\x1f",
    b"\x20",
    b"\xbe",
    b"\xff\xff\xff\xff",
];

/// A connection's frames, behind its preface: what is found wrong with them is the same however they are cut.
pub(super) fn frames(input: &[u8]) -> Answer {
    let whole = fuzzing::frames(input, usize::MAX);
    for piece in [1, 2, 3, 7, 9, 13, 64, 1000] {
        let got = fuzzing::frames(input, piece);
        ensure(got == whole, || format!("in pieces of {piece} {got:?}, at once {whole:?}"))?;
    }
    Ok(format!("{:?}", whole.iter().take(3).collect::<Vec<_>>()))
}

/// One block of fields: it reads the same however it is cut, and whatever is refused the `h2` crate refuses as well.
pub(super) fn fields(input: &[u8]) -> Answer {
    let whole = fuzzing::fields(input, usize::MAX);
    for piece in [1, 2, 5, 17] {
        let got = fuzzing::fields(input, piece);
        ensure(got == whole, || format!("in pieces of {piece} {got:?}, at once {whole:?}"))?;
    }
    if whole.is_none() {
        ensure(is_refused(input), || "taken by the h2 crate".to_owned())?;
    }
    Ok(format!("{:?}", whole.map(|(pseudo, entries)| (pseudo, entries.min(5)))))
}

/// Whether the `h2` crate ends a connection with whom sends this.
fn is_refused(block: &[u8]) -> bool {
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let mut cx = Context::from_waker(Waker::noop());
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    bytes.extend_from_slice(&(block.len() as u32).to_be_bytes()[1..]);
    bytes.extend_from_slice(b"\x01\x05\0\0\0\x01");
    bytes.extend_from_slice(block);
    assert!(pin!(client.write_all(&bytes)).poll(&mut cx).is_ready());
    let mut handshake = pin!(h2::server::handshake(server));
    let mut connection = loop {
        if let Poll::Ready(connection) = handshake.as_mut().poll(&mut cx) {
            break connection.expect("a good preface");
        }
    };
    let ended = (0..8).any(|_| matches!(connection.poll_accept(&mut cx), Poll::Ready(None | Some(Err(_)))));
    ended || says_goaway(&mut client, &mut cx)
}

fn says_goaway(client: &mut DuplexStream, cx: &mut Context<'_>) -> bool {
    let mut said = Vec::new();
    let _ = pin!(client.read_buf(&mut said)).poll(cx);
    let mut rest = &said[..];
    while let [a, b, c, kind, ..] = *rest {
        if kind == 7 {
            return true;
        }
        let length = 9 + (usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c));
        rest = &rest[length.min(rest.len())..];
    }
    false
}
