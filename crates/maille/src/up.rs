//! `maille up`.

pub(crate) mod gateways;
pub(crate) mod plan;
mod screen;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use maille_agent::envoy;
use maille_api::mesh::MeshConfig;
use maille_api::parse;
use maille_control::{Control, token};
use maille_identity::ca::{KeyKind, MAX_LEAF_TTL};
use maille_store::Store;
use maille_store::files::{self, Watch};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::control::XDS_PORT;
use crate::diagnostics::coloured;
use crate::duration::duration;
use crate::failure::{Failure, Outcome};
use crate::plane::{self, Plane};
use crate::terminal;
use gateways::{Gateways, Shared};
use screen::View;

/// Certificates that live shorter would be renewed more often than they are used.
const MIN_LEAF_TTL: Duration = Duration::from_secs(10);

/// Changes that come this close together are shown together.
const QUIET: Duration = Duration::from_millis(300);

/// Run a mesh: the control plane, and a gateway for every Gateway
///
/// Reads Istio resources from files and keeps watching them: save a file, and it is live. A file with a mistake changes
/// nothing until it is mended; what it said before stays in force, and the mistake is shown.
///
/// For every distinct selector among the Gateways one gateway proxy is started, with the selector as its labels. It listens
/// on 127.0.0.1 unless --address says otherwise. A port that only root may open, or that another gateway has, is moved up
/// by 8000 (80 to 8080, 443 to 8443), and the screen says so.
///
/// Workloads join with `maille run`, as the same user: the token they need is in a file that only this user can read.
/// Ctrl-C or SIGTERM lets what is under way finish; a second one ends at once.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  maille up -f mesh/                       the YAML and JSON files of a directory
  maille up -f mesh/ -f extra.yaml --xds-port 15011
  maille up -f mesh/ --proxy envoy         with Envoy ($ENVOY, else `envoy` on the PATH) as the gateways
  maille up -f mesh/ --proxy none          the control plane only

Exit codes: 0 ended by Ctrl-C or SIGTERM, 2 the arguments are wrong or the port is taken, 1 anything else.")]
pub(crate) struct Args {
    /// A file or directory of Istio resources, watched; may be given several times
    #[arg(short, long = "file", value_name = "PATH")]
    file: Vec<PathBuf>,

    /// The port on 127.0.0.1 that proxies and workloads connect to
    #[arg(long, value_name = "N", default_value_t = XDS_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    xds_port: u16,

    /// The gateways: `maille`, `envoy`, `envoy=PATH`, or `none`
    #[arg(long, value_name = "PROXY", default_value = "maille")]
    proxy: String,

    /// The address that gateways listen on
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,

    /// Where workloads of other machines connect to, with TLS; by default a port of 127.0.0.1, 2 above --xds-port if it is free
    #[arg(long, value_name = "IP:PORT")]
    tls_address: Option<SocketAddr>,

    /// A further name or address that the control plane is reached by; may be given several times
    #[arg(long, value_name = "NAME")]
    tls_name: Vec<String>,

    /// How long workloads' certificates are good for: 90s, 30m, 24h
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = leaf_ttl)]
    leaf_ttl: Duration,

    /// The kind of key of a new root
    #[arg(long, value_name = "KIND", default_value = "ecdsa-p256")]
    ca_key: CaKey,

    /// A folder in the layout of Istio's `cacerts`, to sign with instead of a root of our own; watched
    #[arg(long, value_name = "DIR")]
    cacerts: Option<PathBuf>,

    /// Worker threads of each gateway; by default one per core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: Option<u16>,

    /// A MeshConfig in YAML, instead of the ConfigMap `istio` in `istio-system`; read once
    #[arg(long, value_name = "FILE")]
    mesh_config: Option<PathBuf>,
}

/// The kind of a root's key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum CaKey {
    /// ECDSA on P-256
    EcdsaP256,
    /// RSA of 2048 bits
    #[value(name = "rsa-2048")]
    Rsa2048,
    /// RSA of 4096 bits
    #[value(name = "rsa-4096")]
    Rsa4096,
}

