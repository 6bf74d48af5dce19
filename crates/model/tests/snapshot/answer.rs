//! Answers in few lines.

use std::fmt::Write;
use std::sync::Arc;

use maille_model::{
    Locality, MergedGateway, Proxy, ProxyKind, ProxyMetadata, Service, SidecarScope, Snapshot, VirtualService,
};

/// The answer, or `None` when the comment is not a question.
pub(crate) fn to(snapshot: &Snapshot, question: &str, words: &str) -> Option<String> {
    let mut text = String::new();
    match question {
        "scope" => write_scope(&mut text, &snapshot.scope(&proxy(words))),
        "gateway" => {
            let proxy = proxy(words);
            for warning in snapshot.gateway_warnings(&proxy) {
                let _ = writeln!(text, "warning {warning}");
            }
            write_gateway(&mut text, &snapshot.merged_gateway(&proxy).unwrap_or_default());
        }
        "targets" => {
            for target in snapshot.service_targets(&proxy(words)) {
                let _ = writeln!(text, "{}:{} on {}", target.service.hostname, target.port.number, target.target_port);
            }
        }
        "routes" => {
            let (gateway, namespace) = words.split_once(' ')?;
            for route in snapshot.virtual_services_for_gateway(gateway, namespace) {
                write_route(&mut text, &route);
            }
        }
        "rule" => {
            let (words, host) = words.rsplit_once(' ')?;
            let proxy = proxy(words);
            let service = snapshot.services().iter().find(|service| service.hostname == host).expect("service");
            match snapshot.destination_rule(&proxy, service) {
                Some(rule) => {
                    let from: Vec<String> = rule.from.iter().map(ToString::to_string).collect();
                    let _ = writeln!(text, "{} from {}", rule.rule.host, from.join(", "));
                }
                None => text.push_str("none\n"),
            }
        }
        "endpoints" => {
            let services = snapshot.services().iter().filter(|service| service.hostname == words);
            for service in services {
                for port in &service.ports {
                    let endpoints = snapshot.endpoints(service, port.number).iter().map(|e| format!("{:?}", e.address));
                    let endpoints: Vec<String> = endpoints.collect();
                    let _ = writeln!(text, "{}/{}: {}", service.namespace, port.number, endpoints.join(" "));
                }
            }
        }
        "policies" => write_policies(&mut text, snapshot, &proxy(words)),
        "accounts" => {
            let service = snapshot.services().iter().find(|service| service.hostname == words).expect("service");
            let _ = writeln!(text, "{}", snapshot.service_accounts(service).join(" "));
        }
        _ => return None,
    }
    Some(text)
}

/// `KIND NAMESPACE ADDRESS LABEL=VALUE,…`
fn proxy(words: &str) -> Proxy {
    let words: Vec<&str> = words.split(' ').collect();
    let labels =
        words.get(3).into_iter().flat_map(|labels| labels.split(',')).filter_map(|label| label.split_once('='));
    Proxy {
        kind: if words[0] == "router" { ProxyKind::Router } else { ProxyKind::Sidecar },
        id: "test".to_owned(),
        ip_addresses: vec![words[2].to_owned()],
        namespace: words[1].to_owned(),
        service_account: String::new(),
        labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        dns_domain: format!("{}.svc.cluster.local", words[1]),
        locality: Locality::default(),
        network: String::new(),
        cluster_id: String::new(),
        metadata: ProxyMetadata { namespace: Some(words[1].to_owned()), ..ProxyMetadata::default() },
    }
}

fn write_scope(text: &mut String, scope: &SidecarScope) {
    let name = scope.sidecar.as_ref().map_or("none", |(meta, _)| meta.name.as_str());
    let _ = writeln!(text, "sidecar {name}, outbound {:?}", scope.outbound_policy.mode);
    let service = |service: &Arc<Service>| {
        let ports: Vec<String> = service.ports.iter().map(|port| port.number.to_string()).collect();
        format!("{}/{}:{}", service.namespace, service.hostname, ports.join(","))
    };
    for listener in &scope.egress {
        let port = listener.port().map_or("any".to_owned(), |port| port.to_string());
        let services: Vec<String> = listener.services.iter().map(service).collect();
        let route = |route: &Arc<VirtualService>| format!("{}/{}", route.meta.namespace, route.meta.name);
        let routes: Vec<String> = listener.virtual_services.iter().map(route).collect();
        let _ = writeln!(text, "listener {port}: services [{}] routes [{}]", services.join(" "), routes.join(" "));
        for (host, index) in &listener.most_specific {
            let _ = writeln!(text, "  {host} by {}", route(&listener.virtual_services[*index]));
        }
    }
    let services: Vec<String> = scope.services().iter().map(service).collect();
    let _ = writeln!(text, "all: {}", services.join(" "));
}

fn write_policies(text: &mut String, snapshot: &Snapshot, proxy: &Proxy) {
    let mode = snapshot.peer_mode(&proxy.namespace, &proxy.labels);
    let ports: Vec<String> = mode.ports.iter().map(|(port, mode)| format!(" {port} {mode:?}")).collect();
    let namespace = snapshot.namespace_mutual_tls(&proxy.namespace);
    let _ = writeln!(text, "mutual TLS {:?}{}, namespace {namespace:?}", mode.mode, ports.concat());
    let name = |meta: &maille_api::ObjectMeta| format!(" {}/{}", meta.namespace, meta.name);
    let tokens: String = snapshot.request_authentications(proxy).iter().map(|policy| name(&policy.meta)).collect();
    let _ = writeln!(text, "tokens{tokens}");
    let found = snapshot.authorization(proxy);
    for (action, policies) in
        [("custom", found.custom), ("deny", found.deny), ("allow", found.allow), ("audit", found.audit)]
    {
        let names: String = policies.iter().map(|policy| name(&policy.meta)).collect();
        let _ = writeln!(text, "{action}{names}");
    }
}

fn write_gateway(text: &mut String, gateway: &MergedGateway) {
    for port in &gateway.ports {
        let _ = writeln!(text, "{} {} bind {:?} route {:?}", port.number, port.protocol, port.bind, port.route_name);
        for server in &port.servers {
            let hosts = server.server.hosts.join(" ");
            let _ = write!(text, "  {} {} [{hosts}]", server.gateway, server.protocol);
            if !server.sni_hosts.is_empty() {
                let _ = write!(text, " sni [{}]", server.sni_hosts.join(" "));
            }
            let _ = writeln!(text, " route {:?}", server.route_name);
        }
    }
    for (route, servers) in &gateway.servers_by_route {
        let _ = writeln!(text, "{route}: {} servers", servers.len());
    }
    let _ = writeln!(text, "ports {:?}", gateway.port_map);
}

fn write_route(text: &mut String, route: &VirtualService) {
    let spec = serde_json::to_value(&route.spec).expect("JSON");
    let _ = writeln!(text, "{}/{}", route.meta.namespace, route.meta.name);
    for kind in ["hosts", "gateways", "http", "tls", "tcp"] {
        match &spec[kind] {
            serde_json::Value::Array(items) => {
                for item in items {
                    let _ = writeln!(text, "  {kind} {item}");
                }
            }
            _ => continue,
        }
    }
}
