//! ServiceEntry: hosts, ports, and how their addresses are found.

use std::collections::BTreeSet;

use super::findings::{At, Problem};
use super::protocol::{self, Protocol};
use super::rules::{self, Exported, Host};
use super::workload;
use crate::meta::ObjectMeta;
use crate::networking::service_entry::{Location, Resolution, ServiceEntry};

pub(super) fn validate(meta: &ObjectMeta, entry: &ServiceEntry, at: &mut At<'_>) {
    selector(entry, at);
    hosts(entry, at);
    addresses(entry, at);
    let port_names = ports(meta, entry, at);
    match entry.resolution {
        Resolution::None => not_resolved(entry, at),
        Resolution::Static => {
            for (i, endpoint) in entry.endpoints.iter().enumerate() {
                workload::validate_static_endpoint(endpoint, &port_names, &mut at.field("endpoints").index(i));
            }
        }
        Resolution::Dns | Resolution::DnsRoundRobin => resolved_by_dns(entry, &port_names, at),
        Resolution::DynamicDns => resolved_per_request(meta, entry, at),
    }
    indistinguishable_hosts(entry, at);
    rules::export_to(&meta.namespace, &entry.export_to, Exported::Service, &mut at.field("exportTo"));
}

fn selector(entry: &ServiceEntry, at: &mut At<'_>) {
    let Some(selector) = &entry.workload_selector else { return };
    rules::selector_labels(&selector.labels, &mut at.field("workloadSelector").field("labels"));
    if selector.labels.is_empty() {
        at.field("workloadSelector").warn(
            Problem::new("the selector has no labels, so every workload of the namespace is an endpoint")
                .hint("add labels, or remove the selector"),
        );
    }
    if !entry.endpoints.is_empty() {
        at.field("workloadSelector")
            .error(Problem::new("endpoints are given twice: by selector and by list").hint("remove one of them"));
    }
}

fn hosts(entry: &ServiceEntry, at: &mut At<'_>) {
    if entry.hosts.is_empty() {
        at.field("hosts").error("a service entry needs at least one host");
    }
    for (i, host) in entry.hosts.iter().enumerate() {
        let mut at = at.field("hosts");
        let at = &mut at.index(i);
        if host == "*" {
            at.error(Problem::new("`*` would be every host there is").hint("name a domain, as in `*.example.com`"));
            continue;
        }
        at.check(rules::wildcard_domain(host));
        if entry.resolution != Resolution::DynamicDns {
            at.advise(rules::no_partial_wildcard(host));
        }
    }
}

fn addresses(entry: &ServiceEntry, at: &mut At<'_>) {
    for (i, address) in entry.addresses.iter().enumerate() {
        let mut at = at.field("addresses");
        let at = &mut at.index(i);
        at.check(rules::ip_or_cidr(address));
        if address.contains('/') && !matches!(entry.resolution, Resolution::None | Resolution::Static) {
            at.error(
                Problem::new(format!("a whole block of addresses cannot be resolved by {}", entry.resolution))
                    .hint("set the resolution to NONE or STATIC, or list single addresses"),
            );
        }
    }
}

/// The names of the ports, for the endpoints to refer to.
fn ports<'a>(meta: &ObjectMeta, entry: &'a ServiceEntry, at: &mut At<'_>) -> BTreeSet<&'a str> {
    let has_addresses = !entry.addresses.is_empty() || gets_addresses(meta, entry);
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for (i, port) in entry.ports.iter().enumerate() {
        let mut at = at.field("ports");
        let at = &mut at.index(i);
        if !names.insert(port.name.as_str()) {
            at.field("name").error(format!("another port is called `{}` already", port.name));
        }
        if !numbers.insert(port.number) {
            at.field("number").error(format!("another port has the number {} already", port.number));
        }
        if port.target_port != 0 {
            at.field("targetPort").check(rules::port(port.target_port));
        }
        // Without an address, all TCP to the port would be taken for this service.
        if !has_addresses && matches!(port.protocol.as_str(), "" | "TCP") {
            at.warn(
                Problem::new("TCP can only be told apart by its address, and this service has none")
                    .hint("add addresses, or name the protocol if it is HTTP or TLS"),
            );
        }
        at.field("name").check(rules::dns_label("port name", &port.name));
        at.field("protocol").check(protocol::optional(&port.protocol));
        at.field("number").check(rules::port(port.number));
    }
    names
}

/// Whether the mesh makes up an address for the service.
fn gets_addresses(meta: &ObjectMeta, entry: &ServiceEntry) -> bool {
    let wanted = meta.labels.get("networking.istio.io/enable-autoallocate-ip");
    entry.resolution != Resolution::None && !wanted.is_some_and(|wanted| wanted.eq_ignore_ascii_case("false"))
}

