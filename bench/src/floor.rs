//! The floor: forwards bytes between two sockets with epoll and parses nothing. No proxy that reads HTTP can cost less.

use clap::Parser;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

/// What `floor` can be told.
#[derive(Parser)]
pub(crate) struct Args {
    /// Where it listens.
    #[arg(long)]
    listen: SocketAddr,
    /// Where it forwards to: one upstream connection for each downstream one.
    #[arg(long)]
    to: SocketAddr,
}

/// Runs until killed.
pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    let mut listener = TcpListener::bind(args.listen)?;
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(256);
    poll.registry().register(&mut listener, Token(0), Interest::READABLE)?;
    // Token 2k is the downstream socket of pair k, 2k+1 its upstream socket.
    let mut pairs: HashMap<usize, [TcpStream; 2]> = HashMap::new();
    let (mut next, mut buf) = (1, vec![0; 16384]);
    loop {
        match poll.poll(&mut events, None) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            if event.token() == Token(0) {
                while let Ok((mut down, _)) = listener.accept() {
                    let mut up = TcpStream::from_std(connected(args.to)?);
                    let _ = (down.set_nodelay(true), up.set_nodelay(true));
                    poll.registry().register(&mut down, Token(2 * next), Interest::READABLE)?;
                    poll.registry().register(&mut up, Token(2 * next + 1), Interest::READABLE)?;
                    pairs.insert(next, [down, up]);
                    next += 1;
                }
                continue;
            }
            let (key, side) = (event.token().0 / 2, event.token().0 % 2);
            if let Some(pair) = pairs.get_mut(&key)
                && !forward(pair, side, &mut buf)
            {
                pairs.remove(&key);
            }
        }
    }
}

fn connected(to: SocketAddr) -> std::io::Result<std::net::TcpStream> {
    let s = std::net::TcpStream::connect(to)?;
    s.set_nonblocking(true)?;
    Ok(s)
}

fn forward(pair: &mut [TcpStream; 2], from: usize, buf: &mut [u8]) -> bool {
    loop {
        match pair[from].read(buf) {
            Ok(0) => return false,
            Ok(n) => {
                if pair[1 - from].write_all(&buf[..n]).is_err() {
                    return false;
                }
                if n < buf.len() {
                    return true;
                }
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => return true,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}
