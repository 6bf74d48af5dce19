//! The bootstrap: who this Envoy is and where its configuration comes from.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::node::Node;

/// The cluster of the control plane, named as Istio names it.
const XDS: &str = "xds-grpc";

/// The cluster of the agent's secrets, named as Istio names it.
const SDS: &str = "sds-grpc";

/// Envoy's bootstrap as JSON. It contains the token.
pub fn bootstrap(node: &Node, control: SocketAddr, token: &str, admin: &Path, sds: &Path) -> Value {
    json!({
        "node": node.to_json(),
        "admin": {"address": {"pipe": {"path": admin, "mode": 0o600}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{
                    "envoy_grpc": {"cluster_name": XDS},
                    "initial_metadata": [{"key": "authorization", "value": format!("Bearer {token}")}],
                }],
            },
            "cds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
            "lds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
        },
        "static_resources": {"clusters": [{
            "name": XDS,
            "type": "STATIC",
            "connect_timeout": "1s",
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {
                        "connection_keepalive": {"interval": "30s", "timeout": "10s"},
                    }},
                },
            },
            "load_assignment": {"cluster_name": XDS, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {
                "socket_address": {"address": control.ip().to_string(), "port_value": control.port()},
            }}}]}]},
        }, {
            "name": SDS,
            "type": "STATIC",
            "connect_timeout": "1s",
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}},
                },
            },
            "load_assignment": {"cluster_name": SDS, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {
                "pipe": {"path": sds},
            }}}]}]},
        }]},
    })
}
