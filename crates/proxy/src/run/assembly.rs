//! What the control plane has sent, put together into what workers serve: a pure state machine.
//!
//! A cluster is served once its hosts are known, a listener once its routes are, and none before the first clusters; until
//! then what was served before goes on. A resource that is refused changes nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Instant;

use crate::compile::{self, Refused};
use crate::config::{
    Cluster, Discovery, DownstreamTls, DownstreamTransport, Endpoints, Listener, Locality, LocalityLb, Network,
    RouteSource, RouteTable, TlsId, UpstreamTls,
};
use crate::run::dns::has_names;
use crate::run::sockets::addresses;
use crate::snapshot::Snapshot;
use crate::tls::{Contexts, Materials, ServerContext, Servers, Transports};
use crate::upstream::outlier::{Counts, Detector, Verdict};
use crate::upstream::{ClusterEntry, HostSet, Load, Local};
use maille_xds::types::{cluster, endpoint, listener, route, tls};
use maille_xds::{Resource, TypeUrl};
use tokio::sync::Notify;

/// Everything that was sent and taken.
#[derive(Default)]
pub struct Assembly {
    clusters: BTreeMap<Arc<str>, ClusterState>,
    /// By the name they are discovered under; `None`: the control plane has none.
    endpoints: BTreeMap<Arc<str>, Option<Arc<Endpoints>>>,
    listeners: BTreeMap<Arc<str>, ListenerState>,
    /// `None`: the control plane has none.
    routes: BTreeMap<Arc<str>, Option<Arc<RouteTable>>>,
    /// What is refused and still is, by type and resource.
    refused: BTreeMap<(TypeUrl, Arc<str>), String>,
    snapshot: Arc<Snapshot>,
    /// Rung by workers when a host ought to be looked at.
    alarm: Arc<Notify>,
    /// Where this proxy is, if that is known.
    locality: Option<Locality>,
    materials: Materials,
    contexts: Contexts,
    /// [`Materials::changes`] when what is served was made.
    made_of: u64,
    /// Whether the first clusters have been warm. Until then no listener serves: it would answer for hosts that it will know in
    /// a moment ("Envoy: server.cc", listeners are asked for once the clusters are initialized).
    begun: bool,
}

/// The name under which the control plane says who else is like this proxy, and where: Istio's.
const LOCAL_CLUSTER: &str = "local_cluster";

struct ClusterState {
    config: Arc<Cluster>,
    /// What is served now; kept while something newer waits for its hosts.
    entry: Option<Arc<ClusterEntry>>,
    loads: [Arc<Load>; 2],
    /// Judges the hosts of clusters that eject some.
    detector: Detector,
    /// What DNS says about the hosts.
    resolved: Option<Arc<Endpoints>>,
    /// How connections are made; `None` while its secrets may still come.
    transports: Option<Arc<Transports>>,
    /// Whether [`ClusterState::entry`] is older than what is known.
    stale: bool,
}

struct ListenerState {
    newest: Arc<Listener>,
    serving: Option<Arc<Listener>>,
}

/// What to do after an update.
#[derive(Debug, Default)]
pub struct Applied {
    /// What was refused of it.
    pub refused: Vec<(Arc<str>, String)>,
}

impl Assembly {
    /// Nothing.
    pub fn new() -> Assembly {
        Assembly::default()
    }

    /// Nothing, for a proxy at a place.
    pub fn at(locality: Option<Locality>) -> Assembly {
        Assembly { locality, ..Assembly::default() }
    }

    /// Takes resources of one type. `open` gets sockets for a listener, or says why that cannot be.
    pub fn apply(
        &mut self,
        type_url: TypeUrl,
        added: &[Resource],
        removed: &[Arc<str>],
        mut open: impl FnMut(&Listener) -> Result<(), String>,
    ) -> Applied {
        for name in removed {
            self.refused.remove(&(type_url, name.clone()));
            self.remove(type_url, name);
        }
        let mut out = Applied::default();
        for resource in added {
            let taken = match type_url {
                TypeUrl::Cluster => self.take_cluster(resource),
                TypeUrl::Endpoint => self.take_endpoints(resource),
                TypeUrl::Route => self.take_routes(resource),
                TypeUrl::Listener => self.take_listener(resource, &mut open),
                TypeUrl::Secret => self.take_secret(resource),
                _ => Err("this proxy did not ask for resources of this type".into()),
            };
            let key = (type_url, resource.name.clone());
            match taken {
                Ok(()) => {
                    self.refused.remove(&key);
                }
                Err(reason) => {
                    self.refused.insert(key, reason.clone());
                    out.refused.push((resource.name.clone(), reason));
                }
            }
        }
        out
    }

