//! Istio's standard metrics: requests and connections by who called whom.
//!
//! Who the other side is comes from what discovery says of its endpoint and its cluster, and from its certificate. A pair is
//! looked up by a hash once per request; there is an end to how many pairs are told apart.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use ahash::{AHashMap, RandomState};
use maille_http::HeaderId;
use maille_telemetry::metrics::{Ended, Registry, RequestMetrics};
use maille_xds::types::ValueKind;
use maille_xds::types::core::Node;

use super::connection::ConnectionInfo;
use super::record::Record;
use super::reply::is_grpc;
use super::scratch::Scratch;
use crate::config::{Direction, IstioStats, Metadata};
use crate::upstream::{ClusterEntry, WorkerHost};

/// More pairs than this share one series: whoever can make up names cannot fill our memory with them.
const MOST_PAIRS: usize = 2048;

const UNKNOWN: &str = "unknown";

/// Who a workload is, in metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnWorkload {
    name: String,
    namespace: String,
    app: String,
    version: String,
    service: String,
    revision: String,
    cluster: String,
}

impl OwnWorkload {
    /// The one that a proxy's node introduces.
    pub(crate) fn of(node: &Node) -> OwnWorkload {
        let fields = node.metadata.as_ref().map(|metadata| &metadata.fields);
        let text = |name: &str| match fields?.get(name)?.kind.as_ref()? {
            ValueKind::StringValue(text) if !text.is_empty() => Some(text.clone()),
            _ => None,
        };
        let label = |names: &[&str]| {
            let Some(ValueKind::StructValue(labels)) = fields?.get("LABELS")?.kind.as_ref() else { return None };
            names.iter().find_map(|name| match labels.fields.get(*name)?.kind.as_ref()? {
                ValueKind::StringValue(text) => Some(text.clone()),
                _ => None,
            })
        };
        let or = |found: Option<String>| found.unwrap_or_else(|| UNKNOWN.to_owned());
        let name = text("WORKLOAD_NAME");
        let service = label(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
        let revision = label(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
        OwnWorkload {
            service: or(service.or_else(|| name.clone())),
            revision: revision.unwrap_or_else(|| "latest".to_owned()),
            name: or(name),
            namespace: or(text("NAMESPACE")),
            app: or(label(&["app"])),
            version: or(label(&["version"])),
            cluster: or(text("CLUSTER_ID")),
        }
    }

    fn as_peer(&self) -> Peer<'_> {
        let OwnWorkload { name, namespace, app, version, service, revision, cluster } = self;
        Peer { name, namespace, app, version, service, revision, cluster }
    }
}

/// One side of a pair.
#[derive(Clone, Copy, Debug)]
struct Peer<'a> {
    name: &'a str,
    namespace: &'a str,
    app: &'a str,
    version: &'a str,
    service: &'a str,
    revision: &'a str,
    cluster: &'a str,
}

impl<'a> Peer<'a> {
    const NOBODY: Peer<'static> = Peer {
        name: UNKNOWN,
        namespace: UNKNOWN,
        app: UNKNOWN,
        version: UNKNOWN,
        service: UNKNOWN,
        revision: UNKNOWN,
        cluster: UNKNOWN,
    };

    /// `workload;namespace;service;revision;cluster`, as endpoints have it.
    fn parse(text: &'a str) -> Peer<'a> {
        let mut parts = text.split(';').map(|part| if part.is_empty() { None } else { Some(part) });
        let mut next = || parts.next().flatten();
        let (name, namespace, service) = (next(), next(), next());
        let (revision, cluster) = (next(), next());
        let service = service.unwrap_or(UNKNOWN);
        let revision = revision.unwrap_or("latest");
        Peer {
            name: name.unwrap_or(UNKNOWN),
            namespace: namespace.unwrap_or(UNKNOWN),
            // Endpoints say no more than that.
            app: service,
            version: revision,
            service,
            revision,
            cluster: cluster.unwrap_or(UNKNOWN),
        }
    }

    fn of_principal(principal: &'a str) -> Peer<'a> {
        let namespace = principal.split_once("/ns/").and_then(|(_, rest)| rest.split('/').next());
        Peer { namespace: namespace.unwrap_or(UNKNOWN), ..Peer::NOBODY }
    }
}

/// What distinguishes one series from another, but for how requests ended. One is made for each request, so it is texts as they
/// stand; they are taken apart when there is a new series.
#[derive(Clone, Copy, Debug, Hash)]
struct Pair<'a> {
    at_server: bool,
    /// Who the other side is: to a client, the workload as its endpoint has it; to a server, whom a certificate has proven.
    peer: Option<&'a str>,
    /// Who we have proven to be, at a server.
    own_principal: Option<&'a str>,
    /// The service: host, name, namespace.
    host: Option<&'a str>,
    service: Option<&'a str>,
    namespace: Option<&'a str>,
    protocol: &'static str,
    security: &'static str,
}