pub(crate) fn run(args: Args) -> Outcome {
    // Refusals and remarks are on the screen.
    terminal::log("error");
    let plane =
        plane::gateway(&args.proxy).map_err(|error| Failure::usage(format!("--proxy {}: {error}", args.proxy)))?;
    let envoy = match &plane {
        Some(Plane::Envoy(path)) => Some(envoy::find(path.as_deref()).map_err(Failure::usage)?),
        _ => None,
    };
    let mesh = args.mesh_config.as_deref().map(mesh_config).transpose()?;
    let listener = listen(args.xds_port)?;
    let tls = Some(args.listen_tls()?);
    let ca = args.ca();
    let store = Arc::new(Store::new());
    let watch = Arc::new(Watch::start(args.file.clone(), store.clone()).map_err(Failure::usage)?);
    let token = token::create(args.xds_port).map_err(Failure::running)?;
    let token_folder = token.path().parent().map(PathBuf::from);
    let _ = maille_net::raise_open_files();

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::running(format!("no event loop: {error}")))?;
    let outcome = runtime.block_on(async {
        let watched = watch.clone();
        let problems: maille_control::Problems = Arc::new(move || watched.problems());
        let options =
            maille_control::Options { store: store.clone(), mesh, listener, tls, ca, token, problems: Some(problems) };
        let control =
            maille_control::start(options).map_err(|error| Failure::running(format!("the control plane: {error}")))?;
        let gateways = plane.map(|plane| {
            let (control, concurrency) = (control.address(), args.concurrency.map(usize::from));
            Gateways::new(Shared { plane, envoy, control, address: args.address, concurrency })
        });
        Mesh { args, store, watch, control, gateways }.live().await
    });
    if let Some(folder) = token_folder {
        // Ours to remove once the last control plane of this user has taken its token away; else it is not empty.
        let _ = std::fs::remove_dir(folder);
    }
    outcome
}

impl Args {
    fn ca(&self) -> maille_control::ca::Options {
        maille_control::ca::Options {
            leaf_ttl: self.leaf_ttl,
            key: match self.ca_key {
                CaKey::EcdsaP256 => KeyKind::EcdsaP256,
                CaKey::Rsa2048 => KeyKind::Rsa2048,
                CaKey::Rsa4096 => KeyKind::Rsa4096,
            },
            cacerts: self.cacerts.clone(),
            names: self.tls_name.clone(),
        }
    }

    fn listen_tls(&self) -> Result<TcpListener, Failure> {
        let bind = |at: SocketAddr| {
            TcpListener::bind(at).map_err(|error| Failure::usage(format!("--tls-address {at}: {error}")))
        };
        match self.tls_address {
            Some(at) => bind(at),
            None => {
                // Workloads of this machine are told where it is.
                let port = self.xds_port.checked_add(maille_control::DEFAULT_TLS_PORT - maille_control::DEFAULT_PORT);
                let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                // Proxies that outlived an earlier run look for it where it was.
                let before = token::find_tls(self.xds_port).ok().map(|(address, _)| address.port());
                let mut likely = before.into_iter().chain(port);
                likely.find_map(|port| TcpListener::bind(at(port)).ok()).map_or_else(|| bind(at(0)), Ok)
            }
        }
    }
}

/// A mesh that runs.
struct Mesh {
    args: Args,
    store: Arc<Store>,
    watch: Arc<Watch>,
    control: Control,
    gateways: Option<Gateways>,
}

impl Mesh {
    async fn live(mut self) -> Outcome {
        let no_signals = |error: io::Error| Failure::running(format!("no signals: {error}"));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(no_signals)?;
        let (mut revisions, mut snapshots) = (self.store.subscribe(), self.control.snapshots());
        let (mut problems, mut proxies) = (self.watch.problems_changed(), self.control.changes());
        self.follow();
        let mut shown = String::new();
        let mut show_at = Some(Instant::now() + QUIET);
        let mut mend_at = None;
        loop {
            tokio::select! {
                Ok(()) = revisions.changed() => self.follow(),
                Ok(()) = snapshots.changed() => {}
                Ok(()) = problems.changed() => {}
                Ok(()) = proxies.changed() => {}
                () = any_ended(&mut self.gateways) => {
                    mend_at = self.gateways.as_ref().map(|gateways| Instant::now() + gateways.mend_after());
                }
                () = at(mend_at) => {
                    mend_at = None;
                    self.gateways.iter_mut().for_each(Gateways::mend);
                }
                () = at(show_at) => {
                    show_at = None;
                    let now = screen::render(&self.view());
                    if now != shown {
                        terminal::out(&now)?;
                        shown = now;
                    }
                    continue;
                }
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
                _ = hangup.recv() => break,
            }
            show_at = show_at.or_else(|| Some(Instant::now() + QUIET));
        }
        terminal::err("ending: what is under way may finish; Ctrl-C again ends at once");
        let end = async {
            if let Some(gateways) = self.gateways {
                gateways.drain().await;
            }
            self.control.stop().await;
        };
        tokio::select! {
            () = end => Ok(ExitCode::SUCCESS),
            // The gateways go with us.
            _ = interrupt.recv() => Ok(ExitCode::from(130)),
            _ = terminate.recv() => Ok(ExitCode::from(143)),
        }
    }

