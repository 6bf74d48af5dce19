//! How a proxy introduces itself: the xDS node, read.

use std::collections::BTreeMap;

use maille_model::{InterceptionMode, Locality, Proxy, ProxyKind, ProxyMetadata};
use maille_xds::types::core::Node;
use maille_xds::types::{Struct, Value, ValueKind};

/// Why a node is not a proxy we can serve. The fault is the proxy's bootstrap.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// The id does not have four parts.
    #[error(
        "the node id {0:?} is not TYPE~ADDRESS~NAME~DOMAIN, such as sidecar~10.0.0.1~reviews-1.shop~shop.svc.cluster.local: \
         check node.id in the proxy's bootstrap"
    )]
    Id(String),
    /// The type is not one we serve.
    #[error(
        "the node id {id:?} begins with {kind:?}, but only sidecar and router are served: check node.id in the proxy's bootstrap"
    )]
    Kind {
        /// The whole id.
        id: String,
        /// Its first part.
        kind: String,
    },
    /// Neither the metadata nor the domain names a namespace.
    #[error("the node {0:?} does not say its namespace: set NAMESPACE in node.metadata of the proxy's bootstrap")]
    Namespace(String),
    /// A piece of metadata cannot be read.
    #[error("node metadata {key} of {id:?} is not {expected}: check the proxy's bootstrap")]
    Metadata {
        /// The whole id.
        id: String,
        /// Which piece.
        key: &'static str,
        /// What it should be.
        expected: &'static str,
    },
}

/// The proxy that a node describes.
pub fn proxy_from_node(node: &Node) -> Result<Proxy, NodeError> {
    let parts: Vec<&str> = node.id.split('~').collect();
    let &[kind, address, name, domain] = parts.as_slice() else { return Err(NodeError::Id(node.id.clone())) };
    let kind = match kind {
        "sidecar" => ProxyKind::Sidecar,
        "router" => ProxyKind::Router,
        other => return Err(NodeError::Kind { id: node.id.clone(), kind: other.to_owned() }),
    };
    let metadata = Metadata { id: &node.id, values: node.metadata.as_ref() };
    let namespace = metadata.text("NAMESPACE");
    let config_namespace = match &namespace {
        Some(namespace) => namespace.clone(),
        // `shop.svc.cluster.local`: the namespace comes first.
        None => domain.split('.').next().filter(|first| !first.is_empty()).unwrap_or_default().to_owned(),
    };
    if config_namespace.is_empty() {
        return Err(NodeError::Namespace(node.id.clone()));
    }
    let locality = node.locality.as_ref().map(|locality| Locality {
        region: locality.region.clone(),
        zone: locality.zone.clone(),
        subzone: locality.sub_zone.clone(),
    });
    Ok(Proxy {
        kind,
        id: name.to_owned(),
        ip_addresses: addresses(address, metadata.text("INSTANCE_IPS")),
        namespace: config_namespace,
        service_account: metadata.text("SERVICE_ACCOUNT").unwrap_or_default(),
        labels: metadata.texts("LABELS")?,
        dns_domain: domain.to_owned(),
        locality: locality.unwrap_or_default(),
        network: metadata.text("NETWORK").unwrap_or_default(),
        cluster_id: metadata.text("CLUSTER_ID").unwrap_or_default(),
        metadata: ProxyMetadata {
            namespace,
            interception_mode: match metadata.text("INTERCEPTION_MODE").as_deref() {
                Some("NONE") => InterceptionMode::None,
                Some("TPROXY") => InterceptionMode::Tproxy,
                _ => InterceptionMode::Redirect,
            },
            http_proxy_port: metadata.port("HTTP_PROXY_PORT")?,
            http_proxy_address: metadata.text("HTTP_PROXY_ADDRESS"),
            app_ports: metadata.ports("APP_PORTS")?,
            workload_name: metadata.text("WORKLOAD_NAME").unwrap_or_default(),
            istio_version: metadata.text("ISTIO_VERSION").unwrap_or_default(),
            idle_timeout: metadata.text("IDLE_TIMEOUT"),
            requested_network_view: metadata.list("REQUESTED_NETWORK_VIEW"),
            pod_ports: metadata.pod_ports(),
            unprivileged: metadata.flag("UNPRIVILEGED_POD"),
            http10: metadata.flag("HTTP10"),
            dns_capture: metadata.flag("DNS_CAPTURE"),
            istio_filters: metadata.text("MAILLE").is_some(),
            bind_address: metadata.text("BIND_ADDRESS"),
            no_identity: metadata.text("IDENTITY").as_deref() == Some("none"),
            port_map: metadata.ports("PORT_MAP")?.unwrap_or_default(),
        },
    })
}