/// A worker's metrics of all pairs.
pub(crate) struct Reports {
    own: Arc<OwnWorkload>,
    registry: Registry,
    hasher: RandomState,
    pairs: RefCell<AHashMap<u64, Rc<RequestMetrics>>>,
}

/// Where the requests of a connection were counted lately, by the host they went to.
#[derive(Default)]
pub(crate) struct Counted(RefCell<Vec<Seen>>);

struct Seen {
    host: Weak<WorkerHost>,
    protocol: &'static str,
    metrics: Rc<RequestMetrics>,
}

/// So many hosts of a connection's are remembered: who goes to more of them is looked up.
const MOST_SEEN: usize = 4;

impl Counted {
    fn find(&self, host: &Rc<WorkerHost>, protocol: &str) -> Option<Rc<RequestMetrics>> {
        let seen = self.0.borrow();
        let found = seen.iter().find(|seen| seen.host.as_ptr() == Rc::as_ptr(host) && seen.protocol == protocol)?;
        Some(found.metrics.clone())
    }

    fn remember(&self, host: &Rc<WorkerHost>, protocol: &'static str, metrics: &Rc<RequestMetrics>) {
        let mut seen = self.0.borrow_mut();
        seen.retain(|seen| seen.host.strong_count() > 0);
        if seen.len() < MOST_SEEN {
            seen.push(Seen { host: Rc::downgrade(host), protocol, metrics: metrics.clone() });
        }
    }
}

impl Reports {
    pub(crate) fn new(own: Arc<OwnWorkload>, registry: &Registry) -> Reports {
        Reports { own, registry: registry.clone(), hasher: RandomState::new(), pairs: RefCell::default() }
    }

    /// A request is over.
    pub(crate) fn request(
        &self,
        info: &ConnectionInfo,
        record: &Record<'_>,
        stats: IstioStats,
        scratch: &Scratch,
        took: Duration,
    ) {
        let protocol = if is_grpc(&scratch.request) { "grpc" } else { "http" };
        let seen = record.host.as_ref().and_then(|host| info.counted.find(host, protocol));
        let metrics = seen.unwrap_or_else(|| self.look_up(info, record, stats, scratch, protocol));
        let grpc = scratch.response.headers.get(HeaderId::GrpcStatus).filter(|_| protocol == "grpc");
        metrics.request(&Ended {
            status: record.status,
            flags: record.flags,
            grpc: grpc.and_then(|status| std::str::from_utf8(status).ok()?.parse().ok()),
            took,
            received: record.received,
            sent: record.sent,
        });
    }

    fn look_up(
        &self,
        info: &ConnectionInfo,
        record: &Record<'_>,
        stats: IstioStats,
        scratch: &Scratch,
        protocol: &'static str,
    ) -> Rc<RequestMetrics> {
        let authority = std::str::from_utf8(scratch.request.authority()).unwrap_or_default();
        let metadata = record.host.as_ref().and_then(|host| host.host.metadata.as_deref());
        let cluster = record.cluster.as_deref();
        let metrics = self.metrics(&pair(info, cluster, metadata, stats, protocol, authority));
        // All else that a pair is made of stays with the connection and the host.
        let has_host = cluster.and_then(service).is_some_and(|service| service.get("host").is_some());
        let by_authority = stats.host_fallback && !has_host;
        if let Some(host) = record.host.as_ref().filter(|_| !by_authority) {
            info.counted.remember(host, protocol, &metrics);
        }
        metrics
    }

    /// A connection has reached its host.
    pub(crate) fn opened(
        &self,
        info: &ConnectionInfo,
        cluster: Option<&Arc<ClusterEntry>>,
        host: Option<&Metadata>,
        stats: IstioStats,
    ) {
        self.metrics(&pair(info, cluster, host, stats, "tcp", "")).opened();
    }

    /// A connection is over; how many bytes came from the client, and went to it.
    pub(crate) fn closed(
        &self,
        info: &ConnectionInfo,
        cluster: Option<&Arc<ClusterEntry>>,
        host: Option<&Metadata>,
        stats: IstioStats,
        (received, sent): (u64, u64),
    ) {
        self.metrics(&pair(info, cluster, host, stats, "tcp", "")).moved(received, sent, true);
    }

    fn metrics(&self, pair: &Pair<'_>) -> Rc<RequestMetrics> {
        let mut pairs = self.pairs.borrow_mut();
        let key = self.hasher.hash_one(pair);
        if let Some(found) = pairs.get(&key) {
            return found.clone();
        }
        if pairs.len() < MOST_PAIRS {
            return pairs.entry(key).or_insert_with(|| Rc::new(self.series(pair))).clone();
        }
        // Everybody else: what they have in common is where they were counted.
        let rest = Pair { peer: None, own_principal: None, host: None, service: None, namespace: None, ..*pair };
        pairs.entry(self.hasher.hash_one(rest)).or_insert_with(|| Rc::new(self.series(&rest))).clone()
    }

