//! The Gateways that apply to one gateway proxy, merged into the ports it has to open.

pub(crate) mod merge;

use std::collections::BTreeMap;
use std::sync::Arc;

use maille_api::networking::gateway::{Server, ServerTlsMode};

use crate::protocol::Protocol;

/// Every server of every Gateway that selects a proxy, by the port and address they share.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MergedGateway {
    /// The listeners to open, in the order their first servers were met.
    pub ports: Vec<MergedPort>,
    /// HTTP and HTTPS servers by the name of the route configuration that serves them.
    pub servers_by_route: BTreeMap<String, Vec<Arc<MergedServer>>>,
    /// For each port listened on, the server ports that were translated to it.
    pub port_map: BTreeMap<u32, Vec<u32>>,
    /// `namespace/name` of every Gateway involved.
    pub gateways: Vec<String>,
}

/// A port, an address and a protocol, with the servers there.
#[derive(Clone, Debug, PartialEq)]
pub struct MergedPort {
    /// The port to listen on, after translation to a target port.
    pub number: u32,
    /// Of the first server; plaintext HTTP protocols share one.
    pub protocol: Protocol,
    /// The address to listen on; empty is every address.
    pub bind: String,
    /// The route configuration of plaintext HTTP servers (`http.80`); TLS servers have one each.
    pub route_name: String,
    /// The servers, oldest Gateway first.
    pub servers: Vec<Arc<MergedServer>>,
}

/// One server of one Gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct MergedServer {
    /// `namespace/name` of the Gateway.
    pub gateway: String,
    /// Its hosts have the form `host` or `namespace/host`.
    pub server: Server,
    /// Of the server's own port.
    pub protocol: Protocol,
    /// The route configuration it is served by; empty when it forwards streams.
    pub route_name: String,
    /// Server names that choose it, sorted; only of servers with TLS settings.
    pub sni_hosts: Vec<String>,
}

impl MergedGateway {
    /// Whether any server lets TLS through to services by name, which needs clusters of its own.
    pub fn has_auto_passthrough(&self) -> bool {
        merge::has_auto_passthrough(self)
    }
}

impl MergedServer {
    /// The number on the Gateway, before translation.
    pub fn port_number(&self) -> u32 {
        self.server.port.as_ref().map_or(0, |port| port.number)
    }

    /// HTTP, or HTTPS that is terminated here.
    pub fn is_http(&self) -> bool {
        self.protocol.is_http() || (self.protocol.is_https() && !self.is_passthrough())
    }

    /// Has TLS settings on a port that is not plain HTTP.
    pub fn is_tls(&self) -> bool {
        self.server.tls.is_some() && !self.protocol.is_http()
    }

    /// TLS goes through unopened.
    pub fn is_passthrough(&self) -> bool {
        let passes = |mode| matches!(mode, ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough);
        self.server.tls.as_ref().is_some_and(|tls| passes(tls.mode))
    }
}