    /// Takes what DNS says about a cluster's hosts, if it still is the cluster that was asked for.
    pub fn resolve(&mut self, cluster: &Arc<Cluster>, endpoints: Endpoints) {
        if let Some(state) = self.clusters.get_mut(&cluster.name)
            && Arc::ptr_eq(&state.config, cluster)
        {
            let endpoints = Arc::new(endpoints);
            if state.resolved.as_ref() != Some(&endpoints) {
                state.resolved = Some(endpoints);
                state.stale = true;
            }
        }
    }

    /// Names to subscribe to: endpoints of clusters, routes of listeners.
    pub fn wanted(&self, type_url: TypeUrl) -> BTreeSet<Arc<str>> {
        match type_url {
            TypeUrl::Endpoint => self
                .clusters
                .values()
                .filter_map(|state| match &state.config.discovery {
                    Discovery::Eds(name) => Some(name.clone()),
                    _ => None,
                })
                .chain(self.wants_peers().then(|| LOCAL_CLUSTER.into()))
                .collect(),
            TypeUrl::Route => self.listeners.values().flat_map(|state| route_names(&state.newest)).collect(),
            TypeUrl::Secret => self.materials.names(),
            _ => BTreeSet::new(),
        }
    }

    /// Clusters whose hosts are names.
    pub fn to_resolve(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.clusters.values().map(|state| &state.config).filter(|config| has_names(&config.discovery))
    }

    /// Secrets, and what they are needed for.
    pub(crate) fn materials(&mut self) -> &mut Materials {
        &mut self.materials
    }

    /// Secrets, for whoever asks.
    pub(crate) fn known_materials(&self) -> &Materials {
        &self.materials
    }

    /// Finds out which secrets are needed now.
    pub(crate) fn look_for_secrets(&mut self, now: Instant) {
        let Assembly { clusters, listeners, materials, .. } = self;
        let of_clusters = clusters.values().flat_map(|state| upstream_tls(&state.config)).map(|tls| &tls.common);
        let all = listeners.values().flat_map(|state| state.serving.iter().chain([&state.newest]));
        let of_listeners = all.flat_map(downstream_tls).map(|tls| &tls.common);
        materials.want(of_clusters.chain(of_listeners), now);
        materials.give_up(now);
    }

    /// What workers are to serve now; the same as before when nothing has changed.
    pub fn assemble(&mut self) -> Arc<Snapshot> {
        let mut changed = false;
        let wanted = self.wanted(TypeUrl::Endpoint);
        self.endpoints.retain(|name, _| wanted.contains(name));
        let wanted = self.wanted(TypeUrl::Route);
        self.routes.retain(|name, _| wanted.contains(name));
        let mut next = Snapshot::default();
        let peers = self.endpoints.get(LOCAL_CLUSTER).and_then(Option::as_deref);
        let local = self.locality.as_ref().map(|locality| Local { locality, peers });
        let fresh_secrets = self.made_of != self.materials.changes();
        self.made_of = self.materials.changes();
        for (name, state) in &mut self.clusters {
            state.secure(&mut self.materials, fresh_secrets);
            changed |= state.refresh(&self.endpoints, &self.alarm, local);
            if let Some(entry) = &state.entry {
                next.clusters.insert(name.clone(), entry.clone());
            }
        }
        self.begun |= self.clusters.values().all(|state| state.entry.is_some()) && !self.clusters.is_empty();
        let begun = self.begun || self.clusters.is_empty();
        for (name, table) in &self.routes {
            if let Some(table) = table {
                next.routes.insert(name.clone(), table.clone());
            }
        }
        for (name, state) in &mut self.listeners {
            let old = state.serving.as_ref();
            // What is served is made anew of its secrets, too.
            for tls in old.into_iter().flat_map(downstream_tls) {
                self.contexts.ready(tls, &mut self.materials);
            }
            let secrets: Vec<bool> =
                downstream_tls(&state.newest).map(|tls| self.contexts.ready(tls, &mut self.materials)).collect();
            let warm = route_names(&state.newest).all(|name| self.routes.contains_key(&name))
                && secrets.iter().all(|ready| *ready);
            if warm && begun && !old.is_some_and(|old| Arc::ptr_eq(old, &state.newest)) {
                state.serving = Some(state.newest.clone());
            }
            if let Some(listener) = &state.serving {
                next.listeners.insert(name.clone(), listener.clone());
                for address in addresses(listener) {
                    next.bound.insert(address, listener.clone());
                }
            }
        }
        let used: HashSet<TlsId> = (self.listeners.values())
            .flat_map(|state| state.serving.iter().chain([&state.newest]))
            .flat_map(downstream_tls)
            .map(|tls| tls.id)
            .collect();
        next.servers = self.contexts.servers(|id| used.contains(id));
        changed |= !same_servers(&self.snapshot.servers, &next.servers);
        changed |= !same(&self.snapshot.clusters, &next.clusters)
            || !same(&self.snapshot.routes, &next.routes)
            || !same(&self.snapshot.listeners, &next.listeners);
        if changed {
            self.snapshot = Arc::new(next);
        }
        self.snapshot.clone()
    }

