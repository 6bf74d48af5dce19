//! Sidecar: the listeners for a workload's own ports, and those for what it calls.

use std::collections::{BTreeMap, BTreeSet};

use super::findings::{At, Problem, Verdict};
use super::protocol::{self, Protocol};
use super::{rules, tls, traffic_policy, virtual_service};
use crate::meta::ObjectMeta;
use crate::networking::Sidecar;
use crate::networking::gateway::{ServerTlsMode, ServerTlsSettings};
use crate::networking::sidecar::{
    CaptureMode, IstioEgressListener, IstioIngressListener, OutboundTrafficPolicy, OutboundTrafficPolicyMode,
    SidecarPort,
};

pub(super) fn validate(meta: &ObjectMeta, sidecar: &Sidecar, at: &mut At<'_>) {
    if let Some(selector) = &sidecar.workload_selector {
        rules::selector_labels(&selector.labels, &mut at.field("workloadSelector").field("labels"));
        if selector.labels.is_empty() {
            at.field("workloadSelector").warn(
                Problem::new("the selector has no labels, so the sidecar is for every workload of the namespace")
                    .hint("add labels, or remove the selector"),
            );
        }
    }
    let is_empty = sidecar.egress.is_empty()
        && sidecar.ingress.is_empty()
        && sidecar.outbound_traffic_policy.is_none()
        && sidecar.inbound_connection_pool.is_none();
    if is_empty {
        return at.error(
            Problem::new("the sidecar says nothing")
                .hint("set ingress, egress, outboundTrafficPolicy or inboundConnectionPool"),
        );
    }
    let mut ports = BTreeSet::new();
    for (i, listener) in sidecar.ingress.iter().enumerate() {
        ingress(listener, &mut ports, &mut at.field("ingress").index(i));
    }
    if let Some(pool) = &sidecar.inbound_connection_pool {
        traffic_policy::connection_pool(pool, &mut at.field("inboundConnectionPool"));
    }
    let (mut ports, mut sockets) = (BTreeSet::new(), BTreeSet::new());
    for (i, listener) in sidecar.egress.iter().enumerate() {
        let mut at = at.field("egress");
        let at = &mut at.index(i);
        match &listener.port {
            Some(port) => {
                egress_port(port, listener, at);
                let is_new = if port.number == 0 { sockets.insert(&listener.bind) } else { ports.insert(port.number) };
                if !is_new {
                    at.field("port").error("another egress listener has this port or socket already");
                }
            }
            None if i + 1 < sidecar.egress.len() => at.field("port").error(
                Problem::new("a listener without a port is for all other ports, and has to be the last one")
                    .hint("move it to the end"),
            ),
            None => {}
        }
        egress_hosts(&meta.namespace, &listener.hosts, &mut at.field("hosts"));
    }
    if let Some(policy) = &sidecar.outbound_traffic_policy {
        outbound_traffic_policy(policy, &mut at.field("outboundTrafficPolicy"));
    }
}

fn ingress(listener: &IstioIngressListener, ports: &mut BTreeSet<u32>, at: &mut At<'_>) {
    let Some(port) = &listener.port else {
        return at.field("port").error(
            Problem::new("an ingress listener needs a port")
                .hint("write `port: {number: 80, name: http, protocol: HTTP}`"),
        );
    };
    self::port(port, &mut at.field("port"));
    at.field("port").field("number").check(rules::port(port.number));
    if !listener.bind.is_empty() {
        at.field("bind").check(rules::ip_address(&listener.bind));
    }
    if !ports.insert(port.number) {
        at.field("port").field("number").error(format!("another ingress listener has port {} already", port.number));
    }
    if !listener.default_endpoint.is_empty() {
        at.field("defaultEndpoint").check(default_endpoint(&listener.default_endpoint));
    }
    if let Some(settings) = &listener.tls {
        ingress_tls(settings, &port.protocol, &mut at.field("tls"));
    }
    if let Some(pool) = &listener.connection_pool {
        traffic_policy::connection_pool(pool, &mut at.field("connectionPool"));
        let is_http = Protocol::parse(&port.protocol).is_some_and(Protocol::is_http);
        if pool.http.is_some() && !is_http {
            at.field("connectionPool").field("http").warn(
                Problem::new(format!("the protocol of port {} is not HTTP, so only `tcp` is used", port.number))
                    .hint("set the protocol to HTTP, or remove `http`"),
            );
        }
    }
}

/// What ports of ingress and egress listeners have in common.
fn port(port: &SidecarPort, at: &mut At<'_>) {
    if port.target_port != 0 {
        at.field("targetPort").error(Problem::new("a sidecar's listener has no target port").hint("remove it"));
    }
    if !port.name.is_empty() {
        at.field("name").check(rules::dns_label("port name", &port.name));
    }
    at.field("protocol").check(protocol::optional(&port.protocol));
}

