//! `maille demo`: a bookshop in a mesh, with readers, one broken version, and a table of what happens.

pub(crate) mod app;
mod child;
mod client;
mod load;
mod shop;
mod table;
mod tally;

use std::io::IsTerminal;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use owo_colors::OwoColorize;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{interval, sleep, timeout};

use crate::control::XDS_PORT;
use crate::failure::{Failure, Outcome};
use crate::{plane, terminal};
use child::Child;
use table::Screen;
use tally::{Seen, Side, Tally};

/// The row of the gateway.
const GATEWAY: &str = "gateway";

/// The mesh must be up within this time.
const PATIENCE: Duration = Duration::from_secs(30);

/// A small mesh with traffic, to look at and to play with
///
/// Starts a bookshop on this machine: a control plane, a gateway, and six workloads (productpage, details, reviews v1 to
/// v3, ratings), each with a sidecar of its own. Readers ask for the page forty times a second; a table shows, for each
/// service and version, how it does, as the sidecars' access logs tell it. Reviews v3 is broken on purpose.
///
/// The configuration is ordinary Istio YAML in a temporary directory: edit it, and see what happens. Ctrl-C ends
/// everything and leaves nothing behind.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  maille demo
  maille demo --for 10s
  maille demo --for 10s --json | tail -n 1 | jq '.services[] | {service, version, success}'
  maille demo --proxy envoy          the same with a real Envoy as every sidecar and gateway")]
pub(crate) struct Args {
    /// End after this long (`10s`, `2m`); otherwise Ctrl-C does
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    lasting: Option<Duration>,

    /// One JSON object a second instead of the table
    #[arg(long)]
    json: bool,

    /// The sidecars and the gateway: `maille`, `envoy`, or `envoy=PATH`
    #[arg(long, value_name = "PROXY", default_value = "maille", value_parser = proxy)]
    proxy: String,
}

/// Where everything is.
struct Place {
    exe: PathBuf,
    folder: tempfile::TempDir,
    gateway: SocketAddr,
    control: SocketAddr,
    proxy: String,
}

pub(crate) fn run(args: Args) -> Outcome {
    let proxy = plane::sidecar(&args.proxy).map_err(Failure::usage)?;
    if let plane::Plane::Envoy(path) = &proxy {
        maille_agent::envoy::find(path.as_deref()).map_err(Failure::usage)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::running(format!("no event loop: {error}")))?;
    runtime.block_on(demo(args))
}

async fn demo(args: Args) -> Outcome {
    let stop = stop_signal().map_err(|error| Failure::running(format!("no signals: {error}")))?;
    let place = Place::prepare(args.proxy.clone())
        .map_err(|error| Failure::running(format!("cannot prepare the demo: {error}")))?;
    let (tell, told) = mpsc::unbounded_channel();
    let mut children =
        start(&place, &tell).map_err(|error| Failure::running(format!("cannot start the demo: {error}")))?;
    let outcome = tokio::select! {
        outcome = show(&args, &place, told) => outcome,
        (name, words) = child::any_ended(&mut children) => Err(Failure::running(format!("{name} has ended:\n{words}"))),
        () = stop => Ok(ExitCode::SUCCESS),
    };
    // A second Ctrl-C does not wait for what is under way; dropping the children ends them.
    let again = stop_signal().map_err(|error| Failure::running(format!("no signals: {error}")))?;
    tokio::select! {
        () = child::end(children) => {}
        () = again => {}
    }
    outcome
}

/// The control plane with its gateway, and a workload for each service and version.
fn start(
    place: &Place,
    tell: &mpsc::UnboundedSender<(&'static str, &'static str, Seen)>,
) -> std::io::Result<Vec<Child>> {
    let text = |path: &Path| path.display().to_string();
    let (exe, control) = (text(&place.exe), place.control.to_string());
    let port = place.control.port().to_string();
    let mut children = Vec::new();
    let up =
        ["up", "-f", &text(place.folder.path()), "--xds-port", &port, "--proxy", &place.proxy, "--concurrency", "1"];
    let sender = tell.clone();
    children.push(Child::start("the control plane", &place.exe, &up, move |line| {
        if let Some(seen) = Seen::parse(line, Side::Outbound) {
            let _ = sender.send((GATEWAY, "", seen));
        }
    })?);
    for (service, version) in shop::WORKLOADS {
        let (name, service_port) = (format!("{service}-{version}"), shop::PORT.to_string());
        let mut run = vec!["run", "--name", &name, "--service", service, "--version", version, "--port", &service_port];
        run.extend(["--service-account", service, "--control", &control, "--proxy", &place.proxy]);
        run.extend(["--", &exe, "demo-app", service, "--version", version]);
        let sender = tell.clone();
        children.push(Child::start(&name, &place.exe, &run, move |line| {
            if let Some(seen) = Seen::parse(line, Side::Inbound) {
                let _ = sender.send((service, version, seen));
            }
        })?);
    }
    Ok(children)
}

