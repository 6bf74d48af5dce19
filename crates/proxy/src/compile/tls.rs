//! Transport sockets: plain text, or TLS as a description.

use std::sync::Arc;

use maille_xds::types::core::data_source::Specifier;
use maille_xds::types::core::{self, transport_socket};
use maille_xds::types::raw_buffer::RawBuffer;
use maille_xds::types::tls::common_tls_context::ValidationContextType;
use maille_xds::types::tls::tls_parameters::TlsProtocol;
use maille_xds::types::tls::{self as proto, DownstreamTlsContext, UpstreamTlsContext};

use crate::compile::at::{At, Compiled, is_true, unset};
use crate::compile::matcher;
use crate::config::{
    DownstreamTls, DownstreamTransport, SecretSource, TlsContext, TlsVersion, UpstreamTls, UpstreamTransport,
    Validation,
};

pub(crate) fn downstream(at: &At<'_>, proto: &Option<core::TransportSocket>) -> Compiled<DownstreamTransport> {
    let Some(core::TransportSocket { name: _, config_type }) = proto else { return Ok(DownstreamTransport::Plaintext) };
    let at = at.field("transport_socket");
    let Some(transport_socket::ConfigType::TypedConfig(any)) = config_type else {
        return at.field("typed_config").refuse("is missing");
    };
    if let Some(RawBuffer {}) = at.unpack(any)? {
        return Ok(DownstreamTransport::Plaintext);
    }
    let Some(proto) = at.unpack::<DownstreamTlsContext>(any)? else {
        return at.refuse(format!("{} is no transport we have", any.type_url));
    };
    let DownstreamTlsContext {
        common_tls_context,
        require_client_certificate,
        require_sni,
        disable_stateful_session_resumption: _,
        session_timeout: _,
        ocsp_staple_policy,
        full_scan_certs_on_sni_mismatch,
        prefer_client_ciphers,
        // Resumption: how a session is taken up again, not what it may do.
        session_ticket_keys_type: _,
    } = &proto;
    unset!(at; require_sni, ocsp_staple_policy, full_scan_certs_on_sni_mismatch, prefer_client_ciphers);
    Ok(DownstreamTransport::Tls(Arc::new(DownstreamTls {
        common: common(&at.field("common_tls_context"), at.required("common_tls_context", common_tls_context)?)?,
        require_client_certificate: is_true(require_client_certificate),
    })))
}

pub(crate) fn upstream(at: &At<'_>, proto: &Option<core::TransportSocket>) -> Compiled<UpstreamTransport> {
    let Some(core::TransportSocket { name: _, config_type }) = proto else { return Ok(UpstreamTransport::Plaintext) };
    let at = at.field("transport_socket");
    let Some(transport_socket::ConfigType::TypedConfig(any)) = config_type else {
        return at.field("typed_config").refuse("is missing");
    };
    if let Some(RawBuffer {}) = at.unpack(any)? {
        return Ok(UpstreamTransport::Plaintext);
    }
    let Some(proto) = at.unpack::<UpstreamTlsContext>(any)? else {
        return at.refuse(format!("{} is no transport we have", any.type_url));
    };
    let UpstreamTlsContext {
        common_tls_context,
        sni,
        auto_host_sni,
        auto_sni_san_validation,
        allow_renegotiation,
        max_session_keys: _,
        enforce_rsa_key_usage: _,
    } = &proto;
    unset!(at; allow_renegotiation);
    Ok(UpstreamTransport::Tls(Arc::new(UpstreamTls {
        common: common(&at.field("common_tls_context"), at.required("common_tls_context", common_tls_context)?)?,
        sni: sni.as_str().into(),
        auto_host_sni: *auto_host_sni,
        auto_sni_san_validation: *auto_sni_san_validation,
    })))
}

fn common(at: &At<'_>, proto: &proto::CommonTlsContext) -> Compiled<TlsContext> {
    let proto::CommonTlsContext {
        tls_params,
        tls_certificates,
        tls_certificate_sds_secret_configs,
        tls_certificate_provider_instance,
        custom_tls_certificate_selector,
        tls_certificate_certificate_provider,
        tls_certificate_certificate_provider_instance,
        alpn_protocols,
        custom_handshaker,
        key_log,
        validation_context_type,
    } = proto;
    unset!(at; tls_certificate_provider_instance, custom_tls_certificate_selector, custom_handshaker, key_log);
    unset!(at; tls_certificate_certificate_provider, tls_certificate_certificate_provider_instance);
    let files = tls_certificates.iter().enumerate().map(|(i, c)| certificate(&at.item("tls_certificates", i), c));
    let secrets = tls_certificate_sds_secret_configs.iter().map(|sds| Ok(SecretSource::Sds(sds.name.as_str().into())));
    let mut out = TlsContext {
        certificates: files.chain(secrets).collect::<Compiled<_>>()?,
        validation: validation_context_type.as_ref().map(|proto| validation_of(at, proto)).transpose()?,
        alpn: alpn_protocols.iter().map(|p| p.as_str().into()).collect(),
        ..TlsContext::default()
    };
    if let Some(proto) = tls_params {
        let at = at.field("tls_params");
        let proto::TlsParameters {
            tls_minimum_protocol_version,
            tls_maximum_protocol_version,
            cipher_suites,
            ecdh_curves,
            signature_algorithms,
            compliance_policies,
        } = proto;
        unset!(at; signature_algorithms, compliance_policies);
        out.min_version = version(&at, "tls_minimum_protocol_version", *tls_minimum_protocol_version)?;
        out.max_version = version(&at, "tls_maximum_protocol_version", *tls_maximum_protocol_version)?;
        out.cipher_suites = cipher_suites.iter().map(|c| c.as_str().into()).collect();
        out.curves = ecdh_curves.iter().map(|c| c.as_str().into()).collect();
    }
    Ok(out)
}

