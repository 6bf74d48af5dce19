//! `maille validate`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use maille_api::parse::mesh_config_of;
use maille_api::{Diagnostic, Object, Severity};
use maille_model::{Snapshot, Warning};
use maille_store::files::{self, Checked};
use serde_json::{Value, json};

use crate::diagnostics::{coloured, count, plural, to_json};
use crate::failure::{Failure, Outcome};
use crate::terminal;
use crate::version::Output;

/// Say what is wrong with Istio resources, and where
///
/// Judges each resource as Istio's own validation does, and also reports what Istio ignores silently: unknown fields,
/// the same resource in two files, kinds that would not be enforced. Nothing is started and nothing is changed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  maille validate -f routes.yaml              one file
  maille validate -f config/ -f extra.yaml    the YAML and JSON files of a directory, and another file
  kubectl get vs,dr,gw -A -o yaml | maille validate -f -
  maille validate -f config/ -o json | jq '.diagnostics[] | select(.severity == \"error\")'

Exit codes: 0 everything can be used (there may be warnings), 2 something cannot.")]
pub(crate) struct Args {
    /// A file, a directory, or `-` for stdin; may be given several times
    #[arg(short, long = "file", value_name = "PATH", required = true)]
    file: Vec<PathBuf>,

    /// How to print what was found
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

pub(crate) fn run(args: Args) -> Outcome {
    let mut checked = files::check(&args.file).map_err(Failure::usage)?;
    checked.diagnostics.extend(idle_policies(&checked.objects));
    match args.output {
        Output::Text => terminal::out(&text(&checked))?,
        Output::Json => terminal::out(&json(&checked).to_string())?,
    };
    if checked.has_errors() { Err(Failure::bad_input()) } else { Ok(ExitCode::SUCCESS) }
}

/// Policies that do nothing, or not what they say, as far as these resources tell.
fn idle_policies(objects: &[Arc<Object>]) -> Vec<Diagnostic> {
    let mesh = objects.iter().find_map(|object| mesh_config_of(object)).and_then(|(mesh, _)| mesh).unwrap_or_default();
    let snapshot = Snapshot::build(objects, &mesh);
    let about_policies = snapshot.warnings().iter().filter(|warning| warning.is_about_policy());
    let diagnostic = |warning: &Warning| {
        let source = objects.iter().find(|object| object.key() == warning.key)?.source.as_ref()?;
        let mut diagnostic = Diagnostic::about_file(Severity::Warning, source.file.clone(), warning.message.clone());
        (diagnostic.line, diagnostic.column, diagnostic.end_column) = (source.line, 1, 2);
        diagnostic.resource = Some(warning.key.to_string());
        Some(diagnostic)
    };
    about_policies.filter_map(diagnostic).collect()
}

fn text(checked: &Checked) -> String {
    let mut text = String::new();
    for diagnostic in &checked.diagnostics {
        text += &coloured(diagnostic);
        text += "\n\n";
    }
    let what = format!("{} in {}", plural(checked.objects.len(), "usable resource"), plural(checked.files, "file"));
    text + &format!("{what}: {}", count(&checked.diagnostics).unwrap_or_else(|| "nothing wrong".to_owned()))
}

fn json(checked: &Checked) -> Value {
    json!({
        "valid": !checked.has_errors(),
        "files": checked.files,
        "resources": checked.objects.len(),
        "diagnostics": checked.diagnostics.iter().map(to_json).collect::<Vec<_>>(),
    })
}
