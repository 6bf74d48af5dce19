//! From text to resources: every mistake with its line, and what was probably meant.

mod decode;
mod diagnostic;
mod envelope;
mod foreign;
mod read;
mod scalar;
mod tree;

use std::collections::HashMap;
use std::sync::Arc;

pub use self::diagnostic::{Diagnostic, Severity};
pub use self::tree::{File, Position, Span, Tree};

use self::decode::Rules;
use crate::mesh::MeshConfig;
use crate::meta::{Key, Kind, Object};
use crate::validate::{Finding, Findings, validate, validate_mesh};

/// A resource that says nothing unknown; whether it makes sense is for [`validate`].
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The resource.
    pub object: Object,
    /// How it was written.
    pub tree: Tree,
}

/// What a file holds.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The resources that can be used, in the order of the file.
    pub objects: Vec<Arc<Object>>,
    /// What is wrong with the others, and what should be looked at.
    pub diagnostics: Vec<Diagnostic>,
}

impl Loaded {
    /// Whether anything in the file cannot be used.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// Splits a text into documents and decodes each; `origin` names the text in findings.
///
/// A document can yield one resource, several (a `List`), findings, or a resource and warnings about it.
pub fn documents(text: &str, origin: &str) -> Vec<Result<Parsed, Diagnostic>> {
    let file = Arc::new(File { origin: origin.into(), text: text.to_owned() });
    let mut found = Vec::new();
    for (number, document) in read::documents(&file).into_iter().enumerate() {
        match document {
            Ok(root) => envelope::resources(&file, number, root, &mut found),
            Err(diagnostic) => found.push(Err(*diagnostic)),
        }
    }
    found
}

/// Reads and validates everything in a text.
pub fn load(text: &str, origin: &str) -> Loaded {
    let mut loaded = Loaded::default();
    let mut seen: HashMap<Key, usize> = HashMap::new();
    for document in documents(text, origin) {
        let Parsed { object, tree } = match document {
            Ok(parsed) => parsed,
            Err(diagnostic) => {
                loaded.diagnostics.push(diagnostic);
                continue;
            }
        };
        let findings = validate(&object);
        let key = object.key();
        report(&findings, &tree, Some(&key.to_string()), &mut loaded.diagnostics);
        if !findings.is_accepted() {
            continue;
        }
        if let Some(earlier) = seen.insert(key.clone(), loaded.objects.len()) {
            let line = loaded.objects[earlier].source.as_ref().map_or(0, |source| source.line);
            let message = format!("this replaces the {key} of line {line}: a name can be used once");
            loaded.diagnostics.push(tree.diagnostic(Severity::Warning, tree.locate("metadata.name"), message));
            loaded.objects[earlier] = Arc::new(object);
            continue;
        }
        loaded.objects.push(Arc::new(object));
    }
    loaded
}

/// Reads and validates mesh settings: a `MeshConfig`, as in the key `mesh` of the ConfigMap `istio`, or that ConfigMap.
///
/// What the text leaves out has Istio's defaults. `None` comes with at least one error.
pub fn mesh_config(text: &str, origin: &str) -> (Option<MeshConfig>, Vec<Diagnostic>) {
    let file = Arc::new(File { origin: origin.into(), text: text.to_owned() });
    let mut documents = read::documents(&file).into_iter();
    let root = match documents.next() {
        None => return (Some(MeshConfig::default()), Vec::new()),
        Some(Err(diagnostic)) => return (None, vec![*diagnostic]),
        Some(Ok(root)) => root,
    };
    if root.get("kind").is_some() {
        return mesh_of_resources(text, origin);
    }
    let tree = Tree { file, root, secret: false };
    let (config, misfits) = decode::decode::<MeshConfig>(&tree.root, tree.locate(""), Rules::Protobuf);
    let mut diagnostics: Vec<_> = misfits.into_iter().map(|misfit| tree.misfit(misfit)).collect();
    let config = config.map(MeshConfig::with_default_providers).filter(|config| {
        let findings = validate_mesh(config);
        report(&findings, &tree, None, &mut diagnostics);
        findings.is_accepted()
    });
    (config, diagnostics)
}

/// Mesh settings from the ConfigMap `istio` in `istio-system`, if this is it.
pub fn mesh_config_of(object: &Object) -> Option<(Option<MeshConfig>, Vec<Diagnostic>)> {
    let crate::meta::Spec::ConfigMap(config_map) = &object.spec else { return None };
    if object.meta.name != "istio" || object.meta.namespace != "istio-system" {
        return None;
    }
    let origin = match &object.source {
        Some(source) => format!("{source}: mesh of {}", object.key()),
        None => format!("mesh of {}", object.key()),
    };
    Some(mesh_config(config_map.data.get("mesh")?, &origin))
}

fn mesh_of_resources(text: &str, origin: &str) -> (Option<MeshConfig>, Vec<Diagnostic>) {
    let Loaded { objects, mut diagnostics } = load(text, origin);
    let Some((config, findings)) = objects.iter().find_map(|object| mesh_config_of(object)) else {
        let message = format!("this holds no {} istio-system/istio with the key `mesh`", Kind::ConfigMap);
        diagnostics.push(Diagnostic::about_file(Severity::Error, origin, message));
        return (None, diagnostics);
    };
    diagnostics.extend(findings);
    (config, diagnostics)
}

fn report(findings: &Findings, tree: &Tree, resource: Option<&str>, diagnostics: &mut Vec<Diagnostic>) {
    let mut add = |severity, finding: &Finding| {
        let mut diagnostic =
            tree.diagnostic(severity, tree.locate(&finding.path), format!("{}: {}", finding.path, finding.message));
        diagnostic.resource = resource.map(str::to_owned);
        diagnostic.hint.clone_from(&finding.hint);
        diagnostics.push(diagnostic);
    };
    findings.errors.iter().for_each(|finding| add(Severity::Error, finding));
    findings.warnings.iter().for_each(|finding| add(Severity::Warning, finding));
}