/// Where the workload listens: on this machine.
fn default_endpoint(endpoint: &str) -> Verdict {
    if let Some(path) = endpoint.strip_prefix(rules::UNIX) {
        return rules::unix_path(path);
    }
    let form = |message: String| {
        Problem::new(message).hint("write 127.0.0.1:PORT, 0.0.0.0:PORT, [::1]:PORT, [::]:PORT or unix:///path")
    };
    let Some((host, port)) = rules::split_host_port(endpoint) else {
        return Err(form(format!("`{endpoint}` is not an address and a port")));
    };
    if !matches!(host, "" | "127.0.0.1" | "0.0.0.0" | "::1" | "::") {
        return Err(form(format!("`{host}` is not this machine, where the workload is")));
    }
    match port.parse::<i64>() {
        Ok(port) => rules::port(port),
        Err(_) => Err(form(format!("`{port}` is not the number of a port"))),
    }
}

fn ingress_tls(settings: &ServerTlsSettings, protocol: &str, at: &mut At<'_>) {
    let not_here = [
        ("subjectAltNames", !settings.subject_alt_names.is_empty()),
        ("httpsRedirect", settings.https_redirect),
        ("credentialName", !settings.credential_name.is_empty()),
        ("credentialNames", !settings.credential_names.is_empty()),
        ("tlsCertificates", !settings.tls_certificates.is_empty()),
    ];
    for (field, _) in not_here.into_iter().filter(|(_, set)| *set) {
        at.field(field).error(
            Problem::new(format!("{field} works at gateways, not in a sidecar"))
                .hint("name files with serverCertificate, privateKey and caCertificates"),
        );
    }
    if matches!(settings.mode, ServerTlsMode::IstioMutual | ServerTlsMode::AutoPassthrough) {
        at.field("mode").error(
            Problem::new(format!("a sidecar's ingress listener cannot be {}", settings.mode))
                .hint("use SIMPLE or MUTUAL; mutual TLS of the mesh is on anyway"),
        );
    }
    if !Protocol::parse(protocol).is_some_and(Protocol::is_tls) {
        at.error(
            Problem::new("the protocol of this port is plain text, which has no TLS settings")
                .hint("set the protocol to HTTPS or TLS, or remove tls"),
        );
    }
    tls::server(settings, at);
}

fn egress_port(port: &SidecarPort, listener: &IstioEgressListener, at: &mut At<'_>) {
    self::port(port, &mut at.field("port"));
    if port.number != 0 {
        at.field("port").field("number").check(rules::port(port.number));
        if !listener.bind.is_empty() {
            at.field("bind").check(rules::ip_address(&listener.bind));
        }
        return;
    }
    match listener.bind.strip_prefix(rules::UNIX) {
        Some(path) => at.field("bind").check(rules::unix_path(path)),
        None => at.field("port").field("number").error(
            Problem::new("only a Unix socket has the port 0").hint("write a port, or `bind: unix:///path/to/socket`"),
        ),
    }
    if !matches!(listener.capture_mode, CaptureMode::Default | CaptureMode::None) {
        at.field("captureMode").error(
            Problem::new("connections to a Unix socket are not captured").hint("set it to NONE, or leave it out"),
        );
    }
}

fn egress_hosts(namespace: &str, hosts: &[String], at: &mut At<'_>) {
    if hosts.is_empty() {
        return at.error(Problem::new("an egress listener needs at least one host").hint("write `\"*/*\"` for all"));
    }
    let mut seen: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (i, host) in hosts.iter().enumerate() {
        let mut at = at.index(i);
        rules::egress_host(host, &mut at);
        let Some((in_namespace, name)) = host.split_once('/') else { continue };
        if in_namespace.starts_with('~') {
            continue;
        }
        let names = seen.entry(if in_namespace == "." { namespace } else { in_namespace }).or_default();
        let is_covered = match name {
            "*" => !names.is_empty(),
            name => names.contains(name) || names.contains("*"),
        };
        if is_covered {
            at.warn(Problem::new(format!("`{host}` says again what another host says")).hint("remove one of them"));
        }
        names.insert(name);
    }
    if seen.len() > 1 && seen.get("*").is_some_and(|names| names.contains("*")) {
        at.warn(Problem::new("`*/*` is all hosts already").hint("remove the others, or `*/*`"));
    }
}

fn outbound_traffic_policy(policy: &OutboundTrafficPolicy, at: &mut At<'_>) {
    let Some(proxy) = &policy.egress_proxy else { return };
    let at = &mut at.field("egressProxy");
    if policy.mode != OutboundTrafficPolicyMode::AllowAny {
        return at
            .error(Problem::new("with REGISTRY_ONLY nothing goes to an egress proxy").hint("set mode: ALLOW_ANY"));
    }
    // One place, so no wildcards; a host that is not even one of those is reported below.
    if rules::wildcard_domain(&proxy.host).is_ok() {
        at.field("host").check(rules::fqdn(&proxy.host));
    }
    if proxy.port.is_none() {
        at.field("port").error(Problem::new("the egress proxy needs a port").hint("write `port: {number: 443}`"));
    }
    virtual_service::destination(proxy, at);
}
