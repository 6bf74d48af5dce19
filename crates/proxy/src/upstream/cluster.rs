//! One worker's side of a cluster: its balancer and its pools.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ahash::{AHashMap, AHashSet};
use maille_telemetry::metrics::{ClusterMetrics, Registry};

use super::{ClusterEntry, Host, Load, Pool, Purpose};
use crate::balance::{Balancer, Event, Wish};
use crate::config::{Discovery, Health, Locality};
use crate::tls::Transport;

/// One worker's side of a cluster. Made when the cluster is first used; in-flight requests keep it alive.
pub(crate) struct WorkerCluster {
    pub(crate) metrics: ClusterMetrics,
    state: RefCell<State>,
}

/// A cluster as a request has it. Each request takes hold of it, which must not touch a counter that other threads touch too.
#[allow(clippy::redundant_allocation, reason = "the outer count is this thread's own")]
pub(crate) type Entry = Rc<Arc<ClusterEntry>>;

struct State {
    entry: Entry,
    balancer: Rc<Balancer>,
    hosts: AHashMap<SocketAddr, Rc<WorkerHost>>,
    /// Hosts that only the client named ([`crate::config::Discovery::OriginalDst`]).
    dynamic: AHashMap<SocketAddr, Rc<WorkerHost>>,
    /// Hosts to which connections are made for one purpose and no other.
    special: AHashMap<(SocketAddr, Purpose), Rc<WorkerHost>>,
}

/// One worker's side of a host.
pub(crate) struct WorkerHost {
    pub(crate) host: Arc<Host>,
    pub(crate) pool: Rc<Pool>,
    /// How the pool's connections are made.
    pub(crate) transport: Arc<Transport>,
    /// What they are for.
    pub(crate) purpose: Purpose,
    /// Whether it has been found to fail.
    failed: Cell<bool>,
}

impl WorkerCluster {
    pub(crate) fn new(entry: Arc<ClusterEntry>, registry: &Registry) -> WorkerCluster {
        let metrics = ClusterMetrics::new(registry, &entry.config.stat_name);
        let mut hosts = AHashMap::new();
        let balancer = Rc::new(balancer(&entry, &mut hosts, &AHashMap::new()));
        WorkerCluster {
            metrics,
            state: RefCell::new(State {
                entry: Rc::new(entry),
                balancer,
                hosts,
                dynamic: AHashMap::new(),
                special: AHashMap::new(),
            }),
        }
    }

    /// Takes on a newer configuration or newer hosts. Connections to hosts that stay are kept, unless how they are made has changed.
    pub(crate) fn update(&self, entry: Arc<ClusterEntry>) {
        let mut state = self.state.borrow_mut();
        // Connections made with other keys, or believing others, are for no new request.
        let same_config =
            Arc::ptr_eq(&state.entry.config, &entry.config) && Arc::ptr_eq(&state.entry.transports, &entry.transports);
        if same_config && Arc::ptr_eq(&state.entry.hosts, &entry.hosts) {
            return;
        }
        // There are clusters whose hosts are all to be met anew when one comes or goes.
        let same_hosts = || {
            let addresses = |entry: &ClusterEntry| entry.hosts.hosts().map(|h| h.address).collect::<AHashSet<_>>();
            addresses(&state.entry) == addresses(&entry)
        };
        let keeps = same_config && (!entry.config.close_on_host_removal || same_hosts());
        let mut hosts = AHashMap::with_capacity(state.hosts.len());
        let nothing = AHashMap::new();
        let keep = if keeps { &state.hosts } else { &nothing };
        if let Some(moved) = moved(&entry, keep) {
            // Connections to where a logical host was before are as good as new ones.
            hosts.insert(moved.host.address, moved);
        }
        let balancer = Rc::new(balancer(&entry, &mut hosts, keep));
        let old = std::mem::replace(&mut state.hosts, hosts);
        let logical = matches!(entry.config.discovery, Discovery::LogicalDns(..));
        for (address, host) in old {
            let kept = if logical { state.hosts.values().next() } else { state.hosts.get(&address) };
            if !kept.is_some_and(|kept| Rc::ptr_eq(&kept.pool, &host.pool)) {
                host.pool.close();
            }
            if entry.config.close_on_host_failure && kept.is_some_and(|kept| kept.fails_now(&host)) {
                host.pool.sever();
            }
        }
        if !same_config {
            state.dynamic.drain().for_each(|(_, host)| host.pool.close());
        }
        let State { hosts, special, .. } = &mut *state;
        special.retain(|(address, _), host| {
            let new = hosts.get(address).filter(|new| keeps && Arc::ptr_eq(&new.transport, &host.transport));
            let stays = new.is_some_and(|new| !new.fails_now(host));
            if !stays {
                host.pool.close();
            }
            host.failed.set(host.host.is_ejected());
            stays
        });
        state.balancer = balancer;
        state.entry = Rc::new(entry);
    }

    /// The cluster and its hosts as they are now.
    pub(crate) fn entry(&self) -> Entry {
        self.state.borrow().entry.clone()
    }

    /// A host for a request; see [`Balancer::pick`].
    pub(crate) fn pick<A: Fn(&WorkerHost) -> bool>(&self, wish: &Wish<'_, A>) -> Option<Rc<WorkerHost>> {
        let state = self.state.borrow();
        let host = state.balancer.pick(&state.entry.hosts, wish);
        if let Some(event) = state.balancer.take_event() {
            match event {
                Event::Panic => self.metrics.lb_healthy_panic().inc(),
                Event::OwnZone => self.metrics.lb_zone_routing_all_directly().inc(),
                Event::Stayed => self.metrics.lb_zone_routing_sampled().inc(),
                Event::Left => self.metrics.lb_zone_routing_cross_zone().inc(),
            }
        }
        host
    }

