//! WorkloadEntry and WorkloadGroup: one endpoint, and what many have in common.

use std::collections::{BTreeMap, BTreeSet};

use super::findings::{At, Problem};
use super::{header, rules};
use crate::networking::workload_group::{HealthCheckMethod, HttpHealthCheckConfig, ReadinessProbe};
use crate::networking::{WorkloadEntry, WorkloadGroup};

pub(super) fn validate_entry(entry: &WorkloadEntry, at: &mut At<'_>) {
    if entry.address.is_empty() && entry.network.is_empty() {
        return at
            .field("address")
            .error(Problem::new("the address is missing").hint("write an IP address or a host name"));
    }
    entry_address(entry, true, at);
    ports(&entry.ports, None, &mut at.field("ports"));
    rules::labels(&entry.labels, &mut at.field("labels"));
}

/// An endpoint written inside a ServiceEntry whose addresses are not looked up.
pub(super) fn validate_static_endpoint(entry: &WorkloadEntry, service_ports: &BTreeSet<&str>, at: &mut At<'_>) {
    if entry.address.is_empty() && entry.network.is_empty() {
        return at.field("address").error(Problem::new("the address is missing").hint("write an IP address"));
    }
    entry_address(entry, false, at);
    ports(&entry.ports, Some(service_ports), &mut at.field("ports"));
    rules::labels(&entry.labels, &mut at.field("labels"));
    if entry.address.starts_with(rules::UNIX) && service_ports.len() != 1 {
        at.field("address")
            .error(format!("a Unix socket stands for exactly one port, and the service has {}", service_ports.len()));
    }
}

fn entry_address(entry: &WorkloadEntry, by_name: bool, at: &mut At<'_>) {
    let address = entry.address.as_str();
    if address.is_empty() {
        at.field("address").warn(
            Problem::new(format!("there is no address, so the gateway of network `{}` is used", entry.network))
                .hint("write the address, unless that is meant"),
        );
    } else if let Some(path) = address.strip_prefix(rules::UNIX) {
        at.field("address").check(rules::unix_path(path));
        if !entry.ports.is_empty() {
            at.field("ports").error("a Unix socket has no ports");
        }
    } else if rules::ip_address(address).is_err() {
        let mut at = at.field("address");
        if !by_name {
            at.error(
                Problem::new(format!("`{address}` is not an IP address")).hint("host names need `resolution: DNS`"),
            );
        } else if rules::fqdn(address).is_err() {
            at.error(format!("`{address}` is neither an IP address nor a host name"));
        }
    }
}

/// The ports of an endpoint, which are named as the service's ports are.
pub(super) fn ports(ports: &BTreeMap<String, u32>, service_ports: Option<&BTreeSet<&str>>, at: &mut At<'_>) {
    for (name, number) in ports {
        let mut at = at.key(name);
        if service_ports.is_some_and(|service_ports| !service_ports.contains(name.as_str())) {
            at.error(
                Problem::new(format!("the service has no port called `{name}`")).hint("use the name of one it has"),
            );
        }
        at.check(rules::dns_label("port name", name));
        at.check(rules::port(*number));
    }
}

pub(super) fn validate_group(group: &WorkloadGroup, at: &mut At<'_>) {
    match &group.template {
        // Addresses come with the workloads, so a template is less than an entry.
        Some(template) => ports(&template.ports, None, &mut at.field("template").field("ports")),
        None => {
            let problem = Problem::new("a group needs the template of its entries");
            return at.field("template").error(problem.hint("`template: {}` is enough"));
        }
    }
    if let Some(metadata) = &group.metadata {
        rules::labels(&metadata.labels, &mut at.field("metadata").field("labels"));
    }
    if let Some(probe) = &group.probe {
        readiness_probe(probe, &mut at.field("probe"));
    }
}

fn readiness_probe(probe: &ReadinessProbe, at: &mut At<'_>) {
    at.field("periodSeconds").check(rules::not_negative(probe.period_seconds));
    at.field("initialDelaySeconds").check(rules::not_negative(probe.initial_delay_seconds));
    at.field("timeoutSeconds").check(rules::not_negative(probe.timeout_seconds));
    at.field("successThreshold").check(rules::not_negative(probe.success_threshold));
    at.field("failureThreshold").check(rules::not_negative(probe.failure_threshold));
    match &probe.health_check_method {
        Some(HealthCheckMethod::HttpGet(get)) => http_get(get, &mut at.field("httpGet")),
        Some(HealthCheckMethod::TcpSocket(socket)) => {
            at.field("tcpSocket").field("port").check(rules::port(socket.port));
        }
        Some(HealthCheckMethod::Exec(exec)) => {
            if exec.command.is_empty() {
                at.field("exec").field("command").error("the command is missing");
            }
        }
        Some(HealthCheckMethod::Grpc(_)) => at.field("grpc").error(
            Problem::new("Istio does not take gRPC probes in a WorkloadGroup").hint("use httpGet, tcpSocket or exec"),
        ),
        None => at.error(Problem::new("the probe does nothing").hint("add httpGet, tcpSocket or exec")),
    }
}

fn http_get(get: &HttpHealthCheckConfig, at: &mut At<'_>) {
    at.field("port").check(rules::port(get.port));
    if !matches!(get.scheme.as_str(), "" | "HTTP" | "HTTPS") {
        at.field("scheme")
            .error(Problem::new(format!("`{}` is not a scheme here", get.scheme)).hint("write HTTP or HTTPS"));
    }
    for (i, header) in get.http_headers.iter().enumerate() {
        at.field("httpHeaders").index(i).field("name").check(header::probe_name(&header.name));
    }
}
