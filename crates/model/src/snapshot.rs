//! The whole mesh at one moment, built at once from a list of objects and never changed.

mod registry;
mod targets;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use maille_api::core::Secret;
use maille_api::mesh::MeshConfig;
use maille_api::networking::{DestinationRule, Gateway, Sidecar};
use maille_api::security::{PeerAuthentication, RequestAuthentication};
use maille_api::{Object, ObjectMeta, Spec};

use crate::destination_rule::{RuleIndex, is_subset};
use crate::gateway::merge::{self, Selected};
use crate::namespaces::Namespaces;
use crate::policy::{self, Policies, Policy};
use crate::{
    Authorization, Endpoint, ExportTo, KeySets, MergedGateway, MergedRule, MutualTls, PeerMode, Port, Proxy, Service,
    SidecarScope, VirtualService, Warning,
};
use crate::{references, virtual_service};
use registry::Registry;

/// What a build is told beside the objects.
#[derive(Clone, Debug)]
pub struct Options {
    /// The domain of Kubernetes services: `cluster.local`.
    pub cluster_domain: String,
    /// The domain that completes short names in routes; usually the same.
    pub short_name_domain: String,
    /// Keys of issuers, as far as they could be fetched.
    pub key_sets: Arc<KeySets>,
}

impl Default for Options {
    fn default() -> Self {
        let domain = || "cluster.local".to_owned();
        Options { cluster_domain: domain(), short_name_domain: domain(), key_sets: Arc::default() }
    }
}

/// One port of one service that a proxy itself serves.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceTarget {
    /// The service.
    pub service: Arc<Service>,
    /// The service's port.
    pub port: Port,
    /// The port on the workload.
    pub target_port: u32,
}

/// The mesh. Cheap to share behind an `Arc`; what one proxy sees of it is computed when first asked for, and kept.
#[derive(Debug)]
pub struct Snapshot {
    mesh: MeshConfig,
    options: Options,
    registry: Registry,
    virtual_services: BTreeMap<String, Vec<Arc<VirtualService>>>,
    rules: RuleIndex,
    gateways: Vec<(ObjectMeta, Gateway)>,
    /// By namespace, those with a selector first.
    sidecars: BTreeMap<String, Vec<Arc<(ObjectMeta, Sidecar)>>>,
    secrets: BTreeMap<(String, String), Secret>,
    policies: Policies,
    warnings: Vec<Warning>,
    scopes: Mutex<HashMap<ScopeKey, Arc<SidecarScope>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum ScopeKey {
    Gateway { namespace: String },
    Sidecar { namespace: String, sidecar: Option<(String, String)> },
}

impl Snapshot {
    /// Builds the mesh that these objects describe, in whatever order they come.
    pub fn build(objects: &[Arc<Object>], mesh: &MeshConfig) -> Snapshot {
        Snapshot::build_with(objects, mesh, Options::default())
    }

    /// Builds with options of its own.
    pub fn build_with(objects: &[Arc<Object>], mesh: &MeshConfig, options: Options) -> Snapshot {
        let mut sorted: Vec<&Object> = objects.iter().map(Arc::as_ref).collect();
        // Time has a resolution of a second, so names decide often.
        sorted.sort_by_key(|object| {
            let meta = &object.meta;
            (meta.creation_timestamp.unwrap_or_default(), &meta.name, &meta.namespace, object.kind())
        });
        let namespaces = Namespaces::new(&sorted, mesh);
        sorted.retain(|object| object.meta.namespace.is_empty() || namespaces.is_discovered(&object.meta.namespace));
        let mut warnings = Vec::new();
        let mut routes = Vec::new();
        let mut rules: Vec<(&ObjectMeta, &DestinationRule)> = Vec::new();
        let mut gateways = Vec::new();
        let mut sidecars: BTreeMap<String, Vec<Arc<(ObjectMeta, Sidecar)>>> = BTreeMap::new();
        let mut secrets = BTreeMap::new();
        for object in &sorted {
            match &object.spec {
                Spec::VirtualService(spec) => routes.push((&object.meta, spec)),
                Spec::DestinationRule(spec) => rules.push((&object.meta, spec)),
                Spec::Gateway(spec) => gateways.push((object.meta.clone(), spec.clone())),
                Spec::Sidecar(spec) => {
                    let of_namespace = sidecars.entry(object.meta.namespace.clone()).or_default();
                    of_namespace.push(Arc::new((object.meta.clone(), spec.clone())));
                }
                Spec::Secret(secret) => {
                    let meta = &object.meta;
                    secrets.insert((meta.namespace.clone(), meta.name.clone()), secret.clone());
                }
                _ => {}
            }
        }
        for of_namespace in sidecars.values_mut() {
            of_namespace.sort_by_key(|sidecar| sidecar.1.workload_selector.is_none());
            warn_of_idle_sidecars(of_namespace, &mut warnings);
        }
        let route_export = ExportTo::mesh_default(&mesh.default_virtual_service_export_to);
        let resolved = virtual_service::resolve(&routes, &options.short_name_domain, &route_export, &mut warnings);
        let private_rules = mesh.default_destination_rule_export_to.iter().any(|export| export == ".");
        let rules =
            RuleIndex::new(&rules, &options.short_name_domain, &mesh.root_namespace, private_rules, &mut warnings);
        let registry = Registry::new(&sorted, mesh, &options, &namespaces, &mut warnings);
        let mut snapshot = Snapshot {
            mesh: mesh.clone(),
            options,
            registry,
            virtual_services: by_gateway(&resolved),
            rules,
            gateways,
            sidecars,
            secrets,
            policies: Policies::new(&sorted, &mesh.root_namespace),
            warnings,
            scopes: Mutex::default(),
        };
        let more = references::check(&snapshot).into_iter().chain(snapshot.gateway_conflicts());
        let more: Vec<Warning> = more.chain(policy::check(&snapshot, &snapshot.policies)).collect();
        snapshot.warnings.extend(more);
        snapshot.warnings.sort();
        snapshot.warnings.dedup();
        snapshot
    }

