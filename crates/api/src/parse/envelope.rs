//! What every resource begins with: apiVersion, kind and metadata; and lists of resources.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::decode::{Misfit, Rules, decode, suggestion};
use super::diagnostic::{Diagnostic, Severity};
use super::tree::{Entry, File, Node, Span, Tree, Value};
use super::{Parsed, foreign};
use crate::meta::{Kind, Object, ObjectMeta, Source, Spec, UnknownKind};
use crate::timestamp;

/// The groups whose kinds are ours.
const ISTIO: [&str; 2] = ["networking.istio.io", "security.istio.io"];
const DEFAULT_NAMESPACE: &str = "default";

/// The resources of a document, or what is wrong with it.
pub(super) fn resources(file: &Arc<File>, document: usize, root: Node, found: &mut Vec<Result<Parsed, Diagnostic>>) {
    let secret = root.get("kind").is_some_and(|entry| text(&entry.value) == Some("Secret"));
    let tree = Tree { file: file.clone(), root, secret };
    match list_items(&tree.root) {
        None => {}
        Some(Ok(items)) => return items.iter().for_each(|item| resources(file, document, item.clone(), found)),
        Some(Err(span)) => {
            let message = "a list of resources was expected here";
            return found.push(Err(tree.diagnostic(Severity::Error, span, message)));
        }
    }
    let mut reader = Reader { tree: &tree, resource: None, diagnostics: Vec::new() };
    let object = reader.object(document);
    found.extend(reader.diagnostics.into_iter().map(Err));
    if let Some(object) = object {
        found.push(Ok(Parsed { object, tree }));
    }
}

/// The items of a `List` or `VirtualServiceList`, as `kubectl get -o yaml` prints several resources; or where they
/// should be.
fn list_items(root: &Node) -> Option<Result<&[Node], Span>> {
    text(&root.get("kind")?.value)?.strip_suffix("List")?;
    let entry = root.get("items")?;
    Some(match &entry.value.value {
        Value::Sequence(items) => Ok(items),
        _ if entry.value.is_null() => Ok(&[]),
        _ => Err(entry.span()),
    })
}

fn is_nearly_istio(group: &str) -> bool {
    ISTIO.iter().any(|ours| group.len() < 2 * ours.len() && strsim::damerau_levenshtein(group, ours) <= 3)
}

fn text(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Scalar { text, .. } if !node.is_null() => Some(text),
        _ => None,
    }
}

impl Tree {
    pub(super) fn diagnostic(&self, severity: Severity, span: Span, message: impl Into<String>) -> Diagnostic {
        let mut diagnostic = Diagnostic::at(severity, &self.file, span, message);
        if self.secret {
            diagnostic.source_line.clear();
        }
        diagnostic
    }

    pub(super) fn misfit(&self, misfit: Misfit) -> Diagnostic {
        let severity = if misfit.is_error { Severity::Error } else { Severity::Warning };
        let mut diagnostic = self.diagnostic(severity, misfit.span, misfit.message);
        diagnostic.hint = misfit.hint;
        diagnostic
    }
}

