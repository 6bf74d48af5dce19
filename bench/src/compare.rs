//! One table: maille, Envoy, nginx, HAProxy and the bare forwarder, one worker each on one core, the same backend and load,
//! in interleaved rounds; medians, and ratios as medians of the ratios round by round.

use crate::backend::Backend;
use crate::process::{self, PROXY_CORE, Process, await_port, free_port, pin, rss_mb};
use crate::{load, mesh};
use clap::Parser;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What `compare` can be told.
#[derive(Parser)]
pub(crate) struct Args {
    /// Rounds; each visits every proxy once.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds of load per visit and mode.
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// Connections.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Requests a second of the steady mode.
    #[arg(long, default_value_t = 8000.0)]
    rate: f64,
    /// Only these proxies (names as in the table), separated by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Leave out the tables on the number of routes and on idle memory.
    #[arg(long)]
    brief: bool,
}

impl Default for Args {
    fn default() -> Self {
        Self::parse_from(["compare"])
    }
}

struct Contender {
    name: &'static str,
    port: u16,
    pid: u32,
    rounds: Vec<Sample>,
    _processes: Vec<Process>,
}

#[derive(Clone, Copy, Default)]
struct Sample {
    rate: f64,
    cpu: f64,
    p50: f64,
    p99: f64,
    steady_cpu: f64,
    steady_p50: f64,
    steady_p99: f64,
    lost: f64,
}

/// Prints the tables.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    process::step_aside();
    let dir = tempfile::tempdir()?;
    let backend = Backend::start("bench")?;
    let mut contenders = start_all(args, dir.path(), backend.port)?;
    anyhow::ensure!(!contenders.is_empty(), "nothing to measure");
    for round in 0..=args.rounds {
        for c in &mut contenders {
            let sample = visit(args, c)?;
            if round > 0 {
                c.rounds.push(sample); // the first round warms up
            }
        }
        eprint!("\rround {round} of {}", args.rounds);
    }
    eprintln!();
    print_table(args, &contenders);
    drop(contenders);
    if !args.brief {
        many_routes(args, dir.path(), backend.port)?;
        idle_sidecar(dir.path())?;
    }
    Ok(())
}

fn visit(args: &Args, c: &Contender) -> anyhow::Result<Sample> {
    let mut l = load::Args {
        address: ([127, 0, 0, 1], c.port).into(),
        host: "bench.example".into(),
        path: "/".into(),
        paths: 1,
        connections: args.connections,
        rate: None,
        seconds: args.seconds,
    };
    let (flat, flat_cpu) = measured(&l, c.pid)?;
    l.rate = Some(args.rate);
    let (steady, steady_cpu) = measured(&l, c.pid)?;
    Ok(Sample {
        rate: flat.rate(),
        cpu: flat_cpu,
        p50: flat.latency.quantile(0.5),
        p99: flat.latency.quantile(0.99),
        steady_cpu,
        steady_p50: steady.latency.quantile(0.5),
        steady_p99: steady.latency.quantile(0.99),
        lost: (flat.lost() + steady.lost()) as f64,
    })
}

/// Runs a load; with it, the CPU time the proxy took for each request, in µs.
fn measured(l: &load::Args, pid: u32) -> anyhow::Result<(load::Outcome, f64)> {
    let before = process::cpu_nanos(pid);
    let outcome = load::run(l)?;
    let cpu = process::cpu_nanos(pid) - before;
    let count = outcome.latency.count().max(1) as f64;
    Ok((outcome, cpu as f64 / 1000.0 / count))
}

fn median(mut v: Vec<f64>) -> f64 {
    v.sort_by(f64::total_cmp);
    v.get(v.len() / 2).copied().unwrap_or(0.0)
}

fn of(c: &Contender, f: impl Fn(&Sample) -> f64) -> f64 {
    median(c.rounds.iter().map(f).collect())
}

