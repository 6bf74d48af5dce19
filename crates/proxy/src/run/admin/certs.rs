//! `/certs`: the certificates in use; and the workload's own as the configuration dump shows secrets.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maille_identity::x509::PeerCertificate;
use maille_xds::TypeUrl;
use maille_xds::json::timestamp;
use serde_json::{Value, json};

use super::answer::View;

pub(super) fn certs(view: &View<'_>) -> Value {
    let (certificates, roots) = view.assembly.known_materials().in_use();
    let chains =
        certificates.iter().map(|certificate| json!({"ca_cert": [], "cert_chain": [details(&certificate.leaf)]}));
    let trusted = roots.iter().map(|roots| {
        let parsed = roots.certificates().iter().filter_map(|der| PeerCertificate::parse(der).ok());
        json!({"ca_cert": parsed.map(|root| details(&root)).collect::<Vec<_>>(), "cert_chain": []})
    });
    json!({"certificates": chains.chain(trusted).collect::<Vec<_>>()})
}

fn details(certificate: &PeerCertificate) -> Value {
    let names = certificate.uri_sans.iter().map(|uri| json!({"uri": uri}));
    let names = names.chain(certificate.dns_sans.iter().map(|dns| json!({"dns": dns})));
    let names = names.chain(certificate.ip_sans.iter().map(|ip| json!({"ip_address": ip.to_string()})));
    let time = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let left = time(certificate.not_after).duration_since(SystemTime::now()).unwrap_or_default();
    json!({
        "path": "<inline>",
        "serial_number": certificate.serial,
        "subject_alt_names": names.collect::<Vec<_>>(),
        "days_until_expiration": (left.as_secs() / 86_400).to_string(),
        "valid_from": timestamp(time(certificate.not_before)),
        "expiration_time": timestamp(time(certificate.not_after)),
    })
}

/// The workload's own certificate and roots, as if they had been discovered.
pub(super) fn own_secrets(view: &View<'_>) -> Vec<Value> {
    let secret = |name: &str, kind: &str, content: Value| {
        let mut secret = json!({"@type": TypeUrl::Secret.as_str(), "name": name});
        secret[kind] = content;
        json!({"name": name, "version_info": "", "secret": secret})
    };
    let inline = |bytes: &[u8]| json!({"inline_bytes": STANDARD.encode(bytes)});
    let materials = view.assembly.known_materials();
    let certificate = materials.own_certificate().map(|(name, certificate)| {
        let chain = pem(certificate.key.cert.iter().map(|der| der.as_ref()));
        let content = json!({"certificate_chain": inline(chain.as_bytes()), "private_key": inline(b"[redacted]")});
        secret(name, "tls_certificate", content)
    });
    let roots = materials.own_roots().map(|(name, roots)| {
        let trusted = pem(roots.certificates().iter().map(|der| der.as_ref()));
        secret(name, "validation_context", json!({"trusted_ca": inline(trusted.as_bytes())}))
    });
    certificate.into_iter().chain(roots).collect()
}

fn pem<'a>(certificates: impl Iterator<Item = &'a [u8]>) -> String {
    let mut out = String::new();
    for der in certificates {
        out.push_str("-----BEGIN CERTIFICATE-----\n");
        let text = STANDARD.encode(der);
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (line, next) = rest.split_at(rest.len().min(64));
            out.push_str(line);
            out.push('\n');
            rest = next;
        }
        out.push_str("-----END CERTIFICATE-----\n");
    }
    out
}
