//! The load generator: N keep-alive connections, as fast as they go or at a steady rate, every answer counted.

use crate::histogram::Histogram;
use clap::Parser;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What is sent, where, and for how long.
#[derive(Parser, Clone)]
pub(crate) struct Args {
    /// The proxy under test.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub(crate) address: SocketAddr,
    /// The Host header.
    #[arg(long, default_value = "bench.example")]
    pub(crate) host: String,
    /// The path; `{n}` becomes a number from 0 to `paths` - 1, with leading zeros, in a shuffled order.
    #[arg(long, default_value = "/")]
    pub(crate) path: String,
    /// How many values `{n}` takes.
    #[arg(long, default_value_t = 1)]
    pub(crate) paths: usize,
    /// Connections.
    #[arg(long, default_value_t = 32)]
    pub(crate) connections: usize,
    /// Requests a second over all connections; without it, as many as go.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Seconds.
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
}

/// What came back.
pub(crate) struct Outcome {
    pub(crate) ok: u64,
    pub(crate) other: Vec<(u16, u64)>,
    /// Connections that ended in the middle of an exchange, or could not be made.
    pub(crate) broken: u64,
    pub(crate) latency: Histogram,
    pub(crate) seconds: f64,
}

impl Outcome {
    pub(crate) fn rate(&self) -> f64 {
        self.latency.count() as f64 / self.seconds
    }

    pub(crate) fn lost(&self) -> u64 {
        self.broken + self.other.iter().map(|o| o.1).sum::<u64>()
    }
}

/// Runs once and prints what came back.
pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    let o = run(args)?;
    println!(
        "{:.0} requests/s, p50 {:.0} µs, p99 {:.0} µs; {} answered 2xx, others {:?}, broken connections {}",
        o.rate(),
        o.latency.quantile(0.5),
        o.latency.quantile(0.99),
        o.ok,
        o.other,
        o.broken
    );
    Ok(())
}

/// The bytes of one request after the other, written in place: ten thousand of them ready-made would measure our own cache.
struct Request {
    bytes: Vec<u8>,
    /// Where the number stands, all of its digits.
    digits: std::ops::Range<usize>,
    paths: usize,
    turn: usize,
}

