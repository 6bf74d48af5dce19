//! Attacks on a gateway, one after the other, each for a bounded time, while a well-behaved client goes on asking.

mod http1;
mod http2;

use crate::backend::Backend;
use crate::contest::median;
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

/// Attackers, and the server that they ask, share a core with the well-behaved client: where it cannot have the right to run first, they are as
/// nice as can be.
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
    /// Fail, too, when the well-behaved client's p99 is more than three times its quiet one, by the median of the rounds. Only a quiet machine
    /// can tell, and not by one round: twenty of its requests decide, which one wait can hold up.
    #[arg(long)]
    strict: bool,
    /// How often all of it is done.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// The data planes, separated by commas: maille, and envoy as a yardstick, which is not judged.
    #[arg(long, default_value = "maille", value_delimiter = ',')]
    proxy: Vec<String>,
}

/// Goes on until told to stop.
type Attack = fn(SocketAddr, &Pace) -> anyhow::Result<Done>;

/// What an attacker has done.
#[derive(Default)]
struct Done {
    /// Connections that it held at the end, where it holds them.
    held: usize,
    /// How often it did what it does.
    times: u64,
    /// What the kernel took from it.
    bytes: u64,
}

/// How long the well-behaved client goes on after an attack: what thousands of connections leave behind when they end at once is part of it.
const AFTERWARDS: f64 = 1.0;

/// When to stop, and how fast to go: attacker, well-behaved client and proxy share a machine, so that an attacker without
/// bounds measures the kernel's scheduler.
struct Pace {
    stop: AtomicBool,
    flat_out: bool,
    start: Instant,
    end: Instant,
}

impl Pace {
    fn over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || Instant::now() >= self.end
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
    done: Done,
    /// The share of its core that the proxy used.
    busy: f64,
    rss: f64,
    /// The well-behaved client's, and how many times its quiet one that is.
    p99: f64,
    slower: f64,
    /// How long the client waited for its core, in ms.
    waited: f64,
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
    let backend = Backend::start("v1")?;
    // What shares a core with the attacker is asked nothing: it is the proxy that is asked to be fair. Whatever is started from here on is not first.
    let first = process::run_first(std::process::id());
    let nice = if first { 0 } else { NICE };
    println!(
        "{} s each, a well-behaved client at {:.0}/s; client, backend and proxy {} attackers\n",
        args.seconds,
        args.rate,
        if first { "run before" } else { "could not be given the right to run before" }
    );
    let mut bad = vec![];
    for proxy in &args.proxy {
        let found = against(args, proxy, backend.port, nice)?;
        if proxy != "envoy" {
            bad.extend(found);
        }
    }
    println!("\n{} failed", bad.len());
    anyhow::ensure!(bad.is_empty(), "{}", bad.join("\n"));
    Ok(())
}

/// All attacks on one proxy; says what is wrong.
fn against(args: &Args, proxy: &str, backend: u16, nice: i32) -> anyhow::Result<Vec<String>> {
    let dir = tempfile::tempdir()?;
    // What attackers ask for is not answered by who answers the well-behaved client.
    let victim = Server::start_on(Kind::Bodies, nice)?;
    let name: &[&str] = if proxy == "envoy" { &["envoy"] } else { &["maille"] };
    let gateway = gateways::start(name, &[], dir.path(), backend, Job::Beside(victim.port))?;
    let gateway = gateway.first().ok_or_else(|| anyhow::anyhow!("there is no {proxy}"))?;
    let pid = gateway.pids[0];
    process::run_first(pid);
    let load_args = load::Args {
        address: gateway.address,
        host: "bench.example".into(),
        path: "/".into(),
        paths: 1,
        connections: 8,
        rate: Some(args.rate),
        seconds: args.seconds + AFTERWARDS,
    };
    println!(
        "| proxy | attack | held | times | MB sent | proxy's core | RSS MB, most | client waited, ms | p99 µs | against quiet | lost | what |"
    );
    println!("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|");
    let mut all = vec![];
    for _ in 0..args.rounds {
        let quiet = load::run(&load_args)?.latency.quantile(0.99);
        println!("| {proxy} | quiet | | | | | {:.1} | | {quiet:.0} | | | |", gateway.rss());
        round(args, proxy, (&load_args, quiet), (pid, nice), &mut all)?;
    }
    let log = std::fs::read_to_string(dir.path().join(gateway.name).join("up.log")).unwrap_or_default();
    Ok(judge(&all, pid, &log, args.strict))
}

