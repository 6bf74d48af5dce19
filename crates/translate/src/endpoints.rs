//! Endpoints (EDS): who serves each cluster, by locality and priority.

pub(crate) mod spread;

use std::collections::{BTreeMap, HashMap};

use maille_api::networking::destination_rule::ClientTlsMode;
use maille_model::endpoint::TLS_MODE_ISTIO;
use maille_model::{Address, Endpoint, Health, Locality, MutualTls, Port, Service, TrafficDistribution};
use maille_xds::types::cluster::Cluster;
use maille_xds::types::cluster::cluster::common_lb_config::LocalityConfigSpecifier;
use maille_xds::types::core;
use maille_xds::types::core::{HealthStatus, Metadata};
use maille_xds::types::endpoint::lb_endpoint::HostIdentifier;
use maille_xds::types::endpoint::{self, ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints};
use maille_xds::types::{Struct, UInt32Value, Value, ValueKind};

use crate::Context;
use crate::clusters::policy::Policy;
use crate::convert;
use spread::{Group, Spread};

/// Which transport socket of its cluster an endpoint takes, and by which of the metadata.
const TRANSPORT_SOCKET_MATCH: &str = "envoy.transport_socket_match";
pub(crate) const TLS_MODE: &str = "tlsMode";

/// The endpoints of every cluster that gets them from us.
pub(crate) fn build(context: &Context<'_>, clusters: &[Cluster]) -> Vec<ClusterLoadAssignment> {
    let by_eds = clusters.iter().filter(|cluster| cluster.eds_cluster_config.is_some());
    let mut all: Vec<_> = by_eds.map(|cluster| assignment(context, &cluster.name)).collect();
    all.extend(clusters.iter().any(is_zone_aware).then(|| peers(context)));
    all
}

/// The name under which a proxy learns who else is like it, and where: what balancing by zones compares with. It is
/// the proxy's own bootstrap that has a cluster of this name.
const PEERS: &str = "local_cluster";
/// Of several versions of a workload, only the proxy's own counts: others may be placed differently.
const VERSIONS: [&str; 2] = ["pod-template-hash", "rollouts-pod-template-hash"];

fn is_zone_aware(cluster: &Cluster) -> bool {
    let common = cluster.common_lb_config.as_ref();
    let localities = common.and_then(|common| common.locality_config_specifier.as_ref());
    matches!(localities, Some(LocalityConfigSpecifier::ZoneAwareLbConfig(_)))
}

fn has_labels_of(endpoint: &Endpoint, labels: &BTreeMap<String, String>) -> bool {
    !labels.is_empty() && labels.iter().all(|(name, value)| endpoint.labels.get(name) == Some(value))
}

/// The proxy's own workload in its own region, by locality.
fn peers(context: &Context<'_>) -> ClusterLoadAssignment {
    let (proxy, snapshot) = (context.proxy, context.snapshot);
    let first = context.targets.first();
    let endpoints = first.map_or(&[][..], |target| snapshot.endpoints(&target.service, target.port.number));
    let same_version = |endpoint: &Endpoint| {
        VERSIONS.iter().all(|version| endpoint.labels.get(*version) == proxy.labels.get(*version))
    };
    let mut by_locality: BTreeMap<&Locality, Vec<&Endpoint>> = BTreeMap::new();
    for endpoint in endpoints {
        // Workloads outside of a cluster have names of their own each: their labels say which are alike.
        let is_alike = endpoint.workload_name == proxy.metadata.workload_name || has_labels_of(endpoint, &proxy.labels);
        if is_alike
            && endpoint.locality.region == proxy.locality.region
            && !matches!(endpoint.address, Address::Name(..))
            && same_version(endpoint)
        {
            by_locality.entry(&endpoint.locality).or_default().push(endpoint);
        }
    }
    let groups = by_locality.into_iter().map(|(locality, endpoints)| Group::new(locality.clone(), endpoints));
    ClusterLoadAssignment {
        cluster_name: PEERS.to_owned(),
        endpoints: groups.map(|group| encode_group(context, group, None)).collect(),
        ..ClusterLoadAssignment::default()
    }
}

