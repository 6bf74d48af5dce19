//! Clusters for the services the proxy may call.

use maille_api::networking::destination_rule::{LbPolicy, SimpleLb, Subset};
use maille_model::host::is_wildcard;
use maille_model::{Endpoint, MergedRule, MutualTls, Port, Protocol, Resolution, Service, TargetPort};
use maille_xds::types::cluster::Cluster;
use maille_xds::types::cluster::cluster::{DiscoveryType, LbConfig, LbPolicy as EnvoyLbPolicy, OriginalDstLbConfig};
use maille_xds::types::{UInt32Value, ValueKind};

use super::base::Draft;
use super::policy::Policy;
use super::{balance, dynamic, outlier, pool, tls};
use crate::Context;
use crate::convert::outbound_cluster;
use crate::endpoints::{self, OfService};

pub(super) fn build(context: &Context<'_>) -> Vec<Cluster> {
    let mut clusters = Vec::new();
    for (service, port) in callable(context) {
        let rule = context.snapshot.destination_rule(context.proxy, service);
        let maker = Maker { context, service, port, rule: rule.as_deref(), server_names: false };
        clusters.extend(maker.clusters());
    }
    clusters
}

/// The same services under names that can be server names, for gateways that pass TLS on by them. They forward bytes
/// that are encrypted already.
pub(super) fn build_sni_dnat(context: &Context<'_>) -> Vec<Cluster> {
    let mut clusters = Vec::new();
    for (service, port) in callable(context).filter(|(service, _)| !service.mesh_external) {
        let rule = context.snapshot.destination_rule(context.proxy, service);
        let maker = Maker { context, service, port, rule: rule.as_deref(), server_names: true };
        clusters.extend(maker.clusters());
    }
    clusters
}

fn callable<'c>(context: &'c Context<'_>) -> impl Iterator<Item = (&'c Service, &'c Port)> {
    // An alias has no clusters: its routes lead to the service it stands for.
    let services = context.scope.services().iter().filter(|service| service.resolution != Resolution::Alias);
    services
        .flat_map(|service| service.ports.iter().map(move |port| (service.as_ref(), port)))
        .filter(|(_, port)| port.protocol != Protocol::Udp)
}

/// The server name of a port of a service, or of a subset of it.
pub(super) fn server_name(port: u32, subset: &str, host: &str) -> String {
    format!("outbound_.{port}_.{subset}_.{host}")
}

struct Maker<'a, 'c> {
    context: &'a Context<'c>,
    service: &'a Service,
    port: &'a Port,
    rule: Option<&'a MergedRule>,
    server_names: bool,
}

impl Maker<'_, '_> {
    /// The service's own cluster first, then its subsets'. A service that cannot have a cluster has no subsets either.
    fn clusters(&self) -> Vec<Cluster> {
        if self.service.resolution == Resolution::DynamicDns && is_wildcard(&self.service.hostname) {
            return self.dynamic().into_iter().collect();
        }
        let Some(main) = self.cluster(None) else { return Vec::new() };
        let subsets = self.rule.map_or(&[][..], |rule| rule.rule.subsets.as_slice());
        let mut clusters = vec![main];
        clusters.extend(subsets.iter().filter_map(|subset| self.cluster(Some(subset))));
        clusters
    }

    fn name(&self, subset: &str) -> String {
        let make = if self.server_names { server_name } else { outbound_cluster };
        make(self.port.number, subset, &self.service.hostname)
    }

    fn policy<'p>(&'p self, subset: Option<&'p Subset>) -> Policy<'p> {
        Policy::new(self.context.mesh(), self.rule.map(|rule| &rule.rule), subset, self.port.number)
    }

    fn cluster(&self, subset: Option<&Subset>) -> Option<Cluster> {
        let policy = self.policy(subset);
        let subset_name = subset.map_or("", |subset| subset.name.as_str());
        let own = subset.and_then(|subset| subset.traffic_policy.as_ref()).and_then(|own| own.load_balancer.as_ref());
        let passthrough = own.is_some_and(|own| own.lb_policy == Some(LbPolicy::Simple(SimpleLb::Passthrough)));
        let discovery = if passthrough { DiscoveryType::OriginalDst } else { self.discovery() };
        let mut draft = Draft::new(self.name(subset_name), discovery);
        match discovery {
            DiscoveryType::StrictDns | DiscoveryType::LogicalDns => {
                let wanted = OfService {
                    labels: subset.map(|subset| &subset.labels),
                    tls_mode: self.rule.and_then(|rule| Policy::tls_mode(&rule.rule, subset, self.port.number)),
                    by_name: true,
                    mutual_only: self.server_names,
                };
                let mut found = endpoints::of_service(self.context, self.service, self.port, &policy, &wanted);
                if discovery == DiscoveryType::LogicalDns {
                    // One name, resolved to one address at a time: Envoy takes no more than that.
                    found.truncate(1);
                    found.iter_mut().for_each(|group| group.lb_endpoints.truncate(1));
                }
                if found.iter().all(|group| group.lb_endpoints.is_empty()) {
                    return None;
                }
                draft.resolve_names(self.context);
                draft.set_endpoints(found);
            }
            DiscoveryType::OriginalDst => {
                if let TargetPort::Number(number) = self.port.target
                    && !self.service.is_kubernetes()
                {
                    draft.cluster.lb_config = Some(LbConfig::OriginalDstLbConfig(OriginalDstLbConfig {
                        upstream_port_override: Some(UInt32Value { value: number }),
                        ..OriginalDstLbConfig::default()
                    }));
                }
            }
            DiscoveryType::Eds | DiscoveryType::Static => {}
        }
        self.finish(draft, &policy, subset)
    }

