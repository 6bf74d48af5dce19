//! What would happen to a connection and a request, asked of the compiled tables without a socket.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use maille_http::RequestHead;
use maille_http::request::Scheme;
use maille_identity::x509::PeerCertificate;
use maille_xds::types::{listener, route};
use maille_xds::{TypeUrl, World};

use crate::compile::{self, Refused};
use crate::config::{
    Action, Direction, DownstreamTls, DownstreamTransport, FilterChain, HttpFilterKind, HttpManager, Listener,
    ListenerFilterKind, Metadata, Network, Rbac, RbacAction, RequireTls, Route, RouteSource, RouteTable, SecretSource,
    TcpDestination,
};
use crate::policy::rbac::{Facts, Peer};
use crate::policy::{self, Refusal, Step};
use crate::route::{ClientTls, Connection, Request};
use crate::worker::request::trusted_client;

/// Compiled listeners and route tables.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// The listeners, in order of name.
    pub listeners: Vec<Arc<Listener>>,
    /// The discovered route tables by name.
    pub routes: BTreeMap<Arc<str>, Arc<RouteTable>>,
}

/// What is sent.
#[derive(Clone, Debug)]
pub struct Call {
    /// How it reaches the proxy.
    pub mode: Mode,
    /// Where the client wants to go.
    pub destination: SocketAddr,
    /// Where the client is.
    pub source: SocketAddr,
    /// What is spoken, inside TLS if there is TLS.
    pub protocol: CallProtocol,
    /// Whether there is TLS.
    pub tls: CallTls,
    /// The protocols that the client's TLS offers, best first.
    pub alpn: Vec<String>,
    /// The name that the client's TLS asks for; empty is none.
    pub server_name: String,
    /// The method.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// The headers; `host` is the authority.
    pub headers: Vec<(String, String)>,
    /// The name of the secret that tells a mesh's own certificate from others.
    pub mesh_secret: String,
    /// The names that the client's certificate proves, when it has one: URIs, DNS names, the subject.
    pub names: (Vec<Box<str>>, Vec<Box<str>>, String),
    /// Whether a client's certificate is good whatever its names are: what policies alone would say.
    pub any_name: bool,
    /// When it happens, since 1970: tokens expire.
    pub now: Duration,
    /// What everything that is left to chance comes from.
    pub random: u64,
}

impl Call {
    /// A GET request over plain HTTP.
    pub fn get(destination: SocketAddr, host: &str, path: &str) -> Call {
        Call {
            mode: Mode::Direct,
            destination,
            source: SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 40_000),
            protocol: CallProtocol::Http,
            tls: CallTls::None,
            alpn: Vec::new(),
            server_name: String::new(),
            method: "GET".into(),
            path: path.into(),
            headers: vec![("host".into(), host.into())],
            mesh_secret: "default".into(),
            names: Default::default(),
            any_name: false,
            now: Duration::ZERO,
            random: 0,
        }
    }

    /// What policies see of it.
    fn facts<'a>(&'a self, head: Option<&'a RequestHead>, remote: IpAddr) -> Facts<'a> {
        let (uris, dns, subject) = &self.names;
        Facts {
            head,
            direct: self.source.ip(),
            remote,
            destination: self.destination,
            server_name: if self.tls == CallTls::None { "" } else { &self.server_name },
            peer: match self.tls {
                CallTls::None => None,
                CallTls::Simple => Some(Peer::default()),
                CallTls::Mutual => Some(Peer { uris, dns, subject }),
            },
            metadata: None,
            route_metadata: None,
        }
    }
}

/// How a call reaches the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// At the address it was sent to.
    Direct,
    /// Captured on its way out of the workload.
    Outbound,
    /// Captured on its way to the workload.
    Inbound,
}

/// What a call speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are the protocols")]
pub enum CallProtocol {
    Tcp,
    Http,
    Http2,
}

/// Whether a call has TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallTls {
    /// No.
    None,
    /// Without a certificate of the client's.
    Simple,
    /// With one.
    Mutual,
}

/// What happened, as far as it went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The listener that took it.
    pub listener: Option<Arc<str>>,
    /// The filter chain; may have no name.
    pub filter_chain: Option<Arc<str>>,
    /// The route table, when it was discovered.
    pub route_config: Option<Arc<str>>,
    /// The virtual host.
    pub virtual_host: Option<Arc<str>>,
    /// The route; may have no name.
    pub route: Option<Arc<str>>,
    /// The cluster it goes to; redirects and direct responses have none.
    pub cluster: Option<Arc<str>>,
    /// What lies between TCP and the protocol.
    pub transport: Option<Transport>,
    /// What settles that, as the control plane names it in the chain's metadata.
    pub tls_from: Option<Arc<str>>,
    /// Why it went no further.
    pub error: Option<Failure>,
    /// The answer of the policy that refused it.
    pub refusal: Option<Refusal>,
    /// The policy that let it pass, where one had to.
    pub allowed_by: Option<Arc<str>>,
    /// The resource that the route, or the chain of a stream, was made from, as the control plane names it in the metadata.
    pub made_from: Option<Arc<str>>,
    /// Clusters of the external authorizers that would be asked; what they would say nobody knows.
    pub consults: Vec<Arc<str>>,
}

