//! Transport sockets: plain text, or TLS as a description.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use maille_identity::verify::{self, Certificate, Roots};
use maille_xds::types::core::data_source::Specifier;
use maille_xds::types::core::proxy_protocol_config::Version;
use maille_xds::types::core::{self, transport_socket};
use maille_xds::types::proxy_protocol_upstream::ProxyProtocolUpstreamTransport;
use maille_xds::types::raw_buffer::RawBuffer;
use maille_xds::types::tls::certificate_validation_context::TrustChainVerification;
use maille_xds::types::tls::common_tls_context::ValidationContextType;
use maille_xds::types::tls::downstream_tls_context::SessionTicketKeysType;
use maille_xds::types::tls::subject_alt_name_matcher::SanType;
use maille_xds::types::tls::tls_parameters::TlsProtocol;
use maille_xds::types::tls::{self as proto, DownstreamTlsContext, UpstreamTlsContext, secret};

use crate::compile::Refused;
use crate::compile::at::{At, Compiled, is_true, number, unset};
use crate::compile::matcher;
use crate::config::{
    CertificateData, Data, DownstreamTls, DownstreamTransport, ProxyVersion, SanKind, SanMatcher, SdsName, Secret,
    SecretSource, TlsContext, TlsVersion, UpstreamTls, UpstreamTransport, Validation,
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
        // How long a session may be taken up again: ours end sooner than the default.
        session_timeout: _,
        ocsp_staple_policy,
        // Without a certificate for the name, every certificate is looked at in any case.
        full_scan_certs_on_sni_mismatch: _,
        prefer_client_ciphers,
        session_ticket_keys_type,
    } = &proto;
    unset!(at; require_sni, ocsp_staple_policy, prefer_client_ciphers);
    let common = common(&at.field("common_tls_context"), at.required("common_tls_context", common_tls_context)?)?;
    if common.certificates.is_empty() {
        return at.field("common_tls_context").refuse("a server needs a certificate");
    }
    let tickets = match session_ticket_keys_type {
        None | Some(SessionTicketKeysType::DisableStatelessSessionResumption(false)) => true,
        Some(SessionTicketKeysType::DisableStatelessSessionResumption(true)) => false,
        // Sessions would be taken up by whoever has the same keys, whatever else differs.
        Some(_) => return at.field("session_ticket_keys").refuse("is not supported: each proxy makes its own"),
    };
    let tls = DownstreamTls::new(common, is_true(require_client_certificate), tickets);
    Ok(DownstreamTransport::Tls(Arc::new(tls)))
}

pub(crate) fn upstream(at: &At<'_>, proto: &Option<core::TransportSocket>) -> Compiled<UpstreamTransport> {
    let Some(core::TransportSocket { name: _, config_type }) = proto else { return Ok(UpstreamTransport::default()) };
    let at = at.field("transport_socket");
    let Some(transport_socket::ConfigType::TypedConfig(any)) = config_type else {
        return at.field("typed_config").refuse("is missing");
    };
    if let Some(RawBuffer {}) = at.unpack(any)? {
        return Ok(UpstreamTransport::default());
    }
    if let Some(proto) = at.unpack::<ProxyProtocolUpstreamTransport>(any)? {
        let ProxyProtocolUpstreamTransport { config, transport_socket, allow_unspecified_address, tlv_as_pool_key } =
            &proto;
        unset!(at; allow_unspecified_address, tlv_as_pool_key);
        let inner = upstream(&at, transport_socket)?;
        if inner.proxy_protocol.is_some() {
            return at.field("transport_socket").refuse("one header is enough");
        }
        let version = match config {
            Some(proto) => proxy_version(&at.field("config"), proto)?,
            None => ProxyVersion::V1,
        };
        return Ok(UpstreamTransport { proxy_protocol: Some(version), tls: inner.tls });
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
        // A key that may not sign does not get past our library in any case.
        enforce_rsa_key_usage: _,
    } = &proto;
    unset!(at; allow_renegotiation);
    let common = common(&at.field("common_tls_context"), at.required("common_tls_context", common_tls_context)?)?;
    let roots = common.validation.as_ref().is_some_and(|v| v.has_roots() || v.secret.is_some());
    if *auto_sni_san_validation && !roots {
        return at.field("auto_sni_san_validation").refuse("needs a trusted_ca: anybody can write a name");
    }
    if common.certificates.len() > 1 {
        return at.field("common_tls_context").refuse("a client has one certificate at most");
    }
    let tls = UpstreamTls {
        common,
        sni: sni.as_str().into(),
        auto_host_sni: *auto_host_sni,
        auto_sni_san_validation: *auto_sni_san_validation,
    };
    Ok(UpstreamTransport { proxy_protocol: None, tls: Some(Arc::new(tls)) })
}

