//! The bootstrap: who this Envoy is and where its configuration comes from.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::door::NAME;
use crate::node::Node;
use crate::sds::{CERTIFICATE, ROOTS};

/// The cluster of the control plane, named as Istio names it.
const XDS: &str = "xds-grpc";

/// The cluster of the agent's secrets, named as Istio names it.
const SDS: &str = "sds-grpc";

/// Envoy's bootstrap as JSON. There is no secret in it: Envoy shows it to whoever may ask, so it proves who it is by its certificate.
pub fn bootstrap(node: &Node, control: SocketAddr, admin: &Path, sds: &Path) -> Value {
    json!({
        "node": node.to_json(),
        "admin": {"address": {"pipe": {"path": admin, "mode": 0o600}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": XDS}}],
            },
            "cds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
            "lds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
        },
        "static_resources": {"clusters": [{
            "name": XDS,
            "type": "STATIC",
            "connect_timeout": "1s",
            "transport_socket": mutual_tls(),
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

/// The way to the control plane: our certificate and its, as the agent has them.
fn mutual_tls() -> Value {
    let secret = |name: &str| {
        json!({"name": name, "sds_config": {
            "initial_fetch_timeout": "0s",
            "resource_api_version": "V3",
            "api_config_source": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": SDS}}],
            },
        }})
    };
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": NAME,
            "common_tls_context": {
                "alpn_protocols": ["h2"],
                "tls_certificate_sds_secret_configs": [secret(CERTIFICATE)],
                "combined_validation_context": {
                    "default_validation_context": {
                        "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": NAME}}],
                    },
                    "validation_context_sds_secret_config": secret(ROOTS),
                },
            },
        },
    })
}