/// What lies between TCP and the protocol at the chain that took a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Nothing, and the client sent no TLS.
    Plaintext,
    /// Nothing: the client's TLS goes through unopened.
    Passthrough,
    /// TLS ends here.
    Tls,
    /// TLS ends here; a client's certificate is checked when there is one.
    OptionalMutual,
    /// TLS ends here, and the client must have a certificate.
    Mutual,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Plaintext => "plain text",
            Transport::Passthrough => "TLS that goes through unopened",
            Transport::Tls => "TLS ends here",
            Transport::OptionalMutual => "TLS ends here, a client's certificate is looked at",
            Transport::Mutual => "mutual TLS ends here",
        })
    }
}

/// Why a call goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "their texts say it")]
pub enum Failure {
    NoListener,
    NoFilterChain,
    NoVirtualHost,
    NoRoute,
    TlsRedirect,
    Protocol,
    Tls,
    MutualTls,
    WrongName,
    Path,
    Denied,
}

impl Failure {
    /// The status that the client gets; none where it gets no answer, or a policy's.
    pub fn status(self) -> Option<u16> {
        match self {
            Failure::NoVirtualHost | Failure::NoRoute => Some(404),
            Failure::TlsRedirect => Some(301),
            Failure::Path => Some(400),
            Failure::NoListener
            | Failure::NoFilterChain
            | Failure::Protocol
            | Failure::Tls
            | Failure::MutualTls
            | Failure::WrongName
            | Failure::Denied => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failure::NoListener => "no listener matched",
            Failure::NoFilterChain => "no filter chains matched",
            Failure::NoVirtualHost => "no virtual host matched",
            Failure::NoRoute => "no route matched",
            Failure::TlsRedirect => "tls required, sending 301",
            Failure::Protocol => "protocol error",
            Failure::Tls => "invalid TLS",
            Failure::MutualTls => "invalid mTLS",
            Failure::WrongName => "the client's certificate has no name that is taken here",
            Failure::Path => "path rejected",
            Failure::Denied => "denied by policy",
        })
    }
}

impl Tables {
    /// The tables of a world; what cannot be compiled is left out and named.
    pub fn compile(world: &World) -> (Tables, Vec<Refused>) {
        let mut refused = Vec::new();
        let mut tables = Tables::default();
        for resource in world.of(TypeUrl::Listener).values() {
            match compile::decode::<listener::Listener>(resource).and_then(|proto| compile::listener(&proto)) {
                Ok(listener) => tables.listeners.push(Arc::new(listener)),
                Err(reason) => refused.push(reason),
            }
        }
        for resource in world.of(TypeUrl::Route).values() {
            match compile::decode::<route::RouteConfiguration>(resource).and_then(|proto| compile::routes(&proto)) {
                Ok(table) => drop(tables.routes.insert(table.name.clone(), Arc::new(table))),
                Err(reason) => refused.push(reason),
            }
        }
        (tables, refused)
    }

    /// What would happen to a call.
    pub fn run(&self, call: &Call) -> Outcome {
        let mut outcome = Outcome::default();
        outcome.error = self.follow(call, &mut outcome).err();
        outcome
    }

    fn follow(&self, call: &Call, outcome: &mut Outcome) -> Result<(), Failure> {
        let listener = self.listener(call).ok_or(Failure::NoListener)?;
        outcome.listener = Some(listener.name.clone());
        let chain = filter_chain(listener, call).ok_or(Failure::NoFilterChain)?;
        outcome.filter_chain = Some(chain.name.clone());
        outcome.transport = Some(transport(chain, call));
        outcome.tls_from.clone_from(&chain.made_from.tls);
        check_tls(chain, call)?;
        let mut metadata = Metadata::default();
        for rules in &chain.rbac {
            allows(rules, &call.facts(None, call.source.ip()), outcome);
            let step = policy::ask_rules(rules, &call.facts(None, call.source.ip()), &mut metadata);
            pass(step, outcome)?;
        }
        let asked = chain.authorizers.iter().filter(|filter| filter.concerns(&metadata));
        outcome.consults.extend(asked.map(|filter| filter.service.cluster.clone()));
        match &chain.network {
            Network::Http(manager) => self.request(chain, manager, call, outcome),
            Network::Tcp(proxy) => {
                outcome.made_from.clone_from(&chain.made_from.config);
                outcome.cluster = Some(match &proxy.cluster {
                    TcpDestination::Cluster(name) => name.clone(),
                    TcpDestination::Weighted(clusters) => clusters.pick(call.random).cluster.clone(),
                    TcpDestination::Sni => call.server_name.as_str().into(),
                });
                Ok(())
            }
            Network::Close => Ok(()),
        }
    }