fn proxy_version(at: &At<'_>, proto: &core::ProxyProtocolConfig) -> Compiled<ProxyVersion> {
    let core::ProxyProtocolConfig { version, pass_through_tlvs, added_tlvs } = proto;
    unset!(at; pass_through_tlvs, added_tlvs);
    Ok(match at.one_of("version", *version)? {
        Version::V1 => ProxyVersion::V1,
        Version::V2 => ProxyVersion::V2,
    })
}

/// Compiles a discovered secret.
pub fn secret(proto: &proto::Secret) -> Result<Secret, Refused> {
    let at = &At::resource(&proto.name);
    match at.required("type", &proto.r#type)? {
        secret::Type::TlsCertificate(proto) => {
            certificate(&at.field("tls_certificate"), proto).map(Secret::Certificate)
        }
        secret::Type::ValidationContext(proto) => {
            validation(&at.field("validation_context"), proto).map(|v| Secret::Validation(Box::new(v)))
        }
        _ => at.refuse("must be a certificate or a validation context"),
    }
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
    let given = tls_certificates
        .iter()
        .enumerate()
        .map(|(i, proto)| certificate(&at.item("tls_certificates", i), proto).map(SecretSource::Given));
    let secrets = tls_certificate_sds_secret_configs.iter().enumerate();
    let secrets =
        secrets.map(|(i, proto)| sds(&at.item("tls_certificate_sds_secret_configs", i), proto).map(SecretSource::Sds));
    let mut out = TlsContext {
        certificates: given.chain(secrets).collect::<Compiled<_>>()?,
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

/// Envoy's default.
const SECRET_PATIENCE: Duration = Duration::from_secs(15);

fn sds(at: &At<'_>, proto: &proto::SdsSecretConfig) -> Compiled<SdsName> {
    let proto::SdsSecretConfig { name, sds_config } = proto;
    let patience = sds_config.as_ref().map(|config| &config.initial_fetch_timeout);
    let patience = match patience {
        Some(timeout) => at.field("sds_config").timeout("initial_fetch_timeout", timeout, Some(SECRET_PATIENCE))?,
        None => {
            return at.field("sds_config").refuse("is missing: secrets that stand beside listeners are not supported");
        }
    };
    Ok(SdsName { name: at.text("name", name)?.into(), patience })
}

fn certificate(at: &At<'_>, proto: &proto::TlsCertificate) -> Compiled<CertificateData> {
    let proto::TlsCertificate {
        certificate_chain,
        private_key,
        pkcs12,
        // Files are looked at wherever they are.
        watched_directory: _,
        private_key_provider,
        password,
        ocsp_staple,
        signed_certificate_timestamp,
        tls_params,
    } = proto;
    unset!(at; pkcs12, private_key_provider, password, signed_certificate_timestamp, tls_params);
    let staple = match ocsp_staple.as_ref().and_then(|source| source.specifier.as_ref()) {
        Some(Specifier::InlineString(_)) => return at.field("ocsp_staple").refuse("is DER, which is no string"),
        Some(_) => Some(data(&at.field("ocsp_staple"), ocsp_staple)?),
        None => None,
    };
    let certificate = CertificateData {
        chain: data(&at.field("certificate_chain"), certificate_chain)?,
        key: data(&at.field("private_key"), private_key)?,
        staple,
    };
    if let (Data::Inline(chain), Data::Inline(key)) = (&certificate.chain, &certificate.key) {
        let staple = match &certificate.staple {
            Some(Data::Inline(staple)) => &**staple,
            _ => b"",
        };
        if let Err(error) = Certificate::read(chain, key).and_then(|certificate| certificate.stapled(staple)) {
            return at.refuse(error.to_string());
        }
    }
    Ok(certificate)
}

fn data(at: &At<'_>, proto: &Option<core::DataSource>) -> Compiled<Data> {
    match proto.as_ref().and_then(|source| source.specifier.as_ref()) {
        Some(Specifier::Filename(path)) => Ok(Data::File(at.text("filename", path)?.into())),
        Some(Specifier::InlineBytes(bytes)) => Ok(Data::Inline(bytes.as_slice().into())),
        Some(Specifier::InlineString(text)) => Ok(Data::Inline(text.as_bytes().into())),
        Some(Specifier::EnvironmentVariable(name)) => match std::env::var(name) {
            Ok(text) => Ok(Data::Inline(text.into_bytes().into())),
            Err(_) => at.refuse(format!("there is no environment variable {name:?}")),
        },
        None => at.refuse("is missing"),
    }
}

fn validation_of(at: &At<'_>, proto: &ValidationContextType) -> Compiled<Validation> {
    match proto {
        ValidationContextType::ValidationContext(proto) => {
            let at = at.field("validation_context");
            let validation = validation(&at, proto)?;
            if !validation.names.is_empty() && !validation.has_roots() {
                return at.refuse("names are worth nothing without a trusted_ca: anybody can write one");
            }
            Ok(validation)
        }
        ValidationContextType::ValidationContextSdsSecretConfig(proto) => Ok(Validation {
            secret: Some(sds(&at.field("validation_context_sds_secret_config"), proto)?),
            ..Validation::default()
        }),
        ValidationContextType::CombinedValidationContext(combined) => {
            let at = at.field("combined_validation_context");
            let mut out = match &combined.default_validation_context {
                Some(proto) => validation(&at.field("default_validation_context"), proto)?,
                None => Validation::default(),
            };
            let secret =
                at.required("validation_context_sds_secret_config", &combined.validation_context_sds_secret_config)?;
            out.secret = Some(sds(&at.field("validation_context_sds_secret_config"), secret)?);
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
        // Whom clients are told to show a certificate of; a hint.
        suppress_client_ca_list: _,
    } = proto;
    unset!(at; ca_certificate_provider_instance, require_signed_certificate_timestamp, custom_validator_config);
    let optional =
        |name: &str, proto: &Option<core::DataSource>| proto.as_ref().map(|_| data(&at.field(name), proto)).transpose();
    let (trusted_ca, crl) = (optional("trusted_ca", trusted_ca)?, optional("crl", crl)?);
    if let Some(Data::Inline(pem)) = &trusted_ca
        && let Err(error) = Roots::read(pem)
    {
        return at.field("trusted_ca").refuse(error.to_string());
    }
    if let Some(Data::Inline(pem)) = &crl
        && let Err(error) = verify::revocation_lists(pem)
    {
        return at.field("crl").refuse(error.to_string());
    }
    let mut names = Vec::new();
    for (i, proto) in match_typed_subject_alt_names.iter().enumerate() {
        names.push(san(&at.item("match_typed_subject_alt_names", i), proto)?);
    }
    for (i, proto) in match_subject_alt_names.iter().enumerate() {
        let value = matcher::string(&at.item("match_subject_alt_names", i), proto)?;
        names.push(SanMatcher { kind: None, value });
    }
    let hashes = verify_certificate_hash.iter().enumerate();
    let hashes = hashes.map(|(i, text)| match hex(text) {
        Some(hash) => Ok(hash),
        None => at.item("verify_certificate_hash", i).refuse("must be a SHA-256 in hexadecimal"),
    });
    let keys = verify_certificate_spki.iter().enumerate();
    let keys = keys.map(|(i, text)| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok();
        match bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) {
            Some(hash) => Ok(hash),
            None => at.item("verify_certificate_spki", i).refuse("must be a SHA-256 in base64"),
        }
    });
    Ok(Validation {
        secret: None,
        trusted_ca,
        system_roots: system_root_certs.is_some(),
        crl,
        crl_of_leaf_only: *only_verify_leaf_cert_crl,
        names,
        hashes: hashes.collect::<Compiled<_>>()?,
        keys: keys.collect::<Compiled<_>>()?,
        allow_expired: *allow_expired_certificate,
        accept_untrusted: match at.one_of("trust_chain_verification", *trust_chain_verification)? {
            TrustChainVerification::VerifyTrustChain => false,
            TrustChainVerification::AcceptUntrusted => true,
        },
        max_depth: number(max_verify_depth),
    })
}

fn san(at: &At<'_>, proto: &proto::SubjectAltNameMatcher) -> Compiled<SanMatcher> {
    let proto::SubjectAltNameMatcher { san_type, matcher, oid } = proto;
    unset!(at; oid);
    let kind = match at.one_of("san_type", *san_type)? {
        SanType::Email => SanKind::Email,
        SanType::Dns => SanKind::Dns,
        SanType::Uri => SanKind::Uri,
        SanType::IpAddress => SanKind::Ip,
        SanType::Unspecified | SanType::OtherName => {
            return at.field("san_type").refuse("must be EMAIL, DNS, URI or IP_ADDRESS");
        }
    };
    let value = matcher::string(&at.field("matcher"), at.required("matcher", matcher)?)?;
    Ok(SanMatcher { kind: Some(kind), value })
}

/// A SHA-256 as people write it: in hexadecimal, with or without colons.
fn hex(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    let mut out = [0; 32];
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(out)
}
