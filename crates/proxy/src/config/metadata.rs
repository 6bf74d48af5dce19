//! Metadata of routes, clusters and endpoints: free form, for logs, metrics and transport choice.

use std::collections::BTreeMap;

/// Metadata by namespace (`istio`, `envoy.transport_socket_match`, …); values are JSON objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata(pub BTreeMap<Box<str>, serde_json::Value>);

impl Metadata {
    /// The value at a path under a namespace.
    pub fn get(&self, namespace: &str, path: &[&str]) -> Option<&serde_json::Value> {
        path.iter().try_fold(self.0.get(namespace)?, |value, key| value.get(*key))
    }
}
