//! TLS to the upstream, and the PROXY protocol header in front of it.

use std::net::IpAddr;

use maille_api::networking::destination_rule::{ClientTlsMode, ClientTlsSettings, ProxyProtocol, ProxyProtocolVersion};
use maille_model::endpoint::TLS_MODE_ISTIO;
use maille_model::{Protocol, Service};
use maille_xds::types::cluster::cluster::{DiscoveryType, TransportSocketMatch};
use maille_xds::types::core::transport_socket::ConfigType;
use maille_xds::types::core::{DataSource, ProxyProtocolConfig, TransportSocket, data_source};
use maille_xds::types::matcher::{StringMatcher, string_matcher};
use maille_xds::types::proxy_protocol_upstream::ProxyProtocolUpstreamTransport;
use maille_xds::types::raw_buffer::RawBuffer;
use maille_xds::types::tls::certificate_validation_context::SystemRootCerts;
use maille_xds::types::tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
use maille_xds::types::tls::subject_alt_name_matcher::SanType;
use maille_xds::types::tls::tls_parameters::TlsProtocol;
use maille_xds::types::tls::{
    CertificateValidationContext, CommonTlsContext, SdsSecretConfig, SubjectAltNameMatcher, TlsParameters,
    UpstreamTlsContext,
};
use maille_xds::types::{self, Message, Name, any};

use super::base::Draft;
use crate::convert::ordered_map;
use crate::endpoints::TLS_MODE;
use crate::{Context, secrets};

const TLS_SOCKET: &str = "envoy.transport_sockets.tls";
const PROXY_PROTOCOL_SOCKET: &str = "envoy.transport_sockets.upstream_proxy_protocol";
const RAW_SOCKET: &str = "envoy.transport_sockets.raw_buffer";

/// What is known about the other side.
#[derive(Clone, Debug)]
pub(super) struct Peer<'a> {
    pub(super) service: Option<&'a Service>,
    /// The server name of mutual TLS inside the mesh, unless a rule says another.
    pub(super) server_name: String,
    /// The rule is for some workloads only, so that naming a secret is meant for them.
    pub(super) selected: bool,
    /// The host is resolved for each request.
    pub(super) is_dynamic: bool,
    /// What its port speaks.
    pub(super) protocol: Protocol,
}

/// Whether the settings ask for TLS at all.
pub(super) fn is_on(settings: &ClientTlsSettings) -> bool {
    settings.mode != ClientTlsMode::Disable
}

/// Whether the name that a request resolves is not what the certificate is checked for.
pub(super) fn is_unverified(settings: &ClientTlsSettings) -> bool {
    !is_on(settings) || !settings.sni.is_empty() || settings.insecure_skip_verify == Some(true)
}

/// Mutual TLS where a server can take it and nobody has said otherwise: with each endpoint that has a sidecar of the mesh.
pub(super) fn apply_automatic(draft: &mut Draft, context: &Context<'_>, peer: &Peer<'_>) {
    let settings = ClientTlsSettings { mode: ClientTlsMode::IstioMutual, ..ClientTlsSettings::default() };
    let mutual = socket(TLS_SOCKET, &mesh_mutual(draft, context, &settings, peer));
    if draft.discovery() == Some(DiscoveryType::OriginalDst) {
        // Nothing is known of an original destination; all of the service's workloads take it, or we would not be here.
        draft.cluster.transport_socket = Some(mutual);
        return;
    }
    let with_sidecar = ordered_map(vec![(
        TLS_MODE.to_owned(),
        types::Value { kind: Some(types::ValueKind::StringValue(TLS_MODE_ISTIO.to_owned())) },
    )]);
    draft.cluster.transport_socket_matches = vec![
        TransportSocketMatch {
            name: format!("tlsMode-{TLS_MODE_ISTIO}"),
            r#match: Some(types::Struct { fields: with_sidecar }),
            transport_socket: Some(mutual),
        },
        TransportSocketMatch {
            name: "tlsMode-disabled".to_owned(),
            r#match: Some(types::Struct::default()),
            transport_socket: Some(socket(RAW_SOCKET, &RawBuffer::default())),
        },
    ];
}