/// The address in the id is the one endpoints are compared with; the others come after it.
fn addresses(primary: &str, all: Option<String>) -> Vec<String> {
    let mut addresses: Vec<String> = Vec::new();
    let others = all.unwrap_or_default();
    for address in std::iter::once(primary).chain(others.split(',')).map(str::trim) {
        if !address.is_empty() && !addresses.iter().any(|known| known == address) {
            addresses.push(address.to_owned());
        }
    }
    addresses
}

struct Metadata<'a> {
    id: &'a str,
    values: Option<&'a Struct>,
}

impl Metadata<'_> {
    fn value(&self, key: &str) -> Option<&ValueKind> {
        self.values?.fields.get(key)?.kind.as_ref()
    }

    fn error(&self, key: &'static str, expected: &'static str) -> NodeError {
        NodeError::Metadata { id: self.id.to_owned(), key, expected }
    }

    fn text(&self, key: &str) -> Option<String> {
        self.value(key).and_then(as_text).filter(|text| !text.is_empty())
    }

    fn flag(&self, key: &str) -> bool {
        matches!(self.text(key).as_deref(), Some("true" | "1"))
    }

    /// A list, or a text with commas.
    fn list(&self, key: &str) -> Vec<String> {
        match self.value(key) {
            Some(ValueKind::ListValue(list)) => {
                list.values.iter().filter_map(|value| value.kind.as_ref().and_then(as_text)).collect()
            }
            Some(other) => {
                let text = as_text(other).unwrap_or_default();
                text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
            }
            None => Vec::new(),
        }
    }

    fn texts(&self, key: &'static str) -> Result<BTreeMap<String, String>, NodeError> {
        let text = |(name, value): (&String, &Value)| {
            let text = value.kind.as_ref().and_then(as_text);
            text.map(|text| (name.clone(), text)).ok_or_else(|| self.error(key, "a map of texts"))
        };
        match self.value(key) {
            None | Some(ValueKind::NullValue(_)) => Ok(BTreeMap::new()),
            Some(ValueKind::StructValue(map)) => map.fields.iter().map(text).collect(),
            Some(_) => Err(self.error(key, "a map of texts")),
        }
    }

    fn port(&self, key: &'static str) -> Result<Option<u16>, NodeError> {
        self.text(key).map(|text| text.parse().map_err(|_| self.error(key, "a port number"))).transpose()
    }

    fn ports(&self, key: &'static str) -> Result<Option<BTreeMap<u16, u16>>, NodeError> {
        if self.value(key).is_none() {
            return Ok(None);
        }
        let expected = "a map of port numbers to port numbers";
        let port = |text: &str| text.parse::<u16>().map_err(|_| self.error(key, expected));
        let texts = self.texts(key).map_err(|_| self.error(key, expected))?;
        texts.iter().map(|(from, to)| Ok((port(from)?, port(to)?))).collect::<Result<_, _>>().map(Some)
    }

    /// `[{"name": "http", "containerPort": 8080}]`, as text or as values.
    fn pod_ports(&self) -> BTreeMap<String, u16> {
        let mut ports = BTreeMap::new();
        let mut add = |name: Option<String>, number: Option<f64>| {
            if let (Some(name), Some(number)) = (name, number)
                && !name.is_empty()
                && (1.0..=65535.0).contains(&number)
            {
                ports.insert(name, number as u16);
            }
        };
        match self.value("POD_PORTS") {
            Some(ValueKind::StringValue(text)) => {
                let parsed: Vec<serde_json::Value> = serde_json::from_str(text).unwrap_or_default();
                for port in parsed {
                    add(port["name"].as_str().map(str::to_owned), port["containerPort"].as_f64());
                }
            }
            Some(ValueKind::ListValue(list)) => {
                for port in &list.values {
                    if let Some(ValueKind::StructValue(fields)) = &port.kind {
                        let field = |name: &str| fields.fields.get(name).and_then(|value| value.kind.as_ref());
                        let number = match field("containerPort") {
                            Some(ValueKind::NumberValue(number)) => Some(*number),
                            _ => None,
                        };
                        add(field("name").and_then(as_text), number);
                    }
                }
            }
            _ => {}
        }
        ports
    }
}

fn as_text(value: &ValueKind) -> Option<String> {
    match value {
        ValueKind::StringValue(text) => Some(text.clone()),
        ValueKind::BoolValue(value) => Some(value.to_string()),
        ValueKind::NumberValue(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
