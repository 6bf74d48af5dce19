//! Versions, cipher suites and groups by the names that Envoy and OpenSSL have for them.

use std::sync::Arc;

use maille_identity::verify::provider;
use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, NamedGroup, SupportedProtocolVersion};

use crate::config::{TlsContext, TlsVersion};

/// Cipher suites of TLS 1.2, by OpenSSL's names.
const SUITES: [(&str, CipherSuite); 6] = [
    ("ECDHE-ECDSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-RSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-ECDSA-AES256-GCM-SHA384", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-RSA-AES256-GCM-SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-RSA-CHACHA20-POLY1305", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// Suites without forward secrecy that Istio's own lists end with. They are never offered: whoever lists them lists better
/// ones too, else the list is refused.
const LEFT_OUT: [&str; 2] = ["AES256-GCM-SHA384", "AES128-GCM-SHA256"];

const GROUPS: [(&str, NamedGroup); 4] = [
    ("X25519MLKEM768", NamedGroup::X25519MLKEM768),
    ("X25519", NamedGroup::X25519),
    ("P-256", NamedGroup::secp256r1),
    ("P-384", NamedGroup::secp384r1),
];

/// The name that OpenSSL has for a cipher suite.
pub(crate) fn suite_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => SUITES.iter().find(|(_, suite)| *suite == other).map_or("", |(name, _)| name),
    }
}

/// Parameters of TLS as rustls takes them.
pub(crate) struct Params {
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) versions: Vec<&'static SupportedProtocolVersion>,
}

/// What of a configuration we cannot do: the field, and why.
pub(crate) type Unable = (&'static str, String);

impl Params {
    pub(crate) fn of(tls: &TlsContext) -> Result<Params, Unable> {
        let mut versions = Vec::new();
        if matches!(tls.min_version, TlsVersion::Tls10 | TlsVersion::Tls11) {
            let reason = "TLS before 1.2 is not spoken: it has been withdrawn (RFC 8996)";
            return Err(("tls_minimum_protocol_version", reason.into()));
        }
        if tls.min_version != TlsVersion::Tls13
            && matches!(tls.max_version, TlsVersion::Auto | TlsVersion::Tls12 | TlsVersion::Tls13)
        {
            versions.push(&rustls::version::TLS12);
        }
        if matches!(tls.max_version, TlsVersion::Auto | TlsVersion::Tls13) {
            versions.push(&rustls::version::TLS13);
        }
        if versions.is_empty() {
            return Err(("tls_maximum_protocol_version", "leaves neither TLS 1.2 nor TLS 1.3".into()));
        }
        if tls.cipher_suites.is_empty() && tls.curves.is_empty() {
            return Ok(Params { provider: provider(), versions });
        }
        let mut provider = CryptoProvider::clone(&provider());
        if !tls.cipher_suites.is_empty() {
            let wanted = suites(&tls.cipher_suites)?;
            // Those of TLS 1.3 are not for the list to choose.
            let known = std::mem::take(&mut provider.cipher_suites);
            let newer = known.iter().filter(|suite| suite.tls13().is_some());
            let listed = wanted.iter().filter_map(|wanted| known.iter().find(|suite| suite.suite() == *wanted));
            provider.cipher_suites = newer.chain(listed).copied().collect();
        }
        if !tls.curves.is_empty() {
            let wanted = groups(&tls.curves)?;
            let known = rustls::crypto::aws_lc_rs::ALL_KX_GROUPS;
            let listed = wanted.iter().filter_map(|wanted| known.iter().find(|group| group.name() == *wanted));
            provider.kx_groups = listed.copied().collect();
        }
        Ok(Params { provider: Arc::new(provider), versions })
    }
}

fn suites(names: &[Box<str>]) -> Result<Vec<CipherSuite>, Unable> {
    let mut out = Vec::new();
    // `[A|B]` is a group in which the client chooses.
    let names = names.iter().flat_map(|entry| entry.trim_matches(['[', ']']).split('|'));
    for name in names {
        match SUITES.iter().find(|(known, _)| *known == name) {
            Some((_, suite)) => out.push(*suite),
            None if LEFT_OUT.contains(&name) => {}
            None => {
                let ours: Vec<&str> = SUITES.iter().map(|(name, _)| *name).collect();
                return Err(("cipher_suites", format!("{name} is not supported; there are {}", ours.join(", "))));
            }
        }
    }
    match out.is_empty() {
        true => Err(("cipher_suites", "only suites without forward secrecy are listed; these are not used".into())),
        false => Ok(out),
    }
}

fn groups(names: &[Box<str>]) -> Result<Vec<NamedGroup>, Unable> {
    let find = |name: &str| match GROUPS.iter().find(|(known, _)| *known == name) {
        Some((_, group)) => Ok(*group),
        None => {
            let ours: Vec<&str> = GROUPS.iter().map(|(name, _)| *name).collect();
            Err(("ecdh_curves", format!("{name} is not supported; there are {}", ours.join(", "))))
        }
    };
    names.iter().map(|name| find(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_cannot_do_is_refused_by_name() {
        let list = |names: &[&str]| names.iter().map(|name| Box::from(*name)).collect::<Vec<Box<str>>>();
        let tls = |min, max, suites: &[&str], curves: &[&str]| TlsContext {
            min_version: min,
            max_version: max,
            cipher_suites: list(suites),
            curves: list(curves),
            ..TlsContext::default()
        };
        use TlsVersion::*;
        for (tls, expected) in [
            (tls(Auto, Auto, &[], &[]), Ok(2)),
            (tls(Tls12, Tls12, &[], &[]), Ok(1)),
            (tls(Tls13, Auto, &[], &[]), Ok(1)),
            (tls(Tls12, Tls13, &["[ECDHE-RSA-AES128-GCM-SHA256|ECDHE-RSA-CHACHA20-POLY1305]"], &["X25519"]), Ok(2)),
            (tls(Tls12, Tls13, &["ECDHE-RSA-AES128-GCM-SHA256", "AES128-GCM-SHA256"], &[]), Ok(2)),
            (tls(Tls10, Auto, &[], &[]), Err("tls_minimum_protocol_version")),
            (tls(Tls13, Tls12, &[], &[]), Err("tls_maximum_protocol_version")),
            (tls(Auto, Tls11, &[], &[]), Err("tls_maximum_protocol_version")),
            (tls(Auto, Auto, &["ECDHE-RSA-AES128-SHA"], &[]), Err("cipher_suites")),
            (tls(Auto, Auto, &["AES128-GCM-SHA256"], &[]), Err("cipher_suites")),
            (tls(Auto, Auto, &[], &["P-521"]), Err("ecdh_curves")),
        ] {
            let got = Params::of(&tls).map(|params| params.versions.len()).map_err(|(field, _)| field);
            assert_eq!(got, expected, "{tls:?}");
        }
    }

    #[test]
    fn every_name_is_one_of_ours() {
        let tls = TlsContext {
            cipher_suites: SUITES.iter().map(|(name, _)| Box::from(*name)).collect(),
            curves: GROUPS.iter().map(|(name, _)| Box::from(*name)).collect(),
            ..TlsContext::default()
        };
        let provider = Params::of(&tls).ok().unwrap().provider;
        assert_eq!(provider.kx_groups.len(), GROUPS.len());
        let all = provider.cipher_suites.iter().map(|suite| suite_name(suite.suite()));
        assert_eq!(all.filter(|name| !name.is_empty()).count(), SUITES.len() + 3);
    }
}
