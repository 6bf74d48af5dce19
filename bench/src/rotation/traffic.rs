//! Traffic that notices everything: requests, calls and short connections one after the other, and streams that stay open.

use bytes::{Buf, Bytes, BytesMut};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Lanes of each kind; each waits a little between two requests.
const LANES: usize = 4;
const PAUSE: Duration = Duration::from_millis(20);

/// Nothing takes longer: a request that hangs has failed, a stream that says nothing is broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// The first failures are told, the others counted.
const TOLD: usize = 10;

/// Where the traffic goes.
#[derive(Clone, Copy)]
pub(super) struct Targets {
    pub(super) http_proxy: SocketAddr,
    pub(super) bytes: SocketAddr,
    pub(super) web: &'static str,
    pub(super) calls: &'static str,
}

/// What became of it.
#[derive(Default)]
pub(super) struct Tally {
    requests: AtomicU64,
    calls: AtomicU64,
    connections: AtomicU64,
    failed: AtomicU64,
    streams: AtomicU64,
    echoes: AtomicU64,
    broken: AtomicU64,
    told: Mutex<Vec<String>>,
}

/// Traffic that flows until it is stopped.
pub(super) struct Traffic {
    stop: Arc<AtomicBool>,
    tally: Arc<Tally>,
    thread: std::thread::JoinHandle<()>,
}

impl Traffic {
    /// Waits until everybody is reached, and begins.
    pub(super) fn start(targets: Targets) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let lane = Lane { targets, stop: Arc::default(), tally: Arc::default() };
        runtime.block_on(async {
            let end = Instant::now() + 3 * PATIENCE;
            while let Err(error) = lane.reaches_all().await {
                anyhow::ensure!(Instant::now() < end, "not everybody is reached: {error:#}");
                sleep(10 * PAUSE).await;
            }
            anyhow::Ok(())
        })?;
        let (stop, tally) = (lane.stop.clone(), lane.tally.clone());
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let mut set = JoinSet::new();
                for _ in 0..LANES {
                    set.spawn(lane.clone().requests());
                    set.spawn(lane.clone().calls());
                    set.spawn(lane.clone().connections());
                    set.spawn(lane.clone().stream(Kind::Bytes));
                    set.spawn(lane.clone().stream(Kind::Call));
                }
                while let Some(ended) = set.join_next().await {
                    if let Err(panicked) = ended {
                        lane.tally.failed(&panicked.to_string());
                    }
                }
            });
        });
        Ok(Self { stop, tally, thread })
    }

    /// Lets what is under way finish.
    pub(super) fn stop(self) -> anyhow::Result<Arc<Tally>> {
        self.stop.store(true, Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the traffic panicked"))?;
        Ok(self.tally)
    }
}

impl Tally {
    /// Whether nothing has failed, of as much of each kind as one would notice it by.
    pub(super) fn unbroken(&self) -> anyhow::Result<()> {
        let (failed, broken) = (self.failed.load(Relaxed), self.broken.load(Relaxed));
        anyhow::ensure!(failed == 0 && broken == 0, "{failed} requests failed, {broken} streams broke");
        let (open, wanted) = (self.streams.load(Relaxed), 2 * LANES as u64);
        anyhow::ensure!(open == wanted, "{open} streams were open to the end, not {wanted}");
        for (what, count) in [
            ("requests", &self.requests),
            ("calls", &self.calls),
            ("connections", &self.connections),
            ("echoes", &self.echoes),
        ] {
            anyhow::ensure!(count.load(Relaxed) > 100, "there were hardly any {what}");
        }
        Ok(())
    }

    fn failed(&self, why: &str) {
        self.failed.fetch_add(1, Relaxed);
        self.tell(why);
    }

