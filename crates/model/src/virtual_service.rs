//! VirtualServices with every host and gateway spelled out, ready to be bound to a listener.

mod delegate;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use maille_api::networking::virtual_service::{self as api, Destination};
use maille_api::{Kind, ObjectMeta};

use crate::host::resolve_short_name;
use crate::visibility::ExportTo;
use crate::warning::{Warning, key};

/// The gateway name that stands for every sidecar.
pub const MESH_GATEWAY: &str = "mesh";

/// One VirtualService after resolution: hosts and destinations are full names, gateways are `mesh` or `namespace/name`
/// (never empty), and delegates are merged into the routes that named them.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualService {
    /// Whose it is.
    pub meta: ObjectMeta,
    /// What it says.
    pub spec: api::VirtualService,
    /// Who may use it.
    pub export_to: ExportTo,
}

impl VirtualService {
    /// Every destination's host and its ports, where 0 is "whichever the service has", as far as clients in `namespace`
    /// can get there (`None`: any client).
    pub fn destinations(&self, namespace: Option<&str>) -> BTreeMap<&str, BTreeSet<u32>> {
        let mut found: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
        for destination in self.destinations_from(namespace) {
            let port = destination.port.as_ref().map_or(0, |port| port.number);
            found.entry(&destination.host).or_default().insert(port);
        }
        found
    }

    /// Every destination, mirrors included.
    pub(crate) fn all_destinations(&self) -> impl Iterator<Item = &Destination> {
        self.destinations_from(None)
    }

    fn destinations_from<'a, 'n>(
        &'a self,
        namespace: Option<&'n str>,
    ) -> impl Iterator<Item = &'a Destination> + use<'a, 'n> {
        let http = self.spec.http.iter().filter(move |route| reachable_from(route, namespace));
        let tcp = self.spec.tcp.iter().flat_map(|route| &route.route).filter_map(|to| to.destination.as_ref());
        let tls = self.spec.tls.iter().flat_map(|route| &route.route).filter_map(|to| to.destination.as_ref());
        http.flat_map(http_destinations).chain(tcp).chain(tls)
    }
}

fn reachable_from(route: &api::HttpRoute, namespace: Option<&str>) -> bool {
    let Some(namespace) = namespace else { return true };
    let mut sources = route.r#match.iter().map(|m| m.source_namespace.as_str()).filter(|source| !source.is_empty());
    match sources.next() {
        None => true,
        Some(first) => first == namespace || sources.any(|source| source == namespace),
    }
}

fn http_destinations(route: &api::HttpRoute) -> impl Iterator<Item = &Destination> {
    let routes = route.route.iter().filter_map(|to| to.destination.as_ref());
    let mirrors = route.mirrors.iter().filter_map(|mirror| mirror.destination.as_ref());
    routes.chain(&route.mirror).chain(mirrors)
}

/// Resolves every VirtualService; they come oldest first and stay so.
pub(crate) fn resolve(
    sources: &[(&ObjectMeta, &api::VirtualService)],
    domain: &str,
    default_export: &ExportTo,
    warnings: &mut Vec<Warning>,
) -> Vec<Arc<VirtualService>> {
    let mut roots = Vec::new();
    let mut delegates = BTreeMap::new();
    for (meta, spec) in sources {
        let resolved = VirtualService {
            meta: (*meta).clone(),
            spec: resolve_names(spec, &meta.namespace, domain),
            export_to: ExportTo::new(spec.export_to.iter().map(String::as_str), &meta.namespace, default_export),
        };
        if spec.hosts.is_empty() {
            delegates.insert((meta.namespace.as_str(), meta.name.as_str()), resolved);
        } else {
            roots.push(resolved);
        }
    }
    for root in &mut roots {
        delegate::merge(root, &delegates, warnings);
    }
    warn_of_shared_hosts(&roots, warnings);
    roots.into_iter().map(Arc::new).collect()
}

/// In the mesh only the first VirtualService of a host is served, so a second one is worth a word.
fn warn_of_shared_hosts(roots: &[VirtualService], warnings: &mut Vec<Warning>) {
    let mut owners: BTreeMap<(&str, &str), Vec<&VirtualService>> = BTreeMap::new();
    for root in roots.iter().filter(|root| root.spec.gateways.iter().any(|gateway| gateway == MESH_GATEWAY)) {
        for host in &root.spec.hosts {
            let known = owners.entry((&root.meta.namespace, host)).or_default();
            // One that fewer can see comes first for those who can, so only equals are in each other's way.
            let owner = known.iter().find(|other| other.export_to == root.export_to).map(|other| &other.meta);
            known.push(root);
            if let Some(owner) = owner {
                warnings.push(Warning {
                    key: key(Kind::VirtualService, &root.meta),
                    message: format!(
                        "host {host} is already routed by the older VirtualService {}/{}: sidecars follow that one only",
                        owner.namespace, owner.name
                    ),
                });
            }
        }
    }
}

fn resolve_names(spec: &api::VirtualService, namespace: &str, domain: &str) -> api::VirtualService {
    let mut spec = spec.clone();
    let host = |host: &mut String| *host = resolve_short_name(host, namespace, domain);
    let gateways = |names: &mut Vec<String>| {
        for name in names {
            *name = resolve_gateway(name, namespace);
        }
    };
    spec.hosts.iter_mut().for_each(host);
    if spec.gateways.is_empty() {
        spec.gateways.push(MESH_GATEWAY.to_owned());
    }
    gateways(&mut spec.gateways);
    let destination = |to: &mut Option<Destination>| {
        if let Some(to) = to {
            host(&mut to.host);
        }
    };
    for route in &mut spec.http {
        route.r#match.iter_mut().for_each(|m| gateways(&mut m.gateways));
        route.route.iter_mut().for_each(|to| destination(&mut to.destination));
        destination(&mut route.mirror);
        route.mirrors.iter_mut().for_each(|mirror| destination(&mut mirror.destination));
    }
    for route in &mut spec.tcp {
        route.r#match.iter_mut().for_each(|m| gateways(&mut m.gateways));
        route.route.iter_mut().for_each(|to| destination(&mut to.destination));
    }
    for route in &mut spec.tls {
        route.r#match.iter_mut().for_each(|m| gateways(&mut m.gateways));
        route.route.iter_mut().for_each(|to| destination(&mut to.destination));
    }
    spec
}

/// `namespace/name` of a gateway as a VirtualService in `namespace` may write it: short, `./name`, or as a service's host.
fn resolve_gateway(name: &str, namespace: &str) -> String {
    if name == MESH_GATEWAY {
        return name.to_owned();
    }
    match name.split_once('/') {
        Some((".", rest)) => format!("{namespace}/{rest}"),
        Some(_) => name.to_owned(),
        None => match name.split_once('.') {
            Some((short, rest)) => format!("{}/{short}", rest.split('.').next().unwrap_or(rest)),
            None => format!("{namespace}/{name}"),
        },
    }
}
