//! Mesh settings, from a file of their own or from the ConfigMap that Istio keeps them in.

use super::decode::{Rules, decode};
use super::diagnostic::{Diagnostic, Severity};
use super::tree::{File, Tree};
use super::{Loaded, load, read, report};
use crate::mesh::MeshConfig;
use crate::meta::{Kind, Object, Spec};
use crate::validate::validate_mesh;

const NAMESPACE: &str = "istio-system";
const NAME: &str = "istio";
const KEY: &str = "mesh";

/// Reads and validates mesh settings: a `MeshConfig` as it stands in the ConfigMap, or the ConfigMap itself.
///
/// What the text leaves out has Istio's defaults. `None` comes with at least one error.
pub fn mesh_config(text: &str, origin: &str) -> (Option<MeshConfig>, Vec<Diagnostic>) {
    let file = File::new(origin, text);
    let mut documents = read::documents(&file).into_iter();
    let root = match documents.next() {
        None => return (Some(MeshConfig::default()), Vec::new()),
        Some(Err(diagnostic)) => return (None, vec![*diagnostic]),
        Some(Ok(root)) => root,
    };
    if root.get("kind").is_some() {
        return of_resources(text, origin);
    }
    let tree = Tree { file, root, secret: false };
    let mut diagnostics = Vec::new();
    if documents.next().is_some() {
        let message = "mesh settings are one document; there is another behind it";
        diagnostics.push(tree.diagnostic(Severity::Error, tree.locate(""), message));
        return (None, diagnostics);
    }
    let (config, misfits) = decode::<MeshConfig>(&tree.root, tree.locate(""), Rules::Protobuf);
    diagnostics.extend(misfits.into_iter().map(|misfit| tree.misfit(misfit)));
    let config = config.map(MeshConfig::with_default_providers).filter(|config| {
        let findings = validate_mesh(config);
        report(&findings, &tree, None, &mut diagnostics);
        findings.is_accepted()
    });
    (config, diagnostics)
}

/// Mesh settings from the ConfigMap `istio` in `istio-system`, if this is it.
pub fn mesh_config_of(object: &Object) -> Option<(Option<MeshConfig>, Vec<Diagnostic>)> {
    let origin = match &object.source {
        Some(source) => format!("{source}, key {KEY}"),
        None => format!("{}, key {KEY}", object.key()),
    };
    Some(mesh_config(settings(object)?, &origin))
}

/// What is wrong with the mesh settings of a resource, if it has any, at their places in its file.
pub(super) fn problems_in(object: &Object, tree: &Tree) -> Vec<Diagnostic> {
    let Some((_, mut diagnostics)) = mesh_config_of(object) else { return Vec::new() };
    let start = tree.locate("data.mesh").start;
    for diagnostic in &mut diagnostics {
        diagnostic.resource = Some(object.key().to_string());
        // In a block scalar, as it is usually written, the lines are those of the file, indented.
        let line = start.line + diagnostic.line.saturating_sub(1);
        let outer = tree.file.line(line);
        let indent = start.column - 1;
        if diagnostic.line > 0 && outer.get(indent..) == Some(diagnostic.source_line.as_str()) {
            diagnostic.file = tree.file.origin.clone();
            diagnostic.line = line;
            diagnostic.column += indent;
            diagnostic.end_column += indent;
            diagnostic.source_line = outer.to_owned();
        }
    }
    diagnostics
}

fn of_resources(text: &str, origin: &str) -> (Option<MeshConfig>, Vec<Diagnostic>) {
    let Loaded { objects, mut diagnostics } = load(text, origin);
    if diagnostics.iter().any(Diagnostic::is_error) {
        return (None, diagnostics);
    }
    match objects.iter().find_map(|object| mesh_config_of(object)) {
        // Its findings are among those of the resources.
        Some((config, _)) => (config, diagnostics),
        None => {
            let message = format!("here is no {} {NAMESPACE}/{NAME} with the key `{KEY}`", Kind::ConfigMap);
            diagnostics.push(Diagnostic::about_file(Severity::Error, origin, message));
            (None, diagnostics)
        }
    }
}

fn settings(object: &Object) -> Option<&str> {
    let Spec::ConfigMap(config_map) = &object.spec else { return None };
    let is_ours = object.meta.name == NAME && object.meta.namespace == NAMESPACE;
    config_map.data.get(KEY).filter(|_| is_ours).map(String::as_str)
}
