//! A proxy that is told to go under load: clients of HTTP/1.1 and HTTP/2 keep asking one gateway, it gets SIGTERM, and they go on at another when they
//! are told to. No request may be lost.

use crate::gateways::local;
use crate::mesh;
use crate::process::{Process, await_port, free_port};
use crate::servers::{Kind, LARGE, Server};
use bytes::Bytes;
use clap::Parser;
use std::cell::Cell;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// What `drain` can be told.
#[derive(Parser)]
pub(crate) struct Args {
    /// Seconds of load; SIGTERM comes after a third of them.
    #[arg(long, default_value_t = 9.0)]
    seconds: f64,
    /// Seconds that the gateway goes on accepting while it tells its clients to go.
    #[arg(long, default_value_t = 2)]
    drain_time: u32,
    /// Clients of HTTP/1.1, each with a connection.
    #[arg(long, default_value_t = 32)]
    http1: usize,
    /// Clients of HTTP/2, each with a connection and four requests at a time.
    #[arg(long, default_value_t = 8)]
    http2: usize,
}

/// Between two requests of a client.
const PAUSE: Duration = Duration::from_millis(5);
/// What the clients ask for in turn: answers at once, after a while, and long ones.
const PATHS: [&str; 8] = ["/", "/", "/slow", "/", "/", "/big", "/", "/"];

/// Where clients go, and what became of their requests.
struct World {
    /// The gateway that will leave, and the one that stays.
    gateways: [SocketAddr; 2],
    over: Cell<bool>,
    answered: Cell<u64>,
    /// Requests whose answer did not come whole, or was not 2xx.
    lost: Cell<u64>,
    /// Clients that were told to go, of each version.
    told: [Cell<usize>; 2],
    why: Cell<Option<String>>,
}

impl World {
    fn count(&self, outcome: anyhow::Result<()>) {
        match outcome {
            Ok(()) => self.answered.set(self.answered.get() + 1),
            Err(why) => {
                self.lost.set(self.lost.get() + 1);
                self.why.set(Some(format!("{why:#}")));
            }
        }
    }

    fn tell(&self, version: usize) {
        self.told[version].set(self.told[version].get() + 1);
    }
}

/// Runs the load, ends the gateway in the midst of it, and fails when a request was lost or a client was not told.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let backend = Server::start(Kind::Bodies)?;
    let (ports, xds) = ([free_port()?, free_port()?], free_port()?);
    let config = configure(dir.path(), ports, backend.port)?;
    let up = mesh::up(&config, xds, "none", &dir.path().join("up.log"))?;
    await_port(xds, "the control plane")?;
    let mut leaving = gateway("blue", xds, args.drain_time, dir.path())?;
    let staying = gateway("green", xds, args.drain_time, dir.path())?;
    for port in ports {
        await_port(port, "a gateway")?;
        mesh::await_ok(port)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(tokio::task::LocalSet::new().run_until(load(args, ports.map(local), &mut leaving)));
    let (world, took, code) = outcome?;
    drop((staying, up));
    println!(
        "SIGTERM under load: {} requests answered, {} lost; told to go: {} of {} over HTTP/1.1, {} of {} over HTTP/2; the gateway ended with {code:?} after {:.1} s",
        world.answered.get(),
        world.lost.get(),
        world.told[0].get(),
        args.http1,
        world.told[1].get(),
        args.http2,
        took.as_secs_f64(),
    );
    anyhow::ensure!(world.lost.get() == 0, "{} requests were lost: {:?}", world.lost.get(), world.why.take());
    anyhow::ensure!(world.answered.get() > 0, "nothing was answered");
    anyhow::ensure!(
        (world.told[0].get(), world.told[1].get()) == (args.http1, args.http2),
        "not every client was told to go"
    );
    anyhow::ensure!(code == Some(0), "the gateway ended with {code:?}");
    println!("1 passed, 0 failed");
    Ok(())
}

fn configure(dir: &Path, ports: [u16; 2], backend: u16) -> anyhow::Result<std::path::PathBuf> {
    let config = dir.join("config");
    std::fs::create_dir(&config)?;
    for (name, port) in ["blue", "green"].into_iter().zip(ports) {
        let text = mesh::gateway(port)
            .replace("ingressgateway", name)
            .replace("name: edge, namespace", &format!("name: {name}, namespace"));
        mesh::write(&config, &format!("{name}.yaml"), &text)?;
    }
    mesh::write(&config, "service.yaml", &mesh::service("shop", &[(backend, "v1")]))?;
    let routes = mesh::virtual_service("shop", "bench.example", "  - route: [{destination: {host: shop.example}}]\n");
    mesh::write(&config, "routes.yaml", &routes.replace("gateways: [edge]", "gateways: [blue, green]"))?;
    Ok(config)
}

fn gateway(name: &str, xds: u16, drain_time: u32, dir: &Path) -> anyhow::Result<Process> {
    let (control, labels, drain) = (format!("127.0.0.1:{xds}"), format!("istio={name}"), drain_time.to_string());
    let args =
        ["proxy", "--control", &control, "--labels", &labels, "--namespace", "istio-system", "--drain-time", &drain];
    Process::start(name, &mesh::maille()?, &args, &dir.join(format!("{name}.log")))
}