fn not_resolved(entry: &ServiceEntry, at: &mut At<'_>) {
    if !entry.endpoints.is_empty() {
        at.field("endpoints").error(
            Problem::new("with resolution NONE connections go where the client sent them, not to endpoints")
                .hint("set the resolution to STATIC or DNS, or remove the endpoints"),
        );
    }
    if entry.workload_selector.is_some() {
        at.field("workloadSelector").warn(
            Problem::new("with resolution NONE the selected workloads are not used")
                .hint("set the resolution to STATIC, or remove the selector"),
        );
    }
}

fn resolved_by_dns(entry: &ServiceEntry, port_names: &BTreeSet<&str>, at: &mut At<'_>) {
    if entry.endpoints.is_empty() {
        for (i, host) in entry.hosts.iter().enumerate() {
            if rules::fqdn(host).is_err() {
                at.field("hosts").index(i).error(
                    Problem::new(format!(
                        "without endpoints `{host}` itself is looked up, and it is no full host name"
                    ))
                    .hint("name a host without `*`, or add endpoints"),
                );
                break;
            }
        }
    }
    if entry.resolution == Resolution::DnsRoundRobin && entry.endpoints.len() > 1 {
        at.field("endpoints").error(
            Problem::new("DNS_ROUND_ROBIN looks up one name, so there is one endpoint at most")
                .hint("set the resolution to DNS, or keep one"),
        );
    }
    for (i, endpoint) in entry.endpoints.iter().enumerate() {
        let mut at = at.field("endpoints");
        let at = &mut at.index(i);
        let address = &endpoint.address;
        if rules::ip_address(address).is_err() && rules::fqdn(address).is_err() {
            at.field("address").error(format!("`{address}` is neither an IP address nor a host name"));
        }
        rules::labels(&endpoint.labels, &mut at.field("labels"));
        workload::ports(&endpoint.ports, Some(port_names), &mut at.field("ports"));
    }
    let is_tcp = |name: &str| Protocol::parse(name).is_some_and(Protocol::is_tcp);
    if !entry.addresses.is_empty() && entry.hosts.len() > 1 && entry.ports.iter().any(|port| is_tcp(&port.protocol)) {
        at.field("hosts").warn(
            Problem::new("TCP to these addresses cannot be told apart by host").hint("use one service entry a host"),
        );
    }
}

fn resolved_per_request(meta: &ObjectMeta, entry: &ServiceEntry, at: &mut At<'_>) {
    for (i, host) in entry.hosts.iter().enumerate() {
        if !Host(host).is_wildcard() {
            at.field("hosts").index(i).error(
                Problem::new(format!("DYNAMIC_DNS is for wildcards, and `{host}` is none"))
                    .hint("set the resolution to DNS, or write `*.DOMAIN`"),
            );
        }
    }
    for (field, is_set) in [("addresses", !entry.addresses.is_empty()), ("endpoints", !entry.endpoints.is_empty())] {
        if is_set {
            at.field(field).error(
                Problem::new("with DYNAMIC_DNS each request goes to the address of its own host").hint("remove this"),
            );
        }
    }
    for (i, port) in entry.ports.iter().enumerate() {
        let protocol = Protocol::parse(&port.protocol);
        if !matches!(protocol, Some(Protocol::Http | Protocol::Tls | Protocol::Grpc | Protocol::Http2)) {
            at.field("ports").index(i).field("protocol").error(
                Problem::new(format!("`{}` does not say which host is meant", port.protocol))
                    .hint("DYNAMIC_DNS works with HTTP, HTTP2, GRPC and TLS"),
            );
        }
    }
    let waypoint = meta.labels.get("istio.io/use-waypoint");
    if entry.location == Location::MeshInternal
        && waypoint.is_some_and(|waypoint| !waypoint.is_empty() && !waypoint.eq_ignore_ascii_case("none"))
    {
        at.field("location").error(
            Problem::new("DYNAMIC_DNS inside the mesh does not go through a waypoint")
                .hint("set the location to MESH_EXTERNAL, or remove the label istio.io/use-waypoint"),
        );
    }
}

/// Several hosts behind one port need a protocol that says which of them is meant; with resolution NONE it does not
/// matter, because the client has decided.
fn indistinguishable_hosts(entry: &ServiceEntry, at: &mut At<'_>) {
    if entry.resolution == Resolution::None || entry.hosts.len() < 2 {
        return;
    }
    let names_host = |name: &str| Protocol::parse(name).is_some_and(|p| p.is_http() || p.is_tls());
    if let Some(i) = entry.ports.iter().position(|port| !names_host(&port.protocol)) {
        at.field("ports").index(i).field("protocol").error(
            Problem::new("there are several hosts, and this protocol does not say which of them is meant")
                .hint("use HTTP or TLS, or one service entry a host"),
        );
    }
}
