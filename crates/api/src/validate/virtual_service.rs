//! VirtualService: the hosts it speaks for, and routes for HTTP, TLS and TCP.

mod http;
mod unreachable;

pub(super) use http::retries;

use super::findings::{At, Problem};
use super::rules::{self, Exported, Host};
use super::{header, made_from_gateway_api};
use crate::meta::ObjectMeta;
use crate::networking::VirtualService;
use crate::networking::virtual_service::{
    Destination, L4MatchAttributes, RouteDestination, TcpRoute, TlsMatchAttributes, TlsRoute,
};

/// The name gateways do not have: all sidecars.
const MESH: &str = "mesh";

pub(super) fn validate(meta: &ObjectMeta, service: &VirtualService, at: &mut At<'_>) {
    let semantics = made_from_gateway_api(meta, "internal.istio.io/route-semantics", "gateway");
    let is_delegate = service.hosts.is_empty();
    if is_delegate {
        delegate(service, at);
    }
    rules::gateway_names(&service.gateways, semantics, &mut at.field("gateways"));
    // Without gateways a VirtualService is the mesh's, and so is one that names the mesh beside others.
    if service.gateways.is_empty() || !is_for_gateways_only(service) {
        no_claims(service, at);
    }
    hosts(service, at);
    if service.http.is_empty() && service.tcp.is_empty() && service.tls.is_empty() {
        at.error(Problem::new("there are no routes").hint("add `http`, `tls` or `tcp`"));
    }
    for (i, route) in service.http.iter().enumerate() {
        http::validate(route, is_delegate, semantics, &mut at.field("http").index(i));
    }
    for (i, route) in service.tls.iter().enumerate() {
        tls_route(route, service, semantics, &mut at.field("tls").index(i));
    }
    for (i, route) in service.tcp.iter().enumerate() {
        tcp_route(route, semantics, &mut at.field("tcp").index(i));
    }
    rules::export_to(&meta.namespace, &service.export_to, Exported::Routes, &mut at.field("exportTo"));
    unreachable::warn(service, at);
}

/// A VirtualService without hosts is a part of others, and has nothing but HTTP routes.
fn delegate(service: &VirtualService, at: &mut At<'_>) {
    for (field, is_set) in
        [("gateways", !service.gateways.is_empty()), ("tls", !service.tls.is_empty()), ("tcp", !service.tcp.is_empty())]
    {
        if is_set {
            at.field(field).error(
                Problem::new("a virtual service without hosts is a delegate, which has `http` only")
                    .hint("add hosts, or remove this"),
            );
        }
    }
}

fn is_for_gateways_only(service: &VirtualService) -> bool {
    !service.gateways.iter().any(|gateway| gateway == MESH)
}

/// Sidecars do not read tokens before they route.
fn no_claims(service: &VirtualService, at: &mut At<'_>) {
    for (i, route) in service.http.iter().enumerate() {
        for (j, found) in route.r#match.iter().enumerate() {
            for (field, headers) in [("headers", &found.headers), ("withoutHeaders", &found.without_headers)] {
                for name in headers.keys().filter(|name| header::is_claim(name)) {
                    let mut at = at.field("http");
                    let mut at = at.index(i);
                    let mut at = at.field("match");
                    at.index(j).field(field).key(name).error(
                        Problem::new("claims of a token can only be matched at gateways")
                            .hint("list the gateways in spec.gateways, without `mesh`"),
                    );
                }
            }
        }
    }
}

fn hosts(service: &VirtualService, at: &mut At<'_>) {
    let at_gateways = !service.gateways.is_empty() && is_for_gateways_only(service);
    let has_sni = service.tls.iter().flat_map(|route| &route.r#match).any(|found| !found.sni_hosts.is_empty());
    let mut valid = true;
    for (i, host) in service.hosts.iter().enumerate() {
        let mut at = at.field("hosts");
        let at = &mut at.index(i);
        let verdict = if at_gateways { rules::gateway_bound_host(has_sni, host) } else { rules::wildcard_domain(host) };
        if let Err(problem) = verdict {
            if rules::ip_address(host).is_err() {
                at.error(problem);
                valid = false;
            }
        } else if !at_gateways && host == "*" {
            at.error(
                Problem::new("`*` would take every request in the mesh")
                    .hint("name the hosts, or list the gateways this is for"),
            );
            valid = false;
        }
    }
    if !valid {
        return;
    }
    for (i, host) in service.hosts.iter().enumerate() {
        for other in &service.hosts[..i] {
            if Host(other).overlaps(Host(host)) {
                at.field("hosts").index(i).error(
                    Problem::new(format!("`{host}` and `{other}` have hosts in common")).hint("remove one of them"),
                );
            }
        }
    }
}

fn tls_route(route: &TlsRoute, service: &VirtualService, semantics: bool, at: &mut At<'_>) {
    if route.r#match.is_empty() {
        at.field("match").error(Problem::new("a TLS route needs a match").hint("write `match: [{sniHosts: [HOST]}]`"));
    }
    for (i, found) in route.r#match.iter().enumerate() {
        tls_match(found, service, &mut at.field("match").index(i));
    }
    destinations(&route.route, semantics, &mut at.field("route"));
}

