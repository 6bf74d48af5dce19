//! TLS terminated at a gateway: certificates by file or by the name of a secret, and whom a client has to prove to be.

use maille_api::mesh::{MeshConfig, MeshTlsProtocol};
use maille_api::networking::gateway::{ServerTlsMode, ServerTlsSettings, TlsProtocol};
use maille_xds::types::BoolValue;
use maille_xds::types::core::{DataSource, data_source};
use maille_xds::types::matcher::{StringMatcher, string_matcher};
use maille_xds::types::tls::certificate_validation_context::TrustChainVerification;
use maille_xds::types::tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
use maille_xds::types::tls::tls_parameters::TlsProtocol as EnvoyTlsProtocol;
use maille_xds::types::tls::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, TlsParameters,
};

use crate::Context;
use crate::secrets::{
    credential, credential_authority, file_authority, file_certificate, mesh_roots, own_certificate, reference,
};

/// The protocols a terminating gateway speaks inside TLS.
const HTTP_ALPN: [&str; 2] = ["h2", "http/1.1"];

/// How a server terminates TLS; `None` when it does not.
pub(crate) fn server_tls(context: &Context<'_>, settings: &ServerTlsSettings) -> Option<DownstreamTlsContext> {
    match settings.mode {
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough => return None,
        ServerTlsMode::IstioMutual => return Some(of_the_mesh(settings)),
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => {}
    }
    let names = credential_names(settings);
    let certificates = match names.as_slice() {
        [] => certificate_files(settings),
        names => names.iter().map(|name| credential(name)).collect(),
    };
    let authority = match (settings.ca_cert_credential_name.as_str(), names.first()) {
        ("", Some(first)) => Some(credential_authority(first)),
        ("", None) => Some(settings.ca_certificates.as_str()).filter(|path| !path.is_empty()).map(file_authority),
        (name, _) => Some(credential(name)),
    };
    let common = CommonTlsContext {
        alpn_protocols: HTTP_ALPN.map(str::to_owned).to_vec(),
        tls_params: parameters(context.mesh(), settings),
        tls_certificate_sds_secret_configs: certificates.into_iter().map(|name| reference(context, name)).collect(),
        validation_context_type: validation(settings, authority.map(|name| reference(context, name))),
        ..Default::default()
    };
    Some(DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: Some(BoolValue { value: settings.mode == ServerTlsMode::Mutual }),
        ..Default::default()
    })
}

/// With the gateway's own certificate of the mesh, for clients that have one, too.
fn of_the_mesh(settings: &ServerTlsSettings) -> DownstreamTlsContext {
    #[allow(deprecated)]
    let mut own = CertificateValidationContext {
        match_subject_alt_names: settings.subject_alt_names.iter().map(|name| exact(name)).collect(),
        crl: (!settings.ca_crl.is_empty()).then(|| file(&settings.ca_crl)),
        ..CertificateValidationContext::default()
    };
    if settings.insecure_skip_verify == Some(true) {
        own.trust_chain_verification = TrustChainVerification::AcceptUntrusted.into();
    }
    let validation = CombinedCertificateValidationContext {
        default_validation_context: Some(own),
        validation_context_sds_secret_config: Some(mesh_roots()),
        ..CombinedCertificateValidationContext::default()
    };
    DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            alpn_protocols: HTTP_ALPN.map(str::to_owned).to_vec(),
            tls_certificate_sds_secret_configs: vec![own_certificate()],
            validation_context_type: Some(ValidationContextType::CombinedValidationContext(validation)),
            ..CommonTlsContext::default()
        }),
        require_client_certificate: Some(BoolValue { value: true }),
        ..DownstreamTlsContext::default()
    }
}

fn credential_names(settings: &ServerTlsSettings) -> Vec<&str> {
    if settings.credential_names.is_empty() {
        return Some(settings.credential_name.as_str()).into_iter().filter(|name| !name.is_empty()).collect();
    }
    settings.credential_names.iter().map(String::as_str).collect()
}

