//! Configurations with their secrets, made ready for connections when the secrets are there, and anew when these change.

use std::sync::Arc;

use ahash::AHashMap;

use super::material::{Materials, Resolved, Unresolved};
use super::{ClientContext, ServerContext};
use crate::config::{Cluster, DownstreamTls, Metadata, ProxyVersion, TlsId, UpstreamHttp, UpstreamTransport};

/// What listeners need, by configuration. `None`: its secrets are not there, and nobody is served with it.
pub(crate) type Servers = AHashMap<TlsId, Option<Arc<ServerContext>>>;

/// The configurations of listeners, with their secrets.
#[derive(Default)]
pub(crate) struct Contexts {
    made: AHashMap<TlsId, Made>,
}

struct Made {
    resolved: Resolved,
    context: Option<Arc<ServerContext>>,
}

impl Contexts {
    /// Makes one ready, unless it is. Says whether its secrets are there, or will not come soon.
    pub(crate) fn ready(&mut self, tls: &DownstreamTls, materials: &mut Materials) -> bool {
        let resolved = match materials.resolve(&tls.common) {
            Ok(resolved) => resolved,
            // What was there and is there no more is served on: the control plane, or a file, may come back.
            Err(_) if self.made.get(&tls.id).is_some_and(|made| made.context.is_some()) => return true,
            Err(Unresolved::Awaited) => return false,
            Err(Unresolved::Missing) => {
                self.made.insert(tls.id, Made { resolved: Resolved::default(), context: None });
                return true;
            }
        };
        if self.made.get(&tls.id).is_some_and(|made| made.context.is_some() && made.resolved.is(&resolved)) {
            return true;
        }
        let context = match ServerContext::new(tls, &resolved.certificates, resolved.checks()) {
            Ok(context) => Some(Arc::new(context)),
            Err(error) => {
                tracing::warn!("a TLS configuration cannot be used with its secrets: {error}");
                None
            }
        };
        self.made.insert(tls.id, Made { resolved, context });
        true
    }

    /// Those that are in use.
    pub(crate) fn servers(&mut self, used: impl Fn(&TlsId) -> bool) -> Servers {
        self.made.retain(|id, _| used(id));
        self.made.iter().map(|(id, made)| (*id, made.context.clone())).collect()
    }
}

/// How connections to the hosts of a cluster are made.
#[derive(Debug, Default)]
pub(crate) struct Transports {
    /// Of [`Cluster::transport_matches`], and last of [`Cluster::transport`].
    all: Vec<Arc<Transport>>,
}

/// How connections to some hosts are made.
#[derive(Clone, Default)]
pub(crate) struct Transport {
    pub(crate) proxy_protocol: Option<ProxyVersion>,
    pub(crate) security: Security,
    /// Whether the server is asked by the name in the request.
    pub(crate) asks_by_request: bool,
    resolved: Resolved,
}

/// What is around the bytes of a connection.
#[derive(Clone, Default)]
pub(crate) enum Security {
    #[default]
    Plain,
    Tls(Arc<ClientContext>),
    /// It should be TLS, and its secrets are not there.
    Missing,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let security = match self.security {
            Security::Plain => "plain",
            Security::Tls(_) => "tls",
            Security::Missing => "missing",
        };
        f.debug_struct("Transport").field("security", &security).finish_non_exhaustive()
    }
}

impl Transports {
    /// For a host.
    pub(crate) fn of(&self, cluster: &Cluster, host: Option<&Metadata>) -> Arc<Transport> {
        let matching = cluster.transport_matches.iter().position(|choice| choice.matches(host));
        self.all.get(matching.unwrap_or(cluster.transport_matches.len())).cloned().unwrap_or_default()
    }

    /// Those of a cluster; the same as `old` when nothing has changed. `None`: its secrets may still come.
    pub(crate) fn new(
        cluster: &Cluster,
        old: Option<&Arc<Transports>>,
        materials: &mut Materials,
    ) -> Option<Arc<Transports>> {
        let http = &cluster.http;
        let descriptions = cluster.transport_matches.iter().map(|choice| &choice.transport);
        let mut all = Vec::with_capacity(cluster.transport_matches.len() + 1);
        let mut changed = old.is_none();
        for (i, description) in descriptions.chain([&cluster.transport]).enumerate() {
            let before = old.and_then(|old| old.all.get(i)).map(|old| &**old);
            let (transport, fresh) = Transport::new(description, before, http, materials)?;
            changed |= fresh;
            all.push(match (fresh, old.and_then(|old| old.all.get(i))) {
                (false, Some(same)) => same.clone(),
                _ => Arc::new(transport),
            });
        }
        match old {
            Some(old) if !changed => Some(old.clone()),
            _ => Some(Arc::new(Transports { all })),
        }
    }
}

impl Transport {
    fn new(
        description: &UpstreamTransport,
        old: Option<&Transport>,
        http: &UpstreamHttp,
        materials: &mut Materials,
    ) -> Option<(Transport, bool)> {
        let proxy_protocol = description.proxy_protocol;
        let asks_by_request = http.auto_sni && description.tls.is_some();
        let Some(tls) = &description.tls else {
            let plain = Transport { proxy_protocol, ..Transport::default() };
            return Some((plain, old.is_none()));
        };
        let working = old.filter(|old| matches!(old.security, Security::Tls(_)));
        let resolved = match (materials.resolve(&tls.common), working) {
            (Ok(resolved), Some(old)) if old.resolved.is(&resolved) => return Some((old.clone(), false)),
            (Ok(resolved), _) => resolved,
            (Err(_), Some(old)) => return Some((old.clone(), false)),
            (Err(Unresolved::Awaited), None) => return None,
            (Err(Unresolved::Missing), None) => {
                let security = Security::Missing;
                let missing = Transport { proxy_protocol, security, asks_by_request, resolved: Resolved::default() };
                let fresh = !old.is_some_and(|old| matches!(old.security, Security::Missing));
                return Some((missing, fresh));
            }
        };
        let certificate = resolved.certificates.first();
        let security = match ClientContext::new(tls, certificate, resolved.checks(), http.auto_san_validation) {
            Ok(context) => Security::Tls(Arc::new(context)),
            Err(error) => {
                tracing::warn!("a TLS configuration cannot be used with its secrets: {error}");
                Security::Missing
            }
        };
        Some((Transport { proxy_protocol, security, asks_by_request, resolved }, true))
    }
}