    fn listener(&self, call: &Call) -> Option<&Arc<Listener>> {
        let find = |wanted: &dyn Fn(&Listener) -> bool| self.listeners.iter().find(|listener| wanted(listener));
        if call.mode == Mode::Inbound {
            return find(&|listener| {
                listener.direction == Direction::Inbound
                    && has_filter(listener, |kind| *kind == ListenerFilterKind::OriginalDst, call)
            });
        }
        let at = |address: IpAddr| {
            let wanted = SocketAddr::new(address, call.destination.port());
            find(&|listener| listener.address == wanted || listener.additional_addresses.contains(&wanted))
        };
        let any: [IpAddr; 2] = [std::net::Ipv4Addr::UNSPECIFIED.into(), std::net::Ipv6Addr::UNSPECIFIED.into()];
        at(call.destination.ip())
            .or_else(|| any.into_iter().find_map(at))
            .or_else(|| find(&|listener| listener.use_original_dst))
    }

    fn request(
        &self,
        chain: &FilterChain,
        manager: &HttpManager,
        call: &Call,
        outcome: &mut Outcome,
    ) -> Result<(), Failure> {
        let is_plaintext = matches!(chain.transport, DownstreamTransport::Plaintext);
        if call.protocol == CallProtocol::Tcp || (call.tls != CallTls::None && is_plaintext) {
            return Err(Failure::Protocol);
        }
        let table = match &manager.routes {
            RouteSource::Inline(table) => Some(table),
            RouteSource::Rds(name) => {
                outcome.route_config = Some(name.clone());
                self.routes.get(name)
            }
        };
        let mut head = head(call);
        let remote = trusted_client(manager, &head.headers, call.source.ip()).0.unwrap_or(call.source.ip());
        normalize(manager, &mut head)?;
        let mut metadata = Metadata::default();
        let mut found = find_route(table, call, &head, &metadata);
        for filter in &manager.filters {
            let step = match &filter.kind {
                HttpFilterKind::Rbac(rules) => {
                    let facts = call.facts(Some(&head), remote);
                    allows(rules, &Facts { metadata: Some(&metadata), ..facts }, outcome);
                    policy::ask_rules(rules, &facts, &mut metadata)
                }
                HttpFilterKind::Jwt(filter) => {
                    policy::ask_for_token(filter, &mut head, call.random, call.now, &mut metadata)
                }
                HttpFilterKind::ExtAuthz(filter) => {
                    if filter.concerns(&metadata) {
                        outcome.consults.push(filter.service.cluster().clone());
                    }
                    Step::Pass
                }
                _ => Step::Pass,
            };
            if step == Step::Reroute {
                found = find_route(table, call, &head, &metadata);
            }
            pass(step, outcome)?;
        }
        let Found { host, route } = found;
        outcome.virtual_host = host;
        let route = route?;
        outcome.route = Some(route.name.clone());
        let made_from = route.metadata.as_ref().and_then(|metadata| metadata.get("istio", &["config"])?.as_str());
        outcome.made_from = made_from.map(Arc::from);
        if let Action::Forward(forward) = &route.action {
            let destination = forward.destination(call.random);
            outcome.cluster = forward.cluster_name(destination, &head).map(Arc::from);
        }
        Ok(())
    }
}

/// The route of a request, and the virtual host that it was looked for in.
struct Found<'t> {
    host: Option<Arc<str>>,
    route: Result<&'t Route, Failure>,
}

fn find_route<'t>(
    table: Option<&'t Arc<RouteTable>>,
    call: &Call,
    head: &RequestHead,
    metadata: &Metadata,
) -> Found<'t> {
    let Some(host) = table.and_then(|table| table.virtual_host(head.authority())) else {
        return Found { host: None, route: Err(Failure::NoVirtualHost) };
    };
    let presented = call.tls == CallTls::Mutual;
    let tls = ClientTls { presented, validated: presented };
    let request = Request { head, random: call.random, tls, metadata: Some(metadata) };
    let route = match host.require_tls == RequireTls::All && call.tls == CallTls::None {
        true => Err(Failure::TlsRedirect),
        false => host.route(&request).ok_or(Failure::NoRoute),
    };
    Found { host: Some(host.name.clone()), route }
}

/// What every request's path becomes before anybody looks at it.
fn normalize(manager: &HttpManager, head: &mut RequestHead) -> Result<(), Failure> {
    use maille_http::path::Outcome;
    if matches!(head.path_and_query(), b"" | b"*") {
        return Ok(());
    }
    match manager.path.apply(head.path_and_query()) {
        Outcome::Continue(std::borrow::Cow::Owned(path)) => head.set_path(&path),
        Outcome::Continue(std::borrow::Cow::Borrowed(_)) => {}
        Outcome::Redirect(_) | Outcome::Reject => return Err(Failure::Path),
    }
    Ok(())
}