fn assignment(context: &Context<'_>, name: &str) -> ClusterLoadAssignment {
    let endpoints = find(context, name).unwrap_or_default();
    ClusterLoadAssignment { cluster_name: name.to_owned(), endpoints, ..ClusterLoadAssignment::default() }
}

fn find(context: &Context<'_>, name: &str) -> Option<Vec<LocalityLbEndpoints>> {
    let (port, subset, host) = parse_name(name)?;
    let service = context.scope.service(host)?;
    let rule = context.snapshot.destination_rule(context.proxy, service);
    let subset = match (&rule, subset) {
        (_, "") => None,
        (Some(rule), subset) => rule.subset(subset),
        (None, _) => None,
    };
    let policy = Policy::new(context.mesh(), rule.as_ref().map(|rule| &rule.rule), subset, port);
    let tls_mode = rule.as_ref().and_then(|rule| Policy::tls_mode(&rule.rule, subset, port));
    let of = OfService { labels: subset.map(|subset| &subset.labels), tls_mode, ..OfService::default() };
    // A gateway that passes TLS on cannot tell what is inside: it reaches none that would take anything else.
    let mutual_only = name.starts_with(SERVER_NAME);
    Some(of_service(context, service, service.port(port)?, &policy, &OfService { mutual_only, ..of }))
}

/// Which endpoints of a service are wanted, and for what.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OfService<'a> {
    /// The labels of a subset.
    pub(crate) labels: Option<&'a BTreeMap<String, String>>,
    /// What the DestinationRule says of TLS.
    pub(crate) tls_mode: Option<ClientTlsMode>,
    /// The cluster resolves names itself.
    pub(crate) by_name: bool,
    /// Only those that take mutual TLS.
    pub(crate) mutual_only: bool,
}

/// What the names of clusters begin with that can be server names.
const SERVER_NAME: &str = "outbound_.";

/// Port, subset and host of `outbound|PORT|SUBSET|HOST`, or of the form in which it is a server name.
fn parse_name(name: &str) -> Option<(u32, &str, &str)> {
    let mut parts = match name.strip_prefix("outbound|") {
        Some(rest) => rest.splitn(3, '|'),
        None => return parse_server_name(name),
    };
    Some((parts.next()?.parse().ok()?, parts.next()?, parts.next()?))
}

fn parse_server_name(name: &str) -> Option<(u32, &str, &str)> {
    let mut parts = name.strip_prefix(SERVER_NAME)?.splitn(3, "_.");
    Some((parts.next()?.parse().ok()?, parts.next()?, parts.next()?))
}

/// Who serves a port of a service, or a subset of them.
pub(crate) fn of_service(
    context: &Context<'_>,
    service: &Service,
    port: &Port,
    policy: &Policy<'_>,
    wanted: &OfService<'_>,
) -> Vec<LocalityLbEndpoints> {
    let endpoints = context.snapshot.endpoints(service, port.number).iter();
    let usable = endpoints.filter(|endpoint| {
        (wanted.by_name || !matches!(endpoint.address, Address::Name(..)))
            && wanted
                .labels
                .is_none_or(|labels| labels.iter().all(|(name, value)| endpoint.labels.get(name) == Some(value)))
            && is_visible(context, endpoint)
            && (!wanted.mutual_only || takes_mutual_tls(context, endpoint, wanted.tls_mode))
            && (endpoint.health == Health::Healthy || wants_unhealthy(service, policy))
    });
    let mut by_locality: BTreeMap<&Locality, Vec<&Endpoint>> = BTreeMap::new();
    for endpoint in usable {
        by_locality.entry(&endpoint.locality).or_default().push(endpoint);
    }
    let groups: Vec<Group<'_>> =
        by_locality.into_iter().map(|(locality, endpoints)| Group::new(locality.clone(), endpoints)).collect();
    let spread = Spread::new(context.mesh(), policy.load_balancer, service);
    let groups = spread.apply(groups, context.proxy, policy.outlier_detection.is_some());
    groups.into_iter().map(|group| encode_group(context, group, wanted.tls_mode)).collect()
}

