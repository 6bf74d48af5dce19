//! TLS settings: of the servers of gateways and sidecars, and of the clients that sidecars are.

use std::collections::BTreeSet;

use super::findings::{At, Problem};
use crate::networking::destination_rule::{ClientTlsMode, ClientTlsSettings};
use crate::networking::gateway::{ServerTlsMode, ServerTlsSettings, TlsProtocol};

/// How TLS is terminated.
pub(super) fn server(tls: &ServerTlsSettings, at: &mut At<'_>) {
    if matches!(tls.min_protocol_version, TlsProtocol::TlsV1_0 | TlsProtocol::TlsV1_1) && tls.cipher_suites.is_empty() {
        at.field("minProtocolVersion").warn(
            Problem::new("none of the default cipher suites works below TLS 1.2")
                .hint("list older suites in cipherSuites, or raise the version to TLSV1_2"),
        );
    }
    cipher_suites(&tls.cipher_suites, &mut at.field("cipherSuites"));
    if tls.mode == ServerTlsMode::IstioMutual {
        return mesh_certificates_only(tls, at);
    }
    if matches!(tls.mode, ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough) && has_certificates(tls) {
        at.warn(
            Problem::new(format!("{} does not end TLS, so its certificates are not used", tls.mode))
                .hint("remove them, or set the mode to SIMPLE or MUTUAL"),
        );
    }
    let by_file = !tls.server_certificate.is_empty() && !tls.private_key.is_empty();
    let sources = [
        ("credentialName", !tls.credential_name.is_empty()),
        ("credentialNames", !tls.credential_names.is_empty()),
        ("serverCertificate and privateKey", by_file),
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
    ];
    let set: Vec<&str> = sources.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
    if set.len() > 1 {
        at.error(Problem::new(format!("certificates are given twice: by {}", set.join(", by "))).hint("keep one"));
    }
    if !matches!(tls.mode, ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual) {
        return revocation(tls, at);
    }
    if !tls.credential_name.is_empty() || !tls.credential_names.is_empty() {
        return;
    }
    if tls.mode != ServerTlsMode::Simple && tls.ca_certificates.is_empty() {
        at.field("caCertificates").error(
            Problem::new(format!("{} checks clients, and needs the CA certificates to do so", tls.mode))
                .hint("name the file here, or a secret in credentialName"),
        );
    }
    certificates(tls, at);
    revocation(tls, at);
}

fn certificates(tls: &ServerTlsSettings, at: &mut At<'_>) {
    if tls.tls_certificates.is_empty() {
        return key_pair(tls.mode, &tls.server_certificate, &tls.private_key, at);
    }
    if tls.tls_certificates.len() > 2 {
        at.field("tlsCertificates").warn("only two certificates can be used, one RSA and one ECDSA");
    }
    for (i, pair) in tls.tls_certificates.iter().enumerate() {
        key_pair(tls.mode, &pair.server_certificate, &pair.private_key, &mut at.field("tlsCertificates").index(i));
    }
}

fn key_pair(mode: ServerTlsMode, certificate: &str, key: &str, at: &mut At<'_>) {
    for (field, what, file) in
        [("serverCertificate", "a certificate", certificate), ("privateKey", "a private key", key)]
    {
        if file.is_empty() {
            at.field(field).error(
                Problem::new(format!("{mode} needs {what}")).hint("name the file here, or a secret in credentialName"),
            );
        }
    }
}

fn revocation(tls: &ServerTlsSettings, at: &mut At<'_>) {
    if tls.ca_crl.is_empty() {
        return;
    }
    if !tls.credential_name.is_empty() {
        at.field("caCrl").error(
            Problem::new("with credentialName the revocation list belongs in the secret").hint("put it under `ca.crl`"),
        );
    }
    if tls.mode == ServerTlsMode::Simple {
        at.field("caCrl").error(
            Problem::new("SIMPLE does not check clients, so it has no use for a revocation list")
                .hint("remove it, or set the mode to MUTUAL"),
        );
    }
}

