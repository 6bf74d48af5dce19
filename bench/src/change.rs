//! Nothing may be lost while things change: steady load through a gateway, while routes, weights, subsets and endpoints come
//! and go, or while the control plane dies and comes back.

use crate::backend::Backend;
use crate::process::{Process, await_port, free_port};
use crate::{load, mesh};
use clap::Parser;
use std::path::Path;
use std::time::{Duration, Instant};

/// What `change` can be told.
#[derive(Parser)]
pub(crate) struct Args {
    /// Seconds of load.
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// Requests a second.
    #[arg(long, default_value_t = 4000.0)]
    rate: f64,
    /// Milliseconds between two changes.
    #[arg(long, default_value_t = 250)]
    every: u64,
    /// The data plane: maille or envoy.
    #[arg(long, default_value = "maille")]
    proxy: String,
}

/// What `restart` can be told.
#[derive(Parser)]
pub(crate) struct RestartArgs {
    /// Seconds of load.
    #[arg(long, default_value_t = 30.0)]
    seconds: f64,
    /// Requests a second.
    #[arg(long, default_value_t = 2000.0)]
    rate: f64,
}

/// Runs the load and the changes, prints the count, fails when anything was lost.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("config");
    std::fs::create_dir(&config)?;
    let (port, xds) = (free_port()?, free_port()?);
    mesh::write(&config, "gateway.yaml", &mesh::gateway(port))?;
    let mut world = World::new(&config)?;
    world.write_all()?;
    let up = mesh::up(&config, xds, &args.proxy, &dir.path().join("up.log"))?;
    await_port(port, "the gateway")?;
    mesh::await_ok(port)?;

    let (done, changes) = (Instant::now() + Duration::from_secs_f64(args.seconds), Duration::from_millis(args.every));
    let load_args = load_args(port, args.rate, args.seconds);
    let load = std::thread::spawn(move || load::run(&load_args));
    let mut count = 0;
    while Instant::now() + changes < done {
        std::thread::sleep(changes);
        world.change(count)?;
        count += 1;
    }
    let outcome = load.join().map_err(|_| anyhow::anyhow!("the load generator panicked"))??;
    drop(up);
    report(&format!("{count} changes"), &outcome, args.rate)
}

/// Kills the control plane with SIGKILL a third into the load, starts it again at two thirds.
pub(crate) fn restart(args: &RestartArgs) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("config");
    std::fs::create_dir(&config)?;
    let (port, xds) = (free_port()?, free_port()?);
    mesh::write(&config, "gateway.yaml", &mesh::gateway(port))?;
    let mut world = World::new(&config)?;
    world.write_all()?;
    let log = dir.path().join("up.log");
    let mut up = mesh::up(&config, xds, "none", &log)?;
    await_port(xds, "the control plane")?;
    let control = format!("127.0.0.1:{xds}");
    let proxy = [
        "proxy",
        "--control",
        &control,
        "--role",
        "router",
        "--labels",
        "istio=ingressgateway",
        "--namespace",
        "istio-system",
    ];
    let gateway = Process::start("maille proxy", &mesh::maille()?, &proxy, &dir.path().join("proxy.log"))?;
    await_port(port, "the gateway")?;
    mesh::await_ok(port)?;

    let load_args = load_args(port, args.rate, args.seconds);
    let load = std::thread::spawn(move || load::run(&load_args));
    let third = Duration::from_secs_f64(args.seconds / 3.0);
    std::thread::sleep(third);
    up.kill();
    std::thread::sleep(third);
    let up = mesh::up(&config, xds, "none", &log)?;
    await_port(xds, "the control plane, started again,")?;
    std::thread::sleep(third / 4);
    world.change(1)?;
    let outcome = load.join().map_err(|_| anyhow::anyhow!("the load generator panicked"))??;
    let resynchronised = mesh::answers_from(port, "/probe-1")? == 200;
    drop((up, gateway));
    anyhow::ensure!(resynchronised, "the change made after the restart did not reach the proxy");
    report("control plane killed, started again, change applied", &outcome, args.rate)
}

