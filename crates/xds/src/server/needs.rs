//! What a resource makes its holder ask for next: a cluster its endpoints, a listener its routes.
//!
//! Decodes only the few fields it needs; protobuf skips the rest.

use std::sync::Arc;

use prost::Message;

use crate::Resource;

/// The name of the endpoints that the cluster wants over EDS.
pub(super) fn endpoints_of(cluster: &Resource) -> Option<Arc<str>> {
    let decoded = Cluster::decode(cluster.body.clone()).ok()?;
    if decoded.discovery_type != EDS {
        return None;
    }
    match decoded.eds_cluster_config {
        Some(config) if !config.service_name.is_empty() => Some(config.service_name.into()),
        _ => Some(cluster.name.clone()),
    }
}

/// The names of the route configurations that the listener wants over RDS.
pub(super) fn routes_of(listener: &Resource) -> Vec<Arc<str>> {
    let Ok(decoded) = Listener::decode(listener.body.clone()) else { return Vec::new() };
    decoded
        .filter_chains
        .into_iter()
        .chain(decoded.default_filter_chain)
        .flat_map(|chain| chain.filters)
        .filter_map(|filter| filter.typed_config)
        .filter(|config| config.type_url.ends_with(CONNECTION_MANAGER))
        .filter_map(|config| ConnectionManager::decode(config.value.as_slice()).ok()?.rds)
        .map(|rds| rds.route_config_name.into())
        .collect()
}

const EDS: i32 = 3;
const CONNECTION_MANAGER: &str = "/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

#[derive(Clone, PartialEq, Message)]
struct Cluster {
    // A cluster with a custom `cluster_type` (tag 38) leaves this at zero, STATIC.
    #[prost(int32, tag = "2")]
    discovery_type: i32,
    #[prost(message, optional, tag = "3")]
    eds_cluster_config: Option<EdsClusterConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct EdsClusterConfig {
    #[prost(string, tag = "2")]
    service_name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Listener {
    #[prost(message, repeated, tag = "3")]
    filter_chains: Vec<FilterChain>,
    #[prost(message, optional, tag = "25")]
    default_filter_chain: Option<FilterChain>,
}

#[derive(Clone, PartialEq, Message)]
struct FilterChain {
    #[prost(message, repeated, tag = "3")]
    filters: Vec<Filter>,
}

#[derive(Clone, PartialEq, Message)]
struct Filter {
    #[prost(message, optional, tag = "4")]
    typed_config: Option<crate::types::Any>,
}

#[derive(Clone, PartialEq, Message)]
struct ConnectionManager {
    #[prost(message, optional, tag = "3")]
    rds: Option<Rds>,
}

#[derive(Clone, PartialEq, Message)]
struct Rds {
    #[prost(string, tag = "2")]
    route_config_name: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{any, cluster, hcm, listener};

    #[test]
    fn clusters_name_their_endpoints() {
        let eds = |service_name: &str| cluster::Cluster {
            name: "c".into(),
            cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::Type(
                cluster::cluster::DiscoveryType::Eds.into(),
            )),
            eds_cluster_config: Some(cluster::cluster::EdsClusterConfig {
                service_name: service_name.into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let static_ = cluster::Cluster { name: "c".into(), ..Default::default() };
        for (cluster, expected) in [(eds(""), Some("c")), (eds("other"), Some("other")), (static_, None)] {
            assert_eq!(endpoints_of(&Resource::encode("c", &cluster)).as_deref(), expected);
        }
    }

    #[test]
    fn listeners_name_their_routes() {
        let chain = |route: &str| listener::FilterChain {
            filters: vec![
                listener::Filter { name: "other".into(), ..Default::default() },
                listener::Filter {
                    name: "hcm".into(),
                    config_type: Some(listener::filter::ConfigType::TypedConfig(any(&hcm::HttpConnectionManager {
                        route_specifier: Some(hcm::http_connection_manager::RouteSpecifier::Rds(hcm::Rds {
                            route_config_name: route.into(),
                            ..Default::default()
                        })),
                        ..Default::default()
                    }))),
                },
            ],
            ..Default::default()
        };
        let listener = listener::Listener {
            filter_chains: vec![chain("http.80"), chain("http.81")],
            default_filter_chain: Some(chain("else")),
            ..Default::default()
        };
        let names = routes_of(&Resource::encode("l", &listener));
        assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), ["http.80", "http.81", "else"]);
    }
}
