//! Which namespaces the mesh is made of, and how far each one's ServiceEntries are seen.

use std::collections::{BTreeMap, HashMap};

use maille_api::mesh::{
    LabelSelector, MeshConfig, NamespaceMatchRule, ServiceEntryVisibility, ServiceEntryVisibilityLevel,
};
use maille_api::{Kind, Object};

use crate::destination_rule::is_subset;
use crate::visibility::ExportTo;

/// Labels of namespaces, and the mesh's rules about them.
pub(crate) struct Namespaces<'a> {
    labels: HashMap<&'a str, &'a BTreeMap<String, String>>,
    selectors: &'a [LabelSelector],
    visibility: Option<&'a ServiceEntryVisibility>,
}

impl<'a> Namespaces<'a> {
    pub(crate) fn new(objects: &[&'a Object], mesh: &'a MeshConfig) -> Namespaces<'a> {
        let namespaces = objects.iter().filter(|object| object.kind() == Kind::Namespace);
        Namespaces {
            labels: namespaces.map(|object| (object.meta.name.as_str(), &object.meta.labels)).collect(),
            selectors: &mesh.discovery_selectors,
            visibility: mesh.service_entry_visibility.as_ref().filter(|visibility| visibility.apply_to_sidecars),
        }
    }

    /// Whether what is in this namespace counts: without selectors all of them do.
    pub(crate) fn is_discovered(&self, namespace: &str) -> bool {
        self.selectors.is_empty() || self.selectors.iter().any(|selector| self.selects(selector, namespace))
    }

    /// What a ServiceEntry says of its visibility, as far as the mesh allows it.
    pub(crate) fn limit(&self, export: ExportTo, namespace: &str) -> ExportTo {
        let Some(visibility) = self.visibility else { return export };
        let applies = |rule: &NamespaceMatchRule| match rule {
            NamespaceMatchRule::NamespaceSelector(selector) => self.selects(selector, namespace),
            NamespaceMatchRule::Unset => false,
        };
        let policy = visibility.policies.iter().find(|policy| policy.matching_rules.iter().all(applies));
        match policy.map_or(visibility.default_visibility, |policy| policy.visibility) {
            ServiceEntryVisibilityLevel::VisibilityUnspecified | ServiceEntryVisibilityLevel::Public => export,
            ServiceEntryVisibilityLevel::None => ExportTo::Nobody,
            ServiceEntryVisibilityLevel::Namespace if export.visible_to(namespace) => {
                ExportTo::Namespaces([namespace.to_owned()].into())
            }
            ServiceEntryVisibilityLevel::Namespace => ExportTo::Nobody,
        }
    }

    /// A namespace that nobody wrote down has no labels but its name, which Kubernetes gives it.
    fn selects(&self, selector: &LabelSelector, namespace: &str) -> bool {
        let mut labels = self.labels.get(namespace).map(|labels| (*labels).clone()).unwrap_or_default();
        labels.entry("kubernetes.io/metadata.name".to_owned()).or_insert_with(|| namespace.to_owned());
        is_subset(&selector.match_labels, &labels)
            && selector.match_expressions.iter().all(|requirement| {
                let value = labels.get(&requirement.key);
                let listed = value.is_some_and(|value| requirement.values.contains(value));
                match requirement.operator.as_str() {
                    "In" => listed,
                    "NotIn" => !listed,
                    "Exists" => value.is_some(),
                    "DoesNotExist" => value.is_none(),
                    _ => false,
                }
            })
    }
}