    /// Rung by workers when [`Assembly::check`] has something to look at.
    pub(crate) fn alarm(&self) -> Arc<Notify> {
        self.alarm.clone()
    }

    /// When [`Assembly::check`] has something to do even without an alarm.
    pub(crate) fn next_check(&mut self, now: Instant) -> Option<Instant> {
        let watched = self.clusters.values_mut();
        let hosts = watched.filter_map(|state| Some(state.detector.next(state.config.outlier.as_ref()?, now)));
        hosts.chain(self.materials.next_deadline()).min()
    }

    /// Judges hosts by their records: ejects some, lets some come back. What is served changes with the next
    /// [`Assembly::assemble`].
    pub(crate) fn check(&mut self, now: Instant, random: &mut impl FnMut() -> u64) -> Vec<(Arc<str>, Verdict)> {
        let mut all = Vec::new();
        for (name, state) in &mut self.clusters {
            let Some(config) = &state.config.outlier else { continue };
            let verdicts =
                [state.detector.look(config, now, random), state.detector.tick(config, now, random)].concat();
            state.stale |= !verdicts.is_empty();
            all.extend(verdicts.into_iter().map(|verdict| (name.clone(), verdict)));
        }
        all
    }

    /// What has been decided about hosts since this was last asked, by the clusters' names in metrics.
    pub(crate) fn outlier_counts(&mut self) -> impl Iterator<Item = (&Arc<str>, Counts)> {
        let watched = self.clusters.values_mut().filter(|state| state.config.outlier.is_some());
        watched.map(|state| (&state.config.stat_name, std::mem::take(&mut state.detector.counts)))
    }

    /// Whether everything that is known is served, and nothing waits for something else.
    pub fn is_warm(&self) -> bool {
        self.clusters.values().all(|state| state.entry.is_some())
            && self
                .listeners
                .values()
                .all(|state| state.serving.as_ref().is_some_and(|l| Arc::ptr_eq(l, &state.newest)))
    }

    /// Clusters and listeners that wait for something, by name.
    pub(crate) fn cold(&self) -> (Vec<String>, Vec<String>) {
        let clusters = self.clusters.iter().filter(|(_, state)| state.entry.is_none());
        let listeners = self.listeners.keys().filter(|name| self.is_warming(name));
        (clusters.map(|(name, _)| name.to_string()).collect(), listeners.map(|name| name.to_string()).collect())
    }

    /// Whether the newest version of a listener waits for something.
    pub(crate) fn is_warming(&self, listener: &str) -> bool {
        let Some(state) = self.listeners.get(listener) else { return false };
        !state.serving.as_ref().is_some_and(|serving| Arc::ptr_eq(serving, &state.newest))
    }

    /// What is refused and still is.
    pub fn refused(&self) -> impl Iterator<Item = String> {
        let refused = self.refused.iter().map(|((type_url, _), reason)| format!("{} {reason}", type_url.noun()));
        refused.chain(self.materials.problems().cloned())
    }

