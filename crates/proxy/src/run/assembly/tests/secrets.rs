//! Who waits for which secret, and who does not.

use std::time::Duration;

use maille_identity::Workload;
use maille_xds::types::tls::secret::Type;
use maille_xds::types::tls::{
    CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, Secret, TlsCertificate, UpstreamTlsContext,
};
use rcgen::{CertificateParams, KeyPair};

use super::*;

fn certificate() -> (String, KeyPair) {
    let key = KeyPair::generate().unwrap();
    (CertificateParams::new(["a.example".to_owned()]).unwrap().self_signed(&key).unwrap().pem(), key)
}

fn text(text: &str) -> Option<core::DataSource> {
    let specifier = Some(core::data_source::Specifier::InlineString(text.into()));
    Some(core::DataSource { specifier, ..Default::default() })
}

fn secret(name: &str, chain: &str, key: &str) -> Resource {
    let certificate = TlsCertificate { certificate_chain: text(chain), private_key: text(key), ..Default::default() };
    Resource::encode(name, &Secret { name: name.into(), r#type: Some(Type::TlsCertificate(certificate)) })
}

fn common(name: &str) -> Option<CommonTlsContext> {
    let sds = SdsSecretConfig { name: name.into(), sds_config: Some(ads()) };
    Some(CommonTlsContext { tls_certificate_sds_secret_configs: vec![sds], ..Default::default() })
}

fn socket(config: types::Any) -> Option<core::TransportSocket> {
    let config_type = Some(core::transport_socket::ConfigType::TypedConfig(config));
    Some(core::TransportSocket { name: "tls".into(), config_type })
}

fn secure_listener(port: u16, secret: &str) -> Resource {
    let tls = DownstreamTlsContext { common_tls_context: common(secret), ..Default::default() };
    let chain = l::FilterChain { transport_socket: socket(types::any(&tls)), ..Default::default() };
    let proto = l::Listener {
        name: "l".into(),
        address: Some(address(port)),
        filter_chains: vec![chain],
        ..Default::default()
    };
    Resource::encode("l", &proto)
}

/// What the main thread does before it hands out what is to be served.
fn serve(assembly: &mut Assembly, now: Instant) -> Arc<Snapshot> {
    assembly.look_for_secrets(now);
    assembly.assemble()
}

fn context(snapshot: &Snapshot) -> Option<Arc<ServerContext>> {
    snapshot.servers.values().next().cloned().flatten()
}

#[test]
fn a_listener_is_served_once_its_secret_is_there_and_the_old_one_until_then() {
    let (mut assembly, now) = (Assembly::new(), Instant::now());
    let (chain, key) = certificate();
    put(&mut assembly, TypeUrl::Listener, &[secure_listener(1, "first")]);
    assert!(serve(&mut assembly, now).listeners.is_empty());
    assert!(!assembly.is_warm());
    assert_eq!(assembly.wanted(TypeUrl::Secret).iter().map(|n| &**n).collect::<Vec<_>>(), ["first"]);
    assert!(put(&mut assembly, TypeUrl::Secret, &[secret("first", &chain, &key.serialize_pem())]).is_empty());
    let first = serve(&mut assembly, now);
    assert_eq!(first.listeners["l"].address.port(), 1);
    assert!(context(&first).is_some() && assembly.is_warm());
    // Another one that needs another secret is waited for; meanwhile this one goes on, with its own.
    put(&mut assembly, TypeUrl::Listener, &[secure_listener(2, "second")]);
    let meanwhile = serve(&mut assembly, now);
    assert_eq!(meanwhile.listeners["l"].address.port(), 1);
    assert!(context(&meanwhile).is_some());
    let both: Vec<_> = assembly.wanted(TypeUrl::Secret).into_iter().collect();
    assert_eq!(both, ["first".into(), "second".into()]);
    put(&mut assembly, TypeUrl::Secret, &[secret("second", &chain, &key.serialize_pem())]);
    let second = serve(&mut assembly, now);
    assert_eq!(second.listeners["l"].address.port(), 2);
    serve(&mut assembly, now);
    assert_eq!(assembly.wanted(TypeUrl::Secret).into_iter().collect::<Vec<_>>(), ["second".into()]);
}

#[test]
fn a_new_secret_makes_what_uses_it_anew_and_nothing_else() {
    let (mut assembly, now) = (Assembly::new(), Instant::now());
    let (chain, key) = certificate();
    put(&mut assembly, TypeUrl::Listener, &[secure_listener(1, "s")]);
    serve(&mut assembly, now);
    put(&mut assembly, TypeUrl::Secret, &[secret("s", &chain, &key.serialize_pem())]);
    let old = serve(&mut assembly, now);
    put(&mut assembly, TypeUrl::Secret, &[secret("s", &chain, &key.serialize_pem())]);
    let same = serve(&mut assembly, now);
    assert!(Arc::ptr_eq(&context(&old).unwrap(), &context(&same).unwrap()), "said again is not new");
    let (chain, key) = certificate();
    put(&mut assembly, TypeUrl::Secret, &[secret("s", &chain, &key.serialize_pem())]);
    let new = serve(&mut assembly, now);
    assert!(!Arc::ptr_eq(&context(&old).unwrap(), &context(&new).unwrap()));
    assert!(Arc::ptr_eq(&old.listeners["l"], &new.listeners["l"]));
    // A secret that is taken away is missed by nobody who has it.
    remove(&mut assembly, TypeUrl::Secret, "s");
    assert!(context(&serve(&mut assembly, now)).is_some());
}

#[test]
fn a_malformed_secret_is_refused_by_name_and_says_nothing_of_its_key() {
    let (mut assembly, now) = (Assembly::new(), Instant::now());
    let (chain, key) = certificate();
    let (_, other) = certificate();
    put(&mut assembly, TypeUrl::Listener, &[secure_listener(1, "s")]);
    serve(&mut assembly, now);
    put(&mut assembly, TypeUrl::Secret, &[secret("s", &chain, &key.serialize_pem())]);
    let before = serve(&mut assembly, now);
    for (chain, key, reason) in [
        (chain.as_str(), other.serialize_pem(), "does not belong"),
        ("", key.serialize_pem(), "no certificate"),
        (&chain, "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n".into(), "private key"),
    ] {
        let refused = put(&mut assembly, TypeUrl::Secret, &[secret("s", chain, &key)]).concat();
        assert!(refused.contains("\"s\": tls_certificate") && refused.contains(reason), "{refused}");
        let inside = key.lines().nth(1).unwrap_or("-");
        assert!(!refused.contains(inside), "{refused}");
        assert!(Arc::ptr_eq(&before, &serve(&mut assembly, now)), "what was there is served on");
    }
}

#[test]
fn nobody_waits_for_ever_for_a_secret_that_does_not_come() {
    let (mut assembly, now) = (Assembly::new(), Instant::now());
    put(&mut assembly, TypeUrl::Listener, &[secure_listener(1, "s")]);
    serve(&mut assembly, now);
    assert_eq!(assembly.next_check(now), Some(now + Duration::from_secs(15)), "Envoy's initial_fetch_timeout");
    assert!(serve(&mut assembly, now + Duration::from_secs(14)).listeners.is_empty());
    let late = serve(&mut assembly, now + Duration::from_secs(15));
    assert!(late.listeners.contains_key("l") && context(&late).is_none(), "there, and serving nobody");
    let (chain, key) = certificate();
    put(&mut assembly, TypeUrl::Secret, &[secret("s", &chain, &key.serialize_pem())]);
    assert!(context(&serve(&mut assembly, now + Duration::from_secs(60))).is_some());
    // That there is none may also be said.
    put(&mut assembly, TypeUrl::Listener, &[secure_listener(1, "none")]);
    serve(&mut assembly, now);
    remove(&mut assembly, TypeUrl::Secret, "none");
    let without = serve(&mut assembly, now);
    assert_eq!(without.servers.len(), 1);
    assert!(context(&without).is_none());
}

#[test]
fn the_workloads_own_certificate_is_asked_of_nobody() {
    let (mut assembly, now) = (Assembly::new(), Instant::now());
    assembly.materials().put_workload(None).unwrap();
    put(&mut assembly, TypeUrl::Listener, &[secure_listener(1, "default")]);
    assert!(serve(&mut assembly, now).listeners.is_empty());
    assert!(assembly.wanted(TypeUrl::Secret).is_empty());
    assert_eq!(put(&mut assembly, TypeUrl::Secret, &[secret("default", "x", "y")]).len(), 1);
    let (chain, key) = certificate();
    let der = rustls::pki_types::pem::PemObject::from_pem_slice(chain.as_bytes()).unwrap();
    let der: rustls::pki_types::CertificateDer<'static> = der;
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let own = Workload { chain: vec![der.clone()], key, roots: vec![der] };
    assembly.materials().put_workload(Some(&own)).unwrap();
    assert!(context(&serve(&mut assembly, now)).is_some());
}

#[test]
fn a_cluster_with_new_secrets_makes_its_connections_anew() {
    let (mut assembly, now) = (Assembly::new(), Instant::now());
    let tls = UpstreamTlsContext { common_tls_context: common("s"), ..Default::default() };
    let proto = cluster::Cluster {
        name: "c".into(),
        cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::Type(0)),
        transport_socket: socket(types::any(&tls)),
        ..Default::default()
    };
    put(&mut assembly, TypeUrl::Cluster, &[Resource::encode("c", &proto), cluster("plain", false)]);
    assert!(!serve(&mut assembly, now).clusters.contains_key("c"), "it waits for its secret");
    let (chain, key) = certificate();
    put(&mut assembly, TypeUrl::Secret, &[secret("s", &chain, &key.serialize_pem())]);
    let old = serve(&mut assembly, now);
    let (chain, key) = certificate();
    put(&mut assembly, TypeUrl::Secret, &[secret("s", &chain, &key.serialize_pem())]);
    let new = serve(&mut assembly, now);
    assert!(!Arc::ptr_eq(&old.clusters["c"].transports, &new.clusters["c"].transports));
    assert!(Arc::ptr_eq(&old.clusters["plain"], &new.clusters["plain"]), "the others are as they were");
}
