//! The backend behind every proxy: keep-alive HTTP/1.1, a fixed small answer, one thread.

use clap::Parser;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What `backend` can be told.
#[derive(Parser)]
pub(crate) struct Args {
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
}

/// Runs until killed.
pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    println!("backend on {}", args.listen);
    serve(TcpListener::bind(args.listen)?, "backend", &AtomicBool::new(false), &AtomicU64::new(0))
}

/// A backend on a thread of this process, stopped when dropped.
pub(crate) struct Backend {
    pub(crate) port: u16,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Backend {
    pub(crate) fn start(name: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0".parse()?)?;
        let port = listener.local_addr()?.port();
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (flag, name) = (stop.clone(), name.to_owned());
        let thread = std::thread::spawn(move || {
            if let Err(e) = serve(listener, &name, &flag, &served) {
                eprintln!("backend {name}: {e}");
            }
        });
        Ok(Self { port, stop, thread: Some(thread) })
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(t) = self.thread.take() {
            let _ = t.join();
        }
    }
}

fn serve(mut listener: TcpListener, name: &str, stop: &AtomicBool, served: &AtomicU64) -> anyhow::Result<()> {
    let body = format!("{name:<64}");
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(256);
    poll.registry().register(&mut listener, Token(0), Interest::READABLE)?;
    let mut conns: HashMap<usize, TcpStream> = HashMap::new();
    let (mut next, mut buf) = (1, vec![0; 65536]);
    while !stop.load(Ordering::Relaxed) {
        match poll.poll(&mut events, Some(Duration::from_millis(200))) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            if event.token() == Token(0) {
                while let Ok((mut s, _)) = listener.accept() {
                    let _ = s.set_nodelay(true);
                    poll.registry().register(&mut s, Token(next), Interest::READABLE)?;
                    conns.insert(next, s);
                    next += 1;
                }
            } else if let Some(s) = conns.get_mut(&event.token().0)
                && !answer_all(s, &mut buf, answer.as_bytes(), served)
            {
                conns.remove(&event.token().0);
            }
        }
    }
    Ok(())
}

/// Answers what can be read now; false when the connection is over. Requests are bodiless and arrive whole.
fn answer_all(s: &mut TcpStream, buf: &mut [u8], answer: &[u8], served: &AtomicU64) -> bool {
    loop {
        match s.read(buf) {
            Ok(0) => return false,
            Ok(n) => {
                if buf[..n].starts_with(b"GET /headers ") {
                    return say_back(s, &buf[..n]);
                }
                for _ in buf[..n].windows(4).filter(|w| w == b"\r\n\r\n") {
                    if s.write_all(answer).is_err() {
                        return false;
                    }
                    served.fetch_add(1, Ordering::Relaxed);
                }
                if n < buf.len() {
                    return true; // edge-triggered, but the next request is a new event
                }
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => return true,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

/// Answers with the request's own head.
fn say_back(s: &mut TcpStream, head: &[u8]) -> bool {
    let answer = [format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", head.len()).as_bytes(), head].concat();
    s.write_all(&answer).is_ok()
}
