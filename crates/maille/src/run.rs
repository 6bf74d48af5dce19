//! `maille run`.

use std::ffi::OsString;
use std::net::IpAddr;
use std::process::ExitCode;

use clap::ValueEnum;
use maille_agent::envoy;
use maille_agent::workload::{self, Options};

use crate::failure::{Failure, Outcome};
use crate::{control, plane, terminal};

/// Run a program as a workload of the mesh
///
/// The program gets an address of its own, a sidecar, and a place in the mesh (a WorkloadEntry with the labels `app` and
/// `version`) that it keeps for as long as it runs. It finds $PORT, where it must listen on 127.0.0.1, and $http_proxy,
/// through which its requests reach the other services by name. Its stdin, stdout, stderr, signals and exit code are its
/// own; what maille has to say goes to stderr.
///
/// Policies hold for whoever comes through its sidecar. On this machine anybody can also connect to the program's own port on
/// 127.0.0.1, past the sidecar, and use its forward proxy in its name: what is to be kept from other users of the machine needs a
/// machine of its own.
///
/// When it is told to end, the others stop calling it, what is under way finishes, and then it is ended. A second signal
/// ends it at once.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  maille run --name web-1 --service web --port 8080 -- sh -c 'exec python3 -m http.server $PORT'
  maille run --name reviews-v2 --service reviews --version v2 --namespace shop --port 9080 -- ./reviews
  maille run --name me --service me -- curl -s http://reviews.shop:9080/    a client only: no --port

From another machine, with files made by `maille token create` where `maille up --tls-address 0.0.0.0:15012` runs:
  maille run --name web-2 --service web --port 8080 --control mesh.example:15012 --ca-file ca.pem --token-file token \
    --address 10.0.0.7 -- ./web

Others reach it through a Service that selects its labels; --port is that Service's targetPort:
  apiVersion: v1
  kind: Service
  metadata: {name: web}
  spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}

Exit codes: the program's own; 128 plus the signal that ended it; 127 when there is no such program, 126 when it cannot be
run; 1 or 2 when maille itself failed, with the reason on stderr.")]
pub(crate) struct Args {
    /// The workload's name, unique in its namespace
    #[arg(long, value_parser = name)]
    name: String,

    /// The service it is part of: the label `app`
    #[arg(long, value_parser = label)]
    service: String,

    /// Which version of the service it is: the label `version`
    #[arg(long, value_parser = label)]
    version: Option<String>,

    /// The namespace it belongs to
    #[arg(long, value_name = "NS", default_value = "default", value_parser = name)]
    namespace: String,

    /// The service account it runs under
    #[arg(long, value_name = "SA", default_value = "default", value_parser = name)]
    service_account: String,

    /// The port that others reach it on; without it, it is a client only
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,

    #[command(flatten)]
    control: control::Address,

    #[command(flatten)]
    remote: control::Remote,

    /// The address that others reach it on; by default a loopback address of its own, which is for this machine alone
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,

    /// How its connections reach the sidecar
    #[arg(long, value_name = "MODE", default_value = "proxy")]
    capture: Capture,

    /// Its sidecar: `maille`, `envoy`, or `envoy=PATH`
    #[arg(long, value_name = "PROXY", default_value = "maille", value_parser = plane::sidecar)]
    proxy: plane::Plane,

    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// How a program's connections are taken to its sidecar.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Capture {
    /// By the variables http_proxy and PORT, and a loopback address of its own
    Proxy,
}

pub(crate) fn run(args: Args) -> Outcome {
    // That the control plane is away is said in our own words.
    terminal::log("warn,maille_xds=error");
    let Capture::Proxy = args.capture;
    let way = args.remote.way(args.control.resolve()?)?;
    if way.remote && args.port.is_some() && args.address.is_none() {
        let reason = "--port without --address: nobody on another machine reaches a loopback address; say which address of this machine they are to use";
        return Err(Failure::usage(reason));
    }
    if let plane::Plane::Envoy(path) = &args.proxy {
        envoy::find(path.as_deref()).map_err(Failure::usage)?;
    }
    let options = Options {
        name: args.name,
        service: args.service,
        version: args.version,
        namespace: args.namespace,
        service_account: args.service_account,
        port: args.port,
        address: args.address,
        way,
        plane: args.proxy.into(),
        command: args.command,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::running(format!("no event loop: {error}")))?;
    match runtime.block_on(workload::run(options)) {
        Ok(code) => Ok(ExitCode::from(code)),
        Err(error) => {
            terminal::error(&error.to_string());
            Ok(ExitCode::from(error.code()))
        }
    }
}

/// A name as Kubernetes wants it (RFC 1123).
fn name(text: &str) -> Result<String, String> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fits = !text.is_empty()
        && text.len() <= 63
        && text.chars().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-');
    if fits {
        Ok(text.to_owned())
    } else {
        Err("expected lower case letters, digits and `-` between them, at most 63".to_owned())
    }
}

/// A label's value as Kubernetes wants it.
fn label(text: &str) -> Result<String, String> {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let fits = text.len() <= 63 && text.chars().all(inner) && edge(text.chars().next()) && edge(text.chars().last());
    if fits {
        Ok(text.to_owned())
    } else {
        Err("expected letters and digits, with `-`, `_` and `.` between them, at most 63".to_owned())
    }
}
