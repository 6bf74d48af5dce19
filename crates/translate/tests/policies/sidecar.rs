//! The sidecar that upstream's policy sets are for.

use std::sync::Arc;

use maille_api::parse;
use maille_model::{Locality, Proxy, ProxyKind, ProxyMetadata, Snapshot};
use maille_translate::translate;
use maille_xds::TypeUrl;
use maille_xds::types::listener::Listener;

/// Its inbound listener, in a mesh with these objects and settings.
pub(crate) fn inbound(yaml: &str, mesh: &str) -> Listener {
    let objects: Vec<_> = parse::documents(yaml, "case")
        .into_iter()
        .map(|parsed| Arc::new(parsed.unwrap_or_else(|diagnostic| panic!("{diagnostic}")).object))
        .collect();
    let (mesh, problems) = parse::mesh_config(mesh, "mesh");
    let mesh = mesh.unwrap_or_else(|| panic!("{problems:?}"));
    let labels = [("app", "httpbin"), ("version", "v1")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let proxy = Proxy {
        kind: ProxyKind::Sidecar,
        id: "httpbin.foo".to_owned(),
        ip_addresses: vec!["10.0.0.1".to_owned()],
        namespace: "foo".to_owned(),
        service_account: String::new(),
        labels: labels.into(),
        dns_domain: "foo.svc.cluster.local".to_owned(),
        locality: Locality::default(),
        network: String::new(),
        cluster_id: String::new(),
        metadata: ProxyMetadata::default(),
    };
    let world = translate(&Snapshot::build(&objects, &mesh), &proxy);
    world.get(TypeUrl::Listener, "virtualInbound").expect("the inbound listener").decode().expect("listener")
}
