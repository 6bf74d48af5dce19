//! Hosts that are names: resolved on the main thread, again and again.

pub(crate) mod names;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use crate::config::{Cluster, Discovery, DnsFamily, Endpoints};
use names::{Found, Names};

/// What DNS said about a cluster.
pub(crate) type Answer = (Arc<Cluster>, Endpoints);

/// How many answers may wait to be taken: whoever has more waits with them.
const ANSWERS: usize = 64;

/// Resolves the names of the clusters that it is given.
pub(crate) struct Dns {
    tasks: HashMap<Arc<str>, (Arc<Cluster>, JoinHandle<()>)>,
    /// One for IPv4, one for IPv6, one for both.
    resolvers: [Option<TokioResolver>; 3],
    answers: mpsc::Sender<Answer>,
}

impl Dns {
    /// The answers come out of the other end.
    pub(crate) fn new() -> (Dns, mpsc::Receiver<Answer>) {
        let (answers, out) = mpsc::channel(ANSWERS);
        (Dns { tasks: HashMap::new(), resolvers: [None, None, None], answers }, out)
    }

    /// Resolves for these clusters from now on, and for no others.
    pub(crate) fn follow<'a>(&mut self, clusters: impl Iterator<Item = &'a Arc<Cluster>>) {
        let wanted: HashMap<&Arc<str>, &Arc<Cluster>> = clusters.map(|c| (&c.name, c)).collect();
        self.tasks.retain(|name, (cluster, task)| {
            let keep = wanted.get(name).is_some_and(|wanted| Arc::ptr_eq(wanted, cluster));
            if !keep {
                task.abort();
            }
            keep
        });
        for (name, cluster) in wanted {
            if self.tasks.contains_key(name) {
                continue;
            }
            let Some(names) = Names::of(&cluster.discovery) else { continue };
            let resolver = self.resolver(names.family());
            let task = resolve(cluster.clone(), names, resolver, self.answers.clone());
            self.tasks.insert(name.clone(), (cluster.clone(), tokio::spawn(task)));
        }
    }

    fn resolver(&mut self, family: DnsFamily) -> Option<TokioResolver> {
        let (at, strategy) = match family {
            DnsFamily::V4Only => (0, LookupIpStrategy::Ipv4Only),
            DnsFamily::V6Only => (1, LookupIpStrategy::Ipv6Only),
            DnsFamily::Auto | DnsFamily::V4Preferred | DnsFamily::All => (2, LookupIpStrategy::Ipv6AndIpv4),
        };
        let slot = &mut self.resolvers[at];
        if slot.is_none() {
            *slot = resolver(strategy);
        }
        slot.clone()
    }
}

fn resolver(strategy: LookupIpStrategy) -> Option<TokioResolver> {
    let build = || {
        let mut builder = TokioResolver::builder_tokio()?;
        let options = builder.options_mut();
        options.ip_strategy = strategy;
        // How often to ask is the cluster's business.
        options.cache_size = 0;
        builder.build()
    };
    match build() {
        Ok(resolver) => Some(resolver),
        Err(error) => {
            tracing::error!("names cannot be resolved: {error}; check /etc/resolv.conf");
            None
        }
    }
}

/// Asks for each name on its own: one that is slow, or fails, holds up no other.
async fn resolve(
    cluster: Arc<Cluster>,
    mut names: Names,
    resolver: Option<TokioResolver>,
    answers: mpsc::Sender<Answer>,
) {
    let mut lookups = JoinSet::new();
    let ask = |lookups: &mut JoinSet<_>, at: usize, name: Arc<str>, pause: Duration| {
        let resolver = resolver.clone();
        lookups.spawn(async move {
            tokio::time::sleep(pause).await;
            (at, lookup(&name, resolver.as_ref()).await)
        });
    };
    for (at, name) in names.all() {
        ask(&mut lookups, at, name, Duration::ZERO);
    }
    if lookups.is_empty() {
        // Addresses only. Nobody is left to tell when this fails.
        let _ = answers.send((cluster, names.endpoints())).await;
        return;
    }
    while let Some(joined) = lookups.join_next().await {
        let Ok((at, found)) = joined else { continue };
        let (name, pause) = names.take(at, found, fastrand::f64());
        if answers.send((cluster.clone(), names.endpoints())).await.is_err() {
            return;
        }
        ask(&mut lookups, at, name, pause);
    }
}

async fn lookup(name: &str, resolver: Option<&TokioResolver>) -> Option<Found> {
    if let Ok(ip) = name.parse::<IpAddr>() {
        return Some(Found { addresses: vec![ip], ttl: Duration::from_secs(3600) });
    }
    match resolver?.lookup_ip(name).await {
        Ok(answer) => Some(Found {
            ttl: answer.valid_until().saturating_duration_since(Instant::now()),
            addresses: answer.iter().collect(),
        }),
        Err(error) => {
            tracing::warn!(name, "does not resolve: {error}");
            None
        }
    }
}

/// Whether a cluster's hosts are names at all.
pub(crate) fn has_names(discovery: &Discovery) -> bool {
    matches!(discovery, Discovery::StrictDns(..) | Discovery::LogicalDns(..))
}
