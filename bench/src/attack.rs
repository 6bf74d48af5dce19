//! Attacks on a gateway, one after the other, each for a bounded time, while a well-behaved client goes on asking.

mod http1;
mod http2;

use crate::backend::Backend;
use crate::gateways::{self, Job};
use crate::load;
use crate::process::{self, rss_mb};
use crate::servers::{Kind, Server};
use clap::Parser;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// More than this, and memory was not bounded.
const LIMIT_MB: f64 = 256.0;

/// Attackers, and the server that they ask, share a core with the well-behaved client: they get what it leaves.
const NICE: i32 = 19;
/// How many times its quiet p99 a well-behaved client may have.
const SLOWER: f64 = 3.0;

/// What `attack` can be told.
#[derive(Parser)]
pub(crate) struct Args {
    /// Seconds of each attack.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Requests a second of the well-behaved client.
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// Only these attacks, separated by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// As fast as the attacker's core allows, instead of at the rates written beside each attack.
    #[arg(long)]
    flat_out: bool,
    /// Fail, too, when the well-behaved client's p99 is more than three times its quiet one. Only a quiet machine can tell.
    #[arg(long)]
    strict: bool,
    /// The data plane: maille or envoy.
    #[arg(long, default_value = "maille")]
    proxy: String,
}

/// Goes on until told to stop; says how often it did what it does.
type Attack = fn(SocketAddr, &Pace) -> anyhow::Result<u64>;

/// When to stop, and how fast to go: attacker, well-behaved client and proxy share a machine, so that an attacker without
/// bounds measures the kernel's scheduler.
struct Pace {
    stop: AtomicBool,
    flat_out: bool,
    start: Instant,
}

impl Pace {
    fn over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Waits until the `n`th thing of `rate` a second is due; false when it is time to stop.
    fn wait(&self, n: u64, rate: f64) -> bool {
        let due = self.start + Duration::from_secs_f64(n as f64 / rate);
        while !self.flat_out && !self.over() && Instant::now() < due {
            std::thread::sleep((due - Instant::now()).min(Duration::from_millis(20)));
        }
        !self.over()
    }
}

const ATTACKS: &[(&str, &str, Attack)] = &[
    ("slowloris", "2,000 connections, a byte of a header each every second", http1::slowloris),
    ("rapid-reset", "streams opened and reset at once, 40,000/s (CVE-2023-44487)", http2::rapid_reset),
    ("continuation", "CONTINUATION frames of 16 KB without end, 2,000/s (CVE-2024-27316)", http2::continuation),
    ("headers-h1", "requests with a million small headers, 50/s", http1::million_headers),
    ("headers-h2", "blocks of a million indexed headers, 50/s", http2::million_headers),
    ("stalled-h1", "500 clients that ask for 20 MB each and never read", http1::stalled),
    ("stalled-h2", "5,000 streams that ask for 1 MB each and never read", http2::stalled),
];

struct Seen {
    name: &'static str,
    did: u64,
    rss: f64,
    p99: f64,
    lost: u64,
}

