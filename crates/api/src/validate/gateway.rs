//! Gateway: servers, each a port, the hosts it serves, and how it ends TLS.

use std::collections::BTreeSet;

use super::findings::{At, Problem};
use super::protocol::{self, Protocol};
use super::{made_from_gateway_api, rules, tls};
use crate::meta::ObjectMeta;
use crate::networking::Gateway;
use crate::networking::gateway::{Port, Server, ServerTlsMode, ServerTlsSettings};

pub(super) fn validate(meta: &ObjectMeta, gateway: &Gateway, at: &mut At<'_>) {
    let semantics = made_from_gateway_api(meta, "internal.istio.io/gateway-semantics", "gateway");
    if !semantics {
        // VirtualServices name gateways in `namespace/name`, where a dot would mean something else.
        at.sibling("metadata.name").check(rules::dns_label("name of a gateway", &meta.name));
    }
    if gateway.servers.is_empty() {
        at.field("servers").error(Problem::new("a gateway needs at least one server").hint("add a port and its hosts"));
    }
    let mut names = BTreeSet::new();
    for (i, server) in gateway.servers.iter().enumerate() {
        let mut at = at.field("servers");
        let at = &mut at.index(i);
        self::server(server, semantics, at);
        let Some(port) = &server.port else { continue };
        if !names.insert(&port.name) {
            at.field("port").field("name").error(
                Problem::new(format!("the port of another server is called `{}` already", port.name))
                    .hint("give each its own name"),
            );
        }
        let is_http = Protocol::parse(&port.protocol).is_some_and(Protocol::is_http);
        if !is_http && server.tls.as_ref().is_some_and(|tls| tls.https_redirect) {
            at.field("tls").field("httpsRedirect").warn(
                Problem::new(format!("{} is not redirected to HTTPS", port.protocol.to_uppercase()))
                    .hint("redirect on a server of its own whose protocol is HTTP"),
            );
        }
    }
}

fn server(server: &Server, semantics: bool, at: &mut At<'_>) {
    if server.hosts.is_empty() {
        at.field("hosts").error(Problem::new("a server needs at least one host").hint("write `\"*\"` for any host"));
    }
    for (i, host) in server.hosts.iter().enumerate() {
        rules::server_host(host, semantics, &mut at.field("hosts").index(i));
    }
    bind(server, at);
    if let Some(settings) = &server.tls {
        tls::server(settings, &mut at.field("tls"));
    }
    match &server.port {
        Some(port) => {
            let valid = self::port(port, &server.bind, &mut at.field("port"));
            if let (true, Some(protocol)) = (valid, Protocol::parse(&port.protocol)) {
                tls_fits(protocol, server.tls.as_ref(), at);
            }
        }
        None => at.field("port").error(
            Problem::new("a server needs a port").hint("write `port: {number: 80, name: http, protocol: HTTP}`"),
        ),
    }
}

/// Whether the port can be used; TLS is only judged on those that can.
fn port(port: &Port, bind: &str, at: &mut At<'_>) -> bool {
    let verdicts = [
        ("protocol", protocol::required(&port.protocol)),
        ("number", if port.number == 0 && bind.starts_with(rules::UNIX) { Ok(()) } else { rules::port(port.number) }),
        (
            "targetPort",
            match port.target_port {
                0 => Ok(()),
                _ => Err(Problem::new("a gateway listens on its port, and has no target port").hint("remove it")),
            },
        ),
        (
            "name",
            match port.name.as_str() {
                "" => Err(Problem::new("the port has no name").hint("give it one, as in `name: http`")),
                _ => Ok(()),
            },
        ),
    ];
    let mut valid = true;
    for (field, verdict) in verdicts {
        valid &= verdict.is_ok();
        at.field(field).check(verdict);
    }
    valid
}

fn bind(server: &Server, at: &mut At<'_>) {
    if let Some(path) = server.bind.strip_prefix(rules::UNIX) {
        at.field("bind").check(rules::unix_path(path));
        if server.port.as_ref().is_some_and(|port| port.number != 0) {
            at.field("port").field("number").error("a Unix socket has no port: the number has to be 0");
        }
    } else if !server.bind.is_empty() {
        at.field("bind").check(rules::ip_address(&server.bind));
    }
}

/// Whether the server has TLS settings exactly if its protocol says TLS.
fn tls_fits(protocol: Protocol, tls: Option<&ServerTlsSettings>, at: &mut At<'_>) {
    match tls {
        None if protocol.is_tls() => at.field("tls").error(
            Problem::new("HTTPS and TLS need to know how TLS is ended")
                .hint("set tls.mode: SIMPLE with a certificate, or PASSTHROUGH"),
        ),
        // HTTP with nothing but a redirect to HTTPS.
        Some(tls) if protocol.is_http() && ends_nothing(tls) => {}
        Some(_) if !protocol.is_tls() => at.field("tls").error(
            Problem::new("the protocol of this port is plain text, which has no TLS settings")
                .hint("set the protocol to HTTPS or TLS, or remove tls"),
        ),
        _ => {}
    }
}

fn ends_nothing(tls: &ServerTlsSettings) -> bool {
    matches!(tls.mode, ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough)
        && tls.ca_certificates.is_empty()
        && tls.private_key.is_empty()
        && tls.server_certificate.is_empty()
}
