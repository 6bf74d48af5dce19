//! Our proxy and a real Envoy, each with a listener for every variant: the same but for who made the filters of the policies.

use std::collections::BTreeSet;
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use maille_api::parse;
use maille_proxy::{Handle, Options, run_fixed};
use maille_xds::json::Schema;
use maille_xds::types::core::address::Address as Place;
use maille_xds::types::core::data_source::Specifier;
use maille_xds::types::core::socket_address::PortSpecifier;
use maille_xds::types::core::{Address, DataSource, Node, SocketAddress, TransportSocket, transport_socket};
use maille_xds::types::hcm::{HttpConnectionManager, HttpFilter, http_filter};
use maille_xds::types::listener::{self, Filter, FilterChain, FilterChainMatch, Listener, filter};
use maille_xds::types::tls::common_tls_context::ValidationContextType;
use maille_xds::types::tls::{CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, TlsCertificate};
use maille_xds::types::upstream_http::http_protocol_options as hcm_options;
use maille_xds::types::{self, BoolValue, Message, any, cluster, endpoint, hcm, route, router, tcp_proxy, unpack};
use maille_xds::{Resource, TypeUrl};
use serde_json::{Value, json};

use crate::client::{Client, PATIENCE};
use crate::helpers::Helpers;
use crate::variants::Variant;
use crate::{sets, sidecar};

const HTTP_MANAGER: &str = "envoy.filters.network.http_connection_manager";
const ECHO: &str = "echo";
const AUTHORIZER: &str = "outbound|9000||my-custom-ext-authz.foo.svc.cluster.local";

/// A data plane; it ends when it is dropped.
pub(crate) enum Plane {
    Maille(Option<Handle>),
    Envoy(Child),
}