fn has_certificates(tls: &ServerTlsSettings) -> bool {
    let files = [&tls.ca_crl, &tls.server_certificate, &tls.private_key, &tls.ca_certificates, &tls.credential_name];
    files.iter().any(|file| !file.is_empty()) || !tls.tls_certificates.is_empty() || !tls.credential_names.is_empty()
}

/// ISTIO_MUTUAL takes its certificates from the mesh.
fn mesh_certificates_only(tls: &ServerTlsSettings, at: &mut At<'_>) {
    let fields = [
        ("serverCertificate", !tls.server_certificate.is_empty()),
        ("privateKey", !tls.private_key.is_empty()),
        ("caCertificates", !tls.ca_certificates.is_empty()),
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
        ("credentialName", !tls.credential_name.is_empty()),
        ("credentialNames", !tls.credential_names.is_empty()),
    ];
    for (field, _) in fields.into_iter().filter(|(_, set)| *set) {
        at.field(field).error(
            Problem::new("ISTIO_MUTUAL uses the mesh's own certificates")
                .hint("remove this, or set the mode to MUTUAL"),
        );
    }
}

fn cipher_suites(suites: &[String], at: &mut At<'_>) {
    let mut seen = BTreeSet::new();
    for (i, suite) in suites.iter().enumerate() {
        let known = ServerTlsSettings::is_cipher_suite(suite);
        if !known {
            at.index(i).warn(
                Problem::new(format!("`{suite}` is not a cipher suite this proxy knows, and is ignored"))
                    .hint("use OpenSSL's names, as in ECDHE-RSA-AES128-GCM-SHA256"),
            );
        } else if !seen.insert(suite) {
            at.index(i).warn(format!("`{suite}` is there twice"));
        }
    }
}

/// How TLS is begun.
pub(super) fn client(namespace: &str, tls: &ClientTlsSettings, at: &mut At<'_>) {
    if let Some(name) = tls.credential_name.strip_prefix("configmap://") {
        let mut parts = name.split('/');
        let (found, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if found.is_empty() || name.is_empty() {
            at.field("credentialName").error(
                Problem::new("a ConfigMap is named by namespace and name")
                    .hint(format!("write `configmap://{namespace}/NAME`")),
            );
        } else if found != namespace {
            at.field("credentialName").error(
                Problem::new(format!("the ConfigMap is in the namespace `{found}`, and this rule in `{namespace}`"))
                    .hint("use a ConfigMap of the rule's own namespace"),
            );
        }
    }
    if tls.insecure_skip_verify == Some(true) {
        unverified(tls, at);
    }
    let by_credential =
        matches!(tls.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual) && !tls.credential_name.is_empty();
    if by_credential {
        let files = [&tls.client_certificate, &tls.private_key, &tls.ca_certificates, &tls.ca_crl];
        if files.iter().any(|file| !file.is_empty()) {
            at.field("credentialName").error(
                Problem::new("certificates are given twice: by credentialName and by file").hint("remove one of them"),
            );
        }
        return;
    }
    if tls.mode == ClientTlsMode::Mutual {
        for (field, what, file) in [
            ("clientCertificate", "certificate", &tls.client_certificate),
            ("privateKey", "private key", &tls.private_key),
        ] {
            if file.is_empty() {
                at.field(field).error(
                    Problem::new(format!("MUTUAL needs the client's {what}"))
                        .hint("name the file here, or a secret in credentialName"),
                );
            }
        }
    }
}

/// What would verify the server contradicts not verifying it.
fn unverified(tls: &ClientTlsSettings, at: &mut At<'_>) {
    let simple = tls.mode == ClientTlsMode::Simple;
    if !simple && tls.mode != ClientTlsMode::Mutual {
        return;
    }
    let fields = [
        ("caCertificates", !tls.ca_certificates.is_empty()),
        ("subjectAltNames", !tls.subject_alt_names.is_empty()),
        // With MUTUAL the credential may hold nothing but the client's certificate.
        ("credentialName", simple && !tls.credential_name.is_empty()),
    ];
    for (field, _) in fields.into_iter().filter(|(_, set)| *set) {
        at.field(field).error(
            Problem::new("this is for verifying the server, which insecureSkipVerify turns off")
                .hint("remove one of the two"),
        );
    }
}