/// Notes which policy lets a call pass.
fn allows(rules: &Rbac, facts: &Facts<'_>, outcome: &mut Outcome) {
    let enforced = rules.rules.as_ref().filter(|rules| rules.action == RbacAction::Allow);
    if let Some(policy) = enforced.and_then(|rules| rules.judge(facts).policy) {
        outcome.allowed_by = Some(policy);
    }
}

fn pass(step: Step, outcome: &mut Outcome) -> Result<(), Failure> {
    match step {
        Step::Pass | Step::Reroute => Ok(()),
        Step::Refuse(refusal) => {
            outcome.refusal = Some(*refusal);
            Err(Failure::Denied)
        }
    }
}

fn has_filter(listener: &Listener, which: impl Fn(&ListenerFilterKind) -> bool, call: &Call) -> bool {
    listener.filters.iter().any(|filter| {
        which(&filter.kind) && !filter.disabled.as_ref().is_some_and(|when| when.holds(call.destination.port()))
    })
}

fn filter_chain<'a>(listener: &'a Listener, call: &Call) -> Option<&'a Arc<FilterChain>> {
    let sees_tls = has_filter(listener, |kind| matches!(kind, ListenerFilterKind::TlsInspector { .. }), call)
        && call.tls != CallTls::None;
    let sees_http =
        has_filter(listener, |kind| *kind == ListenerFilterKind::HttpInspector, call) && call.tls == CallTls::None;
    let offered: Vec<&str> = match call.protocol {
        _ if sees_tls => call.alpn.iter().map(String::as_str).collect(),
        CallProtocol::Http if sees_http => vec!["http/1.1"],
        CallProtocol::Http2 if sees_http => vec!["h2c"],
        _ => Vec::new(),
    };
    let connection = Connection {
        destination: call.destination,
        source: call.source,
        direct_source: call.source,
        server_name: if sees_tls { &call.server_name } else { "" },
        transport_protocol: if sees_tls { "tls" } else { "raw_buffer" },
        application_protocols: &offered,
    };
    listener.chain(&connection)
}

fn transport(chain: &FilterChain, call: &Call) -> Transport {
    match &chain.transport {
        DownstreamTransport::Plaintext if call.tls == CallTls::None => Transport::Plaintext,
        DownstreamTransport::Plaintext => Transport::Passthrough,
        DownstreamTransport::Tls(tls) if tls.require_client_certificate => Transport::Mutual,
        DownstreamTransport::Tls(tls) if tls.common.validation.is_some() => Transport::OptionalMutual,
        DownstreamTransport::Tls(_) => Transport::Tls,
    }
}

fn check_tls(chain: &FilterChain, call: &Call) -> Result<(), Failure> {
    match &chain.transport {
        DownstreamTransport::Plaintext => Ok(()),
        DownstreamTransport::Tls(_) if call.tls == CallTls::None => Err(Failure::Tls),
        DownstreamTransport::Tls(tls) if wants_mesh(tls, call) != (call.tls == CallTls::Mutual) => {
            Err(Failure::MutualTls)
        }
        DownstreamTransport::Tls(tls) if !has_name(tls, call) => Err(Failure::WrongName),
        DownstreamTransport::Tls(_) => Ok(()),
    }
}

/// Whether the client's certificate has a name that the chain wants, as far as it is written in the chain; who names none has any.
fn has_name(tls: &DownstreamTls, call: &Call) -> bool {
    let (uris, dns, _) = &call.names;
    let wanted = tls.common.validation.as_ref().map(|validation| &*validation.names).unwrap_or_default();
    if wanted.is_empty() || call.any_name || (uris.is_empty() && dns.is_empty()) {
        return true;
    }
    let shown = PeerCertificate { uri_sans: uris.clone(), dns_sans: dns.clone(), ..PeerCertificate::default() };
    wanted.iter().any(|name| name.accepts(&shown))
}

/// Whether a chain wants a client's certificate and shows the mesh's own.
fn wants_mesh(tls: &DownstreamTls, call: &Call) -> bool {
    let first = tls.common.certificates.first();
    tls.require_client_certificate && matches!(first, Some(SecretSource::Sds(sds)) if *sds.name == call.mesh_secret)
}

fn head(call: &Call) -> RequestHead {
    let headers: Vec<(&str, &str)> = call.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let mut head = RequestHead::build(&call.method, "", &call.path, &headers);
    head.set_scheme(if call.tls == CallTls::None { Scheme::Http } else { Scheme::Https });
    head
}

#[cfg(test)]
mod tests;
