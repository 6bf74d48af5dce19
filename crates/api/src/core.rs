//! Kubernetes' own kinds, as far as a mesh reads them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::bytes::Bytes;
use crate::message::message;

message! {
    /// A service: a name and address for the workloads a selector finds. (A v1 Service's `spec`.)
    pub struct Service {
        pub ports: Vec<ServicePort>,
        pub selector: BTreeMap<String, String>,
        pub r#type: String,
        #[serde(rename = "clusterIP")]
        pub cluster_ip: String,
        #[serde(rename = "clusterIPs")]
        pub cluster_ips: Vec<String>,
        #[serde(rename = "externalIPs")]
        pub external_ips: Vec<String>,
        pub external_name: String,
        pub external_traffic_policy: String,
        pub internal_traffic_policy: String,
        pub health_check_node_port: i32,
        pub allocate_load_balancer_node_ports: Option<bool>,
        pub load_balancer_class: String,
        #[serde(rename = "loadBalancerIP")]
        pub load_balancer_ip: String,
        pub load_balancer_source_ranges: Vec<String>,
        pub ip_families: Vec<String>,
        pub ip_family_policy: String,
        pub publish_not_ready_addresses: bool,
        pub session_affinity: String,
        pub session_affinity_config: Option<SessionAffinityConfig>,
        pub traffic_distribution: String,
    }
}

message! {
    /// A port of a service.
    pub struct ServicePort {
        pub name: String,
        pub protocol: String,
        pub app_protocol: String,
        pub port: i32,
        pub target_port: Option<IntOrString>,
        pub node_port: i32,
    }
}

message! {
    /// How long a client stays with its endpoint.
    pub struct SessionAffinityConfig {
        #[serde(rename = "clientIP")]
        pub client_ip: Option<ClientIpConfig>,
    }
}

message! {
    /// How long a client address stays with its endpoint.
    pub struct ClientIpConfig {
        pub timeout_seconds: Option<i32>,
    }
}

/// A port by number or by name.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// By number.
    Int(i32),
    /// By the name the workload gives it.
    String(String),
}

impl<'de> Deserialize<'de> for IntOrString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Port;
        impl de::Visitor<'_> for Port {
            type Value = IntOrString;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the number or the name of a port")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<IntOrString, E> {
                number
                    .try_into()
                    .map(IntOrString::Int)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<IntOrString, E> {
                self.visit_i64(number.try_into().unwrap_or(i64::MAX))
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<IntOrString, E> {
                Ok(IntOrString::String(name.to_owned()))
            }
        }
        deserializer.deserialize_any(Port)
    }
}

impl Service {
    /// Whether the service has no address of its own and stands for its endpoints' addresses.
    pub fn is_headless(&self) -> bool {
        self.cluster_ip == "None"
    }
}

message! {
    /// A namespace; what matters of it is its name, labels and annotations.
    pub struct Namespace {
        pub finalizers: Vec<String>,
    }
}

/// Secret bytes by name. `stringData` has been merged into `data`, as Kubernetes does.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default, from = "SecretFields")]
pub struct Secret {
    /// What the secret is for, such as `kubernetes.io/tls`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub r#type: String,
    /// The bytes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, Bytes>,
    /// Whether it may change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub immutable: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct SecretFields {
    r#type: String,
    data: BTreeMap<String, Bytes>,
    string_data: BTreeMap<String, String>,
    immutable: Option<bool>,
}

impl From<SecretFields> for Secret {
    fn from(fields: SecretFields) -> Self {
        let mut data = fields.data;
        data.extend(fields.string_data.into_iter().map(|(name, text)| (name, text.into())));
        Secret { r#type: fields.r#type, data, immutable: fields.immutable }
    }
}

message! {
    /// Texts by name.
    pub struct ConfigMap {
        pub data: BTreeMap<String, String>,
        pub binary_data: BTreeMap<String, Bytes>,
        pub immutable: Option<bool>,
    }
}
