//! Headers a proxy adds or hides, from `defaultConfig.proxyHeaders`.

use maille_api::mesh::MeshConfig;
use maille_api::mesh::proxy_config::{ForwardClientCertDetails as Forward, SetCurrentClientCertDetails};
use maille_xds::types::hcm::http_connection_manager::{ForwardClientCertDetails, ServerHeaderTransformation};

/// What is done about them, defaults included.
#[derive(Clone, Debug)]
pub(crate) struct ProxyHeaders {
    pub(crate) server_name: String,
    pub(crate) server_transformation: ServerHeaderTransformation,
    pub(crate) forward_client_cert: ForwardClientCertDetails,
    pub(crate) current_client_cert: Option<SetCurrentClientCertDetails>,
    pub(crate) attempt_count: bool,
    pub(crate) suppress_envoy_headers: bool,
    pub(crate) generate_request_id: Option<bool>,
    pub(crate) x_forwarded_host: bool,
    pub(crate) x_forwarded_port: bool,
}

impl ProxyHeaders {
    /// Of gateways and inbound listeners.
    pub(crate) fn new(mesh: &MeshConfig) -> ProxyHeaders {
        let mut headers = ProxyHeaders {
            server_name: "istio-envoy".to_owned(),
            server_transformation: ServerHeaderTransformation::Overwrite,
            forward_client_cert: ForwardClientCertDetails::AppendForward,
            current_client_cert: None,
            attempt_count: true,
            suppress_envoy_headers: false,
            generate_request_id: None,
            x_forwarded_host: false,
            x_forwarded_port: false,
        };
        headers.apply(mesh);
        headers
    }

    /// Of a sidecar's outbound listeners, which name Envoy itself in `server`.
    pub(crate) fn outbound(mesh: &MeshConfig) -> ProxyHeaders {
        let mut headers = ProxyHeaders::new(mesh);
        let named = configured(mesh)
            .and_then(|headers| headers.server.as_ref())
            .is_some_and(|server| !server.value.is_empty() && server.disabled != Some(true));
        if !named {
            headers.server_name.clear();
        }
        headers
    }

    fn apply(&mut self, mesh: &MeshConfig) {
        let Some(configured) = configured(mesh) else { return };
        self.attempt_count = !is(configured.attempt_count.as_ref().and_then(|header| header.disabled));
        if configured.forwarded_client_cert != Forward::Undefined {
            self.forward_client_cert = forward_client_cert(configured.forwarded_client_cert);
        }
        if let Some(server) = &configured.server {
            if is(server.disabled) {
                self.server_name.clear();
                self.server_transformation = ServerHeaderTransformation::PassThrough;
            } else if !server.value.is_empty() {
                self.server_name.clone_from(&server.value);
            }
        }
        if is(configured.request_id.as_ref().and_then(|header| header.disabled)) {
            self.generate_request_id = Some(false);
        }
        self.suppress_envoy_headers = is(configured.envoy_debug_headers.as_ref().and_then(|header| header.disabled));
        self.x_forwarded_port = is(configured.x_forwarded_port.as_ref().and_then(|header| header.enabled));
        self.x_forwarded_host = is(configured.x_forwarded_host.as_ref().and_then(|header| header.enabled));
        self.current_client_cert.clone_from(&configured.set_current_client_cert_details);
    }
}

/// Envoy's word for what becomes of a client's certificate header.
pub(crate) fn forward_client_cert(details: Forward) -> ForwardClientCertDetails {
    match details {
        Forward::Undefined | Forward::Sanitize => ForwardClientCertDetails::Sanitize,
        Forward::ForwardOnly => ForwardClientCertDetails::ForwardOnly,
        Forward::AppendForward => ForwardClientCertDetails::AppendForward,
        Forward::SanitizeSet => ForwardClientCertDetails::SanitizeSet,
        Forward::AlwaysForwardOnly => ForwardClientCertDetails::AlwaysForwardOnly,
    }
}

fn configured(mesh: &MeshConfig) -> Option<&maille_api::mesh::proxy_config::ProxyHeaders> {
    mesh.default_config.as_ref()?.proxy_headers.as_ref()
}

fn is(value: Option<bool>) -> bool {
    value == Some(true)
}
