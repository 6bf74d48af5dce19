//! The chains of a service's port that is not HTTP: by the TLS and TCP routes of VirtualServices, else straight to the service.

use std::collections::HashSet;
use std::sync::Arc;

use maille_model::host::matches;
use maille_model::{MESH_GATEWAY, Service, VirtualService};

use super::{Wish, resolves_names, wildcard};
use crate::Context;
use crate::convert::{config_metadata, outbound_cluster};
use crate::listeners::chain::Chain;
use crate::listeners::stream::{to_destinations, to_service};
use crate::routes::http::source_matches;
use crate::routes::{derived_names, service_addresses};

/// The chains, those that match less first.
pub(super) fn stream_chains(context: &Context<'_>, wish: &Wish<'_>) -> Vec<Chain> {
    let bound: Vec<&Arc<VirtualService>> = wish
        .egress
        .virtual_services
        .iter()
        .filter(|routes| routes.spec.hosts.iter().any(|host| matches(host, &wish.service.hostname)))
        .collect();
    if wish.port.protocol.is_tls() { tls_chains(context, wish, &bound) } else { tcp_chains(context, wish, &bound) }
}

fn tls_chains(context: &Context<'_>, wish: &Wish<'_>, bound: &[&Arc<VirtualService>]) -> Vec<Chain> {
    let port = wish.port.number;
    let mut chains = Vec::new();
    let mut networks = wish.networks.clone();
    // Two rules may differ in what is known now, and match the same connections: the second can never be reached.
    let mut seen = HashSet::new();
    for virtual_service in bound {
        for route in &virtual_service.spec.tls {
            for rule in &route.r#match {
                let applies = static_match(
                    context,
                    (rule.port, port),
                    &rule.gateways,
                    &rule.source_labels,
                    &rule.source_namespace,
                );
                if !applies {
                    continue;
                }
                let Some(filters) = to_destinations(context, &route.route, port, &virtual_service.meta) else {
                    continue;
                };
                if !rule.destination_subnets.is_empty() && port > 0 {
                    networks.clone_from(&rule.destination_subnets);
                }
                if seen.insert((&rule.sni_hosts, &rule.destination_subnets)) {
                    chains.push(Chain {
                        metadata: Some(config_metadata("virtual-service", &virtual_service.meta)),
                        sni_hosts: rule.sni_hosts.clone(),
                        destinations: networks.clone(),
                        ..Chain::stream(filters)
                    });
                }
            }
        }
    }
    if chains.is_empty() {
        chains.push(Chain {
            sni_hosts: if needs_server_name(context, wish) { server_names(context, wish.service) } else { Vec::new() },
            ..service_chain(context, wish)
        });
    }
    chains
}

fn tcp_chains(context: &Context<'_>, wish: &Wish<'_>, bound: &[&Arc<VirtualService>]) -> Vec<Chain> {
    let port = wish.port.number;
    let mut chains = Vec::new();
    for virtual_service in bound {
        for route in &virtual_service.spec.tcp {
            let Some(filters) = to_destinations(context, &route.route, port, &virtual_service.meta) else { continue };
            let to = |destinations: Vec<String>| Chain {
                metadata: Some(config_metadata("virtual-service", &virtual_service.meta)),
                destinations,
                ..Chain::stream(filters.clone())
            };
            let mut applying = route.r#match.iter().filter(|rule| {
                static_match(context, (rule.port, port), &rule.gateways, &rule.source_labels, &rule.source_namespace)
            });
            // Without a network to compare, a rule takes every connection: nothing after it counts.
            let anything = route.r#match.is_empty()
                || applying.clone().any(|rule| rule.destination_subnets.is_empty() || port == 0);
            if anything {
                chains.push(to(wish.networks.clone()));
                return chains;
            }
            let networks: Vec<String> = applying.by_ref().flat_map(|rule| rule.destination_subnets.clone()).collect();
            if networks.is_empty() {
                continue;
            }
            let same = sorted(&networks) == sorted(&wish.networks);
            chains.push(to(networks));
            if same {
                return chains;
            }
        }
    }
    chains.push(service_chain(context, wish));
    chains
}

/// Straight to the service's own cluster.
fn service_chain(context: &Context<'_>, wish: &Wish<'_>) -> Chain {
    // An egress listener may have another number than the only port of a service.
    let number = match wish.service.ports.as_slice() {
        [only] => only.number,
        _ => wish.port.number,
    };
    let cluster = outbound_cluster(number, "", &wish.service.hostname);
    let filters = to_service(context, wish.service, &cluster, wish.port.number);
    Chain { destinations: wish.networks.clone(), ..Chain::stream(filters) }
}

/// Whether the address does not tell which service a connection is for.
fn needs_server_name(context: &Context<'_>, wish: &Wish<'_>) -> bool {
    if !wish.networks.is_empty() || resolves_names(wish.service) {
        return true;
    }
    match service_addresses(wish.service, context.proxy).next() {
        Some(address) => address.contains('/'),
        None => wish.bind.addresses.first().is_some_and(|bind| bind == wildcard(context.proxy)),
    }
}

fn server_names(context: &Context<'_>, service: &Service) -> Vec<String> {
    let mut names = vec![service.hostname.clone()];
    for alias in &service.aliases {
        names.push(alias.hostname.clone());
        names.extend(derived_names(&alias.hostname, None, &context.proxy.dns_domain));
    }
    names
}

/// The part of a rule that is known now: the port, that it is for sidecars, and for this one.
fn static_match(
    context: &Context<'_>,
    (wanted, port): (u32, u32),
    gateways: &[String],
    labels: &std::collections::BTreeMap<String, String>,
    namespace: &str,
) -> bool {
    (wanted == 0 || wanted == port)
        && (gateways.is_empty() || gateways.iter().any(|gateway| gateway == MESH_GATEWAY))
        && source_matches(context.proxy, labels, namespace)
}

fn sorted(texts: &[String]) -> Vec<&String> {
    let mut sorted: Vec<&String> = texts.iter().collect();
    sorted.sort();
    sorted
}