/// The load; how long the gateway took to end, and with which code.
async fn load(
    args: &Args,
    gateways: [SocketAddr; 2],
    leaving: &mut Process,
) -> anyhow::Result<(Rc<World>, Duration, Option<i32>)> {
    let world = Rc::new(World {
        gateways,
        over: Cell::new(false),
        answered: Cell::new(0),
        lost: Cell::new(0),
        told: Default::default(),
        why: Cell::new(None),
    });
    let mut clients: Vec<JoinHandle<()>> = Vec::new();
    clients.extend((0..args.http1).map(|n| tokio::task::spawn_local(http1(world.clone(), n))));
    clients.extend((0..args.http2).map(|n| tokio::task::spawn_local(http2(world.clone(), n))));
    let third = Duration::from_secs_f64(args.seconds / 3.0);
    tokio::time::sleep(third).await;
    let (told, limit) = (Instant::now(), third + Duration::from_secs_f64(args.seconds));
    leaving.terminate();
    let mut code = None;
    while code.is_none() && told.elapsed() < limit {
        tokio::time::sleep(Duration::from_millis(20)).await;
        code = leaving.ended();
    }
    let took = told.elapsed();
    tokio::time::sleep(third).await;
    world.over.set(true);
    for client in clients {
        let _ = tokio::time::timeout(Duration::from_secs(10), client).await;
    }
    Ok((world, took, code.flatten()))
}

/// A connection to the gateway that the client is at, or to the next one when that does not listen any more.
async fn connect(world: &World, at: &mut usize) -> Option<TcpStream> {
    loop {
        match TcpStream::connect(world.gateways[*at]).await {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                return Some(stream);
            }
            Err(_) if *at == 0 => *at = 1,
            Err(e) => {
                world.count(Err(e.into()));
                return None;
            }
        }
    }
}

/// A client of HTTP/1.1: one request after the other, until the connection says that it is the last one.
async fn http1(world: Rc<World>, number: usize) {
    let (mut at, mut turn) = (0, number);
    while let Some(mut stream) = connect(&world, &mut at).await {
        let mut head = Vec::new();
        loop {
            if world.over.get() {
                return;
            }
            turn += 1;
            match ask(&mut stream, PATHS[turn % PATHS.len()], &mut head).await {
                Ok(keep) => {
                    world.count(Ok(()));
                    tokio::time::sleep(PAUSE).await;
                    if !keep {
                        world.tell(0);
                        at = 1;
                        break;
                    }
                }
                Err(why) => {
                    world.count(Err(why));
                    break;
                }
            }
        }
    }
}

/// One request; whether the connection may be used again.
async fn ask(stream: &mut TcpStream, path: &str, head: &mut Vec<u8>) -> anyhow::Result<bool> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: bench.example\r\n\r\n").as_bytes()).await?;
    head.clear();
    let end = loop {
        if let Some(at) = head.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        anyhow::ensure!(stream.read_buf(head).await? > 0, "the connection ended instead of an answer to {path}");
    };
    let text = String::from_utf8_lossy(&head[..end]).to_ascii_lowercase();
    anyhow::ensure!(text.starts_with("http/1.1 2"), "{path}: {}", text.lines().next().unwrap_or_default());
    let length = text.split("content-length: ").nth(1).and_then(|l| l.split("\r\n").next()?.parse::<usize>().ok());
    let whole = end + length.ok_or_else(|| anyhow::anyhow!("{path}: no length"))?;
    while head.len() < whole {
        anyhow::ensure!(stream.read_buf(head).await? > 0, "the connection ended in the answer to {path}");
    }
    Ok(!text.contains("\r\nconnection: close"))
}

/// A client of HTTP/2: four requests at a time, until the connection takes no more.
async fn http2(world: Rc<World>, number: usize) {
    let (mut at, mut turn) = (0, number);
    while let Some(stream) = connect(&world, &mut at).await {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(4 * LARGE as u32).initial_connection_window_size(16 * LARGE as u32);
        let Ok((send, connection)) = builder.handshake::<_, Bytes>(stream).await else {
            // It was closed before anything was asked.
            at = 1;
            continue;
        };
        let driver = tokio::task::spawn_local(connection);
        loop {
            if world.over.get() {
                return;
            }
            let Ok(send) = send.clone().ready().await else {
                world.tell(1);
                at = 1;
                break;
            };
            turn += 4;
            let one = |n: usize| stream_of(&world, send.clone(), PATHS[(turn + n) % PATHS.len()]);
            tokio::join!(one(0), one(1), one(2), one(3));
            tokio::time::sleep(PAUSE).await;
        }
        let _ = driver.await;
    }
}

/// One request on a stream of its own, if the connection still takes one.
async fn stream_of(world: &World, send: h2::client::SendRequest<Bytes>, path: &str) {
    let Ok(mut send) = send.ready().await else { return };
    let request = http::Request::get(format!("http://bench.example{path}")).body(()).unwrap_or_default();
    let Ok((response, _)) = send.send_request(request, true) else { return };
    world.count(answer(response, path).await);
}

async fn answer(response: h2::client::ResponseFuture, path: &str) -> anyhow::Result<()> {
    let response = response.await?;
    anyhow::ensure!(response.status().is_success(), "{path}: {}", response.status());
    let length = response.headers().get("content-length").and_then(|l| l.to_str().ok()?.parse::<usize>().ok());
    let (mut body, mut got) = (response.into_body(), 0);
    while let Some(data) = body.data().await {
        let data = data?;
        got += data.len();
        let _ = body.flow_control().release_capacity(data.len());
    }
    anyhow::ensure!(length == Some(got), "{path}: {got} bytes of {length:?}");
    Ok(())
}