    /// Settings of the whole mesh.
    pub fn mesh(&self) -> &MeshConfig {
        &self.mesh
    }

    /// What the build was told beside the objects.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// What was accepted but does not do what its author may think.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Every service, oldest first.
    pub fn services(&self) -> &[Arc<Service>] {
        &self.registry.services
    }

    /// Services a client in this namespace may see: those exported to it by name, then public ones, each oldest first.
    pub fn services_visible_to(&self, namespace: &str) -> impl Iterator<Item = &Arc<Service>> {
        let public = |service: &&Arc<Service>| service.export_to == ExportTo::All;
        let services = self.services();
        let to_it = services.iter().filter(move |s| !public(s) && s.export_to.visible_to(namespace));
        to_it.chain(services.iter().filter(public))
    }

    /// The service a destination's host means to a client in this namespace: its own namespace's, else Kubernetes',
    /// else the oldest that it can see.
    pub fn destination_service(&self, host: &str, namespace: &str) -> Option<&Arc<Service>> {
        let by_namespace = self.registry.by_host.get(host)?;
        by_namespace.get(namespace).or_else(|| {
            let visible = by_namespace.values().filter(|service| service.export_to.visible_to(namespace));
            visible.min_by_key(|service| (!service.is_kubernetes(), service.creation_time, &service.namespace))
        })
    }

    /// Who serves a port of a service.
    pub fn endpoints(&self, service: &Service, port: u32) -> &[Endpoint] {
        self.registry.endpoints(service, port)
    }

    /// The service ports that the proxy itself serves, oldest service first.
    pub fn service_targets(&self, proxy: &Proxy) -> Vec<ServiceTarget> {
        self.registry.targets(proxy)
    }

    /// Every Gateway, oldest first.
    pub fn gateways(&self) -> &[(ObjectMeta, Gateway)] {
        &self.gateways
    }

    /// What has to be left out on a gateway whose labels are exactly a Gateway's selector.
    fn gateway_conflicts(&self) -> Vec<Warning> {
        let selectors: BTreeSet<&BTreeMap<String, String>> = self.gateways.iter().map(|(_, g)| &g.selector).collect();
        let mut warnings = Vec::new();
        for labels in selectors {
            let applies = self.gateways.iter().filter(|(_, gateway)| is_subset(&gateway.selector, labels));
            let selected: Vec<Selected<'_>> = applies
                .map(|(meta, gateway)| Selected { meta, gateway, by_service: false, targets: Vec::new() })
                .collect();
            merge::merge(&selected, &mut warnings);
        }
        warnings
    }

    /// Every VirtualService bound to any gateway, once.
    pub(crate) fn virtual_services(&self) -> impl Iterator<Item = &VirtualService> {
        let bound = self.virtual_services.iter().flat_map(|(gateway, routes)| routes.iter().map(move |r| (gateway, r)));
        bound.filter(|(gateway, route)| route.spec.gateways.first() == Some(gateway)).map(|(_, route)| route.as_ref())
    }

    pub(crate) fn has_host(&self, host: &str) -> bool {
        self.registry.by_host.contains_key(host)
    }

