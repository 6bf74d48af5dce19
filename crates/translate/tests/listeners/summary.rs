//! Listeners and routes in few lines: what is set, and nothing of what is not.

use std::fmt::Write;

use maille_xds::types::core::{Address, address, socket_address, transport_socket};
use maille_xds::types::hcm::HttpConnectionManager;
use maille_xds::types::hcm::http_connection_manager::RouteSpecifier;
use maille_xds::types::listener::{Filter, FilterChain, FilterChainMatch, Listener, filter};
use maille_xds::types::route::route::Action;
use maille_xds::types::route::{Route, RouteConfiguration, VirtualHost};
use maille_xds::types::tcp_proxy::TcpProxy;
use maille_xds::types::tls::DownstreamTlsContext;
use maille_xds::types::{cors, fault, unpack};
use maille_xds::{TypeUrl, World};

use crate::brief::brief;
use crate::case::Case;

/// Each proxy's listeners, then its routes.
pub(crate) fn worlds(case: &Case) -> String {
    let mut text = String::new();
    for (proxy, world) in case.worlds() {
        let _ = writeln!(text, "=== {}", proxy.id);
        write_world(&mut text, &world);
    }
    text
}

fn write_world(text: &mut String, world: &World) {
    for resource in world.of(TypeUrl::Listener).values() {
        write_listener(text, &resource.decode().expect("listener"));
    }
    for resource in world.of(TypeUrl::Route).values() {
        let routes: RouteConfiguration = resource.decode().expect("routes");
        let port = if routes.ignore_port_in_host_matching { "" } else { " by port" };
        let _ = writeln!(text, "routes {}{port}", routes.name);
        write_hosts(text, &routes, "  ");
    }
}

fn write_listener(text: &mut String, listener: &Listener) {
    let addresses = listener.address.iter().chain(listener.additional_addresses.iter().flat_map(|a| &a.address));
    let addresses: Vec<String> = addresses.map(show_address).collect();
    let bound = if listener.bind_to_port.as_ref().is_some_and(|bind| !bind.value) { " unbound" } else { "" };
    let _ = writeln!(text, "listener {} {}{bound}", listener.name, addresses.join(" "));
    for filter in &listener.listener_filters {
        let except = filter.filter_disabled.as_ref().map(|rule| format!(" except {}", brief(rule))).unwrap_or_default();
        let _ = writeln!(text, "  {}{except}", last_part(&filter.name));
    }
    for log in &listener.access_log {
        let _ = writeln!(text, "  log {}", brief(&log.filter));
    }
    for chain in &listener.filter_chains {
        write_chain(text, "chain", chain);
    }
    if let Some(chain) = &listener.default_filter_chain {
        write_chain(text, "otherwise", chain);
    }
}

fn write_chain(text: &mut String, word: &str, chain: &FilterChain) {
    let matched = chain.filter_chain_match.as_ref().map(show_match).unwrap_or_default();
    let name = if chain.name.is_empty() { String::new() } else { format!(" {}", chain.name) };
    let _ = writeln!(text, "  {word}{name}{matched}");
    if let Some(socket) = &chain.transport_socket {
        let Some(transport_socket::ConfigType::TypedConfig(config)) = &socket.config_type else { return };
        let tls = unpack::<DownstreamTlsContext>(config).expect("a TLS context").expect("that can be read");
        let _ = writeln!(text, "    tls {}", if is_mesh(&tls) { "of the mesh".to_owned() } else { brief(&tls) });
    }
    for filter in &chain.filters {
        write_filter(text, filter);
    }
}

/// The mesh's mutual TLS is the same everywhere; the first chain of `mutual-tls.yaml` shows it whole.
fn is_mesh(tls: &DownstreamTlsContext) -> bool {
    let certificates = tls.common_tls_context.iter().flat_map(|common| &common.tls_certificate_sds_secret_configs);
    certificates.into_iter().any(|config| config.name == "default")
}

