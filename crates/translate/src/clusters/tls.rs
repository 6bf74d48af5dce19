//! TLS to the upstream, and the PROXY protocol header in front of it.

use maille_api::networking::destination_rule::{ClientTlsMode, ClientTlsSettings, ProxyProtocol, ProxyProtocolVersion};
use maille_model::Service;
use maille_xds::types::core::transport_socket::ConfigType;
use maille_xds::types::core::{ConfigSource, DataSource, ProxyProtocolConfig, TransportSocket, data_source};
use maille_xds::types::matcher::{StringMatcher, string_matcher};
use maille_xds::types::proxy_protocol_upstream::ProxyProtocolUpstreamTransport;
use maille_xds::types::raw_buffer::RawBuffer;
use maille_xds::types::tls::certificate_validation_context::SystemRootCerts;
use maille_xds::types::tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
use maille_xds::types::tls::tls_parameters::TlsProtocol;
use maille_xds::types::tls::{
    CertificateValidationContext, CommonTlsContext, SdsSecretConfig, TlsCertificate, TlsParameters, UpstreamTlsContext,
};
use maille_xds::types::{self, Message, Name, any};

use super::base::{Draft, ads};
use crate::Context;

const TLS_SOCKET: &str = "envoy.transport_sockets.tls";
const PROXY_PROTOCOL_SOCKET: &str = "envoy.transport_sockets.upstream_proxy_protocol";
const RAW_SOCKET: &str = "envoy.transport_sockets.raw_buffer";
/// How long a cluster waits for a secret before it serves without: its connections fail then, and no other cluster's.
const SECRET_TIMEOUT_MILLIS: i32 = 1;

/// What is known about the other side.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer<'a> {
    pub(super) service: Option<&'a Service>,
    /// The server name of mutual TLS inside the mesh, unless a rule says another.
    pub(super) server_name: String,
    /// The rule is for some workloads only, so that naming a secret is meant for them.
    pub(super) selected: bool,
    /// The host is resolved for each request.
    pub(super) is_dynamic: bool,
}

/// Whether the settings ask for TLS at all.
pub(super) fn is_on(settings: &ClientTlsSettings) -> bool {
    settings.mode != ClientTlsMode::Disable
}

/// Whether the name that a request resolves is not what the certificate is checked for.
pub(super) fn is_unverified(settings: &ClientTlsSettings) -> bool {
    !is_on(settings) || !settings.sni.is_empty() || settings.insecure_skip_verify == Some(true)
}

pub(super) fn apply(draft: &mut Draft, context: &Context<'_>, settings: &ClientTlsSettings, peer: &Peer<'_>) {
    let tls = match settings.mode {
        ClientTlsMode::Disable => return,
        ClientTlsMode::IstioMutual => Some(mesh_mutual(draft, settings, peer)),
        ClientTlsMode::Simple | ClientTlsMode::Mutual => originate(draft, context, settings, peer),
    };
    if let Some(tls) = tls {
        draft.cluster.transport_socket = Some(socket(TLS_SOCKET, &tls));
    }
    if matches!(settings.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual) {
        // The mesh's own ALPN names would confuse a server outside of it.
        draft.metadata("alpn_override", types::ValueKind::StringValue("false".to_owned()));
    }
}

/// TLS between workloads: both sides show the identity that the mesh gave them.
fn mesh_mutual(draft: &mut Draft, settings: &ClientTlsSettings, peer: &Peer<'_>) -> UpstreamTlsContext {
    let sni = match settings.sni.as_str() {
        "" if peer.is_dynamic => String::new(),
        "" => peer.server_name.clone(),
        own => own.to_owned(),
    };
    let validation = CombinedCertificateValidationContext {
        default_validation_context: Some(accept_names(&settings.subject_alt_names)),
        validation_context_sds_secret_config: Some(secret("ROOTCA")),
        ..CombinedCertificateValidationContext::default()
    };
    let mut common = common_context();
    common.tls_certificate_sds_secret_configs = vec![secret("default")];
    common.validation_context_type = Some(ValidationContextType::CombinedValidationContext(validation));
    let alpn: &[&str] =
        if draft.is_http2() { &["istio-peer-exchange", "istio", "h2"] } else { &["istio-peer-exchange", "istio"] };
    common.alpn_protocols = alpn.iter().map(|name| (*name).to_owned()).collect();
    if peer.is_dynamic {
        check_requested_name(draft, settings, peer);
    }
    UpstreamTlsContext { common_tls_context: Some(common), sni, ..UpstreamTlsContext::default() }
}

