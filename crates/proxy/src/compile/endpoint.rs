//! `ClusterLoadAssignment`: the hosts of a cluster.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use maille_xds::types::core::address::Address as Addressed;
use maille_xds::types::core::socket_address::PortSpecifier;
use maille_xds::types::core::{self, HealthStatus};
use maille_xds::types::endpoint::lb_endpoint::HostIdentifier;
use maille_xds::types::endpoint::{self as proto, cluster_load_assignment};

use crate::compile::Refused;
use crate::compile::at::{At, Compiled, number, unset};
use crate::compile::matcher;
use crate::config::{Endpoint, EndpointAddress, Endpoints, Health, Locality, LocalityEndpoints, Metadata};

/// How much of the way to the next priority a priority's hosts may be over-used, in percent, unless it is said.
const OVERPROVISIONING: u32 = 140;

/// Compiles the hosts of a cluster.
pub fn endpoints(proto: &proto::ClusterLoadAssignment) -> Result<Endpoints, Refused> {
    load_assignment(&At::resource(&proto.cluster_name), proto)
}

pub(crate) fn load_assignment(at: &At<'_>, proto: &proto::ClusterLoadAssignment) -> Compiled<Endpoints> {
    let proto::ClusterLoadAssignment { cluster_name, endpoints, named_endpoints, policy } = proto;
    unset!(at; named_endpoints);
    let (mut overprovisioning_factor, mut weighted) = (OVERPROVISIONING, false);
    if let Some(policy) = policy {
        let at = at.field("policy");
        let cluster_load_assignment::Policy {
            drop_overloads,
            overprovisioning_factor: factor,
            endpoint_stale_after,
            weighted_priority_health,
        } = policy;
        unset!(at; drop_overloads, endpoint_stale_after);
        overprovisioning_factor = number(factor).unwrap_or(OVERPROVISIONING);
        weighted = *weighted_priority_health;
    }
    let localities = endpoints.iter().enumerate().map(|(i, proto)| locality(&at.item("endpoints", i), proto));
    Ok(Endpoints {
        cluster: cluster_name.as_str().into(),
        localities: localities.collect::<Compiled<_>>()?,
        overprovisioning_factor,
        weighted_priority_health: weighted,
    })
}

fn locality(at: &At<'_>, proto: &proto::LocalityLbEndpoints) -> Compiled<LocalityEndpoints> {
    let proto::LocalityLbEndpoints {
        locality,
        metadata: _,
        lb_endpoints,
        load_balancing_weight,
        priority,
        // For zones that know their distance; no balancer of ours or Envoy's reads it.
        proximity: _,
        lb_config,
    } = proto;
    unset!(at; lb_config);
    let place = locality.as_ref().map_or_else(Locality::default, |core::Locality { region, zone, sub_zone }| {
        Locality { region: region.as_str().into(), zone: zone.as_str().into(), sub_zone: sub_zone.as_str().into() }
    });
    let mut endpoints: Vec<Endpoint> = Vec::with_capacity(lb_endpoints.len());
    for (i, proto) in lb_endpoints.iter().enumerate() {
        // What is said of one host is mostly said of the next one too.
        let before = i.checked_sub(1).and_then(|before| Some((&lb_endpoints.get(before)?.metadata, endpoints.last()?)));
        let metadata = match before {
            Some((same, before)) if *same == proto.metadata => before.metadata.clone(),
            _ => matcher::metadata(&proto.metadata),
        };
        endpoints.push(host(&at.item("lb_endpoints", i), proto, metadata)?);
    }
    Ok(LocalityEndpoints { locality: place, priority: *priority, weight: number(load_balancing_weight), endpoints })
}

fn host(at: &At<'_>, proto: &proto::LbEndpoint, metadata: Option<Arc<Metadata>>) -> Compiled<Endpoint> {
    let proto::LbEndpoint { health_status, metadata: _, load_balancing_weight, host_identifier } = proto;
    let at = at.field("endpoint");
    let Some(HostIdentifier::Endpoint(endpoint)) = host_identifier else {
        return at.refuse("an endpoint must be given with its address");
    };
    let proto::Endpoint { address: place, health_check_config, hostname, additional_addresses, observability_name: _ } =
        endpoint;
    // Active health checks are refused with the cluster, so their settings per host mean nothing.
    let _ = health_check_config;
    let mut others = Vec::new();
    for (i, proto::endpoint::AdditionalAddress { address: other }) in additional_addresses.iter().enumerate() {
        let at = at.item("additional_addresses", i);
        match address(&at.field("address"), at.required("address", other)?)? {
            EndpointAddress::Socket(other) => others.push(other),
            _ => return at.field("address").refuse("must be an IP address"),
        }
    }
    Ok(Endpoint {
        address: address(&at.field("address"), at.required("address", place)?)?,
        others: others.into(),
        hostname: hostname.as_str().into(),
        weight: match number(load_balancing_weight) {
            Some(0) => return at.field("load_balancing_weight").refuse("0 is no weight: it starts at 1"),
            Some(weight) => weight,
            None => 1,
        },
        health: match at.one_of("health_status", *health_status)? {
            HealthStatus::Unknown | HealthStatus::Healthy => Health::Healthy,
            HealthStatus::Degraded => Health::Degraded,
            HealthStatus::Draining => Health::Draining,
            HealthStatus::Unhealthy | HealthStatus::Timeout => Health::Unhealthy,
        },
        metadata,
    })
}