impl Drop for Plane {
    /// When this returns nothing listens any more: the next plane has the same addresses, and would share them with whoever still does.
    fn drop(&mut self) {
        match self {
            Plane::Maille(handle) => {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(handle.take().unwrap().drain());
            }
            Plane::Envoy(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

pub(crate) fn envoy() -> Option<PathBuf> {
    let named = std::env::var_os("ENVOY").map(PathBuf::from);
    let path = || std::env::split_paths(&std::env::var_os("PATH")?).map(|d| d.join("envoy")).find(|p| p.is_file());
    let found = named.or_else(path);
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "no Envoy: set ENVOY or put envoy on the PATH");
        eprintln!("skipped: no Envoy on the PATH, and ENVOY is not set");
    }
    found
}

impl Plane {
    pub(crate) fn maille(variants: &[Variant], client: &Client, helpers: &Helpers) -> Plane {
        let listeners: Vec<Listener> = variants.iter().map(|variant| listener(variant, client)).collect();
        let count = listeners.len();
        let mut options = Options::new(Node::default(), "");
        options.concurrency = 1;
        let clusters = clusters(helpers).iter().map(|c| Resource::encode(&*c.name, c)).collect();
        let listeners = listeners.iter().map(|l| Resource::encode(&*l.name, l)).collect();
        let handle = run_fixed(options, vec![(TypeUrl::Cluster, clusters), (TypeUrl::Listener, listeners)]).unwrap();
        let status = handle.status();
        let start = Instant::now();
        while status.borrow().listening.len() < count {
            assert!(start.elapsed() < PATIENCE, "{:?}", status.borrow());
            std::thread::sleep(Duration::from_millis(10));
        }
        Plane::Maille(Some(handle))
    }

    pub(crate) fn envoy(
        envoy: &Path,
        variants: &[Variant],
        client: &Client,
        helpers: &Helpers,
        folder: &Path,
    ) -> Plane {
        let schema = Schema::load();
        let print = |name: &str, body: &[u8]| {
            let mut printed = schema.print(&format!("type.googleapis.com/{name}"), body).unwrap();
            printed.as_object_mut().unwrap().remove("@type");
            printed
        };
        let listeners = variants.iter().map(|variant| {
            let listener = listener(variant, client);
            let mut listener = print("envoy.config.listener.v3.Listener", &listener.encode_to_vec());
            replace(&mut listener, &variant.expected);
            listener
        });
        let clusters =
            clusters(helpers).into_iter().map(|c| print("envoy.config.cluster.v3.Cluster", &c.encode_to_vec()));
        let config = json!({
            "static_resources": {"listeners": listeners.collect::<Vec<_>>(), "clusters": clusters.collect::<Vec<_>>()},
        });
        let (file, log) = (folder.join("envoy.json"), folder.join("envoy.log"));
        // Where a key is, is not printed.
        let config = config.to_string().replace("[redacted]", client.server_key.to_str().unwrap());
        std::fs::write(&file, config).unwrap();
        let mut child = Command::new(envoy)
            .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warn", "-c"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let start = Instant::now();
        let last = variants.iter().rev().find_map(|variant| addresses(variant).last().copied()).unwrap();
        while TcpStream::connect(last).is_err() {
            let ended = child.try_wait().unwrap();
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            assert!(ended.is_none() && start.elapsed() < PATIENCE, "Envoy does not listen ({ended:?}):\n{said}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Plane::Envoy(child)
    }
}

/// Upstream's filters in the place of ours.
fn replace(listener: &mut Value, expected: &[Value]) {
    for chain in listener["filter_chains"].as_array_mut().into_iter().flatten() {
        let is_http = chain["filters"][0]["name"] == HTTP_MANAGER;
        let filters = match is_http {
            true => &mut chain["filters"][0]["typed_config"]["http_filters"],
            false => &mut chain["filters"],
        };
        let filters = filters.as_array_mut().unwrap();
        let first = filters.iter().position(|filter| is_of_policy(filter["name"].as_str().unwrap()));
        filters.retain(|filter| !is_of_policy(filter["name"].as_str().unwrap()));
        let at = first.unwrap_or(filters.len() - 1);
        filters.splice(at..at, expected.iter().cloned());
    }
}

fn is_of_policy(name: &str) -> bool {
    name.ends_with(".rbac") || name.ends_with(".ext_authz")
}

fn addresses(variant: &Variant) -> BTreeSet<SocketAddrV4> {
    variant.requests.iter().map(|request| request.to).collect()
}

fn address(of: SocketAddrV4) -> Option<Address> {
    let socket = SocketAddress {
        address: of.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(of.port().into())),
        ..Default::default()
    };
    Some(Address { address: Some(Place::SocketAddress(socket)) })
}

/// With mutual TLS and without, as a permissive sidecar has it; what the client's certificate is called does not matter.
fn listener(variant: &Variant, client: &Client) -> Listener {
    let mut addresses = addresses(variant).into_iter().map(address);
    let filters = filters(variant, Some(client));
    let chain = |transport: &str, transport_socket: Option<TransportSocket>| FilterChain {
        filter_chain_match: Some(FilterChainMatch { transport_protocol: transport.into(), ..Default::default() }),
        filters: filters.clone(),
        transport_socket,
        ..Default::default()
    };
    Listener {
        name: variant.name.clone(),
        address: addresses.next().unwrap(),
        additional_addresses: addresses
            .map(|address| listener::AdditionalAddress { address, ..Default::default() })
            .collect(),
        listener_filters: vec![listener::ListenerFilter {
            name: "envoy.filters.listener.tls_inspector".into(),
            config_type: Some(listener::listener_filter::ConfigType::TypedConfig(any(
                &types::tls_inspector::TlsInspector::default(),
            ))),
            ..Default::default()
        }],
        filter_chains: vec![chain("tls", Some(tls(client))), chain("raw_buffer", None)],
        ..Default::default()
    }
}

fn tls(client: &Client) -> TransportSocket {
    let file = |path: &Path| {
        let specifier = Some(Specifier::Filename(path.to_str().unwrap().into()));
        Some(DataSource { specifier, ..Default::default() })
    };
    let context = DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_certificates: vec![TlsCertificate {
                certificate_chain: file(&client.server_chain),
                private_key: file(&client.server_key),
                ..Default::default()
            }],
            validation_context_type: Some(ValidationContextType::ValidationContext(CertificateValidationContext {
                trusted_ca: file(&client.authority),
                ..Default::default()
            })),
            ..Default::default()
        }),
        require_client_certificate: Some(BoolValue { value: true }),
        ..Default::default()
    };
    TransportSocket {
        name: "envoy.transport_sockets.tls".into(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(any(&context))),
    }
}

/// The policies, and what is beside them: whose tokens are believed, and the authorizer.
pub(crate) fn objects(variant: &Variant, client: &Client) -> Vec<Value> {
    let mut objects = variant.policies.clone();
    let claims = variant.requests.iter().filter_map(|request| request.claims.as_ref());
    let issuers: BTreeSet<&str> = claims.filter_map(|claims| claims["iss"].as_str()).collect();
    let rules: Vec<Value> = issuers
        .into_iter()
        .filter(|issuer| !issuer.is_empty())
        .map(|issuer| json!({"issuer": issuer, "jwks": client.key_set, "forwardOriginalToken": true}))
        .collect();
    if !rules.is_empty() {
        objects.push(json!({"apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
            "metadata": {"name": "tokens", "namespace": "foo"}, "spec": {"jwtRules": rules}}));
    }
    objects.extend(
        parse::documents(sets::AUTHORIZER, "authorizer").into_iter().map(|parsed| parsed.unwrap().object.to_json()),
    );
    objects
}

/// The filters of the policies alone, as JSON.
pub(crate) fn filters_of_policies(variant: &Variant) -> Vec<Value> {
    let schema = Schema::load();
    let listener = Listener {
        filter_chains: vec![FilterChain { filters: filters(variant, None), ..Default::default() }],
        ..Default::default()
    };
    let listener =
        schema.print("type.googleapis.com/envoy.config.listener.v3.Listener", &listener.encode_to_vec()).unwrap();
    let filters = &listener["filter_chains"][0]["filters"];
    let filters = if variant.http { &filters[0]["typed_config"]["http_filters"] } else { filters };
    let filters = filters.as_array().unwrap().iter();
    filters.filter(|filter| is_of_policy(filter["name"].as_str().unwrap())).cloned().collect()
}