/// TLS to anybody else.
fn originate(
    draft: &mut Draft,
    context: &Context<'_>,
    settings: &ClientTlsSettings,
    peer: &Peer<'_>,
) -> Option<UpstreamTlsContext> {
    let mutual = settings.mode == ClientTlsMode::Mutual;
    if !settings.credential_name.is_empty() && !context.proxy.is_router() && !peer.selected {
        // A secret named for everyone would be handed to every sidecar; upstream leaves TLS out in this case as well,
        // and the snapshot says so.
        return None;
    }
    check_requested_name(draft, settings, peer);
    let declared = peer.service.filter(|service| !service.is_kubernetes()).map(|service| &service.subject_alt_names);
    let names = match declared {
        Some(names) if settings.subject_alt_names.is_empty() => names,
        _ => &settings.subject_alt_names,
    };
    let verify = settings.insecure_skip_verify != Some(true);
    let mut common = common_context();
    if let (Some(defaults), Some(params)) = (&context.mesh().tls_defaults, &mut common.tls_params) {
        params.ecdh_curves.clone_from(&defaults.ecdh_curves);
        params.cipher_suites.clone_from(&defaults.cipher_suites);
    }
    if settings.credential_name.is_empty() {
        if mutual {
            common.tls_certificates = vec![TlsCertificate {
                certificate_chain: Some(file(&settings.client_certificate)),
                private_key: Some(file(&settings.private_key)),
                ..TlsCertificate::default()
            }];
        }
        if verify {
            let mut validation = accept_names(names);
            match settings.ca_certificates.as_str() {
                "" | "system" => validation.system_root_certs = Some(SystemRootCerts {}),
                path => validation.trusted_ca = Some(file(path)),
            }
            validation.crl = (!settings.ca_crl.is_empty()).then(|| file(&settings.ca_crl));
            common.validation_context_type = Some(ValidationContextType::ValidationContext(validation));
        }
    } else {
        let name = resource_name(&settings.credential_name);
        if verify {
            let validation = CombinedCertificateValidationContext {
                default_validation_context: Some(accept_names(names)),
                validation_context_sds_secret_config: Some(secret(&format!("{name}-cacert"))),
                ..CombinedCertificateValidationContext::default()
            };
            common.validation_context_type = Some(ValidationContextType::CombinedValidationContext(validation));
        }
        if mutual {
            common.tls_certificate_sds_secret_configs = vec![secret(&name)];
        }
    }
    if draft.is_http2() {
        common.alpn_protocols = vec!["h2".to_owned()];
    }
    Some(UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: settings.sni.clone(),
        ..UpstreamTlsContext::default()
    })
}

/// Without a name of its own, the server is asked for by, and checked against, the name in the request.
fn check_requested_name(draft: &mut Draft, settings: &ClientTlsSettings, peer: &Peer<'_>) {
    let verify = settings.insecure_skip_verify != Some(true);
    let by_request = settings.sni.is_empty();
    let check = verify && (peer.is_dynamic || (by_request && settings.subject_alt_names.is_empty()));
    if by_request || check {
        let options = draft.http().upstream_http_protocol_options.get_or_insert_default();
        options.auto_sni = by_request;
        options.auto_san_validation = check;
    }
}

/// Puts the header in front of whatever the connection carries.
pub(super) fn proxy_protocol(draft: &mut Draft, settings: Option<&ProxyProtocol>) {
    let Some(settings) = settings else { return };
    let version = match settings.version {
        ProxyProtocolVersion::V1 => types::core::proxy_protocol_config::Version::V1,
        ProxyProtocolVersion::V2 => types::core::proxy_protocol_config::Version::V2,
    };
    let inner = draft.cluster.transport_socket.take().unwrap_or_else(|| socket(RAW_SOCKET, &RawBuffer::default()));
    let outer = ProxyProtocolUpstreamTransport {
        config: Some(ProxyProtocolConfig { version: version.into(), ..ProxyProtocolConfig::default() }),
        transport_socket: Some(inner),
        ..ProxyProtocolUpstreamTransport::default()
    };
    draft.cluster.transport_socket = Some(socket(PROXY_PROTOCOL_SOCKET, &outer));
}

fn socket<M: Message + Name>(name: &str, config: &M) -> TransportSocket {
    TransportSocket { name: name.to_owned(), config_type: Some(ConfigType::TypedConfig(any(config))) }
}

fn common_context() -> CommonTlsContext {
    CommonTlsContext {
        tls_params: Some(TlsParameters {
            tls_minimum_protocol_version: TlsProtocol::TlSv12.into(),
            tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
            ..TlsParameters::default()
        }),
        ..CommonTlsContext::default()
    }
}

fn accept_names(names: &[String]) -> CertificateValidationContext {
    let exact = |name: &String| StringMatcher {
        match_pattern: Some(string_matcher::MatchPattern::Exact(name.clone())),
        ..StringMatcher::default()
    };
    #[allow(deprecated)]
    CertificateValidationContext {
        // The untyped list, since a name of a rule may be a URI, a DNS name or an address.
        match_subject_alt_names: names.iter().map(exact).collect(),
        ..CertificateValidationContext::default()
    }
}

fn file(path: &str) -> DataSource {
    DataSource { specifier: Some(data_source::Specifier::Filename(path.to_owned())), ..DataSource::default() }
}

/// `kubernetes://NAME` unless the name already says where the secret is.
fn resource_name(credential: &str) -> String {
    match credential.contains("://") {
        true => credential.to_owned(),
        false => format!("kubernetes://{credential}"),
    }
}

fn secret(name: &str) -> SdsSecretConfig {
    let timeout = types::Duration { seconds: 0, nanos: SECRET_TIMEOUT_MILLIS * 1_000_000 };
    SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(ConfigSource { initial_fetch_timeout: Some(timeout), ..ads() }),
    }
}
