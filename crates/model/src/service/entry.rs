//! ServiceEntries as the mesh sees them: one service for each host.

use std::net::IpAddr;

use maille_api::ObjectMeta;
use maille_api::networking::ServiceEntry;
use maille_api::networking::service_entry::{self as api, Location};

use super::kubernetes::traffic_distribution;
use super::{Port, Registry, Resolution, Service, TargetPort};
use crate::protocol::Protocol;
use crate::visibility::ExportTo;

const TRAFFIC_DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";

pub(crate) fn convert(meta: &ObjectMeta, spec: &ServiceEntry, default_export: &ExportTo) -> Vec<Service> {
    let addresses: Vec<String> = spec.addresses.iter().filter_map(|address| normalize(address)).collect();
    let service = |host: &String| Service {
        hostname: host.clone(),
        name: host.clone(),
        namespace: meta.namespace.clone(),
        object_name: meta.name.clone(),
        registry: Registry::ServiceEntry,
        ports: spec.ports.iter().map(convert_port).collect(),
        addresses: addresses.clone(),
        auto_allocated: Vec::new(),
        resolution: resolution(spec.resolution),
        mesh_external: spec.location == Location::MeshExternal,
        export_to: ExportTo::new(spec.export_to.iter().map(String::as_str), &meta.namespace, default_export),
        labels: meta.labels.clone(),
        selector: spec.workload_selector.as_ref().map(|selector| selector.labels.clone()).unwrap_or_default(),
        headless: false,
        external_name: None,
        aliases: Vec::new(),
        subject_alt_names: spec.subject_alt_names.clone(),
        traffic_distribution: meta
            .annotations
            .get(TRAFFIC_DISTRIBUTION)
            .map(|w| traffic_distribution(w))
            .unwrap_or_default(),
        creation_time: meta.creation_timestamp.unwrap_or_default(),
    };
    spec.hosts.iter().map(service).collect()
}

fn convert_port(port: &api::ServicePort) -> Port {
    Port {
        name: port.name.clone(),
        number: port.number,
        protocol: Protocol::parse(&port.protocol),
        target: if port.target_port == 0 { TargetPort::Same } else { TargetPort::Number(port.target_port) },
    }
}

fn resolution(of: api::Resolution) -> Resolution {
    match of {
        api::Resolution::None => Resolution::Passthrough,
        api::Resolution::Static => Resolution::ClientSideLb,
        api::Resolution::Dns => Resolution::Dns,
        api::Resolution::DnsRoundRobin => Resolution::DnsRoundRobin,
        api::Resolution::DynamicDns => Resolution::DynamicDns,
    }
}

/// An IP address or a CIDR; a CIDR of one address is that address.
fn normalize(address: &str) -> Option<String> {
    if address.parse::<IpAddr>().is_ok() {
        return Some(address.to_owned());
    }
    let (ip, bits) = address.split_once('/')?;
    let parsed: IpAddr = ip.parse().ok()?;
    let bits: u8 = bits.parse().ok()?;
    let whole = if parsed.is_ipv4() { 32 } else { 128 };
    match bits {
        bits if bits > whole => None,
        bits if bits == whole => Some(ip.to_owned()),
        _ => Some(address.to_owned()),
    }
}
