//! How a proxy introduces itself to the control plane: Istio's node id and metadata.

use std::collections::BTreeMap;
use std::net::IpAddr;

use maille_xds::types::{self, ListValue, Struct, ValueKind, core};
use serde_json::{Map, Value, json};

use crate::ISTIO_VERSION;
use crate::certificates::Enrolment;
use crate::door::Door;

/// What a proxy is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// A gateway.
    Router,
    /// The proxy beside a workload.
    Sidecar,
}

/// One proxy, as the control plane is to know it.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Gateway or sidecar.
    pub role: Role,
    /// The workload's name, unique in its namespace.
    pub name: String,
    /// The namespace whose configuration the proxy follows.
    pub namespace: String,
    /// The service account it runs under.
    pub service_account: String,
    /// Its address; a sidecar's is its workload's.
    pub address: IpAddr,
    /// The labels of its workload.
    pub labels: BTreeMap<String, String>,
    /// More metadata, for what Istio has no field of its own for.
    pub metadata: Map<String, Value>,
}

impl Node {
    /// Whom its certificate is for.
    pub fn enrolment(&self, door: Door) -> Enrolment {
        let Self { name, namespace, service_account, .. } = self;
        Enrolment { door, name: name.clone(), namespace: namespace.clone(), service_account: service_account.clone() }
    }

    /// `sidecar~127.1.2.3~reviews-v1.shop~shop.svc.cluster.local`
    pub fn id(&self) -> String {
        let role = match self.role {
            Role::Router => "router",
            Role::Sidecar => "sidecar",
        };
        let Self { name, namespace, address, .. } = self;
        format!("{role}~{address}~{name}.{namespace}~{namespace}.svc.cluster.local")
    }

    /// `reviews.shop`: the service as far as labels tell it, and the namespace.
    pub fn cluster(&self) -> String {
        let service = self.labels.get("app").unwrap_or(&self.name);
        format!("{service}.{}", self.namespace)
    }

    /// The same, for our own proxy: it has Istio's filters, which a stock Envoy would refuse.
    pub fn ours(mut self) -> Node {
        self.metadata.insert("MAILLE".to_owned(), json!(env!("CARGO_PKG_VERSION")));
        self
    }

    /// The node's metadata.
    pub fn metadata(&self) -> Map<String, Value> {
        let mut metadata = self.metadata.clone();
        let mut put = |key: &str, value: Value| drop(metadata.insert(key.to_owned(), value));
        put("CLUSTER_ID", json!("Kubernetes"));
        put("INSTANCE_IPS", json!(self.address.to_string()));
        put("ISTIO_VERSION", json!(ISTIO_VERSION));
        put("LABELS", json!(self.labels));
        put("NAMESPACE", json!(self.namespace));
        put("SERVICE_ACCOUNT", json!(self.service_account));
        put("WORKLOAD_NAME", json!(self.name));
        metadata
    }

    /// The node as Envoy's bootstrap has it.
    pub fn to_json(&self) -> Value {
        json!({"id": self.id(), "cluster": self.cluster(), "metadata": self.metadata()})
    }

    /// The node as it goes over the wire.
    pub fn to_proto(&self) -> core::Node {
        core::Node {
            id: self.id(),
            cluster: self.cluster(),
            metadata: Some(to_struct(self.metadata())),
            ..Default::default()
        }
    }
}

fn to_struct(fields: Map<String, Value>) -> Struct {
    Struct { fields: fields.into_iter().map(|(name, value)| (name, to_value(value))).collect() }
}

fn to_value(value: Value) -> types::Value {
    let kind = match value {
        Value::Null => ValueKind::NullValue(0),
        Value::Bool(value) => ValueKind::BoolValue(value),
        // Numbers in metadata are small: ports and counts.
        Value::Number(value) => ValueKind::NumberValue(value.as_f64().unwrap_or_default()),
        Value::String(value) => ValueKind::StringValue(value),
        Value::Array(values) => ValueKind::ListValue(ListValue { values: values.into_iter().map(to_value).collect() }),
        Value::Object(fields) => ValueKind::StructValue(to_struct(fields)),
    };
    types::Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_introduces_itself_as_istio_expects() {
        let node = Node {
            role: Role::Sidecar,
            name: "reviews-v1".into(),
            namespace: "shop".into(),
            service_account: "reviews".into(),
            address: [127, 1, 2, 3].into(),
            labels: [("app".to_owned(), "reviews".to_owned())].into(),
            metadata: [("APP_PORTS".to_owned(), json!({"9080": 41234}))].into_iter().collect(),
        };
        assert_eq!(node.id(), "sidecar~127.1.2.3~reviews-v1.shop~shop.svc.cluster.local");
        assert_eq!(node.cluster(), "reviews.shop");
        let proto = node.to_proto().metadata.expect("metadata").fields;
        assert_eq!(proto["INSTANCE_IPS"].kind, Some(ValueKind::StringValue("127.1.2.3".into())));
        let Some(ValueKind::StructValue(labels)) = &proto["LABELS"].kind else { panic!("{:?}", proto["LABELS"]) };
        assert_eq!(labels.fields["app"].kind, Some(ValueKind::StringValue("reviews".into())));
        assert_eq!(proto.len(), node.to_json()["metadata"].as_object().expect("metadata").len());
    }
}