    /// Whether a listener that is wanted has an address.
    pub(crate) fn wants_address(&self, address: std::net::SocketAddr) -> bool {
        self.listeners.values().any(|state| {
            addresses(&state.newest).chain(state.serving.iter().flat_map(|l| addresses(l))).any(|a| a == address)
        })
    }

    fn remove(&mut self, type_url: TypeUrl, name: &Arc<str>) {
        match type_url {
            TypeUrl::Cluster => drop(self.clusters.remove(name)),
            TypeUrl::Listener => drop(self.listeners.remove(name)),
            // The server says that there is none: nothing more is waited for.
            TypeUrl::Endpoint => {
                self.endpoints.insert(name.clone(), None);
                self.touch_endpoints(name);
            }
            TypeUrl::Route => drop(self.routes.insert(name.clone(), None)),
            TypeUrl::Secret => self.materials.put_secret(name, None),
            _ => {}
        }
    }

    fn take_cluster(&mut self, resource: &Resource) -> Result<(), String> {
        let proto: cluster::Cluster = decode(resource)?;
        let config = Arc::new(compile::cluster(&proto).map_err(|e| e.to_string())?);
        supported(compile::unsupported::cluster(&config))?;
        let old = self.clusters.remove(&resource.name);
        let (entry, loads, detector) = old.map_or_else(Default::default, |old| (old.entry, old.loads, old.detector));
        let state = ClusterState { config, entry, loads, detector, resolved: None, transports: None, stale: true };
        self.clusters.insert(resource.name.clone(), state);
        Ok(())
    }

    fn take_endpoints(&mut self, resource: &Resource) -> Result<(), String> {
        let proto: endpoint::ClusterLoadAssignment = decode(resource)?;
        let endpoints = compile::endpoints(&proto).map_err(|e| e.to_string())?;
        self.endpoints.insert(resource.name.clone(), Some(Arc::new(endpoints)));
        self.touch_endpoints(&resource.name);
        Ok(())
    }

    /// Whether some cluster is balanced by zones: then it matters where the proxy's like are.
    fn wants_peers(&self) -> bool {
        self.locality.is_some() && self.clusters.values().any(ClusterState::is_zone_aware)
    }

    fn touch_endpoints(&mut self, name: &str) {
        for state in self.clusters.values_mut() {
            if name == LOCAL_CLUSTER && state.is_zone_aware() {
                state.stale = true;
            }
            if matches!(&state.config.discovery, Discovery::Eds(eds) if **eds == *name) {
                state.stale = true;
            }
        }
    }

    fn take_routes(&mut self, resource: &Resource) -> Result<(), String> {
        let proto: route::RouteConfiguration = decode(resource)?;
        let table = compile::routes(&proto).map_err(|e| e.to_string())?;
        self.routes.insert(resource.name.clone(), Some(Arc::new(table)));
        Ok(())
    }

    fn take_secret(&mut self, resource: &Resource) -> Result<(), String> {
        let proto: tls::Secret = decode(resource)?;
        let secret = compile::secret(&proto).map_err(|e| e.to_string())?;
        self.materials.put_secret(&resource.name, Some(secret));
        Ok(())
    }

    fn take_listener(
        &mut self,
        resource: &Resource,
        open: &mut impl FnMut(&Listener) -> Result<(), String>,
    ) -> Result<(), String> {
        let proto: listener::Listener = decode(resource)?;
        let listener = compile::listener(&proto).map_err(|e| e.to_string())?;
        supported(compile::unsupported::listener(&listener))?;
        for address in addresses(&listener) {
            let other = self.listeners.iter().find(|(name, state)| {
                **name != resource.name && addresses(&state.newest).any(|theirs| theirs == address)
            });
            if let Some((other, _)) = other {
                return Err(format!("{:?}: address: {address} is the listener {other:?}'s already", resource.name));
            }
        }
        open(&listener).map_err(|e| format!("{:?}: address: {e}", resource.name))?;
        let serving = self.listeners.remove(&resource.name).and_then(|old| old.serving);
        self.listeners.insert(resource.name.clone(), ListenerState { newest: Arc::new(listener), serving });
        Ok(())
    }
}

impl ClusterState {
    fn is_zone_aware(&self) -> bool {
        matches!(self.config.locality_lb, LocalityLb::ZoneAware { .. })
    }