fn version(at: &At<'_>, name: &str, value: i32) -> Compiled<TlsVersion> {
    Ok(match at.one_of(name, value)? {
        TlsProtocol::TlsAuto => TlsVersion::Auto,
        TlsProtocol::TlSv10 => TlsVersion::Tls10,
        TlsProtocol::TlSv11 => TlsVersion::Tls11,
        TlsProtocol::TlSv12 => TlsVersion::Tls12,
        TlsProtocol::TlSv13 => TlsVersion::Tls13,
    })
}

fn certificate(at: &At<'_>, proto: &proto::TlsCertificate) -> Compiled<SecretSource> {
    let proto::TlsCertificate {
        certificate_chain,
        private_key,
        pkcs12,
        watched_directory: _,
        private_key_provider,
        password,
        ocsp_staple,
        signed_certificate_timestamp,
        tls_params,
    } = proto;
    unset!(at; pkcs12, private_key_provider, password, ocsp_staple, signed_certificate_timestamp, tls_params);
    Ok(SecretSource::Files {
        certificate: file(&at.field("certificate_chain"), certificate_chain)?,
        key: file(&at.field("private_key"), private_key)?,
    })
}

fn file(at: &At<'_>, proto: &Option<core::DataSource>) -> Compiled<Arc<str>> {
    match proto.as_ref().and_then(|source| source.specifier.as_ref()) {
        Some(Specifier::Filename(path)) => Ok(path.as_str().into()),
        _ => at.refuse("must be a file"),
    }
}

fn validation_of(at: &At<'_>, proto: &ValidationContextType) -> Compiled<Validation> {
    match proto {
        ValidationContextType::ValidationContext(proto) => validation(&at.field("validation_context"), proto),
        ValidationContextType::ValidationContextSdsSecretConfig(sds) => {
            Ok(Validation { roots: Some(sds.name.as_str().into()), ..Validation::default() })
        }
        ValidationContextType::CombinedValidationContext(combined) => {
            let at = at.field("combined_validation_context");
            let mut out = match &combined.default_validation_context {
                Some(proto) => validation(&at.field("default_validation_context"), proto)?,
                None => Validation::default(),
            };
            out.roots = combined.validation_context_sds_secret_config.as_ref().map(|sds| sds.name.as_str().into());
            Ok(out)
        }
        _ => at.refuse("certificate providers are not supported"),
    }
}

fn validation(at: &At<'_>, proto: &proto::CertificateValidationContext) -> Compiled<Validation> {
    let proto::CertificateValidationContext {
        trusted_ca,
        ca_certificate_provider_instance,
        system_root_certs,
        watched_directory: _,
        verify_certificate_spki,
        verify_certificate_hash,
        match_typed_subject_alt_names,
        match_subject_alt_names,
        require_signed_certificate_timestamp,
        crl,
        allow_expired_certificate,
        trust_chain_verification,
        custom_validator_config,
        only_verify_leaf_cert_crl,
        max_verify_depth,
        suppress_client_ca_list: _,
    } = proto;
    unset!(at; ca_certificate_provider_instance, system_root_certs, verify_certificate_spki, verify_certificate_hash);
    unset!(at; require_signed_certificate_timestamp, crl, allow_expired_certificate, trust_chain_verification);
    unset!(at; custom_validator_config, only_verify_leaf_cert_crl, max_verify_depth);
    let typed = match_typed_subject_alt_names.iter().filter_map(|san| san.matcher.as_ref());
    let names = typed.chain(match_subject_alt_names).map(|proto| matcher::string(at, proto));
    Ok(Validation {
        roots: None,
        roots_file: trusted_ca.as_ref().map(|_| file(&at.field("trusted_ca"), trusted_ca)).transpose()?,
        names: names.collect::<Compiled<_>>()?,
    })
}
