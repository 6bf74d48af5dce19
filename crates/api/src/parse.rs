//! From text to resources: every mistake with its line, and what was probably meant.

mod decode;
mod diagnostic;
mod envelope;
mod foreign;
mod mesh;
mod read;
mod scalar;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::HashMap;
use std::sync::Arc;

pub use self::diagnostic::{Diagnostic, Severity};
pub use self::mesh::{mesh_config, mesh_config_of};
pub use self::tree::{File, Position, Span, Tree};

use crate::meta::{Key, Object};
use crate::validate::{Finding, Findings, validate};

/// Findings of either sort that are shown of one resource. More of them tell nobody more, and each holds its line.
const MAX_FINDINGS: usize = 100;

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
    let file = File::new(origin, text);
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
        let mesh_problems = mesh::problems_in(&object, &tree);
        let usable = findings.is_accepted() && !mesh_problems.iter().any(Diagnostic::is_error);
        loaded.diagnostics.extend(mesh_problems);
        if !usable {
            continue;
        }
        if let Some(&earlier) = seen.get(&key) {
            let line = loaded.objects[earlier].source.as_ref().map_or(0, |source| source.line);
            let message = format!("this replaces the {key} of line {line}: a name can be used once");
            loaded.diagnostics.push(tree.diagnostic(Severity::Warning, tree.locate("metadata.name"), message));
            loaded.objects[earlier] = Arc::new(object);
            continue;
        }
        seen.insert(key, loaded.objects.len());
        loaded.objects.push(Arc::new(object));
    }
    loaded
}

/// Adds what validation found, each finding at its field.
fn report(findings: &Findings, tree: &Tree, resource: Option<&str>, diagnostics: &mut Vec<Diagnostic>) {
    let mut add = |severity, finding: &Finding| {
        let mut diagnostic =
            tree.diagnostic(severity, tree.locate(&finding.path), format!("{}: {}", finding.path, finding.message));
        diagnostic.resource = resource.map(str::to_owned);
        diagnostic.hint.clone_from(&finding.hint);
        diagnostics.push(diagnostic);
    };
    findings.errors.iter().take(MAX_FINDINGS).for_each(|finding| add(Severity::Error, finding));
    findings.warnings.iter().take(MAX_FINDINGS).for_each(|finding| add(Severity::Warning, finding));
    let beyond = |findings: &[Finding]| findings.len().saturating_sub(MAX_FINDINGS);
    match beyond(&findings.errors) + beyond(&findings.warnings) {
        0 => {}
        more => {
            let message = format!("{more} more findings about this resource are not shown");
            let mut diagnostic = tree.diagnostic(Severity::Note, tree.locate(""), message);
            diagnostic.resource = resource.map(str::to_owned);
            diagnostics.push(diagnostic);
        }
    }
}
