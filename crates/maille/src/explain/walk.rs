//! A request's way: proxy after proxy, each translated for and asked as it would be running.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use maille_api::{Kind, Object};
use maille_model::{Endpoint, MutualTls, Proxy, ProxyKind, Service, Snapshot};
use maille_proxy::compile;
use maille_proxy::simulate::{Call, CallProtocol, CallTls, Failure, Mode, Outcome, Tables};
use maille_xds::{TypeUrl, World};

use super::ask::{Ask, Protocol, Who};
use super::named::Named;
use crate::up::plan;

/// What the resources say.
pub(crate) struct Mesh {
    pub(super) objects: Vec<Arc<Object>>,
    pub(crate) snapshot: Snapshot,
    /// What was made for a proxy is kept: many requests come to the same ones.
    made: RefCell<HashMap<Proxy, Rc<Made>>>,
}

/// What a proxy is configured with, and what it makes of it.
struct Made {
    world: World,
    tables: Tables,
}

/// A request's way.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) hops: Vec<Hop>,
    /// What should be known beside.
    pub(crate) notes: Vec<String>,
}

/// One proxy on the way, and what it did.
#[derive(Debug)]
pub(crate) struct Hop {
    /// Which proxy.
    pub(crate) at: String,
    pub(crate) outcome: Outcome,
    /// The resource that the route came from.
    pub(crate) route: Option<Named>,
    /// The policy that refused.
    pub(crate) policy: Option<Named>,
    /// The policy that let it pass, where one had to.
    pub(crate) allowed_by: Option<Named>,
    /// What settles the TLS there.
    pub(crate) tls: Option<Named>,
    /// What the workload's port takes.
    pub(crate) mutual_tls: Option<MutualTls>,
    /// What came of it for a certificate with no good name, were the name good: whether policies would let it pass.
    pub(crate) alone: Option<bool>,
}

impl Answer {
    /// Whether every proxy lets it pass.
    pub(crate) fn passes(&self) -> bool {
        !self.hops.is_empty() && self.hops.iter().all(|hop| hop.outcome.error.is_none())
    }
}

impl Mesh {
    pub(crate) fn new(objects: Vec<Arc<Object>>, snapshot: Snapshot) -> Mesh {
        Mesh { objects, snapshot, made: RefCell::default() }
    }

    /// The way of a request; an error is a question that makes no sense.
    pub(crate) fn explain(&self, ask: &Ask) -> Result<Answer, String> {
        let mut answer = Answer::default();
        if let Some(at) = &ask.at {
            self.at(at, ask, &mut answer)?;
            return Ok(answer);
        }
        let (proxy, at, who) = match &ask.from {
            Some(who) => {
                let (proxy, at) = self.sidecar_of(who);
                (proxy, at, who.clone())
            }
            None => {
                let (proxy, at) = self.gateway(ask)?;
                let account = plan_account(&proxy);
                let who = Who { trust_domain: None, namespace: proxy.namespace.clone(), account };
                (proxy, at, who)
            }
        };
        let made = self.made(&proxy);
        let outcome = match &ask.from {
            Some(_) => self.leave(&made.tables, &proxy, ask)?,
            None => enter(&made.tables, ask),
        };
        if let Some(cluster) = self.hop(&mut answer, &proxy, at, outcome) {
            self.arrive(&made.world, &cluster, &who, ask, &mut answer);
        }
        Ok(answer)
    }

    /// What one workload's sidecar does with whoever calls it.
    fn at(&self, at: &str, ask: &Ask, answer: &mut Answer) -> Result<(), String> {
        let is_it = |endpoint: &&Endpoint| {
            let is_it = |name: &str| at == format!("{}/{name}", endpoint.namespace);
            is_it(name(endpoint)) || is_it(endpoint.address.host())
        };
        let mut endpoints: Vec<&Endpoint> = self.endpoints().filter(is_it).collect();
        if endpoints.is_empty() {
            return Err(format!("no workload is called {at}"));
        }
        if let Some(port) = ask.port {
            endpoints.retain(|endpoint| endpoint.address.port() == u32::from(port));
        }
        let endpoint = match &endpoints[..] {
            [] => return Err(format!("{at} is behind no service at port {}", ask.port.unwrap_or_default())),
            [first, rest @ ..] if rest.iter().all(|other| other.address == first.address) => first,
            _ => return Err(format!("{at} has several ports: write --to HOST:PORT, with the workload's own port")),
        };
        let own = ask.from.iter().map(|who| self.id(who));
        let ids: Vec<String> = own.chain(ask.ids.iter().cloned()).collect();
        let tls = if ids.is_empty() { CallTls::None } else { CallTls::Mutual };
        self.deliver(endpoint, tls, &ids, ask.server_name.as_deref().unwrap_or_default(), ask, answer);
        Ok(())
    }

