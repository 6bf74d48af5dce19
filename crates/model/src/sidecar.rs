//! What one sidecar may see: the services, routes and listeners its Sidecar resource leaves it.

mod build;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use maille_api::ObjectMeta;
use maille_api::networking::sidecar::{IstioEgressListener, IstioIngressListener, Sidecar};
use maille_api::networking::virtual_service::Destination;

use crate::service::Service;
use crate::virtual_service::VirtualService;

/// The world of one sidecar, or of a gateway (which sees everything exported to its namespace).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SidecarScope {
    /// The namespace of the proxies it is for.
    pub namespace: String,
    /// The Sidecar it comes from, if any.
    pub sidecar: Option<(ObjectMeta, Sidecar)>,
    /// At least one, in the order written; the last may be the one without a port.
    pub egress: Vec<EgressListener>,
    /// What happens to connections that nothing knows.
    pub outbound_policy: OutboundPolicy,
    pub(crate) services: Vec<Arc<Service>>,
    pub(crate) by_host: HashMap<String, Arc<Service>>,
}

/// What happens to connections to hosts that nobody declared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutboundPolicy {
    /// Whether they get through.
    pub mode: OutboundMode,
    /// Where they are sent instead of where they were going.
    pub egress_proxy: Option<Destination>,
}

/// Whether undeclared hosts can be reached, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OutboundMode {
    /// They cannot.
    RegistryOnly,
    /// At the address the client was going to.
    #[default]
    AllowAny,
    /// At the address the proxy finds for the name in the request.
    AllowAnyDynamicDns,
}

/// One egress listener, and what it imports.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EgressListener {
    /// As written; the default one has the host `*/*` and nothing else.
    pub listener: IstioEgressListener,
    /// Services of this listener: several may have the same host, with different addresses or ports.
    pub services: Vec<Arc<Service>>,
    /// Routes of this listener, the ones to be preferred first.
    pub virtual_services: Vec<Arc<VirtualService>>,
    /// For each imported service's host, the position in `virtual_services` of the one with the most specific host for it.
    pub most_specific: BTreeMap<String, usize>,
}

impl EgressListener {
    /// The number of its port; `None` for the listener that takes what no other does.
    pub fn port(&self) -> Option<u32> {
        self.listener.port.as_ref().map(|port| port.number)
    }

    /// The VirtualService whose host is the most specific for this service.
    pub fn virtual_service_for(&self, hostname: &str) -> Option<&Arc<VirtualService>> {
        self.most_specific.get(hostname).map(|index| &self.virtual_services[*index])
    }
}

impl SidecarScope {
    /// Every service imported, each host once: what clusters are made of.
    pub fn services(&self) -> &[Arc<Service>] {
        &self.services
    }

    /// The service of this host.
    pub fn service(&self, hostname: &str) -> Option<&Arc<Service>> {
        self.by_host.get(hostname)
    }

    /// Ingress listeners as written, if the Sidecar has any.
    pub fn ingress(&self) -> &[IstioIngressListener] {
        self.sidecar.as_ref().map_or(&[], |(_, sidecar)| &sidecar.ingress)
    }

    /// The egress listener that serves a route configuration: by port, by bind when the port is 0 (a unix socket), else the one without a port.
    pub fn egress_listener_for(&self, port: u32, bind: &str) -> Option<&EgressListener> {
        self.egress.iter().find(|egress| match egress.port() {
            None => true,
            Some(0) => port == 0 && egress.listener.bind == bind,
            Some(number) => number == port,
        })
    }
}
