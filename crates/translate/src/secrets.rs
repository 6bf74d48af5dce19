//! Secrets (SDS): certificates and authorities that clusters and listeners refer to by name.
//!
//! `kubernetes://NAME` is a Secret of the proxy's own namespace, `file-cert:CHAIN~KEY` and `file-root:PATH` are files
//! where the proxy runs. Files go this way too, so that one that is missing fails the connections that need it and
//! nothing else, and a new certificate is picked up from the folder it appears in.

use std::collections::BTreeSet;

use maille_xds::types;
use maille_xds::types::cluster::Cluster;
use maille_xds::types::core::api_config_source::ApiType;
use maille_xds::types::core::config_source::ConfigSourceSpecifier;
use maille_xds::types::core::grpc_service::{EnvoyGrpc, TargetSpecifier};
use maille_xds::types::core::transport_socket::ConfigType;
use maille_xds::types::core::{
    ApiConfigSource, ApiVersion, ConfigSource, DataSource, GrpcService, TransportSocket, WatchedDirectory, data_source,
};
use maille_xds::types::listener::Listener;
use maille_xds::types::proxy_protocol_upstream::ProxyProtocolUpstreamTransport;
use maille_xds::types::tls::common_tls_context::ValidationContextType;
use maille_xds::types::tls::secret::Type;
use maille_xds::types::tls::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, Secret, TlsCertificate,
    UpstreamTlsContext,
};
use maille_xds::types::{Any, unpack};

use crate::Context;
use crate::clusters::ads;

/// The cluster of the agent's secrets in a proxy's bootstrap, as Istio names it.
const AGENT_CLUSTER: &str = "sds-grpc";
const KUBERNETES: &str = "kubernetes://";
const FILE_CERT: &str = "file-cert:";
const FILE_ROOT: &str = "file-root:";
const OWN_CERTIFICATE: &str = "default";
const MESH_ROOTS: &str = "ROOTCA";
/// What a Secret's name ends with when its authority alone is meant.
const CA_SUFFIX: &str = "-cacert";
/// How long to wait for what is not there: whoever needs it fails then, and the rest of the configuration goes on.
const MISSING_TIMEOUT_NANOS: i32 = 1_000_000;

/// The name of a Secret: a bare one is in the proxy's own namespace.
pub(crate) fn credential(name: &str) -> String {
    if name.contains("://") { name.to_owned() } else { format!("{KUBERNETES}{name}") }
}

/// The authority inside a Secret.
pub(crate) fn credential_authority(name: &str) -> String {
    format!("{}{CA_SUFFIX}", credential(name))
}

/// A certificate chain and its key, by file.
pub(crate) fn file_certificate(chain: &str, key: &str) -> String {
    format!("{FILE_CERT}{chain}~{key}")
}

/// Certificates of authorities, by file.
pub(crate) fn file_authority(path: &str) -> String {
    format!("{FILE_ROOT}{path}")
}

/// The proxy's own certificate, which its agent has.
pub(crate) fn own_certificate() -> SdsSecretConfig {
    from_agent(OWN_CERTIFICATE)
}

/// The authorities that the mesh's certificates come from, which the agent has, too.
pub(crate) fn mesh_roots() -> SdsSecretConfig {
    from_agent(MESH_ROOTS)
}

/// What the agent beside the proxy has and the control plane has not. A proxy of ours knows it without asking; another
/// asks the agent, by the cluster that Istio's bootstraps have for it. It waits for as long as it takes.
fn from_agent(name: &str) -> SdsSecretConfig {
    let cluster_name = AGENT_CLUSTER.to_owned();
    let service = GrpcService {
        target_specifier: Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc { cluster_name, ..EnvoyGrpc::default() })),
        ..GrpcService::default()
    };
    let source = ApiConfigSource {
        api_type: ApiType::Grpc.into(),
        transport_api_version: ApiVersion::V3.into(),
        grpc_services: vec![service],
        set_node_on_first_message_only: true,
        ..ApiConfigSource::default()
    };
    let sds_config = ConfigSource {
        config_source_specifier: Some(ConfigSourceSpecifier::ApiConfigSource(source)),
        initial_fetch_timeout: Some(types::Duration::default()),
        resource_api_version: ApiVersion::V3.into(),
        ..ConfigSource::default()
    };
    SdsSecretConfig { name: name.to_owned(), sds_config: Some(sds_config) }
}

/// Where a cluster or a listener is to get a secret from.
pub(crate) fn reference(context: &Context<'_>, name: String) -> SdsSecretConfig {
    let mut source: ConfigSource = ads();
    if find(context, &name).is_none() {
        source.initial_fetch_timeout = Some(types::Duration { seconds: 0, nanos: MISSING_TIMEOUT_NANOS });
    }
    SdsSecretConfig { name, sds_config: Some(source) }
}