fn print_table(args: &Args, contenders: &[Contender]) {
    println!(
        "HTTP/1.1 keep-alive, {} connections, one worker on core {PROXY_CORE}, medians of {} interleaved rounds\n",
        args.connections, args.rounds
    );
    println!(
        "| proxy | CPU µs/request | requests/s | p50 µs | p99 µs | CPU µs/request at {:.0}/s | p50 µs | p99 µs | RSS MB | lost |",
        args.rate
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for c in contenders {
        println!(
            "| {} | {:.1} | {:.0} | {:.0} | {:.0} | {:.1} | {:.0} | {:.0} | {:.1} | {:.0} |",
            c.name,
            of(c, |s| s.cpu),
            of(c, |s| s.rate),
            of(c, |s| s.p50),
            of(c, |s| s.p99),
            of(c, |s| s.steady_cpu),
            of(c, |s| s.steady_p50),
            of(c, |s| s.steady_p99),
            rss_mb(c.pid),
            c.rounds.iter().map(|s| s.lost).sum::<f64>()
        );
    }
    if let Some(ours) = contenders.iter().find(|c| c.name == "maille") {
        println!("\n| CPU per request, maille against | flat out | at {:.0}/s |", args.rate);
        println!("|---|---:|---:|");
        for c in contenders.iter().filter(|c| c.name != "maille") {
            let ratio =
                |f: fn(&Sample) -> f64| median(ours.rounds.iter().zip(&c.rounds).map(|(a, b)| f(a) / f(b)).collect());
            println!("| {} | {:.2}× | {:.2}× |", c.name, ratio(|s| s.cpu), ratio(|s| s.steady_cpu));
        }
    }
}

fn start_all(args: &Args, dir: &Path, backend: u16) -> anyhow::Result<Vec<Contender>> {
    let mut all = vec![];
    type Start = fn(&Path, u16) -> anyhow::Result<Option<Contender>>;
    let starts: [(&str, Start); 5] = [
        ("floor", |_, b| floor(b)),
        ("maille", |d, b| ours(d, b, "maille")),
        ("envoy", |d, b| ours(d, b, "envoy")),
        ("nginx", nginx),
        ("haproxy", haproxy),
    ];
    for (name, start) in starts {
        if !args.only.is_empty() && !args.only.iter().any(|o| o == name) {
            continue;
        }
        match start(dir, backend)? {
            Some(c) => {
                await_port(c.port, c.name)?;
                pin(c.pid, PROXY_CORE);
                all.push(c);
            }
            None => println!("{name}: not found on this machine, left out"),
        }
    }
    Ok(all)
}

fn floor(backend: u16) -> anyhow::Result<Option<Contender>> {
    let port = free_port()?;
    let (listen, to) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{backend}"));
    let p = Process::start(
        "floor",
        &std::env::current_exe()?,
        &["floor", "--listen", &listen, "--to", &to],
        Path::new("/dev/null"),
    )?;
    Ok(Some(Contender { name: "floor", port, pid: p.pid(), rounds: vec![], _processes: vec![p] }))
}

/// maille's proxy or Envoy, both as a gateway under the same control plane and so with the same configuration.
fn ours(dir: &Path, backend: u16, proxy: &'static str) -> anyhow::Result<Option<Contender>> {
    if proxy == "envoy" && process::find("ENVOY", &["envoy"]).is_none() {
        return Ok(None);
    }
    let config = dir.join(proxy);
    std::fs::create_dir(&config)?;
    let port = free_port()?;
    mesh::write(&config, "gateway.yaml", &mesh::gateway(port))?;
    mesh::write(&config, "service.yaml", &mesh::service("shop", &[(backend, "v1")]))?;
    let route = "  - route: [{destination: {host: shop.example}}]\n";
    mesh::write(&config, "routes.yaml", &mesh::virtual_service("shop", "bench.example", route))?;
    let up = mesh::up(&config, free_port()?, proxy, &dir.join(format!("{proxy}.log")))?;
    await_port(port, proxy)?;
    let pid = mesh::gateway_pid(&up)?;
    std::thread::sleep(Duration::from_secs(1));
    Ok(Some(Contender { name: proxy, port, pid, rounds: vec![], _processes: vec![up] }))
}

fn nginx(dir: &Path, backend: u16) -> anyhow::Result<Option<Contender>> {
    let Some(program) = process::find("NGINX", &["nginx"]) else { return Ok(None) };
    let (port, at) = (free_port()?, dir.join("nginx"));
    std::fs::create_dir(&at)?;
    let text = format!(
        "worker_processes 1; daemon off; pid {at}/pid; error_log {at}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000; client_body_temp_path {at}/b; proxy_temp_path {at}/p;
  fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;
  upstream shop {{ server 127.0.0.1:{backend}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://shop; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;
      proxy_set_header X-Request-Id $request_id; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
    }}
  }}
}}
",
        at = at.display()
    );
    let config = at.join("nginx.conf");
    std::fs::write(&config, text)?;
    let p = Process::start(
        "nginx",
        &program,
        &["-c", &config.display().to_string(), "-p", &at.display().to_string()],
        &at.join("log"),
    )?;
    await_port(port, "nginx")?;
    let worker =
        process::children(p.pid()).first().copied().ok_or_else(|| anyhow::anyhow!("nginx has no worker process"))?;
    Ok(Some(Contender { name: "nginx", port, pid: worker, rounds: vec![], _processes: vec![p] }))
}

