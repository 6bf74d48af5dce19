//! `maille explain`: where a request would go and which rule lets it pass or not, by the proxy's own code, without a proxy.

mod ask;
mod named;
mod show;
mod walk;

use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use maille_api::{Diagnostic, Object, parse};
use maille_model::Snapshot;
use maille_store::files;

use crate::failure::{Failure, Outcome};
use crate::terminal;
use crate::version::Output;
use ask::Ask;
pub(crate) use walk::{Mesh, sidecar};

/// Say where a request would go, and which rule allows or denies it
///
/// Nothing is started: the resources are translated as for running proxies, and the proxy's own code answers. Whoever is
/// named with --from is a workload of the mesh, with mutual TLS where the mesh would use it; without --from the request
/// comes from outside, through the gateway that has the port. With --at one sidecar alone is asked, whoever calls it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  maille explain -f config/ --to shop.example:80 --path /cart
  maille explain -f config/ --from foo/sleep --to finance.foo:8080 --method POST --path /public/x
  maille explain -f config/ --to shop.example:80 --header 'x-user: ann' --jwt \"$TOKEN\" -o json
  maille explain -f config/ --to db.example:443 --protocol tls
  maille explain -f config/ --at foo/finance-v1 --to finance:8080 --from spiffe://elsewhere/ns/x/sa/y --source-ip 10.1.2.3
  maille explain -f config/ --requests requests.jsonl -o json    one JSON object a line: to, from, at, method, path, headers,
                                                                jwt, sni, protocol, source_ip

Exit codes: 0 the request passes, 1 it is refused or goes nowhere, 2 the input is wrong.")]
pub(crate) struct Args {
    /// A file, a directory, or `-` for stdin; may be given several times
    #[arg(short, long = "file", value_name = "PATH", required = true)]
    file: Vec<PathBuf>,

    /// Who asks: NAMESPACE/SERVICE-ACCOUNT or a SPIFFE id; a client outside the mesh, without a certificate, when absent
    #[arg(long, value_name = "WHO")]
    from: Option<String>,

    /// What is asked for: a host, and the service's or the gateway's port
    #[arg(long, value_name = "HOST[:PORT]", required_unless_present = "requests")]
    to: Option<String>,

    /// The method
    #[arg(long, default_value = "GET")]
    method: String,

    /// The path with its query
    #[arg(long, default_value = "/")]
    path: String,

    /// A header, `name: value`; may be given several times
    #[arg(long, value_name = "HEADER")]
    header: Vec<String>,

    /// A token, sent as `authorization: Bearer`
    #[arg(long, value_name = "TOKEN")]
    jwt: Option<String>,

    /// Ask the sidecar of this workload alone (NAMESPACE/NAME or NAMESPACE/ADDRESS), at the workload's own port that --to has
    #[arg(long, value_name = "WORKLOAD")]
    at: Option<String>,

    /// What is spoken
    #[arg(long, value_name = "PROTOCOL", default_value = "http")]
    protocol: ask::Protocol,

    /// The name that the client's TLS asks for; by default the host, or what sidecars say to each other
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,

    /// The client's address
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    source_ip: std::net::IpAddr,

    /// Many requests at once: a file of JSON lines, or `-`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["to", "from", "at", "sni", "header", "jwt"])]
    requests: Option<PathBuf>,

    /// How to print the answer
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

pub(crate) fn run(args: Args) -> Outcome {
    let asks = args.asks()?;
    let mesh = load(&args.file)?;
    let mut all_pass = true;
    for ask in &asks {
        let answer = mesh.explain(ask).map_err(Failure::usage)?;
        all_pass &= answer.passes();
        match args.output {
            Output::Text => terminal::out(&show::text(ask, &answer))?,
            Output::Json => terminal::out(&show::json(&answer).to_string())?,
        };
    }
    Ok(if all_pass { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// The mesh that files describe.
pub(crate) fn load(paths: &[PathBuf]) -> Result<Mesh, Failure> {
    let checked = files::check(paths).map_err(Failure::usage)?;
    if checked.has_errors() {
        let errors = checked.diagnostics.iter().filter(|d| d.is_error()).map(Diagnostic::to_string);
        return Err(Failure::usage(errors.collect::<Vec<_>>().join("\n\n")));
    }
    let objects: Vec<Arc<Object>> = checked.objects;
    let mesh = objects.iter().find_map(|object| parse::mesh_config_of(object)?.0).unwrap_or_default();
    let snapshot = Snapshot::build(&objects, &mesh);
    Ok(Mesh::new(objects, snapshot))
}

impl Args {
    fn asks(&self) -> Result<Vec<Ask>, Failure> {
        let Some(file) = &self.requests else {
            let to = self.to.as_deref().unwrap_or_default();
            let from = self.from.as_deref();
            let mut ask = Ask::new(to, from.filter(|_| self.at.is_none())).map_err(Failure::usage)?;
            ask.at.clone_from(&self.at);
            from.filter(|_| self.at.is_some()).into_iter().for_each(|id| ask.id(id));
            ask.server_name.clone_from(&self.sni);
            ask.protocol = self.protocol;
            ask.method.clone_from(&self.method);
            ask.path.clone_from(&self.path);
            ask.source = self.source_ip;
            for header in &self.header {
                ask.header(header).map_err(Failure::usage)?;
            }
            if let Some(token) = &self.jwt {
                ask.token(token);
            }
            return Ok(vec![ask]);
        };
        let mut text = String::new();
        match file.as_os_str() == "-" {
            true => std::io::stdin().read_to_string(&mut text),
            false => std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text)),
        }
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", file.display())))?;
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let parsed = lines.map(|(number, line)| {
            Ask::parse(line).map_err(|why| Failure::usage(format!("{}:{}: {why}", file.display(), number + 1)))
        });
        parsed.collect()
    }
}
