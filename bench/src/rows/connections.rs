//! Resident memory of a gateway for each of 10,000 connections that asked once and stay.

use super::Options;
use crate::backend::Backend;
use crate::contest::{self, Ratio, Report, Row};
use crate::gateways::{self, Job};
use crate::identity::{Groups, Identity};
use crate::process;
use rustls::ClientConnection;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

const IDLE: usize = 10_000;
/// These make a proxy allocate what it allocates once.
const BEFORE: usize = 200;
/// What is given back with time is given back by now.
const SETTLE: Duration = Duration::from_secs(3);

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: bench.example\r\n\r\n";

/// Connections of HTTP/1.1.
pub(crate) fn http1(o: &Options) -> anyhow::Result<Report> {
    let names = ["maille", "envoy", "nginx", "haproxy"];
    measure(o, "HTTP/1.1 (wanted: at most 4 KB each)", &names, Job::Http1, |to| {
        let mut stream = connect(to)?;
        stream.write_all(REQUEST)?;
        answered(stream.read(&mut [0; 4096])?)?;
        Ok(stream)
    })
}

/// The same over TLS.
pub(crate) fn tls(o: &Options) -> anyhow::Result<Report> {
    let identity = Identity::new()?;
    let client = identity.client(Groups::X25519)?;
    let names = ["maille", "envoy", "nginx", "haproxy"];
    measure(o, "HTTP/1.1 over TLS", &names, Job::Tls(&identity), |to| {
        let mut stream = connect(to)?;
        let mut session = ClientConnection::new(Arc::clone(&client), Identity::name().map_err(io::Error::other)?)
            .map_err(io::Error::other)?;
        let mut tls = rustls::Stream::new(&mut session, &mut stream);
        tls.write_all(REQUEST)?;
        answered(tls.read(&mut [0; 4096])?)?;
        Ok(stream)
    })
}

/// Connections of HTTP/2.
pub(crate) fn http2(o: &Options) -> anyhow::Result<Report> {
    measure(o, "HTTP/2", &["maille", "envoy"], Job::Http1, |to| {
        // The preface, SETTINGS, the acknowledgement of the other side's, HEADERS with all that there is on stream 1.
        const FRAMES: &[&[u8]] = &[
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            &[0, 0, 0, 4, 0, 0, 0, 0, 0],
            &[0, 0, 0, 4, 1, 0, 0, 0, 0],
            &[0, 0, 18, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84, 0x41, 13],
            b"bench.example",
        ];
        let mut stream = connect(to)?;
        stream.write_all(&FRAMES.concat())?;
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head)?;
            let [a, b, c, kind, flags, ..] = head;
            stream.read_exact(&mut vec![0; u32::from_be_bytes([0, a, b, c]) as usize])?;
            if kind <= 1 && flags & 1 == 1 {
                return Ok(stream);
            }
        }
    })
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(stream)
}

fn answered(n: usize) -> io::Result<()> {
    if n > 0 { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn measure(
    o: &Options,
    what: &str,
    names: &[&str],
    job: Job<'_>,
    ask: impl Fn(SocketAddr) -> io::Result<TcpStream>,
) -> anyhow::Result<Report> {
    process::raise_file_limit(IDLE as u64 + 1000)?;
    let dir = tempfile::tempdir()?;
    let backend = Backend::start("bench")?;
    let contenders = gateways::start(names, &o.only, dir.path(), backend.port, job)?;
    let row = Row {
        title: format!("{IDLE} idle keep-alive connections at a gateway, {what}"),
        columns: &[("bytes each", 0), ("RSS MB before", 1), ("RSS MB with them", 1), ("connections", 0)],
        ratios: &[Ratio { column: 0, wanted: &[] }],
    };
    let mut samples = vec![];
    for c in &contenders {
        let first = ask(c.address);
        anyhow::ensure!(first.is_ok(), "{}: {:?}", c.name, first.err());
        // Where it takes no more, what it holds is what is measured.
        let hold = |count| (0..count).map_while(|_| ask(c.address).ok()).collect::<Vec<_>>();
        drop(hold(BEFORE));
        std::thread::sleep(SETTLE);
        let before = c.rss();
        let held = hold(IDLE);
        std::thread::sleep(SETTLE);
        let with = c.rss();
        let each = (with - before) * 1024.0 * 1024.0 / held.len().max(1) as f64;
        samples.push((c.name, vec![each, before, with, held.len() as f64]));
    }
    Ok(contest::once(row, samples))
}