/// The filters of a chain: what we make of the policies, and then whatever answers.
fn filters(variant: &Variant, client: Option<&Client>) -> Vec<Filter> {
    let objects = match client {
        Some(client) => objects(variant, client),
        None => variant.policies.clone(),
    };
    let chain = translated(&objects, &variant.mesh, variant.http);
    if !variant.http {
        let forward = tcp_proxy::TcpProxy {
            stat_prefix: "echo".into(),
            cluster_specifier: Some(tcp_proxy::tcp_proxy::ClusterSpecifier::Cluster(ECHO.into())),
            ..Default::default()
        };
        let mut filters: Vec<Filter> = chain.filters.into_iter().filter(|filter| is_of_policy(&filter.name)).collect();
        filters.push(network_filter("envoy.filters.network.tcp_proxy", any(&forward)));
        return filters;
    }
    let last = chain.filters.last().unwrap();
    let Some(filter::ConfigType::TypedConfig(config)) = &last.config_type else { panic!("no manager") };
    let manager: HttpConnectionManager = unpack(config).unwrap().unwrap();
    let of_policies = |filter: &HttpFilter| is_of_policy(&filter.name) || filter.name.ends_with(".jwt_authn");
    let mut http_filters: Vec<HttpFilter> = manager.http_filters.into_iter().filter(of_policies).collect();
    http_filters.push(HttpFilter {
        name: "envoy.filters.http.router".into(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(&router::Router::default()))),
        ..Default::default()
    });
    let yes = Some(BoolValue { value: true });
    let everything = route::Route {
        r#match: Some(route::RouteMatch {
            path_specifier: Some(route::route_match::PathSpecifier::Prefix("/".into())),
            ..Default::default()
        }),
        action: Some(route::route::Action::DirectResponse(route::DirectResponseAction {
            status: 200,
            ..Default::default()
        })),
        ..Default::default()
    };
    let host = route::VirtualHost {
        name: "all".into(),
        domains: vec!["*".into()],
        routes: vec![everything],
        ..Default::default()
    };
    let routes = route::RouteConfiguration { virtual_hosts: vec![host], ..Default::default() };
    let manager = HttpConnectionManager {
        stat_prefix: "policies".into(),
        use_remote_address: Some(BoolValue { value: false }),
        normalize_path: yes,
        http_protocol_options: Some(types::core::Http1ProtocolOptions {
            allow_custom_methods: true,
            ..Default::default()
        }),
        http_filters,
        route_specifier: Some(hcm::http_connection_manager::RouteSpecifier::RouteConfig(routes)),
        ..Default::default()
    };
    vec![network_filter(HTTP_MANAGER, any(&manager))]
}

fn network_filter(name: &str, config: types::Any) -> Filter {
    Filter { name: name.into(), config_type: Some(filter::ConfigType::TypedConfig(config)) }
}

/// What the sidecar of httpbin does with mutual TLS.
fn translated(objects: &[Value], mesh: &str, http: bool) -> FilterChain {
    let objects: Vec<String> = objects.iter().map(Value::to_string).collect();
    let listener = sidecar::inbound(&objects.join("\n---\n"), mesh);
    let is_http = |chain: &FilterChain| chain.filters.last().is_some_and(|filter| filter.name == HTTP_MANAGER);
    // The first keeps a sidecar from calling itself.
    listener.filter_chains.into_iter().skip(1).find(|chain| is_http(chain) == http).unwrap()
}

/// An echo, and the authorizer.
fn clusters(helpers: &Helpers) -> Vec<cluster::Cluster> {
    let h2 = hcm_options::ExplicitHttpConfig {
        protocol_config: Some(hcm_options::explicit_http_config::ProtocolConfig::Http2ProtocolOptions(
            Default::default(),
        )),
    };
    let options = types::upstream_http::HttpProtocolOptions {
        upstream_protocol_options: Some(hcm_options::UpstreamProtocolOptions::ExplicitHttpConfig(h2)),
        ..Default::default()
    };
    let name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned();
    let authorizer = cluster::Cluster {
        typed_extension_protocol_options: [(name, any(&options))].into(),
        ..to(AUTHORIZER, helpers.authorizer)
    };
    vec![to(ECHO, helpers.echo), authorizer]
}

fn to(name: &str, at: SocketAddr) -> cluster::Cluster {
    let SocketAddr::V4(at) = at else { panic!("{at}") };
    let host = endpoint::Endpoint { address: address(at), ..Default::default() };
    let host = endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(host)),
        ..Default::default()
    };
    cluster::Cluster {
        name: name.into(),
        cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::Type(0)),
        load_assignment: Some(endpoint::ClusterLoadAssignment {
            cluster_name: name.into(),
            endpoints: vec![endpoint::LocalityLbEndpoints { lb_endpoints: vec![host], ..Default::default() }],
            ..Default::default()
        }),
        ..Default::default()
    }
}
