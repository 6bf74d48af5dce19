//! Clusters that lead to the proxy's own workload.

use maille_api::networking::destination_rule::ConnectionPoolSettings;
use maille_model::{Address, InterceptionMode};
use maille_xds::types;
use maille_xds::types::cluster::Cluster;
use maille_xds::types::cluster::cluster::{DiscoveryType, LbPolicy};
use maille_xds::types::core::{BindConfig, SocketAddress, socket_address};
use maille_xds::types::endpoint::lb_endpoint::HostIdentifier;
use maille_xds::types::endpoint::{Endpoint, LbEndpoint, LocalityLbEndpoints};

use super::base::Draft;
use super::policy::Policy;
use super::pool;
use crate::Context;
use crate::convert;
use crate::inbound_ports::InboundPort;

/// Connections to the workload come from this address, by which capture rules know not to redirect them once more.
const SOURCE_V4: &str = "127.0.0.6";
const SOURCE_V6: &str = "::6";
/// The longest span Envoy can say: hosts of inbound clusters are never forgotten.
const NEVER: i64 = 9_223_372_035;

pub(super) fn build(context: &Context<'_>) -> Vec<Cluster> {
    context.inbound_ports().iter().map(|port| cluster(context, port)).collect()
}

fn cluster(context: &Context<'_>, port: &InboundPort) -> Cluster {
    let name = convert::inbound_cluster(port.number);
    let mut draft = match &port.endpoint {
        Some(address) => {
            let mut draft = Draft::new(name, DiscoveryType::Static);
            draft.set_endpoints(vec![only(address)]);
            draft
        }
        None => {
            let mut draft = Draft::new(name, DiscoveryType::OriginalDst);
            draft.cluster.cleanup_interval = Some(convert::seconds(NEVER));
            draft
        }
    };
    draft.set_upstream_protocol(port.port.protocol, context);
    let first = port.targets.first();
    if first.is_some_and(|target| !target.service.mesh_external) {
        let of_port = port.targets.iter().filter(|target| target.port.number == port.port.number);
        draft.services(of_port.map(|target| target.service.as_ref()));
    }
    if let Some(target) = first {
        let pattern = &context.mesh().inbound_cluster_stat_name;
        draft.set_stat_name(pattern, &target.service, "", &port.port, port.number);
    }
    // What clients are allowed of the service, its own proxy has to take.
    let rule = first.and_then(|target| context.snapshot.inbound_destination_rule(context.proxy, &target.service));
    let number = first.map_or(port.port.number, |target| target.port.number);
    let policy = Policy::new(context.mesh(), rule.as_ref().map(|rule| &rule.rule), None, number);
    let settings = sidecar_pool(context, port).or(policy.connection_pool);
    pool::apply(&mut draft, context.mesh(), settings, policy.retry_budget);
    if port.endpoint.is_none() {
        draft.cluster.set_lb_policy(LbPolicy::ClusterProvided);
    }
    let is_loopback = matches!(&port.endpoint, Some(Address::Ip(host, _)) if host == "127.0.0.1" || host == "::1");
    let captured = context.proxy.metadata.interception_mode != InterceptionMode::None;
    if captured && !is_loopback {
        draft.cluster.upstream_bind_config = Some(source(context));
    }
    draft.finish()
}

/// A Sidecar's word on the port, else on all of them.
fn sidecar_pool<'a>(context: &'a Context<'_>, port: &InboundPort) -> Option<&'a ConnectionPoolSettings> {
    let (_, sidecar) = context.scope.sidecar.as_ref()?;
    let own = |listener: &&maille_api::networking::sidecar::IstioIngressListener| {
        listener.port.as_ref().is_some_and(|declared| declared.number == port.number)
    };
    let of_port = sidecar.ingress.iter().find(own).and_then(|listener| listener.connection_pool.as_ref());
    of_port.or(sidecar.inbound_connection_pool.as_ref())
}

fn only(address: &Address) -> LocalityLbEndpoints {
    let address = match address {
        Address::Ip(host, port) | Address::Name(host, port) => convert::address(host, *port),
        Address::Unix(path) => convert::address(&format!("unix://{path}"), 0),
    };
    let endpoint = Endpoint { address: Some(address), ..Endpoint::default() };
    LocalityLbEndpoints {
        lb_endpoints: vec![LbEndpoint {
            host_identifier: Some(HostIdentifier::Endpoint(endpoint)),
            ..LbEndpoint::default()
        }],
        ..LocalityLbEndpoints::default()
    }
}

/// The address that connections to the workload come from, of each family the proxy has.
pub(super) fn source(context: &Context<'_>) -> BindConfig {
    let socket = |address: &str| SocketAddress {
        address: address.to_owned(),
        port_specifier: Some(socket_address::PortSpecifier::PortValue(0)),
        ..SocketAddress::default()
    };
    let (v4, v6) = (context.proxy.supports_ipv4(), context.proxy.supports_ipv6());
    let extra = (v4 && v6).then(|| types::core::ExtraSourceAddress {
        address: Some(socket(SOURCE_V6)),
        ..types::core::ExtraSourceAddress::default()
    });
    BindConfig {
        source_address: Some(socket(if v4 { SOURCE_V4 } else { SOURCE_V6 })),
        extra_source_addresses: extra.into_iter().collect(),
        ..BindConfig::default()
    }
}