fn tls_match(found: &TlsMatchAttributes, service: &VirtualService, at: &mut At<'_>) {
    if found.sni_hosts.is_empty() {
        at.field("sniHosts").error("a TLS match needs at least one host name");
    }
    for (i, host) in found.sni_hosts.iter().enumerate() {
        sni_host(host, service, &mut at.field("sniHosts").index(i));
    }
    subnets(&found.destination_subnets, &mut at.field("destinationSubnets"));
    if found.port != 0 {
        at.field("port").check(rules::port(found.port));
    }
    rules::labels(&found.source_labels, &mut at.field("sourceLabels"));
    rules::gateway_names(&found.gateways, false, &mut at.field("gateways"));
}

fn sni_host(host: &str, service: &VirtualService, at: &mut At<'_>) {
    let verdict = if is_for_gateways_only(service) {
        rules::gateway_bound_host(true, host)
    } else {
        rules::wildcard_domain(host)
    };
    if let Err(problem) = verdict {
        if rules::ip_address(host).is_ok() {
            return at.warn(
                Problem::new(format!("`{host}` is an address, and clients send names only as SNI"))
                    .hint("name the host, or use a TCP route"),
            );
        }
        return at.error(problem);
    }
    if !service.hosts.iter().any(|of| Host(host).is_within(Host(of))) {
        at.error(
            Problem::new(format!("`{host}` is not one of the virtual service's hosts"))
                .hint(format!("add it to spec.hosts, or use one of: {}", service.hosts.join(", "))),
        );
    }
}

fn tcp_route(route: &TcpRoute, semantics: bool, at: &mut At<'_>) {
    for (i, found) in route.r#match.iter().enumerate() {
        tcp_match(found, &mut at.field("match").index(i).errors_only());
    }
    destinations(&route.route, semantics, &mut at.field("route"));
}

fn tcp_match(found: &L4MatchAttributes, at: &mut At<'_>) {
    subnets(&found.destination_subnets, &mut at.field("destinationSubnets"));
    if found.port != 0 {
        at.field("port").check(rules::port(found.port));
    }
    rules::labels(&found.source_labels, &mut at.field("sourceLabels"));
    rules::gateway_names(&found.gateways, false, &mut at.field("gateways"));
}

fn subnets(subnets: &[String], at: &mut At<'_>) {
    for (i, subnet) in subnets.iter().enumerate() {
        at.index(i).check(rules::ip_or_cidr(subnet));
    }
}

fn destinations(destinations: &[RouteDestination], semantics: bool, at: &mut At<'_>) {
    if destinations.is_empty() {
        at.error(Problem::new("the route leads nowhere").hint("write `route: [{destination: {host: HOST}}]`"));
    }
    for (i, weighted) in destinations.iter().enumerate() {
        weighted_destination(weighted.destination.as_ref(), weighted.weight, semantics, &mut at.index(i));
    }
    total_weight(destinations.iter().map(|weighted| weighted.weight), at);
}

fn weighted_destination(to: Option<&Destination>, weight: i32, semantics: bool, at: &mut At<'_>) {
    match to {
        // Routes made from the Gateway API may name backends that do not exist, and are answered 500.
        Some(_) if semantics => {}
        Some(to) => destination(to, &mut at.field("destination")),
        None => at
            .field("destination")
            .error(Problem::new("the destination is missing").hint("write `destination: {host: HOST}`")),
    }
    at.field("weight").check(rules::not_negative(weight));
}

fn total_weight(weights: impl ExactSizeIterator<Item = i32>, at: &mut At<'_>) {
    if weights.len() > 1 && weights.map(i64::from).sum::<i64>() == 0 {
        at.error(
            Problem::new("the weights are 0 together, so no destination is ever chosen")
                .hint("give at least one destination a weight"),
        );
    }
}

/// A service, a subset of it, a port of it.
pub(super) fn destination(destination: &Destination, at: &mut At<'_>) {
    if destination.host == "*" {
        at.field("host").error("`*` is not a destination: requests have to go somewhere");
    } else {
        at.field("host").check(rules::wildcard_domain(&destination.host));
    }
    if !destination.subset.is_empty() {
        at.field("subset").check(rules::dns_label("subset name", &destination.subset));
    }
    if let Some(port) = &destination.port {
        at.field("port").field("number").check(rules::port(port.number));
    }
}