    pub(crate) fn rules(&self) -> &RuleIndex {
        &self.rules
    }

    /// A Secret.
    pub fn secret(&self, namespace: &str, name: &str) -> Option<&Secret> {
        self.secrets.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// The Gateways that apply to a gateway proxy, merged; `None` when there are none.
    pub fn merged_gateway(&self, proxy: &Proxy) -> Option<MergedGateway> {
        self.merge_gateways(proxy).map(|(gateway, _)| gateway)
    }

    /// What had to be left out of a gateway proxy's merged Gateways.
    pub fn gateway_warnings(&self, proxy: &Proxy) -> Vec<Warning> {
        self.merge_gateways(proxy).map(|(_, warnings)| warnings).unwrap_or_default()
    }

    fn merge_gateways(&self, proxy: &Proxy) -> Option<(MergedGateway, Vec<Warning>)> {
        let targets = self.service_targets(proxy);
        let selected: Vec<Selected<'_>> = self
            .gateways
            .iter()
            .filter_map(|(meta, gateway)| targets::select(meta, gateway, proxy, &targets))
            .collect();
        if selected.is_empty() {
            return None;
        }
        let mut warnings = Vec::new();
        let merged = merge::merge(&selected, &mut warnings);
        Some((merged, warnings))
    }

    /// VirtualServices bound to a gateway (`namespace/name`, or `mesh`) that a proxy in this namespace may use: those
    /// private to it, those exported to it, then public ones.
    pub fn virtual_services_for_gateway(&self, gateway: &str, namespace: &str) -> Vec<Arc<VirtualService>> {
        let Some(bound) = self.virtual_services.get(gateway) else { return Vec::new() };
        let rank = |route: &Arc<VirtualService>| match &route.export_to {
            ExportTo::All => Some(2),
            export if !export.visible_to(namespace) => None,
            _ if route.meta.namespace == namespace => Some(0),
            _ => Some(1),
        };
        (0..3).flat_map(|group| bound.iter().filter(move |route| rank(route) == Some(group))).cloned().collect()
    }

    /// The DestinationRule that this proxy follows when it calls a service.
    pub fn destination_rule(&self, proxy: &Proxy, service: &Service) -> Option<Arc<MergedRule>> {
        self.rules.find(&proxy.namespace, Some(&proxy.labels), service)
    }

    /// The DestinationRule that the proxy of a service itself follows for connections coming in; rules for some client
    /// workloads do not count there.
    pub fn inbound_destination_rule(&self, proxy: &Proxy, service: &Service) -> Option<Arc<MergedRule>> {
        self.rules.find(&proxy.namespace, None, service)
    }

    /// Which connections a workload takes.
    pub fn peer_mode(&self, namespace: &str, labels: &BTreeMap<String, String>) -> PeerMode {
        self.policies.peer_mode(namespace, labels)
    }

    /// The policy that settles which connections one port of a workload takes; without any, they are taken with mutual TLS and without.
    pub fn peer_decider(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
        port: u32,
    ) -> Option<&Arc<Policy<PeerAuthentication>>> {
        self.policies.peer_decider(namespace, labels, port)
    }

    /// What a namespace, or the mesh, says about connections to its workloads as a whole; `None` when nobody does.
    pub fn namespace_mutual_tls(&self, namespace: &str) -> Option<MutualTls> {
        self.policies.namespace_mode(namespace)
    }

    /// Whose tokens a proxy's workload believes.
    pub fn request_authentications(&self, proxy: &Proxy) -> Vec<Arc<Policy<RequestAuthentication>>> {
        self.policies.request_authentications(&proxy.namespace, &proxy.labels)
    }

    /// The AuthorizationPolicies that a proxy's workload is under.
    pub fn authorization(&self, proxy: &Proxy) -> Authorization {
        self.policies.authorization(&proxy.namespace, &proxy.labels)
    }

    /// Keys of issuers that were fetched.
    pub fn key_sets(&self) -> &KeySets {
        &self.options.key_sets
    }

    /// Every RequestAuthentication there is.
    pub fn all_request_authentications(&self) -> impl Iterator<Item = &Arc<Policy<RequestAuthentication>>> {
        self.policies.all_request_authentications()
    }

    /// What a server of this service may call itself: the accounts behind it, in every trust domain of ours, and the
    /// names that its ServiceEntry lists.
    pub fn service_accounts(&self, service: &Service) -> Vec<String> {
        let mut names: BTreeSet<String> = service.subject_alt_names.iter().cloned().collect();
        let ports = service.ports.iter();
        for endpoint in ports.flat_map(|port| self.endpoints(service, port.number)) {
            if endpoint.service_account.is_empty() {
                continue;
            }
            let domains = std::iter::once(&self.mesh.trust_domain).chain(&self.mesh.trust_domain_aliases);
            names.extend(
                domains.map(|domain| {
                    format!("spiffe://{domain}/ns/{}/sa/{}", endpoint.namespace, endpoint.service_account)
                }),
            );
        }
        names.into_iter().collect()
    }

    /// The service that a provider of the mesh's settings is at, `HOST` or `NAMESPACE/HOST`, if there is exactly one.
    pub fn provider_service(&self, name: &str) -> Option<&Arc<Service>> {
        let (namespace, host) = name.split_once('/').map_or((None, name), |(namespace, host)| (Some(namespace), host));
        let by_namespace = self.registry.by_host.get(host)?;
        match namespace {
            Some(namespace) => by_namespace.get(namespace),
            None if by_namespace.len() == 1 => by_namespace.values().next(),
            None => None,
        }
    }

    pub(crate) fn sidecars(&self) -> impl Iterator<Item = &(ObjectMeta, Sidecar)> {
        self.sidecars.values().flatten().map(Arc::as_ref)
    }

    /// Namespace, address and labels of everything that was declared as a workload of its own.
    pub(crate) fn workloads(&self) -> impl Iterator<Item = (&str, &str, &BTreeMap<String, String>)> {
        let all = self.registry.workloads.values().flatten();
        all.map(|workload| (workload.namespace.as_str(), workload.address.as_str(), &workload.labels))
    }

    /// What a proxy may see. Proxies of one namespace under the same Sidecar share it.
    pub fn scope(&self, proxy: &Proxy) -> Arc<SidecarScope> {
        let namespace = proxy.namespace.clone();
        if proxy.is_router() {
            let key = ScopeKey::Gateway { namespace };
            return self.cached(key, || SidecarScope::for_gateway(self, &proxy.namespace));
        }
        let sidecar = self.sidecar_for(proxy);
        let name = sidecar.map(|sidecar| (sidecar.0.namespace.clone(), sidecar.0.name.clone()));
        let key = ScopeKey::Sidecar { namespace, sidecar: name };
        self.cached(key, || SidecarScope::for_sidecar(self, &proxy.namespace, sidecar.map(Arc::as_ref)))
    }

    fn cached(&self, key: ScopeKey, make: impl FnOnce() -> SidecarScope) -> Arc<SidecarScope> {
        let lock = || self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(scope) = lock().get(&key) {
            return scope.clone();
        }
        // Made outside the lock: two askers may both make it, and get equal ones.
        let made = Arc::new(make());
        lock().entry(key).or_insert(made).clone()
    }

    /// The Sidecar a proxy follows: one that selects it, else its namespace's, else the root namespace's.
    fn sidecar_for(&self, proxy: &Proxy) -> Option<&Arc<(ObjectMeta, Sidecar)>> {
        let applies = |sidecar: &&Arc<(ObjectMeta, Sidecar)>| match &sidecar.1.workload_selector {
            Some(selector) => is_subset(&selector.labels, &proxy.labels),
            None => true,
        };
        let own = self.sidecars.get(&proxy.namespace).and_then(|of_namespace| of_namespace.iter().find(applies));
        own.or_else(|| {
            let root = self.sidecars.get(&self.mesh.root_namespace)?;
            root.iter().find(|sidecar| sidecar.1.workload_selector.is_none())
        })
    }
}

fn by_gateway(routes: &[Arc<VirtualService>]) -> BTreeMap<String, Vec<Arc<VirtualService>>> {
    let mut index: BTreeMap<String, Vec<Arc<VirtualService>>> = BTreeMap::new();
    for route in routes {
        for gateway in &route.spec.gateways {
            let bound = index.entry(gateway.clone()).or_default();
            if bound.last().is_none_or(|last| !Arc::ptr_eq(last, route)) {
                bound.push(route.clone());
            }
        }
    }
    index
}

/// Of Sidecars for all workloads of a namespace, only the oldest is followed.
fn warn_of_idle_sidecars(sidecars: &[Arc<(ObjectMeta, Sidecar)>], warnings: &mut Vec<Warning>) {
    let mut for_all = sidecars.iter().filter(|sidecar| sidecar.1.workload_selector.is_none());
    let Some(first) = for_all.next() else { return };
    for idle in for_all {
        let message = format!(
            "the older Sidecar {} already is for all workloads of namespace {}: this one is not followed",
            first.0.name, first.0.namespace
        );
        warnings.push(Warning { key: crate::warning::key(maille_api::Kind::Sidecar, &idle.0), message });
    }
}