/// Prints what each attack did to memory and to the well-behaved client; fails when memory grew past the limit or anything died.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    process::step_aside();
    process::raise_file_limit(16_000)?;
    for wanted in &args.only {
        anyhow::ensure!(
            ATTACKS.iter().any(|a| a.0 == wanted),
            "no attack is called {wanted}: there are {:?}",
            ATTACKS.iter().map(|a| a.0).collect::<Vec<_>>()
        );
    }
    let dir = tempfile::tempdir()?;
    // What attackers ask for is not answered by who answers the well-behaved client: it is the proxy that is asked to be fair.
    let (backend, victim) = (Backend::start("v1")?, Server::start_on(Kind::Bodies, NICE)?);
    let name: &[&str] = if args.proxy == "envoy" { &["envoy"] } else { &["maille"] };
    let gateway = gateways::start(name, &[], dir.path(), backend.port, Job::Beside(victim.port))?;
    let gateway = gateway.first().ok_or_else(|| anyhow::anyhow!("there is no {}", args.proxy))?;
    let pid = gateway.pids[0];
    let load_args = load::Args {
        address: gateway.address,
        host: "bench.example".into(),
        path: "/".into(),
        paths: 1,
        connections: 8,
        rate: Some(args.rate),
        seconds: args.seconds,
    };
    let quiet = load::run(&load_args)?.latency.quantile(0.99);
    println!(
        "{}, {} s each, a well-behaved client at {:.0}/s; quiet: p99 {quiet:.0} µs, RSS {:.1} MB\n",
        args.proxy,
        args.seconds,
        args.rate,
        gateway.rss()
    );
    println!("| attack | done | RSS MB, most | p99 µs of the others | against quiet | lost | what |");
    println!("|---|---:|---:|---:|---:|---:|---|");
    let mut all = vec![];
    for (name, what, attack) in ATTACKS.iter().filter(|a| args.only.is_empty() || args.only.iter().any(|o| o == a.0)) {
        let seen = one(name, *attack, args.flat_out, &load_args, pid)?;
        println!(
            "| {name} | {} | {:.1} | {:.0} | {:.2}× | {} | {what} |",
            seen.did,
            seen.rss,
            seen.p99,
            seen.p99 / quiet,
            seen.lost
        );
        all.push(seen);
    }
    let log = std::fs::read_to_string(dir.path().join(gateway.name).join("up.log")).unwrap_or_default();
    judge(&all, pid, &log, args.strict.then_some(quiet * SLOWER))
}

fn judge(all: &[Seen], pid: u32, log: &str, p99: Option<f64>) -> anyhow::Result<()> {
    let mut bad = vec![];
    for seen in all {
        if seen.rss >= LIMIT_MB {
            bad.push(format!("{}: {:.1} MB, wanted less than {LIMIT_MB}", seen.name, seen.rss));
        }
        if let Some(most) = p99.filter(|most| seen.p99 > *most) {
            bad.push(format!("{}: p99 {:.0} µs, wanted at most {most:.0}", seen.name, seen.p99));
        }
    }
    if rss_mb(pid) == 0.0 {
        bad.push("the gateway died".into());
    }
    bad.extend(log.lines().filter(|l| l.contains("panicked")).map(|l| format!("in the log: {l}")));
    println!("\n{} passed, {} failed", all.len().saturating_sub(bad.len()), bad.len());
    anyhow::ensure!(bad.is_empty(), "{}", bad.join("\n"));
    Ok(())
}

fn one(name: &'static str, attack: Attack, flat_out: bool, load_args: &load::Args, pid: u32) -> anyhow::Result<Seen> {
    let pace = Arc::new(Pace { stop: AtomicBool::new(false), flat_out, start: Instant::now() });
    let (to, its, watched) = (load_args.address, pace.clone(), pace.clone());
    let attacker = std::thread::spawn(move || {
        let _ = rustix::process::nice(NICE); // this thread's alone: the well-behaved client shares its core
        attack(to, &its)
    });
    let watcher = std::thread::spawn(move || {
        let mut most: f64 = 0.0;
        while !watched.over() {
            most = most.max(rss_mb(pid));
            std::thread::sleep(Duration::from_millis(20));
        }
        most
    });
    let outcome = load::run(load_args)?;
    pace.stop.store(true, Ordering::Relaxed);
    let did = attacker.join().map_err(|_| anyhow::anyhow!("{name}: the attacker panicked"))??;
    let rss = watcher.join().map_err(|_| anyhow::anyhow!("the watcher panicked"))?;
    await_calm(load_args)?;
    Ok(Seen { name, did, rss, p99: outcome.latency.quantile(0.99), lost: outcome.lost() })
}

/// Lets the proxy close what the attacker left, so that the next attack starts from rest.
fn await_calm(load_args: &load::Args) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    let probe = load::Args { seconds: 0.3, ..load_args.clone() };
    while load::run(&probe)?.lost() > 0 {
        anyhow::ensure!(Instant::now() < end, "the gateway does not recover within 10 s after an attack");
    }
    Ok(())
}
