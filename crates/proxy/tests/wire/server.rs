//! The server behind the proxy: it answers what it is told, and keeps every byte that reaches it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long that is waited for.
const NOTICE: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    reply: Vec<u8>,
    closes: bool,
    /// What came, by connection, in the order in which they were made.
    got: Vec<Vec<u8>>,
    streams: Vec<TcpStream>,
    /// Counts cases, so that what belongs to an old one is not taken for a new one's.
    case: u64,
}

impl Server {
    pub(crate) fn start() -> Server {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let server = Server { address: socket.local_addr().unwrap(), state: Arc::default() };
        let state = server.state.clone();
        std::thread::spawn(move || {
            for stream in socket.incoming() {
                let (state, stream) = (state.clone(), stream.unwrap());
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        server
    }

    /// Begins a case: old connections are closed, and that has reached the proxy; what they got is forgotten.
    pub(crate) fn expect(&self, reply: &[u8], closes: bool) {
        let mut state = self.state.lock().unwrap();
        for stream in &state.streams {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let until = Instant::now() + NOTICE;
        while !self.all_ends_arrived() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        state.streams.clear();
        (state.reply, state.closes) = (reply.to_vec(), closes);
        state.got.clear();
        state.case += 1;
    }

    /// Whether the other side's kernel knows of every end. A machine with much to do may deliver one after what was sent later.
    fn all_ends_arrived(&self) -> bool {
        const FIN_WAIT_1: &str = "04";
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
        let own = format!(":{:04X}", self.address.port());
        !table.lines().any(|line| {
            let mut columns = line.split_whitespace().skip(1);
            columns.next().is_some_and(|local| local.ends_with(&own)) && columns.nth(1) == Some(FIN_WAIT_1)
        })
    }

    /// Everything that has come, by connection.
    pub(crate) fn got(&self) -> Vec<Vec<u8>> {
        self.state.lock().unwrap().got.iter().filter(|got| !got.is_empty()).cloned().collect()
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let (case, index) = {
        let mut state = state.lock().unwrap();
        state.streams.push(stream.try_clone().unwrap());
        state.got.push(Vec::new());
        (state.case, state.got.len() - 1)
    };
    let (mut answered, mut buffer) = (0, [0; 65536]);
    loop {
        let n = match stream.read(&mut buffer) {
            Ok(n) if n > 0 => n,
            _ => return,
        };
        let mut now = state.lock().unwrap();
        if now.case != case {
            return;
        }
        now.got[index].extend_from_slice(&buffer[..n]);
        let whole = requests(&now.got[index]);
        while answered < whole {
            answered += 1;
            let _ = stream.write_all(&now.reply);
            if now.closes {
                let _ = stream.shutdown(Shutdown::Write);
                break;
            }
        }
    }
}

/// How many whole requests these bytes are, for a reader that believes what it is told.
fn requests(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let Some((_, body)) = split_head(bytes) {
        match body.len() <= bytes.len() {
            true => (bytes, count) = (body, count + 1),
            false => break,
        }
    }
    count
}

/// A head, and what follows the message's body; `None` while it is not whole.
pub(crate) fn split_head(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let (head, rest) = bytes.split_at(end);
    Some((head, rest.get(body_len(head, rest)?..)?))
}

/// The length of the body on the wire; `None` while it is not whole.
pub(crate) fn body_len(head: &[u8], rest: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(|v| v.trim().to_owned()))
    };
    if field("transfer-encoding").is_some() {
        let mut at = 0;
        loop {
            let line = rest[at..].windows(2).position(|w| w == b"\r\n")?;
            let size = String::from_utf8_lossy(&rest[at..at + line]).split(';').next()?.trim().to_owned();
            let size = usize::from_str_radix(&size, 16).ok()?;
            at += line + 2;
            if size == 0 {
                loop {
                    let line = rest.get(at..)?.windows(2).position(|w| w == b"\r\n")?;
                    at += line + 2;
                    if line == 0 {
                        return Some(at);
                    }
                }
            }
            at += size + 2;
            if at > rest.len() {
                return None;
            }
        }
    }
    let n = field("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    (rest.len() >= n).then_some(n)
}
