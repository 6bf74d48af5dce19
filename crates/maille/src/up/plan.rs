//! Which gateway proxies a mesh needs on this machine, and on which ports each of them listens.
//!
//! In a cluster every gateway has an address of its own. Here they share one: a port that two of them want, or that
//! only root may open, is moved, and the move is said.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use maille_api::networking::Gateway;
use maille_api::{Object, Spec};

/// How far a port is moved up.
const MOVE: u16 = 8000;

/// Where Istio's own gateways run.
const ISTIO_SYSTEM: &str = "istio-system";

/// One gateway proxy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Planned {
    /// Unique among the gateways of the mesh.
    pub(crate) name: String,
    /// The namespace it runs in.
    pub(crate) namespace: String,
    /// Its labels: the selector that asks for it.
    pub(crate) labels: BTreeMap<String, String>,
    /// What it serves, by the port as Gateways name it.
    pub(crate) ports: BTreeMap<u16, Port>,
}

/// One port of a gateway proxy.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Port {
    /// Where it listens instead, and why.
    pub(crate) moved: Option<(u16, Why)>,
    /// The protocol, as the first server names it.
    pub(crate) protocol: String,
    /// The hosts of every server on it.
    pub(crate) hosts: BTreeSet<String>,
}

/// Why a port was moved.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Why {
    /// Only root may open it.
    Privileged,
    /// Another gateway of this mesh has it.
    Taken,
}

impl Planned {
    /// The moved ports, as the control plane is told of them.
    pub(crate) fn port_map(&self) -> BTreeMap<u16, u16> {
        self.ports.iter().filter_map(|(port, at)| at.moved.map(|(moved, _)| (*port, moved))).collect()
    }
}

/// One proxy for each distinct selector, the oldest first.
///
/// `may_bind` says whether this process may open a port at all.
pub(crate) fn plan(objects: &[Arc<Object>], may_bind: impl Fn(u16) -> bool) -> Vec<Planned> {
    let mut gateways: Vec<(&Object, &Gateway)> = objects
        .iter()
        .filter_map(|object| match &object.spec {
            Spec::Gateway(gateway) => Some((&**object, gateway)),
            _ => None,
        })
        .collect();
    gateways.sort_by_key(|(object, _)| {
        let meta = &object.meta;
        (meta.creation_timestamp.unwrap_or(0), meta.name.clone(), meta.namespace.clone())
    });
    let mut planned: Vec<Planned> = Vec::new();
    for (object, gateway) in &gateways {
        // A Gateway without a selector is served by every gateway proxy there is.
        if gateway.selector.is_empty() || planned.iter().any(|p| p.labels == gateway.selector) {
            continue;
        }
        let (name, namespace) = identity(&gateway.selector, &object.meta.namespace);
        let name = unique(name, &namespace, &planned);
        planned.push(Planned { name, namespace, labels: gateway.selector.clone(), ports: BTreeMap::new() });
    }
    if planned.is_empty()
        && let Some((object, _)) = gateways.first()
    {
        let (name, namespace) = ("gateway".to_owned(), object.meta.namespace.clone());
        planned.push(Planned { name, namespace, labels: BTreeMap::new(), ports: BTreeMap::new() });
    }
    for proxy in &mut planned {
        for (_, gateway) in &gateways {
            if gateway.selector.iter().all(|(name, value)| proxy.labels.get(name) == Some(value)) {
                serve(proxy, gateway);
            }
        }
    }
    place(&mut planned, may_bind);
    planned
}

/// What the proxy of a selector is called and where it runs.
fn identity(selector: &BTreeMap<String, String>, oldest: &str) -> (String, String) {
    match selector.get("istio").map(String::as_str) {
        Some(istio @ ("ingressgateway" | "egressgateway")) if selector.len() == 1 => {
            (format!("istio-{istio}"), ISTIO_SYSTEM.to_owned())
        }
        Some("ingressgateway" | "egressgateway") => (joined(selector), ISTIO_SYSTEM.to_owned()),
        _ => (joined(selector), oldest.to_owned()),
    }
}

fn joined(selector: &BTreeMap<String, String>) -> String {
    let values: Vec<&str> = selector.values().map(String::as_str).filter(|value| !value.is_empty()).collect();
    if values.is_empty() { "gateway".to_owned() } else { values.join("-") }
}

fn unique(name: String, namespace: &str, planned: &[Planned]) -> String {
    let taken = |name: &str| planned.iter().any(|p| p.name == name && p.namespace == namespace);
    if !taken(&name) {
        return name;
    }
    (2..).map(|n| format!("{name}-{n}")).find(|name| !taken(name)).unwrap_or(name)
}

fn serve(proxy: &mut Planned, gateway: &Gateway) {
    for server in &gateway.servers {
        let Some(port) = &server.port else { continue };
        // Validation has refused what is no port.
        let Ok(number) = u16::try_from(port.number) else { continue };
        let served = proxy.ports.entry(number).or_default();
        if served.protocol.is_empty() {
            served.protocol.clone_from(&port.protocol);
        }
        served.hosts.extend(server.hosts.iter().cloned());
    }
}

/// Gives every port a place of its own. Ports that can stay stay, whoever else would be moved there.
fn place(planned: &mut [Planned], may_bind: impl Fn(u16) -> bool) {
    let mut taken = BTreeSet::new();
    let mut homeless = Vec::new();
    for (index, proxy) in planned.iter().enumerate() {
        for port in proxy.ports.keys() {
            if !may_bind(*port) {
                homeless.push((index, *port, Why::Privileged));
            } else if !taken.insert(*port) {
                homeless.push((index, *port, Why::Taken));
            }
        }
    }
    for (index, port, why) in homeless {
        let first = port.checked_add(MOVE).unwrap_or(port);
        let free =
            (first..=u16::MAX).chain(1024..first).find(|candidate| may_bind(*candidate) && !taken.contains(candidate));
        let Some(free) = free else { continue };
        taken.insert(free);
        if let Some(at) = planned[index].ports.get_mut(&port) {
            at.moved = Some((free, why));
        }
    }
}

#[cfg(test)]
mod tests;
