//! Hosts that are names: resolved on the main thread, again and again.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::{Cluster, Discovery, DnsFamily, DnsOptions, Endpoint, EndpointAddress, Endpoints};

/// What DNS said about a cluster.
pub(crate) type Answer = (Arc<Cluster>, Endpoints);

/// Resolves the names of the clusters that it is given.
pub(crate) struct Dns {
    tasks: HashMap<Arc<str>, (Arc<Cluster>, JoinHandle<()>)>,
    resolver: Option<TokioResolver>,
    answers: mpsc::UnboundedSender<Answer>,
}

impl Dns {
    pub(crate) fn new(answers: mpsc::UnboundedSender<Answer>) -> Dns {
        Dns { tasks: HashMap::new(), resolver: None, answers }
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
            if self.resolver.is_none() {
                self.resolver = resolver();
            }
            let task = resolve(cluster.clone(), self.resolver.clone(), self.answers.clone());
            self.tasks.insert(name.clone(), (cluster.clone(), tokio::spawn(task)));
        }
    }
}

fn resolver() -> Option<TokioResolver> {
    match TokioResolver::builder_tokio().and_then(|builder| builder.build()) {
        Ok(resolver) => Some(resolver),
        Err(error) => {
            tracing::error!("names cannot be resolved: {error}; check /etc/resolv.conf");
            None
        }
    }
}

async fn resolve(cluster: Arc<Cluster>, resolver: Option<TokioResolver>, answers: mpsc::UnboundedSender<Answer>) {
    let (endpoints, options, one) = match &cluster.discovery {
        Discovery::StrictDns(endpoints, options) => (endpoints.clone(), *options, false),
        Discovery::LogicalDns(endpoints, options) => (endpoints.clone(), *options, true),
        _ => return,
    };
    let mut failures = 0;
    loop {
        let (found, ttl) = once(&endpoints, &options, one, resolver.as_ref()).await;
        let pause = match &found {
            Some(_) => {
                failures = 0;
                let pause = ttl.filter(|_| options.respect_ttl).unwrap_or(options.refresh);
                pause.max(Duration::from_secs(1)) + options.jitter.mul_f64(fastrand::f64())
            }
            None => {
                failures += 1;
                let (base, max) = options.failure_refresh.unwrap_or((options.refresh, options.refresh));
                base.saturating_mul(1 << (failures - 1).min(16)).min(max).max(Duration::from_millis(100))
            }
        };
        // A failure says nothing about hosts that were found before; the first one is an answer, so that nobody waits for ever.
        let answer = found.or_else(|| (failures == 1).then(|| without_hosts(&endpoints)));
        if let Some(answer) = answer
            && answers.send((cluster.clone(), answer)).is_err()
        {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

fn without_hosts(endpoints: &Endpoints) -> Endpoints {
    let mut out = endpoints.clone();
    for locality in &mut out.localities {
        locality.endpoints.retain(|e| !matches!(e.address, EndpointAddress::Host(..)));
    }
    out
}

/// The endpoints with names replaced by addresses, and for how long that holds; `None` when a name does not resolve.
async fn once(
    endpoints: &Endpoints,
    options: &DnsOptions,
    one: bool,
    resolver: Option<&TokioResolver>,
) -> (Option<Endpoints>, Option<Duration>) {
    let mut out = endpoints.clone();
    let mut shortest: Option<Duration> = None;
    let mut failed = false;
    for locality in &mut out.localities {
        let mut resolved = Vec::new();
        for endpoint in locality.endpoints.drain(..) {
            let EndpointAddress::Host(name, port) = &endpoint.address else {
                resolved.push(endpoint);
                continue;
            };
            match lookup(name, options.family, resolver).await {
                Some((addresses, ttl)) => {
                    shortest = Some(ttl.min(shortest.unwrap_or(ttl)));
                    let most = if one { 1 } else { usize::MAX };
                    for ip in addresses.into_iter().take(most) {
                        let hostname =
                            if endpoint.hostname.is_empty() { name.clone() } else { endpoint.hostname.clone() };
                        let address = EndpointAddress::Socket(SocketAddr::new(ip, *port));
                        resolved.push(Endpoint { address, hostname, ..endpoint.clone() });
                    }
                }
                None => failed = true,
            }
        }
        locality.endpoints = resolved;
    }
    let any = out.localities.iter().any(|l| !l.endpoints.is_empty());
    ((any || !failed).then_some(out), shortest)
}

async fn lookup(name: &str, family: DnsFamily, resolver: Option<&TokioResolver>) -> Option<(Vec<IpAddr>, Duration)> {
    if let Ok(ip) = name.parse() {
        return Some((vec![ip], Duration::from_secs(3600)));
    }
    let answer = match resolver?.lookup_ip(name).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::warn!(name, "does not resolve: {error}");
            return None;
        }
    };
    let ttl = answer.valid_until().saturating_duration_since(Instant::now());
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = answer.iter().partition(IpAddr::is_ipv4);
    let addresses = match family {
        DnsFamily::V4Only => v4,
        DnsFamily::V6Only => v6,
        DnsFamily::V4Preferred => {
            if v4.is_empty() {
                v6
            } else {
                v4
            }
        }
        DnsFamily::Auto => {
            if v6.is_empty() {
                v4
            } else {
                v6
            }
        }
        DnsFamily::All => [v4, v6].concat(),
    };
    (!addresses.is_empty()).then_some((addresses, ttl))
}