    /// Notes what a proxy did; the cluster that the request goes on to.
    fn hop(&self, answer: &mut Answer, proxy: &Proxy, at: String, outcome: Outcome) -> Option<Arc<str>> {
        for cluster in &outcome.consults {
            answer
                .notes
                .push(format!("{at} would ask the external authorizer {cluster}; what it says is not known here"));
        }
        let cluster = outcome.cluster.clone().filter(|_| outcome.error.is_none());
        let route = outcome.made_from.as_deref().and_then(|path| self.named_by_path(path));
        let policy = outcome.refusal.as_ref().and_then(|refusal| match &refusal.policy {
            Some(name) => self.named_by_policy(name),
            // No policy allowed it, or a token was wanted.
            None => self.named_by_absence(proxy, refusal.details.starts_with("jwt_authn")),
        });
        let allowed_by = outcome.allowed_by.as_deref().and_then(|name| self.named_by_policy(name));
        let tls = match outcome.tls_from.as_deref() {
            Some(path) => self.named_by_path(path),
            None => None,
        };
        answer.hops.push(Hop { at, outcome, route, policy, allowed_by, tls, mutual_tls: None, alone: None });
        cluster
    }

    /// The proxy beside a client of the mesh.
    fn sidecar_of(&self, who: &Who) -> (Proxy, String) {
        let workloads = self.endpoints().filter(|e| e.namespace == who.namespace && e.service_account == who.account);
        let workload = workloads.into_iter().next();
        let labels = workload.map(|endpoint| endpoint.labels.clone()).unwrap_or_default();
        let ip = workload.map_or("127.0.0.1", |endpoint| endpoint.address.host());
        let proxy = sidecar(&who.namespace, &who.account, ip, labels);
        (proxy, format!("sidecar of {}/{}, outbound", who.namespace, who.account))
    }