struct Reader<'t> {
    tree: &'t Tree,
    /// What we know of the resource's identity, for findings.
    resource: Option<String>,
    diagnostics: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn object(&mut self, document: usize) -> Option<Object> {
        let root = &self.tree.root;
        let start = root.span_or_first_key();
        if !matches!(root.value, Value::Mapping(_)) {
            let hint = "it begins with apiVersion, kind and metadata";
            self.error(start, "a resource was expected here, which is a mapping", Some(hint.to_owned()));
            return None;
        }
        let kind = self.kind()?;
        let meta = self.meta(kind);
        self.unknown_keys(kind);
        let spec = self.spec(kind);
        let source = Source { file: self.tree.file.origin.clone(), document, line: start.start.line };
        let (meta, spec) = (meta?, spec?);
        let failed = self.diagnostics.iter().any(Diagnostic::is_error);
        (!failed).then_some(Object { meta, spec, source: Some(source) })
    }

    fn kind(&mut self) -> Option<Kind> {
        let root = &self.tree.root;
        let start = root.span_or_first_key();
        let Some(entry) = root.get("kind").filter(|entry| !entry.value.is_null()) else {
            let hint = match root.get("apiVersion").and_then(|entry| text(&entry.value)) {
                Some(version) if version.starts_with(ISTIO[1]) => "add a line such as `kind: AuthorizationPolicy`",
                Some(version) if version.starts_with(ISTIO[0]) => "add a line such as `kind: VirtualService`",
                _ => "add lines such as `apiVersion: networking.istio.io/v1` and `kind: VirtualService`",
            };
            self.error(start, "`kind` is missing, so nobody knows what this is", Some(hint.to_owned()));
            return None;
        };
        let Some(name) = text(&entry.value) else {
            self.error(entry.key_span, "`kind` has to be a word", None);
            return None;
        };
        let meta = root.get("metadata").map(|entry| &entry.value);
        let field = |name| meta.and_then(|meta| meta.get(name)).and_then(|entry| text(&entry.value));
        self.resource = Some(match (field("namespace"), field("name")) {
            (_, None) => name.to_owned(),
            (None, Some(object)) => format!("{name} {object}"),
            (Some(namespace), Some(object)) => format!("{name} {namespace}/{object}"),
        });
        let version = root.get("apiVersion").filter(|entry| !entry.value.is_null());
        match version {
            Some(version) => self.kind_of_version(name, entry, version),
            None => {
                self.without_version(name, entry.span());
                None
            }
        }
    }

    fn kind_of_version(&mut self, name: &str, entry: &Entry, version_entry: &Entry) -> Option<Kind> {
        let Some(api_version) = text(&version_entry.value) else {
            self.error(version_entry.key_span, "`apiVersion` has to be a word", None);
            return None;
        };
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let kind = name.parse::<Kind>().ok().filter(|kind| kind.group() == group);
        if let Some(kind) = kind {
            if !kind.versions().contains(&version) {
                let message = format!("{kind} has no version `{version}`");
                let hint = format!("write `apiVersion: {}`", kind.api_version());
                self.error(version_entry.span(), message, Some(hint));
                return None;
            }
            return Some(kind);
        }
        // `networking.istoi.io` is nobody's but ours.
        let misspelt =
            !ISTIO.contains(&group) && name.parse::<Kind>().is_ok_and(Kind::is_istio) && is_nearly_istio(group);
        if let Some((severity, message)) = foreign::verdict(group, name).filter(|_| !misspelt) {
            self.say(severity, entry.span(), message, None);
            return None;
        }
        match name.parse::<Kind>() {
            Ok(kind) => {
                let message = format!("there is no {kind} in `{api_version}`");
                self.error(version_entry.span(), message, Some(format!("write `apiVersion: {}`", kind.api_version())));
            }
            Err(_) => self.unknown_kind(name, entry.span()),
        }
        None
    }

    /// A kind alone could be somebody else's (Kubernetes has a Gateway, too), so it is never guessed.
    fn without_version(&mut self, name: &str, span: Span) {
        if let Ok(kind) = name.parse::<Kind>() {
            let message = format!("`apiVersion` is missing, so nobody knows whose {kind} this is");
            self.error(span, message, Some(format!("add the line `apiVersion: {}`", kind.api_version())));
            return;
        }
        let Some(api_version) = foreign::api_version_of(name) else {
            return self.unknown_kind(name, span);
        };
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        match foreign::verdict(group, name) {
            Some((Severity::Error, message)) => self.error(span, message, None),
            _ => self.error(span, "`apiVersion` is missing", Some(format!("add the line `apiVersion: {api_version}`"))),
        }
    }

    fn unknown_kind(&mut self, name: &str, span: Span) {
        let names: Vec<_> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        let hint = suggestion(name, &names).map(|meant| format!("did you mean `{meant}`?"));
        self.error(span, UnknownKind(name.to_owned()).to_string(), hint);
    }

    fn unknown_keys(&mut self, kind: Kind) {
        let fields: &[&str] = match kind {
            Kind::Secret => &["apiVersion", "kind", "metadata", "data", "stringData", "type", "immutable"],
            Kind::ConfigMap => &["apiVersion", "kind", "metadata", "data", "binaryData", "immutable"],
            _ => &["apiVersion", "kind", "metadata", "spec", "status"],
        };
        let is_unknown = |entry: &&Entry| !fields.contains(&entry.key.as_str());
        let root = &self.tree.root;
        for entry in root.entries().iter().filter(is_unknown) {
            let hint = suggestion(&entry.key, fields).map(|meant| format!("did you mean `{meant}`?")).or_else(|| {
                (fields.contains(&"spec") && root.get("spec").is_none_or(|spec| spec.value.is_null()))
                    .then(|| "indent it below `spec:`".to_owned())
            });
            self.error(entry.key_span, format!("unknown field `{}`", entry.key), hint);
        }
    }

    fn meta(&mut self, kind: Kind) -> Option<ObjectMeta> {
        let root = &self.tree.root;
        let Some(entry) = root.get("metadata").filter(|entry| !entry.value.is_null()) else {
            let hint = Some("add `metadata:` and below it `name: NAME`".to_owned());
            self.error(root.span_or_first_key(), "`metadata` is missing", hint);
            return None;
        };
        let written: WrittenMeta = self.decode(&entry.value, entry.span(), Rules::Protobuf)?;
        if written.name.is_empty() {
            self.error(entry.key_span, "`metadata.name` is missing", Some("every resource needs a name".to_owned()));
            return None;
        }
        let creation_timestamp = match &written.creation_timestamp {
            None => None,
            Some(text) => {
                let seconds = timestamp::parse(text);
                if seconds.is_none() {
                    let hint = Some("one is written like 2026-01-31T12:00:00Z".to_owned());
                    self.error(self.tree.locate("metadata.creationTimestamp"), "this is not a time", hint);
                }
                seconds
            }
        };
        let namespace = match (kind.is_namespaced(), written.namespace) {
            (false, _) => String::new(),
            (true, namespace) if namespace.is_empty() => DEFAULT_NAMESPACE.to_owned(),
            (true, namespace) => namespace,
        };
        Some(ObjectMeta {
            name: written.name,
            namespace,
            labels: written.labels,
            annotations: written.annotations,
            creation_timestamp,
            uid: written.uid,
            generation: written.generation,
            resource_version: written.resource_version,
        })
    }

    fn spec(&mut self, kind: Kind) -> Option<Spec> {
        let root = &self.tree.root;
        if matches!(kind, Kind::Secret | Kind::ConfigMap) {
            let is_own = |entry: &&Entry| {
                ["data", "stringData", "binaryData", "type", "immutable"].contains(&entry.key.as_str())
            };
            let entries = root.entries().iter().filter(is_own).cloned().collect();
            let node = Node { span: root.span, value: Value::Mapping(entries) };
            return match kind {
                Kind::Secret => self.decode(&node, root.span, Rules::KubernetesSecret).map(Spec::Secret),
                _ => self.decode(&node, root.span, Rules::Kubernetes).map(Spec::ConfigMap),
            };
        }
        let empty = Node { span: root.span, value: Value::Mapping(Vec::new()) };
        let (node, at) = match root.get("spec") {
            Some(entry) if !entry.value.is_null() => (&entry.value, entry.span()),
            _ => (&empty, root.span_or_first_key()),
        };
        match kind {
            Kind::Gateway => self.decode(node, at, Rules::Protobuf).map(Spec::Gateway),
            Kind::VirtualService => self.decode(node, at, Rules::Protobuf).map(Spec::VirtualService),
            Kind::DestinationRule => self.decode(node, at, Rules::Protobuf).map(Spec::DestinationRule),
            Kind::ServiceEntry => self.decode(node, at, Rules::Protobuf).map(Spec::ServiceEntry),
            Kind::WorkloadEntry => self.decode(node, at, Rules::Protobuf).map(Spec::WorkloadEntry),
            Kind::WorkloadGroup => self.decode(node, at, Rules::Protobuf).map(Spec::WorkloadGroup),
            Kind::Sidecar => self.decode(node, at, Rules::Protobuf).map(Spec::Sidecar),
            Kind::PeerAuthentication => self.decode(node, at, Rules::Protobuf).map(Spec::PeerAuthentication),
            Kind::RequestAuthentication => self.decode(node, at, Rules::Protobuf).map(Spec::RequestAuthentication),
            Kind::AuthorizationPolicy => self.decode(node, at, Rules::Protobuf).map(Spec::AuthorizationPolicy),
            Kind::Service => self.decode(node, at, Rules::Kubernetes).map(Spec::Service),
            Kind::Namespace => self.decode(node, at, Rules::Kubernetes).map(Spec::Namespace),
            Kind::Secret | Kind::ConfigMap => None,
        }
    }

    fn decode<'n, T: Deserialize<'n>>(&mut self, node: &'n Node, at: Span, rules: Rules) -> Option<T> {
        let (value, misfits) = decode(node, at, rules);
        for misfit in misfits {
            let mut diagnostic = self.tree.misfit(misfit);
            diagnostic.resource.clone_from(&self.resource);
            self.diagnostics.push(diagnostic);
        }
        value
    }

    fn error(&mut self, span: Span, message: impl Into<String>, hint: Option<String>) {
        self.say(Severity::Error, span, message, hint);
    }

    fn say(&mut self, severity: Severity, span: Span, message: impl Into<String>, hint: Option<String>) {
        let mut diagnostic = self.tree.diagnostic(severity, span, message);
        diagnostic.resource.clone_from(&self.resource);
        diagnostic.hint = hint;
        self.diagnostics.push(diagnostic);
    }
}

/// Metadata as Kubernetes writes it. What only an API server needs is read over.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WrittenMeta {
    name: String,
    namespace: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    creation_timestamp: Option<String>,
    uid: String,
    generation: i64,
    resource_version: String,
    #[serde(rename = "generateName")]
    _generate_name: IgnoredAny,
    #[serde(rename = "selfLink")]
    _self_link: IgnoredAny,
    #[serde(rename = "deletionTimestamp")]
    _deletion_timestamp: IgnoredAny,
    #[serde(rename = "deletionGracePeriodSeconds")]
    _deletion_grace_period_seconds: IgnoredAny,
    #[serde(rename = "ownerReferences")]
    _owner_references: IgnoredAny,
    #[serde(rename = "finalizers")]
    _finalizers: IgnoredAny,
    #[serde(rename = "managedFields")]
    _managed_fields: IgnoredAny,
}
