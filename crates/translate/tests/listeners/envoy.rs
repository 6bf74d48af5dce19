//! What the real Envoy says about a world.

use std::fs;
use std::path::Path;
use std::process::Command;

use maille_xds::types::bootstrap::Bootstrap;
use maille_xds::types::bootstrap::bootstrap::{DynamicResources, StaticResources};
use maille_xds::types::cluster::Cluster;
use maille_xds::types::core::{ApiConfigSource, ApiVersion, GrpcService, Node, api_config_source, grpc_service};
use maille_xds::types::hcm::HttpConnectionManager;
use maille_xds::types::hcm::http_connection_manager::RouteSpecifier;
use maille_xds::types::listener::{FilterChain, Listener, filter};
use maille_xds::types::upstream_http::HttpProtocolOptions;
use maille_xds::types::{Message, any, unpack};
use maille_xds::{TypeUrl, World};

/// The real Envoy: `$ENVOY`, else `envoy` on the PATH.
pub(crate) fn binary() -> Option<String> {
    let name = std::env::var("ENVOY").unwrap_or_else(|_| "envoy".to_owned());
    if Command::new(&name).arg("--version").output().is_ok() {
        return Some(name);
    }
    assert!(std::env::var_os("CI").is_none(), "no Envoy: set ENVOY or put `envoy` on the PATH");
    eprintln!("skipped: no Envoy on the PATH, and ENVOY is not set");
    None
}

/// Has Envoy read the world as if it were its own file, routes included.
pub(crate) fn must_accept(envoy: &str, case: &str, proxy: &str, world: &World) {
    let clusters = world.of(TypeUrl::Cluster).values().map(|resource| resource.decode().expect("cluster"));
    let listeners = world.of(TypeUrl::Listener).values().map(|resource| {
        let mut listener: Listener = resource.decode().expect("listener");
        listener.filter_chains.iter_mut().chain(&mut listener.default_filter_chain).for_each(|c| inline(c, world));
        listener
    });
    let bootstrap = Bootstrap {
        node: Some(Node { id: proxy.to_owned(), cluster: "test".into(), ..Node::default() }),
        static_resources: Some(StaticResources {
            clusters: clusters.chain([ads_cluster()]).collect(),
            listeners: listeners.collect(),
            ..StaticResources::default()
        }),
        dynamic_resources: Some(DynamicResources { ads_config: Some(ads()), ..DynamicResources::default() }),
        ..Bootstrap::default()
    };
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("listeners-{case}-{proxy}.pb"));
    fs::write(&file, bootstrap.encode_to_vec()).expect("bootstrap");
    let output = Command::new(envoy).args(["--mode", "validate", "-l", "warn", "-c"]).arg(&file).output();
    let output = output.expect("envoy runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "Envoy refuses {case} for {proxy}:\n{said}");
}

/// Validation asks no server, so routes are put where they would be loaded.
fn inline(chain: &mut FilterChain, world: &World) {
    for filter in &mut chain.filters {
        let Some(filter::ConfigType::TypedConfig(config)) = &mut filter.config_type else { continue };
        let Some(Ok(mut manager)) = unpack::<HttpConnectionManager>(config) else { continue };
        if let Some(RouteSpecifier::Rds(rds)) = &manager.route_specifier {
            let routes =
                world.get(TypeUrl::Route, &rds.route_config_name).expect("a route configuration for the listener");
            manager.route_specifier = Some(RouteSpecifier::RouteConfig(routes.decode().expect("routes")));
            *config = any(&manager);
        }
    }
}

fn ads() -> ApiConfigSource {
    let target = grpc_service::EnvoyGrpc { cluster_name: "ads".into(), ..Default::default() };
    ApiConfigSource {
        api_type: api_config_source::ApiType::DeltaGrpc.into(),
        transport_api_version: ApiVersion::V3.into(),
        grpc_services: vec![GrpcService {
            target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(target)),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn ads_cluster() -> Cluster {
    let options =
        HttpProtocolOptions { upstream_protocol_options: Some(crate::brief::explicit_http2()), ..Default::default() };
    Cluster {
        name: "ads".into(),
        typed_extension_protocol_options: [(
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(),
            any(&options),
        )]
        .into(),
        ..Cluster::default()
    }
}