/// Waits for the mesh, then shows it until the time is up.
async fn show(
    args: &Args,
    place: &Place,
    mut told: mpsc::UnboundedReceiver<(&'static str, &'static str, Seen)>,
) -> Outcome {
    let late = |_| Failure::running(format!("the bookshop did not open within {} s", PATIENCE.as_secs()));
    timeout(PATIENCE, load::shop_is_open(place.control, shop::WORKLOADS.len(), place.gateway)).await.map_err(late)?;
    let mut tally = Tally::default();
    tally.expect(GATEWAY, "");
    shop::WORKLOADS.iter().for_each(|(service, version)| tally.expect(service, version));
    if !args.json {
        terminal::out(&place.welcome())?;
    }
    let mut screen = Screen::new(std::io::stdout().is_terminal());
    let load = tokio::spawn(load::generate(place.gateway));
    let begun = Instant::now();
    let mut seconds = interval(Duration::from_secs(1));
    seconds.tick().await;
    let end = async {
        match args.lasting {
            Some(lasting) => sleep(lasting).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    loop {
        let over = tokio::select! {
            Some((service, version, seen)) = told.recv() => {
                tally.add(service, version, seen, Instant::now());
                continue;
            }
            _ = seconds.tick() => false,
            () = &mut end => true,
        };
        let lines = tally.lines(Instant::now());
        let elapsed = begun.elapsed().as_secs();
        if args.json {
            let services: Vec<_> = lines.iter().map(tally::Line::to_json).collect();
            terminal::out(&json!({"seconds": elapsed, "url": place.url(), "services": services}).to_string())?;
        } else {
            let shown = screen.show(&lines, elapsed);
            shown.map_err(|error| Failure::running(format!("cannot write to stdout: {error}")))?;
        }
        if over {
            load.abort();
            return Ok(ExitCode::SUCCESS);
        }
    }
}

impl Place {
    fn prepare(proxy: String) -> std::io::Result<Self> {
        let exe = std::env::current_exe()?;
        let folder = tempfile::Builder::new().prefix("maille-demo-").tempdir()?;
        let (gateway, control) = (free_from(8080)?, free_from(XDS_PORT)?);
        shop::write(folder.path(), gateway.port())?;
        Ok(Self { exe, folder, gateway, control, proxy })
    }

    fn url(&self) -> String {
        format!("http://{}/productpage", self.gateway)
    }

    /// Addresses, and what to try.
    fn welcome(&self) -> String {
        let folder = self.folder.path().display();
        let maille = if on_path(&self.exe) { "maille".to_owned() } else { self.exe.display().to_string() };
        let url = self.url();
        let control = self.control;
        format!(
            "\n{title}: six workloads, each with its own sidecar, behind a gateway. reviews v3 is broken on purpose.

  page           {url}
  configuration  {folder}   (Istio YAML: save a file, and it is live)
  control plane  {control}

{try_it}
  as jason, whose reviews come from v2 only, and never fail
    {curl}
  take the broken version out, and watch the gateway's success
    {sed}
  join the mesh and ask a service by its name
    {join}
",
            title = "A bookshop in a mesh".bold(),
            try_it = "Three things to try, in another terminal:".bold(),
            curl = format_args!("curl -s -H 'end-user: jason' {url}").green(),
            sed = format_args!("sed -i 's/v3}}, weight: 30/v3}}, weight: 0/' {folder}/reviews.yaml").green(),
            join = format_args!(
                "{maille} run --name me --service me --control {control} -- curl -s http://reviews:{}/reviews/0",
                shop::PORT
            )
            .green(),
        )
    }
}

/// The first port from here on that is free on 127.0.0.1.
fn free_from(first: u16) -> std::io::Result<SocketAddr> {
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrInUse);
    for port in first..first.saturating_add(100) {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => return listener.local_addr(),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Whether typing `maille` would run this very program.
fn on_path(exe: &Path) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("maille")).find(|program| program.is_file());
    found.and_then(|program| program.canonicalize().ok()).is_some_and(|program| program == exe)
}

/// Returns when somebody wants this to end.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// `10s`, `500ms`, `2m`, or a number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let bad = || "expected a time such as 10s, 500ms or 2m".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.parse().map_err(|_| bad())?;
    let unit = match &text[digits.len()..] {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(bad()),
    };
    Duration::try_from_secs_f64(number * unit).map_err(|_| bad())
}

fn proxy(text: &str) -> Result<String, String> {
    plane::sidecar(text).map(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, expected) in [("10s", 10_000), ("500ms", 500), ("2m", 120_000), ("1.5", 1500), ("1h", 3_600_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(expected)), "{text}");
        }
        for text in ["", "s", "-1s", "10x", "1e400s", "NaN"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