    /// Starts and ends gateways as the configuration has them now.
    fn follow(&mut self) {
        let Some(gateways) = &mut self.gateways else { return };
        let address = self.args.address;
        gateways.follow(plan::plan(&self.store.list().1, |port| may_bind(address, port)));
    }

    fn view(&self) -> View {
        let objects = self.store.list().1;
        let place = |key: &maille_api::Key| {
            let source = self.store.get(key).and_then(|object| object.source.clone());
            source.map_or_else(String::new, |source| format!("{source}: "))
        };
        let warnings = self.control.snapshots().borrow().as_ref().map_or_else(Vec::new, |snapshot| {
            snapshot.warnings().iter().map(|warning| format!("{}{warning}", place(&warning.key))).collect()
        });
        View {
            sources: self.args.file.iter().map(|path| path.display().to_string()).collect(),
            resources: objects.iter().filter(|object| object.source.is_some()).count(),
            control: self.control.address(),
            address: self.args.address,
            plane: self.gateways.as_ref().map(|_| self.args.proxy.clone()),
            gateways: self.gateways.as_ref().map_or_else(Vec::new, |gateways| {
                gateways.list().map(|(planned, fault)| (planned.clone(), fault.map(str::to_owned))).collect()
            }),
            problems: self.watch.problems(),
            warnings,
            refusals: refusals(&self.control),
        }
    }
}

/// Never, when there are no gateways.
async fn any_ended(gateways: &mut Option<Gateways>) {
    match gateways {
        Some(gateways) => gateways.any_ended().await,
        None => std::future::pending().await,
    }
}

/// Never, when there is no such time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Whether the system lets us open this port. Whether somebody has it already is another matter.
fn may_bind(address: IpAddr, port: u16) -> bool {
    port >= 1024
        || !TcpListener::bind((address, port)).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

fn listen(port: u16) -> Result<TcpListener, Failure> {
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(at).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => Failure::usage(format!(
            "{at} is taken: another `maille up` may be running; --xds-port gives this one another port"
        )),
        io::ErrorKind::PermissionDenied => {
            Failure::usage(format!("{at} cannot be opened ({error}): choose an --xds-port above 1023"))
        }
        _ => Failure::running(format!("cannot listen on {at}: {error}")),
    })
}

/// A life that a certificate may have.
fn leaf_ttl(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        life if life < MIN_LEAF_TTL => {
            Err(format!("no certificate is good for less than {} s", MIN_LEAF_TTL.as_secs()))
        }
        life if life > MAX_LEAF_TTL => {
            Err(format!("no certificate is good for more than {} days", MAX_LEAF_TTL.as_secs() / 86400))
        }
        life => Ok(life),
    }
}

fn mesh_config(path: &std::path::Path) -> Result<MeshConfig, Failure> {
    let text = files::read(path).map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
    let (config, diagnostics) = parse::mesh_config(&text, &path.display().to_string());
    diagnostics.iter().for_each(|diagnostic| terminal::err(&coloured(diagnostic)));
    config.ok_or_else(Failure::bad_input)
}

/// What proxies refuse at this moment.
fn refusals(control: &Control) -> Vec<String> {
    let status = control.status();
    let mut refusals = Vec::new();
    for proxy in &status.proxies {
        for refused in proxy.types.iter().flat_map(|of_type| &of_type.refused) {
            let name = refused.name.as_ref().map_or_else(String::new, |name| format!(" {name}"));
            refusals.push(format!(
                "{} ({}) keeps what it had of {}{name}: {}",
                proxy.name, proxy.namespace, refused.kind, refused.reason
            ));
        }
    }
    // Proxies and whoever pretends to be one say what they like; it must not steer the terminal.
    let steers = |c: char| c.is_control() && c != '\n';
    refusals.iter_mut().for_each(|refusal| *refusal = refusal.replace(steers, "\u{fffd}"));
    refusals.sort();
    refusals.dedup();
    refusals
}