fn haproxy(dir: &Path, backend: u16) -> anyhow::Result<Option<Contender>> {
    let Some(program) = process::find("HAPROXY", &["haproxy"]) else { return Ok(None) };
    let (port, config) = (free_port()?, dir.join("haproxy.cfg"));
    let mut text = String::new();
    write!(
        text,
        "global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend f
  bind 127.0.0.1:{port}
  unique-id-format %{{+X}}o%ci:%cp_%fi:%fp_%Ts_%rt:%pid
  unique-id-header x-request-id
  option forwardfor
  http-request set-header x-forwarded-proto http
  default_backend b
backend b
  server s 127.0.0.1:{backend}
"
    )?;
    std::fs::write(&config, text)?;
    let p =
        Process::start("haproxy", &program, &["-db", "-f", &config.display().to_string()], &dir.join("haproxy.log"))?;
    Ok(Some(Contender { name: "haproxy", port, pid: p.pid(), rounds: vec![], _processes: vec![p] }))
}

/// Does a lookup grow with the number of routes? 10 against 10,000 on one host, through one gateway.
fn many_routes(args: &Args, dir: &Path, backend: u16) -> anyhow::Result<()> {
    let config = dir.join("routes");
    std::fs::create_dir(&config)?;
    let port = free_port()?;
    mesh::write(&config, "gateway.yaml", &mesh::gateway(port))?;
    mesh::write(&config, "service.yaml", &mesh::service("shop", &[(backend, "v1")]))?;
    for (host, count) in [("few", 10), ("many", 10_000)] {
        let mut routes = String::new();
        let width = (count - 1usize).to_string().len();
        for n in 0..count {
            let kind = if n % 2 == 0 { "exact" } else { "prefix" };
            writeln!(
                routes,
                "  - match: [{{uri: {{{kind}: /route/{n:0width$}/end}}}}]\n    route: [{{destination: {{host: shop.example}}}}]"
            )?;
        }
        mesh::write(
            &config,
            &format!("{host}.yaml"),
            &mesh::virtual_service(host, &format!("{host}.example"), &routes),
        )?;
    }
    let up = mesh::up(&config, free_port()?, "maille", &dir.join("routes.log"))?;
    await_port(port, "the gateway with 10,000 routes")?;
    let pid = mesh::gateway_pid(&up)?;
    pin(pid, PROXY_CORE);
    let mut samples: [Vec<(f64, f64)>; 2] = [vec![], vec![]];
    for round in 0..=args.rounds {
        for (i, (host, paths)) in [("few", 10), ("many", 10_000)].into_iter().enumerate() {
            let l = load::Args {
                address: ([127, 0, 0, 1], port).into(),
                host: format!("{host}.example"),
                path: "/route/{n}/end".into(),
                paths,
                connections: 1,
                rate: None,
                seconds: args.seconds,
            };
            let (o, cpu) = measured(&l, pid)?;
            anyhow::ensure!(o.lost() == 0, "{host}: {} requests lost, {:?}", o.lost(), o.other);
            if round > 0 {
                samples[i].push((o.latency.quantile(0.5), cpu));
            }
        }
    }
    println!(
        "\nEvery request to another route, one connection:\n\n| routes on the host | p50 µs | CPU µs/request | p50 against 10 routes |\n|---|---:|---:|---:|"
    );
    for (i, name) in ["10", "10,000"].into_iter().enumerate() {
        let ratio = median(samples[i].iter().zip(&samples[0]).map(|(a, b)| a.0 / b.0).collect());
        let column = |f: fn(&(f64, f64)) -> f64| median(samples[i].iter().map(f).collect());
        println!("| {name} | {:.1} | {:.2} | {ratio:.3}× |", column(|s| s.0), column(|s| s.1));
    }
    Ok(())
}

/// Memory of `maille run` with a sidecar that has nothing to do.
fn idle_sidecar(dir: &Path) -> anyhow::Result<()> {
    let config = dir.join("idle");
    std::fs::create_dir(&config)?;
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: idle, namespace: bench}\nspec: {selector: {app: idle}, ports: [{name: http, port: 9080}]}\n";
    mesh::write(&config, "service.yaml", service)?;
    let xds = free_port()?;
    let _up = mesh::up(&config, xds, "none", &dir.join("idle.log"))?;
    await_port(xds, "the control plane")?;
    let control = format!("127.0.0.1:{xds}");
    let args = [
        "run",
        "--name",
        "idle",
        "--service",
        "idle",
        "--namespace",
        "bench",
        "--port",
        "9080",
        "--control",
        &control,
        "--",
        "sleep",
        "60",
    ];
    let run = Process::start("maille run", &mesh::maille()?, &args, &dir.join("run.log"))?;
    std::thread::sleep(Duration::from_secs(4));
    let log: PathBuf = dir.join("run.log");
    anyhow::ensure!(
        !process::children(run.pid()).is_empty(),
        "the sidecar did not start:\n{}",
        std::fs::read_to_string(log)?
    );
    println!("\nidle sidecar (`maille run`, the workload not counted): RSS {:.1} MB", rss_mb(run.pid()));
    Ok(())
}
