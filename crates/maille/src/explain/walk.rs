//! A request's way: proxy after proxy, each translated for and asked as it would be running.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use maille_api::{Kind, Object, Source};
use maille_model::{Endpoint, Proxy, ProxyKind, Service, Snapshot};
use maille_proxy::simulate::{Call, CallTls, Failure, Mode, Outcome, Tables};

use super::ask::{Ask, Who};
use crate::up::plan;

/// What the resources say.
pub(crate) struct Mesh {
    objects: Vec<Arc<Object>>,
    pub(crate) snapshot: Snapshot,
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
}

/// A resource and where it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) kind: &'static str,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Which of its rules.
    pub(crate) rule: Option<usize>,
    pub(crate) source: Option<String>,
}

impl Answer {
    /// Whether every proxy lets it pass.
    pub(crate) fn passes(&self) -> bool {
        !self.hops.is_empty() && self.hops.iter().all(|hop| hop.outcome.error.is_none())
    }
}

impl Mesh {
    pub(crate) fn new(objects: Vec<Arc<Object>>, snapshot: Snapshot) -> Mesh {
        Mesh { objects, snapshot }
    }

    /// The way of a request; an error is a question that makes no sense.
    pub(crate) fn explain(&self, ask: &Ask) -> Result<Answer, String> {
        let mut answer = Answer::default();
        let (cluster, client) = match &ask.from {
            Some(who) => {
                let (proxy, at) = self.sidecar_of(who);
                let outcome = self.leave(&proxy, ask)?;
                (self.hop(&mut answer, &proxy, at, outcome), Some(who.clone()))
            }
            None => {
                let (proxy, at) = self.gateway(ask)?;
                let outcome = self.enter(&proxy, ask);
                let account = plan_account(&proxy);
                let who = Who { trust_domain: None, namespace: proxy.namespace.clone(), account };
                (self.hop(&mut answer, &proxy, at, outcome), Some(who))
            }
        };
        if let Some(cluster) = cluster {
            self.arrive(&cluster, client.as_ref(), ask, &mut answer);
        }
        Ok(answer)
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
        answer.hops.push(Hop { at, outcome, route, policy });
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
    fn leave(&self, proxy: &Proxy, ask: &Ask) -> Result<Outcome, String> {
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
        let call = Call { mode: Mode::Outbound, ..call(ask, to, &host) };
        Ok(self.tables(proxy).run(&call))
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

    /// What a gateway does, in plain text or, where it wants that, by TLS.
    fn enter(&self, proxy: &Proxy, ask: &Ask) -> Outcome {
        let port = ask.port.unwrap_or(80);
        let tables = self.tables(proxy);
        let host = match ask.port {
            None | Some(80 | 443) => ask.host.clone(),
            Some(port) => format!("{}:{port}", ask.host),
        };
        let plain = call(ask, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port), &host);
        let outcome = tables.run(&plain);
        match outcome.error {
            Some(Failure::Tls | Failure::NoFilterChain) => tables.run(&Call {
                tls: CallTls::Simple,
                server_name: ask.host.clone(),
                alpn: vec!["h2".into(), "http/1.1".into()],
                ..plain
            }),
            _ => outcome,
        }
    }

    /// What the proxies of the workloads behind a cluster do.
    fn arrive(&self, cluster: &str, client: Option<&Who>, ask: &Ask, answer: &mut Answer) {
        let parts: Vec<&str> = cluster.split('|').collect();
        let ["outbound", port, _, host] = parts[..] else { return };
        let service = self.snapshot.services().iter().find(|service| service.hostname == host);
        let (Some(service), Ok(port)) = (service, port.parse()) else { return };
        let endpoints = self.snapshot.endpoints(service, port);
        if endpoints.is_empty() {
            answer.notes.push(format!("{host} has no endpoint for port {port}: 503"));
        }
        let mut seen: BTreeMap<(&str, &BTreeMap<String, String>), ()> = BTreeMap::new();
        for endpoint in endpoints {
            let name = match endpoint.workload_name.as_str() {
                "" => endpoint.address.host(),
                name => name,
            };
            if seen.insert((&endpoint.namespace, &endpoint.labels), ()).is_some() {
                continue;
            }
            if !endpoint.has_mutual_tls() {
                answer.notes.push(format!("{name} has no sidecar: no policy is enforced there"));
                continue;
            }
            let proxy = sidecar(
                &endpoint.namespace,
                &endpoint.service_account,
                endpoint.address.host(),
                endpoint.labels.clone(),
            );
            let Ok(ip) = endpoint.address.host().parse() else { continue };
            let to = SocketAddr::new(ip, endpoint.address.port() as u16);
            let own = self.trust_domain();
            let id = client.map(|who| {
                let domain = who.trust_domain.as_deref().unwrap_or(&own);
                format!("spiffe://{domain}/ns/{}/sa/{}", who.namespace, who.account)
            });
            let call = Call {
                mode: Mode::Inbound,
                tls: CallTls::Mutual,
                alpn: vec!["istio".into()],
                server_name: format!("outbound_.{port}_._.{host}"),
                names: (id.into_iter().map(String::into_boxed_str).collect(), Vec::new(), String::new()),
                ..call(ask, to, &ask.host)
            };
            let outcome = self.tables(&proxy).run(&call);
            self.hop(answer, &proxy, format!("sidecar of {}/{name}, inbound", endpoint.namespace), outcome);
        }
    }

    fn trust_domain(&self) -> String {
        match self.snapshot.mesh().trust_domain.as_str() {
            "" => "cluster.local".into(),
            domain => domain.into(),
        }
    }

    fn tables(&self, proxy: &Proxy) -> Tables {
        Tables::compile(&maille_translate::translate(&self.snapshot, proxy)).0
    }

    fn source(&self, kind: Kind, namespace: &str, name: &str) -> Option<String> {
        let is_it = |object: &&Arc<Object>| {
            object.spec.kind() == kind && object.meta.namespace == namespace && object.meta.name == name
        };
        self.objects.iter().find(is_it)?.source.as_ref().map(Source::to_string)
    }

    /// `/apis/networking.istio.io/v1/namespaces/NS/virtual-service/NAME`.
    fn named_by_path(&self, path: &str) -> Option<Named> {
        let parts: Vec<&str> = path.split('/').collect();
        let ["", "apis", _, _, "namespaces", namespace, "virtual-service", name] = parts[..] else { return None };
        let source = self.source(Kind::VirtualService, namespace, name);
        Some(Named { kind: "VirtualService", namespace: namespace.into(), name: name.into(), rule: None, source })
    }

    /// `ns[NS]-policy[NAME]-rule[N]`, as Istio calls its policies.
    fn named_by_policy(&self, policy: &str) -> Option<Named> {
        let rest = &policy[policy.find("ns[")? + 3..];
        let (namespace, rest) = rest.split_once("]-policy[")?;
        let (name, rest) = rest.split_once("]-rule[")?;
        let rule = rest.split(']').next()?.parse().ok();
        let source = self.source(Kind::AuthorizationPolicy, namespace, name);
        Some(Named { kind: "AuthorizationPolicy", namespace: namespace.into(), name: name.into(), rule, source })
    }

    /// Why there is no policy to name: those that could have allowed it did not, or a token is wanted.
    fn named_by_absence(&self, proxy: &Proxy, wants_token: bool) -> Option<Named> {
        if wants_token {
            let all = self.snapshot.request_authentications(proxy);
            let meta = &all.first()?.meta;
            return Some(self.named(Kind::RequestAuthentication, "RequestAuthentication", &meta.namespace, &meta.name));
        }
        let authorization = self.snapshot.authorization(proxy);
        let meta = &authorization.allow.first()?.meta;
        Some(self.named(Kind::AuthorizationPolicy, "AuthorizationPolicy", &meta.namespace, &meta.name))
    }

    fn named(&self, kind: Kind, text: &'static str, namespace: &str, name: &str) -> Named {
        let source = self.source(kind, namespace, name);
        Named { kind: text, namespace: namespace.into(), name: name.into(), rule: None, source }
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
    let mut call = Call::get(to, host, &ask.path);
    call.method.clone_from(&ask.method);
    call.headers.extend(ask.headers.iter().filter(|(name, _)| name != "host").cloned());
    call.source = SocketAddr::new(ask.source, 40_000);
    call.now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    call
}
