//! Loads that the plain generator cannot make: gRPC calls, large bodies, bytes, TLS handshakes. Closed loops: as fast as they go.

use crate::histogram::Histogram;
use crate::identity::Identity;
use crate::servers::LARGE;
use bytes::Bytes;
use rustls::ClientConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// What a load did.
pub(crate) struct Done {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
    pub(crate) latency: Histogram,
}

impl Done {
    fn new() -> Self {
        Self { count: 0, bytes: 0, latency: Histogram::new() }
    }

    fn one(&mut self, since: Instant, bytes: usize) {
        self.count += 1;
        self.bytes += bytes as u64;
        self.latency.record(since.elapsed().as_nanos() as u64);
    }

    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.bytes += other.bytes;
        self.latency.add(&other.latency);
    }
}

/// Runs `each` on `lanes` tasks until the time is over, and sums what they did. The first error is the result.
fn lanes<F>(lanes: usize, seconds: f64, each: impl Fn(usize, Instant) -> F) -> anyhow::Result<Done>
where
    F: Future<Output = anyhow::Result<Done>> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        let mut set = JoinSet::new();
        (0..lanes).for_each(|n| drop(set.spawn(each(n, end))));
        let limit = tokio::time::sleep(Duration::from_secs_f64(seconds + 20.0));
        tokio::pin!(limit);
        let mut sum = Done::new();
        loop {
            tokio::select! {
                () = &mut limit => anyhow::bail!("the load has not ended 20 s after its time"),
                next = set.join_next() => match next {
                    Some(done) => sum.add(&done??),
                    None => return Ok(sum),
                },
            }
        }
    })
}

/// Unary gRPC calls over prior-knowledge HTTP/2: `streams` at a time on each of `connections`.
pub(crate) fn grpc(to: SocketAddr, connections: usize, streams: usize, seconds: f64) -> anyhow::Result<Done> {
    lanes(connections, seconds, move |_, end| async move {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(1 << 20)
            .initial_connection_window_size(1 << 24)
            .handshake::<_, Bytes>(stream)
            .await?;
        let driver = tokio::spawn(connection);
        let mut set = JoinSet::new();
        for _ in 0..streams {
            let mut sender = sender.clone();
            set.spawn(async move {
                let mut done = Done::new();
                while Instant::now() < end {
                    let start = Instant::now();
                    sender = sender.ready().await?;
                    call(&mut sender).await?;
                    done.one(start, 0);
                }
                anyhow::Ok(done)
            });
        }
        let mut sum = Done::new();
        while let Some(done) = set.join_next().await {
            sum.add(&done??);
        }
        driver.abort();
        Ok(sum)
    })
}

async fn call(sender: &mut h2::client::SendRequest<Bytes>) -> anyhow::Result<()> {
    const MESSAGE: &[u8] = b"\0\0\0\0\x20abcdefghijklmnopqrstuvwxyz012345";
    let request = http::Request::post("http://bench.example/bench.Service/Call")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (response, mut body) = sender.send_request(request, false)?;
    body.send_data(Bytes::from_static(MESSAGE), true)?;
    let response = response.await?;
    anyhow::ensure!(response.status() == 200, "a call was answered {}", response.status());
    let mut body = response.into_body();
    let mut got = 0;
    while let Some(data) = body.data().await {
        let data = data?;
        got += data.len();
        let _ = body.flow_control().release_capacity(data.len());
    }
    let trailers = body.trailers().await?;
    let status = trailers.as_ref().and_then(|t| t.get("grpc-status"));
    anyhow::ensure!(
        got == MESSAGE.len() && status.is_some_and(|s| s == "0"),
        "a call got {got} bytes and {trailers:?}"
    );
    Ok(())
}

/// POST requests with 1 MB, answered with 1 MB.
pub(crate) fn bodies(
    to: SocketAddr,
    tls: Option<&Arc<ClientConfig>>,
    connections: usize,
    seconds: f64,
) -> anyhow::Result<Done> {
    lanes(connections, seconds, |_, end| {
        let connector = tls.cloned().map(TlsConnector::from);
        async move {
            let stream = TcpStream::connect(to).await?;
            stream.set_nodelay(true)?;
            match connector {
                None => exchange(stream, end).await,
                Some(connector) => exchange(connector.connect(Identity::name()?, stream).await?, end).await,
            }
        }
    })
}