/// Each attack once.
fn round(
    args: &Args,
    proxy: &str,
    (load_args, quiet): (&load::Args, f64),
    (pid, nice): (u32, i32),
    all: &mut Vec<Seen>,
) -> anyhow::Result<()> {
    for (name, what, attack) in ATTACKS.iter().filter(|a| args.only.is_empty() || args.only.iter().any(|o| o == a.0)) {
        let seen = one(name, *attack, (args.flat_out, nice), (load_args, quiet), pid)?;
        println!(
            "| {proxy} | {name} | {} | {} | {:.1} | {:.0} % | {:.1} | {:.1} | {:.0} | {:.2}× | {} | {what} |",
            seen.done.held,
            seen.done.times,
            seen.done.bytes as f64 / 1e6,
            seen.busy * 100.0,
            seen.rss,
            seen.waited,
            seen.p99,
            seen.slower,
            seen.lost
        );
        all.push(seen);
    }
    Ok(())
}

fn judge(all: &[Seen], pid: u32, log: &str, strict: bool) -> Vec<String> {
    let mut bad = vec![];
    for (name, ..) in ATTACKS {
        let slower: Vec<f64> = all.iter().filter(|seen| seen.name == *name).map(|seen| seen.slower).collect();
        if slower.is_empty() {
            continue;
        }
        let (rounds, median) = (slower.len(), median(slower));
        if rounds > 1 {
            println!("\n{name}: {median:.2}× quiet, the median of {rounds} rounds");
        }
        if strict && median > SLOWER {
            bad.push(format!("{name}: p99 {median:.2} times the quiet one, wanted at most {SLOWER}"));
        }
    }
    for seen in all {
        if seen.rss >= LIMIT_MB {
            bad.push(format!("{}: {:.1} MB, wanted less than {LIMIT_MB}", seen.name, seen.rss));
        }
    }
    if rss_mb(pid) == 0.0 {
        bad.push("the gateway died".into());
    }
    bad.extend(log.lines().filter(|l| l.contains("panicked")).map(|l| format!("in the log: {l}")));
    bad
}

fn one(
    name: &'static str,
    attack: Attack,
    (flat_out, nice): (bool, i32),
    (load_args, quiet): (&load::Args, f64),
    pid: u32,
) -> anyhow::Result<Seen> {
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(load_args.seconds - AFTERWARDS);
    let pace = Arc::new(Pace { stop: AtomicBool::new(false), flat_out, start, end });
    let (to, its, watched) = (load_args.address, pace.clone(), pace.clone());
    let attacker = std::thread::spawn(move || {
        let _ = rustix::process::nice(nice); // this thread's alone: the well-behaved client shares its core
        attack(to, &its)
    });
    let watcher = std::thread::spawn(move || {
        let mut most: f64 = 0.0;
        while !watched.stop.load(Ordering::Relaxed) {
            most = most.max(rss_mb(pid));
            std::thread::sleep(Duration::from_millis(20));
        }
        most
    });
    let (before, waited) = (process::cpu_nanos(pid), process::waited_nanos());
    let outcome = load::run(load_args)?;
    let busy = (process::cpu_nanos(pid) - before) as f64 / 1e9 / pace.start.elapsed().as_secs_f64();
    let waited = (process::waited_nanos() - waited) as f64 / 1e6;
    pace.stop.store(true, Ordering::Relaxed);
    let done = attacker.join().map_err(|_| anyhow::anyhow!("{name}: the attacker panicked"))??;
    let rss = watcher.join().map_err(|_| anyhow::anyhow!("the watcher panicked"))?;
    await_calm(load_args)?;
    let (p99, lost) = (outcome.latency.quantile(0.99), outcome.lost());
    Ok(Seen { name, done, busy, rss, p99, slower: p99 / quiet, waited, lost })
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