/// Whether to speak mutual TLS with an endpoint: as the rule says, else where there is a sidecar that takes it.
fn takes_mutual_tls(context: &Context<'_>, endpoint: &Endpoint, tls_mode: Option<ClientTlsMode>) -> bool {
    match tls_mode {
        Some(mode) => mode == ClientTlsMode::IstioMutual,
        None if !endpoint.has_mutual_tls() => false,
        None => {
            let mode = context.snapshot.peer_mode(&endpoint.namespace, &endpoint.labels);
            mode.of_port(endpoint.address.port()) != MutualTls::Disable
        }
    }
}

/// How many endpoints are unhealthy tells Envoy when to go further away. It does no harm unless a rule has them used
/// when too few are left.
fn wants_unhealthy(service: &Service, policy: &Policy<'_>) -> bool {
    service.traffic_distribution != TrafficDistribution::Any
        || policy.outlier_detection.is_none_or(|settings| settings.min_health_percent <= 0)
}

fn is_visible(context: &Context<'_>, endpoint: &Endpoint) -> bool {
    let view = &context.proxy.metadata.requested_network_view;
    view.is_empty() || endpoint.network.is_empty() || view.contains(&endpoint.network)
}

fn encode_group(context: &Context<'_>, group: Group<'_>, tls_mode: Option<ClientTlsMode>) -> LocalityLbEndpoints {
    let locality = &group.locality;
    LocalityLbEndpoints {
        locality: Some(core::Locality {
            region: locality.region.clone(),
            zone: locality.zone.clone(),
            sub_zone: locality.subzone.clone(),
        }),
        load_balancing_weight: Some(UInt32Value { value: group.weight }),
        priority: group.priority,
        lb_endpoints: group.endpoints.into_iter().map(|endpoint| encode(context, endpoint, tls_mode)).collect(),
        ..LocalityLbEndpoints::default()
    }
}

fn encode(context: &Context<'_>, endpoint: &Endpoint, tls_mode: Option<ClientTlsMode>) -> LbEndpoint {
    let mut metadata = workload_metadata(endpoint, &context.proxy.cluster_id);
    if takes_mutual_tls(context, endpoint, tls_mode) {
        let value = Value { kind: Some(ValueKind::StringValue(TLS_MODE_ISTIO.to_owned())) };
        let fields = HashMap::from([(TLS_MODE.to_owned(), value)]);
        let mut by_filter: Vec<(String, Struct)> = metadata.filter_metadata.into_iter().collect();
        by_filter.push((TRANSPORT_SOCKET_MATCH.to_owned(), Struct { fields }));
        metadata.filter_metadata = convert::ordered_map(by_filter);
    }
    let address = match &endpoint.address {
        Address::Ip(host, port) | Address::Name(host, port) => convert::address(host, *port),
        Address::Unix(path) => convert::address(&format!("unix://{path}"), 0),
    };
    let status = match endpoint.health {
        // Unknown is what Envoy takes for healthy when nobody checks.
        Health::Healthy => HealthStatus::Unknown,
        Health::Unhealthy => HealthStatus::Unhealthy,
    };
    LbEndpoint {
        health_status: status.into(),
        metadata: Some(metadata),
        load_balancing_weight: Some(UInt32Value { value: endpoint.weight.max(1) }),
        host_identifier: Some(HostIdentifier::Endpoint(endpoint::Endpoint {
            address: Some(address),
            ..endpoint::Endpoint::default()
        })),
    }
}

/// `workload;namespace;service;revision;cluster`: what metrics call the other side, known before it has answered.
fn workload_metadata(endpoint: &Endpoint, cluster: &str) -> Metadata {
    let label = |names: &[&str]| names.iter().find_map(|name| endpoint.labels.get(*name)).map(String::as_str);
    let service = label(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
    let revision = label(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
    let workload = format!(
        "{};{};{};{};{cluster}",
        endpoint.workload_name,
        endpoint.namespace,
        service.unwrap_or(&endpoint.workload_name),
        revision.filter(|revision| *revision != "latest").unwrap_or_default(),
    );
    let fields = HashMap::from([("workload".to_owned(), Value { kind: Some(ValueKind::StringValue(workload)) })]);
    Metadata {
        filter_metadata: HashMap::from([("istio".to_owned(), Struct { fields })]),
        typed_filter_metadata: HashMap::new(),
    }
}