    /// Every endpoint of every service.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        let of = |service: &'_ Arc<Service>| {
            let ports: Vec<u32> = service.ports.iter().map(|port| port.number).collect();
            ports.into_iter().flat_map(|port| self.snapshot.endpoints(service, port)).collect::<Vec<_>>()
        };
        self.snapshot.services().iter().flat_map(of)
    }

    /// What a client's own proxy does.
    fn leave(&self, tables: &Tables, proxy: &Proxy, ask: &Ask) -> Result<Outcome, String> {
        let service = self.snapshot.destination_service(&ask.host, &proxy.namespace);
        let only = service.filter(|service| service.ports.len() == 1).map(|service| service.ports[0].number as u16);
        let port = ask.port.or(only).ok_or_else(|| match service {
            Some(_) => format!("{} has several ports: write --to {}:PORT", ask.host, ask.host),
            None => format!("{} is no service of this mesh: write --to {}:PORT", ask.host, ask.host),
        })?;
        let address = service.and_then(|service| service.default_address().parse().ok());
        let address = address.filter(|ip: &IpAddr| !ip.is_unspecified());
        let to = SocketAddr::new(address.unwrap_or(Ipv4Addr::new(240, 240, 0, 1).into()), port);
        let host = match port {
            80 => ask.host.clone(),
            port => format!("{}:{port}", ask.host),
        };
        Ok(tables.run(&Call { mode: Mode::Outbound, ..call(ask, to, &host) }))
    }

    /// The gateway that has the port.
    fn gateway(&self, ask: &Ask) -> Result<(Proxy, String), String> {
        let planned = plan::plan(&self.objects, |_| true);
        if planned.is_empty() {
            return Err("there is no Gateway: say who asks with --from NAMESPACE/SERVICE-ACCOUNT".into());
        }
        let port = ask.port.unwrap_or(80);
        let has = planned.iter().find(|planned| planned.ports.contains_key(&port));
        let Some(planned) = has else {
            let ports: Vec<String> = planned.iter().flat_map(|p| p.ports.keys()).map(|port| port.to_string()).collect();
            return Err(format!("no Gateway has port {port}; there are {}", ports.join(", ")));
        };
        let proxy =
            Proxy { kind: ProxyKind::Router, ..sidecar(&planned.namespace, "", "127.0.0.1", planned.labels.clone()) };
        Ok((proxy, format!("gateway {}/{}", planned.namespace, planned.name)))
    }

    /// What the proxies of the workloads behind a cluster do.
    fn arrive(&self, world: &World, cluster: &str, client: &Who, ask: &Ask, answer: &mut Answer) {
        let parts: Vec<&str> = cluster.split('|').collect();
        let ["outbound", port, _, host] = parts[..] else { return };
        let service = self.snapshot.services().iter().find(|service| service.hostname == host);
        let (Some(service), Ok(port)) = (service, port.parse()) else { return };
        let endpoints = self.snapshot.endpoints(service, port);
        if endpoints.is_empty() {
            answer.notes.push(format!("{host} has no endpoint for port {port}: 503"));
        }
        let server_name = format!("outbound_.{port}_._.{host}");
        let mut seen: BTreeMap<(&str, &BTreeMap<String, String>), ()> = BTreeMap::new();
        for endpoint in endpoints {
            if seen.insert((&endpoint.namespace, &endpoint.labels), ()).is_some() {
                continue;
            }
            if !endpoint.has_mutual_tls() {
                answer.notes.push(format!("{} has no sidecar: no policy is enforced there", name(endpoint)));
                continue;
            }
            let tls = self.spoken(world, cluster, endpoint);
            let ids: Vec<String> = (tls == CallTls::Mutual).then(|| self.id(client)).into_iter().collect();
            self.deliver(endpoint, tls, &ids, &server_name, ask, answer);
        }
    }

    /// What a client's proxy puts around a connection to an endpoint.
    fn spoken(&self, world: &World, cluster: &str, endpoint: &Endpoint) -> CallTls {
        let cluster = world.get(TypeUrl::Cluster, cluster).and_then(|resource| resource.decode().ok());
        let Some(cluster) = cluster.and_then(|proto| compile::cluster(&proto).ok()) else { return CallTls::None };
        // Who takes plaintext only says so with its endpoints.
        let takes_mutual = self.mode(endpoint) != MutualTls::Disable;
        let transport = match &cluster.transport_matches[..] {
            [] => &cluster.transport,
            all => match all.iter().find(|choice| takes_mutual || choice.criteria.is_empty()) {
                Some(choice) => &choice.transport,
                None => &cluster.transport,
            },
        };
        match &transport.tls {
            None => CallTls::None,
            Some(tls) if tls.common.certificates.is_empty() => CallTls::Simple,
            Some(_) => CallTls::Mutual,
        }
    }

    fn mode(&self, endpoint: &Endpoint) -> MutualTls {
        self.snapshot.peer_mode(&endpoint.namespace, &endpoint.labels).of_port(endpoint.address.port())
    }

    /// What a workload's proxy does with a connection.
    fn deliver(
        &self,
        endpoint: &Endpoint,
        tls: CallTls,
        ids: &[String],
        server_name: &str,
        ask: &Ask,
        answer: &mut Answer,
    ) {
        let (namespace, labels) = (&endpoint.namespace, &endpoint.labels);
        let Ok(ip) = endpoint.address.host().parse() else { return };
        let proxy = sidecar(namespace, &endpoint.service_account, endpoint.address.host(), labels.clone());
        let to = SocketAddr::new(ip, endpoint.address.port() as u16);
        let alpn = if tls == CallTls::Mutual { "istio" } else { "http/1.1" };
        let call = Call {
            mode: Mode::Inbound,
            tls,
            alpn: vec![alpn.into()],
            server_name: server_name.to_owned(),
            names: (ids.iter().map(|id| id.as_str().into()).collect(), Vec::new(), String::new()),
            ..call(ask, to, &ask.host)
        };
        let made = self.made(&proxy);
        let outcome = made.tables.run(&call);
        let wrong_name = outcome.error == Some(Failure::WrongName);
        self.hop(answer, &proxy, format!("sidecar of {namespace}/{}, inbound", name(endpoint)), outcome);
        let Some(hop) = answer.hops.last_mut() else { return };
        if wrong_name {
            hop.alone = Some(made.tables.run(&Call { any_name: true, ..call }).error.is_none());
        }
        hop.mutual_tls = Some(self.mode(endpoint));
        let decider = self.snapshot.peer_decider(namespace, labels, endpoint.address.port());
        hop.tls = decider.map(|policy| {
            self.named(Kind::PeerAuthentication, "PeerAuthentication", &policy.meta.namespace, &policy.meta.name)
        });
    }

    /// The SPIFFE id of a client of the mesh.
    fn id(&self, who: &Who) -> String {
        let own = self.trust_domain();
        let domain = who.trust_domain.as_deref().unwrap_or(&own);
        format!("spiffe://{domain}/ns/{}/sa/{}", who.namespace, who.account)
    }

    fn trust_domain(&self) -> String {
        match self.snapshot.mesh().trust_domain.as_str() {
            "" => "cluster.local".into(),
            domain => domain.into(),
        }
    }

    fn made(&self, proxy: &Proxy) -> Rc<Made> {
        let make = || {
            let world = maille_translate::translate(&self.snapshot, proxy);
            let tables = Tables::compile(&world).0;
            Rc::new(Made { world, tables })
        };
        self.made.borrow_mut().entry(proxy.clone()).or_insert_with(make).clone()
    }
}