    fn finish(&self, mut draft: Draft, policy: &Policy<'_>, subset: Option<&Subset>) -> Option<Cluster> {
        let mesh = self.context.mesh();
        let is_dynamic = draft.discovery().is_none();
        draft.set_upstream_protocol(self.port.protocol, self.context);
        let subset_name = subset.map_or("", |subset| subset.name.as_str());
        draft.set_stat_name(&mesh.outbound_cluster_stat_name, self.service, subset_name, self.port, 0);
        draft.services(std::iter::once(self.service));
        pool::upgrade(&mut draft, mesh, policy.connection_pool, self.port.protocol);
        pool::apply(&mut draft, mesh, policy.connection_pool, policy.retry_budget);
        outlier::apply(&mut draft, policy.outlier_detection, self.service);
        balance::apply(&mut draft, self.context, policy.load_balancer, self.service);
        if !self.server_names {
            let peer = tls::Peer {
                service: Some(self.service),
                server_name: server_name(self.port.number, subset_name, &self.service.hostname),
                selected: self.rule.is_some_and(|rule| rule.selector.is_some()),
                is_dynamic,
                protocol: self.port.protocol,
            };
            match policy.tls {
                Some(settings) => tls::apply(&mut draft, self.context, settings, &peer),
                None if self.takes_mutual_tls(policy) => tls::apply_automatic(&mut draft, self.context, &peer),
                None => {}
            }
            tls::proxy_protocol(&mut draft, policy.proxy_protocol);
        }
        if draft.discovery() == Some(DiscoveryType::OriginalDst) {
            draft.cluster.set_lb_policy(EnvoyLbPolicy::ClusterProvided);
        }
        if self.service.mesh_external && subset.is_none() {
            draft.metadata("external", ValueKind::BoolValue(true));
        }
        if let Some(key) = self.rule.and_then(|rule| rule.from.first()) {
            let path =
                format!("/apis/networking.istio.io/v1/namespaces/{}/destination-rule/{}", key.namespace, key.name);
            draft.metadata("config", ValueKind::StringValue(path));
        }
        if let Some(subset) = subset {
            draft.metadata("subset", ValueKind::StringValue(subset.name.clone()));
        }
        Some(draft.finish())
    }

    /// Whether mutual TLS is tried although nobody asked for it. Where a connection's endpoint is not ours to choose, all
    /// of them have to take it.
    fn takes_mutual_tls(&self, policy: &Policy<'_>) -> bool {
        let mesh = self.context.mesh();
        let is_off = mesh.enable_auto_mtls == Some(false)
            || self.context.proxy.metadata.no_identity
            || self.service.mesh_external
            || self.context.snapshot.namespace_mutual_tls(&self.service.namespace) == Some(MutualTls::Disable);
        if is_off {
            return false;
        }
        let passthrough = Some(LbPolicy::Simple(SimpleLb::Passthrough));
        let by_client = policy.load_balancer.is_some_and(|balancer| balancer.lb_policy == passthrough);
        if self.service.resolution != Resolution::Passthrough && !by_client {
            return true;
        }
        let endpoints = self.context.snapshot.endpoints(self.service, self.port.number);
        !endpoints.is_empty() && endpoints.iter().all(Endpoint::has_mutual_tls)
    }

    fn dynamic(&self) -> Option<Cluster> {
        if !matches!(self.port.protocol, Protocol::Http | Protocol::Http2 | Protocol::Grpc | Protocol::Tls) {
            return None;
        }
        let policy = self.policy(None);
        let cache = dynamic::service_cache(self.context.proxy, &self.service.hostname);
        let draft = dynamic::draft(self.name(""), cache, policy.tls.is_none_or(tls::is_unverified));
        self.finish(draft, &policy, None)
    }

    fn discovery(&self) -> DiscoveryType {
        match self.service.resolution {
            Resolution::Dns => DiscoveryType::StrictDns,
            Resolution::DnsRoundRobin => DiscoveryType::LogicalDns,
            // Without redirected connections there is no original destination: endpoints have to be sent.
            Resolution::Passthrough if self.context.proxy.is_router() || self.context.is_uncaptured() => {
                DiscoveryType::Eds
            }
            Resolution::Passthrough => DiscoveryType::OriginalDst,
            Resolution::ClientSideLb | Resolution::Alias | Resolution::DynamicDns => DiscoveryType::Eds,
        }
    }
}