fn write_filter(text: &mut String, filter: &Filter) {
    let Some(filter::ConfigType::TypedConfig(config)) = &filter.config_type else { return };
    if let Some(proxy) = unpack::<TcpProxy>(config) {
        let mut proxy = proxy.expect("a TCP proxy");
        let logs = proxy.access_log.drain(..).count();
        let _ = writeln!(text, "    tcp {}{}", brief(&proxy), if logs > 0 { " logged" } else { "" });
    } else if let Some(manager) = unpack::<HttpConnectionManager>(config) {
        let mut manager = manager.expect("a connection manager");
        let filters: Vec<&str> = manager.http_filters.iter().map(|filter| last_part(&filter.name)).collect();
        let filters = filters.join(" ");
        let logs = manager.access_log.drain(..).count();
        let routes = manager.route_specifier.take();
        manager.http_filters.clear();
        let _ = writeln!(text, "    http {}{}", brief(&manager), if logs > 0 { " logged" } else { "" });
        let _ = writeln!(text, "      filters {filters}");
        match routes {
            Some(RouteSpecifier::Rds(rds)) => {
                let _ = writeln!(text, "      routes {}", rds.route_config_name);
            }
            Some(RouteSpecifier::RouteConfig(routes)) => {
                let _ = writeln!(text, "      routes here {}", routes.name);
                write_hosts(text, &routes, "        ");
            }
            _ => {}
        }
    } else {
        let _ = writeln!(text, "    {}", filter.name);
    }
}

fn write_hosts(text: &mut String, routes: &RouteConfiguration, indent: &str) {
    for host in &routes.virtual_hosts {
        let VirtualHost { name, domains, require_tls, .. } = host;
        let tls = if *require_tls > 0 { " requires TLS" } else { "" };
        let _ = writeln!(text, "{indent}host {name}{tls}: {}", domains.join(" "));
        for route in &host.routes {
            write_route(text, route, indent);
        }
    }
}

fn write_route(text: &mut String, route: &Route, indent: &str) {
    let mut rest = route.clone();
    let matched = brief(&rest.r#match.take().expect("a match"));
    let action = match rest.action.take() {
        Some(Action::Route(action)) => format!("-> {}", brief(&action)),
        Some(Action::Redirect(redirect)) => format!("-> {}", brief(&redirect)),
        Some(Action::DirectResponse(response)) => format!("-> {}", brief(&response)),
        other => format!("-> {other:?}"),
    };
    rest.metadata = None;
    let mut filters: Vec<_> = rest.typed_per_filter_config.drain().collect();
    filters.sort_by(|a, b| a.0.cmp(&b.0));
    let _ = writeln!(text, "{indent}  {matched}\n{indent}    {action}\n{indent}    {}", brief(&rest));
    for (name, config) in filters {
        let shown = match (unpack::<fault::HttpFault>(&config), unpack::<cors::CorsPolicy>(&config)) {
            (Some(Ok(fault)), _) => brief(&fault),
            (_, Some(Ok(policy))) => brief(&policy),
            _ => config.type_url,
        };
        let _ = writeln!(text, "{indent}    {} {shown}", last_part(&name));
    }
}

fn show_match(matched: &FilterChainMatch) -> String {
    let mut shown = String::new();
    if let Some(port) = &matched.destination_port {
        let _ = write!(shown, " port={}", port.value);
    }
    let ranges: Vec<String> = matched
        .prefix_ranges
        .iter()
        .map(|range| format!("{}/{}", range.address_prefix, range.prefix_len.as_ref().map_or(0, |length| length.value)))
        .collect();
    for (name, values) in [
        ("to", &ranges),
        ("sni", &matched.server_names),
        ("alpn", &matched.application_protocols),
        ("transport", &vec![matched.transport_protocol.clone()].into_iter().filter(|t| !t.is_empty()).collect()),
    ] {
        if !values.is_empty() {
            let _ = write!(shown, " {name}={}", values.join(","));
        }
    }
    shown
}

fn show_address(address: &Address) -> String {
    match &address.address {
        Some(address::Address::SocketAddress(socket)) => match socket.port_specifier {
            Some(socket_address::PortSpecifier::PortValue(port)) => format!("{}:{port}", socket.address),
            _ => socket.address.clone(),
        },
        Some(address::Address::Pipe(pipe)) => pipe.path.clone(),
        other => format!("{other:?}"),
    }
}

fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}
