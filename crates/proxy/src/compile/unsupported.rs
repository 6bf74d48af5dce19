//! What compiles but the running proxy cannot serve yet: refused by name until it can. This table only ever shrinks.

use crate::compile::Refused;
use crate::compile::at::At;
use crate::config::{
    Cluster, Discovery, DownstreamTransport, FilterChain, Http2Options, HttpFilterKind, HttpManager, Listener, Network,
    TlsContext, UpstreamTransport,
};
use crate::tls::Params;

/// What of a listener cannot be served.
pub fn listener(listener: &Listener) -> Vec<Refused> {
    let mut out = Found(Vec::new());
    let at = At::resource(&listener.name);
    for (i, chain) in listener.chains.iter().enumerate() {
        filter_chain(&mut out, &at.item("filter_chains", i), chain);
    }
    if let Some(chain) = &listener.default_chain {
        filter_chain(&mut out, &at.field("default_filter_chain"), chain);
    }
    out.0
}

/// What of a cluster cannot be served.
pub fn cluster(cluster: &Cluster) -> Vec<Refused> {
    let mut out = Found(Vec::new());
    let at = &At::resource(&cluster.name);
    for (i, choice) in cluster.transport_matches.iter().enumerate() {
        upstream_transport(&mut out, &at.item("transport_socket_matches", i), &choice.transport);
    }
    upstream_transport(&mut out, at, &cluster.transport);
    let dynamic = matches!(cluster.discovery, Discovery::DynamicForwardProxy(_));
    out.when(dynamic, at, "cluster_type", "a dynamic forward proxy");
    malformed_in_stream(&mut out, at, &cluster.http.http2);
    out.0
}

/// What a malformed message ends is not a matter of configuration here.
fn malformed_in_stream(out: &mut Found, at: &At<'_>, options: &Http2Options) {
    let (field, what) = ("http2_protocol_options", "override_stream_error_on_invalid_http_message");
    out.when(options.stream_error_on_invalid_message, at, field, what);
}

struct Found(Vec<Refused>);

impl Found {
    fn when(&mut self, unsupported: bool, at: &At<'_>, field: &str, what: &str) {
        if unsupported
            && let Err(refused) = at.field(field).refuse::<()>(format!("{what} cannot be served by this proxy yet"))
        {
            self.0.push(refused);
        }
    }
}

fn upstream_transport(out: &mut Found, at: &At<'_>, transport: &UpstreamTransport) {
    if let Some(tls) = &transport.tls {
        parameters(out, &at.field("transport_socket"), &tls.common);
    }
}

/// What our TLS cannot do.
fn parameters(out: &mut Found, at: &At<'_>, tls: &TlsContext) {
    let at = at.field("common_tls_context");
    if let Err((field, reason)) = Params::of(tls)
        && let Err(refused) = at.field("tls_params").field(field).refuse::<()>(reason)
    {
        out.0.push(refused);
    }
}

fn filter_chain(out: &mut Found, at: &At<'_>, chain: &FilterChain) {
    if let DownstreamTransport::Tls(tls) = &chain.transport {
        parameters(out, &at.field("transport_socket"), &tls.common);
    }
    match &chain.network {
        Network::Http(manager) => http_manager(out, at, manager),
        Network::Tcp(_) | Network::Close => {}
    }
}

fn http_manager(out: &mut Found, at: &At<'_>, manager: &HttpManager) {
    let chain = manager.client_cert_details.chain;
    out.when(chain, at, "set_current_client_cert_details", "a client's whole chain in x-forwarded-client-cert");
    malformed_in_stream(out, at, &manager.http2);
    for filter in &manager.filters {
        match &filter.kind {
            HttpFilterKind::DynamicForwardProxy => out.when(true, at, "http_filters", "a dynamic forward proxy"),
            HttpFilterKind::Router(_)
            | HttpFilterKind::Fault(_)
            | HttpFilterKind::Cors
            | HttpFilterKind::ExtAuthz(_)
            | HttpFilterKind::GrpcStats
            | HttpFilterKind::IstioStats(_)
            | HttpFilterKind::Rbac(_)
            | HttpFilterKind::Jwt(_) => {}
        }
    }
}