    /// The host at an address that the client named.
    pub(crate) fn at(&self, address: SocketAddr) -> Rc<WorkerHost> {
        let mut state = self.state.borrow_mut();
        // Whoever names many addresses only makes us forget the ones without connections.
        if state.dynamic.len() >= 1024 {
            state.dynamic.retain(|_, host| host.pool.len() > 0 || Rc::strong_count(host) > 1);
        }
        let entry = state.entry.clone();
        let make = || {
            let host = Host {
                address,
                others: Arc::default(),
                hostname: "".into(),
                weight: 1,
                priority: 0,
                locality: Locality::default(),
                health: Health::Healthy,
                metadata: None,
                load: Arc::new(Load::default()),
                since: None,
                monitor: None,
            };
            worker_host(&entry, Arc::new(host), None)
        };
        state.dynamic.entry(address).or_insert_with(make).clone()
    }

    /// A host, with connections that are for one purpose and no other.
    pub(crate) fn for_purpose(&self, host: &Rc<WorkerHost>, purpose: Purpose) -> Rc<WorkerHost> {
        if host.purpose == purpose {
            return host.clone();
        }
        let mut state = self.state.borrow_mut();
        if state.special.len() >= 1024 {
            state.special.retain(|_, host| host.pool.len() > 0 || Rc::strong_count(host) > 1);
        }
        let make = || {
            let (host, transport) = (host.host.clone(), host.transport.clone());
            let failed = Cell::new(host.is_ejected());
            Rc::new(WorkerHost { host, pool: Rc::new(Pool::new()), transport, purpose: purpose.clone(), failed })
        };
        state.special.entry((host.host.address, purpose.clone())).or_insert_with(make).clone()
    }

    /// Closes connections that have been idle for too long or were closed by the server.
    pub(crate) fn sweep(&self, now: u32) {
        let state = self.state.borrow();
        let oldest = since(state.entry.config.http.idle_timeout, now);
        let born = since(state.entry.config.http.max_connection_duration, now);
        for host in state.hosts.values().chain(state.dynamic.values()).chain(state.special.values()) {
            host.pool.sweep(oldest, born);
        }
    }

    /// Closes every idle connection, for good.
    pub(crate) fn close(&self) {
        let state = self.state.borrow();
        for host in state.hosts.values().chain(state.dynamic.values()).chain(state.special.values()) {
            host.pool.close();
        }
    }
}

/// A host, with the connections of an older one if they are made alike; but not when it has been found to fail since: what
/// is wrong with it may be wrong with its connections.
fn worker_host(entry: &ClusterEntry, host: Arc<Host>, old: Option<&Rc<WorkerHost>>) -> Rc<WorkerHost> {
    let transport = entry.transports.of(&entry.config, host.metadata.as_deref());
    let failed = host.is_ejected();
    let pool = match old {
        Some(old) if Arc::ptr_eq(&old.transport, &transport) && (old.failed.get() || !failed) => old.pool.clone(),
        _ => Rc::new(Pool::new()),
    };
    let purpose = Purpose { carries: entry.config.http.protocol.into(), ..Purpose::default() };
    Rc::new(WorkerHost { host, pool, transport, purpose, failed: Cell::new(failed) })
}

impl WorkerHost {
    /// Whether it has been found to fail since an older one was made.
    fn fails_now(&self, old: &WorkerHost) -> bool {
        self.failed.get() && !old.failed.get()
    }
}

#[cfg(test)]
impl WorkerCluster {
    /// The connections to the host at a port.
    pub(crate) fn pool(&self, port: u16) -> Rc<Pool> {
        let state = self.state.borrow();
        state.hosts.values().find(|host| host.host.address.port() == port).unwrap().pool.clone()
    }
}

#[cfg(test)]
impl WorkerHost {
    /// A host with no connections, which are made without TLS.
    pub(crate) fn plain(host: Arc<Host>) -> WorkerHost {
        let (pool, failed) = (Rc::new(Pool::new()), Cell::default());
        WorkerHost { host, pool, transport: Arc::default(), purpose: Purpose::default(), failed }
    }
}

/// A logical host at its new address, with the connections it has.
fn moved(entry: &ClusterEntry, old: &AHashMap<SocketAddr, Rc<WorkerHost>>) -> Option<Rc<WorkerHost>> {
    if !matches!(entry.config.discovery, Discovery::LogicalDns(..)) {
        return None;
    }
    let (host, old) = entry.hosts.hosts().next().zip(old.values().next())?;
    Some(worker_host(entry, host.clone(), Some(old)))
}

/// What was then is a limit ago; without a limit nothing ever is.
fn since(limit: Option<Duration>, now: u32) -> u32 {
    limit.map_or(0, |limit| now.saturating_sub(u32::try_from(limit.as_secs()).unwrap_or(u32::MAX)))
}

fn balancer(
    entry: &ClusterEntry,
    hosts: &mut AHashMap<SocketAddr, Rc<WorkerHost>>,
    old: &AHashMap<SocketAddr, Rc<WorkerHost>>,
) -> Balancer {
    // Hosts that take no requests now may do so later: their connections are kept too.
    for host in entry.hosts.hosts() {
        hosts.entry(host.address).or_insert_with(|| worker_host(entry, host.clone(), old.get(&host.address)));
    }
    Balancer::new(&entry.config.lb, &entry.config.locality_lb, &entry.hosts, |host| match hosts.get(&host.address) {
        Some(found) => found.clone(),
        None => worker_host(entry, host.clone(), None),
    })
}