    /// Makes ready how connections are made, if the secrets are there; what is served goes on otherwise.
    fn secure(&mut self, materials: &mut Materials, fresh: bool) {
        if self.transports.is_some() && !fresh {
            return;
        }
        if let Some(transports) = Transports::new(&self.config, self.transports.as_ref(), materials)
            && !self.transports.as_ref().is_some_and(|old| Arc::ptr_eq(old, &transports))
        {
            self.transports = Some(transports);
            self.stale = true;
        }
    }

    /// Brings what is served up to date, if the hosts are known. Says whether anything changed.
    fn refresh(
        &mut self,
        discovered: &BTreeMap<Arc<str>, Option<Arc<Endpoints>>>,
        alarm: &Arc<Notify>,
        local: Option<Local<'_>>,
    ) -> bool {
        if !self.stale {
            return false;
        }
        let Some(transports) = self.transports.clone() else { return false };
        let endpoints = match &self.config.discovery {
            Discovery::Eds(name) => match discovered.get(name) {
                Some(Some(endpoints)) => endpoints.clone(),
                Some(None) => Arc::default(),
                None => return false,
            },
            Discovery::Static(endpoints) => endpoints.clone(),
            Discovery::StrictDns(..) | Discovery::LogicalDns(..) => match &self.resolved {
                Some(endpoints) => endpoints.clone(),
                None => return false,
            },
            Discovery::OriginalDst(_) | Discovery::DynamicForwardProxy(_) => Arc::default(),
        };
        let old = self.entry.as_ref().map(|entry| &*entry.hosts);
        let hosts = Arc::new(HostSet::new(&self.config, &endpoints, old, local));
        self.detector.watch(hosts.hosts().filter_map(|host| Some((host.address, host.monitor.as_ref()?))));
        let (config, loads, alarm) = (self.config.clone(), self.loads.clone(), alarm.clone());
        self.entry = Some(Arc::new(ClusterEntry { config, transports, hosts, loads, alarm }));
        self.stale = false;
        true
    }
}

fn decode<M: maille_xds::types::Message + Default>(resource: &Resource) -> Result<M, String> {
    compile::decode(resource).map_err(|e| e.to_string())
}

/// Refuses what compiles but cannot be served.
fn supported(found: Vec<Refused>) -> Result<(), String> {
    match found.first() {
        None => Ok(()),
        Some(first) if found.len() == 1 => Err(first.to_string()),
        Some(first) => Err(format!("{first} (and {} more)", found.len() - 1)),
    }
}

fn route_names(listener: &Listener) -> impl Iterator<Item = Arc<str>> {
    listener.chains.iter().chain(&listener.default_chain).filter_map(|chain| match &chain.network {
        Network::Http(manager) => match &manager.routes {
            RouteSource::Rds(name) => Some(name.clone()),
            RouteSource::Inline(_) => None,
        },
        _ => None,
    })
}

fn downstream_tls(listener: &Arc<Listener>) -> impl Iterator<Item = &Arc<DownstreamTls>> {
    listener.chains.iter().chain(&listener.default_chain).filter_map(|chain| match &chain.transport {
        DownstreamTransport::Tls(tls) => Some(tls),
        DownstreamTransport::Plaintext => None,
    })
}

fn upstream_tls(cluster: &Cluster) -> impl Iterator<Item = &Arc<UpstreamTls>> {
    let some = cluster.transport_matches.iter().map(|choice| &choice.transport);
    some.chain([&cluster.transport]).filter_map(|transport| transport.tls.as_ref())
}

fn same_servers(a: &Servers, b: &Servers) -> bool {
    let is = |a: &Option<Arc<ServerContext>>, b: &Option<Arc<ServerContext>>| match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        _ => false,
    };
    a.len() == b.len() && a.iter().all(|(id, old)| b.get(id).is_some_and(|new| is(old, new)))
}

fn same<T>(a: &ahash::AHashMap<Arc<str>, Arc<T>>, b: &ahash::AHashMap<Arc<str>, Arc<T>>) -> bool {
    a.len() == b.len() && a.iter().all(|(name, old)| b.get(name).is_some_and(|new| Arc::ptr_eq(old, new)))
}

#[cfg(test)]
mod tests;
