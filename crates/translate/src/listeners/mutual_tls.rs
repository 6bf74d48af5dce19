//! The mesh's mutual TLS as a server takes it: which chains a port gets by its PeerAuthentication and protocol, and how
//! they open what comes.

use maille_api::mesh::{MeshConfig, MeshTlsProtocol};
use maille_model::{MutualTls, Protocol};
use maille_xds::types::BoolValue;
use maille_xds::types::matcher::{StringMatcher, string_matcher};
use maille_xds::types::tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
use maille_xds::types::tls::tls_parameters::TlsProtocol;
use maille_xds::types::tls::{CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, TlsParameters};

use super::filters::{PLAINTEXT_HTTP, RAW_BUFFER, TLS};
use crate::Context;
use crate::secrets::{mesh_roots, own_certificate};

/// What clients of the mesh offer: those that know they speak HTTP, those that do not, and all of them.
const ISTIO_HTTP: &[&str] = &["istio-http/1.0", "istio-http/1.1", "istio-h2"];
const ISTIO_TCP: &[&str] = &["istio-peer-exchange", "istio"];
pub(super) const ISTIO_ANY: &[&str] = &["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// What is agreed upon in the end. Never one of Istio's own names: `istio-peer-exchange` promises bytes that only its
/// filters understand.
const HTTP_ALPN: [&str; 2] = ["h2", "http/1.1"];

const CIPHER_SUITES: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
];

/// What a chain for a port matches beside the port, and whether it opens TLS.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Matched {
    pub(super) http: bool,
    pub(super) application_protocols: &'static [&'static str],
    pub(super) transport_protocol: &'static str,
    pub(super) terminated: bool,
}

/// The chains of a port. TLS that is not the mesh's is passed on unopened where the port may carry it.
pub(super) fn matched(mode: MutualTls, protocol: Protocol) -> Vec<Matched> {
    let plaintext = |http, application_protocols| Matched {
        http,
        application_protocols,
        transport_protocol: RAW_BUFFER,
        terminated: false,
    };
    let mutual = |http, application_protocols| Matched {
        http,
        application_protocols,
        transport_protocol: TLS,
        terminated: true,
    };
    let opaque = Matched { http: false, application_protocols: &[], transport_protocol: TLS, terminated: false };
    match (mode, protocol) {
        (MutualTls::Disable, http) if http.is_http() => vec![plaintext(true, &[])],
        (MutualTls::Disable, tcp) if tcp.is_tcp() => vec![plaintext(false, &[])],
        (MutualTls::Disable, _) => vec![plaintext(true, &PLAINTEXT_HTTP), plaintext(false, &[])],
        (MutualTls::Permissive, http) if http.is_http() => vec![mutual(true, ISTIO_ANY), plaintext(true, &[])],
        (MutualTls::Permissive, tcp) if tcp.is_tcp() => {
            vec![mutual(false, ISTIO_ANY), opaque, plaintext(false, &[])]
        }
        (MutualTls::Permissive, _) => vec![
            mutual(true, ISTIO_HTTP),
            plaintext(true, &PLAINTEXT_HTTP),
            mutual(false, ISTIO_TCP),
            plaintext(false, &[]),
            opaque,
        ],
        (MutualTls::Strict, http) if http.is_http() => vec![mutual(true, &[])],
        (MutualTls::Strict, tcp) if tcp.is_tcp() => vec![mutual(false, &[])],
        (MutualTls::Strict, _) => vec![mutual(true, ISTIO_HTTP), mutual(false, &[])],
    }
}

/// How mutual TLS is opened: with the workload's own certificate, for anybody of a trust domain of ours.
pub(super) fn context(context: &Context<'_>) -> DownstreamTlsContext {
    let mesh = context.mesh();
    DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_params: Some(parameters(mesh)),
            alpn_protocols: HTTP_ALPN.map(str::to_owned).to_vec(),
            tls_certificate_sds_secret_configs: vec![own_certificate()],
            validation_context_type: Some(clients_of_the_mesh(context, Vec::new())),
            ..CommonTlsContext::default()
        }),
        require_client_certificate: Some(BoolValue { value: true }),
        ..DownstreamTlsContext::default()
    }
}

/// Certificates that the mesh's own authorities gave to one of these names, or to an identity in a trust domain of ours.
pub(super) fn clients_of_the_mesh(context: &Context<'_>, names: Vec<StringMatcher>) -> ValidationContextType {
    let domains = trust_domains(context.mesh()).into_iter().map(|domain| StringMatcher {
        match_pattern: Some(string_matcher::MatchPattern::Prefix(format!("spiffe://{domain}/"))),
        ..StringMatcher::default()
    });
    // The typed matchers would have to say which kind of name each is; Istio's list does not.
    #[allow(deprecated)]
    let own = CertificateValidationContext {
        match_subject_alt_names: names.into_iter().chain(domains).collect(),
        ..CertificateValidationContext::default()
    };
    ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        default_validation_context: Some(own),
        validation_context_sds_secret_config: Some(mesh_roots()),
        ..CombinedCertificateValidationContext::default()
    })
}

/// The mesh's own, its other names, and those that it trusts the authorities of.
fn trust_domains(mesh: &MeshConfig) -> Vec<&str> {
    let others = mesh.ca_certificates.iter().flat_map(|authority| &authority.trust_domains);
    let all = std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases).chain(others);
    let mut known = Vec::new();
    for domain in all.filter(|domain| !domain.is_empty()) {
        if !known.contains(&domain.as_str()) {
            known.push(domain.as_str());
        }
    }
    known
}

pub(super) fn parameters(mesh: &MeshConfig) -> TlsParameters {
    let configured = mesh.mesh_mtls.as_ref();
    let suites = configured.map(|tls| tls.cipher_suites.clone()).filter(|suites| !suites.is_empty());
    let minimum = match configured.map(|tls| tls.min_protocol_version) {
        Some(MeshTlsProtocol::TlsV1_3) => TlsProtocol::TlSv13,
        _ => TlsProtocol::TlSv12,
    };
    TlsParameters {
        tls_minimum_protocol_version: minimum.into(),
        tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
        cipher_suites: suites.unwrap_or_else(|| CIPHER_SUITES.map(str::to_owned).to_vec()),
        ..TlsParameters::default()
    }
}
