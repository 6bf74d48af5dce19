//! `x-forwarded-client-cert`: what the next hop learns of the client's certificate, and from whom such words are taken.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maille_http::{HeaderId, Headers};

use crate::config::{ClientCertDetails, ForwardClientCert};
use crate::tls::TlsInfo;

/// Brings the header into the form that the mode wants. Only who has proven who they are may say who others were.
pub(crate) fn forward(
    mode: ForwardClientCert,
    details: ClientCertDetails,
    tls: Option<&TlsInfo>,
    headers: &mut Headers,
) {
    if mode == ForwardClientCert::AlwaysForwardOnly {
        return;
    }
    let proven = tls.filter(|tls| tls.peer_validated && mode != ForwardClientCert::Sanitize);
    let Some(tls) = proven else {
        headers.remove_id(HeaderId::XForwardedClientCert);
        return;
    };
    if mode == ForwardClientCert::ForwardOnly {
        return;
    }
    // The same for every request of a connection.
    let own = tls.forwarded.get_or_init(|| describe(details, tls).into());
    match headers.get(HeaderId::XForwardedClientCert) {
        Some(said) if mode == ForwardClientCert::AppendForward && !said.is_empty() => {
            let all = [said, b",", own.as_bytes()].concat();
            headers.set_id(HeaderId::XForwardedClientCert, &all);
        }
        _ => headers.set_id(HeaderId::XForwardedClientCert, own.as_bytes()),
    }
}

fn describe(details: ClientCertDetails, tls: &TlsInfo) -> String {
    let Some(peer) = &tls.peer else { return String::new() };
    let mut out: Vec<String> = Vec::new();
    if let Some(local) = &tls.local {
        out.extend(local.uri_sans.iter().map(|uri| format!("By={}", value(uri))));
    }
    out.push(format!("Hash={}", peer.sha256));
    if details.cert {
        out.push(format!("Cert=\"{}\"", encode(&pem(&peer.der))));
    }
    if details.subject {
        out.push(format!("Subject=\"{}\"", peer.subject.replace('\\', "\\\\").replace('"', "\\\"")));
    }
    if details.uri {
        match peer.uri_sans.is_empty() {
            true => out.push("URI=".into()),
            false => out.extend(peer.uri_sans.iter().map(|uri| format!("URI={}", value(uri)))),
        }
    }
    if details.dns {
        out.extend(peer.dns_sans.iter().map(|name| format!("DNS={}", value(name))));
    }
    out.join(";")
}

/// A value that cannot be taken for the next one.
fn value(text: &str) -> String {
    match text.contains([',', ';', '=', '"']) {
        true => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        false => text.into(),
    }
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 3 / 2);
    for b in text.bytes() {
        match b {
            b'-' | b'.' | b'_' | b'~' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => out.push(b.into()),
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use maille_http::Name;
    use maille_identity::x509::PeerCertificate;

    use super::*;

    fn certificate(uri: &str, dns: &[&str]) -> PeerCertificate {
        PeerCertificate {
            uri_sans: vec![uri.into()],
            dns_sans: dns.iter().map(|name| (*name).into()).collect(),
            ip_sans: Vec::new(),
            email_sans: Vec::new(),
            subject: "CN=a \"b\",O=c".into(),
            issuer: "".into(),
            serial: "".into(),
            sha256: "00ff".into(),
            der: Box::from(*b"der"),
            not_before: 0,
            not_after: 0,
        }
    }

    fn tls(validated: bool) -> TlsInfo {
        TlsInfo {
            peer: Some(certificate("spiffe://td/ns/a/sa/b", &["x.example"]).into()),
            peer_validated: validated,
            local: Some(Arc::new(certificate("spiffe://td/ns/own/sa/own", &[]))),
            ..TlsInfo::default()
        }
    }

    /// Nobody's word is taken who has not shown a certificate that was checked and found good.
    #[test]
    fn row_24_who_a_client_says_others_were() {
        use ForwardClientCert::*;
        let details = ClientCertDetails { subject: true, cert: false, chain: false, dns: true, uri: true };
        let own = "By=spiffe://td/ns/own/sa/own;Hash=00ff;Subject=\"CN=a \\\"b\\\",O=c\";URI=spiffe://td/ns/a/sa/b;DNS=x.example";
        let appended = format!("Hash=1,{own}");
        let (plain, proven, unproven) = (None, Some(tls(true)), Some(tls(false)));
        for (mode, tls, want) in [
            (Sanitize, &plain, None),
            (Sanitize, &proven, None),
            (ForwardOnly, &plain, None),
            (ForwardOnly, &unproven, None),
            (ForwardOnly, &proven, Some("Hash=1")),
            (AppendForward, &plain, None),
            (AppendForward, &unproven, None),
            (AppendForward, &proven, Some(&*appended)),
            (SanitizeSet, &plain, None),
            (SanitizeSet, &unproven, None),
            (SanitizeSet, &proven, Some(own)),
            (AlwaysForwardOnly, &plain, Some("Hash=1")),
        ] {
            let mut headers = Headers::new();
            headers.append(&Name::new("x-forwarded-client-cert"), b"Hash=1");
            forward(mode, details, tls.as_ref(), &mut headers);
            let got = headers.get(HeaderId::XForwardedClientCert).map(|v| String::from_utf8_lossy(v).into_owned());
            assert_eq!(got.as_deref(), want, "{mode:?} {}", tls.is_some());
        }
    }

    #[test]
    fn certificates_and_values_that_need_quotes() {
        let details = ClientCertDetails { cert: true, ..ClientCertDetails::default() };
        let pem = "-----BEGIN%20CERTIFICATE-----%0AZGVy%0A-----END%20CERTIFICATE-----%0A";
        assert_eq!(describe(details, &tls(true)), format!("By=spiffe://td/ns/own/sa/own;Hash=00ff;Cert=\"{pem}\""));
        assert_eq!(value("a;URI=b"), "\"a;URI=b\"");
    }
}
