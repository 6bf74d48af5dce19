//! What Kubernetes' API server would say: about metadata, which all kinds have, and about a v1 Service.

use std::collections::BTreeSet;

use super::findings::{At, Problem, Verdict};
use super::rules;
use crate::core::{IntOrString, Service, ServicePort};
use crate::meta::{Kind, Object};

const NAME_MAX: usize = 253;
const PORT_NAME_MAX: usize = 15;

/// Name, namespace, and the names of labels and annotations.
pub(super) fn validate_names(object: &Object, at: &mut At<'_>) {
    let meta = &object.meta;
    at.field("name").check(match object.kind() {
        Kind::Namespace | Kind::Service => lower_label(&meta.name),
        _ => subdomain(&meta.name),
    });
    if object.kind().is_namespaced() {
        at.field("namespace").check(lower_label(&meta.namespace));
    }
    rules::labels(&meta.labels, &mut at.field("labels"));
    for key in meta.annotations.keys() {
        at.field("annotations").key(key).check(rules::label_key(key));
    }
}

fn lower_label(name: &str) -> Verdict {
    rules::dns_label("name", name)?;
    lower_case(name)
}

fn subdomain(name: &str) -> Verdict {
    if name.len() > NAME_MAX {
        return Err(format!("the name has {} characters, at most {NAME_MAX} are allowed", name.len()).into());
    }
    if name.is_empty() {
        return Err("the name is missing".into());
    }
    if !name.split('.').all(rules::is_dns_label) {
        return Err(Problem::new(format!("`{name}` is not a valid name"))
            .hint("use lower-case letters, digits, `-` and `.`, beginning and ending with a letter or digit"));
    }
    lower_case(name)
}

fn lower_case(name: &str) -> Verdict {
    if !name.bytes().any(|b| b.is_ascii_uppercase()) {
        return Ok(());
    }
    Err(Problem::new(format!("`{name}` has capital letters")).hint(format!("write `{}`", name.to_ascii_lowercase())))
}

pub(super) fn validate_service(service: &Service, at: &mut At<'_>) {
    let is_alias = service.r#type == "ExternalName";
    if !matches!(service.r#type.as_str(), "" | "ClusterIP" | "NodePort" | "LoadBalancer" | "ExternalName") {
        at.field("type").error(
            Problem::new(format!("`{}` is not a type of service", service.r#type))
                .hint("write ClusterIP, NodePort, LoadBalancer or ExternalName"),
        );
    }
    if is_alias {
        at.field("externalName").check(rules::fqdn(&service.external_name));
    }
    if service.ports.is_empty() && !is_alias && !service.is_headless() {
        at.field("ports").error(Problem::new("a service needs at least one port").hint("write `ports: [{port: 80}]`"));
    }
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for (i, port) in service.ports.iter().enumerate() {
        let mut at = at.field("ports");
        let at = &mut at.index(i);
        if service.ports.len() > 1 && port.name.is_empty() {
            at.field("name").error("with more than one port each needs a name");
        } else if !port.name.is_empty() && !names.insert(&port.name) {
            at.field("name").error(format!("another port is called `{}` already", port.name));
        }
        if !numbers.insert((port.port, transport(port))) {
            at.field("port").error(format!("another port has the number {} already", port.port));
        }
        self::port(port, at);
    }
    rules::labels(&service.selector, &mut at.field("selector"));
    addresses(service, at);
}

fn transport(port: &ServicePort) -> &str {
    if port.protocol.is_empty() { "TCP" } else { &port.protocol }
}

fn port(port: &ServicePort, at: &mut At<'_>) {
    if !port.name.is_empty() {
        at.field("name").check(lower_label(&port.name));
    }
    at.field("port").check(rules::port(port.port));
    if !matches!(transport(port), "TCP" | "UDP" | "SCTP") {
        at.field("protocol").error(
            Problem::new(format!("`{}` is not a transport protocol", port.protocol))
                .hint("write TCP, UDP or SCTP; HTTP and the like belong in appProtocol or the port's name"),
        );
    }
    match &port.target_port {
        Some(IntOrString::Int(number)) if *number != 0 => at.field("targetPort").check(rules::port(*number)),
        Some(IntOrString::String(name)) if !name.is_empty() => at.field("targetPort").check(port_name(name)),
        _ => {}
    }
    if port.node_port != 0 {
        at.field("nodePort").check(rules::port(port.node_port));
    }
}

/// The name a container gives to a port.
fn port_name(name: &str) -> Verdict {
    let fits = name.len() <= PORT_NAME_MAX
        && rules::is_dns_label(name)
        && name.bytes().any(|b| b.is_ascii_lowercase())
        && !name.contains("--");
    if fits {
        return lower_case(name);
    }
    Err(Problem::new(format!("`{name}` is neither the number nor the name of a port")).hint(format!(
        "a name has at most {PORT_NAME_MAX} lower-case letters, digits and single hyphens, and at least one letter"
    )))
}

fn addresses(service: &Service, at: &mut At<'_>) {
    let own = [&service.cluster_ip].into_iter().filter(|ip| !ip.is_empty() && *ip != "None");
    for ip in own {
        at.field("clusterIP").check(rules::ip_address(ip));
    }
    for (i, ip) in service.cluster_ips.iter().enumerate() {
        if ip != "None" && !ip.is_empty() {
            at.field("clusterIPs").index(i).check(rules::ip_address(ip));
        }
    }
    for (i, ip) in service.external_ips.iter().enumerate() {
        at.field("externalIPs").index(i).check(rules::ip_address(ip));
    }
}