pub(super) fn apply(draft: &mut Draft, context: &Context<'_>, settings: &ClientTlsSettings, peer: &Peer<'_>) {
    let tls = match settings.mode {
        ClientTlsMode::Disable => return,
        ClientTlsMode::IstioMutual => Some(mesh_mutual(draft, context, settings, peer)),
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
fn mesh_mutual(
    draft: &mut Draft,
    context: &Context<'_>,
    settings: &ClientTlsSettings,
    peer: &Peer<'_>,
) -> UpstreamTlsContext {
    let sni = match settings.sni.as_str() {
        "" if peer.is_dynamic => String::new(),
        "" => peer.server_name.clone(),
        own => own.to_owned(),
    };
    let accounts = match (settings.subject_alt_names.as_slice(), peer.service) {
        ([], Some(service)) => context.snapshot.service_accounts(service),
        (own, _) => own.to_vec(),
    };
    let mut common = common_context();
    common.tls_certificate_sds_secret_configs = vec![secrets::own_certificate()];
    common.validation_context_type = Some(combined(accept_names(&accounts), secrets::mesh_roots()));
    common.alpn_protocols = alpn(draft, context, peer).iter().map(|name| (*name).to_owned()).collect();
    if peer.is_dynamic {
        check_requested_name(draft, settings, peer);
    }
    UpstreamTlsContext { common_tls_context: Some(common), sni, ..UpstreamTlsContext::default() }
}

/// What the server chooses its chain by, which is what tells it that HTTP is inside. Istio's own client finds that out
/// request by request, with a filter that a stock Envoy does not have; here it is what the port is declared to be. Where
/// either version may be spoken neither is offered, so that the server looks for itself. `istio-peer-exchange` is never
/// offered: it promises bytes that only Istio's own filters send.
fn alpn(draft: &mut Draft, context: &Context<'_>, peer: &Peer<'_>) -> &'static [&'static str] {
    if draft.is_http2() {
        return &["istio-h2", "istio", "h2"];
    }
    // Without redirected connections nothing but requests goes out.
    let http = peer.protocol.is_http() || (peer.protocol.is_unsupported() && context.is_uncaptured());
    match (http, draft.follows_client()) {
        (true, false) => &["istio-http/1.1", "istio", "http/1.1"],
        (true, true) => &["istio-http/1.1", "istio-h2", "istio"],
        (false, _) => &["istio"],
    }
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
    let (certificate, authority) = match settings.credential_name.as_str() {
        "" => {
            let authority = match settings.ca_certificates.as_str() {
                "" | "system" => None,
                path => Some(secrets::file_authority(path)),
            };
            (secrets::file_certificate(&settings.client_certificate, &settings.private_key), authority)
        }
        name => (secrets::credential(name), Some(secrets::credential_authority(name))),
    };
    if mutual {
        common.tls_certificate_sds_secret_configs = vec![secrets::reference(context, certificate)];
    }
    if verify {
        let mut validation = accept_names(names);
        validation.crl = (!settings.ca_crl.is_empty()).then(|| file(&settings.ca_crl));
        common.validation_context_type = Some(match authority {
            Some(authority) => combined(validation, secrets::reference(context, authority)),
            None => {
                validation.system_root_certs = Some(SystemRootCerts {});
                ValidationContextType::ValidationContext(validation)
            }
        });
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

fn combined(own: CertificateValidationContext, roots: SdsSecretConfig) -> ValidationContextType {
    ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        default_validation_context: Some(own),
        validation_context_sds_secret_config: Some(roots),
        ..CombinedCertificateValidationContext::default()
    })
}

/// Names of a rule do not say what they are, so it shows by their form.
fn accept_names(names: &[String]) -> CertificateValidationContext {
    let matcher = |name: &String| {
        let san_type = match name {
            name if name.contains("://") => SanType::Uri,
            name if name.parse::<IpAddr>().is_ok() => SanType::IpAddress,
            name if name.contains('@') => SanType::Email,
            _ => SanType::Dns,
        };
        let exact = StringMatcher {
            match_pattern: Some(string_matcher::MatchPattern::Exact(name.clone())),
            ..StringMatcher::default()
        };
        SubjectAltNameMatcher { san_type: san_type.into(), matcher: Some(exact), ..SubjectAltNameMatcher::default() }
    };
    CertificateValidationContext {
        match_typed_subject_alt_names: names.iter().map(matcher).collect(),
        ..CertificateValidationContext::default()
    }
}

fn file(path: &str) -> DataSource {
    DataSource { specifier: Some(data_source::Specifier::Filename(path.to_owned())), ..DataSource::default() }
}
