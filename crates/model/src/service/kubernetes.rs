//! v1 Services as the mesh sees them.

use maille_api::ObjectMeta;
use maille_api::core::{self, IntOrString};

use super::{Port, Registry, Resolution, Service, TargetPort, TrafficDistribution};
use crate::protocol::Protocol;
use crate::visibility::ExportTo;

const EXPORT_TO: &str = "networking.istio.io/exportTo";
const TRAFFIC_DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";
const SERVICE_ACCOUNTS: &str = "alpha.istio.io/canonical-serviceaccounts";

/// The name a Kubernetes service has in the cluster.
pub(crate) fn hostname(name: &str, namespace: &str, domain: &str) -> String {
    format!("{name}.{namespace}.svc.{domain}")
}

pub(crate) fn convert(meta: &ObjectMeta, spec: &core::Service, domain: &str, default_export: &ExportTo) -> Service {
    let external_name = (spec.r#type == "ExternalName" && !spec.external_name.is_empty())
        .then(|| spec.external_name.trim_end_matches('.').to_owned());
    let headless = spec.is_headless();
    let resolution = match (&external_name, headless) {
        (_, true) => Resolution::Passthrough,
        (Some(_), _) => Resolution::Alias,
        _ => Resolution::ClientSideLb,
    };
    let addresses = match (headless, spec.cluster_ips.as_slice(), spec.cluster_ip.as_str()) {
        (true, ..) => Vec::new(),
        (_, ips, _) if ips.len() > 1 => ips.to_vec(),
        (_, [only], "") => vec![only.clone()],
        (_, _, "") => Vec::new(),
        (_, _, ip) => vec![ip.to_owned()],
    };
    let annotation = |name: &str| meta.annotations.get(name).map(String::as_str).unwrap_or_default();
    Service {
        hostname: hostname(&meta.name, &meta.namespace, domain),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        object_name: meta.name.clone(),
        registry: Registry::Kubernetes,
        ports: spec.ports.iter().map(convert_port).collect(),
        addresses,
        auto_allocated: Vec::new(),
        resolution,
        mesh_external: external_name.is_some(),
        export_to: ExportTo::new(annotation(EXPORT_TO).split(','), &meta.namespace, default_export),
        labels: meta.labels.clone(),
        selector: spec.selector.clone(),
        headless,
        external_name,
        aliases: Vec::new(),
        subject_alt_names: annotation(SERVICE_ACCOUNTS)
            .split(',')
            .filter(|s| !s.is_empty())
            .map(str::to_owned)
            .collect(),
        traffic_distribution: match annotation(TRAFFIC_DISTRIBUTION) {
            "" => traffic_distribution(&spec.traffic_distribution),
            own => traffic_distribution(own),
        },
        creation_time: meta.creation_timestamp.unwrap_or_default(),
    }
}

fn convert_port(port: &core::ServicePort) -> Port {
    let number = u32::try_from(port.port).unwrap_or_default();
    let app_protocol = (!port.app_protocol.is_empty()).then_some(port.app_protocol.as_str());
    let target = match &port.target_port {
        // The API server writes the port's own number where nothing is said, so nothing said means the same number.
        None => TargetPort::Same,
        Some(IntOrString::Int(number)) => {
            u32::try_from(*number).ok().filter(|n| *n > 0).map_or(TargetPort::Same, TargetPort::Number)
        }
        Some(IntOrString::String(name)) => match name.parse() {
            Ok(number) => TargetPort::Number(number),
            Err(_) => TargetPort::Name(name.clone()),
        },
    };
    Port {
        name: port.name.clone(),
        number,
        protocol: Protocol::of_service_port(number, &port.name, &port.protocol, app_protocol),
        target,
    }
}

/// The wish, or none when the word is not known.
pub(super) fn traffic_distribution(word: &str) -> TrafficDistribution {
    match word {
        "PreferClose" => TrafficDistribution::PreferClose,
        "PreferSameZone" => TrafficDistribution::PreferSameZone,
        "PreferSameNode" => TrafficDistribution::PreferSameNode,
        _ => TrafficDistribution::Any,
    }
}