/// An upstream's address; a name is for DNS.
pub(crate) fn address(at: &At<'_>, proto: &core::Address) -> Compiled<EndpointAddress> {
    match at.required("address", &proto.address)? {
        Addressed::SocketAddress(socket) => {
            let (host, port) = socket_address(&at.field("socket_address"), socket)?;
            Ok(match host.parse::<IpAddr>() {
                Ok(ip) => EndpointAddress::Socket(SocketAddr::new(ip, port)),
                Err(_) => EndpointAddress::Host(host.into(), port),
            })
        }
        Addressed::Pipe(core::Pipe { path, mode: _ }) => Ok(EndpointAddress::Unix(path.as_str().into())),
        Addressed::EnvoyInternalAddress(_) => at.field("envoy_internal_address").refuse("is not supported"),
    }
}

/// An address to listen on or to connect from: numbers only.
pub(crate) fn local_address(at: &At<'_>, proto: &core::Address) -> Compiled<SocketAddr> {
    match at.required("address", &proto.address)? {
        Addressed::SocketAddress(socket) => local_socket_address(&at.field("socket_address"), socket),
        Addressed::Pipe(_) => at.field("pipe").refuse("is not supported: listen on an IP address"),
        Addressed::EnvoyInternalAddress(_) => at.field("envoy_internal_address").refuse("is not supported"),
    }
}

pub(crate) fn local_socket_address(at: &At<'_>, proto: &core::SocketAddress) -> Compiled<SocketAddr> {
    let (host, port) = socket_address(at, proto)?;
    match host.parse() {
        Ok(ip) => Ok(SocketAddr::new(ip, port)),
        Err(_) => at.field("address").refuse(format!("{host:?} is no IP address")),
    }
}

fn socket_address<'v>(at: &At<'_>, proto: &'v core::SocketAddress) -> Compiled<(&'v str, u16)> {
    let core::SocketAddress {
        protocol,
        address,
        resolver_name,
        // IPv4 clients on an IPv6 socket: what Linux does anyway.
        ipv4_compat: _,
        network_namespace_filepath,
        port_specifier,
    } = proto;
    unset!(at; protocol, resolver_name, network_namespace_filepath);
    let port = match port_specifier {
        Some(PortSpecifier::PortValue(port)) => *port,
        Some(PortSpecifier::NamedPort(_)) => return at.field("named_port").refuse("is not supported"),
        None => 0,
    };
    match u16::try_from(port) {
        Ok(port) => Ok((at.text("address", address)?, port)),
        Err(_) => at.field("port_value").refuse(format!("{port} is no port")),
    }
}

#[cfg(test)]
mod tests {
    use maille_xds::types::{Struct, Value, ValueKind};

    use super::*;

    #[test]
    fn neighbours_share_what_is_said_of_both() {
        let host = |last: u8, mode: &str| {
            let address = core::SocketAddress {
                address: format!("10.0.0.{last}"),
                port_specifier: Some(PortSpecifier::PortValue(80)),
                ..Default::default()
            };
            let address = core::Address { address: Some(Addressed::SocketAddress(address)) };
            let value = Value { kind: Some(ValueKind::StringValue(mode.to_owned())) };
            let fields = Struct { fields: [("tlsMode".to_owned(), value)].into() };
            let filter_metadata = [("envoy.transport_socket_match".to_owned(), fields)].into();
            proto::LbEndpoint {
                metadata: Some(core::Metadata { filter_metadata, ..Default::default() }),
                host_identifier: Some(HostIdentifier::Endpoint(proto::Endpoint {
                    address: Some(address),
                    ..Default::default()
                })),
                ..Default::default()
            }
        };
        let lb_endpoints = vec![host(1, "istio"), host(2, "istio"), host(3, "disabled")];
        let locality = proto::LocalityLbEndpoints { lb_endpoints, ..Default::default() };
        let assignment = proto::ClusterLoadAssignment { endpoints: vec![locality], ..Default::default() };
        let Ok(compiled) = endpoints(&assignment) else { panic!("refused") };
        let all: Vec<&Arc<Metadata>> =
            compiled.localities[0].endpoints.iter().filter_map(|endpoint| endpoint.metadata.as_ref()).collect();
        let mode = |at: usize| all[at].get("envoy.transport_socket_match", &["tlsMode"]).and_then(|mode| mode.as_str());
        assert_eq!([mode(0), mode(1), mode(2)], [Some("istio"), Some("istio"), Some("disabled")]);
        assert!(Arc::ptr_eq(all[0], all[1]) && !Arc::ptr_eq(all[1], all[2]));
    }
}