impl Request {
    fn new(args: &Args) -> Self {
        let paths = args.paths.max(1);
        let width = (paths - 1).to_string().len();
        let path = args.path.replace("{n}", &"0".repeat(width));
        let bytes = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nuser-agent: bench\r\naccept: */*\r\n\r\n", args.host);
        let at = args.path.find("{n}").map_or(0, |at| at + "GET ".len());
        let digits = if args.path.contains("{n}") { at..at + width } else { 0..0 };
        Self { bytes: bytes.into_bytes(), digits, paths, turn: 0 }
    }

    fn next(&mut self) -> &[u8] {
        // A fixed stride that is prime to most counts visits every path without a random generator.
        self.turn = (self.turn + 7919) % self.paths;
        let mut rest = self.turn;
        for digit in self.bytes[self.digits.clone()].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        &self.bytes
    }
}

struct Conn {
    stream: Option<TcpStream>,
    sent: Option<Instant>,
    due: Instant,
    head: Vec<u8>,
    /// Body bytes still to come, once the head has been read.
    body: Option<usize>,
    status: u16,
    close: bool,
}

/// Sends for `args.seconds` and counts; what is still under way at the end is waited for.
pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let mut request = Request::new(args);
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(args.seconds);
    let mut out = Outcome { ok: 0, other: vec![], broken: 0, latency: Histogram::new(), seconds: args.seconds };
    let mut conns: Vec<Conn> = (0..args.connections)
        .map(|_| Conn { stream: None, sent: None, due: start, head: vec![], body: None, status: 0, close: false })
        .collect();
    let gap = args.rate.map(|r| Duration::from_secs_f64(1.0 / r));
    let (mut next_due, mut buf) = (start, vec![0u8; 65536]);
    // Since when a connection has been free: a request that was due before is late by the proxy, one after it by this thread, which wakes by the
    // millisecond and shares its core.
    let mut free_since = Some(start);
    loop {
        let now = Instant::now();
        let sending = now < end;
        if !sending && (conns.iter().all(|c| c.sent.is_none()) || now > end + Duration::from_secs(5)) {
            out.broken += conns.iter().filter(|c| c.sent.is_some()).count() as u64;
            return Ok(out);
        }
        let mut wait = Duration::from_millis(50);
        if sending {
            for (i, c) in conns.iter_mut().enumerate() {
                if c.sent.is_some() {
                    continue;
                }
                if let Some(gap) = gap {
                    if next_due > now {
                        wait = wait.min(next_due - now);
                        break;
                    }
                    c.due = if free_since.is_some_and(|since| since <= next_due) { now } else { next_due };
                    next_due += gap;
                    if now - next_due.min(now) > Duration::from_secs(1) {
                        next_due = now; // the proxy cannot keep up: do not build an endless backlog
                    }
                } else {
                    c.due = now;
                }
                if !send(c, i, args.address, request.next(), &poll) {
                    out.broken += 1;
                    *c = Conn { stream: None, sent: None, due: now, head: vec![], body: None, status: 0, close: false };
                }
            }
        }
        free_since = if conns.iter().all(|c| c.sent.is_some()) { None } else { free_since.or(Some(now)) };
        match poll.poll(&mut events, Some(wait)) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            let i = event.token().0;
            match receive(&mut conns[i], &mut buf) {
                Step::Wait => {}
                Step::Done => {
                    let c = &mut conns[i];
                    out.latency.record(c.due.elapsed().as_nanos() as u64);
                    if (200..300).contains(&c.status) {
                        out.ok += 1;
                    } else if let Some(o) = out.other.iter_mut().find(|o| o.0 == c.status) {
                        o.1 += 1;
                    } else {
                        out.other.push((c.status, 1));
                    }
                    c.sent = None;
                    if c.close {
                        c.stream = None;
                    } else if gap.is_none() && Instant::now() < end {
                        c.due = Instant::now();
                        if !send(c, i, args.address, request.next(), &poll) {
                            out.broken += 1;
                            c.stream = None;
                            c.sent = None;
                        }
                    }
                }
                Step::Broken => {
                    let c = &mut conns[i];
                    out.broken += u64::from(c.sent.take().is_some());
                    c.stream = None;
                }
            }
        }
    }
}

fn send(c: &mut Conn, i: usize, to: SocketAddr, request: &[u8], poll: &Poll) -> bool {
    if c.stream.is_none() {
        let Ok(s) = std::net::TcpStream::connect_timeout(&to, Duration::from_secs(2)) else { return false };
        let _ = (s.set_nodelay(true), s.set_nonblocking(true));
        let mut s = TcpStream::from_std(s);
        if poll.registry().register(&mut s, Token(i), Interest::READABLE).is_err() {
            return false;
        }
        c.stream = Some(s);
    }
    c.head.clear();
    c.body = None;
    c.close = false;
    c.sent = Some(Instant::now());
    c.stream.as_mut().is_some_and(|s| s.write_all(request).is_ok())
}

enum Step {
    Wait,
    Done,
    Broken,
}

fn receive(c: &mut Conn, buf: &mut [u8]) -> Step {
    let Some(s) = c.stream.as_mut() else { return Step::Wait };
    loop {
        let n = match s.read(buf) {
            Ok(0) => return Step::Broken,
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Step::Wait,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return Step::Broken,
        };
        let mut rest = n;
        if c.body.is_none() {
            c.head.extend_from_slice(&buf[..n]);
            let Some(at) = c.head.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
            rest = c.head.len() - at - 4;
            let head = String::from_utf8_lossy(&c.head[..at]).to_ascii_lowercase();
            c.status = head.get(9..12).and_then(|s| s.parse().ok()).unwrap_or(0);
            c.close = head.contains("\r\nconnection: close");
            let length = head.split("content-length: ").nth(1).and_then(|l| l.split("\r\n").next()?.parse().ok());
            c.body = Some(length.unwrap_or(0));
        }
        let left = c.body.unwrap_or(0);
        if rest > left {
            return Step::Broken; // more than was announced: the stream is out of step
        }
        c.body = Some(left - rest);
        if left == rest {
            return Step::Done;
        }
    }
}