/// Every secret that these refer to and that there is.
pub(crate) fn build(context: &Context<'_>, clusters: &[Cluster], listeners: &[Listener]) -> Vec<Secret> {
    let mut names = BTreeSet::new();
    for cluster in clusters {
        let matched = cluster.transport_socket_matches.iter().filter_map(|matched| matched.transport_socket.as_ref());
        cluster.transport_socket.iter().chain(matched).for_each(|socket| names_in(socket, &mut names));
    }
    for chain in
        listeners.iter().flat_map(|listener| listener.filter_chains.iter().chain(&listener.default_filter_chain))
    {
        chain.transport_socket.iter().for_each(|socket| names_in(socket, &mut names));
    }
    names.iter().filter_map(|name| find(context, name)).collect()
}

fn names_in(socket: &TransportSocket, names: &mut BTreeSet<String>) {
    let Some(ConfigType::TypedConfig(config)) = &socket.config_type else { return };
    if let Some(Ok(outer)) = unpack::<ProxyProtocolUpstreamTransport>(config) {
        outer.transport_socket.iter().for_each(|inner| names_in(inner, names));
        return;
    }
    let Some(common) = common_context(config) else { return };
    names.extend(common.tls_certificate_sds_secret_configs.into_iter().map(|config| config.name));
    match common.validation_context_type {
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            names.extend(combined.validation_context_sds_secret_config.map(|config| config.name));
        }
        Some(ValidationContextType::ValidationContextSdsSecretConfig(config)) => {
            names.insert(config.name);
        }
        _ => {}
    }
}

fn common_context(config: &Any) -> Option<CommonTlsContext> {
    let upstream = unpack::<UpstreamTlsContext>(config).and_then(Result::ok).and_then(|tls| tls.common_tls_context);
    let downstream = || unpack::<DownstreamTlsContext>(config).and_then(Result::ok);
    upstream.or_else(|| downstream().and_then(|tls| tls.common_tls_context))
}

fn find(context: &Context<'_>, name: &str) -> Option<Secret> {
    let found = if let Some(files) = name.strip_prefix(FILE_CERT) {
        let (chain, key) = files.split_once('~')?;
        certificate(file(chain), file(key), None, watched(chain))
    } else if let Some(path) = name.strip_prefix(FILE_ROOT) {
        authority(file(path), None, watched(path))
    } else {
        kubernetes(context, name.strip_prefix(KUBERNETES)?)?
    };
    Some(Secret { name: name.to_owned(), r#type: Some(found) })
}

/// A Secret in the proxy's own namespace; one of another namespace is not for it.
fn kubernetes(context: &Context<'_>, path: &str) -> Option<Type> {
    let name = match path.split_once('/') {
        Some((namespace, name)) if namespace == context.proxy.namespace => name,
        Some(_) => return None,
        None => path,
    };
    let bytes = |name: &str, keys: &[&str]| {
        let data = &context.snapshot.secret(&context.proxy.namespace, name)?.data;
        keys.iter().find_map(|key| data.get(*key)).map(|bytes| inline(bytes.to_vec()))
    };
    let (ca, crl) = (&["ca.crt", "cacert"], &["ca.crl", "crl"]);
    if let Some(base) = name.strip_suffix(CA_SUFFIX) {
        // An authority may have a Secret of its own, or stand beside the certificate.
        let own = bytes(name, ca).map(|found| (found, bytes(name, crl)));
        let (found, revoked) = own.or_else(|| bytes(base, ca).map(|found| (found, bytes(base, crl))))?;
        return Some(authority(found, revoked, None));
    }
    let chain = bytes(name, &["tls.crt", "cert"])?;
    let key = bytes(name, &["tls.key", "key"])?;
    Some(certificate(chain, key, bytes(name, &["tls.ocsp-staple"]), None))
}

fn certificate(
    chain: DataSource,
    key: DataSource,
    ocsp_staple: Option<DataSource>,
    watched_directory: Option<WatchedDirectory>,
) -> Type {
    Type::TlsCertificate(TlsCertificate {
        certificate_chain: Some(chain),
        private_key: Some(key),
        ocsp_staple,
        watched_directory,
        ..TlsCertificate::default()
    })
}

fn authority(roots: DataSource, crl: Option<DataSource>, watched_directory: Option<WatchedDirectory>) -> Type {
    Type::ValidationContext(CertificateValidationContext {
        trusted_ca: Some(roots),
        crl,
        watched_directory,
        ..CertificateValidationContext::default()
    })
}

fn inline(bytes: Vec<u8>) -> DataSource {
    DataSource { specifier: Some(data_source::Specifier::InlineBytes(bytes)), ..DataSource::default() }
}

fn file(path: &str) -> DataSource {
    DataSource { specifier: Some(data_source::Specifier::Filename(path.to_owned())), ..DataSource::default() }
}

/// The folder a file is replaced in; Envoy reads it again when something is moved there.
fn watched(path: &str) -> Option<WatchedDirectory> {
    let (folder, _) = path.rsplit_once('/')?;
    let path = if folder.is_empty() { "/".to_owned() } else { folder.to_owned() };
    Some(WatchedDirectory { path, ..WatchedDirectory::default() })
}