fn certificate_files(settings: &ServerTlsSettings) -> Vec<String> {
    if settings.tls_certificates.is_empty() {
        return vec![file_certificate(&settings.server_certificate, &settings.private_key)];
    }
    settings.tls_certificates.iter().map(|pair| file_certificate(&pair.server_certificate, &pair.private_key)).collect()
}

/// How a client's certificate is judged, where one is asked for.
fn validation(settings: &ServerTlsSettings, authority: Option<SdsSecretConfig>) -> Option<ValidationContextType> {
    if !matches!(settings.mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual) {
        return None;
    }
    // The typed matchers would have to say which kind of name each is; Istio's list does not.
    #[allow(deprecated)]
    let mut context = CertificateValidationContext {
        match_subject_alt_names: settings.subject_alt_names.iter().map(|name| exact(name)).collect(),
        verify_certificate_spki: settings.verify_certificate_spki.clone(),
        verify_certificate_hash: settings.verify_certificate_hash.clone(),
        crl: (!settings.ca_crl.is_empty()).then(|| file(&settings.ca_crl)),
        ..Default::default()
    };
    if settings.insecure_skip_verify == Some(true) {
        context.trust_chain_verification = TrustChainVerification::AcceptUntrusted.into();
    }
    Some(match authority {
        None => ValidationContextType::ValidationContext(context),
        Some(authority) => ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
            default_validation_context: Some(context),
            validation_context_sds_secret_config: Some(authority),
            ..Default::default()
        }),
    })
}

/// Limits of the mesh, and over them the server's own.
fn parameters(mesh: &MeshConfig, settings: &ServerTlsSettings) -> Option<TlsParameters> {
    let mut parameters = TlsParameters::default();
    if let Some(defaults) = &mesh.tls_defaults {
        parameters.ecdh_curves.clone_from(&defaults.ecdh_curves);
        parameters.cipher_suites.clone_from(&defaults.cipher_suites);
        parameters.tls_minimum_protocol_version = match defaults.min_protocol_version {
            MeshTlsProtocol::TlsAuto => EnvoyTlsProtocol::TlsAuto,
            MeshTlsProtocol::TlsV1_2 => EnvoyTlsProtocol::TlSv12,
            MeshTlsProtocol::TlsV1_3 => EnvoyTlsProtocol::TlSv13,
        }
        .into();
    }
    if settings.min_protocol_version != TlsProtocol::TlsAuto {
        parameters.tls_minimum_protocol_version = version(settings.min_protocol_version).into();
    }
    if settings.max_protocol_version != TlsProtocol::TlsAuto {
        parameters.tls_maximum_protocol_version = version(settings.max_protocol_version).into();
    }
    let suites = settings.usable_cipher_suites();
    if !suites.is_empty() {
        parameters.cipher_suites = suites;
    }
    if !settings.ecdh_curves.is_empty() {
        parameters.ecdh_curves.clone_from(&settings.ecdh_curves);
    }
    (parameters != TlsParameters::default()).then_some(parameters)
}

fn version(version: TlsProtocol) -> EnvoyTlsProtocol {
    match version {
        TlsProtocol::TlsAuto => EnvoyTlsProtocol::TlsAuto,
        TlsProtocol::TlsV1_0 => EnvoyTlsProtocol::TlSv10,
        TlsProtocol::TlsV1_1 => EnvoyTlsProtocol::TlSv11,
        TlsProtocol::TlsV1_2 => EnvoyTlsProtocol::TlSv12,
        TlsProtocol::TlsV1_3 => EnvoyTlsProtocol::TlSv13,
    }
}

fn file(path: &str) -> DataSource {
    DataSource { specifier: Some(data_source::Specifier::Filename(path.to_owned())), ..Default::default() }
}

fn exact(text: &str) -> StringMatcher {
    StringMatcher { match_pattern: Some(string_matcher::MatchPattern::Exact(text.to_owned())), ..Default::default() }
}