fn load_args(port: u16, rate: f64, seconds: f64) -> load::Args {
    load::Args {
        address: ([127, 0, 0, 1], port).into(),
        host: "bench.example".into(),
        path: "/".into(),
        paths: 1,
        connections: 32,
        rate: Some(rate),
        seconds,
    }
}

fn report(what: &str, o: &load::Outcome, wanted: f64) -> anyhow::Result<()> {
    println!(
        "{what}: {} requests at {:.0}/s (wanted {wanted:.0}), p50 {:.0} µs, p99 {:.0} µs; not 2xx: {:?}, broken connections: {}",
        o.latency.count(),
        o.rate(),
        o.latency.quantile(0.5),
        o.latency.quantile(0.99),
        o.other,
        o.broken
    );
    anyhow::ensure!(o.ok > 0 && o.lost() == 0, "{} requests were lost", o.lost());
    println!("1 passed, 0 failed");
    Ok(())
}

/// The configuration that changes, and the backends it points to.
struct World<'a> {
    config: &'a Path,
    backends: Vec<(Backend, &'static str)>,
    /// Taken out of the configuration, still serving for a while as a draining workload does.
    leaving: Vec<(Instant, Backend)>,
}

impl<'a> World<'a> {
    fn new(config: &'a Path) -> anyhow::Result<Self> {
        let backends =
            vec![(Backend::start("v1")?, "v1"), (Backend::start("v1")?, "v1"), (Backend::start("v2")?, "v2")];
        Ok(Self { config, backends, leaving: vec![] })
    }

    fn write_all(&self) -> anyhow::Result<()> {
        self.endpoints()?;
        self.subsets(false)?;
        self.routes(50, None)
    }

    fn endpoints(&self) -> anyhow::Result<()> {
        let list: Vec<_> = self.backends.iter().map(|(b, v)| (b.port, *v)).collect();
        mesh::write(self.config, "service.yaml", &mesh::service("shop", &list))
    }

    fn subsets(&self, extra: bool) -> anyhow::Result<()> {
        let extra = if extra { ", {name: v3, labels: {version: v1}}" } else { "" };
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: shop, namespace: bench}}\n\
             spec: {{host: shop.example, subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}{extra}]}}\n"
        );
        mesh::write(self.config, "rule.yaml", &text)
    }

    /// The main route with `weight` on v1, and one more route when `probe` is given.
    fn routes(&self, weight: u32, probe: Option<usize>) -> anyhow::Result<()> {
        let probe = probe.map_or(String::new(), |n| {
            format!(
                "  - match: [{{uri: {{exact: /probe-{n}}}}}]\n    route: [{{destination: {{host: shop.example}}}}]\n"
            )
        });
        let main = format!(
            "  - match: [{{uri: {{exact: /}}}}]\n    route:\n    - {{destination: {{host: shop.example, subset: v1}}, weight: {weight}}}\n    \
             - {{destination: {{host: shop.example, subset: v2}}, weight: {}}}\n",
            100 - weight
        );
        mesh::write(self.config, "routes.yaml", &mesh::virtual_service("shop", "bench.example", &(probe + &main)))
    }

    /// Change number `n`: weights, routes, subsets and endpoints in turn.
    fn change(&mut self, n: usize) -> anyhow::Result<()> {
        self.leaving.retain(|(since, _)| since.elapsed() < Duration::from_secs(3));
        match n % 4 {
            0 => self.routes((n * 13 % 101) as u32, None),
            1 => self.routes(50, Some(n)),
            2 => self.subsets(n % 8 == 2),
            _ => {
                let version = if n % 8 == 3 { "v1" } else { "v2" };
                let at = self.backends.iter().position(|b| b.1 == version).unwrap_or(0);
                let (old, _) = self.backends.remove(at);
                self.backends.push((Backend::start(version)?, version));
                self.endpoints()?;
                self.leaving.push((Instant::now(), old));
                Ok(())
            }
        }
    }
}