/// What a gateway does, in plain text or, where it wants that, by TLS.
fn enter(tables: &Tables, ask: &Ask) -> Outcome {
    let port = ask.port.unwrap_or(80);
    let host = match ask.port {
        None | Some(80 | 443) => ask.host.clone(),
        Some(port) => format!("{}:{port}", ask.host),
    };
    let plain = call(ask, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port), &host);
    let outcome = tables.run(&plain);
    match outcome.error {
        Some(Failure::Tls | Failure::NoFilterChain) if plain.tls == CallTls::None => tables.run(&Call {
            tls: CallTls::Simple,
            server_name: ask.server_name.clone().unwrap_or_else(|| ask.host.clone()),
            alpn: vec!["h2".into(), "http/1.1".into()],
            ..plain
        }),
        _ => outcome,
    }
}

/// What a workload is called.
fn name(endpoint: &Endpoint) -> &str {
    match endpoint.workload_name.as_str() {
        "" => endpoint.address.host(),
        name => name,
    }
}

/// The service account of a gateway of this machine, as `maille up` starts it.
fn plan_account(proxy: &Proxy) -> String {
    match proxy.labels.get("istio") {
        Some(name) => format!("istio-{name}-service-account"),
        None => "default".into(),
    }
}

/// A proxy beside a workload.
pub(crate) fn sidecar(namespace: &str, account: &str, ip: &str, labels: BTreeMap<String, String>) -> Proxy {
    Proxy {
        kind: ProxyKind::Sidecar,
        id: format!("explained.{namespace}"),
        ip_addresses: vec![ip.to_owned()],
        namespace: namespace.to_owned(),
        service_account: account.to_owned(),
        labels,
        dns_domain: format!("{namespace}.svc.cluster.local"),
        locality: Default::default(),
        network: String::new(),
        cluster_id: String::new(),
        metadata: maille_model::ProxyMetadata::default(),
    }
}

fn call(ask: &Ask, to: SocketAddr, host: &str) -> Call {
    // Who writes a Host header means it.
    let host = ask.headers.iter().find(|(name, _)| name == "host").map_or(host, |(_, value)| value);
    let mut call = Call::get(to, host, &ask.path);
    call.method.clone_from(&ask.method);
    call.headers.extend(ask.headers.iter().filter(|(name, _)| name != "host").cloned());
    call.source = SocketAddr::new(ask.source, 40_000);
    call.now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    call.protocol = match ask.protocol {
        Protocol::Http => CallProtocol::Http,
        Protocol::Tcp | Protocol::Tls => CallProtocol::Tcp,
    };
    if ask.protocol == Protocol::Tls {
        call.tls = CallTls::Simple;
        call.server_name = ask.server_name.clone().unwrap_or_else(|| ask.host.clone());
    }
    call
}