    fn tell(&self, why: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < TOLD {
            told.push(why.to_owned());
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |count: &AtomicU64| count.load(Relaxed);
        write!(
            f,
            "{} requests, {} gRPC calls, {} TCP connections: {} failed; {} streams open to the end ({} echoes): {} broken",
            of(&self.requests),
            of(&self.calls),
            of(&self.connections),
            of(&self.failed),
            of(&self.streams),
            of(&self.echoes),
            of(&self.broken)
        )?;
        for why in self.told.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            write!(f, "\n    {why}")?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Bytes,
    Call,
}

#[derive(Clone)]
struct Lane {
    targets: Targets,
    stop: Arc<AtomicBool>,
    tally: Arc<Tally>,
}

impl Lane {
    fn goes_on(&self) -> bool {
        !self.stop.load(Relaxed)
    }

    async fn reaches_all(&self) -> anyhow::Result<()> {
        timeout(PATIENCE, get(&mut None, self.targets.http_proxy, self.targets.web)).await??;
        timeout(PATIENCE, echo(&mut TcpStream::connect(self.targets.bytes).await?, 7)).await??;
        let mut sender = Call::connect(self.targets.http_proxy).await?;
        let mut call = timeout(PATIENCE, Call::begin(&mut sender, self.targets.calls)).await??;
        timeout(PATIENCE, call.echo(7)).await?
    }

    /// Counts one that was tried.
    fn count(
        &self,
        count: &AtomicU64,
        what: &str,
        outcome: Result<anyhow::Result<()>, tokio::time::error::Elapsed>,
    ) -> bool {
        let why = match outcome {
            Ok(Ok(())) => {
                count.fetch_add(1, Relaxed);
                return true;
            }
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("nothing for {PATIENCE:?}"),
        };
        self.tally.failed(&format!("{what}: {why}"));
        false
    }

    /// Requests of HTTP/1.1 on one connection, or the next when it is not to be used any more.
    async fn requests(self) {
        let mut connection = None;
        while self.goes_on() {
            let outcome = timeout(PATIENCE, get(&mut connection, self.targets.http_proxy, self.targets.web)).await;
            if !self.count(&self.tally.requests, "request", outcome) {
                connection = None;
            }
            sleep(PAUSE).await;
        }
    }

    /// Calls, ten on each connection.
    async fn calls(self) {
        while self.goes_on() {
            let opened = timeout(PATIENCE, Call::connect(self.targets.http_proxy)).await;
            let mut sender = match opened {
                Ok(Ok(sender)) => sender,
                Ok(Err(error)) => {
                    self.tally.failed(&format!("call: {error:#}"));
                    continue;
                }
                Err(_) => continue,
            };
            for _ in 0..10 {
                // A connection that is to be used no more is no failure; a call that was let in and lost is.
                let Ok(ready) = sender.ready().await else { break };
                sender = ready;
                let one = async {
                    let mut call = Call::begin(&mut sender, self.targets.calls).await?;
                    call.echo(7).await?;
                    call.end().await
                };
                let outcome = timeout(PATIENCE, one).await;
                self.count(&self.tally.calls, "call", outcome);
                sleep(PAUSE).await;
            }
        }
    }

    /// Connections that say one thing each.
    async fn connections(self) {
        while self.goes_on() {
            let one = async {
                let mut stream = TcpStream::connect(self.targets.bytes).await?;
                echo(&mut stream, 7).await?;
                stream.shutdown().await?;
                anyhow::ensure!(stream.read(&mut [0]).await? == 0, "more came back than was sent");
                Ok(())
            };
            let outcome = timeout(PATIENCE, one).await;
            self.count(&self.tally.connections, "connection", outcome);
            sleep(PAUSE).await;
        }
    }

    /// One stream, which says something again and again and wants it back, to the end.
    async fn stream(self, kind: Kind) {
        let outcome = match kind {
            Kind::Bytes => self.bytes().await,
            Kind::Call => self.call().await,
        };
        match outcome {
            Ok(()) => self.tally.streams.fetch_add(1, Relaxed),
            Err(error) => {
                let name = match kind {
                    Kind::Bytes => "TCP stream",
                    Kind::Call => "gRPC stream",
                };
                self.tally.tell(&format!("{name}: {error:#}"));
                self.tally.broken.fetch_add(1, Relaxed)
            }
        };
    }

    async fn bytes(&self) -> anyhow::Result<()> {
        let mut stream = TcpStream::connect(self.targets.bytes).await?;
        let mut turn = 0;
        while self.goes_on() {
            turn += 1;
            timeout(PATIENCE, echo(&mut stream, turn)).await??;
            self.tally.echoes.fetch_add(1, Relaxed);
            sleep(PAUSE).await;
        }
        Ok(())
    }

    async fn call(&self) -> anyhow::Result<()> {
        let mut sender = Call::connect(self.targets.http_proxy).await?;
        let mut call = Call::begin(&mut sender, self.targets.calls).await?;
        let mut turn = 0;
        while self.goes_on() {
            turn += 1;
            timeout(PATIENCE, call.echo(turn)).await??;
            self.tally.echoes.fetch_add(1, Relaxed);
            sleep(PAUSE).await;
        }
        timeout(PATIENCE, call.end()).await?
    }
}

/// One request, on the connection there is if there is one.
async fn get(connection: &mut Option<TcpStream>, to: SocketAddr, host: &str) -> anyhow::Result<()> {
    let mut stream = match connection.take() {
        Some(stream) => stream,
        None => TcpStream::connect(to).await?,
    };
    stream.write_all(format!("GET http://{host}/ HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    let (head, length) = loop {
        anyhow::ensure!(stream.read_buf(&mut answer).await? > 0, "the connection ended before an answer");
        if let Some(at) = answer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&answer[..at]).to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
            break (head, at + 4 + length.unwrap_or(0));
        }
    };
    while answer.len() < length {
        anyhow::ensure!(stream.read_buf(&mut answer).await? > 0, "the answer was cut off");
    }
    anyhow::ensure!(head.starts_with("http/1.1 200"), "answered {}", String::from_utf8_lossy(&answer));
    if !head.contains("connection: close") {
        *connection = Some(stream);
    }
    Ok(())
}

/// A number there and back.
async fn echo(stream: &mut TcpStream, number: u64) -> anyhow::Result<()> {
    stream.write_all(&number.to_be_bytes()).await?;
    let back = stream.read_u64().await?;
    anyhow::ensure!(back == number, "{back} came back for {number}");
    Ok(())
}

/// A gRPC call that streams both ways.
struct Call {
    send: h2::SendStream<Bytes>,
    receive: h2::RecvStream,
    came: BytesMut,
}

/// A message of eight bytes, as gRPC frames it.
const FRAMED: usize = 5 + 8;

impl Call {
    async fn connect(to: SocketAddr) -> anyhow::Result<h2::client::SendRequest<Bytes>> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = h2::client::handshake(stream).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn begin(sender: &mut h2::client::SendRequest<Bytes>, host: &str) -> anyhow::Result<Self> {
        let request = http::Request::post(format!("http://{host}/bench.Service/Echo"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let (response, send) = sender.send_request(request, false)?;
        let response = response.await?;
        let status = response.headers().get("grpc-status");
        anyhow::ensure!(response.status() == 200 && status.is_none(), "answered {response:?}");
        Ok(Self { send, receive: response.into_body(), came: BytesMut::new() })
    }

    async fn echo(&mut self, number: u64) -> anyhow::Result<()> {
        self.send.send_data([&[0, 0, 0, 0, 8], number.to_be_bytes().as_slice()].concat().into(), false)?;
        while self.came.len() < FRAMED {
            let Some(data) = self.receive.data().await else {
                anyhow::bail!("it ended: {:?}", self.receive.trailers().await)
            };
            let data = data?;
            self.receive.flow_control().release_capacity(data.len())?;
            self.came.extend_from_slice(&data);
        }
        self.came.advance(5);
        let back = self.came.get_u64();
        anyhow::ensure!(back == number, "{back} came back for {number}");
        Ok(())
    }

    async fn end(mut self) -> anyhow::Result<()> {
        self.send.send_data(Bytes::new(), true)?;
        while let Some(data) = self.receive.data().await {
            anyhow::ensure!(data?.is_empty(), "more came back than was sent");
        }
        let trailers = self.receive.trailers().await?;
        let status = trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"));
        anyhow::ensure!(status.is_some_and(|status| status == "0"), "it ended with {trailers:?}");
        Ok(())
    }
}
