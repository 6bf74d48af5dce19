//! The client: sends a case, reads what comes back, and writes both down in a form that can be compared.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::cases::escape;

/// Long enough for any machine; only what is broken takes as long.
pub(crate) fn patience() -> Duration {
    let millis = std::env::var("WIRE_PATIENCE").ok().and_then(|text| text.parse().ok());
    Duration::from_millis(millis.unwrap_or(20_000))
}
/// What says nothing for so long has nothing to say; used only where silence is expected or nothing is known.
const QUIET: Duration = Duration::from_millis(250);

/// What a client got.
pub(crate) struct Answer {
    pub(crate) bytes: Vec<u8>,
    pub(crate) end: &'static str,
    /// The client's own port.
    pub(crate) port: u16,
}

/// Sends the pieces and reads. `want` is what is expected (responses, end), when that is known: it is waited for, and `grace` for more.
pub(crate) fn ask(to: SocketAddr, pieces: &[Vec<u8>], want: Option<(usize, &str)>, grace: Duration) -> Answer {
    let (mut stream, port) = connect(to);
    let mut bytes = Vec::new();
    let mut closed = false;
    for (i, piece) in pieces.iter().enumerate() {
        if i > 0 {
            std::thread::sleep(Duration::from_millis(40));
        }
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    let start = Instant::now();
    loop {
        let limit = match want {
            // What is to come is waited for; then a little longer, for what should not.
            Some((responses, end)) if count(&bytes) < responses || end == "closed" => patience(),
            Some(_) => grace,
            None => QUIET,
        };
        stream.set_read_timeout(Some(limit)).unwrap();
        let mut buffer = [0; 65536];
        match stream.read(&mut buffer) {
            Ok(0) => closed = true,
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(_) => closed = true,
        }
        if closed || start.elapsed() > patience() {
            break;
        }
    }
    let end = match (closed, bytes.is_empty()) {
        (true, _) => "closed",
        (false, true) => "silent",
        (false, false) => "open",
    };
    Answer { bytes, end, port }
}

/// Connects from a port that no case had before: the log knows them by it.
fn connect(to: SocketAddr) -> (TcpStream, u16) {
    static USED: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut others = Vec::new();
    loop {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_nodelay(true).unwrap();
        let port = stream.local_addr().unwrap().port();
        if USED.lock().unwrap().insert(port) {
            return (stream, port);
        }
        others.push(stream);
    }
}

/// How many responses begin in these bytes.
fn count(bytes: &[u8]) -> usize {
    bytes.windows(9).filter(|w| w.starts_with(b"HTTP/1.") && w[8] == b' ').count()
}

/// Values that are never the same twice.
const UNSTABLE: [&str; 3] = ["x-request-id", "date", "x-envoy-upstream-service-time"];

/// A stream of messages in lines: each head's first line, its fields sorted, its body freed of framing.
pub(crate) fn describe(who: &str, mut bytes: &[u8], known: &[(String, &str)], out: &mut Vec<String>) {
    while !bytes.is_empty() {
        let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
            out.push(format!("{who}* {}", escape(bytes)));
            return;
        };
        let (head, rest) = (&bytes[..end], &bytes[end + 4..]);
        let mut lines = head.split(|&b| b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        out.push(format!("{who}| {}", escape(lines.next().unwrap_or_default())));
        let mut fields: Vec<String> = lines.map(|line| field(line, known)).collect();
        fields.sort();
        out.extend(fields.into_iter().map(|field| format!("{who}|   {field}")));
        let status =
            head.starts_with(b"HTTP/1.1 1") || head.starts_with(b"HTTP/1.1 204") || head.starts_with(b"HTTP/1.1 304");
        let len = if status { Some(0) } else { crate::server::body_len(&bytes[..end + 4], rest) };
        let body = &rest[..len.unwrap_or(rest.len())];
        bytes = &rest[body.len()..];
        if !body.is_empty() {
            let chunked = head.to_ascii_lowercase().windows(19).any(|w| w == b"\r\ntransfer-encoding");
            out.push(format!("{who}> {}", if chunked { dechunk(body) } else { escape(body) }));
        }
    }
}

fn field(line: &[u8], known: &[(String, &str)]) -> String {
    let mut text = escape(line);
    let name = text.split(':').next().unwrap_or_default().to_owned();
    if UNSTABLE.contains(&name.to_ascii_lowercase().as_str()) && !text.contains("keep") {
        return format!("{name}: *");
    }
    for (value, name) in known {
        text = text.replace(value, name);
    }
    text
}

/// A chunked body: the data, and the trailers.
fn dechunk(mut body: &[u8]) -> String {
    let mut data = Vec::new();
    while let Some(line) = body.windows(2).position(|w| w == b"\r\n") {
        let size = String::from_utf8_lossy(&body[..line]).into_owned();
        let Ok(size) = usize::from_str_radix(&size, 16) else {
            return format!("(chunks) {} then {}", escape(&data), escape(body));
        };
        body = &body[line + 2..];
        if size == 0 {
            return format!("(chunks) {} | {}", escape(&data), escape(body));
        }
        data.extend_from_slice(&body[..size.min(body.len())]);
        body = body.get(size + 2..).unwrap_or_default();
    }
    format!("(chunks) {} ...", escape(&data))
}
