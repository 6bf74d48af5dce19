//! A proxy as it introduced itself: who it is, where it runs, what it asks for.

use std::collections::BTreeMap;

use crate::endpoint::Locality;

/// What a proxy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyKind {
    /// A gateway.
    Router,
    /// The proxy beside a workload.
    Sidecar,
}

/// How connections get into the sidecar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum InterceptionMode {
    /// Redirected by the kernel; the original destination is asked of the socket.
    #[default]
    Redirect,
    /// Redirected with addresses kept.
    Tproxy,
    /// Not at all: clients connect to the proxy's own listeners.
    None,
}

/// One connected proxy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proxy {
    /// Gateway or sidecar.
    pub kind: ProxyKind,
    /// The node's own name, usually `workload.namespace`.
    pub id: String,
    /// Its addresses, the first one being how endpoints know it.
    pub ip_addresses: Vec<String>,
    /// The namespace whose configuration it follows.
    pub namespace: String,
    /// The service account it runs under.
    pub service_account: String,
    /// The labels of its workload.
    pub labels: BTreeMap<String, String>,
    /// The suffix short names are completed with, such as `default.svc.cluster.local`.
    pub dns_domain: String,
    /// Where it runs.
    pub locality: Locality,
    /// The network it is on; empty is unspecified.
    pub network: String,
    /// The cluster it belongs to; empty is unspecified.
    pub cluster_id: String,
    /// The rest of what it said.
    pub metadata: ProxyMetadata,
}

impl Proxy {
    /// The primary address, or the unspecified one.
    pub fn address(&self) -> &str {
        self.ip_addresses.first().map_or("0.0.0.0", String::as_str)
    }

    /// Whether this is a gateway.
    pub fn is_router(&self) -> bool {
        self.kind == ProxyKind::Router
    }

    /// Whether any of its addresses is IPv4 (true when it has none).
    pub fn supports_ipv4(&self) -> bool {
        self.ip_addresses.is_empty() || self.ip_addresses.iter().any(|ip| !ip.contains(':'))
    }

    /// Whether any of its addresses is IPv6.
    pub fn supports_ipv6(&self) -> bool {
        self.ip_addresses.iter().any(|ip| ip.contains(':'))
    }
}

/// Node metadata that changes what a proxy is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ProxyMetadata {
    /// `NAMESPACE`; absent means service instances of any namespace may be its own.
    pub namespace: Option<String>,
    /// `INTERCEPTION_MODE`.
    pub interception_mode: InterceptionMode,
    /// `HTTP_PROXY_PORT`: where a forward-proxy listener is wanted.
    pub http_proxy_port: Option<u16>,
    /// Where that port is, instead of the address that others know.
    pub http_proxy_address: Option<String>,
    /// `APP_PORTS`: service target port to the application's own port on 127.0.0.1. When present, other ports are not served.
    pub app_ports: Option<BTreeMap<u16, u16>>,
    /// `WORKLOAD_NAME`.
    pub workload_name: String,
    /// `ISTIO_VERSION`.
    pub istio_version: String,
    /// `IDLE_TIMEOUT`, as written.
    pub idle_timeout: Option<String>,
    /// `REQUESTED_NETWORK_VIEW`; empty means every network.
    pub requested_network_view: Vec<String>,
    /// `POD_PORTS`: named container ports.
    pub pod_ports: BTreeMap<String, u16>,
    /// `UNPRIVILEGED_POD`: ports below 1024 cannot be bound.
    pub unprivileged: bool,
    /// `HTTP10`: HTTP/1.0 is accepted.
    pub http10: bool,
    /// `DNS_CAPTURE`: names are resolved by the proxy's own agent.
    pub dns_capture: bool,
    /// `MAILLE`: the proxy is ours, and has Istio's own filters; a stock Envoy would refuse them.
    pub istio_filters: bool,
    /// `BIND_ADDRESS`: the address a gateway listens on where Istio says every address.
    pub bind_address: Option<String>,
    /// `IDENTITY: none`: its agent has no certificate for it, so that mutual TLS can be neither taken nor spoken.
    pub no_identity: bool,
    /// `PORT_MAP`: ports a gateway binds elsewhere, such as 80 on 8080; names and routes keep the number written.
    pub port_map: BTreeMap<u16, u16>,
}