async fn exchange(stream: impl AsyncRead + AsyncWrite, end: Instant) -> anyhow::Result<Done> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let head = format!("POST / HTTP/1.1\r\nhost: bench.example\r\ncontent-length: {LARGE}\r\n\r\n");
    let request = [head.as_bytes(), &vec![b'y'; LARGE]].concat();
    let (mut done, mut buf) = (Done::new(), vec![0; 1 << 17]);
    while Instant::now() < end {
        let start = Instant::now();
        let send = async {
            writer.write_all(&request).await?;
            writer.flush().await
        };
        let (sent, got) = tokio::join!(send, answer(&mut reader, &mut buf));
        sent?;
        got?;
        done.one(start, 2 * LARGE);
    }
    Ok(done)
}

async fn answer(reader: &mut (impl AsyncRead + Unpin), buf: &mut [u8]) -> anyhow::Result<()> {
    let mut filled = 0;
    let end = loop {
        let n = reader.read(&mut buf[filled..]).await?;
        anyhow::ensure!(n > 0, "the connection ended before an answer");
        filled += n;
        if let Some(at) = buf[..filled].windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
    };
    anyhow::ensure!(buf.starts_with(b"HTTP/1.1 200"), "answered {}", String::from_utf8_lossy(&buf[..end]));
    let mut left = LARGE.checked_sub(filled - end).ok_or_else(|| anyhow::anyhow!("more than was announced"))?;
    while left > 0 {
        let n = reader.read(buf).await?;
        anyhow::ensure!(n > 0 && n <= left, "the answer was cut off");
        left -= n;
    }
    Ok(())
}

/// Bytes through a TCP route and back, as fast as they go.
pub(crate) fn bytes(to: SocketAddr, connections: usize, seconds: f64) -> anyhow::Result<Done> {
    const BLOCK: usize = 1 << 18;
    lanes(connections, seconds, move |_, end| async move {
        let mut stream = TcpStream::connect(to).await?;
        let (block, mut back) = (vec![b'z'; BLOCK], vec![0; BLOCK]);
        let mut done = Done::new();
        while Instant::now() < end {
            let start = Instant::now();
            let (mut reader, mut writer) = stream.split();
            let (sent, got) = tokio::join!(writer.write_all(&block), reader.read_exact(&mut back));
            sent?;
            got?;
            done.one(start, 2 * BLOCK);
        }
        Ok(done)
    })
}

/// Full TLS handshakes, one after the other on each lane, each on a connection of its own; nothing is resumed.
pub(crate) fn handshakes(
    to: SocketAddr,
    config: Arc<ClientConfig>,
    at_once: usize,
    seconds: f64,
) -> anyhow::Result<Done> {
    lanes(at_once, seconds, move |lane, end| {
        let connector = TlsConnector::from(config.clone());
        async move {
            let (mut done, mut turn) = (Done::new(), 0);
            while Instant::now() < end {
                // Many addresses to come from: each has its own ports, and closed ones are not free at once.
                let socket = TcpSocket::new_v4()?;
                socket.set_reuseaddr(true)?;
                turn = (turn + 1) % 8;
                socket.bind(SocketAddr::from(([127, 0, 1 + turn, 1 + lane as u8], 0)))?;
                let stream = socket.connect(to).await?;
                let start = Instant::now();
                let mut tls = connector.connect(Identity::name()?, stream).await?;
                done.one(start, 0);
                tls.shutdown().await?;
                let mut rest = [0; 1024];
                // Whatever comes (tickets), until the other side has closed too.
                while matches!(tokio::time::timeout(Duration::from_secs(2), tls.read(&mut rest)).await, Ok(Ok(n)) if n > 0)
                {
                }
            }
            Ok(done)
        }
    })
}