    fn series<'a>(&'a self, pair: &Pair<'a>) -> RequestMetrics {
        let own = self.own.as_peer();
        let (source, destination) = match pair.at_server {
            true => (pair.peer.map_or(Peer::NOBODY, Peer::of_principal), own),
            false => (own, pair.peer.map_or(Peer::NOBODY, Peer::parse)),
        };
        let or = |text: Option<&'a str>| text.unwrap_or(UNKNOWN);
        let labels = [
            ("reporter", if pair.at_server { "destination" } else { "source" }),
            ("source_workload", source.name),
            ("source_canonical_service", source.service),
            ("source_canonical_revision", source.revision),
            ("source_workload_namespace", source.namespace),
            ("source_principal", or(pair.peer.filter(|_| pair.at_server))),
            ("source_app", source.app),
            ("source_version", source.version),
            ("source_cluster", source.cluster),
            ("destination_workload", destination.name),
            ("destination_workload_namespace", destination.namespace),
            ("destination_principal", or(pair.own_principal)),
            ("destination_app", destination.app),
            ("destination_version", destination.version),
            ("destination_service", or(pair.host)),
            ("destination_canonical_service", destination.service),
            ("destination_canonical_revision", destination.revision),
            ("destination_service_name", or(pair.service)),
            ("destination_service_namespace", pair.namespace.unwrap_or(destination.namespace)),
            ("destination_cluster", destination.cluster),
            ("request_protocol", pair.protocol),
            ("connection_security_policy", pair.security),
        ];
        RequestMetrics::new(&self.registry, &labels)
    }
}

fn pair<'a>(
    info: &'a ConnectionInfo,
    cluster: Option<&'a Arc<ClusterEntry>>,
    host: Option<&'a Metadata>,
    stats: IstioStats,
    protocol: &'static str,
    authority: &'a str,
) -> Pair<'a> {
    let text = |metadata: Option<&'a Metadata>, path: &[&str]| metadata?.get("istio", path)?.as_str();
    let at_server = stats.as_server || info.listener.direction == Direction::Inbound;
    let config = cluster.map(|cluster| &cluster.config);
    let service = cluster.and_then(service);
    let of_service = |key: &str| service.and_then(|service| service.get(key)?.as_str());
    let fallback = Some(authority).filter(|authority| stats.host_fallback && !authority.is_empty());
    let san = |sans: &'a [Box<str>]| sans.first().map(|san| &**san);
    let tls = info.tls.as_deref();
    let peer = tls.and_then(|tls| tls.peer.as_ref()).filter(|_| tls.is_some_and(|tls| tls.peer_validated));
    Pair {
        at_server,
        peer: match at_server {
            true => peer.and_then(|peer| san(&peer.uri_sans)),
            false => text(host, &["workload"]),
        },
        own_principal: tls.filter(|_| at_server).and_then(|tls| san(&tls.local.as_deref()?.uri_sans)),
        host: of_service("host").or(fallback),
        service: of_service("name").or_else(|| config.map(|c| name_of(&c.name))),
        namespace: of_service("namespace"),
        protocol,
        security: match (at_server, peer) {
            (false, _) => UNKNOWN,
            (true, Some(_)) => "mutual_tls",
            (true, None) => "none",
        },
    }
}

/// The service that a cluster is of.
fn service(cluster: &Arc<ClusterEntry>) -> Option<&serde_json::Value> {
    cluster.config.metadata.as_deref()?.get("istio", &["services"])?.get(0)
}

/// What a cluster without a service is called: clusters that only pass on have names that say so.
fn name_of(cluster: &str) -> &str {
    match cluster {
        "InboundPassthroughCluster" | "PassthroughCluster" | "BlackHoleCluster" => cluster,
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_and_principals_say_who_they_are() {
        let peer = Peer::parse("reviews-v1;shop;reviews;v1;Kubernetes");
        assert_eq!(
            (peer.name, peer.namespace, peer.service, peer.revision, peer.cluster),
            ("reviews-v1", "shop", "reviews", "v1", "Kubernetes")
        );
        let peer = Peer::parse("reviews-v1;shop;reviews;;");
        assert_eq!((peer.revision, peer.cluster), ("latest", UNKNOWN));
        assert_eq!(Peer::of_principal("spiffe://cluster.local/ns/shop/sa/web").namespace, "shop");
        assert_eq!(Peer::of_principal(UNKNOWN).namespace, UNKNOWN);
        assert_eq!(OwnWorkload::of(&Node::default()).as_peer().revision, "latest");
    }
}
