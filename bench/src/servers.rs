//! Backends for what the plain one cannot do: large bodies, gRPC, bytes. One thread each, stopped when dropped.

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use std::net::SocketAddr;
use std::sync::OnceLock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// The size of a large body.
pub(crate) const LARGE: usize = 1 << 20;

/// Bytes that are written at a time: a kernel that does not preempt its own work keeps others from this core for as long as a call takes.
const PIECE: usize = 16 * 1024;

/// Connections that may wait to be accepted, as servers have it (the system's own limit is below). With few, the kernel drops what comes in a burst, and has
/// the proxy's core send it again a second later, all of it at once.
const BACKLOG: u32 = 1 << 16;

/// What `serve` can be told.
#[derive(Parser)]
pub(crate) struct Args {
    /// What is served.
    served: Served,
    /// Where it listens.
    #[arg(long)]
    listen: SocketAddr,
}

#[derive(Clone, Copy, ValueEnum)]
enum Served {
    /// gRPC: every message of a call is sent back as it comes.
    Calls,
    /// Bytes are sent back.
    Bytes,
}

/// Runs until killed.
pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    let kind = match args.served {
        Served::Calls => Kind::Calls,
        Served::Bytes => Kind::Echo,
    };
    let listener = std::net::TcpListener::bind(args.listen)?;
    listener.set_nonblocking(true)?;
    println!("serving on {}", args.listen);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(accept(listener, kind))?)
}

/// What a server does with a connection.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// HTTP/1.1: reads the request's body, answers 1 MB to POST and on `/big`, 64 bytes otherwise, on `/slow` after a while.
    Bodies,
    /// gRPC over HTTP/2: every call is answered with its own message.
    Grpc,
    /// gRPC: every message is sent back as it comes, for as long as the call lasts.
    Calls,
    /// Sends back what it gets.
    Echo,
}

/// A server on a thread of this process.
pub(crate) struct Server {
    pub(crate) port: u16,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(kind: Kind) -> anyhow::Result<Self> {
        Self::start_on(kind, 0)
    }

    /// On a thread that is this much nicer than others.
    pub(crate) fn start_on(kind: Kind, nice: i32) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
            socket.listen(BACKLOG)?.into_std()?
        };
        let port = listener.local_addr()?.port();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let _ = rustix::process::nice(nice); // this thread's alone
            runtime.block_on(async move {
                tokio::select! { _ = accept(listener, kind) => {}, _ = stopped => {} }
            });
        });
        Ok(Self { port, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: std::net::TcpListener, kind: Kind) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        tokio::spawn(async move {
            let _ = match kind {
                Kind::Bodies => bodies(stream).await,
                Kind::Grpc => grpc(stream).await,
                Kind::Calls => calls(stream).await,
                Kind::Echo => echo(stream).await,
            };
        });
    }
}

async fn echo(mut stream: TcpStream) -> anyhow::Result<()> {
    let mut buf = vec![0; 1 << 16];
    loop {
        let n = stream.read(&mut buf).await?;
        if n == 0 {
            return Ok(());
        }
        stream.write_all(&buf[..n]).await?;
    }
}

async fn bodies(mut stream: TcpStream) -> anyhow::Result<()> {
    static ANSWER: OnceLock<Vec<u8>> = OnceLock::new();
    let large = ANSWER.get_or_init(|| {
        [format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n").into_bytes(), vec![b'x'; LARGE]].concat()
    });
    let (mut buf, mut filled) = (vec![0; 1 << 15], 0);
    let small = [b"HTTP/1.1 200 OK\r\ncontent-length: 64\r\n\r\n".as_slice(), &[b'x'; 64]].concat();
    loop {
        let end = loop {
            if let Some(at) = buf[..filled].windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            anyhow::ensure!(filled < buf.len(), "a head that does not end");
            let n = stream.read(&mut buf[filled..]).await?;
            if n == 0 {
                return Ok(());
            }
            filled += n;
        };
        let head = String::from_utf8_lossy(&buf[..end]).to_ascii_lowercase();
        let wants_large = head.starts_with("post") || head.starts_with("get /big");
        let length: usize =
            head.split("content-length: ").nth(1).and_then(|l| l.split("\r\n").next()?.parse().ok()).unwrap_or(0);
        let here = (filled - end).min(length);
        let (mut left, rest) = (length - here, filled - end - here);
        buf.copy_within(end + here..end + here + rest, 0);
        filled = rest;
        while left > 0 {
            let room = buf.len().min(left);
            let n = stream.read(&mut buf[..room]).await?;
            anyhow::ensure!(n > 0, "the body was cut off");
            left -= n;
        }
        if head.starts_with("get /slow") {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        }
        for piece in if wants_large { large } else { &small }.chunks(PIECE) {
            stream.write_all(piece).await?;
        }
    }
}

async fn grpc(stream: TcpStream) -> anyhow::Result<()> {
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 24).max_concurrent_streams(1000);
    let mut connection = builder.handshake::<_, Bytes>(stream).await?;
    while let Some(request) = connection.accept().await {
        let (request, mut respond) = request?;
        tokio::spawn(async move {
            let mut body = request.into_body();
            let mut message = Vec::new();
            while let Some(data) = body.data().await {
                let data = data?;
                let _ = body.flow_control().release_capacity(data.len());
                message.extend_from_slice(&data);
            }
            let head = http::Response::builder().header("content-type", "application/grpc").body(())?;
            let mut send = respond.send_response(head, false)?;
            send.send_data(message.into(), false)?;
            end(&mut send)
        });
    }
    Ok(())
}

async fn calls(stream: TcpStream) -> anyhow::Result<()> {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(request) = connection.accept().await {
        let (request, mut respond) = request?;
        tokio::spawn(async move {
            let mut body = request.into_body();
            let head = http::Response::builder().header("content-type", "application/grpc").body(())?;
            let mut send = respond.send_response(head, false)?;
            while let Some(data) = body.data().await {
                let data = data?;
                body.flow_control().release_capacity(data.len())?;
                // A frame with nothing in it says no more than that the call is over, and counts as a flood.
                if !data.is_empty() {
                    send.send_data(data, false)?;
                }
            }
            end(&mut send)
        });
    }
    Ok(())
}

/// A call that went well.
fn end(send: &mut h2::SendStream<Bytes>) -> anyhow::Result<()> {
    let status = (http::HeaderName::from_static("grpc-status"), http::HeaderValue::from_static("0"));
    Ok(send.send_trailers(http::HeaderMap::from_iter([status]))?)
}
