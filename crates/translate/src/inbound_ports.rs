//! The ports on which a sidecar takes connections for its workload, and where it takes them.

use std::collections::BTreeMap;

use maille_api::networking::sidecar::IstioIngressListener;
use maille_model::snapshot::ServiceTarget;
use maille_model::{Address, Port, Protocol, TargetPort};

use crate::Context;
use maille_api::mesh::InboundTrafficPolicyMode;

/// One port of the workload, or one ingress listener of its Sidecar.
#[derive(Clone, Debug)]
pub(crate) struct InboundPort {
    /// The workload's port, or the listener's: what the cluster `inbound|PORT||` is named by.
    pub(crate) number: u32,
    /// As the service has it: its name and protocol.
    pub(crate) port: Port,
    /// The services behind it, oldest first; the first decides. None when a Sidecar names a port that no service has.
    pub(crate) targets: Vec<ServiceTarget>,
    /// Where connections go; `None` is wherever they were going.
    pub(crate) endpoint: Option<Address>,
    /// The listener of a Sidecar that it comes from.
    pub(crate) ingress: Option<IstioIngressListener>,
}

impl Context<'_> {
    /// Every inbound port, by number. A Sidecar with ingress listeners decides alone. Where nothing redirects
    /// connections into the proxy, only ports the workload maps elsewhere are served, since the proxy could not
    /// listen where the application does.
    pub(crate) fn inbound_ports(&self) -> Vec<InboundPort> {
        if !self.scope.ingress().is_empty() {
            return self.scope.ingress().iter().filter_map(|listener| self.ingress_port(listener)).collect();
        }
        if self.is_uncaptured() && self.proxy.metadata.app_ports.is_none() {
            return Vec::new();
        }
        let mut by_number: BTreeMap<u32, Vec<ServiceTarget>> = BTreeMap::new();
        for target in &self.targets {
            by_number.entry(target.target_port).or_default().push(target.clone());
        }
        let port = |(number, targets): (u32, Vec<ServiceTarget>)| {
            let port = targets.first()?.port.clone();
            Some(InboundPort { number, port, endpoint: self.workload_address(number), targets, ingress: None })
        };
        by_number.into_iter().filter_map(port).collect()
    }

    fn workload_address(&self, number: u32) -> Option<Address> {
        if let Some(app_ports) = &self.proxy.metadata.app_ports {
            let app_port = u16::try_from(number).ok().and_then(|number| app_ports.get(&number))?;
            return Some(Address::Ip("127.0.0.1".to_owned(), u32::from(*app_port)));
        }
        match self.mesh().inbound_traffic_policy.as_ref().map(|policy| policy.mode) {
            Some(InboundTrafficPolicyMode::Localhost) => Some(Address::Ip(self.loopback().to_owned(), number)),
            _ => None,
        }
    }

    fn ingress_port(&self, listener: &IstioIngressListener) -> Option<InboundPort> {
        let declared = listener.port.as_ref()?;
        let targets = self.targets.iter().filter(|target| target.target_port == declared.number).cloned().collect();
        let port = Port {
            name: declared.name.clone(),
            number: declared.number,
            protocol: Protocol::parse(&declared.protocol),
            target: TargetPort::Same,
        };
        let endpoint = self.default_endpoint(&listener.default_endpoint);
        Some(InboundPort { number: declared.number, port, targets, endpoint, ingress: Some(listener.clone()) })
    }

    /// `127.0.0.1:PORT` and `[::1]:PORT` are the workload, `0.0.0.0:PORT` and `[::]:PORT` the instance's own address.
    fn default_endpoint(&self, written: &str) -> Option<Address> {
        if let Some(path) = written.strip_prefix("unix://") {
            return Some(Address::Unix(path.to_owned()));
        }
        let (host, port) = written.rsplit_once(':')?;
        let port = port.parse().ok()?;
        let own = |is_family: fn(&str) -> bool, otherwise: &str| {
            let found = self.proxy.ip_addresses.iter().find(|ip| is_family(ip));
            found.cloned().unwrap_or_else(|| otherwise.to_owned())
        };
        let host = match host.trim_start_matches('[').trim_end_matches(']') {
            "0.0.0.0" => own(|ip| !ip.contains(':'), "127.0.0.1"),
            "::" => own(|ip| ip.contains(':'), "::1"),
            "127.0.0.1" if !self.proxy.supports_ipv4() => "::1".to_owned(),
            "::1" if !self.proxy.supports_ipv6() => "127.0.0.1".to_owned(),
            other => other.to_owned(),
        };
        Some(Address::Ip(host, port))
    }

    /// The loopback address of a family that the proxy has.
    pub(crate) fn loopback(&self) -> &'static str {
        if self.proxy.supports_ipv4() { "127.0.0.1" } else { "::1" }
    }
}
